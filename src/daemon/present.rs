//! Shows a person what the daemon does: what it found, then each event with its decision.
//!
//! It runs on a thread of its own: a terminal that is held up does not hold up an event.

use std::io::{self, IsTerminal, Write};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use crate::config::Config;
use crate::dispatch::Ready;
use crate::dispatch::command::Notice;
use crate::dispatch::known::Known;
use crate::rules::decision::Attribute;
use crate::uevent::action_name;

/// What stands above the events.
#[derive(Debug)]
pub(super) struct Heading {
    mode: &'static str,
    sysfs: String,
    started: Instant,
}

impl Heading {
    pub(super) fn of(config: &Config, started: Instant) -> Self {
        let sysfs = config.sysfs.display().to_string();
        Self { mode: config.mode.name(), sysfs, started }
    }
}

/// The thread that writes.
#[derive(Debug)]
pub(super) struct Presenter {
    heading: Heading,
    colour: bool,
    begun: bool,
}

impl Presenter {
    pub(super) fn start(
        heading: Heading,
        mut notices: mpsc::Receiver<Notice>,
    ) -> io::Result<JoinHandle<()>> {
        let colour = io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        let mut presenter = Self { heading, colour, begun: false };
        thread::Builder::new().name("present".to_owned()).spawn(move || {
            while let Some(notice) = notices.blocking_recv() {
                // nobody reads any longer: the daemon goes on
                if presenter.show(&notice).is_err() {
                    return;
                }
            }
        })
    }

    fn show(&mut self, notice: &Notice) -> io::Result<()> {
        let line = match notice {
            Notice::Ready(ready) => return self.summary(ready),
            // what the walk through sysfs finds is in the summary
            Notice::Handled { .. } | Notice::Removed { .. } if !self.begun => return Ok(()),
            Notice::Handled { seqnum, action, usec, device } => {
                self.event(*seqnum, action_name(*action), *usec, device, &decided(device))
            }
            Notice::Removed { seqnum, usec, device } => {
                self.event(*seqnum, "remove", *usec, device, "forgotten")
            }
            Notice::Changed { device } if self.begun => {
                self.event(device.uevent.seqnum(), "policy", 0, device, &decided(device))
            }
            Notice::StormStarted { device, .. } => format!("storm     {}", device.id),
            Notice::StormEnded { device, dropped } => {
                format!("storm over {} ({dropped} changes merged)", device.id)
            }
            Notice::Behind => "(some events are not shown: the terminal is too slow)".to_owned(),
            Notice::Changed { .. } => return Ok(()),
        };
        writeln!(io::stdout(), "{line}")
    }

    fn event(
        &self,
        seqnum: u64,
        action: &str,
        usec: u64,
        device: &Known,
        decision: &str,
    ) -> String {
        let name = match device.devname() {
            Some(name) => format!("/dev/{}", name.escape_ascii()),
            None => device.uevent.devpath().escape_ascii().to_string(),
        };
        let (bold, plain) = if self.colour { ("\x1b[1m", "\x1b[0m") } else { ("", "") };
        let subsystem = device.subsystem().escape_ascii().to_string();
        format!(
            "{seqnum:>8} {action:<8} {subsystem:<12} {bold}{name}{plain}  {decision}  {usec} us"
        )
    }

    fn summary(&mut self, ready: &Ready) -> io::Result<()> {
        self.begun = true;
        let total = self.heading.started.elapsed();
        let mut out = io::stdout().lock();
        let mut row = |name: &str, value: String| writeln!(out, "  {name:<22} {value}");
        row("mode", self.heading.mode.to_owned())?;
        row("devices", format!("{} (all of {})", ready.devices, self.heading.sysfs))?;
        row("nodes", ready.nodes.to_string())?;
        let modules = format!("{} of {}", ready.modules_with_devnames, ready.modules);
        row("modules with devnames", modules)?;
        row("map entries", ready.map_entries.to_string())?;
        row("nodes that differ", ready.mismatches.to_string())?;
        row("time", format!("{} (reading sysfs {})", ms(total), ms(ready.elapsed)))?;
        writeln!(out, "\nevery uevent from now on, with its decision (Ctrl-C ends):\n")?;
        out.flush()
    }
}

fn ms(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1000.0)
}

/// `root:disk 0660 (kernel)`, with what differs in shadow mode.
fn decided(device: &Known) -> String {
    if device.devnum().is_none() {
        return "no node".to_owned();
    }
    let permissions = device.permissions;
    let mut text = format!("{}:{} {:04o}", permissions.uid, permissions.gid, permissions.mode);
    let node = [Attribute::Owner, Attribute::Group, Attribute::Mode];
    let mut sources: Vec<_> =
        node.iter().filter_map(|attribute| device.decision.source(*attribute)).collect();
    sources.dedup();
    let sources: Vec<_> = sources.iter().map(ToString::to_string).collect();
    if !sources.is_empty() {
        text.push_str(&format!(" ({})", sources.join(", ")));
    }
    for mismatch in &device.mismatches {
        let name = mismatch.attribute.name();
        text.push_str(&format!(" [{name} is {}, we say {}]", mismatch.theirs, mismatch.ours));
    }
    text
}
