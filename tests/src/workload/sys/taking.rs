//! Taking bytes out of a TCP socket without a receive: `TCP_ZEROCOPY_RECEIVE` maps the pages of a
//! stream; a ring splices them.

use std::io;
use std::num::NonZeroUsize;
use std::os::fd::{AsRawFd as _, BorrowedFd};

use anyhow::{Result, ensure};
use esnode_tests::skip;
use io_uring::{IoUring, opcode, types};
use nix::sys::mman::{MapFlags, ProtFlags, mmap};

use super::{Mapping, ring_run};

/// `linux/tcp.h`.
const TCP_ZEROCOPY_RECEIVE: i32 = 35;

/// `struct tcp_zerocopy_receive` of `linux/tcp.h`, as it was before Linux 5.12. The last three
/// fields came with Linux 5.11.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
struct Request {
    address: u64,
    length: u32,
    recv_skip_hint: u32,
    inq: u32,
    err: i32,
    copybuf_address: u64,
    copybuf_len: i32,
    flags: u32,
}

/// What one call gave.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Taken {
    /// Bytes that are mapped now.
    pub(crate) mapped: usize,
    /// Bytes that were copied beside them, which follow.
    pub(crate) copied: usize,
    /// Bytes that have to be received before others can be mapped.
    pub(crate) rest: usize,
}

/// Keeps room for mapped bytes of a TCP socket.
pub(crate) fn window(socket: BorrowedFd<'_>, length: NonZeroUsize) -> Result<Mapping> {
    // SAFETY: the kernel chooses a free range.
    let mapped = unsafe {
        mmap(
            None,
            length,
            ProtFlags::PROT_READ,
            MapFlags::MAP_SHARED,
            socket,
            0,
        )
    };
    match mapped {
        Ok(start) => Ok(Mapping { start, length }),
        Err(error) => skip!("a TCP socket can't be mapped here: {error}"),
    }
}

/// Maps what can be mapped, and copies what is left of it into `room`.
pub(crate) fn take(socket: BorrowedFd<'_>, window: &mut Mapping, room: &mut [u8]) -> Result<Taken> {
    let mut request = Request {
        address: window.start.as_ptr().addr() as u64,
        length: u32::try_from(window.length.get())?,
        copybuf_address: room.as_mut_ptr().expose_provenance() as u64,
        copybuf_len: i32::try_from(room.len())?,
        ..Request::default()
    };
    let full = libc::socklen_t::try_from(size_of_val(&request))?;
    let mut length = full;
    // SAFETY: the kernel writes the request and its length, replaces pages of the window, whose
    // bytes nobody borrows, and writes at most the room's length into the room.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            TCP_ZEROCOPY_RECEIVE,
            (&raw mut request).cast(),
            &raw mut length,
        )
    };
    if result != 0 {
        let error = io::Error::last_os_error();
        if error.raw_os_error() == Some(libc::ENOPROTOOPT) {
            skip!("the kernel has no TCP_ZEROCOPY_RECEIVE");
        }
        return Err(error.into());
    }
    ensure!(request.err == 0, "the socket has error {}", request.err);
    // A kernel that gives back less has left the last fields as they were.
    let copied = if length == full {
        request.copybuf_len
    } else {
        0
    };
    Ok(Taken {
        mapped: request.length as usize,
        copied: usize::try_from(copied)?,
        rest: request.recv_skip_hint as usize,
    })
}

/// As splice(2), through a ring.
pub(crate) fn ring_splice(
    ring: &mut IoUring,
    from: BorrowedFd<'_>,
    to: BorrowedFd<'_>,
    bytes: usize,
) -> Result<usize> {
    const NO_OFFSET: i64 = -1;
    let [from, to] = [from, to].map(|fd| types::Fd(fd.as_raw_fd()));
    let length = u32::try_from(bytes)?;
    let entry = opcode::Splice::new(from, NO_OFFSET, to, NO_OFFSET, length).build();
    ring_run(ring, &entry)
}
