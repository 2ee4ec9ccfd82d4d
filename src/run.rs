//! Stage 7: the RUN list of an event in, done in order when the record is written. What comes of it changes
//! nothing; what goes wrong is told.

use std::thread;
use std::time::Duration;

use tracing::debug;

use crate::builtin::{Call, Pair, Ran};
use crate::clean::words;
use crate::device::Device;
use crate::exec::Outcome;
use crate::rules::decision::Run;
use crate::rules::import::environment;
use crate::rules::machine::Machine;
use crate::rules::world::World;

/// Runs what an event wants run, one after the other, in what is left of the event's time. Programs get
/// `properties`, and what builtins before them found; each program waits for `delay` first.
#[must_use]
pub fn run(
    list: &[Run],
    device: &Device,
    mut properties: Vec<Pair>,
    machine: &Machine,
    delay: Duration,
) -> Vec<String> {
    let mut problems = Vec::new();
    for entry in list {
        let Run { builtin, command, source } = entry;
        let shown = command.escape_ascii();
        let words = words(command);
        if let Some(builtin) = *builtin {
            let call = Call { device, properties: &properties, words: &words };
            match machine.builtin(builtin, &call) {
                Ran::Done(found) | Ran::Broken(found) => {
                    found.into_iter().for_each(|pair| put(&mut properties, pair));
                }
                Ran::Failed => debug!("{source}: `{shown}`: failed"),
                Ran::Skipped => debug!("{source}: skipped: {shown}"),
            }
            continue;
        }
        if words.is_empty() {
            problems.push(format!("{source}: nothing to run"));
            continue;
        }
        if !delay.is_zero() {
            thread::sleep(delay);
        }
        let said = machine.run(&words, &environment(properties.clone()), source);
        match said.map(|said| said.outcome) {
            None => debug!("{source}: skipped: {shown}"),
            Some(outcome @ Outcome::Exited(_)) => debug!("{source}: `{shown}`: {outcome}"),
            Some(outcome) => problems.push(format!("{source}: `{shown}`: {outcome}")),
        }
    }
    problems
}

fn put(properties: &mut Vec<Pair>, pair: Pair) {
    match properties.iter_mut().find(|(key, _)| *key == pair.0) {
        Some(known) => *known = pair,
        None => properties.push(pair),
    }
}
