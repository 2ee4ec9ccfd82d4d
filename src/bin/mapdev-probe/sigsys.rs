//! Paths that libblkid looks up, answered from the facts of a question: nothing is opened for them.
//!
//! The filter makes a signal of each system call that takes a path. Its handler does what the call would
//! do in a world that holds the facts and nothing else, and gives the result back in the call's register.
#![expect(unsafe_code, reason = "a signal's handler takes the place of system calls")]

use std::ffi::{CStr, c_char, c_int, c_long, c_void};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};

use mapdev::probe::protocol::Fact;

use crate::sandbox::DESCRIPTORS_MAX;

/// What there is, for as long as a question is answered.
struct World<'a> {
    facts: &'a [(Vec<u8>, Fact)],
    descriptors: &'a [OwnedFd],
}

static WORLD: AtomicPtr<World<'static>> = AtomicPtr::new(ptr::null_mut());

/// By descriptor, 1 + the place of the folder in the facts that it stands for; 0 for none.
static FOLDERS: [AtomicUsize; DESCRIPTORS_MAX] = [const { AtomicUsize::new(0) }; DESCRIPTORS_MAX];

/// The longest path, joined to its folder.
const PATH_MAX: usize = 1024;

/// Standard output, which is `/dev/null`: a folder's descriptor is only held, and named in other calls.
const DULL: c_int = 1;

/// Calls `work` in a world of these facts.
pub(crate) fn with<T>(
    facts: &[(Vec<u8>, Fact)],
    descriptors: &[OwnedFd],
    work: impl FnOnce() -> T,
) -> T {
    let mut world = World { facts, descriptors };
    WORLD.store((&raw mut world).cast(), Ordering::Relaxed);
    let result = work();
    WORLD.store(ptr::null_mut(), Ordering::Relaxed);
    result
}

/// Sets the handler.
pub(crate) fn handle() -> io::Result<()> {
    let handler: extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void) = handler;
    // SAFETY: all zero is a valid sigaction; the handler has the signature that SA_SIGINFO asks for
    let set = unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = handler as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_NODEFER;
        libc::sigaction(libc::SIGSYS, &raw const action, ptr::null_mut())
    };
    if set == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// A system call's number and arguments, as registers hold them.
struct Call {
    number: c_long,
    arguments: [u64; 4],
}

/// Runs in the place of a call, so that no lock is held that it could want; it allocates nothing.
extern "C" fn handler(_: c_int, _: *mut libc::siginfo_t, context: *mut c_void) {
    // SAFETY: with SA_SIGINFO the third argument is the interrupted thread's context
    let context = unsafe { &mut *context.cast::<libc::ucontext_t>() };
    let call = read(context);
    let world = WORLD.load(Ordering::Relaxed);
    // SAFETY: set by `with`, whose frame is alive below this one in the one thread
    let result = unsafe { world.as_ref() }.map_or(-libc::ENOENT, |world| world.answer(&call));
    write(context, result);
}

#[cfg(target_arch = "x86_64")]
fn read(context: &libc::ucontext_t) -> Call {
    let register = |register: c_int| {
        let place = usize::try_from(register).unwrap_or(0);
        context.uc_mcontext.gregs[place].cast_unsigned()
    };
    let arguments = [libc::REG_RDI, libc::REG_RSI, libc::REG_RDX, libc::REG_R10].map(register);
    Call { number: register(libc::REG_RAX).cast_signed(), arguments }
}

#[cfg(target_arch = "x86_64")]
fn write(context: &mut libc::ucontext_t, result: c_int) {
    let place = usize::try_from(libc::REG_RAX).unwrap_or(0);
    context.uc_mcontext.gregs[place] = result.into();
}

#[cfg(target_arch = "aarch64")]
fn read(context: &libc::ucontext_t) -> Call {
    let [first, second, third, fourth, _, _, _, _, number, ..] = context.uc_mcontext.regs;
    Call { number: number.cast_signed(), arguments: [first, second, third, fourth] }
}

#[cfg(target_arch = "aarch64")]
fn write(context: &mut libc::ucontext_t, result: c_int) {
    context.uc_mcontext.regs[0] = i64::from(result).cast_unsigned();
}

