//! C6: a chown that comes while the daemon publishes or changes something itself.

use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::fs::chown;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use mapdev::map::control::{EV_GID, EV_UID};
use mapdev::map::kernel::{Kernel, NameChange, Published, Since};
use mapdev::map::protocol::Attributes;
use mapdev::map::shim::Told;

use super::c6_attributes::read;
use super::world::{World, char_device, null};

/// The module, and somebody who changes an owner just before each of some publications, after the copy, and
/// before each change of the daemon's own.
struct Meddled {
    module: Box<dyn Kernel>,
    /// The name, how often that is still to be done, and the publications that were refused.
    plan: Arc<Mutex<(PathBuf, u32, u32)>>,
}

impl Kernel for Meddled {
    fn publish(&mut self, memory: BorrowedFd<'_>, len: u64, since: Since) -> io::Result<Published> {
        let mut plan = self.plan.lock().unwrap();
        if plan.1 > 0 {
            plan.1 -= 1;
            chown(&plan.0, Some(1000 + plan.1), None).unwrap();
        }
        let done = self.module.publish(memory, len, since)?;
        plan.2 += u32::from(done == Published::OutOfDate);
        Ok(done)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.module.sync()
    }

    fn notify(&mut self, dir: u64, name: &[u8], folder: bool, what: NameChange) -> io::Result<()> {
        self.module.notify(dir, name, folder, what)
    }

    fn set_attributes(
        &mut self,
        path: &[u8],
        id: u64,
        to: Attributes,
        what: u32,
    ) -> io::Result<()> {
        let mut plan = self.plan.lock().unwrap();
        if plan.1 > 0 {
            plan.1 -= 1;
            chown(&plan.0, Some(1000 + plan.1), None).unwrap();
        }
        self.module.set_attributes(path, id, to, what)
    }
}

#[test]
#[ignore = "in the virtual machine"]
fn a_chown_between_copy_and_publication_stays() {
    // the fourth is after the last try, whose attributes the kernel carries over
    for (changes, refused) in [(1, 1), (3, 3), (4, 3)] {
        let mut world = World::new();
        world.put("tty1", &char_device(4, 1, 0o600));
        let module = world.map.detach_kernel().unwrap();
        let plan = Arc::new(Mutex::new((world.path("tty1"), 0, 0)));
        world.map.attach(Box::new(Meddled { module, plan: plan.clone() })).unwrap();
        plan.lock().unwrap().1 = changes;
        let (before, mut n) = (world.map.stats().republished, 0);
        while world.map.stats().republished == before {
            world.put(&format!("other{n}"), &null());
            n += 1;
        }
        let (_, left, out_of_date) = plan.lock().unwrap().clone();
        assert_eq!((left, out_of_date), (0, refused), "{changes} changes");
        assert_eq!(world.mode("tty1").1, 1000, "{changes} changes");
        assert_eq!(read(&world, "tty1").1, 1000, "{changes} changes");
    }
}

#[test]
#[ignore = "in the virtual machine"]
fn a_chown_stays_that_comes_while_the_daemon_changes_what_was_decided() {
    let mut world = World::new();
    world.put("tty1", &char_device(4, 1, 0o600));
    let module = world.map.detach_kernel().unwrap();
    let plan = Arc::new(Mutex::new((world.path("tty1"), 0, 0)));
    world.map.attach(Box::new(Meddled { module, plan: plan.clone() })).unwrap();
    plan.lock().unwrap().1 = 1;
    // a rule says the mode, and no owner
    let node = char_device(4, 1, 0o640);
    world.map.upsert_keeping(b"tty1", &node, EV_UID | EV_GID).unwrap();
    assert_eq!(plan.lock().unwrap().1, 0, "it came between");
    assert_eq!(world.mode("tty1"), (0o640, 1000, 0));
    // and the daemon hears of it
    let told = world.told();
    let owned = |told: &Told| matches!(told, Told::Changed(change) if change.what & EV_UID != 0);
    assert!(told.iter().any(owned), "{told:?}");
}
