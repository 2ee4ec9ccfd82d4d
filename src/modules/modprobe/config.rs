//! Stage 3b: the files of modprobe.d(5) and the kernel's command line in, [`Config`] out.
//!
//! A mistake costs its line and is a [`Problem`]; everything else holds.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{self, ErrorKind, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use super::cmdline::{self, Said};
use super::lines::{self, Line, Words, normalized};
use crate::glob::fnmatch;
use crate::problem::{Problem, Severity, Source};

/// Below the root, highest first; `usr/lib` before `lib`, which is a link to it on most machines.
const FOLDERS: [&str; 5] = [
    "etc/modprobe.d",
    "run/modprobe.d",
    "usr/local/lib/modprobe.d",
    "usr/lib/modprobe.d",
    "lib/modprobe.d",
];
/// These files are written by hand; a larger one is a mistake.
const FILE_LIMIT: u64 = 4 << 20;
/// The longest install commands of distributions have some hundred bytes.
const LINE_LIMIT: usize = 64 << 10;
/// The kernel's own list of soft dependencies takes its place among the files by this name.
const SOFTDEPS: &str = "modules.softdep";
const COMMANDS: [&str; 6] = ["alias", "blacklist", "install", "options", "remove", "softdep"];

/// `softdep` of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Softdep {
    pub(super) module: Vec<u8>,
    pub(super) text: Vec<u8>,
    /// The file comes before the kernel's own list.
    pub(super) first: bool,
}

/// What files and command line say about loading, in their order.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// Pattern and module.
    pub(super) aliases: Vec<(Vec<u8>, Vec<u8>)>,
    pub(super) blacklist: Vec<Vec<u8>>,
    pub(super) options: Vec<(Vec<u8>, Vec<u8>)>,
    /// Pattern of modules, and command.
    pub(super) install: Vec<(Vec<u8>, Vec<u8>)>,
    pub(super) remove: Vec<(Vec<u8>, Vec<u8>)>,
    pub(super) softdeps: Vec<Softdep>,
    refused: Vec<Vec<u8>>,
    problems: Vec<Problem>,
}

impl Config {
    /// Reads the folders of modprobe.d below `root`, and takes `cmdline`, the kernel's command line.
    #[must_use]
    pub fn read(root: &Path, cmdline: &[u8]) -> Self {
        Self::of_folders(&FOLDERS.map(|folder| root.join(folder)), cmdline)
    }

    /// Reads these folders; of files with one name, that of the first folder holds.
    #[must_use]
    pub fn of_folders(folders: &[PathBuf], cmdline: &[u8]) -> Self {
        let mut config = Self::default();
        for (name, path) in config.files(folders) {
            match contents(&path) {
                Ok(bytes) => config.add_file(&name, &path, &bytes),
                Err(what) => config.problems.push(Problem::whole(&path, Severity::Error, what)),
            }
        }
        let Said { options, blacklist, refused } = cmdline::read(cmdline);
        config.options.extend(options);
        config.blacklist.extend(blacklist);
        config.refused = refused;
        config
    }

