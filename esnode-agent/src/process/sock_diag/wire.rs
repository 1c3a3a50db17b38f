//! What sock_diag says of a TCP socket: sock_diag(7), `struct inet_diag_msg` of
//! `include/uapi/linux/inet_diag.h`, `struct tcp_info` of `include/uapi/linux/tcp.h`.

use crate::process::netlink::{attributes, field, u32_at, u64_at};

/// Asks by address family (`SOCK_DIAG_BY_FAMILY`).
pub(super) const SOCK_DIAG_BY_FAMILY: u16 = 20;
/// Where the kernel tells of TCP sockets that it frees: `SKNLGRP_INET_TCP_DESTROY` and
/// `SKNLGRP_INET6_TCP_DESTROY`, as a mask.
pub(super) const DESTROYED: u32 = 1 | 1 << 2;
/// `AF_INET` and `AF_INET6`.
pub(super) const FAMILIES: [u8; 2] = [2, 10];

const IPPROTO_TCP: u8 = 6;
const INET_DIAG_INFO: u16 = 2;

const ESTABLISHED: u8 = 1;
const FIN_WAIT1: u8 = 4;
const FIN_WAIT2: u8 = 5;
const CLOSE: u8 = 7;
const CLOSE_WAIT: u8 = 8;
const LAST_ACK: u8 = 9;
const CLOSING: u8 = 11;

/// Asks for all sockets of a family that have been connected, with their `tcp_info`.
pub(super) fn request(family: u8) -> Vec<u8> {
    let states = [
        ESTABLISHED,
        FIN_WAIT1,
        FIN_WAIT2,
        CLOSE_WAIT,
        LAST_ACK,
        CLOSING,
    ];
    let states: u32 = states.iter().map(|state| 1 << state).sum();
    let mut request = vec![family, IPPROTO_TCP, 1 << (INET_DIAG_INFO - 1), 0];
    request.extend_from_slice(&states.to_ne_bytes());
    // No address in particular.
    request.resize(request.len() + 48, 0);
    request
}

/// Bytes that a process handed over to a socket, and took from it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Moved {
    pub(super) receive_bytes: u64,
    pub(super) transmit_bytes: u64,
}

/// Numbers that the kernel reads together, and that never fall while a connection lasts: when the
/// socket is disconnected, to be connected again, they begin at zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counters {
    pub(super) received: u64,
    pub(super) acknowledged: u64,
    pub(super) sent: u64,
}

impl Counters {
    /// Whether these are of a later connection than `earlier`.
    pub(super) fn began_again(&self, earlier: &Self) -> bool {
        self.received < earlier.received
            || self.acknowledged < earlier.acknowledged
            || self.sent < earlier.sent
    }
}

/// What the kernel says of one socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Reading {
    /// Identity of the socket in its network namespace, for good.
    pub(super) cookie: u64,
    /// Inode number of the file; 0 if no process has it.
    pub(super) inode: u32,
    pub(super) moved: Moved,
    pub(super) counters: Counters,
    /// Its port and the peer's; `None` once it has no port any more.
    pub(super) ports: Option<[u16; 2]>,
    /// The last of the received bytes may be the end of the stream instead: after the socket was
    /// closed, nobody can tell.
    pub(super) end_in_doubt: bool,
}

