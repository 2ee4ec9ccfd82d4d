//! Stage 5b: `[SR-IOV]`: the virtual functions of a card and what each is given.
#![forbid(unsafe_code)]

use std::path::PathBuf;

use super::hardware::HardwareAddress;
use super::ini::Assignment;
use super::keys::{Refused, Taken, switch, wants};
use super::values::{boolean, unsigned32};
use crate::problem::{Problem, Severity};

/// The keys of the section.
pub(super) const KEYS: [&str; 9] = [
    "VirtualFunction",
    "VLANId",
    "QualityOfService",
    "VLANProtocol",
    "MACSpoofCheck",
    "QueryReceiveSideScaling",
    "Trust",
    "LinkState",
    "MACAddress",
];

/// `ETH_P_8021Q` and `ETH_P_8021AD`.
const PROTOCOLS: [(&str, u16); 2] = [("802.1Q", 0x8100), ("802.1ad", 0x88a8)];

/// One section.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VirtualFunction {
    pub number: Option<u32>,
    /// 0: not set.
    pub vlan: u32,
    pub quality: u32,
    pub protocol: Option<u16>,
    pub spoof_check: Option<bool>,
    pub query_scaling: Option<bool>,
    pub trust: Option<bool>,
    /// `IFLA_VF_LINK_STATE_…`: 0 as the card, 1 up, 2 down.
    pub state: Option<u32>,
    pub address: Option<HardwareAddress>,
    file: PathBuf,
    line: u32,
    /// A bad value costs the whole section.
    refused: bool,
}

impl VirtualFunction {
    pub(super) fn new(file: PathBuf, line: u32) -> Self {
        Self {
            number: None,
            vlan: 0,
            quality: 0,
            protocol: None,
            spoof_check: None,
            query_scaling: None,
            trust: None,
            state: None,
            address: None,
            file,
            line,
            refused: false,
        }
    }

    pub(super) fn take(&mut self, assignment: &Assignment) -> Taken {
        let taken = self.assign(&assignment.key, &assignment.value);
        self.refused |= matches!(taken, Err(Refused::Value(_)));
        taken
    }

    fn assign(&mut self, key: &str, value: &str) -> Taken {
        match key {
            "VirtualFunction" if value.is_empty() => self.number = None,
            "VirtualFunction" => {
                let number = unsigned32(value).filter(|number| *number < u32::MAX >> 1);
                self.number = Some(wants(number, "a number from 0 to 2147483646")?);
            }
            "VLANId" if value.is_empty() => self.vlan = 0,
            "VLANId" => {
                let number = unsigned32(value).filter(|number| (1..=4095).contains(number));
                self.vlan = wants(number, "a number from 1 to 4095")?;
            }
            "QualityOfService" if value.is_empty() => self.quality = 0,
            "QualityOfService" => self.quality = wants(unsigned32(value), "a number")?,
            "VLANProtocol" if value.is_empty() => self.protocol = None,
            "VLANProtocol" => {
                let known = PROTOCOLS.iter().find(|(name, _)| *name == value);
                let number = known.map(|(_, number)| *number);
                self.protocol = Some(wants(number, "802.1Q or 802.1ad")?);
            }
            "MACSpoofCheck" => self.spoof_check = switch(value)?,
            "QueryReceiveSideScaling" => self.query_scaling = switch(value)?,
            "Trust" => self.trust = switch(value)?,
            "LinkState" => {
                let on = |on: bool| if on { 1 } else { 2 };
                self.state = match value {
                    "" => None,
                    "auto" => Some(0),
                    _ => Some(on(wants(boolean(value), "yes, no or auto")?)),
                };
            }
            "MACAddress" if value.is_empty() => self.address = None,
            "MACAddress" => {
                let address = HardwareAddress::parse(value);
                let address = address.filter(|address| address.bytes().len() == 6);
                self.address = Some(wants(address, "an address such as 12:34:56:78:90:ab")?);
            }
            _ => return Err(Refused::Key),
        }
        Ok(())
    }
}

/// Leaves out sections that cannot hold: without number, beyond `count`, or said again further down.
pub(super) fn settle(
    functions: &mut Vec<VirtualFunction>,
    count: Option<u32>,
    problems: &mut Vec<Problem>,
) {
    let mut kept: Vec<VirtualFunction> = Vec::new();
    for function in functions.drain(..).filter(|function| !function.refused) {
        let mut refuse = |of: &VirtualFunction, what: String| {
            let whole = Problem::whole(&of.file, Severity::Error, what);
            problems.push(Problem { line: of.line, ..whole });
        };
        match function.number {
            None => refuse(&function, "[SR-IOV] wants VirtualFunction=".to_owned()),
            Some(number) if count.is_some_and(|count| number >= count) => {
                refuse(
                    &function,
                    "VirtualFunction= below SR-IOVVirtualFunctions= wanted".to_owned(),
                );
            }
            Some(number) => {
                if let Some(at) = kept.iter().position(|other| other.number == Some(number)) {
                    let other = kept.remove(at);
                    refuse(&other, format!("VirtualFunction={number} is set again further down"));
                }
                kept.push(function);
            }
        }
    }
    kept.sort_by_key(|function| function.number);
    *functions = kept;
}