    /// What is wrong in the files.
    #[must_use]
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }

    /// Whether `blacklist` or `modprobe.blacklist=` names the module.
    #[must_use]
    pub fn is_blacklisted(&self, module: &[u8]) -> bool {
        self.blacklist.iter().any(|name| name == module)
    }

    /// Whether the kernel itself refuses the module: `module_blacklist=` on its command line.
    #[must_use]
    pub fn is_refused(&self, module: &[u8]) -> bool {
        self.refused.iter().any(|name| name == module)
    }

    /// The modules that `alias` gives for a name, with the pattern that matched.
    pub fn aliases_of(&self, name: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
        let name = normalized(name);
        let matches =
            move |pattern: &[u8]| name.as_ref().is_some_and(|name| fnmatch(pattern, name));
        let aliases = self.aliases.iter().map(|(pattern, module)| (&**pattern, &**module));
        aliases.filter(move |(pattern, _)| matches(pattern))
    }

    /// The command that is run instead of loading a module.
    #[must_use]
    pub fn install_command(&self, module: &[u8]) -> Option<&[u8]> {
        command_of(&self.install, module)
    }

    /// The command that is run instead of removing a module.
    #[must_use]
    pub fn remove_command(&self, module: &[u8]) -> Option<&[u8]> {
        command_of(&self.remove, module)
    }

    /// All files that hold, sorted by name.
    fn files(&mut self, folders: &[PathBuf]) -> BTreeMap<OsString, PathBuf> {
        let mut found = BTreeMap::new();
        for folder in folders {
            let entries = match fs::read_dir(folder) {
                Ok(entries) => entries,
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                Err(error) => {
                    self.problems.push(Problem::whole(folder, Severity::Error, unreadable(&error)));
                    continue;
                }
            };
            for entry in entries.flatten() {
                let name = entry.file_name();
                let bytes = name.as_bytes();
                let ends = bytes.ends_with(b".conf") || bytes.ends_with(b".alias");
                if ends && !bytes.starts_with(b".") {
                    found.entry(name).or_insert_with(|| entry.path());
                }
            }
        }
        found
    }

    fn add_file(&mut self, name: &OsStr, path: &Path, bytes: &[u8]) {
        let source = Source::new(path, bytes);
        let first = name < OsStr::new(SOFTDEPS);
        for line in lines::lines(bytes) {
            if let Err(what) = self.add_line(&line, first) {
                let leading = line.text.iter().take_while(|byte| matches!(byte, b' ' | b'\t'));
                let start = line.start + leading.count();
                let word = Words::of(&line.text).next().unwrap_or_default();
                let problem = source.problem(start..start + word.len(), Severity::Error, what);
                let word = String::from_utf8_lossy(word);
                let known = COMMANDS.contains(&&*word) || word.starts_with('#');
                self.problems.push(if known { problem } else { problem.suggest(&word, COMMANDS) });
            }
        }
    }

    /// Adds a line, or says what was wanted.
    fn add_line(&mut self, line: &Line, first: bool) -> Result<(), String> {
        if line.text.len() > LINE_LIMIT {
            return Err(format!("a line of at most {} KiB wanted", LINE_LIMIT >> 10));
        }
        let text = line.text.split(|byte| *byte == 0).next().unwrap_or_default();
        let mut words = Words::of(text);
        let Some(command) = words.next().filter(|_| text.first() != Some(&b'#')) else {
            return Ok(());
        };
        let name = |word: Option<&[u8]>, form: &str| {
            let word = word.ok_or_else(|| format!("`{form}` wanted"))?;
            let what = || format!("`{form}` wanted, with a `]` for each `[`");
            normalized(word).ok_or_else(what)
        };
        let rest = |words: Words<'_>, form: &str| {
            words.rest().map(<[u8]>::to_vec).ok_or_else(|| format!("`{form}` wanted"))
        };
        match command {
            b"alias" => {
                let pattern = name(words.next(), "alias PATTERN MODULE")?;
                self.aliases.push((pattern, name(words.next(), "alias PATTERN MODULE")?));
            }
            b"blacklist" => self.blacklist.push(name(words.next(), "blacklist MODULE")?),
            b"options" => {
                const FORM: &str = "options MODULE OPTION=VALUE";
                let module = name(words.next(), FORM)?;
                let mut options = rest(words, FORM)?;
                options.iter_mut().filter(|byte| **byte == b'\t').for_each(|byte| *byte = b' ');
                self.options.push((module, options));
            }
            b"install" => {
                let module = name(words.next(), "install MODULE COMMAND")?;
                self.install.push((module, rest(words, "install MODULE COMMAND")?));
            }
            b"remove" => {
                let module = name(words.next(), "remove MODULE COMMAND")?;
                self.remove.push((module, rest(words, "remove MODULE COMMAND")?));
            }
            b"softdep" => {
                const FORM: &str = "softdep MODULE pre: MODULES post: MODULES";
                let module = name(words.next(), FORM)?;
                self.softdeps.push(Softdep { module, text: rest(words, FORM)?, first });
            }
            b"weakdep" => {
                return Err(
                    "`weakdep` is for tools that make an initramfs; it loads nothing".to_owned()
                );
            }
            b"include" | b"config" => {
                let command = String::from_utf8_lossy(command);
                return Err(format!(
                    "`{command}` is not read any more: move the file to modprobe.d"
                ));
            }
            _ if command.starts_with(b"#") => {
                return Err("a comment's `#` as the first character of the line wanted".to_owned());
            }
            _ => return Err(format!("one of {} wanted", COMMANDS.join(", "))),
        }
        Ok(())
    }
}

