//! libblkid: a descriptor and a [`Question`] in, what it finds out, probed as udev 252 does.
#![expect(unsafe_code, reason = "a C library is called")]

use std::ffi::{CStr, CString, c_char, c_int, c_longlong, c_ulonglong, c_void};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::{self, NonNull};

use mapdev::probe::protocol::{Found, PARTITIONS_MAX, Partition, Question, Refusal};

/// `blkid_probe`, `blkid_partlist` and `blkid_partition` of `blkid/blkid.h`.
type Probe = *mut c_void;
type Partlist = *mut c_void;
type Entry = *mut c_void;

// by the name that it has where programs run: building wants no package with the header
#[link(name = "libblkid.so.1", kind = "dylib", modifiers = "+verbatim")]
unsafe extern "C" {
    fn blkid_new_probe() -> Probe;
    fn blkid_free_probe(probe: Probe);
    fn blkid_probe_set_hint(probe: Probe, name: *const c_char, value: u64) -> c_int;
    fn blkid_probe_set_device(
        probe: Probe,
        fd: c_int,
        offset: c_longlong,
        size: c_longlong,
    ) -> c_int;
    fn blkid_probe_get_size(probe: Probe) -> c_longlong;
    fn blkid_probe_is_wholedisk(probe: Probe) -> c_int;
    fn blkid_probe_enable_superblocks(probe: Probe, enable: c_int) -> c_int;
    fn blkid_probe_set_superblocks_flags(probe: Probe, flags: c_int) -> c_int;
    fn blkid_probe_filter_superblocks_usage(probe: Probe, flag: c_int, usage: c_int) -> c_int;
    fn blkid_probe_enable_partitions(probe: Probe, enable: c_int) -> c_int;
    fn blkid_probe_set_partitions_flags(probe: Probe, flags: c_int) -> c_int;
    fn blkid_do_fullprobe(probe: Probe) -> c_int;
    fn blkid_do_safeprobe(probe: Probe) -> c_int;
    fn blkid_probe_numof_values(probe: Probe) -> c_int;
    fn blkid_probe_get_value(
        probe: Probe,
        number: c_int,
        name: *mut *const c_char,
        data: *mut *const c_char,
        length: *mut usize,
    ) -> c_int;
    fn blkid_probe_lookup_value(
        probe: Probe,
        name: *const c_char,
        data: *mut *const c_char,
        length: *mut usize,
    ) -> c_int;
    fn blkid_probe_get_partitions(probe: Probe) -> Partlist;
    fn blkid_partlist_numof_partitions(list: Partlist) -> c_int;
    fn blkid_partlist_get_partition(list: Partlist, number: c_int) -> Entry;
    fn blkid_partition_get_uuid(partition: Entry) -> *const c_char;
    fn blkid_partition_get_type_string(partition: Entry) -> *const c_char;
    fn blkid_partition_get_flags(partition: Entry) -> c_ulonglong;
}

/// `BLKID_SUBLKS_LABEL | _UUID | _TYPE | _SECTYPE | _USAGE | _VERSION`.
const SUPERBLOCKS: c_int = (1 << 1) | (1 << 3) | (1 << 5) | (1 << 6) | (1 << 7) | (1 << 8);

/// `BLKID_FLTR_NOTIN`, and `BLKID_USAGE_RAID`.
const NOT_IN: c_int = 1;
const RAID: c_int = 1 << 2;

/// `BLKID_PARTS_ENTRY_DETAILS`.
const ENTRY_DETAILS: c_int = 1 << 2;

/// A floppy's size: what is not larger and has a partition table has no file system beside it.
const TINY: c_longlong = 1440 * 1024;

/// A `blkid_probe` that is freed.
struct Prober(NonNull<c_void>);

impl Drop for Prober {
    fn drop(&mut self) {
        // SAFETY: it came from blkid_new_probe and nobody else has it
        unsafe { blkid_free_probe(self.0.as_ptr()) }
    }
}

