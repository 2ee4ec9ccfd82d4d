//! Stage 3d: one process that reads disks: a packet in, a [`Reply`] out, or it is ended.

use std::fs::File;
use std::io::{self, ErrorKind, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};

use super::protocol::{DESCRIPTORS_MAX, Malformed, PACKET_MAX, Reply};
use crate::exec::{Pause, SHORT, Waiting};

/// How long a helper may take until it is in its sandbox.
const START_LIMIT: Duration = Duration::from_secs(20);

/// Why a helper gave no reply.
#[derive(Debug)]
pub(super) enum Silence {
    /// It cannot be started, or does not come into its sandbox.
    NoStart(String),
    /// It said nothing until time was up.
    TimeUp,
    /// It ended, or broke the protocol and is ended.
    Died(String),
}

/// A helper that waits for a question. It is ended when this is dropped.
#[derive(Debug)]
pub(super) struct Helper {
    process: Child,
    socket: OwnedFd,
    /// Where its packets are received.
    packet: Vec<u8>,
    /// Questions so far.
    pub(super) asked: u64,
}

impl Helper {
    /// Starts a helper and waits until it is in its sandbox, and no longer than until `end`.
    pub(super) fn start(
        program: &Path,
        end: Instant,
        pause: Option<&dyn Pause>,
    ) -> Result<Self, Silence> {
        let failed = |error: io::Error| {
            Silence::NoStart(format!("cannot start {}: {error}", program.display()))
        };
        let flags = SocketFlags::CLOEXEC;
        let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)
            .map_err(|error| failed(error.into()))?;
        let mut command = Command::new(program);
        command.env_clear().current_dir("/").stdin(Stdio::from(theirs));
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let process = command.spawn().map_err(failed)?;
        // the command holds the other end, and the end of the process is seen when nobody holds it
        drop(command);
        let mut helper = Self { process, socket: ours, packet: vec![0; PACKET_MAX], asked: 0 };
        let said = match helper.hear(end.min(Instant::now() + START_LIMIT), pause) {
            Ok(Reply::Ready) => return Ok(helper),
            Ok(Reply::Found(_) | Reply::Refused(_)) => "it spoke before it was asked".to_owned(),
            Err(Silence::TimeUp) => "it does not get ready".to_owned(),
            Err(Silence::NoStart(what) | Silence::Died(what)) => what,
        };
        Err(Silence::NoStart(format!("{} is not of use: {said}", program.display())))
    }

    /// Asks, and waits for the reply until `end`. After an error the helper is of no more use.
    pub(super) fn ask(
        &mut self,
        packet: &[u8],
        descriptors: &[File],
        end: Instant,
        pause: Option<&dyn Pause>,
    ) -> Result<Reply, Silence> {
        self.asked += 1;
        let descriptors: Vec<BorrowedFd<'_>> =
            descriptors.iter().take(DESCRIPTORS_MAX).map(AsFd::as_fd).collect();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        control.push(SendAncillaryMessage::ScmRights(&descriptors));
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        match sendmsg(&self.socket, &[IoSlice::new(packet)], &mut control, flags) {
            Ok(_) => self.hear(end, pause),
            Err(Errno::PIPE | Errno::CONNRESET) => Err(self.ended()),
            Err(error) => Err(Silence::Died(format!("it cannot be asked: {error}"))),
        }
    }

    fn hear(&mut self, end: Instant, pause: Option<&dyn Pause>) -> Result<Reply, Silence> {
        let soon = end.min(Instant::now() + SHORT);
        if !self.speaks(soon)? {
            let _waiting = pause.map(Waiting::begin);
            if !self.speaks(end)? {
                return Err(Silence::TimeUp);
            }
        }
        // no room for descriptors: those that it might send are closed by the kernel
        let mut control = RecvAncillaryBuffer::new(&mut []);
        let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC | RecvFlags::TRUNC;
        let said =
            recvmsg(&self.socket, &mut [IoSliceMut::new(&mut self.packet)], &mut control, flags);
        let length = match said {
            Ok(said) if said.bytes > 0 => said.bytes,
            Ok(_) => return Err(self.ended()),
            Err(error) => return Err(Silence::Died(format!("it cannot be heard: {error}"))),
        };
        let reply = self.packet.get(..length).ok_or(Malformed).and_then(Reply::decode);
        reply.map_err(|Malformed| Silence::Died("it does not keep to the protocol".to_owned()))
    }

    /// Whether it says something, or ends, before `end`.
    fn speaks(&self, end: Instant) -> Result<bool, Silence> {
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let left = Timespec::try_from(left).map_err(|_| Silence::TimeUp)?;
            let mut ready = [PollFd::new(&self.socket, PollFlags::IN)];
            match poll(&mut ready, Some(&left)) {
                Ok(ready) => return Ok(ready > 0),
                Err(Errno::INTR) => {}
                Err(error) => return Err(Silence::Died(format!("it cannot be heard: {error}"))),
            }
        }
    }

    /// The helper has closed its socket, so it ends, or is made to.
    fn ended(&mut self) -> Silence {
        drop(self.process.kill());
        let Ok(status) = self.process.wait() else { return Silence::Died("it ended".to_owned()) };
        Silence::Died(match (status.code(), status.signal()) {
            (Some(code), _) => format!("it ended with code {code}"),
            (None, Some(signal)) => format!("it was ended by signal {signal}"),
            (None, None) => "it ended".to_owned(),
        })
    }
}

impl Drop for Helper {
    /// Waits for the end, which takes long where the kernel waits for a disk.
    fn drop(&mut self) {
        match self.process.kill() {
            Ok(()) => drop(self.process.wait()),
            // it was waited for
            Err(error) if error.kind() == ErrorKind::InvalidInput => {}
            Err(_) => drop(self.process.try_wait()),
        }
    }
}