impl World<'_> {
    /// What the call gives: a result, or a negative error number.
    fn answer(&self, call: &Call) -> c_int {
        let [first, second, third, fourth] = call.arguments;
        let here = i64::from(libc::AT_FDCWD).cast_unsigned();
        match call.number {
            #[cfg(target_arch = "x86_64")]
            libc::SYS_open => self.open(here, first, second),
            #[cfg(target_arch = "x86_64")]
            libc::SYS_access => self.access(here, first),
            #[cfg(target_arch = "x86_64")]
            libc::SYS_readlink => self.readlink(here, first, second, third),
            #[cfg(target_arch = "x86_64")]
            libc::SYS_stat | libc::SYS_lstat => self.stat(here, first, second, 0),
            libc::SYS_openat => self.open(first, second, third),
            libc::SYS_faccessat | libc::SYS_faccessat2 => self.access(first, second),
            libc::SYS_readlinkat => self.readlink(first, second, third, fourth),
            libc::SYS_newfstatat => self.stat(first, second, third, fourth),
            _ => -libc::ENOSYS,
        }
    }

    fn open(&self, folder: u64, path: u64, flags: u64) -> c_int {
        let read_only = flags & u64::from(libc::O_ACCMODE.cast_unsigned()) == 0;
        if !read_only {
            return -libc::EACCES;
        }
        let not_a_link = |fact: &Fact| !matches!(fact, Fact::Link(_));
        let Some((place, fact)) = self.find(folder, path, not_a_link) else { return -libc::ENOENT };
        let descriptor = match fact {
            Fact::File(content) => memory(content),
            Fact::Descriptor(place) => match self.descriptors.get(usize::from(*place)) {
                Some(descriptor) => again(descriptor.as_raw_fd()),
                None => -libc::ENOENT,
            },
            Fact::Folder => again(DULL),
            Fact::Link(_) => -libc::ELOOP,
        };
        if let Some(cell) = usize::try_from(descriptor).ok().and_then(|at| FOLDERS.get(at)) {
            let folder = matches!(fact, Fact::Folder);
            cell.store(if folder { place + 1 } else { 0 }, Ordering::Relaxed);
        }
        descriptor
    }

    fn access(&self, folder: u64, path: u64) -> c_int {
        if self.find(folder, path, |_| true).is_some() { 0 } else { -libc::ENOENT }
    }

    fn readlink(&self, folder: u64, path: u64, buffer: u64, size: u64) -> c_int {
        let link = |fact: &Fact| matches!(fact, Fact::Link(_));
        let Some((_, Fact::Link(target))) = self.find(folder, path, link) else {
            return -libc::ENOENT;
        };
        let length = target.len().min(usize::try_from(size).unwrap_or(0));
        // SAFETY: the caller gave a buffer of that size to a call that fills it
        unsafe { ptr::copy_nonoverlapping(target.as_ptr(), address(buffer), length) };
        c_int::try_from(length).unwrap_or(-libc::EINVAL)
    }

    /// Of a descriptor, or of the node of one.
    fn stat(&self, folder: u64, path: u64, buffer: u64, flags: u64) -> c_int {
        // SAFETY: a path as the caller gave it to the kernel
        let empty = path == 0 || unsafe { CStr::from_ptr(address(path)) }.is_empty();
        let descriptor = if empty && flags & u64::from(libc::AT_EMPTY_PATH.cast_unsigned()) != 0 {
            descriptor(folder)
        } else {
            let node = |fact: &Fact| matches!(fact, Fact::Descriptor(_));
            match self.find(folder, path, node) {
                Some((_, Fact::Descriptor(place))) => {
                    let found = self.descriptors.get(usize::from(*place));
                    found.map_or(-1, AsRawFd::as_raw_fd)
                }
                _ => -1,
            }
        };
        if descriptor < 0 {
            return -libc::ENOENT;
        }
        // SAFETY: the caller gave a buffer for a `struct stat`
        system(unsafe { libc::syscall(libc::SYS_fstat, descriptor, address::<c_void>(buffer)) })
    }

    /// The fact of a path, and its place, if there is one of this kind.
    fn find(&self, folder: u64, path: u64, is: impl Fn(&Fact) -> bool) -> Option<(usize, &Fact)> {
        // SAFETY: a path as the caller gave it to the kernel
        let path = unsafe { CStr::from_ptr(address::<c_char>(path)) }.to_bytes();
        let mut joined = [0; PATH_MAX];
        let path = if path.starts_with(b"/") {
            path
        } else {
            let place = FOLDERS.get(usize::try_from(descriptor(folder)).ok()?)?;
            let (folder, _) = self.facts.get(place.load(Ordering::Relaxed).checked_sub(1)?)?;
            let (start, rest) = joined.split_at_mut_checked(folder.len())?;
            start.copy_from_slice(folder);
            let (slash, rest) = rest.split_first_mut()?;
            *slash = b'/';
            rest.get_mut(..path.len())?.copy_from_slice(path);
            joined.get(..folder.len() + 1 + path.len())?
        };
        let mut all = self.facts.iter().enumerate();
        all.find(|(_, (known, fact))| known == path && is(fact)).map(|(at, (_, fact))| (at, fact))
    }
}

/// An argument that is a pointer.
fn address<T>(argument: u64) -> *mut T {
    ptr::with_exposed_provenance_mut(usize::try_from(argument).unwrap_or(0))
}

/// An argument that is a descriptor: the kernel looks at its lower half.
fn descriptor(argument: u64) -> c_int {
    let [first, second, third, fourth, ..] = argument.to_le_bytes();
    c_int::from_le_bytes([first, second, third, fourth])
}

/// A call's result with its error number, as the kernel gives both in one.
fn system(result: c_long) -> c_int {
    if result < 0 {
        return -io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO);
    }
    c_int::try_from(result).unwrap_or(-libc::EOVERFLOW)
}

/// One more descriptor of the same, at its beginning.
fn again(descriptor: c_int) -> c_int {
    // SAFETY: numbers only
    unsafe {
        let copy = system(libc::fcntl(descriptor, libc::F_DUPFD_CLOEXEC, 3).into());
        if copy >= 0 {
            libc::lseek(copy, 0, libc::SEEK_SET);
        }
        copy
    }
}

/// A file of memory that holds `content`.
fn memory(content: &[u8]) -> c_int {
    // SAFETY: a name that ends, and a buffer with its length
    unsafe {
        let made = libc::syscall(libc::SYS_memfd_create, c"fact".as_ptr(), libc::MFD_CLOEXEC);
        let file = system(made);
        if file >= 0 {
            libc::write(file, content.as_ptr().cast(), content.len());
            libc::lseek(file, 0, libc::SEEK_SET);
        }
        file
    }
}