/// Looks for file systems, RAID members and partition tables.
pub(crate) fn look(device: BorrowedFd<'_>, question: &Question) -> Result<Found, Refusal> {
    // SAFETY: it takes nothing; what it gives is checked
    let probe = NonNull::new(unsafe { blkid_new_probe() }).ok_or(Refusal::Device)?;
    let prober = Prober(probe);
    for hint in &question.hints {
        let hint = CString::new(hint.as_slice()).map_err(|_| Refusal::Hint)?;
        // SAFETY: a live probe, and a string that ends and is not kept
        if unsafe { blkid_probe_set_hint(probe.as_ptr(), hint.as_ptr(), 0) } != 0 {
            return Err(Refusal::Hint);
        }
    }
    prober.open(device, question)?;
    prober.probe()?;
    let values = prober.values();
    let gpt = |(key, value): &(Vec<u8>, Vec<u8>)| key == b"PTTYPE" && value == b"gpt";
    let wanted = question.partitions && values.iter().any(gpt);
    let partitions = if wanted { prober.partitions() } else { Vec::new() };
    Ok(Found { values, partitions })
}

impl Prober {
    fn open(&self, device: BorrowedFd<'_>, question: &Question) -> Result<(), Refusal> {
        let probe = self.0.as_ptr();
        // SAFETY: a live probe; the descriptor is open until the probe is freed
        let set = unsafe {
            blkid_probe_set_superblocks_flags(probe, SUPERBLOCKS);
            if question.noraid {
                blkid_probe_filter_superblocks_usage(probe, NOT_IN, RAID);
            }
            blkid_probe_set_device(probe, device.as_raw_fd(), question.offset, 0)
        };
        if set == 0 { Ok(()) } else { Err(Refusal::Device) }
    }

    fn probe(&self) -> Result<(), Refusal> {
        let probe = self.0.as_ptr();
        let found = |result: c_int| if result < 0 { Err(Refusal::Contents) } else { Ok(()) };
        // SAFETY: a live probe with a device
        unsafe {
            blkid_probe_enable_partitions(probe, 1);
            if blkid_probe_get_size(probe) <= TINY && blkid_probe_is_wholedisk(probe) != 0 {
                blkid_probe_enable_superblocks(probe, 0);
                found(blkid_do_fullprobe(probe))?;
                let name = c"PTTYPE".as_ptr();
                if blkid_probe_lookup_value(probe, name, ptr::null_mut(), ptr::null_mut()) == 0 {
                    return Ok(());
                }
            }
            blkid_probe_set_partitions_flags(probe, ENTRY_DETAILS);
            blkid_probe_enable_superblocks(probe, 1);
            found(blkid_do_safeprobe(probe))
        }
    }

    fn values(&self) -> Vec<(Vec<u8>, Vec<u8>)> {
        let probe = self.0.as_ptr();
        // SAFETY: a live probe
        let count = unsafe { blkid_probe_numof_values(probe) };
        let value = |number| {
            let (mut name, mut data) = (ptr::null(), ptr::null());
            // SAFETY: a live probe, two places for pointers, and no wish for the length
            let got = unsafe {
                blkid_probe_get_value(probe, number, &raw mut name, &raw mut data, ptr::null_mut())
            };
            // SAFETY: strings of the library that live as long as the probe
            (got == 0).then(|| unsafe { Some((text(name)?, text(data)?)) }).flatten()
        };
        (0..count).filter_map(value).collect()
    }

    fn partitions(&self) -> Vec<Partition> {
        // SAFETY: a live probe; the list and its entries live as long as it does
        unsafe {
            let list = blkid_probe_get_partitions(self.0.as_ptr());
            if list.is_null() {
                return Vec::new();
            }
            let entries = (0..blkid_partlist_numof_partitions(list)).take(PARTITIONS_MAX);
            let entries = entries.map(|number| blkid_partlist_get_partition(list, number));
            let partition = |entry: Entry| {
                let uuid = text(blkid_partition_get_uuid(entry))?;
                let kind = text(blkid_partition_get_type_string(entry))?;
                Some(Partition { uuid, kind, flags: blkid_partition_get_flags(entry) })
            };
            entries.filter(|entry| !entry.is_null()).filter_map(partition).collect()
        }
    }
}

/// # Safety
/// `string` is null or a string of C.
unsafe fn text(string: *const c_char) -> Option<Vec<u8>> {
    // SAFETY: the caller says so
    (!string.is_null()).then(|| unsafe { CStr::from_ptr(string) }.to_bytes().to_vec())
}
