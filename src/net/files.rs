//! Stage 5b: which `.link` files there are: all folders together, in the order of the names, each with
//! its drop-ins; loaded once, asked for every interface.

use std::fs::{self, DirEntry, File};
use std::io::Read;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::condition::Machine;
use super::link_file::{LinkFile, Text, WakePassword};
use super::matching::Candidate;
use super::scheme::Naming;
use super::words::SECURE_ON;
use crate::problem::{Problem, Severity};
use crate::written;

/// Folders of `.link` files below the root; of files of one name, the first folder's counts.
pub const FOLDERS: [&str; 5] = [
    "etc/systemd/network",
    "run/systemd/network",
    "usr/local/lib/systemd/network",
    "usr/lib/systemd/network",
    "lib/systemd/network",
];

/// A `.link` file has some hundred bytes.
const FILE_LIMIT: u64 = 1 << 20;

/// How long somebody who keeps a password may take to tell it.
const PASSWORD_TIME: Duration = Duration::from_secs(5);

/// Every file that counts, and how the machine names interfaces.
#[derive(Clone, Debug, Default)]
pub struct LinkFiles {
    pub files: Vec<LinkFile>,
    pub naming: Naming,
    /// As 32 hexadecimal digits; empty if the machine has none.
    pub machine_id: String,
}

impl LinkFiles {
    /// Reads the files below `root`, and leaves out those whose conditions do not hold.
    #[must_use]
    pub fn load(root: &Path, machine: &Machine) -> (Self, Vec<Problem>) {
        let (all, mut problems) = texts(root);
        let mut files = Vec::new();
        for texts in &all {
            let (file, mut found) = texts.parse();
            problems.append(&mut found);
            let file = file.filter(|file| file.counts_on(machine));
            files.extend(file.map(|mut file| {
                find_password(&mut file, machine, &mut problems);
                file
            }));
        }
        let naming = Naming::of_machine(machine.command_line.as_bytes());
        (Self { files, naming, machine_id: machine.machine_id.clone() }, problems)
    }

    /// The first file that means an interface.
    pub fn of<'a>(
        &self,
        candidate: &Candidate<'_>,
        property: impl Fn(&[u8]) -> Option<&'a [u8]> + Copy,
    ) -> Option<&LinkFile> {
        self.files.iter().find(|file| file.wanted.matches(candidate, property))
    }
}

/// A file and its drop-ins: where they are and what is in them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Texts(pub Vec<(PathBuf, Vec<u8>)>);

impl Texts {
    /// As [`LinkFile::parse`].
    #[must_use]
    pub fn parse(&self) -> (Option<LinkFile>, Vec<Problem>) {
        let texts: Vec<_> = self.0.iter().map(|(path, bytes)| Text { path, bytes }).collect();
        LinkFile::parse(&texts)
    }
}

/// Every file that counts below `root`, in the order in which they are asked; masked ones are left out.
#[must_use]
pub fn texts(root: &Path) -> (Vec<Texts>, Vec<Problem>) {
    let mut problems = Vec::new();
    let mut all = Vec::new();
    for path in find(root, "", ".link", &mut problems) {
        match read(&path) {
            // an empty file masks those of its name in other folders
            Ok(bytes) if bytes.is_empty() => {}
            Ok(bytes) => {
                let mut texts = vec![(path.clone(), bytes)];
                let mut folder = path.file_name().unwrap_or_default().to_owned();
                folder.push(".d");
                for path in find(root, &folder, ".conf", &mut problems) {
                    match read(&path) {
                        Ok(bytes) => texts.push((path, bytes)),
                        Err(problem) => problems.push(*problem),
                    }
                }
                all.push(Texts(texts));
            }
            Err(problem) => problems.push(*problem),
        }
    }
    (all, problems)
}

/// The files of all folders whose name ends so, in the order of their names; `below` is a folder in
/// each of them.
fn find(
    root: &Path,
    below: impl AsRef<Path>,
    end: &str,
    problems: &mut Vec<Problem>,
) -> Vec<PathBuf> {
    let folders = FOLDERS.map(|folder| root.join(folder).join(below.as_ref()));
    // beside a file, a drop-in folder's name may be anything's
    let folders = folders.into_iter().filter(|it| fs::metadata(it).map_or(true, |it| it.is_dir()));
    let counts = |entry: &DirEntry| {
        let file = entry.file_type().is_ok_and(|kind| kind.is_file() || kind.is_symlink());
        file && written::ends(entry, end)
    };
    written::files(folders, counts, problems)
}

fn read(path: &Path) -> Result<Vec<u8>, Box<Problem>> {
    written::read(path, FILE_LIMIT)
}

/// Reads the password that a file or a credential holds, as `WakeOnLanPassword=` says.
fn find_password(file: &mut LinkFile, machine: &Machine, problems: &mut Vec<Problem>) {
    let settings = &mut file.settings;
    let secure = settings.wake.is_some_and(|wake| wake & SECURE_ON != 0);
    let found = match settings.wake_password.take() {
        Some(WakePassword::File(path)) => {
            let password = password(&path);
            if password.is_none() {
                let what = format!("a password such as aa:bb:cc:dd:ee:ff in {path:?} wanted");
                problems.push(Problem::whole(&file.path, Severity::Warning, what));
            }
            password
        }
        Some(password) => Some(password),
        None if secure => {
            let name = file.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let names = [format!("{name}.wol.password"), "wol.password".to_owned()];
            let folders = machine.credentials.iter();
            let paths = folders.flat_map(|folder| names.iter().map(|name| folder.join(name)));
            paths.filter_map(|path| password(&path)).next()
        }
        None => None,
    };
    settings.wake_password = found;
    if let (Some(wake), Some(_)) = (&mut settings.wake, &settings.wake_password) {
        *wake |= SECURE_ON;
    }
}

fn password(path: &Path) -> Option<WakePassword> {
    const LENGTH: u64 = 64;
    let mut text = String::new();
    let kind = fs::metadata(path).ok()?.file_type();
    if kind.is_socket() {
        let socket = UnixStream::connect(path).ok()?;
        socket.set_read_timeout(Some(PASSWORD_TIME)).ok()?;
        socket.take(LENGTH).read_to_string(&mut text).ok()?;
    } else if kind.is_file() {
        File::open(path).ok()?.take(LENGTH).read_to_string(&mut text).ok()?;
    }
    WakePassword::parse(text.trim())
}
