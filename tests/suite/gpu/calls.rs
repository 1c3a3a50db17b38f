//! Which functions of NVML are called, and how often.

use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use esnode_tests::gpu::device;
use esnode_tests::page::Page;

use super::support::{Rig, check_value};
use super::table::full;
use crate::Case;
use crate::check::ensure_eq;

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::new("gpu::calls::none_by_a_scrape", scrapes),
        Case::new("gpu::calls::fast_and_slow_group", groups),
        Case::new("gpu::calls::slow_group_at_its_interval", slow_interval),
    ]
}

/// One call in every sample of a GPU.
const FAST: [&str; 6] = [
    "nvmlDeviceGetUtilizationRates",
    "nvmlDeviceGetPowerUsage",
    "nvmlDeviceGetTemperature",
    "nvmlDeviceGetTotalEnergyConsumption",
    "nvmlDeviceGetPerformanceState",
    "nvmlDeviceGetMemoryInfo_v2",
];

/// One call in every slow sample of a GPU.
const SLOW: [&str; 4] = [
    "nvmlDeviceGetEnforcedPowerLimit",
    "nvmlDeviceGetPcieReplayCounter",
    "nvmlDeviceGetBAR1MemoryInfo",
    "nvmlDeviceGetMaxPcieLinkWidth",
];

/// Functions that are slow on real GPUs, or tell what nobody asked for.
const NEVER: [&str; 2] = [
    "nvmlDeviceGetGraphicsRunningProcesses_v3",
    "nvmlDeviceGetPcieThroughput",
];

/// Longer than the library takes to publish its counts.
const PUBLISHED: Duration = Duration::from_millis(150);

/// Calls so far, without those of the thread that waits for events.
fn calls(rig: &Rig) -> Result<BTreeMap<String, u64>> {
    thread::sleep(PUBLISHED);
    let mut calls = rig.fake.calls()?;
    calls.remove("nvmlEventSetWait_v2");
    Ok(calls)
}

fn of(calls: &BTreeMap<String, u64>, function: &str) -> u64 {
    calls.get(function).copied().unwrap_or(0)
}

/// Calls once there are no more for a while: events are registered some time after the start.
fn settled(rig: &Rig) -> Result<BTreeMap<String, u64>> {
    let mut before = calls(rig)?;
    for _ in 0..20 {
        thread::sleep(PUBLISHED);
        let now = calls(rig)?;
        if now == before {
            return Ok(now);
        }
        before = now;
    }
    bail!("calls don't come to an end: {before:?}")
}

/// Pages come from the last sample, however many are asked for.
fn scrapes() -> Result<()> {
    let flags = [
        "--no-bpf",
        "--collectors",
        "gpu,process",
        "--gpu-interval",
        "5s",
        "--dcgm-names",
    ];
    let rig = Rig::start_with(&[full(0), full(1)], &flags)?;
    let age = |page: &Page| {
        let ages = page.select("esnode_gpu_sample_age_seconds", &[]);
        let oldest = ages.iter().map(|sample| sample.value);
        oldest.reduce(f64::min).context("no GPU was sampled")
    };
    for _ in 0..4 {
        let before = settled(&rig)?;
        let first = age(&rig.page()?)?;
        for _ in 0..20 {
            let page = rig.page()?;
            check_value(
                &page,
                "esnode_gpu_power_watts",
                &[("gpu", "0")],
                Some(345.678),
            )?;
        }
        let after = calls(&rig)?;
        // Without a sample in between, the page got older all the time.
        if age(&rig.page()?)? > first {
            ensure!(of(&before, "nvmlDeviceGetPowerUsage") > 0, "{before:?}");
            ensure_eq!(after, before, "calls after 20 scrapes");
            return Ok(());
        }
    }
    bail!("never 20 scrapes between two samples")
}

/// Waits until the first GPU was sampled so often.
fn sampled(rig: &Rig, times: u64) -> Result<BTreeMap<String, u64>> {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let calls = calls(rig)?;
        if of(&calls, "nvmlDeviceGetPowerUsage") >= times {
            return Ok(calls);
        }
        ensure!(Instant::now() < deadline, "sampled too seldom: {calls:?}");
    }
}

/// What changes seldom is asked for once in 30 s, the rest every time.
fn groups() -> Result<()> {
    let rig = Rig::start(&[full(0)], &[])?;
    let start = Instant::now();
    let calls = sampled(&rig, 10)?;
    ensure!(
        start.elapsed() < Duration::from_secs(25),
        "too slow to tell"
    );
    let samples = of(&calls, "nvmlDeviceGetPowerUsage");
    for function in FAST {
        let seen = of(&calls, function);
        ensure!(
            seen.abs_diff(samples) <= 1,
            "{seen} of {function} in {samples} samples"
        );
    }
    for function in SLOW {
        ensure_eq!(of(&calls, function), 1, "{function} in {samples} samples");
    }
    ensure_eq!(
        of(&calls, "nvmlDeviceGetTotalEccErrors"),
        4,
        "kinds and scopes of errors"
    );
    for function in NEVER {
        ensure_eq!(of(&calls, function), 0, "{function}");
    }
    Ok(())
}

/// The intervals are those of the flags.
fn slow_interval() -> Result<()> {
    let rig = Rig::start(&[device(0)], &["--gpu-slow-interval", "500ms"])?;
    let start = Instant::now();
    let first = sampled(&rig, 1)?;
    let calls = sampled(&rig, 16)?;
    let elapsed = start.elapsed().as_millis();
    let samples = of(&calls, "nvmlDeviceGetPowerUsage") - of(&first, "nvmlDeviceGetPowerUsage");
    // One more for each end of the time.
    ensure!(
        u128::from(samples) <= elapsed / 100 + 2,
        "{samples} samples in {elapsed} ms"
    );
    for function in SLOW {
        let seen = u128::from(of(&calls, function));
        let all = u128::from(of(&calls, "nvmlDeviceGetPowerUsage"));
        // It waits for the first sample after the interval, so it's never more often.
        ensure!(
            seen <= all.div_ceil(5),
            "{seen} of {function} in {all} samples"
        );
        ensure!(
            seen >= 3,
            "{seen} of {function} in {all} samples and {elapsed} ms"
        );
    }
    Ok(())
}
