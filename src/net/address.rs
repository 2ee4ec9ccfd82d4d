//! Stage 5b: the hardware address that an interface is to have by `MACAddressPolicy=`.

use std::io;

use rustix::rand::{GetRandomFlags, getrandom};

use super::hardware::HardwareAddress;
use super::interface::Interface;
use super::link_file::{AddressPolicy, Settings};
use super::words::{ETHER, INFINIBAND};
use crate::siphash;

/// systemd's key for addresses that are the same on every boot.
const KEY: [u64; 2] = [
    u64::from_le_bytes([0xd3, 0x1e, 0x48, 0xfa, 0x90, 0xfe, 0x4b, 0x4c]),
    u64::from_le_bytes([0x9d, 0xaf, 0xd5, 0xd7, 0xa1, 0xb1, 0x2e, 0x8a]),
];

/// The part of an InfiniBand address that can be chosen.
const INFINIBAND_PORT: std::ops::Range<usize> = 12..20;

/// Properties that name the hardware for good, the best first.
pub(super) const NAMES: [&[u8]; 4] =
    [b"ID_NET_NAME_ONBOARD", b"ID_NET_NAME_SLOT", b"ID_NET_NAME_PATH", b"ID_NET_NAME_MAC"];

/// Who gave an interface its address: `NET_ADDR_…` of `linux/netdevice.h`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum AddressSource {
    Permanent,
    Random,
    /// From another interface, from userspace, or nobody knows from where.
    #[default]
    Other,
}

impl AddressSource {
    /// From the attribute `addr_assign_type`.
    #[must_use]
    pub(super) fn parse(text: &[u8]) -> Self {
        match text {
            b"0" => Self::Permanent,
            b"1" => Self::Random,
            _ => Self::Other,
        }
    }
}

/// The address to give an interface; `None` to leave it as it is.
///
/// `stable` names the interface for good.
///
/// # Errors
/// When there is nothing to make an address from, or one that cannot be.
pub(super) fn address(
    settings: &Settings,
    interface: &Interface,
    given_by: AddressSource,
    machine_id: &str,
    stable: Option<&[u8]>,
) -> io::Result<Option<HardwareAddress>> {
    let Some(current) = &interface.address else { return Ok(None) };
    let kind = (settings.address_policy, given_by);
    let mut bytes = current.bytes().to_vec();
    let range = match interface.hardware {
        INFINIBAND if bytes.len() == INFINIBAND_PORT.end => INFINIBAND_PORT,
        ETHER if bytes.len() == 6 => 0..6,
        _ if settings.address_policy != AddressPolicy::None => return Ok(None),
        _ => 0..0,
    };
    match kind {
        (AddressPolicy::None, _) => {
            let wanted = settings.address.as_ref();
            return wanted.map(|wanted| fitting(wanted, interface, current)).transpose();
        }
        (_, AddressSource::Other)
        | (AddressPolicy::Random, AddressSource::Random)
        | (AddressPolicy::Persistent, AddressSource::Permanent) => return Ok(None),
        (AddressPolicy::Persistent, AddressSource::Random) => {
            let made = persistent(machine_id, stable)?.to_le_bytes();
            bytes[range.clone()].copy_from_slice(&made[..range.len()]);
        }
        (AddressPolicy::Random, AddressSource::Permanent) => {
            getrandom(&mut bytes[range.clone()], GetRandomFlags::empty())?;
        }
    }
    if interface.hardware == ETHER {
        // of one station, and of no maker's
        bytes[0] = bytes[0] & 0xfe | 0x02;
    }
    if bytes[range].iter().all(|byte| *byte == 0) {
        return Err(io::Error::other("an address that is not all zeros wanted"));
    }
    Ok(HardwareAddress::from_bytes(&bytes))
}

/// A number that is the same for a machine and a name.
fn persistent(machine_id: &str, stable: Option<&[u8]>) -> io::Result<u64> {
    let byte = |at: usize| u8::from_str_radix(machine_id.get(at..at + 2)?, 16).ok();
    let id: Option<Vec<u8>> = (0..32).step_by(2).map(byte).collect();
    let id = id.ok_or_else(|| io::Error::other("/etc/machine-id wanted for a lasting address"))?;
    let name = stable.ok_or_else(|| io::Error::other("a lasting name wanted for an address"))?;
    Ok(siphash::hash(KEY, &[&id, name].concat()))
}

/// The address that a file says, as far as the hardware takes it.
fn fitting(
    wanted: &HardwareAddress,
    interface: &Interface,
    current: &HardwareAddress,
) -> io::Result<HardwareAddress> {
    if wanted.bytes().len() != current.bytes().len() {
        let what = format!("MACAddress= of {} bytes wanted", current.bytes().len());
        return Err(io::Error::other(what));
    }
    let mut bytes = wanted.bytes().to_vec();
    let bad = match interface.hardware {
        ETHER => {
            let bad = wanted.is_zero() || wanted.is_broadcast();
            bytes[0] &= 0xfe;
            bad || bytes.iter().all(|byte| *byte == 0)
        }
        INFINIBAND if bytes.len() == INFINIBAND_PORT.end => {
            bytes[..INFINIBAND_PORT.start]
                .copy_from_slice(&current.bytes()[..INFINIBAND_PORT.start]);
            bytes[INFINIBAND_PORT].iter().all(|byte| *byte == 0)
        }
        _ => false,
    };
    let address = HardwareAddress::from_bytes(&bytes).filter(|_| !bad);
    address.ok_or_else(|| io::Error::other("an address of one station wanted"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MACHINE: &str = "3d1219c7c4c5404aaa1f6d2a48adfda4";

    fn interface() -> Interface {
        Interface {
            index: 2,
            name: b"v0".to_vec(),
            hardware: ETHER,
            loopback: false,
            kind: None,
            address: HardwareAddress::from_bytes(&[2, 0, 0, 0, 0, 1]),
            permanent_address: None,
            alternative_names: Vec::new(),
        }
    }

    fn made(policy: AddressPolicy, source: AddressSource) -> Option<String> {
        let settings = Settings { address_policy: policy, ..Settings::default() };
        let made = address(&settings, &interface(), source, MACHINE, Some(b"v0")).unwrap();
        made.map(|address| address.to_string())
    }

    #[test]
    fn a_lasting_address_comes_from_machine_and_name() {
        let made = made(AddressPolicy::Persistent, AddressSource::Random);
        // as systemd-udevd 252 makes it
        assert_eq!(made.as_deref(), Some("2a:61:d6:59:e6:10"));
    }

    #[test]
    fn what_suits_the_policy_already_is_kept() {
        use AddressPolicy::{Persistent, Random};
        assert_eq!(made(Persistent, AddressSource::Permanent), None);
        assert_eq!(made(Persistent, AddressSource::Other), None);
        assert_eq!(made(Random, AddressSource::Random), None);
        let random = made(Random, AddressSource::Permanent).unwrap();
        let first = u8::from_str_radix(&random[..2], 16).unwrap();
        assert_eq!(first & 3, 2);
    }
}
