//! Stage 3b: whether somebody has a file open for writing, so that no half of a module is read.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::sync::Once;

/// Why a file was left out for now.
pub const BEING_WRITTEN: &str = "somebody is writing it; looked at when it is closed";

/// Whether somebody has the file open for writing at this moment; `None` if that cannot be told.
///
/// The kernel grants a lease for reading on none that is being written (`fcntl(2)`, `F_SETLEASE`),
/// and to nobody but root and the file's owner.
#[must_use]
pub fn is_being_written(file: &File) -> Option<bool> {
    ask(file, libc::F_RDLCK)
}

/// Whether the file, here open for writing, is open once more; `None` if that cannot be told.
#[must_use]
pub fn is_open_elsewhere(file: &File) -> Option<bool> {
    ask(file, libc::F_WRLCK)
}

fn ask(file: &File, lease: i32) -> Option<bool> {
    outlive_the_signal();
    match set(file, lease) {
        Ok(()) => {
            // whoever opens the file in this moment waits until the lease is given back
            drop(set(file, libc::F_UNLCK));
            Some(false)
        }
        Err(error) => (error.kind() == io::ErrorKind::WouldBlock).then_some(true),
    }
}

#[expect(unsafe_code, reason = "rustix has no leases")]
fn set(file: &File, lease: i32) -> io::Result<()> {
    // SAFETY: the descriptor is open as long as `file` is, and the call takes a plain number.
    match unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETLEASE, lease) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Whoever opens the file while we have the lease has us sent SIGIO, which would end the process.
/// A handler, and not `SIG_IGN`: programs that we start begin with the default again.
#[expect(unsafe_code, reason = "a handler for a signal")]
fn outlive_the_signal() {
    static DONE: Once = Once::new();
    extern "C" fn nothing(_: i32) {}
    DONE.call_once(|| {
        // SAFETY: all zeroes is a valid sigaction; both live until the calls return, and the handler
        // does nothing, which is safe in any signal.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            let mut old: libc::sigaction = std::mem::zeroed();
            let read = libc::sigaction(libc::SIGIO, std::ptr::null(), &raw mut old);
            if read == 0 && old.sa_sigaction == libc::SIG_DFL {
                let handler: extern "C" fn(i32) = nothing;
                action.sa_sigaction = handler as libc::sighandler_t;
                action.sa_flags = libc::SA_RESTART;
                libc::sigaction(libc::SIGIO, &raw const action, std::ptr::null_mut());
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_writer_is_noticed_and_is_not_held_up() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.ko");
        let writer = File::create(&path).unwrap();
        let reader = File::open(&path).unwrap();
        assert_eq!(is_being_written(&reader), Some(true));
        drop(writer);
        assert_eq!(is_being_written(&reader), Some(false));
        let again = File::options().append(true).open(&path).unwrap();
        assert_eq!(is_being_written(&reader), Some(true));
        drop(again);
        assert_eq!(is_being_written(&reader), Some(false));
    }

    #[test]
    fn who_has_a_file_open_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        let file = File::create(&path).unwrap();
        assert_eq!(is_open_elsewhere(&file), Some(false));
        let reader = File::open(&path).unwrap();
        assert_eq!(is_open_elsewhere(&file), Some(true));
        drop(reader);
        assert_eq!(is_open_elsewhere(&file), Some(false));
    }

    #[test]
    fn a_writer_that_comes_while_we_look_ends_nobody() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.ko");
        File::create(&path).unwrap();
        let stop = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    drop(File::options().append(true).open(&path).unwrap());
                }
            });
            let reader = File::open(&path).unwrap();
            let seen = (0..20_000).filter(|_| is_being_written(&reader) == Some(true)).count();
            stop.store(true, std::sync::atomic::Ordering::Relaxed);
            assert!(seen > 0, "the writer was never met");
        });
    }
}
