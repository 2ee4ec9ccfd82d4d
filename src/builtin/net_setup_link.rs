//! Stage 3e: `net_setup_link`: an interface in, what its `.link` file says of it done, the file and the
//! name that it is to have out.

use tracing::debug;

use super::{Call, Kit, Pair, Ran};
use crate::net::Setup;

pub(super) fn run(kit: &Kit, call: &Call<'_>) -> Ran<Vec<Pair>> {
    if call.words.len() > 1 {
        return Ran::Failed;
    }
    let files = kit.links();
    let setup = Setup {
        files: &files,
        device: call.device,
        sockets: &kit.sockets,
        property: |key: &[u8]| call.property(key),
        apply: kit.changes.get(),
    };
    let outcome = match setup.run() {
        Ok(Some(outcome)) => outcome,
        Ok(None) => return Ran::Done(Vec::new()),
        Err(error) => {
            let devpath = call.device.uevent().devpath().escape_ascii();
            debug!("{devpath}: net_setup_link: {error}");
            return Ran::Failed;
        }
    };
    let mut pairs: Vec<Pair> = Vec::new();
    if let Some(driver) = outcome.driver {
        pairs.push((b"ID_NET_DRIVER".to_vec(), driver));
    }
    if let Some((path, name)) = outcome.file {
        pairs.push((b"ID_NET_LINK_FILE".to_vec(), path.into_os_string().into_encoded_bytes()));
        pairs.push((b"ID_NET_NAME".to_vec(), name));
    }
    Ran::Done(pairs)
}
