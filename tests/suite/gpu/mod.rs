//! GPUs, by a fake NVML that a test scripts.
#![expect(
    clippy::indexing_slicing,
    reason = "scripts are JSON; a test whose script lacks what it changes has to fail"
)]

mod bounds;
mod calls;
mod counters;
mod crowd;
mod dcgm;
mod ended;
mod energy;
mod faults;
mod filter;
mod hangs;
mod joined;
mod mig;
mod missing;
mod options;
mod processes;
mod readings;
mod reload;
mod sampling;
mod sources;
mod start;
mod support;
mod table;
mod watch;
mod xids;

use esnode_tests::gpu::device;
use serde_json::{Value, json};

use crate::Case;

pub(crate) use self::{mig::cut, table::full};

/// A process that holds memory of a GPU and computes, as a script has it.
pub(crate) fn holder(pid: u32) -> Value {
    support::process(pid, 1)
}

/// A GPU with these processes, as a script has it.
pub(crate) fn device_with(processes: &[Value]) -> Value {
    let mut gpu = device(0);
    support::put(&mut gpu, json!({ "processes": processes }));
    gpu
}

pub(crate) fn cases() -> Vec<Case> {
    [
        readings::cases(),
        calls::cases(),
        dcgm::cases(),
        mig::cases(),
        processes::cases(),
        joined::cases(),
        sampling::cases(),
        energy::cases(),
        ended::cases(),
        counters::cases(),
        crowd::cases(),
        bounds::cases(),
        start::cases(),
        options::cases(),
        hangs::cases(),
        faults::cases(),
        reload::cases(),
        missing::cases(),
        filter::cases(),
        xids::cases(),
    ]
    .into_iter()
    .flatten()
    .collect()
}
