//! Stage 6: the memory of the map: made, sealed, mapped, and touched only through atomics.
//!
//! A memfd is born with mode 0777 (0666 with `MFD_NOEXEC_SEAL`): whoever holds even a read-only
//! descriptor could open it anew for writing through /proc. So it is 0400 before it has any
//! contents, and readers get a read-only opening. `F_SEAL_FUTURE_WRITE` is never set: a
//! restarted daemon could not map its own memory.
#![expect(unsafe_code, reason = "other processes read and write the mapping: words are atomics")]

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

use memmap2::{MmapOptions, MmapRaw};
use rustix::fs::{self, FileType, MemfdFlags, Mode, OFlags, SealFlags};
use rustix::io::Errno;

use super::layout::{FIXED_WORDS, Geometry, HeaderFault};
use super::protocol::Memory;

/// Why a descriptor is not a map that can be used.
#[derive(Debug)]
pub enum RegionError {
    Io(io::Error),
    /// It is not a memory file that nobody can shorten.
    NotSealed,
    /// Another mode, owner or access than the daemon gives its own memory.
    NotOurs(&'static str),
    Header(HeaderFault),
}

impl std::fmt::Display for RegionError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Io(error) => write!(f, "map memory: {error}"),
            Self::NotSealed => f.write_str("wanted a sealed memory file"),
            Self::NotOurs(what) => write!(f, "wanted the daemon's own memory: {what}"),
            Self::Header(fault) => fault.fmt(f),
        }
    }
}

impl std::error::Error for RegionError {}

impl From<io::Error> for RegionError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<Errno> for RegionError {
    fn from(error: Errno) -> Self {
        Self::Io(error.into())
    }
}

/// A mapped memory file.
#[derive(Debug)]
pub(super) struct Region {
    fd: OwnedFd,
    map: MmapRaw,
    writable: bool,
}

const SEALS: SealFlags = SealFlags::SHRINK.union(SealFlags::GROW).union(SealFlags::SEAL);

impl Region {
    /// Makes the memory for a geometry and writes the header's constant part.
    pub(super) fn create(geometry: &Geometry) -> io::Result<Self> {
        let base = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        // MFD_NOEXEC_SEAL came with Linux 6.3
        let fd = match fs::memfd_create(c"mapdev", base | MemfdFlags::NOEXEC_SEAL) {
            Err(Errno::INVAL) => fs::memfd_create(c"mapdev", base)?,
            made => made?,
        };
        fs::fchmod(&fd, Mode::RUSR)?;
        fs::ftruncate(&fd, geometry.total_len)?;
        fs::fcntl_add_seals(&fd, SEALS)?;
        let region = Self::map(fd, true)?;
        for (at, word) in geometry.encode().into_iter().enumerate() {
            region.store64(at * 8, word, Ordering::Relaxed);
        }
        Ok(region)
    }

    /// Takes back what an earlier daemon made, after checking that it is just that.
    pub(super) fn adopt(fd: OwnedFd) -> Result<(Self, Geometry), RegionError> {
        let stat = fs::fstat(&fd)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(RegionError::NotOurs("not a regular file"));
        }
        if Mode::from_raw_mode(stat.st_mode) != Mode::RUSR {
            return Err(RegionError::NotOurs("mode is not 0400"));
        }
        if stat.st_uid != rustix::process::geteuid().as_raw() {
            return Err(RegionError::NotOurs("owned by somebody else"));
        }
        if fs::fcntl_getfl(&fd)? & OFlags::ACCMODE != OFlags::RDWR {
            return Err(RegionError::NotOurs("not open for writing"));
        }
        let seals = fs::fcntl_get_seals(&fd).map_err(|_| RegionError::NotSealed)?;
        if !seals.contains(SEALS) || seals.intersects(SealFlags::WRITE | SealFlags::FUTURE_WRITE) {
            return Err(RegionError::NotSealed);
        }
        Self::checked(fd, true)
    }

    /// Maps what the daemon gave out, for reading; its contents are trusted nowhere.
    pub(super) fn open(fd: OwnedFd) -> Result<(Self, Geometry), RegionError> {
        let seals = fs::fcntl_get_seals(&fd).map_err(|_| RegionError::NotSealed)?;
        // a file that can be shortened is a SIGBUS
        if !seals.contains(SealFlags::SHRINK) {
            return Err(RegionError::NotSealed);
        }
        Self::checked(fd, false)
    }

    fn checked(fd: OwnedFd, writable: bool) -> Result<(Self, Geometry), RegionError> {
        let len = u64::try_from(fs::fstat(&fd)?.st_size).unwrap_or(0);
        if len < u64::from(super::layout::HDR_LEN) {
            return Err(RegionError::Header(HeaderFault("shorter than its header")));
        }
        let region = Self::map(fd, writable)?;
        let mut words = [0; FIXED_WORDS];
        for (at, word) in words.iter_mut().enumerate() {
            *word = region.load64(at * 8, Ordering::Relaxed);
        }
        let geometry = Geometry::decode(&words, len).map_err(RegionError::Header)?;
        Ok((region, geometry))
    }

    fn map(fd: OwnedFd, writable: bool) -> io::Result<Self> {
        let options = MmapOptions::new();
        let map = if writable { options.map_raw(&fd)? } else { options.map_raw_read_only(&fd)? };
        Ok(Self { fd, map, writable })
    }

    /// Opens the same memory anew, for reading only, to be given to anybody.
    pub(super) fn read_only_fd(&self) -> io::Result<OwnedFd> {
        let path = format!("/proc/self/fd/{}", self.fd.as_raw_fd());
        Ok(fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?)
    }

    /// The words of an atomic type lie within the mapping and aligned, or there is none.
    fn place(&self, at: usize, size: usize) -> Option<*mut u8> {
        let fits = at.is_multiple_of(size) && at.checked_add(size)? <= self.map.len();
        fits.then(|| self.map.as_mut_ptr().wrapping_add(at))
    }

    fn word32(&self, at: usize) -> Option<&AtomicU32> {
        let place = self.place(at, 4)?;
        // SAFETY: `place` lies in the mapping, which lives as long as self and cannot shrink
        // (sealed), and is aligned, since mappings begin at a page. All access is through
        // atomics of one width for each word. In a read-only mapping only loads are done.
        Some(unsafe { &*place.cast::<AtomicU32>() })
    }

    fn word64(&self, at: usize) -> Option<&AtomicU64> {
        let place = self.place(at, 8)?;
        // SAFETY: as in `word32`.
        Some(unsafe { &*place.cast::<AtomicU64>() })
    }
}

