//! Stage 6: a device that came in another one's place, and nobody told that the first went: uevents were lost,
//! or no daemon ran. In devtmpfs it has a node of its own; in the map it is given one.

use tracing::warn;

use super::Dispatch;
use super::known::Known;
use super::publish::Publisher;
use crate::device::DeviceId;
use crate::map::Kind;
use crate::nodes::devtmpfs::{KERNEL_DEFAULT, decided};
use crate::nodes::instances::Instances;
use crate::uevent::Devnum;

impl Dispatch {
    /// Whether another device had this one's id last. Of one that sysfs no longer has, nobody knows which it
    /// was: its removal is on the way.
    pub(super) fn is_successor(&self, known: &Known) -> bool {
        match self.table.get(&known.id) {
            Some(old) => known.instance != 0 && old.instance != known.instance,
            None => {
                let earlier = self.instances.as_ref().filter(|_| has_node(known));
                earlier.is_some_and(|earlier| earlier.is_anothers(&known.id, known.instance))
            }
        }
    }

    /// Remembers whose node it is, for the next run; to be called when nothing of another one's is left, and
    /// before there is anything of this one's. `old` is what was known.
    pub(super) fn remember(&self, known: &Known, old: Option<&Known>) -> Option<String> {
        let same = old.is_some_and(|old| old.instance == known.instance);
        let instances = self.instances.as_ref().filter(|_| !same && has_node(known))?;
        if self.publisher.waits_for_kernel() {
            return None;
        }
        // where the map is the daemon's alone, it ends with it
        let done = match known.instance != 0 && self.publisher.is_served() {
            true => instances.keep(&known.id, known.instance),
            false => instances.forget(&known.id),
        };
        done.err().map(|error| format!("cannot remember which device it is: {error}"))
    }

    /// The map outlives the daemon from now on.
    pub(super) fn remember_all(&self) -> Vec<String> {
        self.table.iter().filter_map(|known| self.remember(known, None)).collect()
    }

    /// The device is gone, and its node.
    pub(super) fn forget_instance(&self, id: &DeviceId) -> Option<String> {
        let instances = self.instances.as_ref().filter(|_| id.devnum().is_some())?;
        if self.publisher.waits_for_kernel() {
            return None;
        }
        let error = instances.forget(id).err()?;
        Some(format!("cannot forget which device it was: {error}"))
    }

    /// Once all of sysfs was met, and the nodes of others are gone: whose they were matters no more.
    pub(super) fn forget_instances(&self) {
        if !self.publisher.fixed.walked && self.ready.is_some() {
            return;
        }
        for id in self.instances.as_ref().map(Instances::ids).unwrap_or_default() {
            if self.table.get(&id).is_none() && !self.queue.concerns(id.as_bytes()) {
                let problem = self.forget_instance(&id);
                problem.into_iter().for_each(|problem| warn!("{id}: {problem}"));
            }
        }
    }
}

impl Publisher {
    /// The nodes that are served are of another map, which ours will replace: whose they are is remembered
    /// until then.
    fn waits_for_kernel(&self) -> bool {
        self.to_be_served && !self.is_served()
    }

    /// Ends what the name was, and with it ACL, owner and mode: what nobody decided is the kernel's default.
    pub(super) fn begin_anew(&mut self, known: &mut Known) {
        let Some(name) = known.devname() else { return };
        if self.map.get(name).is_some_and(|node| !matches!(node.kind, Kind::Pending { .. })) {
            self.map.remove(name);
        }
        if self.is_served() && self.made_in().is_none() {
            // what the worker has looked at was the old one
            known.permissions = decided(&known.decision, KERNEL_DEFAULT);
        }
    }

    /// Ends the node of another device that has this one's name. Number and owner are two writes: for a moment
    /// the one that comes would be the first one's owner's.
    pub(super) fn end_other(&mut self, name: &[u8], devnum: Devnum) {
        let number = self.map.get(name).and_then(|node| node.kind.devnum());
        if number.is_some_and(|number| number != devnum) {
            self.map.remove(name);
        }
    }
}

