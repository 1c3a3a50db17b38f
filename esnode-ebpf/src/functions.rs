//! The send and receive functions of the kernel, seen as they return: by trampoline (`fexit`), or
//! by a pair of probes (`kprobe` and `kretprobe`) where trampolines are refused.
//!
//! These are the functions that the socket layer calls for one operation on a socket, whatever
//! the system call, so they count what the tracepoints of `network` count.

use crate::{
    kernel::{Memory, Probe, Typed, offset, pointer},
    network, tables,
};
use aya_ebpf::{
    EbpfContext,
    helpers::{bpf_get_current_task, bpf_probe_read_user},
    macros::{fexit, kprobe, kretprobe},
    programs::{FExitContext, ProbeContext, RetProbeContext},
};
use core::ptr;
use esnode_ebpf::Call;

const SOCK_SEQPACKET: i16 = 5;
const SOL_TCP: i32 = 6;
const TCP_ZEROCOPY_RECEIVE: i32 = 35;

/// How a function is called and what its return value says.
#[derive(Clone, Copy)]
enum Kind {
    /// `int (struct socket *sock, struct msghdr *msg, size_t size)`: bytes sent.
    Send,
    /// The same, of UNIX datagrams. It also serves `unix_seqpacket_sendmsg`, which counts itself.
    SendDatagram,
    /// `int (struct socket *sock, struct msghdr *msg, size_t size, int flags)`: bytes received.
    Receive,
    /// The same, of UNIX datagrams; as for sending.
    ReceiveDatagram,
    /// `ssize_t (struct socket *sock, struct page *page, int offset, size_t size, int flags)`:
    /// bytes sent. Until Linux 6.4.
    Sendpage,
    /// The same, for IPv4 and IPv6: protocols without a function of their own end in a send.
    SendpageInet,
    /// `ssize_t (struct socket *sock, loff_t *ppos, struct pipe_inode_info *pipe, size_t len,
    /// unsigned int flags)`: bytes that left the socket for a pipe.
    Splice,
}

impl Kind {
    /// Number of arguments; a trampoline finds the return value behind them.
    const fn arguments(self) -> usize {
        match self {
            Self::Send | Self::SendDatagram => 3,
            Self::Receive | Self::ReceiveDatagram => 4,
            Self::Sendpage | Self::SendpageInet | Self::Splice => 5,
        }
    }

    /// Counts what the function returned.
    #[inline(always)]
    fn count<M: Memory>(
        self,
        context: &impl EbpfContext,
        socket: *const u8,
        flags: i32,
        returned: i32,
    ) {
        let sock = pointer::<M>(socket, offset!(socket_sock));
        let is_seqpacket = || M::field::<i16>(socket, offset!(socket_type)) == SOCK_SEQPACKET;
        match self {
            Self::SendDatagram | Self::ReceiveDatagram if is_seqpacket() => {}
            Self::SendpageInet
                if pointer::<M>(
                    pointer::<M>(sock, offset!(sock_functions)),
                    offset!(functions_sendpage),
                )
                .is_null() => {}
            Self::Send | Self::SendDatagram | Self::Sendpage | Self::SendpageInet => {
                network::sent::<M>(context, sock, returned);
            }
            Self::Receive | Self::ReceiveDatagram => {
                if network::takes(flags) {
                    network::received::<M>(context, sock, returned);
                }
            }
            Self::Splice => {
                // Nothing there, or the end of the stream, is no receive that succeeded.
                if returned > 0 {
                    network::received::<M>(context, sock, returned);
                }
            }
        }
    }
}

/// The programs of one function: `$number` tells its open calls from those of others that it
/// calls or is called by, within one thread.
macro_rules! function {
    ($function:ident, $enter:ident, $leave:ident, $number:literal, $kind:expr) => {
        #[fexit]
        pub(crate) fn $function(context: FExitContext) -> i32 {
            let flags = match $kind {
                Kind::Receive | Kind::ReceiveDatagram => context.arg(3),
                _ => 0,
            };
            let returned = context.arg($kind.arguments());
            $kind.count::<Typed>(&context, context.arg(0), flags, returned);
            0
        }

        #[kprobe]
        pub(crate) fn $enter(context: ProbeContext) -> u32 {
            let flags = match $kind {
                Kind::Receive | Kind::ReceiveDatagram => context.arg::<u64>(3),
                _ => None,
            };
            enter(
                &context,
                $number,
                context.arg(0),
                flags.unwrap_or_default(),
                0,
            );
            0
        }

        #[kretprobe]
        pub(crate) fn $leave(context: RetProbeContext) -> u32 {
            if let Some(call) = leave($number) {
                let socket = ptr::with_exposed_provenance(call.socket as usize);
                $kind.count::<Probe>(&context, socket, call.argument as i32, context.ret());
            }
            0
        }
    };
}

