//! Stage 5b: a network interface as rtnetlink tells of it, and what is changed of it there.

use std::io;

use super::hardware::HardwareAddress;
use super::link_file::Settings;
use super::netlink::{Link, Message, Verb, attributes, text};
use super::sriov::VirtualFunction;

// IFLA_… of linux/if_link.h
const ADDRESS: u16 = 1;
const NAME: u16 = 3;
const MTU: u16 = 4;
const QUEUE_LENGTH: u16 = 13;
const LINK_INFO: u16 = 18;
const INFO_KIND: u16 = 1;
const ALIAS: u16 = 20;
const VF_LIST: u16 = 22;
const EXTENT: u16 = 29;
/// `RTEXT_FILTER_SKIP_STATS`: to sum them up costs the kernel more than all the rest.
const SKIP_STATISTICS: u32 = 1 << 3;
const TRANSMIT_QUEUES: u16 = 31;
const RECEIVE_QUEUES: u16 = 32;
const GSO_MAX_SEGMENTS: u16 = 40;
const GSO_MAX_SIZE: u16 = 41;
const PROPERTIES: u16 = 52;
const ALTERNATIVE_NAME: u16 = 53;
const PERMANENT_ADDRESS: u16 = 54;
/// `IFF_LOOPBACK`.
const LOOPBACK: u32 = 1 << 3;

/// An interface of the network namespace that we run in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    pub index: u32,
    pub name: Vec<u8>,
    /// `ARPHRD_…` of `linux/if_arp.h`.
    pub hardware: u16,
    pub loopback: bool,
    pub kind: Option<Vec<u8>>,
    pub address: Option<HardwareAddress>,
    /// The one that the hardware came with, if it has one.
    pub permanent_address: Option<HardwareAddress>,
    pub alternative_names: Vec<Vec<u8>>,
}

/// What is told and changed through rtnetlink.
#[derive(Debug)]
pub struct Interfaces(Link);

impl Interfaces {
    /// # Errors
    /// When there is no socket to be had.
    pub fn open() -> io::Result<Self> {
        Link::open().map(Self)
    }

    /// The interface of a number.
    ///
    /// # Errors
    /// `ENODEV` when there is none (any more), or what the kernel says.
    pub fn get(&mut self, index: u32) -> io::Result<Interface> {
        let mut message = Message::new(Verb::Get, index);
        message.number(EXTENT, SKIP_STATISTICS);
        let reply = match self.0.ask(message.clone()) {
            Err(error) if error.kind() == io::ErrorKind::InvalidData => self.0.ask(message)?,
            reply => reply?,
        };
        let reply = reply.ok_or_else(|| io::Error::other("an answer about a link wanted"))?;
        let address = |kind| reply.attribute(kind).and_then(HardwareAddress::from_bytes);
        let info = reply.attribute(LINK_INFO).unwrap_or_default();
        let kind = attributes(info).find(|(kind, _)| *kind == INFO_KIND);
        let names = reply.attribute(PROPERTIES).unwrap_or_default();
        let names = attributes(names).filter(|(kind, _)| *kind == ALTERNATIVE_NAME);
        Ok(Interface {
            index,
            name: text(reply.attribute(NAME).unwrap_or_default()).to_vec(),
            hardware: reply.hardware(),
            loopback: reply.flags() & LOOPBACK != 0,
            kind: kind.map(|(_, value)| text(value).to_vec()),
            address: address(ADDRESS),
            permanent_address: address(PERMANENT_ADDRESS),
            alternative_names: names.map(|(_, name)| text(name).to_vec()).collect(),
        })
    }

