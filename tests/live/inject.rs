//! Has the kernel send uevents as its own (`uevent_net_rcv()` in `lib/kobject_uevent.c`).

use netlink_sys::protocols::NETLINK_KOBJECT_UEVENT;
use netlink_sys::{Socket, SocketAddr};

/// A sender with a socket of its own.
pub(crate) struct Injector {
    socket: Socket,
}

impl Injector {
    pub(crate) fn new() -> Self {
        let mut socket = Socket::new(NETLINK_KOBJECT_UEVENT).unwrap();
        socket.bind_auto().unwrap();
        Self { socket }
    }

    /// Header and pairs; the kernel adds SEQNUM and tells this network namespace alone.
    pub(crate) fn inject(&self, payload: &[u8]) {
        let len = u32::try_from(16 + payload.len()).unwrap();
        let mut message = len.to_ne_bytes().to_vec();
        message.extend(16_u16.to_ne_bytes()); // type: the first that is not netlink's own
        message.extend(1_u16.to_ne_bytes()); // NLM_F_REQUEST
        message.extend([0; 8]); // sequence, port
        message.extend(payload);
        self.socket.send_to(&message, &SocketAddr::new(0, 0), 0).unwrap();
    }

    /// Not through the kernel: signed with our own port, to a group or to one port.
    pub(crate) fn forge(&self, payload: &[u8], port: u32, groups: u32) {
        self.socket.send_to(payload, &SocketAddr::new(port, groups), 0).unwrap();
    }
}

/// `add@/devices/x\0ACTION=add\0DEVPATH=/devices/x\0…`, as the kernel writes it less its SEQNUM.
pub(crate) fn payload(action: &str, devpath: &str, pairs: &[(String, String)]) -> Vec<u8> {
    let mut text = format!("{action}@{devpath}\0ACTION={action}\0DEVPATH={devpath}\0");
    pairs.iter().for_each(|(key, value)| text.push_str(&format!("{key}={value}\0")));
    text.into_bytes()
}
