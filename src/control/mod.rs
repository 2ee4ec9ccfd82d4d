//! Stage 9: `/run/udev/control`, by which `udevadm` asks the machine's device manager; in active mode.
//!
//! It answers to root alone, one connection after the other, and by closing it. That it is there says more: where
//! /dev is no devtmpfs, libudev's clients take it for the sign that somebody tells them of devices.

mod wire;

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SocketAddrUnix, SocketFlags, SocketType, accept_with, bind, listen,
    recv, socket_with, sockopt,
};
use rustix::process::Uid;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{sleep, timeout};
use tracing::{Level, debug, error, info, warn};

use crate::bus::Log;
use crate::device::record::absent_is_fine;
use crate::dispatch::command::Command;
use crate::ready::{read_now, watched};
use wire::{Request, SIZE};

/// Connections that wait to be served.
const WAITING_MAX: i32 = 128;

/// How long a client may take for each message: others wait for it.
const PATIENCE: Duration = Duration::from_secs(10);

/// After this long, a client is looked for again where the system had no room for it.
const AGAIN: Duration = Duration::from_millis(100);

/// Makes the socket, in one step in the place of one where nobody listens any more. It stays when the daemon ends:
/// a client that starts before the next daemon does is told of devices by that one.
///
/// # Errors
/// The system's.
pub fn bind_at(path: &Path) -> io::Result<OwnedFd> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let fresh = path.with_extension("new");
    absent_is_fine(fs::remove_file(&fresh))?;
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
    bind(&socket, &SocketAddrUnix::new(&fresh)?)?;
    fs::set_permissions(&fresh, fs::Permissions::from_mode(0o600))?;
    listen(&socket, WAITING_MAX)?;
    fs::rename(fresh, path)?;
    Ok(socket)
}

/// The task that answers.
#[derive(Debug)]
pub struct Control {
    socket: AsyncFd<OwnedFd>,
    commands: mpsc::Sender<Command>,
    log: Arc<dyn Log>,
    stop: watch::Sender<bool>,
}

impl Control {
    /// Needs a tokio runtime. `stop` ends the daemon, and this task with it.
    ///
    /// # Errors
    /// The system's.
    pub fn new(
        socket: OwnedFd,
        commands: mpsc::Sender<Command>,
        log: Arc<dyn Log>,
        stop: watch::Sender<bool>,
    ) -> io::Result<Self> {
        Ok(Self { socket: watched(socket, Interest::READABLE)?, commands, log, stop })
    }

    /// Answers until the daemon stops; then nobody can connect any more.
    pub async fn run(self) {
        let mut stop = self.stop.subscribe();
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => {}
            error = self.serve() => {
                error!("udevadm cannot be answered any more, and the daemon ends: {error}");
                self.stop.send_replace(true);
            }
        }
    }

    /// Ends with an error of the socket's that does not pass.
    async fn serve(&self) -> io::Error {
        loop {
            let client = match next(&self.socket, accept).await {
                Ok(client) => client,
                Err(error) if passes(&error) => {
                    warn!("udevadm is not answered at the moment: {error}");
                    sleep(AGAIN).await;
                    continue;
                }
                Err(error) => return error,
            };
            match sockopt::socket_peercred(&client) {
                Ok(sender) if sender.uid == Uid::ROOT => {
                    if let Err(error) = self.answer(client).await {
                        debug!("udevadm: {error}");
                    }
                }
                Ok(sender) => debug!("udevadm of uid {}: root is wanted", sender.uid.as_raw()),
                Err(error) => debug!("udevadm: {error}"),
            }
        }
    }

    /// One client, whose connection is closed when this is over: that is the answer.
    async fn answer(&self, client: OwnedFd) -> io::Result<()> {
        let client = watched(client, Interest::READABLE)?;
        loop {
            let said = timeout(PATIENCE, next(&client, message)).await??;
            if said.is_empty() {
                return Ok(());
            }
            let request = wire::read(&said).map_err(io::Error::other)?;
            if request == Request::End {
                return self.ping().await;
            }
            self.handle(request).await;
        }
    }

    async fn handle(&self, request: Request) {
        match request {
            // what was heard before the answer is in the queue by then
            Request::End | Request::Ping => {}
            Request::LogLevel(level) => self.log_at(level),
            Request::StopQueue => drop(self.commands.send(Command::Hold(true)).await),
            Request::StartQueue => drop(self.commands.send(Command::Hold(false)).await),
            Request::Reload => {
                let (reply, answer) = oneshot::channel();
                // a dispatch that has ended ends the daemon
                if self.commands.send(Command::Reload(reply)).await.is_ok() {
                    drop(answer.await);
                }
            }
            Request::Property(_) => {
                warn!("udevadm control --property: properties for all events are not supported");
            }
            Request::ChildrenMax(_) => {
                warn!("udevadm control --children-max: cannot be changed while the daemon runs");
            }
            Request::Exit => {
                info!("udevadm says to end");
                self.stop.send_replace(true);
            }
        }
    }

    async fn ping(&self) -> io::Result<()> {
        let (reply, answer) = oneshot::channel();
        let gone = || io::Error::other("the daemon ends");
        self.commands.send(Command::Ping(reply)).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())
    }

    fn log_at(&self, level: u32) {
        let wanted = match level {
            0..=3 => Level::ERROR,
            4 => Level::WARN,
            5 | 6 => Level::INFO,
            7 => Level::DEBUG,
            _ => return warn!("udevadm control --log-level: {level}, wanted 0 to 7"),
        };
        if let Err(error) = self.log.set_level(wanted) {
            warn!("udevadm control --log-level: {error}");
        }
    }
}

/// Waits for what `read` finds.
async fn next<T>(
    socket: &AsyncFd<OwnedFd>,
    read: impl Fn(&OwnedFd) -> io::Result<T>,
) -> io::Result<T> {
    loop {
        match read_now(socket, &read) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                drop(socket.readable().await?);
            }
            found => return found,
        }
    }
}

/// The client went, or the system had no room for it.
fn passes(error: &io::Error) -> bool {
    let passing =
        [Errno::CONNABORTED, Errno::MFILE, Errno::NFILE, Errno::NOMEM, Errno::NOBUFS, Errno::INTR];
    Errno::from_io_error(error).is_some_and(|errno| passing.contains(&errno))
}

fn accept(socket: &OwnedFd) -> io::Result<OwnedFd> {
    Ok(accept_with(socket, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)?)
}

/// One message; empty at the end. One that is too long is cut, and then has another length than it should.
fn message(client: &OwnedFd) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; SIZE + 1];
    let (len, _) = recv(client.as_fd(), &mut bytes[..], RecvFlags::empty())?;
    bytes.truncate(len);
    Ok(bytes)
}
