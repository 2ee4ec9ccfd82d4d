//! Reads sysfs below a root that can be replaced: a recording, a test's folder, a container's.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{ErrorKind, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{FsWord, Mode, OFlags, statfs};
use rustix::io::Errno;

/// What one read of an attribute returns at most: sysfs shows one page, a recording may hold more.
const ATTRIBUTE_MAX: u64 = 64 * 1024;

/// `SYSFS_MAGIC` of `linux/magic.h`.
const SYSFS_MAGIC: FsWord = 0x6265_6572;

/// An attribute is a page at most; a file that is shorter than that was read at once.
const PAGE: usize = 4096;

/// The sysfs mount, usually `/sys`. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Sysfs {
    root: Arc<Path>,
    /// It is the kernel's, not a recording.
    is_kernels: bool,
}

/// Up to [`ATTRIBUTE_MAX`] bytes of a file, with one call where these are less than a page.
fn whole(mut file: &File) -> Option<Vec<u8>> {
    let mut page = [0; PAGE];
    let length = loop {
        match file.read(&mut page) {
            Ok(length) => break length,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => return None,
        }
    };
    let mut value = page.get(..length)?.to_vec();
    if length == PAGE {
        file.take(ATTRIBUTE_MAX - PAGE as u64).read_to_end(&mut value).ok()?;
    }
    Some(value)
}

impl Sysfs {
    #[must_use]
    pub fn new(root: impl Into<PathBuf>) -> Self {
        let root: Arc<Path> = root.into().into();
        let kind = statfs(&*root).map(|stat| stat.f_type);
        Self { root, is_kernels: kind.is_ok_and(|kind| kind == SYSFS_MAGIC) }
    }

    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The absolute path of `devpath`, which begins with a slash.
    #[must_use]
    pub fn syspath(&self, devpath: &[u8]) -> PathBuf {
        let below = devpath.strip_prefix(b"/").unwrap_or(devpath);
        self.root.join(OsStr::from_bytes(below))
    }

    /// A number that tells a device from a later one at the same path; `None` if there is none.
    ///
    /// It is the inode number of the device's directory, which sysfs does not use again
    /// (`kernfs_new_node` in `fs/kernfs/dir.c` counts on).
    #[must_use]
    pub fn instance(&self, devpath: &[u8]) -> Option<u64> {
        fs::metadata(self.syspath(devpath)).ok().filter(fs::Metadata::is_dir).map(|m| m.ino())
    }

    /// An attribute's content up to a NUL, less its trailing newlines; `None` if it is missing, is no
    /// file, or its owner may not read it.
    ///
    /// Of the links `driver`, `subsystem` and `module` the target's last element; no other link is
    /// followed.
    #[must_use]
    pub fn attribute(&self, devpath: &[u8], name: &[u8]) -> Option<Box<[u8]>> {
        // a name from a rule is below the device, however it begins
        let below = name.iter().position(|byte| *byte != b'/')?;
        let path = self.syspath(devpath).join(OsStr::from_bytes(&name[below..]));
        // opening may block on a fifo, and a link is not to be followed
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = match rustix::fs::open(&path, flags, Mode::empty()) {
            Ok(file) => File::from(file),
            Err(Errno::LOOP) if matches!(name, b"driver" | b"subsystem" | b"module") => {
                return self.link_name(devpath, name).map(Vec::into_boxed_slice);
            }
            Err(_) => return None,
        };
        // the kernel's own sysfs refuses to open what has no right to be read (`kernfs_fop_open`)
        if !self.is_kernels {
            let meta = file.metadata().ok()?;
            if meta.is_dir() || meta.mode() & Mode::RUSR.bits() == 0 {
                return None;
            }
        }
        let mut value = whole(&file)?;
        value.truncate(value.iter().position(|byte| *byte == 0).unwrap_or(value.len()));
        while matches!(value.last(), Some(b'\n' | b'\r')) {
            value.pop();
        }
        Some(value.into())
    }

    /// Whether an attribute that cannot be read is not there, or not for us; else something is in its place.
    #[must_use]
    pub fn is_absent(&self, devpath: &[u8], name: &[u8]) -> bool {
        let below = name.iter().position(|byte| *byte != b'/').unwrap_or(name.len());
        match fs::symlink_metadata(self.syspath(devpath).join(OsStr::from_bytes(&name[below..]))) {
            Ok(meta) => meta.is_file() && meta.mode() & Mode::RUSR.bits() == 0,
            Err(error) => {
                matches!(error.kind(), ErrorKind::NotFound | ErrorKind::PermissionDenied)
            }
        }
    }

