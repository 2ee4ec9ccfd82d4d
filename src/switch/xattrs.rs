//! Stage 6b: the extended attributes of what is at a name: access lists, security labels and what else
//! somebody gave it.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{self, OFlags, XattrFlags};
use rustix::io::Errno;

use super::survey::{Survey, below, magic};

/// The kernel's limits for a list of names and for a value (`xattr(7)`).
const LIST_MAX: usize = 65536;
const VALUE_MAX: usize = 65536;

/// What one name may have; who gives it more has something else in mind than a device.
const COUNT_MAX: usize = 64;

/// Most names have nothing, or one label.
const SHORT_LIST: usize = 256;

pub(super) const ACL: &[u8] = b"system.posix_acl_access";

/// Values by name.
pub(super) type Xattrs = BTreeMap<Vec<u8>, Vec<u8>>;

/// Those that the object lists, as far as they can be read: what is listed and not there is not there.
pub(super) fn listed(fd: BorrowedFd<'_>) -> Result<Xattrs, Errno> {
    let place = magic(fd);
    let mut short = [0; SHORT_LIST];
    let mut long = Vec::new();
    let names = match fs::listxattr(&*place, &mut short[..]) {
        Ok(len) => &short[..len],
        Err(Errno::OPNOTSUPP) => return Ok(Xattrs::new()),
        Err(Errno::RANGE) => {
            long.resize(LIST_MAX, 0);
            let len = fs::listxattr(&*place, &mut long[..])?;
            &long[..len]
        }
        Err(error) => return Err(error),
    };
    let mut all = Xattrs::new();
    for name in names.split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        if let Some(value) = value(&place, name)? {
            all.insert(name.to_vec(), value);
        }
        if all.len() > COUNT_MAX {
            return Err(Errno::TOOBIG);
        }
    }
    Ok(all)
}

/// A security module answers for labels that nobody has written and no list names.
fn value(place: &str, name: &[u8]) -> Result<Option<Vec<u8>>, Errno> {
    let mut bytes = vec![0; VALUE_MAX];
    match fs::getxattr(place, name, &mut bytes[..]) {
        Ok(len) => {
            bytes.truncate(len);
            bytes.shrink_to_fit();
            Ok(Some(bytes))
        }
        Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(None),
        Err(error) => Err(error),
    }
}

fn value_below(root: BorrowedFd<'_>, path: &[u8], name: &[u8]) -> Option<Vec<u8>> {
    let fd = below(root, path, OFlags::PATH).ok()?;
    value(&magic(fd.as_fd()), name).ok()?
}

/// Makes comparable what two file systems list: a label that one lists and the other only answers for is
/// the same if the values are, and is the other's own affair if only the second lists it.
pub(super) fn settle_labels(
    (from, here): (BorrowedFd<'_>, &Survey),
    (to, there): (BorrowedFd<'_>, &mut Survey),
) {
    for (path, there) in there {
        let Some(here) = here.get(path).filter(|here| here.xattrs != there.xattrs) else {
            continue;
        };
        for name in here.xattrs.keys() {
            if !there.xattrs.contains_key(name)
                && let Some(value) = value_below(to, path, name)
            {
                there.xattrs.insert(name.clone(), value);
            }
        }
        there.xattrs.retain(|name, _| {
            here.xattrs.contains_key(name) || value_below(from, path, name).is_none()
        });
    }
}

/// Gives what is open as `fd`, at a path, these attributes, and takes others away but for labels that
/// `from` has as well, without a list.
pub(super) fn give(
    from: BorrowedFd<'_>,
    fd: BorrowedFd<'_>,
    path: &[u8],
    wanted: &Xattrs,
) -> io::Result<()> {
    let place = magic(fd);
    let there = listed(fd)?;
    let failed = |verb: &str, name: &[u8], error: Errno| {
        let name = name.escape_ascii();
        io::Error::other(format!("its attribute `{name}` cannot be {verb} there: {error}"))
    };
    for (name, wanted) in wanted {
        if value(&place, name)?.as_ref() != Some(wanted) {
            fs::setxattr(&*place, &**name, wanted, XattrFlags::empty())
                .map_err(|error| failed("set", name, error))?;
        }
    }
    for name in there.keys().filter(|name| !wanted.contains_key(*name)) {
        if value_below(from, path, name).is_none() {
            fs::removexattr(&*place, &**name).map_err(|error| failed("removed", name, error))?;
        }
    }
    Ok(())
}
