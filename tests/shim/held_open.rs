//! Whoever holds a device open changes nothing of the one that takes its name.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};

use mapdev::map::{Kind, Node};
use rustix::fs::{Mode, fchmod};
use rustix::io::Errno;

use super::world::{World, char_device};

/// Devices that take the name: a change without a look under the lock reaches one in twelve.
const ROUNDS: u32 = 500;
/// Others that change modes, so that a change has to wait between its look and its lock.
const OTHERS: u32 = 4;

fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

/// Opens the device of each round, and changes its mode until it is none of that name any more.
fn change_while_open(path: &Path, round: &Barrier) -> Vec<Errno> {
    let mut refusals = Vec::new();
    for _ in 0..ROUNDS {
        let file = File::open(path).unwrap();
        round.wait();
        for mode in [0o666, 0o677].into_iter().cycle() {
            if let Err(refusal) = fchmod(&file, Mode::from_raw_mode(mode)) {
                refusals.push(refusal);
                break;
            }
        }
        round.wait();
    }
    refusals
}

#[test]
#[ignore = "in the virtual machine"]
fn a_chmod_of_what_a_name_was_does_not_change_what_came_after() {
    let mut world = World::new();
    world.put("probe", &char_device(1, 5, 0o600));
    let others: Vec<_> = (0..OTHERS).map(|n| format!("other{n}")).collect();
    others.iter().for_each(|name| world.put(name, &char_device(1, 7, 0o600)));
    let others: Vec<_> = others.iter().map(|name| world.path(name)).collect();
    let (path, round, stop) = (&world.path("probe"), &Barrier::new(2), &AtomicBool::new(false));
    let mut changed = Vec::new();
    std::thread::scope(|scope| {
        for other in &others {
            scope.spawn(move || {
                for mode in [0o644, 0o600].into_iter().cycle() {
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                    chmod(other, mode);
                }
            });
        }
        let holder = scope.spawn(move || change_while_open(path, round));
        for n in 0..ROUNDS {
            round.wait();
            // another moment of a change in each round
            (0..n % 64 * 50).for_each(|_| std::hint::spin_loop());
            drop(world.map.compare());
            let old = world.map.get(b"probe").unwrap().clone();
            let kind = Kind::Char { major: 1, minor: if n % 2 == 0 { 3 } else { 5 } };
            world.put("probe", &Node { kind, ..old });
            chmod(path, 0o600);
            // it has heard that its device is gone
            round.wait();
            let now = (world.map.now(b"probe").unwrap().mode, world.mode("probe").0);
            if now != (0o600, 0o600) {
                changed.push((n, now));
                // what was read before is not what is there
                chmod(path, 0o640);
                chmod(path, 0o600);
            }
            drop(world.told());
        }
        stop.store(true, Ordering::Relaxed);
        let refusals = holder.join().unwrap();
        assert!(refusals.iter().all(|refusal| *refusal == Errno::STALE), "{refusals:?}");
    });
    let first = changed.first();
    assert!(changed.is_empty(), "{} of {ROUNDS} devices, the first {first:?}", changed.len());
}