    /// Sets what `[Link]` says, and an address; all of it in one message.
    ///
    /// # Errors
    /// What the kernel says of the first that it refuses; what comes before stays.
    pub fn set(
        &mut self,
        index: u32,
        settings: &Settings,
        address: Option<&HardwareAddress>,
    ) -> io::Result<()> {
        let mut message = Message::new(Verb::Set, index);
        if let Some(alias) = &settings.alias {
            message.text(ALIAS, alias.as_bytes());
        }
        if let Some(address) = address {
            message.attribute(ADDRESS, address.bytes());
        }
        let numbers = [
            (TRANSMIT_QUEUES, settings.transmit_queues),
            (RECEIVE_QUEUES, settings.receive_queues),
        ];
        let set = |message: &mut Message, numbers: &[(u16, u32)]| {
            let given = numbers.iter().filter(|(_, number)| *number > 0);
            given.for_each(|(kind, number)| message.number(*kind, *number));
        };
        set(&mut message, &numbers);
        if let Some(length) = settings.queue_length {
            message.number(QUEUE_LENGTH, length);
        }
        let numbers = [
            (MTU, settings.mtu),
            (GSO_MAX_SIZE, settings.gso_max_bytes),
            (GSO_MAX_SEGMENTS, settings.gso_max_segments),
        ];
        set(&mut message, &numbers);
        if message.is_empty() {
            return Ok(());
        }
        self.0.ask(message).map(drop)
    }

    /// Gives an interface further names.
    ///
    /// # Errors
    /// `EEXIST` when somebody has one of them, or what the kernel says; then none is given.
    pub fn add_names(&mut self, index: u32, names: &[Vec<u8>]) -> io::Result<()> {
        self.names(Verb::AddNames, index, names)
    }

    fn names(&mut self, verb: Verb, index: u32, names: &[Vec<u8>]) -> io::Result<()> {
        let mut message = Message::new(verb, index);
        message.nested(PROPERTIES, |list| {
            names.iter().for_each(|name| list.text(ALTERNATIVE_NAME, name));
        });
        self.0.ask(message).map(drop)
    }

    /// Gives an interface another name; one that was an alternative name of its own is none any more.
    ///
    /// # Errors
    /// `EBUSY` when it is up and its kernel does not rename such, `EEXIST` when somebody has the name,
    /// or what the kernel says; then everything is as before.
    pub fn rename(&mut self, index: u32, name: &[u8]) -> io::Result<()> {
        let own = [name.to_vec()];
        let taken = self.get(index)?.alternative_names.iter().any(|other| other == name);
        if taken {
            self.names(Verb::RemoveNames, index, &own)?;
        }
        let mut message = Message::new(Verb::Set, index);
        message.text(NAME, name);
        let renamed = self.0.ask(message).map(drop);
        if renamed.is_err() && taken {
            self.names(Verb::AddNames, index, &own)?;
        }
        renamed
    }

    /// Sets what `[SR-IOV]` says of a virtual function of a card.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn set_function(&mut self, index: u32, function: &VirtualFunction) -> io::Result<()> {
        let mut message = Message::new(Verb::Set, index);
        message.nested(VF_LIST, |list| list.nested(1, |info| fill(info, function)));
        self.0.ask(message).map(drop)
    }
}

/// The attributes of `IFLA_VF_INFO`, each beginning with the function's number.
fn fill(info: &mut Message, function: &VirtualFunction) {
    let number = function.number.unwrap_or(0).to_ne_bytes();
    let with = |rest: &[u8]| [number.as_slice(), rest].concat();
    if let Some(address) = &function.address {
        let mut padded = [0; 32];
        padded[..address.bytes().len()].copy_from_slice(address.bytes());
        info.attribute(1, &with(&padded));
    }
    let switches = [(4, function.spoof_check), (7, function.query_scaling), (9, function.trust)];
    for (kind, switch) in switches {
        if let Some(on) = switch {
            info.attribute(kind, &with(&u32::from(on).to_ne_bytes()));
        }
    }
    if let Some(state) = function.state {
        info.attribute(5, &with(&state.to_ne_bytes()));
    }
    if function.vlan > 0 {
        let protocol = function.protocol.unwrap_or(0x8100).to_be_bytes();
        let numbers = [function.vlan.to_ne_bytes(), function.quality.to_ne_bytes()].concat();
        let rest = [numbers.as_slice(), &protocol, &[0, 0]].concat();
        info.nested(12, |list| list.attribute(1, &with(&rest)));
    }
}
