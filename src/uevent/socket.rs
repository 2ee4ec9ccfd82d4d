//! Stage 1: the kernel's multicast group in, [`Heard`] out.
//!
//! Only sender port 0, group 1 and credentials of uid 0 are the kernel. In a network namespace
//! that a user namespace owns, the kernel signs with that namespace's own root, which is uid 0 to
//! a daemon inside; whoever may forge that signature (`uevent_net_rcv()` in
//! `lib/kobject_uevent.c` gives injected messages port 0) has CAP_SYS_ADMIN over the namespace.
//! Without a mapped root the kernel's uid is the overflow uid, and is refused like any other.

use std::fmt;
use std::io::{self, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use netlink_sys::protocols::NETLINK_KOBJECT_UEVENT;
use nix::errno::Errno;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, NetlinkAddr, UnixCredentials, recvmsg};
use rustix::net::netlink::{KOBJECT_UEVENT, SocketAddrNetlink};
use rustix::net::{AddressFamily, SocketType, getsockname, sockopt};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::parse::{Dropped, MAX_PACKET, ParseError, parse};
use super::{Origin, Uevent};
use crate::ready;

/// The multicast group in which the kernel speaks; group 2 is for what device managers say.
const KERNEL_GROUP: u32 = 1;

/// Receive buffer when nothing else is configured, in bytes: with about 1 KiB of memory an event,
/// room for the hundred thousand events of a big machine's coldplug while we are stopped.
pub const RECEIVE_BUFFER: usize = 128 * 1024 * 1024;

/// How the socket is set up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Wanted size in bytes; the kernel doubles it for its own bookkeeping.
    pub receive_buffer: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { receive_buffer: RECEIVE_BUFFER }
    }
}

/// One thing that the socket had to say.
#[derive(Debug)]
pub enum Heard {
    /// An event; of the second, one warning when it is not empty.
    Event(Uevent, Dropped),
    /// A packet that is not believed: one warning.
    Refused(Refusal),
    /// The receive buffer was full and the kernel threw events away (ENOBUFS).
    Lost,
}

/// Why a packet was not believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    Port(u32),
    /// Mask of the groups it was sent to; 0 for a message to us alone.
    Groups(u32),
    Uid(u32),
    NoCredentials,
    /// Its length in bytes.
    Truncated(usize),
    Malformed(ParseError),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Port(port) => write!(f, "sent by port {port}, wanted 0 (the kernel)"),
            Self::Groups(mask) => {
                write!(f, "sent to groups {mask:#x}, wanted {KERNEL_GROUP:#x} (the kernel's)")
            }
            Self::Uid(uid) => write!(f, "sent by uid {uid}, wanted 0"),
            Self::NoCredentials => f.write_str("without credentials, wanted uid 0"),
            Self::Truncated(len) => write!(f, "{len} bytes, wanted at most {MAX_PACKET}"),
            Self::Malformed(error) => error.fmt(f),
        }
    }
}

/// What went through the socket since it was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    pub received: u64,
    /// Events of which a pair was left out.
    pub mended: u64,
    /// Refused for port, group or credentials.
    pub foreign: u64,
    pub truncated: u64,
    pub malformed: u64,
    /// Reports of loss; how many events each cost is not known.
    pub lost: u64,
    /// Jumps of SEQNUM. The number is shared by all network namespaces: no proof of loss.
    pub gaps: u64,
}

/// The netlink socket on which the kernel tells its events.
#[derive(Debug)]
pub struct KernelSocket {
    fd: AsyncFd<OwnedFd>,
    receiver: Receiver,
    granted: usize,
}

impl KernelSocket {
    /// Opens and binds a socket; needs a tokio runtime.
    ///
    /// # Errors
    ///
    /// The kernel's, or that there is no runtime.
    pub fn open(options: &Options) -> io::Result<Self> {
        let mut socket = netlink_sys::Socket::new(NETLINK_KOBJECT_UEVENT)?;
        // both before bind, so that not even the first event meets a small or unsigned socket
        if sockopt::set_socket_recv_buffer_size_force(&socket, options.receive_buffer).is_err() {
            sockopt::set_socket_recv_buffer_size(&socket, options.receive_buffer)?;
        }
        sockopt::set_socket_passcred(&socket, true)?;
        socket.bind(&netlink_sys::SocketAddr::new(0, KERNEL_GROUP))?;
        Self::new(socket.as_fd().try_clone_to_owned()?)
    }

