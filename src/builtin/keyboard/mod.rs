//! Stage 3e: `keyboard`: what properties say of keys and axes, first as a [`Plan`], then done to the device.
//!
//! `KEYBOARD_KEY_<scan code>=[!]<key>`, `EVDEV_ABS_<axis>=<min>:<max>:<res>:<fuzz>:<flat>` and
//! `POINTINGSTICK_SENSITIVITY=<0 to 255>`, as hwdb(7) has them.

mod plan;

use std::cell::OnceCell;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::rc::Rc;

use rustix::fs::OFlags;
use tracing::warn;

use crate::builtin::ioctl::{Request, Way};
use crate::builtin::{Call, Pair, Ran};
use crate::device::Device;

pub use plan::{Plan, Step};

/// Of the kinds of events, that of axes (`include/uapi/linux/input-event-codes.h`).
const EV_ABS: u32 = 3;

/// Does what the properties say; without `dev`, the folder of nodes, only if there is nothing to be done.
pub(super) fn run(dev: Option<&Path>, call: &Call<'_>) -> Ran<Vec<Pair>> {
    let Some(devname) = call.device.devname() else { return Ran::Failed };
    let plan = Plan::of(call.properties);
    let node = match dev {
        Some(dev) => dev.join(OsStr::from_bytes(devname)),
        None if plan == Plan::default() => return Ran::Done(Vec::new()),
        None => return Ran::Skipped,
    };
    for problem in &plan.problems {
        warn!("keyboard: {}: {problem}", node.display());
    }
    match apply(&plan, &node, call.device) {
        Ok(()) => Ran::Done(Vec::new()),
        Err(error) => {
            warn!("keyboard: {}: {error}", node.display());
            Ran::Failed
        }
    }
}

/// What fails for one key or axis is told, and the rest is done.
fn apply(plan: &Plan, node: &Path, device: &Device) -> io::Result<()> {
    let node = Node { path: node, file: OnceCell::new() };
    let mut has_axes = None;
    for step in &plan.steps {
        let done = match step {
            Step::Key(scan, code) => set_key(node.file()?, *scan, *code),
            Step::Axis(axis, limits) => {
                let file = node.file()?;
                let known = match has_axes {
                    Some(known) => known,
                    None => *has_axes.insert(axes(file)?),
                };
                if known { set_axis(file, *axis, limits) } else { Ok(()) }
            }
            Step::Sensitivity(value) => write(device, b"sensitivity", &value.to_string()),
            Step::Open => {
                node.file()?;
                Ok(())
            }
        };
        if let Err(error) = done {
            warn!("keyboard: {}: {step:?}: {error}", node.path.display());
        }
    }
    if let Some(above) = serio(device).filter(|_| !plan.releases.is_empty()) {
        let known = above.attribute(b"force_release").unwrap_or_default();
        let added = plan.releases.iter().map(|scan| format!(",{scan}")).collect::<String>();
        let list = format!("{}{added}", String::from_utf8_lossy(&known));
        if let Err(error) = write(device, b"force_release", &list) {
            warn!("keyboard: {}: force_release: {error}", node.path.display());
        }
    }
    Ok(())
}

/// A node that is opened when there is something to be asked.
struct Node<'a> {
    path: &'a Path,
    file: OnceCell<File>,
}

impl Node<'_> {
    fn file(&self) -> io::Result<&File> {
        if let Some(file) = self.file.get() {
            return Ok(file);
        }
        let flags = (OFlags::NONBLOCK | OFlags::NOCTTY).bits().cast_signed();
        let file = File::options().read(true).write(true).custom_flags(flags).open(self.path)?;
        Ok(self.file.get_or_init(|| file))
    }
}

/// EVIOCSKEYCODE of `include/uapi/linux/input.h`.
fn set_key(file: &File, scan: u32, code: u32) -> io::Result<()> {
    Request::new(Way::ToKernel, b'E', 0x04).call(file, &mut [scan, code]).map(drop)
}

/// EVIOCGBIT(0): whether the device has axes.
fn axes(file: &File) -> io::Result<bool> {
    let mut kinds = [0_u32; 2];
    Request::new(Way::FromKernel, b'E', 0x20).call(file, &mut kinds)?;
    Ok(kinds[0] >> EV_ABS & 1 == 1)
}

/// EVIOCGABS and EVIOCSABS: value, minimum, maximum, fuzz, flat, resolution.
fn set_axis(file: &File, axis: u8, limits: &[Option<i32>; 5]) -> io::Result<()> {
    let mut known = [0_i32; 6];
    Request::new(Way::FromKernel, b'E', 0x40 + axis).call(file, &mut known)?;
    for (limit, place) in limits.iter().zip([1, 2, 5, 3, 4]) {
        known[place] = limit.unwrap_or(known[place]);
    }
    Request::new(Way::ToKernel, b'E', 0xc0 + axis).call(file, &mut known).map(drop)
}

/// The port that the device is at.
fn serio(device: &Device) -> Option<&Rc<Device>> {
    let mut above = device.parent()?;
    while above.subsystem() != b"serio" {
        above = above.parent()?;
    }
    Some(above)
}

fn write(device: &Device, attribute: &[u8], value: &str) -> io::Result<()> {
    let above = serio(device).ok_or(io::Error::other("a device on a serio port wanted"))?;
    let folder = above.sysfs().syspath(above.uevent().devpath());
    let path = folder.join(OsStr::from_bytes(attribute));
    // what is not there is not made
    let mut file = File::options().write(true).open(path)?;
    file.write_all(format!("{value}\n").as_bytes())
}
