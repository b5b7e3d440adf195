//! The one place that makes a system call by its number.
#![allow(unsafe_code, reason = "the calls that nobody wraps are those that nobody may make")]

use std::io;

use libc::{c_long, syscall};

/// Makes a call whose arguments are small numbers.
pub(crate) fn call(number: c_long, arguments: [c_long; 5]) -> io::Result<()> {
    let [a, b, c, d, e] = arguments;
    debug_assert!(arguments.iter().all(|argument| *argument < 1 << 32), "no number may be an address");
    // SAFETY: no argument is an address of ours, so the kernel has nothing here to read or write; of the calls in the table
    // none but an anonymous `mmap` changes our address space, and that only adds to it.
    match unsafe { syscall(number, a, b, c, d, e, 0) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}