function!(
    inet_sendmsg,
    enter_inet_sendmsg,
    leave_inet_sendmsg,
    0,
    Kind::Send
);
function!(
    inet6_sendmsg,
    enter_inet6_sendmsg,
    leave_inet6_sendmsg,
    1,
    Kind::Send
);
function!(
    unix_stream_sendmsg,
    enter_unix_stream_sendmsg,
    leave_unix_stream_sendmsg,
    2,
    Kind::Send
);
function!(
    unix_dgram_sendmsg,
    enter_unix_dgram_sendmsg,
    leave_unix_dgram_sendmsg,
    3,
    Kind::SendDatagram
);
function!(
    unix_seqpacket_sendmsg,
    enter_unix_seqpacket_sendmsg,
    leave_unix_seqpacket_sendmsg,
    4,
    Kind::Send
);
function!(
    netlink_sendmsg,
    enter_netlink_sendmsg,
    leave_netlink_sendmsg,
    5,
    Kind::Send
);
function!(
    inet_recvmsg,
    enter_inet_recvmsg,
    leave_inet_recvmsg,
    6,
    Kind::Receive
);
function!(
    inet6_recvmsg,
    enter_inet6_recvmsg,
    leave_inet6_recvmsg,
    7,
    Kind::Receive
);
function!(
    unix_stream_recvmsg,
    enter_unix_stream_recvmsg,
    leave_unix_stream_recvmsg,
    8,
    Kind::Receive
);
function!(
    unix_dgram_recvmsg,
    enter_unix_dgram_recvmsg,
    leave_unix_dgram_recvmsg,
    9,
    Kind::ReceiveDatagram
);
function!(
    unix_seqpacket_recvmsg,
    enter_unix_seqpacket_recvmsg,
    leave_unix_seqpacket_recvmsg,
    10,
    Kind::Receive
);
function!(
    netlink_recvmsg,
    enter_netlink_recvmsg,
    leave_netlink_recvmsg,
    11,
    Kind::Receive
);
function!(
    inet_sendpage,
    enter_inet_sendpage,
    leave_inet_sendpage,
    12,
    Kind::SendpageInet
);
function!(
    unix_stream_sendpage,
    enter_unix_stream_sendpage,
    leave_unix_stream_sendpage,
    13,
    Kind::Sendpage
);
function!(
    tcp_splice_read,
    enter_tcp_splice_read,
    leave_tcp_splice_read,
    14,
    Kind::Splice
);
function!(
    unix_stream_splice_read,
    enter_unix_stream_splice_read,
    leave_unix_stream_splice_read,
    15,
    Kind::Splice
);

/// Number of [`tcp_getsockopt`] among the functions.
const GETSOCKOPT: u64 = 16;

/// `int tcp_getsockopt(struct sock *sk, int level, int optname, char *optval, int *optlen)`: the
/// option `TCP_ZEROCOPY_RECEIVE` is a receive.
#[fexit]
pub(crate) fn tcp_getsockopt(context: FExitContext) -> i32 {
    if is_zerocopy(context.arg(1), context.arg(2)) && context.arg::<i32>(5) == 0 {
        count_zerocopy::<Typed>(&context, context.arg(0), context.arg(3), context.arg(4));
    }
    0
}

#[kprobe]
pub(crate) fn enter_tcp_getsockopt(context: ProbeContext) -> u32 {
    if let (Some(level), Some(option)) = (context.arg(1), context.arg(2))
        && is_zerocopy(level, option)
        && let (Some(value), Some(length)) = (context.arg(3), context.arg(4))
    {
        enter(&context, GETSOCKOPT, context.arg(0), value, length);
    }
    0
}

#[kretprobe]
pub(crate) fn leave_tcp_getsockopt(context: RetProbeContext) -> u32 {
    if let Some(call) = leave(GETSOCKOPT)
        && context.ret::<i32>() == 0
    {
        let sock = ptr::with_exposed_provenance(call.socket as usize);
        count_zerocopy::<Probe>(&context, sock, call.argument, call.length);
    }
    0
}

#[inline(always)]
fn is_zerocopy(level: i32, option: i32) -> bool {
    level == SOL_TCP && option == TCP_ZEROCOPY_RECEIVE
}

/// Counts the bytes that were mapped (`length`) and those that were copied beside them
/// (`copybuf_len`, Linux 5.11), by the addresses of a `struct tcp_zerocopy_receive` and of how much
/// of it the kernel wrote.
#[inline(always)]
fn count_zerocopy<M: Memory>(
    context: &impl EbpfContext,
    sock: *const u8,
    result: u64,
    length: u64,
) {
    const LENGTH: u64 = 8;
    const COPYBUF_LENGTH: u64 = 32;
    const WITH_COPYBUF_LENGTH: i32 = 36;
    let mut taken = read_user(result + LENGTH);
    if read_user(length) >= WITH_COPYBUF_LENGTH {
        taken += read_user(result + COPYBUF_LENGTH);
    }
    if taken > 0 {
        network::received::<M>(context, sock, taken);
    }
}

/// A number in user space; 0 if it can't be read.
#[inline(always)]
fn read_user(address: u64) -> i32 {
    let address = ptr::with_exposed_provenance::<i32>(address as usize);
    // SAFETY: the helper fails for an address that can't be read.
    unsafe { bpf_probe_read_user(address) }.unwrap_or(0)
}

/// Keeps what the return will need. A call that is already there had a return that no probe saw.
#[inline(always)]
fn enter(context: &impl EbpfContext, number: u64, socket: Option<u64>, argument: u64, length: u64) {
    let call = Call {
        socket: socket.unwrap_or_default(),
        argument,
        length,
    };
    tables::open_call(context, key(number), &call);
}

/// Takes out what [`enter`] kept.
#[inline(always)]
fn leave(number: u64) -> Option<Call> {
    tables::close_call(key(number))
}

/// A call of a thread: tasks lie 64 bytes apart at least, so the number fits between.
#[inline(always)]
fn key(number: u64) -> u64 {
    // SAFETY: no requirements.
    unsafe { bpf_get_current_task() + number }
}
