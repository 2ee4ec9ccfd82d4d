//! The real `mapdevd`, under a service manager of the test's own that keeps descriptors for it.

use std::fs::{self, File};
use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use netlink_sys::protocols::NETLINK_KOBJECT_UEVENT;
use netlink_sys::{Socket, SocketAddr};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, recvmsg};
use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};

use crate::bus::{Bus, NAME};
use crate::machine::{Machine, Place};

const PATIENCE: Duration = Duration::from_secs(60);

/// Keeps what the daemon gives it, and hears when it is ready.
pub(crate) struct Manager {
    path: PathBuf,
    map: Arc<Mutex<Option<OwnedFd>>>,
    ready: Receiver<()>,
    /// The netlink socket, when this manager holds it as a socket unit does.
    socket: Option<Socket>,
}

impl Manager {
    pub(crate) fn new(name: &str) -> Self {
        let path = PathBuf::from("/run").join(name);
        let socket = UnixDatagram::bind(&path).unwrap();
        let (sender, ready) = sync_channel(16);
        let map = Arc::new(Mutex::new(None));
        let keep = map.clone();
        std::thread::spawn(move || serve(&socket, &keep, &sender));
        Self { path, map, ready, socket: None }
    }

    /// Keeps no descriptor.
    pub(crate) fn forgetful(name: &str) -> Self {
        // what is stored goes to a place that nobody looks at
        Self { map: Arc::default(), ..Self::new(name) }
    }

    /// Also holds the socket to which the kernel speaks, over all restarts.
    pub(crate) fn with_socket(mut self) -> Self {
        let mut socket = Socket::new(NETLINK_KOBJECT_UEVENT).unwrap();
        rustix::net::sockopt::set_socket_recv_buffer_size_force(&socket, 128 << 20).unwrap();
        socket.bind(&SocketAddr::new(0, 1)).unwrap();
        self.socket = Some(socket);
        self
    }

    pub(crate) fn has_map(&self) -> bool {
        self.map.lock().unwrap().is_some()
    }
}

fn serve(socket: &UnixDatagram, map: &Mutex<Option<OwnedFd>>, ready: &SyncSender<()>) {
    loop {
        let mut text = [0; 4096];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut slices = [IoSliceMut::new(&mut text)];
        let Ok(message) = recvmsg(socket, &mut slices, &mut control, RecvFlags::CMSG_CLOEXEC)
        else {
            return;
        };
        assert!(!message.flags.contains(ReturnFlags::CTRUNC));
        let fds = control.drain().filter_map(|message| {
            if let RecvAncillaryMessage::ScmRights(fds) = message { Some(fds) } else { None }
        });
        let fds: Vec<OwnedFd> = fds.flatten().collect();
        let text = String::from_utf8_lossy(&text[..message.bytes]).into_owned();
        for line in text.lines() {
            match line {
                "FDSTOREREMOVE=1" => *map.lock().unwrap() = None,
                "READY=1" => drop(ready.try_send(())),
                _ => {}
            }
        }
        if text.contains("FDSTORE=1") {
            assert!(text.contains("FDNAME=map"), "{text}");
            *map.lock().unwrap() = fds.into_iter().next();
        }
    }
}

/// How a daemon is started.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub(crate) mode: &'static str,
    pub(crate) receive_buffer: usize,
}

pub(crate) const ACTIVE: Options = Options { mode: "active", receive_buffer: 128 << 20 };

/// A running daemon; killed when it is dropped.
pub(crate) struct Daemon {
    child: Child,
    log: PathBuf,
}

impl Daemon {
    /// Returns when the daemon is ready and on the bus.
    pub(crate) fn start(
        machine: &Machine,
        place: &Place,
        bus: &Bus,
        manager: &Manager,
        options: &Options,
    ) -> Self {
        let daemon = Self::launch(machine, place, bus, manager, options);
        daemon.wait_ready(manager, bus);
        daemon
    }

    pub(crate) fn wait_ready(&self, manager: &Manager, bus: &Bus) {
        manager
            .ready
            .recv_timeout(PATIENCE)
            .unwrap_or_else(|_| panic!("not ready: {}", self.log()));
        bus.wait_for(NAME);
    }

    pub(crate) fn launch(
        machine: &Machine,
        place: &Place,
        bus: &Bus,
        manager: &Manager,
        options: &Options,
    ) -> Self {
        while manager.ready.try_recv().is_ok() {}
        let log = place.runtime.with_extension("log");
        let lines = File::options().create(true).append(true).open(&log).unwrap();
        let mut command = Command::new("sh");
        let map = manager.map.lock().unwrap().as_ref().map(|fd| fd.try_clone().unwrap());
        let socket = manager.socket.as_ref().map(|socket| {
            use std::os::fd::AsFd as _;
            socket.as_fd().try_clone_to_owned().unwrap()
        });
        // descriptors travel as standard input and output, and the shell puts them into place
        let (moves, names) = match (&map, &socket) {
            (Some(_), Some(_)) => ("3<&0 4>&1", "map:uevent"),
            (Some(_), None) => ("3<&0", "map"),
            (None, Some(_)) => ("3>&1", "uevent"),
            (None, None) => ("", ""),
        };
        let count = names.split(':').filter(|name| !name.is_empty()).count();
        command.args(["-euc", &format!("exec {moves} </dev/null >/dev/null\n{PASS}")]);
        command.arg(env!("CARGO_BIN_EXE_mapdevd"));
        command.args(["--mode", options.mode, "--bus", &bus.address, "--log-level", "info"]);
        command.arg("--receive-buffer").arg(options.receive_buffer.to_string());
        command.arg("--root").arg(&machine.root).arg("--sysfs").arg(machine.sysfs.root());
        command.arg("--dev").arg(&place.dev).arg("--runtime").arg(&place.runtime);
        if options.mode == "active" {
            command.arg("--records").arg(&place.records);
        }
        command.env("NOTIFY_SOCKET", &manager.path).env("LIVE_FDS", count.to_string());
        command.env("LIVE_NAMES", names).env_remove("JOURNAL_STREAM");
        command.stdin(map.map_or_else(Stdio::null, Stdio::from));
        command.stdout(socket.map_or_else(Stdio::null, Stdio::from)).stderr(lines);
        Self { child: command.spawn().unwrap(), log }
    }

    fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    pub(crate) fn number(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).unwrap();
    }

    /// Returns when it stands still.
    pub(crate) fn freeze(&self) {
        self.signal(Signal::STOP);
        waitpid(Some(self.pid()), WaitOptions::UNTRACED).unwrap();
    }

    /// Waits for the end that a signal brought.
    pub(crate) fn wait(mut self) -> ExitStatus {
        self.child.wait().unwrap()
    }

    pub(crate) fn kill(self) {
        self.signal(Signal::KILL);
        self.wait();
    }

    pub(crate) fn stop(self) {
        self.signal(Signal::TERM);
        let log = self.log.clone();
        let status = self.wait();
        assert!(status.success(), "{status}: {}", fs::read_to_string(log).unwrap());
    }

    /// Everything that daemons of this place have logged.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Passes descriptors on as sd_listen_fds(3) wants them.
const PASS: &str = "
if [ $LIVE_FDS -gt 0 ]; then
    export LISTEN_PID=$$ LISTEN_FDS=$LIVE_FDS LISTEN_FDNAMES=$LIVE_NAMES
fi
exec \"$0\" \"$@\"
";
