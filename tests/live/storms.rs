//! Storms: nothing is lost, nothing out of order, and what is lost is repaired.

use std::collections::HashMap;
use std::time::Instant;

use rustix::process::Signal;

use crate::bus::Bus;
use crate::daemon::{ACTIVE, Daemon, Manager, Options};
use crate::listen::{Announcement, Listener};
use crate::machine::private;
use crate::state::State;
use crate::storm::{Permissions, Storm};
use crate::sysfs::Device;

const EVENTS: u64 = 10_000;

/// Its event waits for everything below it.
fn parent() -> Device {
    Device::new("/devices/live", "liveroot", &[])
}

#[test]
fn ten_thousand_events_are_all_announced_once_and_in_order_and_end_as_a_fresh_coldplug() {
    let name =
        "ten_thousand_events_are_all_announced_once_and_in_order_and_end_as_a_fresh_coldplug";
    private(module_path!(), name, |mut machine| {
        let mut storm = Storm::new(Permissions::Vary);
        machine.policy("50-live.toml", &Storm::policy());
        let bus = Bus::start(&machine.top);
        let manager = Manager::new("manager");
        let daemon = Daemon::start(&machine, &machine.place, &bus, &manager, &ACTIVE);
        let listener = Listener::new();
        let listening = std::thread::spawn(move || listener.until(EVENTS + 1));
        machine.sysfs.add_device(&parent());
        let begun = Instant::now();
        while machine.sent() < EVENTS {
            storm.step(&mut machine);
        }
        let sent = begun.elapsed();
        machine.tell("change", &parent(), &[]);
        let heard = listening.join().unwrap();
        println!("{EVENTS} events sent in {sent:?}, announced in {:?}", begun.elapsed());
        check_order(&heard, EVENTS + 1);
        bus.settle();
        let status = bus.json(&["status"]);
        assert_eq!(status["overruns"], 0, "{status}");
        let state = State::of(&machine.place, &bus);
        println!("{}; {status}", state.figures());
        daemon.stop();
        state.assert_equals(&State::fresh(&machine, &bus, storm.devices()));
    });
}

/// Every number from 1 to `last` came once, and for a device in the order of sending.
fn check_order(heard: &[Announcement], last: u64) {
    let mut numbers: Vec<u64> = heard.iter().filter_map(|one| one.number("LIVE_N")).collect();
    let mut devices: HashMap<String, (u64, u64)> = HashMap::new();
    for one in heard {
        let Some(number) = one.number("LIVE_N") else { continue };
        let now = (number, one.number("SEQNUM").unwrap());
        let keys = ["DEVPATH", "DEVPATH_OLD", "DEVNAME", "IFINDEX"];
        for key in keys.map(|key| one.text(key)).into_iter().filter(|key| !key.is_empty()) {
            let before = devices.insert(key.clone(), now).unwrap_or_default();
            assert!(before.0 < now.0 && before.1 < now.1, "{key}: {before:?}, then {now:?}");
        }
    }
    numbers.sort_unstable();
    assert!(
        numbers.iter().copied().eq(1..=last),
        "lost or told twice: {} of {last}",
        numbers.len()
    );
}

#[test]
fn events_lost_for_want_of_buffer_are_repaired_from_sysfs() {
    private(
        module_path!(),
        "events_lost_for_want_of_buffer_are_repaired_from_sysfs",
        |mut machine| {
            let mut storm = Storm::new(Permissions::Vary);
            machine.policy("50-live.toml", &Storm::policy());
            let bus = Bus::start(&machine.top);
            let manager = Manager::new("manager");
            let small = Options { receive_buffer: 4096, ..ACTIVE };
            let daemon = Daemon::start(&machine, &machine.place, &bus, &manager, &small);
            for _ in 0..20 {
                daemon.freeze();
                for _ in 0..200 {
                    storm.step(&mut machine);
                }
                daemon.signal(Signal::CONT);
                // and while it repairs, so that events are lost at every moment of the repair
                for _ in 0..300 {
                    storm.step(&mut machine);
                }
            }
            bus.settle();
            let status = bus.json(&["status"]);
            let count = |name: &str| status[name].as_u64().unwrap();
            assert!(count("overruns") > 0 && count("resyncs") > 0, "{status}");
            let state = State::of(&machine.place, &bus);
            println!("{} events, {}; {status}", machine.sent(), state.figures());
            daemon.stop();
            state.assert_equals(&State::fresh(&machine, &bus, storm.devices()));
        },
    );
}
