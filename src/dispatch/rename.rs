//! Stage 5b: an interface that is to have another name is given it, between its rules and its record.

use tracing::info;

use super::hands::Hands;
use crate::device::Device;
use crate::device::record::Record;
use crate::net::rename::{Renamed, is_renamed, rename, renamed};
use crate::rules::decision::{Decision, Source};
use crate::uevent::Uevent;

/// Stands in the record until the kernel has told of the new name.
const RENAMING: &[u8] = b"ID_RENAMING";

impl Hands {
    /// The event as it reads once its interface has the name that was decided; `None` if it keeps its own.
    ///
    /// # Errors
    /// The system's number of what went wrong; everything is as before.
    pub(super) fn rename(
        &self,
        device: &Device,
        decision: &mut Decision,
        old: Option<&Record>,
        problems: &mut Vec<String>,
    ) -> Result<Option<Uevent>, i32> {
        let uevent = device.uevent();
        let name = decision.name.clone().filter(|name| is_renamed(uevent, name));
        let Some((name, index)) = name.zip(uevent.ifindex()) else { return Ok(None) };
        // who hears of the new name at once finds that it is not settled yet
        let mut record = old.cloned().unwrap_or_default();
        record.properties.retain(|(key, _)| key != RENAMING);
        record.properties.push((RENAMING.to_vec(), b"1".to_vec()));
        if let Err(error) = self.records.write(device.id(), &record, old) {
            problems.push(format!("cannot write the record: {error}"));
        }
        let shown = name.escape_ascii();
        match rename(index, &name) {
            Ok(Renamed::Done) => {
                decision.set_property(RENAMING, None, Some(b"1"), "=", Source::Kernel);
                Ok(Some(renamed(uevent, &name)))
            }
            Ok(Renamed::Busy) => {
                info!("{} is up, and is not renamed to {shown}", device.sysname().escape_ascii());
                Ok(None)
            }
            Err(error) => {
                problems.push(format!("cannot rename it to {shown}: {error}"));
                let back = match old {
                    Some(old) => self.records.write(device.id(), old, Some(&record)),
                    None => self.records.remove(device.id()),
                };
                if let Err(error) = back {
                    problems.push(format!("cannot write the record: {error}"));
                }
                Err(error.raw_os_error().unwrap_or(libc::EIO))
            }
        }
    }
}
