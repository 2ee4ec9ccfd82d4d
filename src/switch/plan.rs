//! Stage 6b: what is at the names of two file systems in, what has to be done to the second so that it
//! can stand in the first one's place out.
#![forbid(unsafe_code)]

use std::collections::{BTreeMap, BTreeSet};

use super::survey::{Found, Survey, What};
use super::xattrs::ACL;

/// The largest file that is copied; one that is larger, open, linked twice or has extended attributes beside
/// an access list is mounted.
const COPY_MAX: u64 = 1024 * 1024;

/// How the name of a link or node ends that the daemon has not put at its place yet.
const UNFINISHED: &[u8] = b".#new";

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// What is there is another thing, or nobody's any more.
    Remove {
        folder: bool,
    },
    Make(Found),
    /// The contents too. Becomes a mount if somebody has the file open.
    Copy(Found),
    /// A bound socket works only where it is; so does a pipe or file that somebody has open.
    Mount,
    /// Something for a mount to stand on.
    Place {
        folder: bool,
    },
    Attributes(Found),
}

/// What is known beside the two.
pub(super) struct Facts<'a> {
    /// Names that something is mounted on, and whether it is a folder.
    pub(super) mounts: &'a BTreeMap<Vec<u8>, bool>,
    /// Names that are mounts by an earlier plan for the same two.
    pub(super) mounted: &'a BTreeSet<Vec<u8>>,
    /// Whether a node is the kernel's own, of a device that exists: name, block, number.
    pub(super) is_device: &'a dyn Fn(&[u8], bool, u64) -> bool,
    /// Where devices' nodes come from the map; else from devtmpfs.
    pub(super) to_map: bool,
    /// Whether what only the second has is left over and goes.
    pub(super) clean: bool,
}

/// The steps in order, and what stands against them.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) steps: Vec<(Vec<u8>, Step)>,
    /// What cannot be carried.
    pub(super) problems: Vec<String>,
    /// Devices that the map has not: its daemon may be about to publish them.
    pub(super) awaited: Vec<Vec<u8>>,
}

pub(super) fn plan(from: &Survey, to: &Survey, facts: &Facts<'_>) -> Plan {
    let mut plan = Plan::default();
    if facts.clean {
        // backwards: what is in a folder goes before it
        for (path, there) in to.iter().rev().filter(|(path, _)| !from.contains_key(*path)) {
            let device = match there.what {
                What::Node { block, number } => (facts.is_device)(path, block, number),
                What::Folder | What::Link(_) | What::Fifo | What::Socket | What::File { .. } => {
                    false
                }
            };
            if !device && !facts.mounts.contains_key(path) {
                let folder = there.what == What::Folder;
                plan.steps.push((path.clone(), Step::Remove { folder }));
            }
        }
    }
    for (path, here) in from.iter().filter(|(path, _)| !path.ends_with(UNFINISHED)) {
        if let Some(folder) = facts.mounts.get(path) {
            match to.get(path) {
                Some(there) if (there.what == What::Folder) == *folder => {}
                Some(_) => plan.refuse(path, "another thing has the name there"),
                None => plan.push(path, Step::Place { folder: *folder }),
            }
        } else if !facts.mounted.contains(path) {
            plan.name(path, here, to.get(path), facts);
        }
    }
    plan
}

impl Plan {
    fn push(&mut self, path: &[u8], step: Step) {
        self.steps.push((path.to_vec(), step));
    }

    fn refuse(&mut self, path: &[u8], why: &str) {
        self.problems.push(format!("{}: {why}", path.escape_ascii()));
    }

    fn name(&mut self, path: &[u8], here: &Found, there: Option<&Found>, facts: &Facts<'_>) {
        let Some(there) = there else { return self.missing(path, here, facts) };
        let settled = (here.mode, here.uid, here.gid) == (there.mode, there.uid, there.gid)
            && here.xattrs == there.xattrs;
        let attributes = |plan: &mut Self| {
            if !settled {
                plan.push(path, Step::Attributes(here.clone()));
            }
        };
        match (&here.what, &there.what) {
            (What::Folder, What::Folder) => attributes(self),
            (What::Link(ours), What::Link(theirs)) if ours == theirs => {
                if here.xattrs != there.xattrs {
                    attributes(self);
                }
            }
            // a name whose module is not loaded has no number in the map
            (What::Node { number: 0, .. }, _) => {}
            (What::Node { block, .. }, What::Node { block: other, number: 0 })
                if block == other =>
            {
                attributes(self);
            }
            (What::Node { .. }, What::Node { .. }) if here.what == there.what => attributes(self),
            _ if here.object == there.object => {}
            // what an earlier plan left for a mount
            (What::Socket | What::Fifo, What::File { size: 0, .. }) => self.push(path, Step::Mount),
            (What::File { .. }, What::File { .. }) => self.file(path, here),
            _ => self.other(path, here, there, facts),
        }
    }

