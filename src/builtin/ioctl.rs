//! Stage 3e: the calls of device drivers that builtins make; each says in its number how large its argument is.

use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsFd, AsRawFd};

/// A call whose argument is a `T`, made of integers alone.
#[derive(Debug)]
pub(super) struct Request<T> {
    number: libc::Ioctl,
    argument: PhantomData<T>,
}

/// Which way the argument goes, as `include/uapi/asm-generic/ioctl.h` counts.
#[derive(Clone, Copy, Debug)]
pub(super) enum Way {
    ToKernel = 1,
    FromKernel = 2,
}

impl<T: Plain> Request<T> {
    /// `_IOW` and `_IOR` of the C headers.
    pub(super) fn new(way: Way, group: u8, call: u8) -> Self {
        // an argument has less than 16 KiB, so that this is its size
        let size = u32::try_from(size_of::<T>()).unwrap_or(0) & 0x3fff;
        let number = (way as u32) << 30 | size << 16 | u32::from(group) << 8 | u32::from(call);
        Self { number: libc::Ioctl::from(number), argument: PhantomData }
    }

    /// Makes the call; what the kernel answers is not negative.
    pub(super) fn call(&self, file: &impl AsFd, argument: &mut T) -> io::Result<i32> {
        let fd = file.as_fd().as_raw_fd();
        #[expect(unsafe_code, reason = "calls of drivers have no other form")]
        // SAFETY: the descriptor is open, and as the number says, the kernel reads or writes
        // `size_of::<T>()` bytes: those of the argument, which may hold anything (`Plain`).
        let said = unsafe { libc::ioctl(fd, self.number, std::ptr::from_mut(argument)) };
        if said < 0 { Err(io::Error::last_os_error()) } else { Ok(said) }
    }
}

/// Arguments that are integers and hold no padding and no pointer.
pub(super) trait Plain {}

impl<const N: usize> Plain for [u32; N] {}
impl<const N: usize> Plain for [i32; N] {}
impl<const N: usize> Plain for [u8; N] {}
