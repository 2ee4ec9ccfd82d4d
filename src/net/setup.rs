//! Stage 5b: an interface in, what its `.link` file says of it done, its driver and name out.

use std::cell::RefCell;
use std::fs;
use std::io;

use rustix::io::Errno;
use tracing::{debug, warn};

use super::address::{self, AddressSource, NAMES};
use super::apply;
use super::ethtool::Ethtool;
use super::files::LinkFiles;
use super::interface::{Interface, Interfaces};
use super::link_file::LinkFile;
use super::matching::Candidate;
use super::naming::{self, NameSource};
use super::scheme::Scheme;
use super::words;
use crate::device::Device;
use crate::uevent::Action;

/// What is known of an interface after its file was looked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    pub driver: Option<Vec<u8>>,
    /// The file that means it, and the name that it is to have.
    pub file: Option<(std::path::PathBuf, Vec<u8>)>,
}

/// The sockets on which interfaces are asked about; opened when first wanted. A clone has its own.
#[derive(Debug, Default)]
pub struct Sockets(RefCell<Option<(Interfaces, Ethtool)>>);

impl Clone for Sockets {
    fn clone(&self) -> Self {
        Self::default()
    }
}

/// One event of an interface.
#[derive(Debug)]
pub struct Setup<'a, P> {
    pub files: &'a LinkFiles,
    pub device: &'a Device,
    pub sockets: &'a Sockets,
    /// Gives the event's properties.
    pub property: P,
    /// Whether anything is changed, or only said.
    pub apply: bool,
}

