//! Which thread samples which device. One thread samples all of them, until a call hangs: then
//! another takes over the rest, and the first keeps the device that it hangs in.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// What one thread has to do.
#[derive(Debug, Default)]
struct Shift {
    devices: Vec<u32>,
    /// The device that it is in, and since when.
    busy: Option<(u32, Instant)>,
}

/// The shifts of an epoch, by number.
#[derive(Debug, Default)]
pub(super) struct Roster(Mutex<Vec<Shift>>);

impl Roster {
    fn lock(&self) -> MutexGuard<'_, Vec<Shift>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a shift for these devices; gives its number.
    pub(super) fn add(&self, devices: Vec<u32>) -> usize {
        let mut shifts = self.lock();
        shifts.push(Shift {
            devices,
            busy: None,
        });
        shifts.len() - 1
    }

    /// The devices of a shift.
    #[must_use]
    pub(super) fn devices(&self, shift: usize) -> Vec<u32> {
        let shifts = self.lock();
        shifts
            .get(shift)
            .map_or_else(Vec::new, |shift| shift.devices.clone())
    }

    /// The thread of a shift turns to a device; not if that is another's by now.
    #[must_use]
    pub(super) fn begin(&self, shift: usize, device: u32) -> bool {
        let mut shifts = self.lock();
        let Some(shift) = shifts.get_mut(shift) else {
            return false;
        };
        let has = shift.devices.contains(&device);
        shift.busy = has.then(|| (device, Instant::now()));
        has
    }

    /// The thread of a shift is done with a device, for this time or for good.
    pub(super) fn end(&self, shift: usize, device: u32, for_good: bool) {
        if let Some(shift) = self.lock().get_mut(shift) {
            shift.busy = None;
            shift.devices.retain(|other| !for_good || *other != device);
        }
    }

    /// The device that the thread of a shift is in.
    #[must_use]
    pub(super) fn busy_with(&self, shift: usize) -> Option<u32> {
        self.lock().get(shift)?.busy.map(|(device, _)| device)
    }

    /// Takes its other devices from a thread that has been in one for longer than `patience`, for
    /// another thread to sample.
    #[must_use]
    pub(super) fn relieve(&self, patience: Duration) -> Option<Vec<u32>> {
        let mut shifts = self.lock();
        shifts.iter_mut().find_map(|shift| {
            let (device, since) = shift.busy?;
            if since.elapsed() <= patience || shift.devices.len() < 2 {
                return None;
            }
            let devices = std::mem::replace(&mut shift.devices, vec![device]);
            Some(devices.into_iter().filter(|it| *it != device).collect())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_hangs_keeps_its_device_only() {
        let roster = Roster::default();
        let shift = roster.add(vec![0, 1, 2]);
        assert!(roster.begin(shift, 1));
        assert_eq!(roster.relieve(Duration::from_mins(1)), None);
        assert_eq!(roster.relieve(Duration::ZERO), Some(vec![0, 2]));
        let other = roster.add(vec![0, 2]);
        assert_eq!(roster.busy_with(shift), Some(1));
        // It comes back, and turns to what is not its any more.
        roster.end(shift, 1, false);
        assert!(!roster.begin(shift, 2));
        assert!(roster.begin(shift, 1) && roster.begin(other, 2));
        roster.end(other, 2, false);
        // With one device only there is nobody to be relieved of.
        assert_eq!(roster.relieve(Duration::ZERO), None);
    }

    #[test]
    fn a_device_that_is_lost_is_nobodys() {
        let roster = Roster::default();
        let shift = roster.add(vec![0, 1]);
        assert!(roster.begin(shift, 0));
        roster.end(shift, 0, true);
        assert_eq!(roster.devices(shift), [1]);
        assert_eq!(roster.busy_with(shift), None);
    }
}
