//! In shadow mode: what the machine's own device manager tells libudev's clients.
//!
//! A node can be compared only when the other manager is done with it, and this says when.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_KOBJECT_UEVENT};
use rustix::net::sockopt;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::{GROUP, MAGIC};
use crate::ready;
use crate::uevent::socket::receive_raw;

/// The longest message that libudev's clients read.
const MESSAGE_MAX: usize = 8192;

/// Listens to the group of processed events.
#[derive(Debug)]
pub struct Overhear {
    fd: AsyncFd<OwnedFd>,
    message: Box<[u8]>,
    control: Vec<u8>,
}

impl Overhear {
    /// Needs a tokio runtime, and no privilege.
    ///
    /// # Errors
    /// The kernel's.
    pub fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_KOBJECT_UEVENT)?;
        sockopt::set_socket_passcred(&socket, true)?;
        socket.bind(&SocketAddr::new(0, 1 << (GROUP - 1)))?;
        let fd = ready::watched(socket.as_fd().try_clone_to_owned()?, Interest::READABLE)?;
        let control = nix::cmsg_space!(nix::sys::socket::UnixCredentials);
        Ok(Self { fd, message: vec![0; MESSAGE_MAX].into(), control })
    }

    /// The devpath of the next event that root's device manager has handled.
    ///
    /// Messages of others, and those that were lost, are passed over: the next comparison of the
    /// device makes up for them.
    ///
    /// # Errors
    /// What the socket cannot recover from.
    pub async fn next(&mut self) -> io::Result<Vec<u8>> {
        loop {
            let mut ready = self.fd.readable().await?;
            let (message, control) = (&mut self.message, &mut self.control);
            let received = ready.try_io(|fd| Ok(receive_raw(fd.as_fd(), message, control)?));
            let (length, sender) = match received {
                Ok(Ok(received)) => received,
                Ok(Err(error)) if is_loss(&error) => continue,
                Ok(Err(error)) => return Err(error),
                Err(_) => continue,
            };
            let mask = 1 << (GROUP - 1);
            if sender.uid != Some(0) || sender.groups != mask || sender.port == 0 {
                continue;
            }
            if let Some(devpath) = self.message.get(..length).and_then(devpath) {
                return Ok(devpath.to_vec());
            }
        }
    }
}

fn is_loss(error: &io::Error) -> bool {
    let number = error.raw_os_error().map(rustix::io::Errno::from_raw_os_error);
    matches!(number, Some(rustix::io::Errno::NOBUFS | rustix::io::Errno::INTR))
}

/// The property DEVPATH of a libudev message.
fn devpath(message: &[u8]) -> Option<&[u8]> {
    let head = message.strip_prefix(b"libudev\0")?;
    (head.get(..4)? == MAGIC.to_be_bytes()).then_some(())?;
    let offset = u32::from_ne_bytes(*head.get(8..)?.first_chunk()?);
    let properties = message.get(usize::try_from(offset).ok()?..)?;
    properties.split(|byte| *byte == 0).find_map(|pair| pair.strip_prefix(b"DEVPATH="))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::announce::Message;

    #[test]
    fn the_devpath_of_a_message_is_found_and_nothing_in_a_damaged_one() {
        let properties = [(b"DEVPATH".as_slice(), b"/devices/x".as_slice().into())];
        let message =
            Message { subsystem: b"mem", devtype: b"", sticky_tags: &[], properties: &properties };
        let mut bytes = message.to_bytes();
        assert_eq!(devpath(&bytes), Some(b"/devices/x".as_slice()));
        for length in 0..bytes.len() {
            let cut = devpath(&bytes[..length]);
            assert!(cut.is_none_or(|path| b"/devices/x".starts_with(path)), "{length}");
        }
        bytes[19] = 0xff;
        assert_eq!(devpath(&bytes), None, "properties beyond the end");
    }
}
