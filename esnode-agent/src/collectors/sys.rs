//! The system call that collectors need and no library offers safely.
#![expect(unsafe_code, reason = "raw adjtimex(2)")]

use std::{io, mem};

/// What the kernel has of how its clock is disciplined, and the state of that clock, such as
/// `TIME_ERROR`. Changes nothing, and takes no rights.
///
/// # Errors
/// What adjtimex(2) answers, such as `EPERM` by a filter of system calls.
pub(super) fn adjtimex() -> io::Result<(libc::c_int, libc::timex)> {
    // SAFETY: it is made of integers, for which zeroes are valid; no `modes` are to be set.
    let mut timex: libc::timex = unsafe { mem::zeroed() };
    // SAFETY: it lives through the call, and is as large as the kernel's.
    let state = unsafe { libc::adjtimex(&raw mut timex) };
    if state < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok((state, timex))
}
