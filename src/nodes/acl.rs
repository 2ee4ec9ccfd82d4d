//! Stage 5: the one user who may use a node beside its owner, as an entry of the node's access control
//! list (acl(5); the bytes of the attribute are `include/uapi/linux/posix_acl_xattr.h`).

use std::io;

use rustix::fs::{XattrFlags, getxattr, setxattr};
use rustix::io::Errno;

use super::devtmpfs::{Node, is_gone};

const ATTRIBUTE: &str = "system.posix_acl_access";
const VERSION: [u8; 4] = 2_u32.to_le_bytes();

/// No list is longer: 1,000 entries.
const LIMIT: usize = 8 << 10;

const USER_OBJ: u16 = 0x01;
const USER: u16 = 0x02;
const GROUP_OBJ: u16 = 0x04;
const GROUP: u16 = 0x08;
const MASK: u16 = 0x10;
const OTHER: u16 = 0x20;

/// The id of entries that speak of no one by number.
const NOBODY: u32 = u32::MAX;

const READ_WRITE: u16 = 6;

/// Tag, id and permission; ordered as the kernel wants them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    tag: u16,
    id: u32,
    permission: u16,
}

/// Gives the node to `user` for reading and writing, and takes it from every other user that the list
/// names; groups stay. `None`: to nobody.
///
/// # Errors
/// When the system refuses, or the file system keeps no lists.
pub fn grant(node: &Node, user: Option<u32>) -> io::Result<()> {
    let path = match node.handle() {
        Err(error) if is_gone(error) => return Ok(()),
        path => path?,
    };
    let mut bytes = [0; LIMIT];
    let before = match getxattr(&path, ATTRIBUTE, &mut bytes) {
        Ok(length) => Some(bytes.get(..length).unwrap_or_default()),
        Err(Errno::NODATA) => None,
        Err(Errno::OPNOTSUPP) if user.is_none() => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    let entries = match before {
        Some(bytes) => parse(bytes).ok_or_else(|| io::Error::other("the list makes no sense"))?,
        None => minimal(node.permissions().mode),
    };
    let Some(after) = granted(entries, user) else { return Ok(()) };
    let after = write(&after);
    if before == Some(&after) {
        return Ok(());
    }
    Ok(setxattr(&path, ATTRIBUTE, &after, XattrFlags::empty())?)
}

/// What permission bits say as a list.
fn minimal(mode: u32) -> Vec<Entry> {
    let part = |shift: u32| u16::try_from(mode >> shift & 7).unwrap_or(0);
    [(USER_OBJ, 6), (GROUP_OBJ, 3), (OTHER, 0)]
        .map(|(tag, shift)| Entry { tag, id: NOBODY, permission: part(shift) })
        .to_vec()
}

/// `None` if nothing is to be done.
fn granted(mut entries: Vec<Entry>, user: Option<u32>) -> Option<Vec<Entry>> {
    let count = entries.len();
    entries.retain(|entry| entry.tag != USER);
    if entries.len() == count && user.is_none() {
        return None;
    }
    entries.extend(user.map(|id| Entry { tag: USER, id, permission: READ_WRITE }));
    // what named users and groups have at all, or the entry would give nothing
    entries.retain(|entry| entry.tag != MASK);
    let masked = entries.iter().filter(|entry| matches!(entry.tag, USER | GROUP | GROUP_OBJ));
    let permission = masked.fold(0, |all, entry| all | entry.permission);
    entries.push(Entry { tag: MASK, id: NOBODY, permission });
    entries.sort();
    Some(entries)
}

fn parse(bytes: &[u8]) -> Option<Vec<Entry>> {
    let (entries, []) = bytes.strip_prefix(&VERSION)?.as_chunks::<8>() else { return None };
    let entry = |[t0, t1, p0, p1, i0, i1, i2, i3]: &[u8; 8]| Entry {
        tag: u16::from_le_bytes([*t0, *t1]),
        permission: u16::from_le_bytes([*p0, *p1]),
        id: u32::from_le_bytes([*i0, *i1, *i2, *i3]),
    };
    Some(entries.iter().map(entry).collect())
}

fn write(entries: &[Entry]) -> Vec<u8> {
    let mut bytes = VERSION.to_vec();
    for Entry { tag, id, permission } in entries {
        bytes.extend(tag.to_le_bytes());
        bytes.extend(permission.to_le_bytes());
        bytes.extend(id.to_le_bytes());
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(entries: &[(u16, u32, u16)]) -> Vec<Entry> {
        entries
            .iter()
            .map(|(tag, id, permission)| Entry { tag: *tag, id: *id, permission: *permission })
            .collect()
    }

    #[test]
    fn one_user_is_named_beside_what_was_there() {
        let plain = minimal(0o640);
        assert_eq!(granted(plain.clone(), None), None);
        let given = granted(plain, Some(1000)).unwrap();
        let wanted = [
            (USER_OBJ, NOBODY, 6),
            (USER, 1000, 6),
            (GROUP_OBJ, NOBODY, 4),
            (MASK, NOBODY, 6),
            (OTHER, NOBODY, 0),
        ];
        assert_eq!(given, list(&wanted));
        let mut with_group = given;
        with_group.push(Entry { tag: GROUP, id: 66, permission: 2 });
        let other = granted(with_group.clone(), Some(7)).unwrap();
        assert!(other.iter().filter(|entry| entry.tag == USER).eq(&list(&[(USER, 7, 6)])));
        let none = granted(with_group, None).unwrap();
        let wanted = [
            (USER_OBJ, NOBODY, 6),
            (GROUP_OBJ, NOBODY, 4),
            (GROUP, 66, 2),
            (MASK, NOBODY, 6),
            (OTHER, NOBODY, 0),
        ];
        assert_eq!(none, list(&wanted));
    }

    #[test]
    fn a_list_is_read_as_it_was_written_and_a_damaged_one_is_none() {
        let entries = granted(minimal(0o604), Some(3)).unwrap();
        let bytes = write(&entries);
        assert_eq!(parse(&bytes), Some(entries));
        assert_eq!(parse(&bytes[..bytes.len() - 1]), None);
        assert_eq!(parse(&[1, 0, 0, 0]), None);
        assert_eq!(parse(b""), None);
    }
}
