//! The order of events, case by case.

use super::*;

fn at(devpath: &str) -> Keys<'_> {
    Keys { devpath: devpath.as_bytes(), devpath_old: None, id: None, devname: None }
}

fn queue<const N: usize>(events: [Keys<'_>; N]) -> Queue<usize> {
    let mut queue = Queue::default();
    for (index, keys) in events.iter().enumerate() {
        queue.push(keys, Merge::Never, index);
    }
    queue
}

/// Everything that can run now, left running.
fn runnable(queue: &mut Queue<usize>) -> (Vec<usize>, Vec<Ticket>) {
    let (tickets, items) = std::iter::from_fn(|| queue.next()).unzip::<_, _, Vec<_>, _>();
    (items, tickets)
}

/// Runs in batches; what was runnable together.
fn batches(mut queue: Queue<usize>) -> Vec<Vec<usize>> {
    let mut batches = Vec::new();
    while !queue.is_idle() {
        let (items, tickets) = runnable(&mut queue);
        batches.push(items);
        tickets.into_iter().for_each(|ticket| queue.done(ticket));
    }
    batches
}

#[test]
fn a_partition_waits_for_its_disk() {
    let disk = at("/devices/ata1/block/sda");
    let events = [disk, at("/devices/ata1/block/sda/sda1"), at("/devices/ata1/block/sda/sda2")];
    assert_eq!(batches(queue(events)), [vec![0], vec![1, 2]]);
}

#[test]
fn a_disk_waits_for_its_partitions() {
    let disk = at("/devices/ata1/block/sda");
    let events = [at("/devices/ata1/block/sda/sda1"), at("/devices/ata1/block/sda/sda2"), disk];
    assert_eq!(batches(queue(events)), [vec![0, 1], vec![2]]);
}

#[test]
fn a_partition_waits_for_a_disk_that_runs_already() {
    let mut queue = queue([at("/devices/sda")]);
    let (_, tickets) = runnable(&mut queue);
    assert_eq!(queue.push(&at("/devices/sda/sda1"), Merge::Never, 1), Pushed::Waiting);
    assert!(queue.next().is_none());
    tickets.into_iter().for_each(|ticket| queue.done(ticket));
    assert_eq!(runnable(&mut queue).0, [1]);
}

#[test]
fn a_move_waits_for_what_concerned_the_old_path() {
    let moved = Keys { devpath_old: Some(b"/devices/net/eth0"), ..at("/devices/bus/wan0") };
    let child = at("/devices/net/eth0/queue");
    assert_eq!(batches(queue([child, moved])), [vec![0], vec![1]]);
}

#[test]
fn what_takes_the_old_path_waits_for_the_move() {
    let moved = Keys { devpath_old: Some(b"/devices/net/eth0"), ..at("/devices/bus/wan0") };
    assert_eq!(batches(queue([moved, at("/devices/net/eth0")])), [vec![0], vec![1]]);
}

#[test]
fn the_same_device_number_keeps_its_order() {
    let id = |devpath, id| Keys { id: Some(id), ..at(devpath) };
    let events = [id("/devices/a", b"b8:1"), id("/devices/b", b"b8:1"), id("/devices/c", b"c8:1")];
    assert_eq!(batches(queue(events)), [vec![0, 2], vec![1]]);
}

#[test]
fn the_same_name_keeps_its_order() {
    let named = |devpath, name| Keys { devname: Some(name), ..at(devpath) };
    let events = [named("/devices/a", b"sda"), named("/devices/b", b"sda")];
    assert_eq!(batches(queue(events)), [vec![0], vec![1]]);
}

#[test]
fn unrelated_devices_run_side_by_side() {
    let events = [at("/devices/usb1/1-1"), at("/devices/usb1/1-2"), at("/devices/usb2")];
    assert_eq!(batches(queue(events)), [vec![0, 1, 2]]);
}

#[test]
fn a_common_beginning_makes_no_parent() {
    let events = [at("/devices/a"), at("/devices/ab"), at("/devices/abc/d")];
    assert_eq!(batches(queue(events)), [vec![0, 1, 2]]);
}

#[test]
fn a_storm_leaves_the_newest_change_only() {
    let limits = Limits { merge_from: 3, storm: 2, full: 100 };
    let mut queue = Queue::new(limits);
    let keys = at("/devices/sda");
    for item in 0..3 {
        assert_ne!(queue.push(&keys, Merge::Allowed, item), Pushed::Merged(0));
    }
    assert_eq!(queue.push(&keys, Merge::Allowed, 3), Pushed::Merged(2));
    assert_eq!(queue.push(&keys, Merge::Allowed, 4), Pushed::Merged(3));
    assert_eq!((queue.merged(), queue.waiting()), (2, 3));
    assert_eq!(batches(queue), [[0], [1], [4]]);
}

#[test]
fn a_remove_is_never_overtaken_by_a_merged_change() {
    let limits = Limits { merge_from: 1, storm: 1, full: 100 };
    let mut queue = Queue::new(limits);
    let keys = at("/devices/sda");
    queue.push(&keys, Merge::Allowed, 0);
    queue.push(&keys, Merge::Never, 1);
    assert_eq!(queue.push(&keys, Merge::Allowed, 2), Pushed::Waiting);
    assert_eq!(batches(queue), [[0], [1], [2]]);
}

#[test]
fn a_device_that_does_not_storm_is_not_merged() {
    let limits = Limits { merge_from: 1, storm: 2, full: 100 };
    let mut queue = Queue::new(limits);
    queue.push(&at("/devices/a"), Merge::Allowed, 0);
    queue.push(&at("/devices/b"), Merge::Allowed, 1);
    queue.push(&at("/devices/b"), Merge::Allowed, 2);
    assert_eq!(queue.push(&at("/devices/a"), Merge::Allowed, 3), Pushed::Waiting);
    assert_eq!(queue.push(&at("/devices/b"), Merge::Allowed, 4), Pushed::Merged(2));
}

#[test]
fn a_full_queue_says_so_until_events_run() {
    let mut queue = Queue::new(Limits { full: 2, ..Limits::default() });
    queue.push(&at("/devices/a"), Merge::Never, 0);
    assert!(!queue.is_full());
    queue.push(&at("/devices/b"), Merge::Never, 1);
    assert!(queue.is_full());
    let (_ticket, _) = queue.next().unwrap();
    assert!(!queue.is_full());
    assert_eq!((queue.len(), queue.running(), queue.high_water()), (2, 1, 2));
}
