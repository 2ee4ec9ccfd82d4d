//! One event from start to end in this process, without a daemon and without its queue: the same hands do it,
//! and links are contended for by what is on disk.

use std::io;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use super::answer::load_book;
use super::finish::End;
use super::hands::Hands;
use super::job::{Job, Outcome};
use super::tell::Teller;
use crate::config::{Config, Mode};
use crate::device::{Device, DeviceId, Sysfs};
use crate::modules::ModuleDb;
use crate::nodes::contest::{self, Claimant};
use crate::nodes::disk::{self, DiskLock, Locking};
use crate::nodes::stack::Stack;
use crate::problem::at;
use crate::rules::decision::Run;
use crate::uevent::{Action, Origin, Uevent};

/// A disk that another program works on is looked at again after this time, as systemd-udevd does.
const LOCK_AGAIN: Duration = Duration::from_millis(200);

/// What became of an event.
#[derive(Debug, Default)]
pub struct Handled {
    /// The rules ended early: nothing was changed.
    pub failed: bool,
    /// What went wrong on the way.
    pub problems: Vec<String>,
}

/// Handles one event as the daemon does in active mode: rules, node, record, links, what is to be run, and
/// tells libudev's clients.
///
/// # Errors
/// When the folder of records cannot be made, or a disk cannot be locked.
pub fn handle(config: &Config, uevent: &Uevent) -> io::Result<Handled> {
    let config = Config { mode: Mode::Active, ..config.clone() };
    let properties: Vec<_> = uevent.properties().collect();
    let (devpath, seqnum) = (uevent.devpath(), uevent.seqnum());
    // as if the kernel had told it
    let uevent = Uevent::synthetic(Origin::Kernel, uevent.action(), devpath, seqnum, &properties);
    let uevent = Arc::new(uevent);
    let device = Device::new(Sysfs::new(&config.sysfs), uevent.clone());
    let lock = lock(&config, &device)?;
    let hands = Hands::new(&config).map_err(|error| at(&config.records_folder(), &error))?;
    let before = hands.records.read(device.id()).unwrap_or_default().links;
    let now = Instant::now();
    let job = Job {
        ticket: None,
        uevent: uevent.clone(),
        order: 0,
        heard: now,
        known: None,
        grants: None,
        book: Arc::new(load_book(&config, 1, Arc::new(ModuleDb::default()))),
        compare: true,
        nothing_lost: false,
        begun: now,
        chore: None,
        lock,
        blocked: None,
    };
    let mut handled = Handled::default();
    let outcome = hands.handle(&job, &mut handled.problems);
    let stack = Stack::new(&config.udev_folder().join("links"), &config.dev);
    let claimant = device.devname().zip(device.devnum());
    let claimant =
        claimant.map(|(node, devnum)| Claimant { id: device.id(), node, devnum, before: &before });
    let (mut end, list): (End, Vec<Run>) = match outcome {
        Outcome::Settled { known, failed, run, found } => {
            handled.failed = failed.is_some();
            if let Some(claimant) = claimant.filter(|_| failed.is_none()) {
                handled.problems.extend(contest::settle(&stack, &claimant, &known.decision.links));
            }
            let list = if run { known.decision.run.clone() } else { Vec::new() };
            (End::Settled { known: Arc::new(*known), failed, found }, list)
        }
        Outcome::Removed { told, run } => {
            handled.failed = told.has_failed();
            if let Some(claimant) = claimant {
                handled.problems.extend(contest::withdraw(&stack, &claimant));
            }
            forget(&hands, device.id(), &mut handled.problems);
            (End::Removed { old: None, told }, run)
        }
        Outcome::Gone | Outcome::Busy | Outcome::Ran(_) => return Ok(handled),
    };
    let report = hands.run(&job, &list, end.properties());
    handled.problems.extend(report.problems);
    end.add(report.found);
    // without the right to speak on netlink, all else is done nonetheless
    match Teller::new(true, Vec::new()) {
        Ok(mut teller) => handled.problems.extend(end.announce(&mut teller, &uevent, 0)),
        Err(error) => handled.problems.push(format!("cannot announce the event: {error}")),
    }
    Ok(handled)
}

fn forget(hands: &Hands, id: &DeviceId, problems: &mut Vec<String>) {
    if let Err(error) = hands.records.remove(id) {
        problems.push(format!("cannot remove the record: {error}"));
    }
}

/// Waits until the disk is free, as long as an event may take.
fn lock(config: &Config, device: &Device) -> io::Result<Option<DiskLock>> {
    if device.uevent().action() == Action::Remove {
        return Ok(None);
    }
    let until = Instant::now() + config.event_timeout;
    loop {
        match disk::lock(device, &config.dev)? {
            Locking::Held(lock) => return Ok(Some(lock)),
            Locking::None => return Ok(None),
            Locking::Busy if Instant::now() >= until => {
                let what = "another program works on the disk for too long";
                return Err(io::Error::new(io::ErrorKind::TimedOut, what));
            }
            Locking::Busy => thread::sleep(LOCK_AGAIN),
        }
    }
}
