//! The system calls that have no safe wrapper. All unsafe code of this package is here.

#![expect(unsafe_code, reason = "raw system calls, a function each")]

pub(crate) mod surroundings;
pub(crate) mod taking;

use std::fs::File;
use std::io;
use std::num::NonZeroUsize;
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd};
use std::ptr::{self, NonNull};
use std::slice;

use anyhow::{Context as _, Result, ensure};
use esnode_tests::skip;
use esnode_tests::tally::settles_at_threads;
use io_uring::squeue::{Entry, Flags};
use io_uring::{IoUring, opcode, types};
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};
use nix::sys::signal::{SigHandler, Signal, signal};
use nix::unistd::{ForkResult, Pid};

/// Forks a child that does this and ends, without running what belongs to its parent.
pub(crate) fn fork(child: impl FnOnce() -> Result<()>) -> Result<Pid> {
    ensure!(settles_at_threads(1)?, "fork in a process with threads");
    // SAFETY: this process has one thread, so its copy may do anything.
    match unsafe { nix::unistd::fork() }? {
        ForkResult::Parent { child } => Ok(child),
        ForkResult::Child => end(child()),
    }
}

/// As [`fork`], with the process id that the child is to have.
pub(crate) fn fork_as(pid: Pid, child: impl FnOnce() -> Result<()>) -> Result<Pid> {
    ensure!(settles_at_threads(1)?, "fork in a process with threads");
    let wanted = [pid.as_raw()];
    let arguments = libc::clone_args {
        flags: 0,
        pidfd: 0,
        child_tid: 0,
        parent_tid: 0,
        exit_signal: u64::try_from(libc::SIGCHLD)?,
        stack: 0,
        stack_size: 0,
        tls: 0,
        set_tid: wanted.as_ptr().addr() as u64,
        set_tid_size: 1,
        cgroup: 0,
    };
    // SAFETY: as in `fork`; the arguments and the id that they point to live through the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_clone3,
            &raw const arguments,
            size_of::<libc::clone_args>(),
        )
    };
    match result {
        -1 => Err(io::Error::last_os_error()).context("clone3 with a chosen process id"),
        0 => end(child()),
        child => Ok(Pid::from_raw(i32::try_from(child)?)),
    }
}

/// Ignores the ends of children: they leave no zombies.
pub(crate) fn ignore_children() -> Result<()> {
    // SAFETY: there is no handler that could run.
    unsafe { signal(Signal::SIGCHLD, SigHandler::SigIgn) }.context("ignore SIGCHLD")?;
    Ok(())
}

/// Ends a forked child.
fn end(result: Result<()>) -> ! {
    let code = result.map_or_else(
        |error| {
            eprintln!("workload's child: {error:#}");
            1
        },
        |()| 0,
    );
    // SAFETY: ends the process, touches no memory.
    unsafe { libc::_exit(code) }
}

/// Ends the calling thread alone, also when it's the first of its process.
pub(crate) fn end_thread() -> Result<()> {
    // SAFETY: the stack of this thread stays as it is; nobody waits for it by the C library.
    unsafe { libc::syscall(libc::SYS_exit, 0) };
    Err(io::Error::last_os_error()).context("exit")
}

/// Sets a socket option that is a number.
pub(crate) fn set_option(socket: BorrowedFd<'_>, level: i32, name: i32, value: i32) -> Result<()> {
    let length = libc::socklen_t::try_from(size_of_val(&value))?;
    // SAFETY: the kernel reads `length` bytes of `value`, which lives through the call.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            name,
            (&raw const value).cast(),
            length,
        )
    };
    ensure!(
        result == 0,
        "setsockopt {level} {name}: {}",
        io::Error::last_os_error()
    );
    Ok(())
}

