//! The thread that waits for critical errors (XID).

use super::{board::Board, epoch::Epoch, sys};
use nvml_wrapper::{
    Device, EventSet, bitmasks::event::EventTypes, enums::event::XidError, error::NvmlError,
};
use std::{
    sync::mpsc::Receiver,
    time::{Duration, Instant, SystemTime},
};
use tracing::warn;

/// How long one wait may last: also how long a library may be kept open that is not wanted any more.
const WAIT_MILLISECONDS: u32 = 1_000;

/// How long to leave a library alone that refuses to wait.
const PAUSE: Duration = Duration::from_secs(1);

/// The code of an error that the driver has none for (nvml.h).
const UNKNOWN_XID: u64 = 999;

/// A device whose errors are waited for.
struct Watched<'nvml> {
    device: Device<'nvml>,
    uuid: String,
    identity: usize,
}

/// Waits for errors of the devices that `found` names, until the epoch ends.
pub(super) fn run(epoch: &Epoch, board: &Board, found: &Receiver<u32>) {
    let mut watched: Vec<Watched<'_>> = Vec::new();
    let mut set: Option<EventSet<'_>> = None;
    while epoch.has_events() {
        let before = watched.len();
        for index in found.try_iter() {
            watched.extend(watch(epoch, index));
        }
        if watched.len() != before {
            set = None;
        }
        if set.is_none() {
            set = register(epoch, &mut watched);
        }
        let waited = match &set {
            Some(set) if !watched.is_empty() => set.wait(WAIT_MILLISECONDS),
            _ => {
                let _ = epoch.wait_until(Instant::now() + Duration::from_millis(50));
                continue;
            }
        };
        match waited {
            Ok(event) => {
                let code = match event.event_data {
                    Some(XidError::Value(code)) => code,
                    Some(XidError::Unknown) => UNKNOWN_XID,
                    None => continue,
                };
                let identity = sys::identity(&event.device);
                let source = watched.iter().find(|device| device.identity == identity);
                if let Some(Watched { uuid, .. }) = source {
                    warn!("GPU {uuid} reports XID {code}");
                    board.xid(uuid, code, SystemTime::now());
                }
            }
            Err(NvmlError::Timeout) => {}
            Err(_) => {
                set = None;
                let _ = epoch.wait_until(Instant::now() + PAUSE);
            }
        }
    }
}

/// The device of an index, if it reports errors.
fn watch(epoch: &Epoch, index: u32) -> Option<Watched<'_>> {
    let device = epoch.nvml.device_by_index(index).ok()?;
    let uuid = device.uuid().ok()?;
    let types = device.supported_event_types().ok()?;
    let identity = sys::identity(&device);
    types
        .contains(EventTypes::CRITICAL_XID_ERROR)
        .then_some(Watched {
            device,
            uuid,
            identity,
        })
}

/// A set of the errors of all watched devices; those that refuse are not watched any more.
fn register<'nvml>(
    epoch: &'nvml Epoch,
    watched: &mut Vec<Watched<'nvml>>,
) -> Option<EventSet<'nvml>> {
    'next: loop {
        let mut set = epoch.nvml.create_event_set().ok()?;
        for (place, Watched { device, uuid, .. }) in watched.iter().enumerate() {
            // A set that was refused is gone.
            match device.register_events(EventTypes::CRITICAL_XID_ERROR, set) {
                Ok(registered) => set = registered,
                Err(error) => {
                    warn!("XIDs of GPU {uuid} are not known: {error}");
                    watched.remove(place);
                    continue 'next;
                }
            }
        }
        return Some(set);
    }
}
