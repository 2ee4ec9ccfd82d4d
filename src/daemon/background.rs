//! Starts the daemon as a process of its own and waits until it is ready: for scripts that no service
//! manager waits for, as in an initramfs.

use std::fs;
use std::io;
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// The option that this answers to.
const OPTION: &str = "--background";

/// How long every device may take to be handled at first: as long as a unit may take to start.
const READY_MAX: Duration = Duration::from_secs(90);

/// How often it is looked whether the daemon lives.
const LOOK: Duration = Duration::from_millis(200);

/// Room for what the daemon says to a service manager.
const MESSAGE: usize = 4096;

/// Starts this program again without the option, and returns its process id when it is ready.
///
/// # Errors
/// When it cannot be started, or ends, or is not ready in time; then it does not run.
pub(super) fn start(runtime: &Path) -> io::Result<u32> {
    let path = runtime.join("background");
    // one that a killed run left
    drop(fs::remove_file(&path));
    let socket = UnixDatagram::bind(&path)?;
    socket.set_read_timeout(Some(LOOK))?;
    let mut daemon = Command::new(std::env::current_exe()?);
    let words = std::env::args_os().skip(1).filter(|word| word != OPTION);
    daemon.args(words).env("NOTIFY_SOCKET", &path).process_group(0);
    // a script may wait for our output to end
    let mut child = daemon.stdin(Stdio::null()).stdout(Stdio::null()).spawn()?;
    let ready = wait(&socket, &mut child);
    drop(fs::remove_file(&path));
    if ready.is_err() {
        // it may have ended by itself
        drop(child.kill());
        drop(child.wait());
    }
    ready.map(|()| child.id())
}

fn wait(socket: &UnixDatagram, child: &mut Child) -> io::Result<()> {
    let started = Instant::now();
    let mut bytes = [0; MESSAGE];
    while started.elapsed() < READY_MAX {
        match socket.recv(&mut bytes) {
            Ok(len) => {
                let said = bytes.get(..len).unwrap_or_default();
                if said.split(|byte| *byte == b'\n').any(|line| line == b"READY=1") {
                    return Ok(());
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                if let Some(status) = child.try_wait()? {
                    return Err(io::Error::other(format!("the daemon has ended: {status}")));
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::Error::new(io::ErrorKind::TimedOut, "the daemon is not ready in time"))
}
