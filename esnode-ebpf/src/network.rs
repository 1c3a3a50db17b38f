//! Bytes and calls per thread and protocol, from the return values of the socket layer.

use crate::{
    kernel::{Memory, Typed, offset},
    tables::{self, THREADS},
};
use aya_ebpf::{
    EbpfContext,
    helpers::{bpf_get_current_pid_tgid, bpf_get_current_task},
    macros::btf_tracepoint,
    programs::BtfTracePointContext,
};
use esnode_ebpf::{Lost, PROTOCOLS, Protocol, ThreadUse};

const MSG_PEEK: i32 = 0x2;
const MSG_ERRQUEUE: i32 = 0x2000;

/// `sock_send_length(struct sock *sk, int ret, int flags)`, Linux 6.3: after a send.
#[btf_tracepoint(function = "sock_send_length")]
pub(crate) fn sock_send_length(context: BtfTracePointContext) -> i32 {
    sent::<Typed>(&context, context.arg(0), context.arg(1));
    0
}

/// `sock_recv_length(struct sock *sk, int ret, int flags)`, Linux 6.3: after a receive.
#[btf_tracepoint(function = "sock_recv_length")]
pub(crate) fn sock_recv_length(context: BtfTracePointContext) -> i32 {
    if takes(context.arg(2)) {
        received::<Typed>(&context, context.arg(0), context.arg(1));
    }
    0
}

/// Whether a receive with these flags takes anything: peeking leaves the bytes in the socket,
/// and the error queue holds reports on what was sent (zero-copy completions, timestamps).
#[inline(always)]
pub(crate) fn takes(flags: i32) -> bool {
    flags & (MSG_PEEK | MSG_ERRQUEUE) == 0
}

/// Counts what a send on a `struct sock` returned.
#[inline(always)]
pub(crate) fn sent<M: Memory>(context: &impl EbpfContext, sock: *const u8, returned: i32) {
    let Ok(bytes) = u64::try_from(returned) else {
        return;
    };
    match current_thread(context) {
        Ok(thread) => {
            // SAFETY: a map value of this thread, which alone writes it.
            let traffic = unsafe { &mut (*thread).network[protocol::<M>(sock)] };
            traffic.transmit_bytes += bytes;
            traffic.transmits += 1;
        }
        Err(Unattributed::MapFull) => tables::lose(Lost::TransmitMapFull, bytes),
        Err(Unattributed::NoProcess) => tables::lose(Lost::TransmitNoProcess, bytes),
    }
}

/// Counts what a receive on a `struct sock` returned.
#[inline(always)]
pub(crate) fn received<M: Memory>(context: &impl EbpfContext, sock: *const u8, returned: i32) {
    let Ok(bytes) = u64::try_from(returned) else {
        return;
    };
    match current_thread(context) {
        Ok(thread) => {
            // SAFETY: a map value of this thread, which alone writes it.
            let traffic = unsafe { &mut (*thread).network[protocol::<M>(sock)] };
            traffic.receive_bytes += bytes;
            traffic.receives += 1;
        }
        Err(Unattributed::MapFull) => tables::lose(Lost::ReceiveMapFull, bytes),
        Err(Unattributed::NoProcess) => tables::lose(Lost::ReceiveNoProcess, bytes),
    }
}

/// Why traffic belongs to no thread.
enum Unattributed {
    MapFull,
    NoProcess,
}

/// The entry of the running thread.
#[inline(always)]
fn current_thread(context: &impl EbpfContext) -> Result<*mut ThreadUse, Unattributed> {
    // SAFETY: no requirements.
    let task = unsafe { bpf_get_current_task() };
    if let Some(thread) = THREADS.get_ptr_mut(task) {
        return Ok(thread);
    }
    // The idle task, interrupted, is nobody.
    if bpf_get_current_pid_tgid() == 0 {
        return Err(Unattributed::NoProcess);
    }
    tables::thread(task).ok_or_else(|| {
        tables::refuse_thread(context);
        Unattributed::MapFull
    })
}

/// Index of the socket's protocol.
#[inline(always)]
fn protocol<M: Memory>(sock: *const u8) -> usize {
    let family = M::field(sock, offset!(sock_family));
    let protocol = M::field(sock, offset!(sock_protocol));
    Protocol::of(family, protocol) as usize & (PROTOCOLS - 1)
}
