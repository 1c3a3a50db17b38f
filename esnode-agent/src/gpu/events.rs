//! The thread that waits for critical errors (XID).

use super::{
    ask::Told,
    board::Board,
    epoch::Epoch,
    library::{Meaning, meaning},
    sys,
};
use crate::privileges::{self, Needs};
use nvml_wrapper::{
    Device, EventSet, bitmasks::event::EventTypes, enums::event::XidError, error::NvmlError,
    struct_wrappers::event::EventData,
};
use rustc_hash::FxHashMap;
use std::{
    sync::mpsc::Receiver,
    thread,
    time::{Duration, Instant, SystemTime},
};
use tracing::{info, warn};

/// How long one wait may last: also how long a library may be kept open that is not wanted any more.
const WAIT_MILLISECONDS: u32 = 1_000;

/// How long to leave a library alone that refuses to wait.
const AGAIN: Duration = Duration::from_secs(1);

/// The code of an error that the driver has none for (nvml.h).
const UNKNOWN_XID: u64 = 999;

/// A device whose errors are waited for.
struct Watched<'nvml> {
    device: Device<'nvml>,
    uuid: String,
    identity: usize,
}

/// Waits for errors of the devices that `found` names, until the epoch ends.
pub(super) fn run(epoch: &Epoch, board: &Board, found: &Receiver<u32>, told: &Told) {
    if let Err(error) = privileges::drop(Needs::default()) {
        warn!(%error, "the thread that waits for XIDs keeps all privileges");
    }
    let mut watch = Watch::new(epoch, told);
    let mut log = XidLog::default();
    while epoch.has_events() {
        watch.pending.extend(found.try_iter());
        watch.look_up();
        watch.register();
        let Some(set) = &watch.set else {
            // The other end is there as long as the epoch.
            watch.pending.extend(found.recv_timeout(AGAIN));
            continue;
        };
        match set.wait(WAIT_MILLISECONDS) {
            Ok(event) => note(board, &watch.watched, &event, &mut log),
            Err(NvmlError::Timeout) => {}
            Err(_) => {
                watch.set = None;
                pause(epoch, AGAIN);
            }
        }
    }
}

/// What is waited for.
struct Watch<'a> {
    epoch: &'a Epoch,
    told: &'a Told,
    /// Devices that are to be looked up.
    pending: Vec<u32>,
    watched: Vec<Watched<'a>>,
    /// The errors of all that are watched; `None` if they have to be registered anew.
    set: Option<EventSet<'a>>,
    /// Whether the library has events at all.
    able: bool,
}

impl<'a> Watch<'a> {
    fn new(epoch: &'a Epoch, told: &'a Told) -> Self {
        Self {
            epoch,
            told,
            pending: Vec::new(),
            watched: Vec::new(),
            set: None,
            able: true,
        }
    }

    /// Looks up what is pending. What does not answer this time stays so.
    fn look_up(&mut self) {
        let pending = std::mem::take(&mut self.pending);
        for index in pending {
            match self.find(index) {
                Ok(Some(device)) => {
                    self.watched.push(device);
                    self.set = None;
                }
                Err(error) if meaning(&error) == Meaning::Missing => self.pending.push(index),
                // It has none; or it is lost, as whoever samples it says.
                Ok(None) | Err(_) => {}
            }
        }
    }

    /// The device of an index, if it reports errors, and is not watched already.
    fn find(&self, index: u32) -> Result<Option<Watched<'a>>, NvmlError> {
        let device = self.epoch.nvml.device_by_index(index)?;
        let uuid = device.uuid()?;
        if self.watched.iter().any(|device| device.uuid == uuid) {
            return Ok(None);
        }
        let reports = match device.supported_event_types() {
            Ok(types) if types.contains(EventTypes::CRITICAL_XID_ERROR) => Ok(()),
            Ok(_) => Err(NvmlError::NotSupported),
            Err(error) => Err(error),
        };
        if let Err(error) = reports {
            if is_unsupported(&error) {
                tell(self.told, &uuid, &error);
                return Ok(None);
            }
            return Err(error);
        }
        let identity = sys::identity(&device);
        Ok(Some(Watched {
            device,
            uuid,
            identity,
        }))
    }

    /// Makes a set of the errors of all that are watched, if there is none.
    fn register(&mut self) {
        while self.set.is_none() && self.able && !self.watched.is_empty() {
            match self.try_to_register() {
                Ok(set) => self.set = Some(set),
                Err((Some(place), error)) if is_unsupported(&error) => {
                    let refused = self.watched.remove(place);
                    tell(self.told, &refused.uuid, &error);
                }
                Err((None, error)) if is_unsupported(&error) => {
                    self.able = false;
                    tell(self.told, "", &error);
                }
                // Another time.
                Err(_) => return pause(self.epoch, AGAIN),
            }
        }
    }

    /// A set, or the place of the device that refused, if it was one, and why.
    fn try_to_register(&self) -> Result<EventSet<'a>, (Option<usize>, NvmlError)> {
        let set = self.epoch.nvml.create_event_set();
        let mut set = set.map_err(|error| (None, error))?;
        for (place, Watched { device, .. }) in self.watched.iter().enumerate() {
            // A set that was refused is gone.
            let registered = device.register_events(EventTypes::CRITICAL_XID_ERROR, set);
            set = registered.map_err(|refused| (Some(place), refused.error))?;
        }
        Ok(set)
    }
}

/// What the log was told of errors. Faulty programs can cause thousands.
#[derive(Debug, Default)]
struct XidLog(FxHashMap<(String, u64), (Instant, u64)>);

impl XidLog {
    /// Tells of an error; of more of the same, once a minute how many.
    fn tell(&mut self, uuid: &str, code: u64) {
        let key = (uuid.to_owned(), code);
        match self.0.get_mut(&key) {
            None => {
                warn!("GPU {uuid} reports XID {code}");
                self.0.insert(key, (Instant::now(), 0));
            }
            Some((told, more)) => {
                *more += 1;
                if told.elapsed() >= Duration::from_mins(1) {
                    warn!("GPU {uuid} reports XID {code} {more} times more");
                    (*told, *more) = (Instant::now(), 0);
                }
            }
        }
    }
}

/// Takes note of an event, if it is an error.
fn note(board: &Board, watched: &[Watched<'_>], event: &EventData<'_>, log: &mut XidLog) {
    let code = match event.event_data {
        Some(XidError::Value(code)) => code,
        Some(XidError::Unknown) => UNKNOWN_XID,
        None => return,
    };
    let identity = sys::identity(&event.device);
    let source = watched.iter().find(|device| device.identity == identity);
    if let Some(Watched { uuid, .. }) = source {
        log.tell(uuid, code);
        board.xid(uuid, code, SystemTime::now());
    }
}

fn is_unsupported(error: &NvmlError) -> bool {
    meaning(error) == Meaning::Unsupported
}

/// Tells, once, of which device errors are not known; of all, if no UUID is given.
fn tell(told: &Told, uuid: &str, error: &NvmlError) {
    if !told.insert(uuid, "xid") {
        return;
    }
    if uuid.is_empty() {
        info!("XIDs are not known: {error}");
    } else {
        info!("XIDs of GPU {uuid} are not known: {error}");
    }
}

fn pause(epoch: &Epoch, pause: Duration) {
    let until = Instant::now() + pause;
    while epoch.has_events() && Instant::now() < until {
        thread::sleep(Duration::from_millis(100));
    }
}