fn has_node(known: &Known) -> bool {
    known.devname().is_some() && known.devnum().is_some()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io;
    use std::os::fd::BorrowedFd;
    use std::sync::{Arc, Mutex};

    use super::super::answer::load_book;
    use super::super::tests::{Rig, id, plug};
    use crate::map::kernel::{Kernel, NameChange, Published, Since};
    use crate::map::layout::E_LIVE;
    use crate::map::protocol::Attributes;
    use crate::map::{Kind, Lookup, MapReader, Node};

    /// Looks at a name, as anybody may, whenever the kernel is called.
    struct Onlooker {
        map: MapReader,
        seen: Arc<Mutex<Vec<(u32, u32)>>>,
    }

    impl Onlooker {
        fn look(&self) -> io::Result<()> {
            if let Lookup::Found(entry) = self.map.lookup(b"d1") {
                self.seen.lock().unwrap().push((entry.minor(), entry.fields.uid));
            }
            Ok(())
        }
    }

    impl Kernel for Onlooker {
        fn publish(&mut self, _: BorrowedFd<'_>, _: u64, _: Since) -> io::Result<Published> {
            Ok(Published::Done)
        }

        fn sync(&mut self) -> io::Result<()> {
            self.look()
        }

        fn notify(&mut self, _: u64, _: &[u8], _: bool, _: NameChange) -> io::Result<()> {
            self.look()
        }

        fn set_attributes(&mut self, _: &[u8], _: u64, _: Attributes, _: u32) -> io::Result<()> {
            self.look()
        }
    }

    #[tokio::test]
    async fn a_name_with_another_number_is_at_no_moment_the_first_devices_owners() {
        let mut rig = Rig::new(&[1]);
        let map = &mut rig.dispatch.publisher.map;
        // the second one is written as a chown is
        for uid in [0, 7] {
            let kind = Kind::Char { major: 10, minor: 2 };
            let node = Node { kind, mode: 0o600, uid, gid: 0, flags: E_LIVE };
            map.upsert(b"d1", &node).unwrap();
        }
        let seen = Arc::default();
        let reader = MapReader::open(map.read_only_fd().unwrap()).unwrap();
        map.attach(Box::new(Onlooker { map: reader, seen: Arc::clone(&seen) })).unwrap();
        rig.walk().await;
        assert_eq!(*seen.lock().unwrap(), [(1, 0)]);
    }

    #[tokio::test]
    async fn tags_and_properties_of_a_device_end_with_it_though_another_has_its_number() {
        let mut rig = Rig::new(&[1]);
        let root = rig.root.path().to_owned();
        let rules = root.join("root/etc/udev/rules.d");
        fs::create_dir_all(&rules).unwrap();
        let rule = r#"KERNEL=="d1", ATTR{first}=="1", TAG+="first", ENV{FIRST}="1""#;
        fs::write(rules.join("50-test.rules"), rule).unwrap();
        let modules = rig.dispatch.book.modules.clone();
        rig.dispatch.book = Arc::new(load_book(&rig.dispatch.config, 2, modules));
        fs::write(root.join("sys/devices/d1/first"), "1\n").unwrap();
        rig.walk().await;
        let tag = root.join("run/tags/first/c10:1");
        assert!(tag.exists());
        assert_eq!(rig.dispatch.records.read(&id(1)).unwrap().properties.len(), 1);
        // its folder is not given up, or the next one might have its inode
        fs::rename(root.join("sys/devices/d1"), root.join("first")).unwrap();
        fs::remove_file(root.join("sys/class/misc/d1")).unwrap();
        plug(&root, 1);
        rig.walk().await;
        assert!(!tag.exists());
        let now = rig.dispatch.records.read(&id(1)).unwrap();
        assert!(now.is_empty(), "{now:?}");
    }
}
