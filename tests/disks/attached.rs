//! An image as a disk of this machine, for as long as the test wants it.

use std::fs::{self, File};
use std::path::Path;
use std::process::Command;

use mapdev::builtin::{Builtin, Call, Kit, Pair, Ran};
use mapdev::device::{Device, Sysfs};
use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};

/// A loop device. It goes with the last descriptor, however the test ends.
#[derive(Debug)]
pub(crate) struct Attached {
    pub(crate) name: String,
    _open: File,
}

impl Attached {
    pub(crate) fn new(image: &Path) -> Self {
        let output = run("losetup", &["--find", "--show", "--partscan", image.to_str().unwrap()]);
        let node = output.trim().to_owned();
        let open = File::open(&node).unwrap();
        // while somebody has it open, it is only marked to go
        run("losetup", &["--detach", &node]);
        Self { name: node.trim_start_matches("/dev/").to_owned(), _open: open }
    }

    /// Its partitions, which this kernel may not find by itself.
    pub(crate) fn partitions(&self) -> Vec<String> {
        drop(Command::new("partx").args(["--add", &format!("/dev/{}", self.name)]).output());
        let entries = fs::read_dir(format!("/sys/block/{}", self.name)).unwrap().flatten();
        let names = entries.map(|entry| entry.file_name().into_string().unwrap());
        let mut names: Vec<_> = names.filter(|name| name.starts_with(&self.name)).collect();
        names.sort();
        for name in &names {
            make_node(name);
        }
        names
    }
}

/// Makes the node of a block device.
fn make_node(name: &str) {
    let number = fs::read_to_string(format!("/sys/class/block/{name}/dev")).unwrap();
    let (major, minor) = number.trim().split_once(':').unwrap();
    let number = makedev(major.parse().unwrap(), minor.parse().unwrap());
    let path = format!("/dev/{name}");
    drop(fs::remove_file(&path));
    mknodat(CWD, path.as_str(), FileType::BlockDevice, Mode::from_raw_mode(0o600), number).unwrap();
}

fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {said}");
    String::from_utf8(output.stdout).unwrap()
}

pub(crate) fn device(name: &str) -> Device {
    let sysfs = Sysfs::new("/sys");
    let devpath = sysfs.follow(format!("/class/block/{name}").as_bytes()).unwrap();
    Device::at(&sysfs, &devpath).unwrap()
}

/// What we find out with a command; `None` if it fails.
pub(crate) fn ours(kit: &Kit, name: &str, command: &str) -> Option<Vec<String>> {
    let words: Vec<_> = command.split(' ').map(|word| word.as_bytes().to_vec()).collect();
    let device = device(name);
    let call = Call { device: &device, properties: &[], words: &words };
    match kit.run(Builtin::Blkid, &call) {
        Ran::Done(pairs) => Some(lines(&pairs)),
        Ran::Broken(pairs) => panic!("{name}: {:?}", lines(&pairs)),
        Ran::Failed => None,
        Ran::Skipped => panic!("not tried"),
    }
}

pub(crate) fn lines(pairs: &[Pair]) -> Vec<String> {
    let line = |(key, value): &Pair| format!("{}={}", key.escape_ascii(), value.escape_ascii());
    let mut lines: Vec<_> = pairs.iter().map(line).collect();
    lines.sort();
    lines
}

/// What `udevadm test-builtin` finds out; `None` if it fails.
pub(crate) fn theirs(name: &str, command: &str) -> Option<Vec<String>> {
    let path = format!("/sys/class/block/{name}");
    let output = Command::new("udevadm").args(["test-builtin", command, &path]).output().unwrap();
    let said = output.stdout.strip_suffix(b"\n").unwrap_or(&output.stdout);
    let said = said.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    let mut lines: Vec<_> = said.map(|line| line.escape_ascii().to_string()).collect();
    lines.sort();
    output.status.success().then_some(lines)
}