impl AsFd for Region {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Offsets out of range read as zero and are not written: callers check them, this is the net.
impl Memory for Region {
    fn load32(&self, at: usize, order: Ordering) -> u32 {
        self.word32(at).map_or(0, |word| word.load(order))
    }

    fn load64(&self, at: usize, order: Ordering) -> u64 {
        self.word64(at).map_or(0, |word| word.load(order))
    }

    fn store32(&self, at: usize, value: u32, order: Ordering) {
        #[cfg(test)]
        if killed::before_store() {
            return;
        }
        if let Some(word) = self.word32(at).filter(|_| self.writable) {
            word.store(value, order);
        }
    }

    fn store64(&self, at: usize, value: u64, order: Ordering) {
        #[cfg(test)]
        if killed::before_store() {
            return;
        }
        if let Some(word) = self.word64(at).filter(|_| self.writable) {
            word.store(value, order);
        }
    }

    fn fence(&self, order: Ordering) {
        fence(order);
    }

    fn pause(&self) {
        std::hint::spin_loop();
    }
}

/// Lets a test stop a writer between any two stores, as SIGKILL would.
#[cfg(test)]
pub(super) mod killed {
    use std::cell::Cell;

    thread_local! {
        static STORES_LEFT: Cell<Option<u64>> = const { Cell::new(None) };
    }

    pub(in crate::map) fn after(stores: Option<u64>) {
        STORES_LEFT.set(stores);
    }

    pub(in crate::map) fn stores_left() -> Option<u64> {
        STORES_LEFT.get()
    }

    pub(super) fn before_store() -> bool {
        match STORES_LEFT.get() {
            None => false,
            Some(0) => true,
            Some(left) => {
                STORES_LEFT.set(Some(left - 1));
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan() -> Geometry {
        Geometry::plan(16, 512, 4096, [1, 2], 3).unwrap()
    }

    #[test]
    fn the_memory_is_sealed_and_nobody_but_its_owner_can_open_it() {
        let region = Region::create(&plan()).unwrap();
        let seals = fs::fcntl_get_seals(&region).unwrap();
        assert!(seals.contains(SEALS));
        assert!(!seals.intersects(SealFlags::WRITE | SealFlags::FUTURE_WRITE));
        assert_eq!(fs::fstat(&region).unwrap().st_mode & 0o7777, 0o400);
        assert!(fs::ftruncate(&region, 0).is_err());
    }

    #[test]
    fn what_is_written_is_read_through_a_read_only_opening() {
        let region = Region::create(&plan()).unwrap();
        let (reader, geometry) = Region::open(region.read_only_fd().unwrap()).unwrap();
        assert_eq!(geometry, plan());
        region.store64(4088, 77, Ordering::Release);
        assert_eq!(reader.load64(4088, Ordering::Acquire), 77);
        reader.store64(4088, 78, Ordering::Release);
        assert_eq!(reader.load64(4088, Ordering::Acquire), 77, "a reader writes nothing");
        assert_eq!(reader.load64(usize::MAX - 7, Ordering::Relaxed), 0);
        assert_eq!(reader.load64(1 << 40, Ordering::Relaxed), 0);
    }

    #[test]
    fn only_the_daemons_own_memory_is_adopted() {
        let copy = |region: &Region| region.as_fd().try_clone_to_owned().unwrap();
        let region = Region::create(&plan()).unwrap();
        assert!(Region::adopt(copy(&region)).is_ok());
        let read_only = region.read_only_fd().unwrap();
        assert!(matches!(Region::adopt(read_only), Err(RegionError::NotOurs(_))));
        fs::fchmod(&region, Mode::from_raw_mode(0o600)).unwrap();
        assert!(matches!(Region::adopt(copy(&region)), Err(RegionError::NotOurs(_))));
        fs::fchmod(&region, Mode::RUSR).unwrap();
        region.store64(0, 1, Ordering::Relaxed);
        assert!(matches!(Region::adopt(copy(&region)), Err(RegionError::Header(_))));
        let bare = fs::memfd_create(c"bare", MemfdFlags::CLOEXEC).unwrap();
        fs::fchmod(&bare, Mode::RUSR).unwrap();
        fs::ftruncate(&bare, 4096).unwrap();
        assert!(matches!(Region::adopt(bare), Err(RegionError::NotSealed)));
        let file = tempfile::tempfile().unwrap();
        assert!(matches!(Region::open(file.into()), Err(RegionError::NotSealed)));
    }
}
