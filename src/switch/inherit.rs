//! Stage 6b: one map gives way to another under the same mount on /dev: owners and access lists of the nodes
//! are looked at before; the lists, which a map cannot hold, are given again afterwards.

use std::io;
use std::os::fd::AsFd;
use std::path::Path;

use super::carry;
use super::is_device;
use super::plan::Step;
use super::stage::bare;
use super::survey::{Found, Survey, What, survey};
use crate::nodes::Permissions;
use crate::uevent::Devnum;

/// What the names of a file system were.
#[derive(Debug, Default)]
pub struct Left(Survey);

/// Looks at what is on `dev`, and not at what is mounted on its names.
///
/// # Errors
/// When it cannot be read.
pub fn look(dev: &Path) -> io::Result<Left> {
    Ok(Left(survey(bare(dev)?.as_fd())?))
}

impl Left {
    /// Owner and mode of a device's node; `None` if it was not there.
    #[must_use]
    pub fn of(&self, name: &[u8], devnum: Devnum) -> Option<Permissions> {
        let found = self.node(name, devnum)?;
        let Found { mode, uid, gid, .. } = found;
        // beside a list, these bits are what it gives at most, and not what the group has
        let mode = if found.has_acl() { mode & !0o070 } else { *mode };
        Some(Permissions { uid: *uid, gid: *gid, mode })
    }

    /// The nodes that are the kernel's own names of devices which exist, with owner and mode.
    pub fn devices<'a>(
        &'a self,
        sysfs: &'a Path,
    ) -> impl Iterator<Item = (&'a [u8], Devnum, Permissions)> {
        self.0.iter().filter_map(|(name, found)| {
            let What::Node { block, number } = found.what else { return None };
            if !is_device(sysfs, name, block, number) {
                return None;
            }
            let (major, minor) = (rustix::fs::major(number), rustix::fs::minor(number));
            let devnum = Devnum { block, major, minor };
            Some((&**name, devnum, self.of(name, devnum)?))
        })
    }

    /// Gives those of these nodes a list that had one; to be called when the other map is there.
    pub fn give_lists<'a>(
        &self,
        dev: &Path,
        nodes: impl Iterator<Item = (&'a [u8], Devnum)>,
    ) -> Vec<String> {
        let found = |(name, devnum)| Some((name, self.node(name, devnum)?));
        let listed: Vec<_> = nodes.filter_map(found).filter(|(_, found)| found.has_acl()).collect();
        if listed.is_empty() {
            return Vec::new();
        }
        let dev = match bare(dev) {
            Ok(dev) => dev,
            Err(error) => return vec![format!("no access lists were given again: {error}")],
        };
        let given = listed.into_iter().filter_map(|(name, found)| {
            let step = Step::Attributes(found.clone());
            let failed = carry::step(dev.as_fd(), dev.as_fd(), name, &step).err()?;
            Some(format!("access list of `{}`: {failed}", name.escape_ascii()))
        });
        given.collect()
    }

    fn node(&self, name: &[u8], devnum: Devnum) -> Option<&Found> {
        let Devnum { block, major, minor } = devnum;
        let node = What::Node { block, number: rustix::fs::makedev(major, minor) };
        self.0.get(name).filter(|found| found.what == node)
    }
}
