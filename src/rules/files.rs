//! Stage 4: which rules files there are: all folders together, in the order of the names.

use std::path::{Path, PathBuf};

use crate::rules::problem::Problem;
use crate::written;

/// Folders of rules below the root; of files of one name, the first folder's counts.
pub const FOLDERS: [&str; 5] = [
    "etc/udev/rules.d",
    "run/udev/rules.d",
    "usr/local/lib/udev/rules.d",
    "usr/lib/udev/rules.d",
    "lib/udev/rules.d",
];

/// The largest file of rules that is shipped has some 600 KiB.
const FILE_LIMIT: u64 = 16 << 20;

/// A rules file and its text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Text {
    pub path: PathBuf,
    pub bytes: Vec<u8>,
}

/// Every `*.rules` file that counts, with its text; masked ones are left out.
#[must_use]
pub fn texts(root: &Path) -> (Vec<Text>, Vec<Problem>) {
    let (mut texts, mut problems) = (Vec::new(), Vec::new());
    let folders = FOLDERS.map(|folder| root.join(folder));
    for path in written::files(folders, |entry| written::ends(entry, ".rules"), &mut problems) {
        match read(&path) {
            Ok(bytes) if bytes.is_empty() => {}
            Ok(bytes) => texts.push(Text { path, bytes }),
            Err(problem) => problems.push(*problem),
        }
    }
    (texts, problems)
}

/// The text of one file; an empty one for a file that masks others.
///
/// # Errors
/// With what was wrong, when it cannot be read or is no file.
pub fn read(path: &Path) -> Result<Vec<u8>, Box<Problem>> {
    written::read(path, FILE_LIMIT)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    fn root() -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for folder in FOLDERS {
            fs::create_dir_all(root.path().join(folder)).unwrap();
        }
        root
    }

    fn shown(root: &Path) -> Vec<String> {
        let (texts, problems) = texts(root);
        assert_eq!(problems, []);
        texts.iter().map(|t| t.path.strip_prefix(root).unwrap().display().to_string()).collect()
    }

    #[test]
    fn files_of_all_folders_are_sorted_by_name_and_a_higher_folder_replaces() {
        let root = root();
        let write = |folder: usize, name: &str| {
            fs::write(root.path().join(FOLDERS[folder]).join(name), "#\n").unwrap();
        };
        for (folder, name) in [(0, "50-b.rules"), (3, "50-b.rules"), (3, "10-a.rules")] {
            write(folder, name);
        }
        for (folder, name) in [(1, "60-c.rules"), (2, "60-c.rules"), (4, "70-d.rules")] {
            write(folder, name);
        }
        for name in [".50-x.rules", "50-x.rules~", "README", "50-b.rules.dpkg-new"] {
            write(0, name);
        }
        let wanted = [
            "usr/lib/udev/rules.d/10-a.rules",
            "etc/udev/rules.d/50-b.rules",
            "run/udev/rules.d/60-c.rules",
            "lib/udev/rules.d/70-d.rules",
        ];
        assert_eq!(shown(root.path()), wanted);
    }

    #[test]
    fn an_empty_file_and_a_link_to_null_mask() {
        let root = root();
        for name in ["a.rules", "b.rules"] {
            fs::write(root.path().join(FOLDERS[3]).join(name), "#\n").unwrap();
        }
        fs::write(root.path().join(FOLDERS[0]).join("a.rules"), "").unwrap();
        symlink("/dev/null", root.path().join(FOLDERS[1]).join("b.rules")).unwrap();
        assert_eq!(shown(root.path()), Vec::<String>::new());
    }

    #[test]
    fn what_cannot_be_read_is_told_and_hides_nothing_else() {
        let root = root();
        fs::create_dir(root.path().join(FOLDERS[0]).join("a.rules")).unwrap();
        symlink("nowhere", root.path().join(FOLDERS[0]).join("b.rules")).unwrap();
        fs::write(root.path().join(FOLDERS[0]).join("c.rules"), "#\n").unwrap();
        let (texts, problems) = texts(root.path());
        assert_eq!((texts.len(), problems.len()), (1, 2));
    }

    #[test]
    fn without_folders_there_are_no_rules() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(texts(root.path()), (Vec::new(), Vec::new()));
    }
}
