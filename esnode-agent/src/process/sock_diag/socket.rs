//! One TCP socket: what it moved, and whose it is.

use super::{
    holders::Holder,
    wire::{Counters, Moved, Reading},
};
use esnode_ebpf::{Network, Protocol, Traffic};

/// A socket that was seen.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Socket {
    /// What of its bytes was booked, or is older than the agent.
    pub(super) booked: Moved,
    /// What it moved in all, as far as is known.
    pub(super) reading: Moved,
    /// What of that was moved by connections before the present one.
    before: Moved,
    counters: Counters,
    ports: Option<[u16; 2]>,
    pub(super) inode: u32,
    pub(super) holder: Option<Holder>,
    /// Searches for a holder that found none, and the pass before which there is no other.
    pub(super) searches: u32,
    pub(super) not_before: u64,
    /// The last pass that met it.
    pub(super) pass: u64,
}

impl Socket {
    /// Takes over a reading. No number falls, whatever was read in between; a connection that
    /// began again adds to those before. One between the same ports that has moved more than the
    /// one before when it is read for the first time can't be told from it.
    pub(super) fn read(&mut self, reading: &Reading) {
        let known_ports = reading.ports.or(self.ports);
        let elsewhere = self.ports.is_some() && self.ports != known_ports;
        if elsewhere || reading.counters.began_again(&self.counters) {
            self.before = self.reading;
        }
        self.ports = known_ports;
        self.counters = reading.counters;
        let doubt = u64::from(reading.end_in_doubt);
        let mut moved = self.before;
        moved.add(Moved {
            receive_bytes: reading.moved.receive_bytes.saturating_sub(doubt),
            transmit_bytes: reading.moved.transmit_bytes,
        });
        let known = &mut self.reading;
        known.receive_bytes = known.receive_bytes.max(moved.receive_bytes);
        known.transmit_bytes = known.transmit_bytes.max(moved.transmit_bytes);
        if reading.inode != 0 {
            self.inode = reading.inode;
        }
    }

    /// What it moved since it was booked.
    pub(super) fn due(&self) -> Moved {
        Moved {
            receive_bytes: self.reading.receive_bytes - self.booked.receive_bytes,
            transmit_bytes: self.reading.transmit_bytes - self.booked.transmit_bytes,
        }
    }
}

impl Moved {
    pub(super) fn add(&mut self, part: Self) {
        self.receive_bytes += part.receive_bytes;
        self.transmit_bytes += part.transmit_bytes;
    }
}

/// As it goes on the page: TCP only, and the numbers of calls are not known.
pub(super) fn traffic(moved: Option<&Moved>) -> Network {
    let mut network = Network::default();
    let moved = moved.copied().unwrap_or_default();
    for (traffic, protocol) in network.iter_mut().zip(Protocol::ALL) {
        if protocol == Protocol::Tcp {
            *traffic = Traffic {
                receive_bytes: moved.receive_bytes,
                transmit_bytes: moved.transmit_bytes,
                ..Traffic::default()
            };
        }
    }
    network
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(receive_bytes: u64, transmit_bytes: u64) -> Reading {
        Reading {
            cookie: 1,
            inode: 2,
            moved: Moved {
                receive_bytes,
                transmit_bytes,
            },
            counters: Counters {
                received: receive_bytes.max(50),
                acknowledged: 0,
                sent: transmit_bytes,
            },
            ports: Some([1, 2]),
            end_in_doubt: false,
        }
    }

    fn read(socket: &mut Socket, receive_bytes: u64, transmit_bytes: u64) -> (u64, u64) {
        socket.read(&reading(receive_bytes, transmit_bytes));
        (socket.reading.receive_bytes, socket.reading.transmit_bytes)
    }

    #[test]
    fn a_connection_that_begins_again_adds_to_the_one_before() {
        let mut socket = Socket::default();
        assert_eq!(read(&mut socket, 0, 1_000), (0, 1_000));
        assert_eq!(read(&mut socket, 10, 600), (10, 1_600));
        assert_eq!(read(&mut socket, 10, 700), (10, 1_700));
        assert_eq!(read(&mut socket, 10, 600), (20, 2_300));
        // It is freed, and has no port.
        let mut freed = reading(10, 600);
        freed.ports = None;
        socket.read(&freed);
        assert_eq!(socket.reading.transmit_bytes, 2_300);
        // As much once more, from another port.
        let mut again = reading(10, 600);
        again.ports = Some([3, 2]);
        socket.read(&again);
        assert_eq!(socket.reading.transmit_bytes, 2_900);
    }

    #[test]
    fn what_was_read_apart_does_not_begin_again() {
        let mut socket = Socket::default();
        assert_eq!(read(&mut socket, 40, 1_000), (40, 1_000));
        // Bytes waited to be read that did not when the first reading was taken.
        assert_eq!(read(&mut socket, 30, 1_000), (40, 1_000));
        assert_eq!(read(&mut socket, 45, 1_000), (45, 1_000));
    }
}
