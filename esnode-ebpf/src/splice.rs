//! Bytes that leave TCP sockets by splice(2) or `TCP_ZEROCOPY_RECEIVE`, which no tracepoint of the
//! socket layer sees: followed by the place in the stream, `tcp_sock.copied_seq`.
//!
//! Whatever takes bytes out of a TCP socket ends in `tcp_rcv_space_adjust`. A receive is counted
//! elsewhere and only moves the place on; for these two system calls, the way from the last place
//! is what the running thread took.

use crate::{
    kernel::{Memory, Probe, Typed, is_kernel_thread, offset},
    network,
    tables::{self, SOCKETS},
};
use aya_ebpf::{
    helpers::generated::{bpf_get_current_task_btf, bpf_task_pt_regs},
    macros::btf_tracepoint,
    programs::BtfTracePointContext,
};
use core::ptr;

const IPPROTO_TCP: u16 = 6;
const TCP_ESTABLISHED: i32 = 1;
/// Bit of `sock.sk_flags`: the end of the stream has arrived.
const SOCK_DONE: u64 = 1 << 1;

/// Numbers of splice(2), for 32-bit programs too, and of getsockopt(2).
#[cfg(bpf_target_arch = "x86_64")]
const TAKING: [u32; 3] = [275, 313, 55];
#[cfg(not(bpf_target_arch = "x86_64"))]
const TAKING: [u32; 3] = [76, 340, 209];

/// `tcp_rcv_space_adjust(struct sock *sk)`: bytes were taken out of a socket.
#[btf_tracepoint(function = "tcp_rcv_space_adjust")]
pub(crate) fn tcp_rcv_space_adjust(context: BtfTracePointContext) -> i32 {
    let sock: *const u8 = context.arg(0);
    let place = place_read(sock);
    let key = sock.expose_provenance() as u64;
    let Some(known) = SOCKETS.get_ptr_mut(key) else {
        // Older than the agent, or refused: from here on it is known.
        tables::follow_socket(key, place);
        return 0;
    };
    // SAFETY: a map value; the socket is locked.
    let before = unsafe { known.replace(place) };
    if before != place && is_taking() {
        let mut taken = place.wrapping_sub(before).cast_signed();
        // The end of a stream takes a place in it, and is no byte.
        let ended = Typed::field::<u64>(sock, offset!(sock_flags)) & SOCK_DONE != 0;
        if ended && place == Probe::field(sock, offset!(tcp_arrived)) {
            taken -= 1;
        }
        if taken > 0 {
            network::received::<Typed>(&context, sock, taken);
        }
    }
    0
}

/// `inet_sock_set_state(const struct sock *sk, const int oldstate, const int newstate)`: a
/// connection begins.
#[btf_tracepoint(function = "inet_sock_set_state")]
pub(crate) fn inet_sock_set_state(context: BtfTracePointContext) -> i32 {
    let sock: *const u8 = context.arg(0);
    if context.arg::<i32>(2) == TCP_ESTABLISHED
        && Typed::field::<u16>(sock, offset!(sock_protocol)) == IPPROTO_TCP
    {
        tables::follow_socket(sock.expose_provenance() as u64, place_read(sock));
    }
    0
}

/// `tcp_destroy_sock(struct sock *sk)`: the last user is gone.
#[btf_tracepoint(function = "tcp_destroy_sock")]
pub(crate) fn tcp_destroy_sock(context: BtfTracePointContext) -> i32 {
    let sock: *const u8 = context.arg(0);
    let _ = SOCKETS.remove(sock.expose_provenance() as u64);
    0
}

/// The place in the stream up to which a socket was read. It lies beyond what the verifier knows
/// of a `struct sock`.
#[inline(always)]
fn place_read(sock: *const u8) -> u32 {
    Probe::field(sock, offset!(tcp_copied))
}

/// Whether the running thread is in a system call that takes bytes and is no receive.
#[inline(always)]
fn is_taking() -> bool {
    // SAFETY: no requirements.
    let task = unsafe { bpf_get_current_task_btf() };
    // SAFETY: the helper takes the task that the other gave.
    let registers = unsafe { bpf_task_pt_regs(task) };
    let registers = ptr::with_exposed_provenance(registers.cast_unsigned() as usize);
    let call: u32 = Typed::field(registers, offset!(registers_system_call));
    TAKING.contains(&call) && !is_kernel_thread::<Typed>(task.cast::<u8>())
}