    /// The first `limit` bytes of a binary attribute such as `descriptors`.
    #[must_use]
    pub fn bytes(&self, devpath: &[u8], name: &[u8], limit: u64) -> Option<Vec<u8>> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let path = self.syspath(devpath).join(OsStr::from_bytes(name));
        let file = File::from(rustix::fs::open(path, flags, Mode::empty()).ok()?);
        let mut value = Vec::new();
        file.take(limit).read_to_end(&mut value).ok()?;
        Some(value)
    }

    fn read(&self, path: &Path) -> Option<Vec<u8>> {
        whole(&File::open(path).ok()?)
    }

    /// The last element of a link's target: `driver`, `subsystem`, `module`.
    #[must_use]
    pub fn link_name(&self, devpath: &[u8], link: &[u8]) -> Option<Vec<u8>> {
        let target = fs::read_link(self.syspath(devpath).join(OsStr::from_bytes(link))).ok()?;
        target.file_name().map(|name| name.as_bytes().to_vec())
    }

    /// The lines of the `uevent` file; `None` if there is no such device.
    #[must_use]
    pub fn uevent(&self, devpath: &[u8]) -> Option<Vec<u8>> {
        self.read(&self.syspath(devpath).join("uevent"))
    }

    /// The kernel's count of uevents so far; 1 where the tree does not tell.
    #[must_use]
    pub fn seqnum(&self) -> u64 {
        let text = self.attribute(b"/kernel", b"uevent_seqnum").unwrap_or_default();
        std::str::from_utf8(&text).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(1)
    }

    /// Names in a directory below the root, unsorted; empty if it is not there.
    #[must_use]
    pub fn names(&self, devpath: &[u8]) -> Vec<Vec<u8>> {
        let Ok(entries) = fs::read_dir(self.syspath(devpath)) else { return Vec::new() };
        entries.flatten().map(|entry| entry.file_name().as_bytes().to_vec()).collect()
    }

    /// The devpath that a link below the root leads to, without looking at the target.
    ///
    /// Sysfs links are relative (`../../devices/…`) and stay inside; anything else is `None`.
    #[must_use]
    pub fn follow(&self, link: &[u8]) -> Option<Vec<u8>> {
        let path = self.syspath(link);
        let Ok(target) = fs::read_link(&path) else {
            return path.is_dir().then(|| link.to_vec());
        };
        let mut stack: Vec<&[u8]> = link.split(|b| *b == b'/').filter(|s| !s.is_empty()).collect();
        stack.pop();
        if target.is_absolute() {
            let inside = target.strip_prefix(&self.root).ok()?;
            return Some([b"/", inside.as_os_str().as_bytes()].concat());
        }
        for part in target.as_os_str().as_bytes().split(|b| *b == b'/') {
            match part {
                b"" | b"." => {}
                b".." => drop(stack.pop()?),
                name => stack.push(name),
            }
        }
        Some(stack.iter().flat_map(|part| [b"/".as_slice(), part].concat()).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    #[test]
    fn links_are_followed_inside_the_root_only() {
        let dir = tempfile::tempdir().unwrap();
        let sysfs = Sysfs::new(dir.path());
        fs::create_dir_all(dir.path().join("class/mem")).unwrap();
        symlink("../../devices/virtual/mem/null", dir.path().join("class/mem/null")).unwrap();
        symlink("../../../../etc", dir.path().join("class/mem/out")).unwrap();
        symlink("/etc", dir.path().join("class/mem/absolute")).unwrap();
        assert_eq!(sysfs.follow(b"/class/mem/null").unwrap(), b"/devices/virtual/mem/null");
        assert_eq!(sysfs.follow(b"/class/mem/out"), None);
        assert_eq!(sysfs.follow(b"/class/mem/absolute"), None);
        assert_eq!(sysfs.follow(b"/class/mem/missing"), None);
    }

    #[test]
    fn attributes_lose_their_trailing_newlines_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("dev")).unwrap();
        fs::write(dir.path().join("dev/model"), b"\xff disk \n\n").unwrap();
        let sysfs = Sysfs::new(dir.path());
        assert_eq!(&*sysfs.attribute(b"/dev", b"model").unwrap(), b"\xff disk ");
        assert_eq!(sysfs.attribute(b"/dev", b"absent"), None);
        // never the machine's own file of that name
        assert_eq!(&*sysfs.attribute(b"/dev", b"//model").unwrap(), b"\xff disk ");
        assert_eq!(sysfs.attribute(b"/dev", b"/etc/passwd"), None);
        assert_eq!(sysfs.attribute(b"/dev", b"/"), None);
    }

    #[test]
    fn only_the_links_that_name_something_are_attributes() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("dev/power")).unwrap();
        symlink("../../bus/drivers/e1000", dir.path().join("dev/driver")).unwrap();
        symlink("secret", dir.path().join("dev/device")).unwrap();
        fs::write(dir.path().join("dev/secret"), b"x").unwrap();
        fs::set_permissions(dir.path().join("dev/secret"), fs::Permissions::from_mode(0o200))
            .unwrap();
        let sysfs = Sysfs::new(dir.path());
        assert_eq!(&*sysfs.attribute(b"/dev", b"driver").unwrap(), b"e1000");
        for none in ["device", "power", "secret"] {
            assert_eq!(sysfs.attribute(b"/dev", none.as_bytes()), None, "{none}");
        }
    }
}
