//! Stage 3e: `hwdb`: what the hardware database knows of a device, or of one above it.
//!
//! `hwdb [--subsystem=S] [--device=ID] [--filter=GLOB] [--lookup-prefix=P] [MODALIAS]`, read as
//! getopt_long(3) reads it; what it does not know is passed over.

use crate::builtin::number::number;
use crate::builtin::options::{Known, separated};
use crate::builtin::{Call, Pair, Ran};
use crate::device::Device;
use crate::device::hwdb::Hwdb;
use crate::glob::fnmatch;

const OPTIONS: [Known; 4] = [
    Known { short: b'f', long: "filter", wants_value: true },
    Known { short: b'd', long: "device", wants_value: true },
    Known { short: b's', long: "subsystem", wants_value: true },
    Known { short: b'p', long: "lookup-prefix", wants_value: true },
];

/// Fails if the database knows nothing, or nothing that passes the filter.
pub(super) fn run(hwdb: &Hwdb, call: &Call<'_>) -> Ran<Vec<Pair>> {
    let (options, others) = separated(call.words.get(1..).unwrap_or_default(), &OPTIONS);
    // of an option that comes twice, the last counts
    let value = |short: u8| {
        let (_, value) = options.iter().rfind(|(option, _)| *option == short)?;
        value.as_deref()
    };
    let (device, subsystem) = (value(b'd'), value(b's'));
    let filter = value(b'f').map(literal_backslashes);
    let question = Question { hwdb, filter, prefix: value(b'p') };
    let found = match (others.first(), device) {
        (Some(modalias), _) => question.ask(modalias),
        (None, Some(id)) => {
            let device = Device::by_id(call.device.sysfs(), id);
            device.and_then(|device| question.search(&device, None, subsystem))
        }
        (None, None) => question.search(call.device, Some(call), subsystem),
    };
    found.map_or(Ran::Failed, Ran::Done)
}

struct Question<'a> {
    hwdb: &'a Hwdb,
    filter: Option<Vec<u8>>,
    prefix: Option<&'a [u8]>,
}

impl Question<'_> {
    fn ask(&self, modalias: &[u8]) -> Option<Vec<Pair>> {
        let modalias = [self.prefix.unwrap_or_default(), modalias].concat();
        let mut found = self.hwdb.look_up(&modalias).ok()?;
        if let Some(filter) = &self.filter {
            found.retain(|(key, _)| fnmatch(filter, key));
        }
        (!found.is_empty()).then_some(found)
    }

    /// Asks for the device and those above it, up to one that is known or to a USB device, which
    /// says all that there is to say of its bus. `call` knows the first one's properties.
    fn search(
        &self,
        first: &Device,
        call: Option<&Call<'_>>,
        subsystem: Option<&[u8]>,
    ) -> Option<Vec<Pair>> {
        let (mut device, mut call) = (first, call);
        loop {
            let own = device.subsystem();
            if !own.is_empty() && subsystem.is_none_or(|wanted| wanted == own) {
                let said = match call {
                    Some(call) => call.property(b"MODALIAS"),
                    None => device.uevent().get(b"MODALIAS"),
                };
                let usb = own == b"usb" && device.devtype() == b"usb_device";
                let modalias = said.map(<[u8]>::to_vec);
                let modalias = modalias.or_else(|| usb.then(|| of_usb(device)).flatten());
                if let Some(modalias) = modalias {
                    let found = self.ask(&modalias);
                    if found.is_some() || usb {
                        return found;
                    }
                }
            }
            (device, call) = (device.parent()?, None);
        }
    }
}

/// The kernel has modaliases for interfaces only.
fn of_usb(device: &Device) -> Option<Vec<u8>> {
    let id = |name: &[u8]| u16::try_from(number(&device.attribute(name)?, 16)?).ok();
    let (vendor, product) = (id(b"idVendor")?, id(b"idProduct")?);
    let mut modalias = format!("usb:v{vendor:04X}p{product:04X}:").into_bytes();
    modalias.extend_from_slice(&device.attribute(b"product").unwrap_or_default());
    Some(modalias)
}

/// A filter's backslashes quote nothing.
fn literal_backslashes(filter: &[u8]) -> Vec<u8> {
    let doubled = filter.iter().flat_map(|byte| {
        let quote = (*byte == b'\\').then_some(b'\\');
        quote.into_iter().chain([*byte])
    });
    doubled.collect()
}
