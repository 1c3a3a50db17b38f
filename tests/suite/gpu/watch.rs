//! Busy GPUs, and what every page has to say of them while something else goes wrong.

use std::collections::BTreeSet;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use esnode_tests::agent::Agent;
use esnode_tests::gpu::{device, uuid};
use esnode_tests::page::Page;
use serde_json::{Value, json};

use super::support::{DEVICE_ENERGY, Rig, check_value, process};
use crate::check::{ensure_eq, within_grace};

/// Flags for tests that wait for something. What changes seldom is read as often as the rest.
pub(super) const FLAGS: [&str; 7] = [
    "--no-bpf",
    "--collectors",
    "gpu,process",
    "--gpu-interval",
    "200ms",
    "--gpu-slow-interval",
    "200ms",
];

/// Flags for tests in which no sample may be older than three intervals, on a machine that others
/// use as well.
pub(super) const CALM: [&str; 7] = [
    "--no-bpf",
    "--collectors",
    "gpu,process",
    "--gpu-interval",
    "400ms",
    "--gpu-slow-interval",
    "400ms",
];

/// Seconds between samples with [`CALM`].
pub(super) const INTERVAL: f64 = 0.4;

/// Fails where not so many lines of the log have these words; they may come somewhat later than
/// what the page says.
pub(super) fn check_lines(agent: &Agent, words: &str, expected: usize) -> Result<()> {
    within_grace(|| {
        let lines = agent.log.lines();
        let count = lines.iter().filter(|line| line.contains(words)).count();
        ensure_eq!(count, expected, "lines with {words:?}");
        Ok(())
    })
}

/// A GPU that is busy for this test's own process.
pub(super) fn busy(index: u8, percent: u32) -> Value {
    let mut gpu = device(index);
    gpu["utilization"] = json!({ "gpu": percent, "memory": 10 });
    gpu["energy_millijoules"] = json!(5_000_000);
    gpu["processes"] = json!([process(std::process::id(), 50)]);
    gpu["sample_period_ms"] = json!(50);
    gpu["fields"]["197"] = json!({ "u64": 1_000_000 });
    gpu
}

/// Fails where a GPU isn't sampled as it should be, as an agent with [`CALM`] does.
pub(super) fn check_fresh(page: &Page, index: u8, percent: f64) -> Result<()> {
    let uuid = uuid(index);
    let labels = [("uuid", uuid.as_str())];
    check_value(page, "esnode_gpu_up", &labels, Some(1.0))?;
    check_value(
        page,
        "esnode_gpu_utilization_percent",
        &labels,
        Some(percent),
    )?;
    let age = page.value("esnode_gpu_sample_age_seconds", &labels);
    ensure!(
        age.is_some_and(|age| age < 3.0 * INTERVAL),
        "GPU {index} was sampled {age:?} s ago"
    );
    Ok(())
}

/// Families with series of a GPU.
pub(super) fn families_of<'a>(page: &'a Page, uuid: &str) -> BTreeSet<&'a str> {
    let samples = page.samples();
    let of_gpu = samples.filter(|sample| sample.has(&[("uuid", uuid)]));
    of_gpu.map(|sample| sample.name.as_str()).collect()
}

/// What stays of a GPU that isn't sampled: who it is, how old its sample is, and what was counted
/// here.
pub(super) const STAYING: [&str; 8] = [
    "esnode_gpu_energy_joules_total",
    "esnode_gpu_info",
    "esnode_gpu_sample_age_seconds",
    "esnode_gpu_up",
    "esnode_gpu_xid_errors_total",
    "esnode_gpu_xid_last_time_seconds",
    "esnode_group_gpu_energy_joules_total",
    "esnode_process_gpu_energy_joules_total",
];

/// Fails where more or less than that is left of a GPU.
pub(super) fn check_only_counters(page: &Page, uuid: &str) -> Result<()> {
    let mut expected = BTreeSet::from(STAYING);
    expected.insert("esnode_unattributed_gpu_energy_joules_total");
    ensure_eq!(families_of(page, uuid), expected, "families of {uuid}");
    check_value(page, "esnode_gpu_up", &[("uuid", uuid)], Some(0.0))
}

/// Reads pages for a time; fails where they take long, or one isn't as it should be.
pub(super) fn watch(
    rig: &Rig,
    time: Duration,
    check: impl Fn(&Page, Duration) -> Result<()>,
) -> Result<Page> {
    let begun = Instant::now();
    let mut times = Vec::new();
    loop {
        let asked = Instant::now();
        let page = rig.page()?;
        times.push(asked.elapsed());
        let since = begun.elapsed();
        check(&page, since)?;
        if since > time {
            // A machine that is busy may be late with some; what hangs here does so for 30 s.
            times.sort();
            let most = times.get(times.len() * 4 / 5).or(times.last());
            ensure!(
                most < Some(&Duration::from_millis(500)),
                "pages took {times:?}"
            );
            ensure!(
                times.last() < Some(&Duration::from_secs(3)),
                "pages took {times:?}"
            );
            return Ok(page);
        }
        thread::sleep(Duration::from_millis(20));
    }
}

/// Two busy GPUs that had an error each, and have used energy.
pub(super) fn two_busy() -> Result<Rig> {
    let [mut first, mut second] = [busy(0, 40), busy(1, 60)];
    for gpu in [&mut first, &mut second] {
        gpu["events"] = json!([{ "xid": 79, "id": 1 }]);
    }
    let rig = Rig::start_with(&[first, second], &CALM)?;
    rig.next_sample()?;
    for index in 0..2 {
        rig.put(index, json!({ "energy_millijoules": 5_400_000 }))?;
    }
    rig.until(|page| {
        for uuid in [uuid(0), uuid(1)] {
            let labels = [("uuid", uuid.as_str())];
            check_value(page, "esnode_gpu_xid_errors_total", &labels, Some(1.0))?;
            check_value(page, DEVICE_ENERGY, &labels, Some(5400.0))?;
        }
        Ok(())
    })?;
    Ok(rig)
}