    /// Another thing is there. What is the map's cannot be removed, and that is found out by trying.
    fn other(&mut self, path: &[u8], here: &Found, there: &Found, facts: &Facts<'_>) {
        if let (What::Node { block, number }, true) = (&here.what, facts.to_map)
            && (facts.is_device)(path, *block, *number)
        {
            // of another device than the map's: one of the two is news
            self.awaited.push(path.to_vec());
            return;
        }
        if here.what == What::Folder || there.what == What::Folder {
            return self.refuse(path, "a folder on one side only");
        }
        self.push(path, Step::Remove { folder: false });
        self.made(path, here);
    }

    fn missing(&mut self, path: &[u8], here: &Found, facts: &Facts<'_>) {
        match here.what {
            What::Node { number: 0, .. } => {}
            What::Node { block, number }
                if facts.to_map && (facts.is_device)(path, block, number) =>
            {
                self.awaited.push(path.to_vec());
            }
            What::Folder | What::Link(_) | What::Node { .. } | What::Fifo | What::Socket => {
                self.made(path, here);
            }
            What::File { .. } => self.file(path, here),
        }
    }

    fn made(&mut self, path: &[u8], here: &Found) {
        match here.what {
            What::Folder | What::Link(_) | What::Node { .. } => {
                self.push(path, Step::Make(here.clone()));
            }
            What::Fifo | What::Socket => self.push(path, Step::Mount),
            What::File { .. } => self.file(path, here),
        }
    }

