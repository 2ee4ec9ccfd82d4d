//! Stage 3e: `net_driver`: the driver of a network interface, as ethtool(8) shows it. Known since udev 255.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
use tracing::debug;

use crate::builtin::{Call, Pair, Ran};

/// `struct ethtool_drvinfo` of `include/uapi/linux/ethtool.h`: the call's number, then five names of
/// 32 bytes, the first the driver's, and other things.
const LENGTH: usize = 196;
const NAME: usize = 32;
const ETHTOOL_GDRVINFO: u32 = 3;
const SIOCETHTOOL: libc::Ioctl = 0x8946;

/// An interface that has gone or whose driver does not tell gives nothing, and that is no failure.
pub(super) fn run(call: &Call<'_>) -> Ran<Vec<Pair>> {
    let interface = call.device.sysname();
    match driver(&interface) {
        Ok(driver) => Ran::Done(vec![(b"ID_NET_DRIVER".to_vec(), driver)]),
        Err(error) => {
            debug!("net_driver: {}: {error}", interface.escape_ascii());
            let harmless = [libc::EOPNOTSUPP, libc::ENODEV];
            let harmless = error.raw_os_error().is_some_and(|no| harmless.contains(&no));
            if harmless { Ran::Done(Vec::new()) } else { Ran::Failed }
        }
    }
}

fn driver(interface: &[u8]) -> io::Result<Vec<u8>> {
    let socket = socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    let mut answer = [0_u8; LENGTH];
    answer[..4].copy_from_slice(&ETHTOOL_GDRVINFO.to_ne_bytes());
    ask(&socket, interface, &mut answer)?;
    let name = answer[4..4 + NAME].split(|byte| *byte == 0).next().unwrap_or_default();
    Ok(name.to_vec())
}

#[expect(unsafe_code, reason = "calls of drivers have no other form")]
fn ask(socket: &OwnedFd, interface: &[u8], argument: &mut [u8; LENGTH]) -> io::Result<()> {
    // SAFETY: zeroes are a valid value of this structure of integers and pointers.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    if interface.len() >= request.ifr_name.len() {
        return Err(io::Error::from_raw_os_error(libc::ENODEV));
    }
    for (to, from) in request.ifr_name.iter_mut().zip(interface) {
        *to = libc::c_char::from_ne_bytes([*from]);
    }
    request.ifr_ifru.ifru_data = argument.as_mut_ptr().cast();
    // SAFETY: the descriptor is open. For ETHTOOL_GDRVINFO, which the argument begins with, the kernel
    // writes a `struct ethtool_drvinfo` to where the request points: the argument, which is that large.
    let said = unsafe { libc::ioctl(socket.as_raw_fd(), SIOCETHTOOL, &raw mut request) };
    if said < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