impl<'a, P: Fn(&[u8]) -> Option<&'a [u8]> + Copy> Setup<'a, P> {
    /// Finds the file and does what it says; what cannot be done is logged and costs nothing else.
    ///
    /// `None` for an interface that is no longer there.
    ///
    /// # Errors
    /// When the kernel cannot be asked about it.
    pub fn run(&self) -> io::Result<Option<Outcome>> {
        let index = self.device.uevent().ifindex();
        let index = index.ok_or_else(|| io::Error::other("a network interface wanted"))?;
        let mut kept = self.sockets.0.borrow_mut();
        // what was not answered might come as the answer to something else
        let (mut interfaces, ethtool) = match kept.take() {
            Some(sockets) => sockets,
            None => (Interfaces::open()?, Ethtool::open()?),
        };
        let outcome = self.run_on(&mut interfaces, &ethtool, index);
        if outcome.is_ok() {
            *kept = Some((interfaces, ethtool));
        }
        outcome
    }

    fn run_on(
        &self,
        interfaces: &mut Interfaces,
        ethtool: &Ethtool,
        index: u32,
    ) -> io::Result<Option<Outcome>> {
        let interface = match interfaces.get(index) {
            Err(error) if gone(&error) => return Ok(None),
            interface => interface?,
        };
        let driver = ethtool.driver(&interface.name).ok().filter(|driver| !driver.is_empty());
        let Some(file) = self.file(&interface, driver.as_deref()) else {
            return Ok(Some(Outcome { driver, file: None }));
        };
        let action = self.device.uevent().action();
        let begins = matches!(action, Action::Add | Action::Bind | Action::Move);
        let names = matches!(action, Action::Add | Action::Bind);
        let name = if names { self.name(file) } else { None };
        let name = name.unwrap_or(&interface.name).to_vec();
        if begins && self.apply {
            self.settle(interfaces, ethtool, &interface, file);
        }
        Ok(Some(Outcome { driver, file: Some((file.path.clone(), name)) }))
    }

    fn file(&self, interface: &Interface, driver: Option<&[u8]>) -> Option<&'a LinkFile> {
        if interface.loopback {
            return None;
        }
        let devtype = Some(self.device.devtype()).filter(|devtype| !devtype.is_empty());
        let hardware = || words::hardware(interface.hardware).map(str::as_bytes);
        let candidate = Candidate {
            address: interface.address.as_ref(),
            permanent_address: interface.permanent_address.as_ref(),
            driver,
            hardware: devtype.or_else(hardware),
            kind: interface.kind.as_deref(),
            name: &interface.name,
        };
        self.files.of(&candidate, self.property)
    }

    fn name(&self, file: &'a LinkFile) -> Option<&'a [u8]> {
        let given_by = self.device.attribute(b"name_assign_type").unwrap_or_default();
        let given_by = NameSource::parse(&given_by);
        naming::name(&file.settings, self.files.naming, given_by, self.property)
    }

    fn settle(
        &self,
        interfaces: &mut Interfaces,
        ethtool: &Ethtool,
        interface: &Interface,
        file: &LinkFile,
    ) {
        let shown = interface.name.escape_ascii();
        let path = file.path.display();
        let told = |what: &str, error: &io::Error| {
            if gone(error) {
                debug!("{shown}: {path}: gone while {what} was set");
            } else {
                warn!("{shown}: {path}: cannot set {what}: {error}");
            }
        };
        for (what, error) in apply::ethtool(ethtool, &interface.name, &file.settings) {
            told(what, &error);
        }
        let address = self.address(interface, file).unwrap_or_else(|error| {
            told("the hardware address", &error);
            None
        });
        if let Err(error) = interfaces.set(interface.index, &file.settings, address.as_ref()) {
            told("alias, hardware address, queues, MTU or segmentation", &error);
        }
        // the name to come may be among them: whoever renames the interface takes it from them
        let wanted = naming::alternative_names(&file.settings, &interface.name, self.property);
        if let Err(error) = self.give_names(interfaces, interface.index, wanted) {
            told("alternative names", &error);
        }
        if let Err((what, error)) = self.give_functions(interfaces, interface.index, file) {
            told(what, &error);
        }
    }

    fn address(
        &self,
        interface: &Interface,
        file: &LinkFile,
    ) -> io::Result<Option<super::hardware::HardwareAddress>> {
        let given_by = self.device.attribute(b"addr_assign_type").unwrap_or_default();
        let given_by = AddressSource::parse(&given_by);
        // since v241 an interface without name of its hardware has an address by its own name
        let by_name = self.files.naming.scheme >= Scheme::V241;
        let own = by_name.then_some(interface.name.as_slice());
        let stable = NAMES.into_iter().find_map(self.property).or(own);
        address::address(&file.settings, interface, given_by, &self.files.machine_id, stable)
    }

    /// Gives those of the names that the interface does not have.
    fn give_names(
        &self,
        interfaces: &mut Interfaces,
        index: u32,
        mut wanted: Vec<Vec<u8>>,
    ) -> io::Result<()> {
        if wanted.is_empty() {
            return Ok(());
        }
        let known = interfaces.get(index)?.alternative_names;
        wanted.retain(|name| !known.contains(name));
        if wanted.is_empty() { Ok(()) } else { interfaces.add_names(index, &wanted) }
    }

    /// Makes a card's virtual functions, and sets what each of them is given.
    fn give_functions(
        &self,
        interfaces: &mut Interfaces,
        index: u32,
        file: &LinkFile,
    ) -> Result<(), (&'static str, io::Error)> {
        let wanted = file.settings.virtual_functions;
        let needed = file.functions.iter().filter_map(|function| function.number).max();
        if wanted.is_none() && needed.is_none() {
            return Ok(());
        }
        let attribute = b"device/sriov_numvfs";
        let count = || {
            let text = self.device.sysfs().attribute(self.device.uevent().devpath(), attribute);
            let text = text.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
            let number = std::str::from_utf8(&text).ok().and_then(|text| text.trim().parse().ok());
            number.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))
        };
        let made = || -> io::Result<()> {
            let current: u32 = count()?;
            let number = wanted.unwrap_or_else(|| needed.map_or(0, |n| n + 1).max(current));
            if number == current {
                return Ok(());
            }
            let folder = self.device.sysfs().syspath(self.device.uevent().devpath());
            let path = folder.join("device/sriov_numvfs");
            match fs::write(&path, number.to_string()) {
                // some drivers change the number by way of none only
                Err(error) if error.raw_os_error() == Some(Errno::BUSY.raw_os_error()) => {
                    fs::write(&path, "0")?;
                    fs::write(&path, number.to_string())
                }
                result => result,
            }
        };
        made().map_err(|error| ("the number of virtual functions", error))?;
        let count = count().map_err(|error| ("virtual functions", error))?;
        let there = |number: &u32| *number < count;
        let functions =
            file.functions.iter().filter(|function| function.number.as_ref().is_some_and(there));
        for function in functions {
            let set = interfaces.set_function(index, function);
            set.map_err(|error| ("a virtual function", error))?;
        }
        Ok(())
    }
}

/// Whether an interface vanished meanwhile.
fn gone(error: &io::Error) -> bool {
    error.raw_os_error() == Some(Errno::NODEV.raw_os_error())
}
