//! What scrapes and the threads that read sensors tell each other.

use super::{
    chip::{Chip, Place},
    values::{Malformed, Values},
};
use std::{
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};
use tracing::info;

/// What a chip said.
#[derive(Clone, Debug)]
pub(super) struct Reading {
    pub(super) chip: Arc<Chip>,
    pub(super) values: Result<Arc<Values>, Malformed>,
    pub(super) at: Instant,
}

/// What is known and asked for. No lock is held while a file is read.
#[derive(Default)]
pub(super) struct State {
    /// Number of the last pass that was asked for, and of the last one whose quick chips are read.
    pub(super) asked: u64,
    pub(super) served: u64,
    /// The chips of the last scrape, and what they said last.
    pub(super) chips: Vec<(Place, Option<Reading>)>,
    /// Number of the thread that reads; those before it were left to chips that do not answer.
    pub(super) thread: u64,
    /// What it reads, and since when.
    busy: Option<(Place, Instant)>,
    /// Chips that do not answer.
    silent: Vec<Place>,
    pub(super) ended: bool,
}

/// The same for both sides.
#[derive(Default)]
pub(super) struct Shared {
    state: Mutex<State>,
    pub(super) changed: Condvar,
}

impl State {
    /// Keeps what is known of the chips that are still there.
    pub(super) fn set_places(&mut self, places: Vec<Place>) {
        if self.chips.iter().map(|(place, _)| place).eq(&places) {
            return;
        }
        let mut before = std::mem::take(&mut self.chips);
        let mut known = |place: &Place| before.iter_mut().find(|(it, _)| it == place)?.1.take();
        let known = places.into_iter().map(|place| {
            let reading = known(&place);
            (place, reading)
        });
        self.chips = known.collect();
    }

    pub(super) fn set(&mut self, place: &Place, reading: Option<Reading>) {
        if let Some((_, known)) = self.chips.iter_mut().find(|(it, _)| it == place) {
            *known = reading;
        }
    }

    /// Leaves out the chip that is being read for longer than this.
    pub(super) fn give_up(&mut self, patience: Duration) -> Option<Place> {
        let (place, _) = self.busy.take_if(|(_, since)| since.elapsed() > patience)?;
        self.set(&place, None);
        self.silent.push(place.clone());
        Some(place)
    }

    /// Puts a new thread in charge; gives its number.
    pub(super) fn put_in_charge(&mut self) -> u64 {
        self.busy = None;
        self.thread += 1;
        self.thread
    }

    fn dismissed(&self, thread: u64) -> bool {
        self.ended || self.thread != thread
    }
}

/// Why a thread has to end: the agent ends, or another one took its place.
pub(super) struct Dismissed;

impl Shared {
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until a pass is asked for; gives its number and the chips to read.
    pub(super) fn next(&self, thread: u64, served: u64) -> Result<(u64, Vec<Place>), Dismissed> {
        let idle = |state: &mut State| !state.dismissed(thread) && state.asked <= served;
        let state = self
            .changed
            .wait_while(self.lock(), idle)
            .unwrap_or_else(PoisonError::into_inner);
        if state.dismissed(thread) {
            return Err(Dismissed);
        }
        let places = state.chips.iter().map(|(place, _)| place);
        let places = places.filter(|place| !state.silent.contains(place));
        Ok((state.asked, places.cloned().collect()))
    }

    /// Does something that can take for ever with a chip.
    pub(super) fn with<T>(
        &self,
        thread: u64,
        place: &Place,
        ask: impl FnOnce() -> T,
    ) -> Result<T, Dismissed> {
        {
            let mut state = self.lock();
            if state.dismissed(thread) {
                return Err(Dismissed);
            }
            state.busy = Some((place.clone(), Instant::now()));
        }
        let answer = ask();
        let mut state = self.lock();
        if state.ended {
            return Err(Dismissed);
        }
        if state.thread != thread {
            state.silent.retain(|silent| silent != place);
            info!(chip = %place.folder.display(), "answers again");
            return Err(Dismissed);
        }
        state.busy = None;
        Ok(answer)
    }

    pub(super) fn served(&self, pass: u64) {
        let mut state = self.lock();
        state.served = state.served.max(pass);
        self.changed.notify_all();
    }
}