/// Reads a message; `None` if it is none of a connection, or of a kernel before 4.19, whose
/// `tcp_info` doesn't say enough.
pub(super) fn parse(payload: &[u8]) -> Option<Reading> {
    const MESSAGE: usize = 72;
    let [state] = field::<1>(payload, 1)?;
    let cookie = u64_at(payload, 44)?;
    let ports = [4, 6].map(|offset| field(payload, offset).map_or(0, u16::from_be_bytes));
    let (unread, unacknowledged) = (u32_at(payload, 56)?, u32_at(payload, 60)?);
    let inode = u32_at(payload, 68)?;
    let (_, info) =
        attributes(payload.get(MESSAGE..)?).find(|(kind, _)| *kind == INET_DIAG_INFO)?;
    let acknowledged = u64_at(info, 120)?;
    let received = u64_at(info, 128)?;
    let not_sent = u32_at(info, 144)?;
    let (sent, sent_again) = (u64_at(info, 200)?, u64_at(info, 208)?);

    // Our FIN takes a sequence number, as if it were a byte, and waits behind the last byte.
    let fin_queued = matches!(state, FIN_WAIT1 | CLOSING | LAST_ACK) && not_sent > 0;
    let transmitted =
        (sent + u64::from(not_sent)).saturating_sub(sent_again + u64::from(fin_queued));
    // The kernel counts what it hands to the device also where that refuses it. By sequence
    // numbers nothing counts twice, but SYN and FIN count, and who sent them is not known. What is
    // unacknowledged was read before the socket was locked for the rest: an acknowledgement between
    // the two counts in both, so it bounds from above only.
    let by_sequence = acknowledged + u64::from(unacknowledged);
    let transmit_bytes = transmitted
        .max(acknowledged.saturating_sub(2))
        .min(by_sequence);

    // Disconnected: what is then said of queues is left over.
    let counters = Counters {
        received,
        acknowledged,
        sent,
    };
    let nothing = state == CLOSE && counters == Counters::default();
    let transmit_bytes = if nothing { 0 } else { transmit_bytes };

    // So does the peer's FIN, which is read when a receive returns 0.
    let taken = received.saturating_sub(unread.into());
    let fin_received = matches!(state, CLOSE_WAIT | LAST_ACK | CLOSING);
    let fin_read = fin_received && unread == 0;
    Some(Reading {
        cookie,
        inode,
        moved: Moved {
            receive_bytes: taken.saturating_sub(fin_read.into()),
            transmit_bytes,
        },
        counters,
        ports: (!ports.contains(&0)).then_some(ports),
        end_in_doubt: state == CLOSE && unread == 0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::netlink::push_attribute;

    #[derive(Clone, Copy, Default)]
    struct Socket {
        state: u8,
        unread: u32,
        unacknowledged: u32,
        acknowledged: u64,
        received: u64,
        not_sent: u32,
        sent: u64,
        sent_again: u64,
    }

    fn message(socket: Socket, info_bytes: usize) -> Vec<u8> {
        let mut message = vec![2, socket.state, 0, 0];
        message.resize(44, 0);
        message.extend_from_slice(&77_u64.to_ne_bytes());
        for word in [0, socket.unread, socket.unacknowledged, 1000, 4242] {
            message.extend_from_slice(&word.to_ne_bytes());
        }
        let mut info = vec![0; 120];
        info.extend_from_slice(&socket.acknowledged.to_ne_bytes());
        info.extend_from_slice(&socket.received.to_ne_bytes());
        info.resize(144, 0);
        info.extend_from_slice(&socket.not_sent.to_ne_bytes());
        info.resize(200, 0);
        info.extend_from_slice(&socket.sent.to_ne_bytes());
        info.extend_from_slice(&socket.sent_again.to_ne_bytes());
        info.resize(info_bytes, 0);
        push_attribute(&mut message, 8, &[3]);
        push_attribute(&mut message, INET_DIAG_INFO, &info);
        message
    }

    fn moved(socket: Socket) -> (u64, u64) {
        let reading = parse(&message(socket, 232)).expect("valid");
        assert_eq!((reading.cookie, reading.inode), (77, 4242));
        (reading.moved.receive_bytes, reading.moved.transmit_bytes)
    }

    const OPEN: Socket = Socket {
        state: ESTABLISHED,
        unread: 100,
        // 1,000 bytes were written: 700 sent, 500 of them acknowledged, 50 sent again. With SYN.
        unacknowledged: 500,
        acknowledged: 501,
        received: 3_000,
        not_sent: 300,
        sent: 750,
        sent_again: 50,
    };

    #[test]
    fn what_is_queued_counts_where_the_process_is_done_with_it() {
        assert_eq!(moved(OPEN), (2_900, 1_000));
    }

    #[test]
    fn the_end_of_the_stream_is_no_byte() {
        let closed = Socket {
            state: LAST_ACK,
            unread: 0,
            unacknowledged: 501,
            received: 3_001,
            not_sent: 301,
            ..OPEN
        };
        assert_eq!(moved(closed), (3_000, 1_000));
        let unread = Socket {
            unread: 101,
            received: 3_001,
            ..closed
        };
        assert_eq!(moved(unread), (2_900, 1_000));
    }

    #[test]
    fn what_the_device_refused_counts_once() {
        let refused = Socket {
            sent: 5_750,
            ..OPEN
        };
        assert_eq!(moved(refused), (2_900, 1_001));
    }

    #[test]
    fn a_disconnected_socket_moved_nothing() {
        let disconnected = Socket {
            state: CLOSE,
            not_sent: 65_485,
            unacknowledged: 65_485,
            ..Socket::default()
        };
        assert_eq!(moved(disconnected), (0, 0));
    }

    #[test]
    fn an_old_kernel_does_not_say_enough() {
        assert_eq!(parse(&message(OPEN, 192)), None);
        assert!(parse(&message(OPEN, 216)).is_some());
        let whole = message(OPEN, 232);
        for length in 0..whole.len() {
            assert_eq!(parse(&whole[..length]), None);
        }
    }

    #[test]
    fn a_request_is_as_long_as_its_struct() {
        let request = request(10);
        assert_eq!(request.len(), 56);
        assert_eq!(request[..4], [10, 6, 2, 0]);
    }
}
