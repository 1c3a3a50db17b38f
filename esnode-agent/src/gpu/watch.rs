//! What the supervisor knows of the devices of an epoch.

use super::{epoch::Epoch, filter::Present};
use rustc_hash::FxHashSet;
use std::{
    sync::{
        Arc,
        mpsc::{Receiver, Sender},
    },
    time::{Duration, Instant},
};

/// What is known of the devices of an epoch.
pub(super) struct Watch {
    pub(super) epoch: Arc<Epoch>,
    pub(super) begun: Instant,
    /// Where the thread for events hears of devices.
    pub(super) devices: Sender<u32>,
    /// The other end, until that thread is there.
    pub(super) inbox: Option<Receiver<u32>>,
    pub(super) present: u32,
    pub(super) found: Vec<Present>,
    pub(super) refused: u32,
    /// Devices that said something.
    pub(super) settled: FxHashSet<u32>,
    pub(super) announced: bool,
    pub(super) lost: Vec<u32>,
    /// Whether devices that were there before are not among those that the driver counts.
    pub(super) is_short: bool,
    /// Those that a thread of an epoch before still hangs in.
    pub(super) hanging: Vec<u32>,
    /// When to open the library again.
    pub(super) again_at: Option<Instant>,
}

impl Watch {
    pub(super) fn new(
        epoch: Arc<Epoch>,
        (devices, inbox): (Sender<u32>, Receiver<u32>),
        present: u32,
    ) -> Self {
        Self {
            epoch,
            begun: Instant::now(),
            devices,
            inbox: Some(inbox),
            present,
            found: Vec::new(),
            refused: 0,
            settled: FxHashSet::default(),
            announced: false,
            lost: Vec::new(),
            is_short: false,
            hanging: Vec::new(),
            again_at: None,
        }
    }

    pub(super) fn is_settled(&self) -> bool {
        self.settled.len() + self.hanging.len() >= self.present as usize
    }

    /// A device is lost.
    pub(super) fn lose(&mut self, index: u32, pause: Duration) {
        if !self.lost.contains(&index) {
            self.lost.push(index);
            self.settled.insert(index);
        }
        self.again_at.get_or_insert(Instant::now() + pause);
    }
}
