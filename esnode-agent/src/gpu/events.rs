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
    let mut watched: Vec<Watched<'_>> = Vec::new();
    let mut set: Option<EventSet<'_>> = None;
    let mut able = true;
    while epoch.has_events() {
        let before = watched.len();
        for index in found.try_iter() {
            watched.extend(watch(epoch, index, &watched, told));
        }
        if watched.len() != before {
            set = None;
        }
        if set.is_none() && able && !watched.is_empty() {
            let registered = register(epoch, &mut watched, told);
            able = !registered.as_ref().is_err_and(is_unsupported);
            match registered {
                Ok(registered) => set = Some(registered),
                Err(_) if able => pause(epoch, AGAIN),
                Err(error) => tell(told, "", &error),
            }
        }
        let waited = match &set {
            Some(set) if !watched.is_empty() => set.wait(WAIT_MILLISECONDS),
            _ => {
                // The other end is there as long as the epoch.
                if let Ok(index) = found.recv_timeout(AGAIN) {
                    watched.extend(watch(epoch, index, &watched, told));
                }
                continue;
            }
        };
        match waited {
            Ok(event) => note(board, &watched, &event),
            Err(NvmlError::Timeout) => {}
            Err(_) => {
                set = None;
                pause(epoch, AGAIN);
            }
        }
    }
}

/// Takes note of an event, if it is an error.
fn note(board: &Board, watched: &[Watched<'_>], event: &EventData<'_>) {
    let code = match event.event_data {
        Some(XidError::Value(code)) => code,
        Some(XidError::Unknown) => UNKNOWN_XID,
        None => return,
    };
    let identity = sys::identity(&event.device);
    let source = watched.iter().find(|device| device.identity == identity);
    if let Some(Watched { uuid, .. }) = source {
        warn!("GPU {uuid} reports XID {code}");
        board.xid(uuid, code, SystemTime::now());
    }
}

/// The device of an index, if it reports errors, and is not watched already.
fn watch<'nvml>(
    epoch: &'nvml Epoch,
    index: u32,
    watched: &[Watched<'nvml>],
    told: &Told,
) -> Option<Watched<'nvml>> {
    let device = epoch.nvml.device_by_index(index).ok()?;
    let uuid = device.uuid().ok()?;
    if watched.iter().any(|device| device.uuid == uuid) {
        return None;
    }
    let reports = match device.supported_event_types() {
        Ok(types) if types.contains(EventTypes::CRITICAL_XID_ERROR) => Ok(()),
        Ok(_) => Err(NvmlError::NotSupported),
        Err(error) => Err(error),
    };
    if let Err(error) = reports {
        tell(told, &uuid, &error);
        return None;
    }
    let identity = sys::identity(&device);
    Some(Watched {
        device,
        uuid,
        identity,
    })
}

/// A set of the errors of all watched devices; those that refuse are not watched any more.
fn register<'nvml>(
    epoch: &'nvml Epoch,
    watched: &mut Vec<Watched<'nvml>>,
    told: &Told,
) -> Result<EventSet<'nvml>, NvmlError> {
    'next: loop {
        let mut set = epoch.nvml.create_event_set()?;
        for (place, Watched { device, uuid, .. }) in watched.iter().enumerate() {
            // A set that was refused is gone.
            match device.register_events(EventTypes::CRITICAL_XID_ERROR, set) {
                Ok(registered) => set = registered,
                Err(refused) => {
                    tell(told, uuid, &refused.error);
                    watched.remove(place);
                    continue 'next;
                }
            }
        }
        return Ok(set);
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
