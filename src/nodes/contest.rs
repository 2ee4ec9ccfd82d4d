//! Stage 5: who owns a link, decided by what its folder holds: for a process that handles one event and
//! knows nothing of the others.
//!
//! The daemon has all claims in memory and decides by them (`claims.rs`); the outcome is the same.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;

use super::links;
use super::stack::{Entry, Lock, Stack, Wait};
use crate::device::DeviceId;
use crate::rules::decision::Link;
use crate::uevent::Devnum;

/// A device with a node, and the links that it had before.
#[derive(Clone, Copy, Debug)]
pub struct Claimant<'a> {
    pub id: &'a DeviceId,
    /// Below `/dev`.
    pub node: &'a [u8],
    pub devnum: Devnum,
    /// Those of its record.
    pub before: &'a [Vec<u8>],
}

/// Gives up the links that a device no longer claims, then makes those that it claims now. What fails
/// costs that link only.
#[must_use]
pub fn settle(stack: &Stack, device: &Claimant<'_>, links: &[Link]) -> Vec<String> {
    let gone = device.before.iter().filter(|name| links.iter().all(|link| link.name != **name));
    let mut problems = release(stack, device.id, gone);
    for link in links {
        let claim =
            Entry { id: device.id.clone(), priority: link.priority, node: device.node.to_vec() };
        problems.extend(failed(&link.name, contend(stack, &link.name, &claim)));
    }
    let name = links::by_number(device.devnum);
    problems.extend(failed(&name, links::point(stack.dev(), &name, device.node)));
    problems
}

/// Gives up all links of a device that is gone.
#[must_use]
pub fn withdraw(stack: &Stack, device: &Claimant<'_>) -> Vec<String> {
    let mut problems = release(stack, device.id, device.before.iter());
    let name = links::by_number(device.devnum);
    // `/dev/char` and `/dev/block` stay, as under udev
    problems.extend(failed(&name, links::unlink(stack.dev(), &name).map(drop)));
    problems
}

fn release<'a>(
    stack: &Stack,
    id: &DeviceId,
    names: impl Iterator<Item = &'a Vec<u8>>,
) -> Vec<String> {
    names.filter_map(|name| failed(name, give_up(stack, name, id))).collect()
}

fn failed(link: &[u8], done: io::Result<()>) -> Option<String> {
    done.err().map(|error| format!("link `{}`: {error}", link.escape_ascii()))
}

/// The device takes the link, unless one of higher priority has it.
fn contend(stack: &Stack, link: &[u8], claim: &Entry) -> io::Result<()> {
    let lock = hold(stack, link)?;
    stack.enter(link, claim)?;
    let other = best(stack, link, &claim.id, Some(claim.priority));
    let made = links::point(stack.dev(), link, &other.as_ref().unwrap_or(claim).node);
    drop(lock);
    made
}

/// The best of the others takes the link; without others it goes, and its folder too.
fn give_up(stack: &Stack, link: &[u8], id: &DeviceId) -> io::Result<()> {
    let lock = hold(stack, link)?;
    stack.leave(link, id)?;
    let done = match best(stack, link, id, None) {
        Some(other) => links::point(stack.dev(), link, &other.node),
        None => links::remove(stack.dev(), link),
    };
    lock.clear();
    done
}

fn hold(stack: &Stack, link: &[u8]) -> io::Result<Lock> {
    Lock::take(&stack.of(link), Wait::Yes)?.ok_or_else(|| io::ErrorKind::WouldBlock.into())
}

/// The other claim of the highest priority above `than` whose node is there; of equals the first listed.
fn best(stack: &Stack, link: &[u8], id: &DeviceId, than: Option<i32>) -> Option<Entry> {
    let mut best: Option<Entry> = None;
    for entry in fs::read_dir(stack.of(link)).into_iter().flatten().flatten() {
        let Some(claim) = stack.read(&entry.path()).filter(|claim| claim.id != *id) else {
            continue;
        };
        let least = best.as_ref().map(|best| best.priority).or(than);
        if least.is_none_or(|least| claim.priority > least)
            && stack.dev().join(OsStr::from_bytes(&claim.node)).exists()
        {
            best = Some(claim);
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINK: &[u8] = b"disk/by-label/x";

    fn id(n: u32) -> DeviceId {
        DeviceId::from_bytes(format!("b8:{n}").as_bytes()).unwrap()
    }

    /// Has device `n` claim the link, or give it up.
    fn event(stack: &Stack, n: u32, before: bool, priority: Option<i32>) {
        let links: Vec<_> =
            priority.map(|priority| Link { name: LINK.to_vec(), priority }).into_iter().collect();
        let before = if before { vec![LINK.to_vec()] } else { Vec::new() };
        let (node, devnum) = (format!("sd{n}"), Devnum { block: true, major: 8, minor: n });
        let device = Claimant { id: &id(n), node: node.as_bytes(), devnum, before: &before };
        assert_eq!(settle(stack, &device, &links), [""; 0]);
    }

    fn machine(count: u32) -> (tempfile::TempDir, Stack) {
        let top = tempfile::tempdir().unwrap();
        let dev = top.path().join("dev");
        fs::create_dir(&dev).unwrap();
        (0..count).for_each(|n| fs::write(dev.join(format!("sd{n}")), "").unwrap());
        let stack = Stack::new(&top.path().join("run/udev/links"), &dev);
        (top, stack)
    }

    fn owner(stack: &Stack) -> Option<String> {
        let node = links::target(stack.dev(), LINK)?;
        Some(String::from_utf8(node).unwrap())
    }

    #[test]
    fn the_link_is_always_the_right_one_and_nothing_stays_behind() {
        let (_top, stack) = machine(4);
        let is = |name: &str| assert_eq!(owner(&stack).as_deref(), Some(name));
        event(&stack, 0, false, Some(0));
        event(&stack, 1, false, Some(0));
        is("sd1");
        event(&stack, 0, true, Some(0));
        is("sd0");
        event(&stack, 2, false, Some(-1));
        is("sd0");
        event(&stack, 3, false, Some(9));
        event(&stack, 1, true, Some(0));
        is("sd3");
        fs::remove_file(stack.dev().join("sd3")).unwrap();
        event(&stack, 1, true, Some(0));
        is("sd1");
        for n in [3, 1, 0] {
            event(&stack, n, true, None);
        }
        is("sd2");
        event(&stack, 2, true, None);
        assert_eq!(owner(&stack), None);
        assert!(!stack.of(LINK).exists() && !stack.dev().join("disk").exists());
    }

    #[test]
    fn many_at_once_leave_the_link_to_the_highest() {
        let (_top, stack) = machine(8);
        for round in 0..40 {
            std::thread::scope(|scope| {
                for n in 0..8 {
                    let stack = &stack;
                    let priority = i32::try_from((n + round) % 8).unwrap();
                    scope.spawn(move || event(stack, n, round > 0, Some(priority)));
                }
            });
            let best = (15 - round % 8) % 8;
            assert_eq!(owner(&stack), Some(format!("sd{best}")), "round {round}");
        }
        std::thread::scope(|scope| {
            (0..8).for_each(|n| {
                drop(scope.spawn({
                    let stack = &stack;
                    move || event(stack, n, true, None)
                }))
            });
        });
        assert!(owner(&stack).is_none() && !stack.of(LINK).exists());
    }
}