    fn file(&mut self, path: &[u8], here: &Found) {
        // a copy may not have what the other file system does not know of
        let plain = here.xattrs.keys().all(|name| name == ACL);
        let copied =
            plain && matches!(here.what, What::File { size, links: 1 } if size <= COPY_MAX);
        self.push(path, if copied { Step::Copy(here.clone()) } else { Step::Mount });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::switch::xattrs::Xattrs;

    fn found(what: What) -> Found {
        let object = (1, 1);
        Found { what, mode: 0o600, uid: 0, gid: 0, xattrs: Xattrs::new(), object }
    }

    fn node(number: u64) -> Found {
        found(What::Node { block: false, number })
    }

    fn survey(names: &[(&str, Found)]) -> Survey {
        names.iter().map(|(name, found)| (name.as_bytes().to_vec(), found.clone())).collect()
    }

    fn planned(from: &[(&str, Found)], to: &[(&str, Found)], to_map: bool) -> Plan {
        let mounts = BTreeMap::from([(b"pts".to_vec(), true), (b"log".to_vec(), false)]);
        let facts = Facts {
            mounts: &mounts,
            mounted: &BTreeSet::new(),
            is_device: &|name, _, _| name.starts_with(b"tty"),
            to_map,
            clean: !to_map,
        };
        plan(&survey(from), &survey(to), &facts)
    }

    fn steps(plan: &Plan) -> Vec<(&str, &Step)> {
        plan.steps.iter().map(|(path, step)| (std::str::from_utf8(path).unwrap(), step)).collect()
    }

    #[test]
    fn what_userspace_made_is_made_again_and_sockets_are_mounted() {
        let other = |object| Found { object, ..found(What::Socket) };
        let file = |size, links| found(What::File { size, links });
        let from = [
            ("bus", found(What::Folder)),
            ("bus/mine", node(5)),
            ("fd", found(What::Link(b"/proc/self/fd".to_vec()))),
            ("initctl", found(What::Fifo)),
            ("large", file(1 << 30, 1)),
            ("small", file(3, 1)),
            ("sock", other((1, 9))),
            ("twice", file(3, 2)),
            ("x.#new", found(What::File { size: 0, links: 1 })),
        ];
        let plan = planned(&from, &[], true);
        assert_eq!(plan.problems, Vec::<String>::new());
        let wanted = [
            ("bus", &Step::Make(found(What::Folder))),
            ("bus/mine", &Step::Make(node(5))),
            ("fd", &Step::Make(from[2].1.clone())),
            ("initctl", &Step::Mount),
            ("large", &Step::Mount),
            ("small", &Step::Copy(from[5].1.clone())),
            ("sock", &Step::Mount),
            ("twice", &Step::Mount),
        ];
        assert_eq!(steps(&plan), wanted);
    }

    #[test]
    fn devices_come_from_the_map_and_their_owners_are_carried() {
        let login = Found { uid: 1000, ..node(1025) };
        let plan = planned(&[("tty1", login.clone())], &[("tty1", node(1025))], true);
        assert_eq!(steps(&plan), [("tty1", &Step::Attributes(login))]);
        let plan = planned(&[("tty1", node(1025))], &[], true);
        assert_eq!((plan.steps.len(), plan.awaited), (0, vec![b"tty1".to_vec()]));
        let plan = planned(&[("tty1", node(1025))], &[("tty1", node(0))], true);
        assert_eq!(plan, Plan::default(), "its number is about to be filled in");
    }

    #[test]
    fn other_extended_attributes_are_given_and_a_file_that_has_some_stays_the_same_object() {
        let with = |found: Found, name: &str| {
            let xattrs = Xattrs::from([(name.as_bytes().to_vec(), b"x".to_vec())]);
            Found { xattrs, object: (9, 9), ..found }
        };
        let link = found(What::Link(b"x".to_vec()));
        let file = found(What::File { size: 3, links: 1 });
        let from = [
            ("acl", with(file.clone(), "system.posix_acl_access")),
            ("file", with(file, "user.x")),
            ("link", with(link.clone(), "trusted.x")),
            ("same", with(node(1), "security.x")),
            ("tty1", with(node(1025), "security.x")),
            ("tty2", node(1026)),
        ];
        let to = [
            ("link", link),
            ("same", with(node(1), "security.x")),
            ("tty1", node(1025)),
            ("tty2", with(node(1026), "user.left")),
        ];
        let wanted = [
            ("acl", &Step::Copy(from[0].1.clone())),
            ("file", &Step::Mount),
            ("link", &Step::Attributes(from[2].1.clone())),
            ("tty1", &Step::Attributes(from[4].1.clone())),
            ("tty2", &Step::Attributes(node(1026))),
        ];
        assert_eq!(steps(&planned(&from, &to, true)), wanted);
    }

    #[test]
    fn what_is_gone_from_the_map_goes_from_devtmpfs_but_not_the_kernels_nodes() {
        let to = [
            ("old", found(What::Folder)),
            ("old/link", found(What::Link(b"x".to_vec()))),
            ("pts", found(What::Folder)),
            ("tty9", node(1033)),
        ];
        let plan = planned(&[("net", found(What::Folder)), ("net/x", node(0))], &to, false);
        let wanted = [
            ("old/link", &Step::Remove { folder: false }),
            ("old", &Step::Remove { folder: true }),
            ("net", &Step::Make(found(What::Folder))),
        ];
        assert_eq!(steps(&plan), wanted);
    }

    #[test]
    fn a_mount_gets_a_place_and_a_clash_is_named() {
        let other = Found { object: (2, 2), ..found(What::File { size: 1, links: 1 }) };
        let from = [("log", found(What::Socket)), ("pts", found(What::Folder)), ("x", other)];
        let plan = planned(&from, &[("pts", node(1)), ("x", found(What::Folder))], true);
        assert_eq!(steps(&plan), [("log", &Step::Place { folder: false })]);
        assert_eq!(plan.problems.len(), 2, "{:?}", plan.problems);
        let link = |to: &[u8]| Found { object: (3, 3), ..found(What::Link(to.to_vec())) };
        let (ours, theirs) = (link(b"a"), Found { object: (4, 4), ..link(b"b") });
        let plan = planned(&[("cdrom", ours.clone())], &[("cdrom", theirs)], true);
        let wanted = [("cdrom", &Step::Remove { folder: false }), ("cdrom", &Step::Make(ours))];
        assert_eq!(steps(&plan), wanted);
    }
}
