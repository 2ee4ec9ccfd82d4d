//! The queue against the obvious model: compare a new event with every pending one.

use std::collections::BTreeSet;

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use super::*;

const PATHS: [&str; 12] = [
    "/devices",
    "/devices/a",
    "/devices/ab",
    "/devices/a/b",
    "/devices/a/b/c",
    "/devices/a/b/d",
    "/devices/a/e",
    "/devices/ab/f",
    "/devices/a/b/c/g",
    "/module/a",
    "/module",
    "/devices/h",
];
const IDS: [&str; 4] = ["b8:1", "c8:1", "n5", "b8:2"];
const NAMES: [&str; 3] = ["sda", "sdb", "input/event0"];

#[derive(Clone, Debug)]
struct Shape {
    path: &'static str,
    old: Option<&'static str>,
    id: Option<&'static str>,
    name: Option<&'static str>,
    merge: Merge,
}

impl Shape {
    fn keys(&self) -> Keys<'static> {
        Keys {
            devpath: self.path.as_bytes(),
            devpath_old: self.old.map(str::as_bytes),
            id: self.id.map(str::as_bytes),
            devname: self.name.map(str::as_bytes),
        }
    }

    fn paths(&self) -> impl Iterator<Item = &'static str> {
        std::iter::once(self.path).chain(self.old)
    }

    fn shares_a_key(&self, other: &Self) -> bool {
        self.id.is_some() && self.id == other.id || self.name.is_some() && self.name == other.name
    }

    fn conflicts(&self, other: &Self) -> bool {
        let paths = |a: &str| other.paths().any(|b| covers(a, b) || covers(b, a));
        self.shares_a_key(other) || self.paths().any(paths)
    }
}

/// Whether `upper` is `lower` or above it.
fn covers(upper: &str, lower: &str) -> bool {
    lower.strip_prefix(upper).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

#[derive(Clone, Debug)]
enum Step {
    Push(Shape),
    Next,
    /// The running event with this number, modulo how many there are.
    Done(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let choose = |list: &'static [&'static str]| prop::sample::select(list);
    let old = option::weighted(0.2, choose(&PATHS));
    let keys = (option::weighted(0.4, choose(&IDS)), option::weighted(0.3, choose(&NAMES)));
    let merge = prop_oneof![Just(Merge::Allowed), Just(Merge::Never)];
    let push = (choose(&PATHS), old, keys, merge).prop_map(|(path, old, (id, name), merge)| {
        Step::Push(Shape { path, old, id, name, merge })
    });
    prop_oneof![4 => push, 3 => Just(Step::Next), 2 => any::<usize>().prop_map(Step::Done)]
}

struct Pending {
    shape: Shape,
    item: usize,
    ticket: Option<Ticket>,
}

/// All pending events, oldest first.
#[derive(Default)]
struct Model(Vec<Pending>);

impl Model {
    fn runnable(&self) -> BTreeSet<usize> {
        let free = |at: usize, event: &Pending| {
            event.ticket.is_none()
                && !self.0[..at].iter().any(|older| older.shape.conflicts(&event.shape))
        };
        let events = self.0.iter().enumerate();
        events.filter(|(at, event)| free(*at, event)).map(|(_, event)| event.item).collect()
    }

    /// Where a new event may be merged into.
    fn merge(&mut self, new: &Shape, limits: Limits) -> Option<&mut Pending> {
        let waiting = self.0.iter().filter(|event| event.ticket.is_none());
        let storm = waiting.clone().filter(|event| event.shape.path == new.path).count();
        if new.merge == Merge::Never || new.old.is_some() {
            return None;
        }
        if waiting.count() < limits.merge_from || storm < limits.storm {
            return None;
        }
        let concerns = |event: &Shape| {
            event.paths().any(|path| covers(path, new.path)) || event.shares_a_key(new)
        };
        let last = self.0.iter_mut().rfind(|event| concerns(&event.shape))?;
        let shape = &last.shape;
        let same = shape.merge == Merge::Allowed
            && shape.old.is_none()
            && (shape.path, shape.id, shape.name) == (new.path, new.id, new.name);
        (same && last.ticket.is_none()).then_some(last)
    }
}

fn ready(queue: &Queue<usize>) -> BTreeSet<usize> {
    queue.ready.iter().filter_map(|id| queue.events[*id].as_ref()?.item).collect()
}

fn assert_empty(queue: &Queue<usize>) {
    assert!(queue.is_idle() && queue.ready.is_empty());
    assert!(queue.events.iter().all(Option::is_none));
    assert_eq!(queue.free.len(), queue.events.len());
    assert_eq!(queue.paths.len(), 0);
    assert!(queue.ids.is_empty() && queue.devnames.is_empty() && queue.devices.is_empty());
}

fn take(queue: &mut Queue<usize>, model: &mut Model) -> bool {
    let Some((ticket, item)) = queue.next() else { return false };
    let event = model.0.iter_mut().find(|event| event.item == item).unwrap();
    assert!(event.ticket.replace(ticket).is_none(), "{item} handed out twice");
    true
}

fn finish(queue: &mut Queue<usize>, model: &mut Model, which: usize) {
    let running: Vec<usize> =
        (0..model.0.len()).filter(|at| model.0[*at].ticket.is_some()).collect();
    if !running.is_empty() {
        let event = model.0.remove(running[which % running.len()]);
        queue.done(event.ticket.unwrap());
    }
}

fn run(steps: Vec<Step>, limits: Limits) {
    let mut queue = Queue::new(limits);
    let mut model = Model::default();
    for (item, step) in steps.into_iter().enumerate() {
        match step {
            Step::Push(shape) => {
                let pushed = queue.push(&shape.keys(), shape.merge, item);
                if let Some(older) = model.merge(&shape, limits) {
                    assert_eq!(pushed, Pushed::Merged(std::mem::replace(&mut older.item, item)));
                } else {
                    model.0.push(Pending { shape, item, ticket: None });
                    let runnable = model.runnable().contains(&item);
                    assert_eq!(pushed, if runnable { Pushed::Runnable } else { Pushed::Waiting });
                }
            }
            Step::Next => {
                take(&mut queue, &mut model);
            }
            Step::Done(which) => finish(&mut queue, &mut model, which),
        }
        assert_eq!(ready(&queue), model.runnable());
        assert_eq!(queue.len(), model.0.len());
    }
    while !queue.is_idle() {
        assert_eq!(ready(&queue), model.runnable());
        while take(&mut queue, &mut model) {}
        finish(&mut queue, &mut model, 1);
    }
    assert!(model.0.is_empty(), "events were lost");
    assert_empty(&queue);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..Default::default() })]

    #[test]
    fn the_same_events_are_runnable_as_in_the_model(steps in vec(step(), 0..80)) {
        run(steps, Limits::default());
    }

    #[test]
    fn merging_follows_the_model(steps in vec(step(), 0..80)) {
        run(steps, Limits { merge_from: 3, storm: 1, full: 1000 });
    }
}
