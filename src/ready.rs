//! What a descriptor has, also what came before anybody was woken.

use std::io;
use std::os::fd::AsRawFd;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Has the runtime wait for a descriptor; needs one.
///
/// # Errors
/// The system's, or that there is no runtime.
#[expect(deprecated, reason = "the successor is unsafe, for types whose number may change")]
pub fn watched<F: AsRawFd>(fd: F, interest: Interest) -> io::Result<AsyncFd<F>> {
    AsyncFd::with_interest(fd, interest)
}

/// Reads, whether or not the runtime has been told yet that there is something. That nothing is left is remembered
/// only if `read` has said so in here: what comes after is told anew.
///
/// # Errors
/// What `read` says; "would block" when there is nothing.
pub fn read_now<F: AsRawFd, T>(
    fd: &AsyncFd<F>,
    mut read: impl FnMut(&F) -> io::Result<T>,
) -> io::Result<T> {
    let mut asked = false;
    let found = fd.try_io(Interest::READABLE, |fd| {
        asked = true;
        read(fd)
    });
    if asked { found } else { read(fd.get_ref()) }
}