fn command_of<'c>(commands: &'c [(Vec<u8>, Vec<u8>)], module: &[u8]) -> Option<&'c [u8]> {
    let found = commands.iter().find(|(pattern, _)| fnmatch(pattern, module));
    found.map(|(_, command)| &**command)
}

fn contents(path: &Path) -> Result<Vec<u8>, String> {
    let kind = fs::metadata(path).map_err(|error| unreadable(&error))?.file_type();
    // a link to /dev/null masks
    if kind.is_char_device() {
        return Ok(Vec::new());
    }
    // asked before the file is opened: opening a FIFO would wait
    if !kind.is_file() {
        return Err("a regular file wanted, or a link to /dev/null".to_owned());
    }
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(FILE_LIMIT + 1).read_to_end(&mut bytes));
    read.map_err(|error| unreadable(&error))?;
    if bytes.len() as u64 > FILE_LIMIT {
        return Err(format!("file is larger than {} MiB", FILE_LIMIT >> 20));
    }
    Ok(bytes)
}

fn unreadable(error: &io::Error) -> String {
    format!("cannot be read: {error}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(files: &[(&str, &str)]) -> (tempfile::TempDir, Config) {
        let root = tempfile::tempdir().unwrap();
        for folder in FOLDERS {
            fs::create_dir_all(root.path().join(folder)).unwrap();
        }
        for (name, text) in files {
            let path = root.path().join(name);
            if *text == "/dev/null" {
                std::os::unix::fs::symlink(text, path).unwrap();
            } else {
                fs::write(path, text).unwrap();
            }
        }
        let config = Config::read(root.path(), b"");
        (root, config)
    }

    #[test]
    fn a_higher_folder_replaces_and_masks() {
        let (_root, config) = written(&[
            ("usr/lib/modprobe.d/a.conf", "blacklist a1\n"),
            ("run/modprobe.d/a.conf", "blacklist a2\n"),
            ("lib/modprobe.d/b.conf", "blacklist b\n"),
            ("etc/modprobe.d/b.conf", "/dev/null"),
            ("usr/local/lib/modprobe.d/0.conf", "blacklist c\n"),
        ]);
        assert_eq!(config.blacklist, [b"c".to_vec(), b"a2".to_vec()]);
        assert_eq!(config.problems, []);
    }

    #[test]
    fn a_mistake_costs_its_line_and_is_shown_with_its_place() {
        let text =
            "blacklist a\n  aliass x y\nalias \\\n x\nweakdep a b\nblacklist b[\nblacklist c\n";
        let (root, config) = written(&[("etc/modprobe.d/x.conf", text)]);
        assert_eq!(config.blacklist, [b"a".to_vec(), b"c".to_vec()]);
        let start = root.path().join("etc/modprobe.d/x.conf").display().to_string();
        let shown = config.problems.iter().map(|p| p.to_string().replace(&start, "x"));
        let wanted = [
            "x:2:3: error: one of alias, blacklist, install, options, remove, softdep wanted; \
             did you mean \"alias\"?",
            "x:3:1: error: `alias PATTERN MODULE` wanted",
            "x:5:1: error: `weakdep` is for tools that make an initramfs; it loads nothing",
            "x:6:1: error: `blacklist MODULE` wanted, with a `]` for each `[`",
        ];
        assert_eq!(shown.collect::<Vec<_>>(), wanted);
    }

    #[test]
    fn no_file_is_too_much() {
        let large = "#".repeat(usize::try_from(FILE_LIMIT).unwrap() + 1);
        let long = format!("blacklist {}\nblacklist a\n", "x".repeat(LINE_LIMIT));
        let (root, config) =
            written(&[("etc/modprobe.d/a.conf", &large), ("etc/modprobe.d/b.conf", &long)]);
        assert_eq!(config.blacklist, [b"a".to_vec()]);
        let shown: Vec<_> = config.problems.iter().map(|problem| problem.what.as_str()).collect();
        assert_eq!(shown, ["file is larger than 4 MiB", "a line of at most 64 KiB wanted"]);
        let fifo = root.path().join("etc/modprobe.d/c.conf");
        rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, rustix::fs::Mode::RWXU).unwrap();
        assert_eq!(Config::read(root.path(), b"").problems.len(), 3);
    }
}
