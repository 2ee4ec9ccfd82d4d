//! Stage 5b: a `.link` file with its drop-ins in, what it matches and what it sets out.
#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};

use super::condition::{Condition, Machine};
use super::hardware::HardwareAddress;
use super::ini::{self, Content};
use super::keys;
use super::matching::Match;
use super::sriov::{self, VirtualFunction};
use super::words::{CHANNELS, COALESCE, FEATURES, PAUSE, RINGS};
use crate::problem::{Problem, Severity, Source};

/// Where a hardware address comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AddressPolicy {
    /// The kernel's, or the one that the file says.
    #[default]
    None,
    /// The hardware's, or one that is the same on every boot.
    Persistent,
    Random,
}

/// Where an interface's name comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NamePolicy {
    Kernel,
    Keep,
    Database,
    Onboard,
    Slot,
    Path,
    Mac,
}

/// A number, or as much as the hardware can.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Amount {
    Max,
    Number(u32),
}

/// SecureOn's password, or the file or socket that it is read from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WakePassword {
    Bytes([u8; 6]),
    File(PathBuf),
}

impl WakePassword {
    /// Reads six bytes such as `aa:bb:cc:dd:ee:ff`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let address = HardwareAddress::parse(text)?;
        address.bytes().try_into().ok().map(Self::Bytes)
    }
}

/// What `[Link]` sets; what it does not speak of is left alone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    pub alias: Option<String>,
    pub address_policy: AddressPolicy,
    pub address: Option<HardwareAddress>,
    /// The first that gives a name counts.
    pub name_policy: Vec<NamePolicy>,
    pub name: Option<String>,
    pub alternative_policy: Vec<NamePolicy>,
    pub alternative_names: Vec<String>,
    /// 0: not set.
    pub transmit_queues: u32,
    /// 0: not set.
    pub receive_queues: u32,
    pub queue_length: Option<u32>,
    /// In bytes; 0: not set.
    pub mtu: u32,
    /// 0: not set.
    pub gso_max_bytes: u32,
    /// 0: not set.
    pub gso_max_segments: u32,
    /// 0: not set.
    pub bits_per_second: u64,
    pub full_duplex: Option<bool>,
    pub negotiation: Option<bool>,
    /// `WAKE_…` of `linux/ethtool.h`.
    pub wake: Option<u32>,
    pub wake_password: Option<WakePassword>,
    /// `PORT_…` of `linux/ethtool.h`.
    pub port: Option<u8>,
    /// Bits of `ETHTOOL_LINK_MODE_…_BIT`.
    pub advertise: [u32; 3],
    pub features: [Option<bool>; FEATURES.len()],
    pub channels: [Option<Amount>; CHANNELS.len()],
    pub rings: [Option<Amount>; RINGS.len()],
    pub pause: [Option<bool>; PAUSE.len()],
    pub coalesce: [Option<u32>; COALESCE.len()],
    /// `ETH_TP_MDI…` of `linux/ethtool.h`.
    pub mdi: Option<u8>,
    pub virtual_functions: Option<u32>,
}

/// One file with its drop-ins.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LinkFile {
    pub path: PathBuf,
    /// In the order in which they are applied.
    pub drop_ins: Vec<PathBuf>,
    pub wanted: Match,
    pub conditions: Vec<Condition>,
    pub settings: Settings,
    pub functions: Vec<VirtualFunction>,
}

/// A file's path and content.
#[derive(Clone, Copy, Debug)]
pub struct Text<'a> {
    pub path: &'a Path,
    pub bytes: &'a [u8],
}

impl LinkFile {
    /// Reads a file and its drop-ins, the main file first.
    ///
    /// `None` for a file that counts for nothing: without anything to match, or broken. Each problem
    /// costs its own line.
    #[must_use]
    pub fn parse(texts: &[Text<'_>]) -> (Option<Self>, Vec<Problem>) {
        let mut problems = Vec::new();
        let mut file = Self::default();
        for (number, text) in texts.iter().enumerate() {
            if number == 0 {
                text.path.clone_into(&mut file.path);
            } else {
                file.drop_ins.push(text.path.to_owned());
            }
            let source = Source::new(text.path, text.bytes);
            let content = ini::read(&source, &keys::SECTIONS, &mut problems);
            file.take(&content, &source, &mut problems);
            if content.broken {
                return (None, problems);
            }
        }
        if file.wanted.is_empty() && file.conditions.is_empty() {
            let what = "[Match] wanted with something to match, such as OriginalName=*; \
                        the whole file is ignored";
            problems.push(Problem::whole(&file.path, Severity::Error, what));
            return (None, problems);
        }
        let set = file.settings.address_policy != AddressPolicy::None;
        if set && file.settings.address.is_some() {
            let what = "MACAddress= has no effect beside MACAddressPolicy=persistent or random";
            problems.push(Problem::whole(&file.path, Severity::Warning, what));
        }
        let count = file.settings.virtual_functions;
        sriov::settle(&mut file.functions, count, &mut problems);
        (Some(file), problems)
    }

    fn take(&mut self, content: &Content, source: &Source<'_>, problems: &mut Vec<Problem>) {
        let mut function = None;
        for assignment in &content.assignments {
            let section = &content.sections[assignment.section - 1];
            let taken = match section.name.as_str() {
                "Match" => self.wanted.take(&mut self.conditions, assignment),
                "Link" => self.settings.take(assignment),
                _ => {
                    // each header begins another function
                    if function != Some(assignment.section) {
                        function = Some(assignment.section);
                        let (line, _) = source.position(section.span.start);
                        let path = source.file().to_owned();
                        self.functions.push(VirtualFunction::new(path, line));
                    }
                    let last = self.functions.last_mut();
                    last.map_or(Ok(()), |function| function.take(assignment))
                }
            };
            let (key, what) = match taken {
                Ok(()) => continue,
                Err(keys::Refused::Key) => (true, format!("no such key in [{}]", section.name)),
                Err(keys::Refused::Value(wanted)) => {
                    (false, format!("{} wants {wanted}", assignment.key))
                }
            };
            if key {
                let span = assignment.key_span.clone();
                let problem = source.problem(span, Severity::Warning, what);
                let known = keys::known(&section.name);
                problems.push(problem.suggest(&assignment.key, known));
            } else {
                let span = assignment.value_span.clone();
                problems.push(source.problem(span, Severity::Error, what));
            }
        }
    }

    /// Whether the file counts on this machine.
    #[must_use]
    pub fn counts_on(&self, machine: &Machine) -> bool {
        self.conditions.iter().all(|condition| condition.holds(machine))
    }
}
