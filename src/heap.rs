//! What the C library's allocator keeps of the memory that was given back to it.
#![expect(unsafe_code, reason = "a call of the C library")]

/// Gives the system what lies unused between what is in use; some milliseconds' work after a storm.
pub fn trim() {
    // SAFETY: malloc_trim(3) takes a number, and any thread may call it at any time.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::malloc_trim(0)
    };
}
