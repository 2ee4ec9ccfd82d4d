//! The size of a touch surface, from its node: ranges and resolutions of both axes.

use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use rustix::io;
use rustix::ioctl::{self, Getter, Opcode, opcode};

use crate::builtin::Pair;
use crate::device::Device;

/// `struct input_absinfo` of `linux/input.h`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Axis {
    value: i32,
    minimum: i32,
    maximum: i32,
    fuzz: i32,
    flat: i32,
    /// Units for each millimetre.
    resolution: i32,
}

/// `EVIOCGABS(ABS_X)` and `EVIOCGABS(ABS_Y)`.
const X: Opcode = opcode::read::<Axis>(b'E', 0x40);
const Y: Opcode = opcode::read::<Axis>(b'E', 0x41);

/// `ID_INPUT_WIDTH_MM` and `ID_INPUT_HEIGHT_MM`, if both axes have a resolution.
pub(super) fn size(device: &Device) -> Vec<Pair> {
    let Some(name) = device.devname() else { return Vec::new() };
    let path = Path::new("/dev").join(OsStr::from_bytes(name));
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let Ok(file) = rustix::fs::open(path, flags, Mode::empty()) else { return Vec::new() };
    let node = File::from(file);
    let (Ok(x), Ok(y)) = (axis::<X>(&node), axis::<Y>(&node)) else { return Vec::new() };
    match (x.length(), y.length()) {
        (Some(width), Some(height)) => vec![
            (b"ID_INPUT_WIDTH_MM".to_vec(), width.to_string().into_bytes()),
            (b"ID_INPUT_HEIGHT_MM".to_vec(), height.to_string().into_bytes()),
        ],
        _ => Vec::new(),
    }
}

impl Axis {
    /// In millimetres.
    fn length(self) -> Option<i32> {
        let range = self.maximum.checked_sub(self.minimum)?;
        (self.resolution > 0).then(|| range / self.resolution)
    }
}

#[expect(unsafe_code, reason = "an ioctl says how many bytes the kernel writes")]
fn axis<const OPCODE: Opcode>(node: &File) -> io::Result<Axis> {
    // SAFETY: EVIOCGABS writes one `struct input_absinfo`, for which its number has the size, and any
    // bits are a valid `Axis`.
    unsafe { ioctl::ioctl(node, Getter::<OPCODE, Axis>::new()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_is_the_range_in_units_of_the_resolution() {
        let axis = |minimum, maximum, resolution| {
            Axis { minimum, maximum, resolution, ..Axis::default() }.length()
        };
        assert_eq!(axis(1472, 5472, 60), Some(66));
        assert_eq!(axis(0, 100, 0), None);
        assert_eq!(axis(0, 100, -1), None);
        assert_eq!(axis(i32::MIN, i32::MAX, 1), None);
    }

    #[test]
    fn the_numbers_are_the_kernels() {
        assert_eq!([X, Y], [0x8018_4540, 0x8018_4541]);
    }
}
