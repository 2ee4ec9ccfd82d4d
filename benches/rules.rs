//! Cost of deciding every device of this machine's sysfs by the rules that it has: by plan, and rule by
//! rule. Programs and builtins are skipped.

use std::path::Path;
use std::sync::Arc;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use mapdev::coldplug;
use mapdev::device::record::Records;
use mapdev::device::replay::replay;
use mapdev::device::{Device, Sysfs};
use mapdev::rules::decision::Decision;
use mapdev::rules::event::Event;
use mapdev::rules::machine::Machine;
use mapdev::rules::names::Names;
use mapdev::rules::plan::Plans;
use mapdev::rules::{self, Rules};
use mapdev::uevent::{Action, Uevent};

/// As a worker does it: each event has a device that has read nothing yet.
fn decide(
    sysfs: &Sysfs,
    uevents: &[Arc<Uevent>],
    world: &Machine,
    names: &Names,
    mut apply: impl FnMut(&Device, &mut Event<'_>),
) -> Vec<Decision> {
    let decided = |uevent: &Arc<Uevent>| {
        let device = Device::new(sysfs.clone(), uevent.clone());
        let mut event = Event::new(&device, world, names, None, rules::decide(&device));
        apply(&device, &mut event);
        event.finish()
    };
    uevents.iter().map(decided).collect()
}

fn coldplug(criterion: &mut Criterion) {
    let root = Path::new("/");
    let names = Names::load(root);
    let (rules, _) = Rules::load(root, &names);
    let sysfs = Sysfs::new("/sys");
    let folder = std::env::temp_dir().join("mapdev-bench-records");
    let Ok(records) = Records::open(&folder) else { return };
    let world = Machine::new(records);
    let paths = coldplug::devpaths(&sysfs).into_values().flatten();
    let uevents: Vec<_> =
        paths.filter_map(|path| replay(&sysfs, &path, Action::Add, 0)).map(Arc::new).collect();
    let mut group = criterion.benchmark_group("rules");
    group.throughput(Throughput::Elements(uevents.len() as u64));
    let mut plans = Plans::default();
    group.bench_function("by plan", |bencher| {
        bencher.iter(|| {
            decide(&sysfs, &uevents, &world, &names, |device, event| {
                let plan = plans.of(1, &rules, device);
                // a file that cannot be read ends an event, as it would in the daemon
                drop(rules.apply_plan(&plan, event));
            })
        });
    });
    group.bench_function("rule by rule", |bencher| {
        bencher
            .iter(|| decide(&sysfs, &uevents, &world, &names, |_, event| drop(rules.apply(event))));
    });
    group.finish();
    drop(std::fs::remove_dir(folder));
}

criterion_group!(benches, coldplug);
criterion_main!(benches);
