//! Stage 3e: what rules use like a program and is built in: a [`Call`] in, properties out.
//!
//! One file for each name. A builtin looks at the device and at what it was given in its [`Kit`]; it knows
//! nothing of rules.

mod blkid;
mod btrfs;
mod hwdb;
mod input_id;
mod ioctl;
pub mod keyboard;
mod kmod;
mod net_driver;
pub mod net_id;
mod net_setup_link;
mod number;
mod options;
mod path_id;
pub mod uaccess;
mod usb_id;

use std::cell::{Cell, RefCell};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::clean::is_blank;
use crate::device::Device;
use crate::device::hwdb::Hwdb;
use crate::exec::Pause;
use crate::modules::ModuleDb;
use crate::net::{LinkFiles, Naming, Scheme, Sockets};
use crate::probe::Probe;

/// A key and its value.
pub type Pair = (Vec<u8>, Vec<u8>);

/// What became of a program or a builtin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ran<T> {
    Done(T),
    /// It could not run, was ended, or said that it failed.
    Failed,
    /// It failed, and leaves something that tells so.
    Broken(T),
    /// It was not tried: what it would have said is unknown, and decides nothing.
    Skipped,
}

/// What is built into the device manager and used like a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Builtin {
    Blkid,
    Btrfs,
    Hwdb,
    InputId,
    Keyboard,
    Kmod,
    NetDriver,
    NetId,
    NetSetupLink,
    PathId,
    UsbId,
    Uaccess,
}

impl Builtin {
    /// In the order in which names are tried.
    pub const ALL: [Self; 12] = [
        Self::Blkid,
        Self::Btrfs,
        Self::Hwdb,
        Self::InputId,
        Self::Keyboard,
        Self::Kmod,
        Self::NetDriver,
        Self::NetId,
        Self::NetSetupLink,
        Self::PathId,
        Self::UsbId,
        Self::Uaccess,
    ];

    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Blkid => "blkid",
            Self::Btrfs => "btrfs",
            Self::Hwdb => "hwdb",
            Self::InputId => "input_id",
            Self::Keyboard => "keyboard",
            Self::Kmod => "kmod",
            Self::NetDriver => "net_driver",
            Self::NetId => "net_id",
            Self::NetSetupLink => "net_setup_link",
            Self::PathId => "path_id",
            Self::UsbId => "usb_id",
            Self::Uaccess => "uaccess",
        }
    }

    /// The builtin whose name the command's first word begins: `path` is path_id.
    #[must_use]
    pub fn of_command(command: &[u8]) -> Option<Self> {
        let start = command.iter().position(|byte| !is_blank(*byte)).unwrap_or(command.len());
        let word = command[start..].split(|byte| is_blank(*byte)).next().unwrap_or_default();
        Self::ALL.into_iter().find(|builtin| builtin.name().as_bytes().starts_with(word))
    }
}

/// One use of a builtin in an event.
#[derive(Clone, Copy, Debug)]
pub struct Call<'a> {
    pub device: &'a Device,
    /// The event's properties as they stand: the kernel's, and those that rules have set so far.
    pub properties: &'a [Pair],
    /// The command's words; the first is the builtin's name as the rule has it.
    pub words: &'a [Vec<u8>],
}

impl Call<'_> {
    /// A property of the event as it stands.
    #[must_use]
    pub fn property(&self, key: &[u8]) -> Option<&[u8]> {
        let found = self.properties.iter().find(|(known, _)| known == key);
        found.map(|(_, value)| value.as_slice())
    }
}

/// Where the kernel is asked about Btrfs.
const BTRFS: &str = "/dev/btrfs-control";

/// What builtins work with: opened once, used for every event, by one thread.
#[derive(Clone, Debug)]
pub struct Kit {
    hwdb: Hwdb,
    /// What `kmod` knows.
    modules: kmod::Modules,
    /// Where nodes are.
    dev: PathBuf,
    pub probe: Probe,
    /// The machine's `.link` files; replaced when they are read anew.
    pub links: RefCell<Arc<LinkFiles>>,
    /// Whether anything may be changed, such as an interface's settings.
    pub changes: Cell<bool>,
    sockets: Sockets,
    /// By which rules network interfaces are named.
    pub scheme: Scheme,
}

impl Default for Kit {
    fn default() -> Self {
        Self::below(Path::new("/"), Path::new("/dev"))
    }
}

impl Kit {
    /// One for the hardware database and the modprobe.d of this root, and for nodes in `dev`.
    #[must_use]
    pub fn below(root: &Path, dev: &Path) -> Self {
        Self {
            hwdb: Hwdb::below(root),
            modules: kmod::Modules::new(root.to_owned()),
            dev: dev.to_owned(),
            probe: Probe::default(),
            links: RefCell::default(),
            changes: Cell::default(),
            sockets: Sockets::default(),
            scheme: Scheme::default(),
        }
    }

    /// One that has disks read by this probe.
    #[must_use]
    pub fn probing(self, probe: Probe) -> Self {
        Self { probe, ..self }
    }

    /// Who is told when a disk or a module lets one wait.
    #[must_use]
    pub fn with_pause(self, pause: Arc<dyn Pause>) -> Self {
        let modules = self.modules.with_pause(pause.clone());
        Self { probe: self.probe.with_pause(pause), modules, ..self }
    }

    /// Looks anew at what builtins read once: the hardware database and modprobe.d; `modules` are those
    /// that there are now.
    pub fn refresh(&self, modules: &Arc<ModuleDb>) {
        self.hwdb.refresh();
        self.modules.refresh(modules);
    }

    /// Goes on with other `.link` files.
    pub fn set_links(&self, links: &Arc<LinkFiles>) {
        if !Arc::ptr_eq(&self.links.borrow(), links) {
            self.links.replace(links.clone());
        }
    }

    /// What follows may change the machine, or may not.
    pub fn allow_changes(&self, allowed: bool) {
        self.changes.set(allowed);
    }

    /// One that has the kernel's command line.
    #[must_use]
    pub fn with_command_line(self, line: &[u8]) -> Self {
        Self { scheme: Naming::of_machine(line).scheme, ..self }
    }

    fn links(&self) -> Arc<LinkFiles> {
        self.links.borrow().clone()
    }

    /// Runs a builtin for a device.
    #[must_use]
    pub fn run(&self, builtin: Builtin, call: &Call<'_>) -> Ran<Vec<Pair>> {
        let changes = self.changes.get();
        match builtin {
            Builtin::Blkid => blkid::blkid(self, call),
            Builtin::Btrfs => btrfs::run(Path::new(BTRFS), call),
            Builtin::Hwdb => hwdb::run(&self.hwdb, call),
            Builtin::Keyboard => keyboard::run(changes.then_some(&*self.dev), call),
            Builtin::Kmod => kmod::run(changes.then_some(&self.modules), call),
            Builtin::NetDriver => net_driver::run(call),
            Builtin::Uaccess => Ran::Skipped,
            Builtin::InputId => Ran::Done(input_id::input_id(call)),
            Builtin::NetId => done(net_id::net_id(call, self.scheme, &self.hwdb)),
            Builtin::NetSetupLink => net_setup_link::run(self, call),
            Builtin::PathId => done(path_id::path_id(call)),
            Builtin::UsbId => done(usb_id::usb_id(call)),
        }
    }
}

fn done(pairs: Option<Vec<Pair>>) -> Ran<Vec<Pair>> {
    pairs.map_or(Ran::Failed, Ran::Done)
}
