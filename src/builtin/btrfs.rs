//! Stage 3e: `btrfs ready NODE`: whether all devices of a Btrfs file system are there.
//!
//! The kernel notes the node as one of them while it is at it; it changes nothing on it. So this is asked
//! in shadow mode too, where the machine's own manager has asked before.

use std::fs::File;
use std::io::ErrorKind;
use std::path::Path;

use tracing::debug;

use crate::builtin::ioctl::{Request, Way};
use crate::builtin::{Call, Pair, Ran};

/// `struct btrfs_ioctl_vol_args` of `include/uapi/linux/btrfs.h`: a descriptor, then a name with its NUL.
const ARGUMENT: usize = 4096;
const NAME: usize = 8;

pub(super) fn run(control: &Path, call: &Call<'_>) -> Ran<Vec<Pair>> {
    let [_, ready, node] = call.words else { return Ran::Failed };
    if ready != b"ready" {
        return Ran::Failed;
    }
    let failed = |error: &std::io::Error| {
        debug!("btrfs: {}: {}: {error}", control.display(), node.escape_ascii());
        Ran::Failed
    };
    let answer = |ready: bool| {
        let value = if ready { b"1" } else { b"0" };
        Ran::Done(vec![(b"ID_BTRFS_READY".to_vec(), value.to_vec())])
    };
    let control = match File::options().read(true).write(true).open(control) {
        Ok(control) => control,
        // without the driver it is not ready, and is asked again when the driver is there
        Err(error) if is_absent(&error) => return answer(false),
        Err(error) => return failed(&error),
    };
    let mut argument = [0_u8; ARGUMENT];
    let length = node.len().min(ARGUMENT - NAME - 1);
    argument[NAME..NAME + length].copy_from_slice(&node[..length]);
    // BTRFS_IOC_DEVICES_READY
    match Request::new(Way::FromKernel, 0x94, 39).call(&control, &mut argument) {
        Ok(missing) => answer(missing == 0),
        Err(error) => failed(&error),
    }
}

fn is_absent(error: &std::io::Error) -> bool {
    let gone = [libc::ENODEV, libc::ENXIO];
    error.kind() == ErrorKind::NotFound || error.raw_os_error().is_some_and(|no| gone.contains(&no))
}