/// Opens a stream socket over IPv4 of a protocol that the standard library doesn't know.
pub(crate) fn stream_socket(protocol: i32) -> io::Result<OwnedFd> {
    let kind = libc::SOCK_STREAM | libc::SOCK_CLOEXEC;
    // SAFETY: takes and gives numbers only.
    let fd = unsafe { libc::socket(libc::AF_INET, kind, protocol) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel just gave it, and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Takes a connection from a listening socket.
pub(crate) fn accept(listener: BorrowedFd<'_>) -> Result<OwnedFd> {
    let fd = nix::sys::socket::accept(listener.as_raw_fd())?;
    // SAFETY: the kernel just gave it, and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// A file in memory, to be read.
pub(crate) struct Mapping {
    start: NonNull<libc::c_void>,
    length: NonZeroUsize,
}

impl Mapping {
    /// Maps the first bytes of a file that nobody changes meanwhile.
    pub(crate) fn of(file: &File, length: NonZeroUsize) -> Result<Self> {
        // SAFETY: the kernel chooses a free range.
        let start = unsafe {
            mmap(
                None,
                length,
                ProtFlags::PROT_READ,
                MapFlags::MAP_SHARED,
                file,
                0,
            )
        }?;
        Ok(Self { start, length })
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        // SAFETY: so many bytes are mapped for reading as long as `self` lives.
        unsafe { slice::from_raw_parts(self.start.as_ptr().cast(), self.length.get()) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the range is this mapping, and its bytes are borrowed from `self` only.
        let _ = unsafe { munmap(self.start, self.length.get()) };
    }
}

/// Sends through a ring and waits for the result.
pub(crate) fn ring_send(
    ring: &mut IoUring,
    socket: RawFd,
    data: &[u8],
    flags: Flags,
) -> Result<usize> {
    let length = u32::try_from(data.len())?;
    let entry = opcode::Send::new(types::Fd(socket), data.as_ptr(), length)
        .build()
        .flags(flags);
    ring_run(ring, &entry)
}

/// Receives through a ring and waits for the result.
pub(crate) fn ring_receive(
    ring: &mut IoUring,
    socket: RawFd,
    room: &mut [u8],
    flags: Flags,
) -> Result<usize> {
    let length = u32::try_from(room.len())?;
    let entry = opcode::Recv::new(types::Fd(socket), room.as_mut_ptr(), length)
        .build()
        .flags(flags);
    ring_run(ring, &entry)
}

/// Submits one entry whose buffer is borrowed by the caller, and waits until it's complete.
fn ring_run(ring: &mut IoUring, entry: &Entry) -> Result<usize> {
    // SAFETY: the entry's buffer lives until this function returns, which it does only when the
    // entry is complete; any other way out ends the process.
    unsafe { ring.submission().push(entry) }.context("the ring is full")?;
    loop {
        match ring.submit_and_wait(1) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => {
                eprintln!("io_uring_enter: {error}");
                std::process::abort();
            }
            Ok(_) => {
                if let Some(done) = ring.completion().next() {
                    let result = done.result();
                    return usize::try_from(result)
                        .map_err(|_| io::Error::from_raw_os_error(-result))
                        .context("io_uring");
                }
            }
        }
    }
}

/// A buffer of zeros whose start is aligned for direct I/O.
pub(crate) fn aligned(buffer: &mut Vec<u8>, length: usize) -> &mut [u8] {
    const ALIGNMENT: usize = 4096;
    buffer.resize(length + ALIGNMENT, 0);
    let skipped = ptr::from_ref(buffer.as_slice())
        .cast::<u8>()
        .align_offset(ALIGNMENT);
    buffer
        .get_mut(skipped..skipped + length)
        .unwrap_or_default()
}

/// Takes this process, which has one thread, into the network namespace of a link.
pub(crate) fn enter_network(link: &File) -> Result<()> {
    // SAFETY: takes and gives numbers only.
    let result = unsafe { libc::setns(link.as_raw_fd(), libc::CLONE_NEWNET) };
    ensure!(result == 0, "setns: {}", io::Error::last_os_error());
    Ok(())
}

/// Dissolves the connection of a socket, which then can be connected again.
pub(crate) fn disconnect(socket: BorrowedFd<'_>) -> Result<()> {
    // SAFETY: all zeros are a value of this struct of numbers, and say `AF_UNSPEC`.
    let nowhere: libc::sockaddr = unsafe { std::mem::zeroed() };
    let length = libc::socklen_t::try_from(size_of_val(&nowhere))?;
    // SAFETY: the kernel reads the address, which lives through the call.
    let result = unsafe { libc::connect(socket.as_raw_fd(), &raw const nowhere, length) };
    ensure!(result == 0, "disconnect: {}", io::Error::last_os_error());
    Ok(())
}

/// Takes this process, which has one thread, into a network namespace of its own, with a loopback
/// interface that works.
pub(crate) fn enter_new_network() -> Result<()> {
    // SAFETY: takes and gives numbers only.
    let result = unsafe { libc::unshare(libc::CLONE_NEWNET) };
    if result != 0 {
        skip!("no network namespace: {}", io::Error::last_os_error());
    }
    let socket = stream_socket(0)?;
    // SAFETY: all zeros are a value of this struct of numbers.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
        *to = libc::c_char::from_ne_bytes([*from]);
    }
    request.ifr_ifru.ifru_flags = i16::try_from(libc::IFF_UP)?;
    // SAFETY: the kernel reads the request, which lives through the call.
    let result = unsafe {
        libc::ioctl(
            socket.as_raw_fd(),
            libc::SIOCSIFFLAGS as libc::Ioctl,
            &raw const request,
        )
    };
    ensure!(result == 0, "loopback: {}", io::Error::last_os_error());
    Ok(())
}
