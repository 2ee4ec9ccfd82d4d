//! What libudev's clients hear: the announcements on netlink group 2.

use std::collections::HashMap;
use std::os::fd::AsFd;
use std::time::Duration;

use netlink_sys::protocols::NETLINK_KOBJECT_UEVENT;
use netlink_sys::{Socket, SocketAddr};
use rustix::net::sockopt;

const GROUP: u32 = 2;
const HEADER_LEN: usize = 40;

/// More than a storm of announcements takes.
const BUFFER: usize = 128 * 1024 * 1024;

/// How long one announcement may keep us waiting.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Clone, Debug)]
pub(crate) struct Announcement {
    pub(crate) properties: HashMap<Vec<u8>, Vec<u8>>,
}

impl Announcement {
    pub(crate) fn text(&self, key: &str) -> String {
        let value = self.properties.get(key.as_bytes()).cloned().unwrap_or_default();
        String::from_utf8_lossy(&value).into_owned()
    }

    pub(crate) fn number(&self, key: &str) -> Option<u64> {
        self.text(key).parse().ok()
    }
}

pub(crate) struct Listener {
    socket: Socket,
}

impl Listener {
    pub(crate) fn new() -> Self {
        let mut socket = Socket::new(NETLINK_KOBJECT_UEVENT).unwrap();
        sockopt::set_socket_recv_buffer_size_force(&socket, BUFFER).unwrap();
        sockopt::set_socket_timeout(&socket, sockopt::Timeout::Recv, Some(PATIENCE)).unwrap();
        socket.bind(&SocketAddr::new(0, GROUP)).unwrap();
        Self { socket }
    }

    /// Waits for the next announcement.
    pub(crate) fn next(&self) -> Announcement {
        let mut packet = Vec::with_capacity(16 * 1024);
        self.socket.recv(&mut packet, 0).expect("wanted an announcement");
        parse(&packet)
    }

    /// What lies in the socket already.
    pub(crate) fn waiting(&self) -> Vec<Announcement> {
        let mut all = Vec::new();
        rustix::io::ioctl_fionbio(self.socket.as_fd(), true).unwrap();
        let mut packet = Vec::with_capacity(16 * 1024);
        while self.socket.recv(&mut packet, 0).is_ok() {
            all.push(parse(&packet));
            packet.clear();
        }
        rustix::io::ioctl_fionbio(self.socket.as_fd(), false).unwrap();
        all
    }

    /// All announcements until that of `devpath` with this `LIVE_N`.
    pub(crate) fn until(&self, number: u64) -> Vec<Announcement> {
        let mut all = Vec::new();
        loop {
            let next = self.next();
            let over = next.number("LIVE_N") == Some(number);
            all.push(next);
            if over {
                return all;
            }
        }
    }
}

fn parse(packet: &[u8]) -> Announcement {
    assert_eq!(&packet[..8], b"libudev\0", "no libudev header");
    let pairs = packet[HEADER_LEN..].split(|byte| *byte == 0).filter(|pair| !pair.is_empty());
    let split = |pair: &[u8]| {
        let at = pair.iter().position(|byte| *byte == b'=').expect("a pair without `=`");
        (pair[..at].to_vec(), pair[at + 1..].to_vec())
    };
    Announcement { properties: pairs.map(split).collect() }
}