    /// Takes over a socket that the service manager kept open, and what waits in it.
    ///
    /// # Errors
    ///
    /// When it is no netlink uevent socket of group 1; else the kernel's.
    pub fn adopt(fd: OwnedFd, options: &Options) -> io::Result<Self> {
        check(fd.as_fd())?;
        // refused without CAP_NET_ADMIN: then the size that the socket unit gave it stays
        let _unprivileged = sockopt::set_socket_recv_buffer_size_force(&fd, options.receive_buffer);
        sockopt::set_socket_passcred(&fd, true)?;
        Self::new(fd)
    }

    fn new(fd: OwnedFd) -> io::Result<Self> {
        let granted = sockopt::socket_recv_buffer_size(&fd)?;
        let fd = ready::watched(fd, Interest::READABLE)?;
        Ok(Self { fd, receiver: Receiver::new(), granted })
    }

    /// Size of the receive buffer as the kernel counts it: twice what it granted, in bytes.
    #[must_use]
    pub fn granted(&self) -> usize {
        self.granted
    }

    #[must_use]
    pub fn counters(&self) -> Counters {
        self.receiver.counters
    }

    /// Waits for the next packet; nothing is lost when the future is dropped.
    ///
    /// # Errors
    ///
    /// What the socket cannot recover from.
    pub async fn recv(&mut self) -> io::Result<Heard> {
        loop {
            let mut ready = self.fd.readable().await?;
            let receiver = &mut self.receiver;
            if let Ok(heard) = ready.try_io(|fd| receiver.receive(fd.as_fd())) {
                return heard;
            }
        }
    }

    /// The next packet if one waits: lets the caller take a batch at each wake-up.
    ///
    /// # Errors
    ///
    /// As [`Self::recv`].
    pub fn try_recv(&mut self) -> io::Result<Option<Heard>> {
        let receiver = &mut self.receiver;
        match ready::read_now(&self.fd, |fd| receiver.receive(fd.as_fd())) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            heard => heard.map(Some),
        }
    }
}

impl AsFd for KernelSocket {
    /// For the service manager's store of file descriptors.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.get_ref().as_fd()
    }
}

fn check(fd: BorrowedFd<'_>) -> io::Result<()> {
    let wrong = |found: String| {
        let wanted = "wanted a netlink socket of protocol kobject-uevent, bound to group 1";
        Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{found}, {wanted}")))
    };
    let family = sockopt::socket_domain(fd)?;
    if family != AddressFamily::NETLINK {
        return wrong(format!("socket of family {}", family.as_raw()));
    }
    let kind = sockopt::socket_type(fd)?;
    if kind != SocketType::RAW && kind != SocketType::DGRAM {
        return wrong(format!("socket of type {}", kind.as_raw()));
    }
    let protocol = sockopt::socket_protocol(fd)?;
    if protocol != Some(KOBJECT_UEVENT) {
        return wrong(format!("socket of protocol {protocol:?}"));
    }
    let groups = SocketAddrNetlink::try_from(getsockname(fd)?)?.groups();
    if groups != KERNEL_GROUP {
        return wrong(format!("socket bound to groups {groups:#x}"));
    }
    Ok(())
}

/// The buffers that every packet is read into, and the counters.
struct Receiver {
    packet: Box<[u8]>,
    control: Vec<u8>,
    counters: Counters,
    newest: Option<u64>,
}

impl fmt::Debug for Receiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receiver").field("counters", &self.counters).finish_non_exhaustive()
    }
}

impl Receiver {
    fn new() -> Self {
        Self {
            packet: vec![0; MAX_PACKET].into(),
            control: nix::cmsg_space!(UnixCredentials),
            counters: Counters::default(),
            newest: None,
        }
    }

    /// Reads one packet without waiting; `WouldBlock` when there is none.
    fn receive(&mut self, fd: BorrowedFd<'_>) -> io::Result<Heard> {
        let heard = loop {
            match receive_raw(fd, &mut self.packet, &mut self.control) {
                Ok((len, sender)) => break self.judge(len, sender),
                Err(Errno::EINTR) => {}
                Err(Errno::ENOBUFS) => break Heard::Lost,
                Err(error) => return Err(error.into()),
            }
        };
        self.count(&heard);
        Ok(heard)
    }

    fn judge(&self, len: usize, sender: Sender) -> Heard {
        if let Some(refusal) = sender.refusal() {
            return Heard::Refused(refusal);
        }
        let Some(packet) = self.packet.get(..len) else {
            return Heard::Refused(Refusal::Truncated(len));
        };
        match parse(packet) {
            Ok(packet) => Heard::Event(packet.to_uevent(Origin::Kernel), packet.into_dropped()),
            Err(error) => Heard::Refused(Refusal::Malformed(error)),
        }
    }

