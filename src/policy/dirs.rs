//! Stage 4b: which policy files there are: all folders together in the order of the names, higher folders first.

use std::ffi::OsString;
use std::fs::{self, DirEntry, Metadata};
use std::path::{Path, PathBuf};

use crate::rules::problem::{Problem, Severity, Source};
use crate::written;

/// A policy is written by hand; a larger file is a mistake.
const FILE_LIMIT: u64 = 4 << 20;

/// A policy file to be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyFile {
    pub name: OsString,
    pub path: PathBuf,
}

/// All `*.toml` of `dirs` that hold, sorted by name; folders that are missing are as empty ones.
#[must_use]
pub fn policy_files(dirs: &[PathBuf]) -> (Vec<PolicyFile>, Vec<Problem>) {
    let mut problems = Vec::new();
    // the daemon's own file of run-time changes is no policy of the administrator's
    let counts = |entry: &DirEntry| {
        let named = entry.path().extension().is_some_and(|extension| extension == "toml");
        named && entry.file_name() != super::grants::FILE
    };
    let mut files = Vec::new();
    for path in written::files(dirs.to_vec(), counts, &mut problems) {
        let name = path.file_name().unwrap_or_default().to_owned();
        match fs::metadata(&path) {
            Ok(meta) if masked(&meta) => {}
            Ok(meta) if meta.is_file() => files.push(PolicyFile { name, path }),
            Ok(_) => {
                let what = "a regular file wanted; an empty file or a link to /dev/null masks";
                problems.push(Problem::whole(&path, Severity::Error, what));
            }
            Err(error) => problems.push(unreadable(&path, &error)),
        }
    }
    (files, problems)
}

/// An empty file, or a link to /dev/null (the only character device anyone puts there).
fn masked(meta: &Metadata) -> bool {
    use std::os::unix::fs::FileTypeExt;
    (meta.is_file() && meta.len() == 0) || meta.file_type().is_char_device()
}

/// The text of a policy file; a problem instead if it cannot be had.
pub(super) fn read(path: &Path, problems: &mut Vec<Problem>) -> Option<String> {
    let bytes = match written::read(path, FILE_LIMIT) {
        Ok(bytes) => bytes,
        Err(problem) => {
            problems.push(*problem);
            return None;
        }
    };
    match String::from_utf8(bytes) {
        Ok(text) => Some(text),
        Err(error) => {
            let place = error.utf8_error().valid_up_to();
            let what = "UTF-8 wanted, as TOML prescribes";
            let source = Source::new(path, error.as_bytes());
            problems.push(source.problem(place..place + 1, Severity::Error, what));
            None
        }
    }
}

fn unreadable(path: &Path, error: &std::io::Error) -> Problem {
    Problem::whole(path, Severity::Error, format!("cannot be read: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn tree() -> (tempfile::TempDir, Vec<PathBuf>) {
        let root = tempfile::tempdir().unwrap();
        let config = Config {
            runtime: root.path().join("run/mapdev"),
            root: root.path().into(),
            ..Config::default()
        };
        let dirs = config.policy_folders();
        for dir in &dirs {
            fs::create_dir_all(dir).unwrap();
        }
        (root, dirs)
    }

    fn names(dirs: &[PathBuf]) -> Vec<String> {
        let (files, problems) = policy_files(dirs);
        assert_eq!(problems, []);
        let root = dirs[0].ancestors().nth(3).unwrap();
        files.iter().map(|f| f.path.strip_prefix(root).unwrap().display().to_string()).collect()
    }

    #[test]
    fn files_are_sorted_by_name_whatever_their_folder() {
        let (_root, dirs) = tree();
        fs::write(dirs[0].join("50-b.toml"), "#").unwrap();
        fs::write(dirs[4].join("60-c.toml"), "#").unwrap();
        fs::write(dirs[3].join("10-a.toml"), "#").unwrap();
        fs::write(dirs[1].join("note.txt"), "#").unwrap();
        let wanted = [
            "usr/local/lib/mapdev/policy.d/10-a.toml",
            "etc/mapdev/policy.d/50-b.toml",
            "usr/lib/mapdev/policy.d/60-c.toml",
        ];
        assert_eq!(names(&dirs), wanted);
    }

    #[test]
    fn a_higher_folder_replaces_and_masks() {
        let (_root, dirs) = tree();
        for name in ["a.toml", "b.toml", "c.toml"] {
            fs::write(dirs[4].join(name), "#").unwrap();
        }
        fs::write(dirs[1].join("a.toml"), "#").unwrap();
        fs::write(dirs[0].join("b.toml"), "").unwrap();
        std::os::unix::fs::symlink("/dev/null", dirs[3].join("c.toml")).unwrap();
        assert_eq!(names(&dirs), ["run/mapdev/policy.d/a.toml"]);
    }

    #[test]
    fn a_file_that_is_no_text_is_a_problem_with_its_place() {
        let (_root, dirs) = tree();
        let path = dirs[0].join("x.toml");
        fs::write(&path, b"schema = 1\n# \xff\n").unwrap();
        let mut problems = Vec::new();
        assert_eq!(read(&path, &mut problems), None);
        assert_eq!((problems[0].line, problems[0].column), (2, 3));
    }

    #[test]
    fn a_folder_or_a_dangling_link_is_a_problem() {
        let (_root, dirs) = tree();
        fs::create_dir(dirs[0].join("a.toml")).unwrap();
        std::os::unix::fs::symlink("nowhere", dirs[0].join("b.toml")).unwrap();
        let (files, problems) = policy_files(&dirs);
        assert_eq!((files.len(), problems.len()), (0, 2));
    }
}
