//! One TCP socket: what it moved, and whose it is.

use super::{
    holders::Holder,
    wire::{Moved, Reading},
};
use esnode_ebpf::{Network, Protocol, Traffic};

/// A socket that was seen.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Socket {
    /// What of its bytes was booked, or is older than the agent.
    pub(super) booked: Moved,
    /// What it has not booked yet.
    pub(super) reading: Moved,
    pub(super) inode: u32,
    pub(super) holder: Option<Holder>,
    /// Searches for a holder that found none, and the pass before which there is no other.
    pub(super) searches: u32,
    pub(super) not_before: u64,
    /// The last pass that met it.
    pub(super) pass: u64,
}

impl Socket {
    /// Takes over a reading. No number falls, whatever was read in between.
    pub(super) fn read(&mut self, reading: &Reading) {
        let doubt = u64::from(reading.end_in_doubt);
        let received = reading.moved.receive_bytes.saturating_sub(doubt);
        self.reading.receive_bytes = self.reading.receive_bytes.max(received);
        self.reading.transmit_bytes = self
            .reading
            .transmit_bytes
            .max(reading.moved.transmit_bytes);
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
