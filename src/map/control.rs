//! Stage 6: the bytes of the kernel module's control device, as `kmod-shim/mapdev_abi.h` has them.
#![forbid(unsafe_code)]

use rustix::ioctl::{Opcode, opcode};

use super::layout::NAME_MAX;

/// The kernel carries over what it changed since the attributes were copied.
pub const PUB_CARRY: u32 = 1;
/// Publish whatever the kernel changed.
pub const CHG_ANY: u64 = u64::MAX;
pub const N_CREATE: u32 = 0x100;
pub const N_DELETE: u32 = 0x200;
pub const N_ISDIR: u32 = 0x4000_0000;
pub const EV_MODE: u32 = 1;
pub const EV_UID: u32 = 2;
pub const EV_GID: u32 = 4;
/// All of them.
pub const EV_ATTRIBUTES: u32 = EV_MODE | EV_UID | EV_GID;
/// Events were dropped.
pub const EV_OVERFLOW: u32 = 0x8000_0000;
pub const IOC_MAGIC: u8 = 0xb7;

pub const PUBLISH: Opcode = opcode::write::<Publish>(IOC_MAGIC, 1);
pub const UNPUBLISH: Opcode = opcode::none(IOC_MAGIC, 2);
pub const STATS: Opcode = opcode::read::<ShimStats>(IOC_MAGIC, 3);
pub const SYNC: Opcode = opcode::none(IOC_MAGIC, 4);
pub const NOTIFY: Opcode = opcode::write::<Notify>(IOC_MAGIC, 5);
pub const GETFD: Opcode = opcode::none(IOC_MAGIC, 6);

/// Room for a name and the NUL that the kernel puts behind it.
pub const NAME_ROOM: usize = NAME_MAX as usize + 1;

#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Publish {
    pub fd: i32,
    pub flags: u32,
    pub len: u64,
    pub expect_chg: u64,
}

#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Notify {
    pub parent: u64,
    pub mask: u32,
    pub name_len: u32,
    pub name: [u8; NAME_ROOM],
}

/// Counts of the kernel module since it was loaded; the header says what each is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct ShimStats {
    pub epoch: u64,
    pub gen_: u64,
    pub chg: u64,
    pub len: u64,
    pub entries: u32,
    pub publisher: u32,
    pub mounted: u32,
    pub reserved: u32,
    pub lookups: u64,
    pub revalidations: u64,
    pub invalidations: u64,
    pub busy: u64,
    pub pending_opens: u64,
    pub loads: u64,
    pub timeouts: u64,
    pub publishes: u64,
    pub syncs: u64,
    pub notifies: u64,
    pub events: u64,
    pub overflows: u64,
    pub collisions: u64,
}

/// Offsets in an event, which is read as bytes.
pub mod event {
    pub const ID: usize = 0;
    pub const CHG: usize = 8;
    pub const STAMP: usize = 16;
    pub const WHAT: usize = 24;
    pub const MODE: usize = 28;
    pub const UID: usize = 32;
    pub const GID: usize = 36;
    pub const PID: usize = 40;
    pub const BY: usize = 44;
    pub const CELL: usize = 48;
    pub const SIZE: usize = 56;
}
