//! Bytes and calls per thread and protocol, from the return values of the socket layer.

use crate::{
    kernel::{Memory, Typed, offset},
    tables::{self, THREADS},
};
use aya_ebpf::{
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
    let sent: i32 = context.arg(1);
    if let Ok(bytes) = u64::try_from(sent) {
        match current_thread(&context) {
            Ok(thread) => {
                // SAFETY: a map value of this thread, which alone writes it.
                let traffic = unsafe { &mut (*thread).network[protocol(&context)] };
                traffic.transmit_bytes += bytes;
                traffic.transmits += 1;
            }
            Err(Unattributed::MapFull) => tables::lose(Lost::TransmitMapFull, bytes),
            Err(Unattributed::NoProcess) => tables::lose(Lost::TransmitNoProcess, bytes),
        }
    }
    0
}

/// `sock_recv_length(struct sock *sk, int ret, int flags)`, Linux 6.3: after a receive.
///
/// Peeking leaves the bytes in the socket, and the error queue holds reports on what was sent
/// (zero-copy completions, timestamps): neither was received.
#[btf_tracepoint(function = "sock_recv_length")]
pub(crate) fn sock_recv_length(context: BtfTracePointContext) -> i32 {
    let received: i32 = context.arg(1);
    let flags: i32 = context.arg(2);
    if flags & (MSG_PEEK | MSG_ERRQUEUE) != 0 {
        return 0;
    }
    if let Ok(bytes) = u64::try_from(received) {
        match current_thread(&context) {
            Ok(thread) => {
                // SAFETY: a map value of this thread, which alone writes it.
                let traffic = unsafe { &mut (*thread).network[protocol(&context)] };
                traffic.receive_bytes += bytes;
                traffic.receives += 1;
            }
            Err(Unattributed::MapFull) => tables::lose(Lost::ReceiveMapFull, bytes),
            Err(Unattributed::NoProcess) => tables::lose(Lost::ReceiveNoProcess, bytes),
        }
    }
    0
}

/// Why traffic belongs to no thread.
enum Unattributed {
    MapFull,
    NoProcess,
}

/// The entry of the running thread.
#[inline(always)]
fn current_thread(context: &BtfTracePointContext) -> Result<*mut ThreadUse, Unattributed> {
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
fn protocol(context: &BtfTracePointContext) -> usize {
    let sock: *const u8 = context.arg(0);
    let family = Typed::field(sock, offset!(sock_family));
    let protocol = Typed::field(sock, offset!(sock_protocol));
    Protocol::of(family, protocol) as usize & (PROTOCOLS - 1)
}
