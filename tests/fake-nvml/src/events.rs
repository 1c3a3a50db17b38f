//! Events: critical errors (XID), each delivered once, to a set that its device is registered in.

use std::collections::BTreeMap;
use std::ffi::{c_uint, c_ulonglong};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use nvml_wrapper_sys::bindings as nvml;

use crate::abi::{Answer, Code, Handle, Out};
use crate::call::{device_functions, system_functions};
use crate::script::Script;
use crate::state::{self, lock};

/// Between looks for a new script by one who waits, which must cost next to nothing. Other calls
/// look more often, and wake it.
const LOOK: Duration = Duration::from_secs(1);

/// An event of no MIG instance.
const NO_INSTANCE: c_uint = c_uint::MAX;

const XID: u64 = nvml::nvmlEventTypeXidCriticalError as u64;

/// An `nvmlEventSet_t`: a number, no pointer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(transparent)]
struct SetId(usize);

/// Sets by id: the devices in them, and the kinds of events that are wanted of each.
struct Sets {
    last: usize,
    sets: BTreeMap<SetId, BTreeMap<usize, u64>>,
}

static SETS: Mutex<Sets> = Mutex::new(Sets {
    last: 0,
    sets: BTreeMap::new(),
});

/// Frees all sets.
pub(crate) fn forget() {
    lock(&SETS).sets.clear();
    state::tell_change();
}

system_functions! {
    nvmlEventSetCreate(set: Out<SetId>) |_version| {
        let mut sets = lock(&SETS);
        sets.last += 1;
        let id = SetId(sets.last);
        sets.sets.insert(id, BTreeMap::new());
        set.set(id)
    };

    nvmlEventSetFree(set: SetId) |_version| {
        let freed = lock(&SETS).sets.remove(&set);
        state::tell_change();
        freed.map(drop).ok_or(Code::INVALID_ARGUMENT)
    };

    /// The script is looked at anew in between.
    nvmlEventSetWait_v2(
        set: SetId, data: Out<nvml::nvmlEventData_t>, timeout_ms: c_uint
    ) |_version| {
        let end = Instant::now() + Duration::from_millis(u64::from(timeout_ms));
        loop {
            let seen = state::changes();
            let version = state::newest();
            version.script.system.check()?;
            if let Some(event) = next(set, &version.script)? {
                return data.set(event);
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(Code::TIMEOUT);
            }
            state::wait_for_change(seen, left.min(LOOK));
        }
    };
}

device_functions! {
    nvmlDeviceRegisterEvents(types: c_ulonglong, set: SetId) |call| {
        if types & !call.gpu()?.event_types != 0 {
            return Err(Code::NOT_SUPPORTED);
        }
        let mut sets = lock(&SETS);
        let devices = sets.sets.get_mut(&set).ok_or(Code::INVALID_ARGUMENT)?;
        *devices.entry(call.index).or_default() |= types;
        Ok(())
    };

    nvmlDeviceGetSupportedEventTypes(types: Out<c_ulonglong>) |call| {
        types.set(call.gpu()?.event_types)
    };
}

/// The next event for a set, which counts as delivered.
fn next(set: SetId, script: &Script) -> Answer<Option<nvml::nvmlEventData_t>> {
    let devices = lock(&SETS).sets.get(&set).cloned();
    for (index, types) in devices.ok_or(Code::INVALID_ARGUMENT)? {
        let Some(device) = script.devices.get(index).filter(|_| types & XID != 0) else {
            continue;
        };
        if device.events.is_empty() {
            continue;
        }
        let delivered = &mut state::memory(index)?.delivered;
        let event = device
            .events
            .iter()
            .find(|event| delivered.insert(event.id));
        if let Some(event) = event {
            return Ok(Some(nvml::nvmlEventData_t {
                device: Handle::gpu(index).pointer(),
                eventType: XID,
                eventData: event.xid,
                gpuInstanceId: NO_INSTANCE,
                computeInstanceId: NO_INSTANCE,
            }));
        }
    }
    Ok(None)
}
