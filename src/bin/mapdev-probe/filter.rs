//! The system calls that the sandbox leaves: lists in, a program for the kernel out (seccomp(2)).
//!
//! What is not listed fails with EPERM, so that a C library which tries something new goes on without.

use libc::{
    BPF_ABS, BPF_JEQ, BPF_JMP, BPF_JSET, BPF_K, BPF_LD, BPF_RET, BPF_W, SECCOMP_RET_ALLOW,
    SECCOMP_RET_ERRNO, SECCOMP_RET_KILL_PROCESS, SECCOMP_RET_TRAP, c_long, sock_filter,
};

/// `AUDIT_ARCH_X86_64` and `AUDIT_ARCH_AARCH64` of `linux/audit.h`.
#[cfg(target_arch = "x86_64")]
const ARCHITECTURE: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const ARCHITECTURE: u32 = 0xc000_00b7;

/// Works with descriptors that it was given, with memory, and with its one socket.
const ALLOWED: &[c_long] = &[
    libc::SYS_read,
    libc::SYS_lseek,
    libc::SYS_pread64,
    libc::SYS_fstat,
    libc::SYS_fadvise64,
    libc::SYS_getdents64,
    libc::SYS_close,
    libc::SYS_close_range,
    libc::SYS_fcntl,
    libc::SYS_write,
    libc::SYS_memfd_create,
    libc::SYS_recvmsg,
    libc::SYS_sendmsg,
    libc::SYS_brk,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_madvise,
    libc::SYS_futex,
    libc::SYS_clock_gettime,
    libc::SYS_getrandom,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_restart_syscall,
    libc::SYS_exit,
    libc::SYS_exit_group,
];

/// Allowed for memory that is not to be executed.
const MEMORY: &[c_long] = &[libc::SYS_mmap, libc::SYS_mprotect];

/// What is asked of a disk: sizes (`linux/fs.h`, `linux/blkzoned.h`), whether it is a floppy
/// (`linux/fd.h`) or an optical one, and its tracks (`linux/cdrom.h`).
const IOCTLS: &[u32] = &[
    0x8008_1272, // BLKGETSIZE64
    0x1268,      // BLKSSZGET
    0x1260,      // BLKGETSIZE
    0x8004_1284, // BLKGETZONESZ
    0x8028_0215, // FDGETFDCSTAT
    0x5331,      // CDROM_GET_CAPABILITY
    0x5395,      // CDROM_LAST_WRITTEN
    0x5326,      // CDROM_DRIVE_STATUS
    0x5327,      // CDROM_DISC_STATUS
    0x5310,      // CDROMMULTISESSION
    0x5305,      // CDROMREADTOCHDR
    0x5306,      // CDROMREADTOCENTRY
];

/// Paths are looked up among the facts of the question, by `sigsys.rs`.
const LOOKED_UP: &[c_long] = &[
    libc::SYS_openat,
    libc::SYS_openat2,
    libc::SYS_newfstatat,
    libc::SYS_readlinkat,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_open,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_stat,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_lstat,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_readlink,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_access,
];

/// Offsets in `struct seccomp_data`; of an argument the low half, as both processors store it first.
const NUMBER: u32 = 0;
const ARCH: u32 = 4;
const SECOND: u32 = 24;
const THIRD: u32 = 32;

const ALLOW: sock_filter = end(SECCOMP_RET_ALLOW);
const REFUSE: sock_filter = end(SECCOMP_RET_ERRNO | libc::EPERM.cast_unsigned());
const LOOK_UP: sock_filter = end(SECCOMP_RET_TRAP);

const fn instruction(code: u32, jt: u8, jf: u8, k: u32) -> sock_filter {
    // the codes of classic BPF have 16 bits
    let [low, high, ..] = code.to_le_bytes();
    sock_filter { code: u16::from_le_bytes([low, high]), jt, jf, k }
}

const fn end(action: u32) -> sock_filter {
    instruction(BPF_RET | BPF_K, 0, 0, action)
}

const fn load(offset: u32) -> sock_filter {
    instruction(BPF_LD | BPF_W | BPF_ABS, 0, 0, offset)
}

/// Goes on behind the next `skip` instructions unless the word is `value`.
const fn unless(value: u32, skip: u8) -> sock_filter {
    instruction(BPF_JMP | BPF_JEQ | BPF_K, 0, skip, value)
}

/// Goes on behind the next `skip` instructions if the word is `value`.
const fn when(value: u32, skip: u8) -> sock_filter {
    instruction(BPF_JMP | BPF_JEQ | BPF_K, skip, 0, value)
}

/// The numbers of calls have 32 bits there.
fn number(call: c_long) -> u32 {
    u32::try_from(call).unwrap_or(u32::MAX)
}

/// The program, which is made once.
pub(crate) fn program() -> Vec<sock_filter> {
    // another architecture's numbers would mean other calls
    let kill = end(SECCOMP_RET_KILL_PROCESS);
    let mut program = vec![load(ARCH), when(ARCHITECTURE, 1), kill, load(NUMBER)];
    for call in ALLOWED {
        program.extend([unless(number(*call), 1), ALLOW]);
    }
    for call in LOOKED_UP {
        program.extend([unless(number(*call), 1), LOOK_UP]);
    }
    for call in MEMORY {
        let executable = libc::PROT_EXEC.cast_unsigned();
        let is_executable = instruction(BPF_JMP | BPF_JSET | BPF_K, 0, 1, executable);
        program.extend([unless(number(*call), 4), load(THIRD), is_executable, REFUSE, ALLOW]);
    }
    program.extend([when(number(libc::SYS_ioctl), 1), REFUSE, load(SECOND)]);
    for request in IOCTLS {
        program.extend([unless(*request, 1), ALLOW]);
    }
    program.push(REFUSE);
    program
}