    fn count(&mut self, heard: &Heard) {
        let counters = &mut self.counters;
        match heard {
            Heard::Event(uevent, dropped) => {
                counters.received += 1;
                counters.mended += u64::from(!dropped.is_empty());
                let newest = self.newest.get_or_insert(uevent.seqnum());
                counters.gaps += u64::from(uevent.seqnum() > newest.saturating_add(1));
                *newest = uevent.seqnum().max(*newest);
            }
            Heard::Refused(Refusal::Malformed(_)) => counters.malformed += 1,
            Heard::Refused(Refusal::Truncated(_)) => counters.truncated += 1,
            Heard::Refused(
                Refusal::Port(_) | Refusal::Groups(_) | Refusal::Uid(_) | Refusal::NoCredentials,
            ) => counters.foreign += 1,
            Heard::Lost => counters.lost += 1,
        }
    }
}

/// Who sent a packet, as the kernel says.
#[derive(Clone, Copy, Debug)]
pub struct Sender {
    pub port: u32,
    /// Mask of the groups that it was sent to.
    pub groups: u32,
    pub uid: Option<u32>,
}

impl Sender {
    fn refusal(self) -> Option<Refusal> {
        match self {
            Self { port, .. } if port != 0 => Some(Refusal::Port(port)),
            Self { groups, .. } if groups != KERNEL_GROUP => Some(Refusal::Groups(groups)),
            Self { uid: None, .. } => Some(Refusal::NoCredentials),
            Self { uid: Some(uid), .. } => (uid != 0).then_some(Refusal::Uid(uid)),
        }
    }
}

/// Reads one packet; the length is the packet's own, even where it did not fit.
///
/// # Errors
///
/// The kernel's; `EAGAIN` when no packet waits.
///
/// Through nix: rustix keeps the process id of credentials as a number that cannot be zero, and
/// the kernel's is zero.
pub fn receive_raw(
    fd: BorrowedFd<'_>,
    packet: &mut [u8],
    control: &mut [u8],
) -> Result<(usize, Sender), Errno> {
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_TRUNC;
    let mut slices = [IoSliceMut::new(packet)];
    let message = recvmsg::<NetlinkAddr>(fd.as_raw_fd(), &mut slices, Some(control), flags)?;
    // no address at all is as little the kernel as a wrong one
    let (port, groups) = message.address.map_or((u32::MAX, 0), |a| (a.pid(), a.groups()));
    let credentials = message.cmsgs().into_iter().flatten().find_map(|control| {
        if let ControlMessageOwned::ScmCredentials(found) = control { Some(found) } else { None }
    });
    let uid = credentials.map(|credentials| credentials.uid());
    Ok((message.bytes, Sender { port, groups, uid }))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KERNEL: Sender = Sender { port: 0, groups: 1, uid: Some(0) };

    fn refusal(sender: Sender) -> String {
        sender.refusal().map(|refusal| refusal.to_string()).unwrap_or_default()
    }

    #[test]
    fn only_port_0_in_group_1_with_uid_0_is_the_kernel() {
        assert_eq!(KERNEL.refusal(), None);
        assert!(refusal(Sender { port: 7, ..KERNEL }).contains("port 7"));
        assert!(refusal(Sender { groups: 2, ..KERNEL }).contains("groups 0x2"));
        assert!(refusal(Sender { groups: 0, ..KERNEL }).contains("groups 0x0"));
        assert!(refusal(Sender { groups: 3, ..KERNEL }).contains("groups 0x3"));
        assert!(refusal(Sender { uid: Some(65534), ..KERNEL }).contains("uid 65534"));
        assert!(refusal(Sender { uid: None, ..KERNEL }).contains("without credentials"));
    }

    #[test]
    fn a_truncated_packet_is_refused_with_its_length() {
        let mut receiver = Receiver::new();
        let heard = receiver.judge(MAX_PACKET + 1, KERNEL);
        assert!(matches!(heard, Heard::Refused(Refusal::Truncated(8193))), "{heard:?}");
        receiver.count(&heard);
        assert_eq!(receiver.counters.truncated, 1);
    }

    #[test]
    fn gaps_are_counted_and_late_numbers_are_none() {
        let mut receiver = Receiver::new();
        for seqnum in [10, 11, 14, 12, 13, 15, 15, 18] {
            let packet = format!("add@/x\0ACTION=add\0DEVPATH=/x\0SEQNUM={seqnum}\0");
            receiver.packet[..packet.len()].copy_from_slice(packet.as_bytes());
            let heard = receiver.judge(packet.len(), KERNEL);
            receiver.count(&heard);
        }
        assert_eq!((receiver.counters.received, receiver.counters.gaps), (8, 2));
    }
}
