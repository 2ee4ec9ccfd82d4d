//! Stage 7: the RUN list of an event in, done in order when the record is written. What comes of it changes
//! nothing; what goes wrong is told.

use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use tracing::debug;

use crate::builtin::uaccess::{self, Access};
use crate::builtin::{Builtin, Call, Pair, Ran};
use crate::clean::words;
use crate::device::Device;
use crate::exec::Outcome;
use crate::nodes::acl;
use crate::nodes::devtmpfs::Node;
use crate::rules::decision::Run;
use crate::rules::import::environment;
use crate::rules::machine::Machine;
use crate::rules::world::World;

/// Where builtins find what they decide by, and what they decide about.
#[derive(Clone, Debug)]
pub struct Place {
    pub dev: PathBuf,
    /// logind's description of seats.
    pub seats: PathBuf,
}

/// What came of a RUN list.
#[derive(Debug, Default)]
pub struct Report {
    /// Properties that builtins found: clients are told of them, and no record has them.
    pub found: Vec<Pair>,
    pub problems: Vec<String>,
}

/// Runs what an event wants run, one after the other, in what is left of the event's time. Programs get
/// `properties`, and what builtins before them found; each program waits for `delay` first.
#[must_use]
pub fn run(
    list: &[Run],
    device: &Device,
    mut properties: Vec<Pair>,
    machine: &Machine,
    place: &Place,
    delay: Duration,
) -> Report {
    let Report { mut found, mut problems } = Report::default();
    for entry in list {
        let Run { builtin, command, source } = entry;
        let shown = command.escape_ascii();
        let words = words(command);
        if let Some(builtin) = *builtin {
            let call = Call { device, properties: &properties, words: &words };
            if builtin == Builtin::Uaccess {
                let failed = give_access(&call, place).err();
                problems.extend(failed.map(|what| format!("{source}: `{shown}`: {what}")));
                continue;
            }
            match machine.builtin(builtin, &call) {
                Ran::Done(pairs) | Ran::Broken(pairs) => {
                    put(&mut found, pairs.clone());
                    put(&mut properties, pairs);
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
    Report { found, problems }
}

/// Gives the node to the user who sits at its seat.
fn give_access(call: &Call<'_>, place: &Place) -> Result<(), String> {
    let user = match uaccess::access(call, &place.seats) {
        Access::Undecided => return Ok(()),
        Access::Nobody => None,
        Access::User(user) => Some(user),
    };
    let Some((name, number)) = call.device.devname().zip(call.device.devnum()) else {
        return Ok(());
    };
    let node = Node::find(&place.dev, name, number).map_err(|error| error.to_string())?;
    let given = node.map_or(Ok(()), |node| acl::grant(&node, user));
    given.map_err(|error| format!("/dev/{}: cannot give access: {error}", name.escape_ascii()))
}

/// Adds these, in the place of those of the same names.
pub fn put(properties: &mut Vec<Pair>, pairs: Vec<Pair>) {
    for pair in pairs {
        match properties.iter_mut().find(|(key, _)| *key == pair.0) {
            Some(known) => *known = pair,
            None => properties.push(pair),
        }
    }
}
