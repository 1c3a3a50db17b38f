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

use crate::Case;

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
