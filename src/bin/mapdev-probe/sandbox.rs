//! The way into the sandbox, and none back: no privileges, little of everything, few system calls.
#![expect(unsafe_code, reason = "seccomp and the signal's handler are set by calls of C")]

use std::io;

use rustix::process::{Resource, Rlimit, setrlimit};
use rustix::thread::{
    CapabilitySet, CapabilitySets, set_capabilities, set_no_new_privs, set_thread_groups,
    set_thread_res_gid, set_thread_res_uid,
};

use crate::{filter, sigsys};

/// The user and group `nobody`, which the kernel also shows for those that it cannot tell.
const NOBODY: u32 = 65534;

/// Memory: libblkid keeps what it reads, up to some MiB.
const MEMORY_MAX: u64 = 256 << 20;

/// Descriptors: three streams, three of a question, and some that libblkid opens among the facts.
pub(crate) const DESCRIPTORS_MAX: usize = 64;

/// Bytes of a file: the contents of facts are written into memory that looks like one.
const FILE_MAX: u64 = 4096;

/// # Errors
/// When anything of the sandbox cannot be had: then nothing may be read.
pub(crate) fn enter() -> io::Result<()> {
    close_the_rest();
    limit()?;
    for capability in CapabilitySet::all().iter() {
        // without CAP_SETPCAP; the set is of no use behind no_new_privs
        let _ = rustix::thread::remove_capability_from_bounding_set(capability);
    }
    let _ = rustix::thread::clear_ambient_capability_set();
    give_up_identity()?;
    let none = CapabilitySet::empty();
    set_capabilities(None, CapabilitySets { effective: none, permitted: none, inheritable: none })?;
    set_no_new_privs(true)?;
    sigsys::handle()?;
    install_filter()
}

/// Root becomes nobody. Who may not change users has no powers of root to lose beside capabilities.
fn give_up_identity() -> io::Result<()> {
    if !rustix::process::getuid().is_root() {
        return Ok(());
    }
    let (user, group) = (rustix::fs::Uid::from_raw(NOBODY), rustix::fs::Gid::from_raw(NOBODY));
    let changed = set_thread_groups(&[])
        .and_then(|()| set_thread_res_gid(group, group, group))
        .and_then(|()| set_thread_res_uid(user, user, user));
    match changed {
        // a unit that takes CAP_SETUID or the call away, as that of shadow mode does
        Err(rustix::io::Errno::PERM) => Ok(()),
        changed => Ok(changed?),
    }
}

fn limit() -> io::Result<()> {
    let descriptors = u64::try_from(DESCRIPTORS_MAX).unwrap_or(u64::MAX);
    let limits = [
        (Resource::As, MEMORY_MAX),
        (Resource::Nofile, descriptors),
        (Resource::Fsize, FILE_MAX),
        (Resource::Core, 0),
        (Resource::Nproc, 0),
        (Resource::Memlock, 0),
    ];
    for (resource, most) in limits {
        setrlimit(resource, Rlimit { current: Some(most), maximum: Some(most) })?;
    }
    Ok(())
}

/// All but the three streams.
pub(crate) fn close_the_rest() {
    // SAFETY: whoever had one of these has let go of it
    unsafe { libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, 0) };
}

fn install_filter() -> io::Result<()> {
    let mut program = filter::program();
    let length = u16::try_from(program.len()).map_err(io::Error::other)?;
    let program = libc::sock_fprog { len: length, filter: program.as_mut_ptr() };
    // SAFETY: the kernel copies the program; there is one thread
    let set = unsafe {
        libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program, 0, 0)
    };
    if set == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
