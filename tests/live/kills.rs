//! Restart loses nothing: after SIGKILL at any moment the daemon ends as if nothing had happened.

use crate::bus::Bus;
use crate::daemon::{ACTIVE, Daemon, Manager};
use crate::machine::{Machine, private};
use crate::state::State;
use crate::storm::{Permissions, Storm};

/// Kills and starts the daemon again `times` times while events keep coming.
fn storm_with_kills(mut machine: Machine, manager: &Manager, times: usize) {
    let mut storm = Storm::new(Permissions::Stay);
    machine.policy("50-live.toml", &Storm::policy());
    let bus = Bus::start(&machine.top);
    let mut daemon = Daemon::start(&machine, &machine.place, &bus, manager, &ACTIVE);
    for _ in 0..times {
        let before = storm.random().below(400);
        (0..before).for_each(|_| storm.step(&mut machine));
        daemon.kill();
        let between = storm.random().below(100);
        (0..between).for_each(|_| storm.step(&mut machine));
        daemon = Daemon::launch(&machine, &machine.place, &bus, manager, &ACTIVE);
        // some of them are killed before they are ready
        let during = storm.random().below(400);
        (0..during).for_each(|_| storm.step(&mut machine));
        if storm.random().below(2) == 0 {
            daemon.wait_ready(manager, &bus);
        }
    }
    daemon.kill();
    let daemon = Daemon::start(&machine, &machine.place, &bus, manager, &ACTIVE);
    bus.settle();
    let state = State::of(&machine.place, &bus);
    println!("{} events, {times} kills, {}", machine.sent(), state.figures());
    bus.ctl(&["map", "verify"]);
    let log = daemon.log();
    let adopted = log.matches("goes on with the map of the last run").count();
    let refused = log.matches("a kept map cannot be used").count();
    println!("the map was taken over {adopted} times, and {refused} times it was not whole");
    assert_eq!(adopted > 0, manager.has_map());
    daemon.stop();
    state.assert_equals(&State::fresh(&machine, &bus, storm.devices()));
}

#[test]
fn twenty_kills_in_a_storm_leave_no_trace() {
    private(module_path!(), "twenty_kills_in_a_storm_leave_no_trace", |machine| {
        storm_with_kills(machine, &Manager::new("manager").with_socket(), 20);
    });
}

#[test]
fn kills_leave_no_trace_where_nobody_keeps_map_and_socket() {
    private(module_path!(), "kills_leave_no_trace_where_nobody_keeps_map_and_socket", |machine| {
        storm_with_kills(machine, &Manager::forgetful("manager"), 5);
    });
}
