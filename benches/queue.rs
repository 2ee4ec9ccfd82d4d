//! Cost of one event in the queue, beside 10, 1,000 and 100,000 others: it must not grow.

use std::fmt::Write as _;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use mapdev::queue::{Keys, Limits, Merge, Queue};

const WAITING: [usize; 3] = [10, 1_000, 100_000];

fn keys<'a>(devpath: &'a str, id: &'a str) -> Keys<'a> {
    let (devpath, id) = (devpath.as_bytes(), id.as_bytes());
    Keys { devpath, devpath_old: None, id: Some(id), devname: None }
}

/// A queue in which `waiting` events wait for one that runs: disks of one controller, with
/// partitions.
fn filled(waiting: usize) -> Queue<usize> {
    let mut queue = Queue::new(Limits { merge_from: usize::MAX, ..Limits::default() });
    queue.push(&keys("/devices/pci0000:00/busy", "+pci:busy"), Merge::Never, 0);
    // never done: the events below it wait as long as the queue lives
    let running = queue.next();
    assert!(running.is_some());
    let (mut path, mut id) = (String::new(), String::new());
    for index in 0..waiting {
        path.clear();
        id.clear();
        let (disk, part) = (index / 4, index % 4);
        let _ = write!(
            path,
            "/devices/pci0000:00/busy/host{}/block/sd{disk}/sd{disk}p{part}",
            disk % 64
        );
        let _ = write!(id, "b8:{index}");
        queue.push(&keys(&path, &id), Merge::Never, index);
    }
    queue
}

fn beside_others(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("queue");
    for waiting in WAITING {
        let mut queue = filled(waiting);
        let free = keys("/devices/pci0000:00/free/host0/block/sdx/sdx1", "b259:1");
        group.bench_function(BenchmarkId::new("push, next, done beside", waiting), |bencher| {
            bencher.iter(|| {
                queue.push(&free, Merge::Never, 0);
                let (ticket, item) = queue.next().expect("nothing holds it up");
                queue.done(ticket);
                item
            });
        });
    }
    group.finish();
}

/// The same, for an event in the middle of the busy part, with its parents and its neighbours.
fn through_the_storm(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("queue");
    for waiting in WAITING {
        let mut queue = Queue::new(Limits { merge_from: usize::MAX, ..Limits::default() });
        let paths: Vec<(String, String)> = (0..waiting)
            .map(|index| {
                let disk = index / 4;
                let path = format!("/devices/pci0/host{}/block/sd{disk}/sd{index}", disk % 64);
                (path, format!("b8:{index}"))
            })
            .collect();
        let mut turn = paths.iter().cycle();
        for (path, id) in turn.by_ref().take(waiting) {
            queue.push(&keys(path, id), Merge::Never, 0);
        }
        group.bench_function(BenchmarkId::new("push, next, done with", waiting), |bencher| {
            bencher.iter(|| {
                if let Some((path, id)) = turn.next() {
                    queue.push(&keys(path, id), Merge::Never, 0);
                }
                let (ticket, item) = queue.next().expect("events wait");
                queue.done(ticket);
                item
            });
        });
    }
    group.finish();
}

criterion_group!(benches, beside_others, through_the_storm);
criterion_main!(benches);
