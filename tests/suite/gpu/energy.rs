//! Who used the energy of a GPU: shares, and what is left. Every page that a [`Rig`] reads has to
//! hold to conservation, and no counter may fall.

use anyhow::Result;
use esnode_tests::page::Page;
use esnode_tests::workload::{Name, Workload};
use serde_json::{Value, json};

use super::support::{
    DEVICE_ENERGY, GROUP_ENERGY, NOBODYS_ENERGY, PROCESS_ENERGY, Rig, check_value, energy, gpu,
    process, put, workers,
};
use crate::Case;
use crate::check::ensure_eq;

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::new("gpu::energy::shares_are_exact", shares),
        Case::new("gpu::energy::more_than_the_whole", more_than_whole),
        Case::new("gpu::energy::unknown_process", unknown_process),
        Case::new("gpu::energy::before_the_agent", before_agent),
        Case::new("gpu::energy::counter_begins_anew", counter_reset),
        Case::new("gpu::energy::late_samples", late_samples),
        Case::new("gpu::energy::sampling_was_switched_off", switched_off),
    ]
}

pub(crate) const UTILIZATION: &str = "esnode_process_gpu_utilization_percent";

/// Waits until workers compute in whole intervals as scripted.
pub(crate) fn settled(rig: &Rig, workers: &[(&Workload, f64)]) -> Result<Page> {
    rig.until(|page| {
        for (worker, percent) in workers {
            let pid = worker.pid().to_string();
            let labels = [("pid", pid.as_str()), ("engine_type", "sm")];
            check_value(page, UTILIZATION, &labels, Some(*percent))?;
        }
        Ok(())
    })
}

/// Lets a GPU use energy in one interval: its counter is at so many mJ after that.
pub(crate) fn use_energy(rig: &Rig, index: usize, millijoules: u32) -> Result<Page> {
    rig.put(index, json!({ "energy_millijoules": millijoules }))?;
    let labels = [("gpu", &*index.to_string())];
    rig.until_value(DEVICE_ENERGY, &labels, f64::from(millijoules) / 1e3)
}

/// µJ of processes, of groups, and of nobody for a reason.
pub(crate) fn of_process(page: &Page, worker: &Workload) -> i64 {
    energy(page, PROCESS_ENERGY, &[("pid", &worker.pid().to_string())])
}

pub(crate) fn of_group(page: &Page, name: &Name) -> i64 {
    energy(page, GROUP_ENERGY, &[("group", &name.comm)])
}

pub(crate) fn of_nobody(page: &Page, reason: &str) -> i64 {
    energy(page, NOBODYS_ENERGY, &[("reason", reason)])
}

/// In whole µJ, as the driver's mJ don't divide evenly.
fn shares() -> Result<()> {
    let [(first, one), (second, two)] = workers(["half", "third"])?;
    let both = [process(one.pid(), 50), process(two.pid(), 33)];
    let rig = Rig::start(&[gpu(0, &both), gpu(1, &[process(two.pid(), 7)])], &[])?;
    settled(&rig, &[(&one, 50.0)])?;
    let mut idle = 0;
    for (millijoules, gain) in [
        (10_000, 10_000),
        (10_001, 1),
        (10_004, 3),
        (723_456, 713_452),
    ] {
        let page = use_energy(&rig, 0, millijoules)?;
        let total = i64::from(millijoules);
        ensure_eq!(of_process(&page, &one), total * 500, "µJ of a half");
        ensure_eq!(of_process(&page, &two), total * 330, "µJ of a third");
        idle += gain * 170;
        ensure_eq!(of_nobody(&page, "idle"), idle, "µJ of nobody");
        ensure_eq!(
            of_group(&page, &first),
            total * 500,
            "µJ of the first group"
        );
        ensure_eq!(
            of_group(&page, &second),
            total * 330,
            "µJ of the second group"
        );
    }
    // Each GPU by itself.
    let page = use_energy(&rig, 1, 1_000)?;
    let on_second = [("pid", &*two.pid().to_string()), ("gpu", "1")];
    ensure_eq!(
        energy(&page, PROCESS_ENERGY, &on_second),
        70_000,
        "µJ on the other GPU"
    );
    // While no process ends, processes and nobody have it all.
    for gpu in ["0", "1"] {
        let labels = [("gpu", gpu)];
        let parts = energy(&page, PROCESS_ENERGY, &labels) + energy(&page, NOBODYS_ENERGY, &labels);
        ensure_eq!(
            parts,
            energy(&page, DEVICE_ENERGY, &labels),
            "µJ of GPU {gpu}"
        );
    }
    Ok(())
}

/// Several samples may add up to more than there is time; then nothing is idle.
fn more_than_whole() -> Result<()> {
    let [(_, one), (_, two), (_, three)] = workers(["many", "many", "many"])?;
    let all = [
        process(one.pid(), 90),
        process(two.pid(), 60),
        process(three.pid(), 50),
    ];
    let rig = Rig::start(&[gpu(0, &all)], &[])?;
    settled(&rig, &[(&one, 90.0), (&two, 60.0), (&three, 50.0)])?;
    let page = use_energy(&rig, 0, 1_000)?;
    ensure_eq!(of_process(&page, &one), 450_000, "µJ");
    ensure_eq!(of_process(&page, &two), 300_000, "µJ");
    ensure_eq!(of_process(&page, &three), 250_000, "µJ");
    ensure_eq!(of_nobody(&page, "idle"), 0, "µJ");
    Ok(())
}

fn unknown_process() -> Result<()> {
    let [(_, worker)] = workers(["known"])?;
    let rig = Rig::start(
        &[gpu(0, &[process(worker.pid(), 50), process(4_200_000, 25)])],
        &[],
    )?;
    settled(&rig, &[(&worker, 50.0)])?;
    let page = use_energy(&rig, 0, 8_000)?;
    ensure_eq!(of_process(&page, &worker), 4_000_000, "µJ of the worker");
    ensure_eq!(
        of_nobody(&page, "unknown_process"),
        2_000_000,
        "µJ of a process that isn't there"
    );
    ensure_eq!(of_nobody(&page, "idle"), 2_000_000, "µJ of nobody");
    Ok(())
}

/// What the counter says at first was used before anyone looked; an agent that is started later
/// finds more there.
fn before_agent() -> Result<()> {
    let [(_, worker)] = workers(["before"])?;
    let mut device = gpu(0, &[process(worker.pid(), 100)]);
    put(&mut device, json!({ "energy_millijoules": 5_000 }));
    let rig = Rig::start(std::slice::from_ref(&device), &[])?;
    settled(&rig, &[(&worker, 100.0)])?;
    let page = use_energy(&rig, 0, 7_000)?;
    ensure_eq!(of_nobody(&page, "before_agent"), 5_000_000, "µJ before");
    ensure_eq!(of_process(&page, &worker), 2_000_000, "µJ since");
    put(&mut device, json!({ "energy_millijoules": 7_000 }));
    let page = Rig::start(&[device], &[])?.page()?;
    ensure_eq!(
        of_nobody(&page, "before_agent"),
        7_000_000,
        "µJ before another agent"
    );
    ensure_eq!(of_process(&page, &worker), 0, "µJ since");
    Ok(())
}

/// The driver's counter begins anew, as when the device was reset: ours goes on.
fn counter_reset() -> Result<()> {
    let [(_, worker)] = workers(["reset"])?;
    let mut device = gpu(0, &[process(worker.pid(), 50)]);
    put(&mut device, json!({ "energy_millijoules": 9_000_000 }));
    let rig = Rig::start(&[device], &[])?;
    settled(&rig, &[(&worker, 50.0)])?;
    use_energy(&rig, 0, 9_004_000)?;
    rig.put(0, json!({ "energy_millijoules": 3_000 }))?;
    let page = rig.until_value(DEVICE_ENERGY, &[], 9_007.0)?;
    ensure_eq!(of_process(&page, &worker), 3_500_000, "µJ of the worker");
    rig.put(0, json!({ "energy_millijoules": 5_000 }))?;
    let page = rig.until_value(DEVICE_ENERGY, &[], 9_009.0)?;
    ensure_eq!(of_process(&page, &worker), 4_500_000, "µJ of the worker");
    ensure_eq!(of_nobody(&page, "before_agent"), 9_000_000_000, "µJ before");
    Ok(())
}

/// The driver fails to say who computed: what was used waits for the next samples, which are of
/// that time as well.
fn late_samples() -> Result<()> {
    let [(_, one), (_, two)] = workers(["late", "late"])?;
    let both = [process(one.pid(), 40), process(two.pid(), 10)];
    let rig = Rig::start(&[gpu(0, &both)], &[])?;
    settled(&rig, &[(&one, 40.0), (&two, 10.0)])?;
    let failing = |error: Value| json!({ "nvmlDeviceGetProcessUtilization": error });
    rig.put(
        0,
        json!({ "calls": failing(json!({ "error": "UNKNOWN" })), "energy_millijoules": 6_000 }),
    )?;
    for _ in 0..3 {
        rig.next_sample()?;
    }
    let page = rig.next_sample()?;
    for name in [DEVICE_ENERGY, PROCESS_ENERGY, NOBODYS_ENERGY] {
        ensure_eq!(
            energy(&page, name, &[]),
            0,
            "µJ that were shared without samples: {name}"
        );
    }
    // What they did some time ago isn't what they do.
    rig.until(|page| check_value(page, UTILIZATION, &[], None))?;
    rig.put(0, json!({ "calls": {}, "energy_millijoules": 10_000 }))?;
    let page = rig.until_value(DEVICE_ENERGY, &[], 10.0)?;
    ensure_eq!(of_process(&page, &one), 4_000_000, "µJ of one");
    ensure_eq!(of_process(&page, &two), 1_000_000, "µJ of the other");
    ensure_eq!(of_nobody(&page, "idle"), 5_000_000, "µJ of nobody");
    let lines = rig.agent.log.lines();
    let told = lines
        .iter()
        .filter(|line| line.contains("process_utilization"));
    ensure_eq!(
        told.count(),
        2,
        "lines of the log, one when it failed and one when it worked: {lines:#?}"
    );
    Ok(())
}

/// The driver stops to sample processes, as it does when MIG is switched on: what they have stays.
fn switched_off() -> Result<()> {
    let [(_, worker)] = workers(["had"])?;
    let rig = Rig::start(&[gpu(0, &[process(worker.pid(), 40)])], &[])?;
    settled(&rig, &[(&worker, 40.0)])?;
    use_energy(&rig, 0, 10_000)?;
    let refused = json!({ "error": "NOT_SUPPORTED" });
    rig.put(0, json!({ "calls": {
        "nvmlDeviceGetProcessUtilization": refused, "nvmlDeviceGetProcessesUtilizationInfo": refused,
    }}))?;
    rig.until(|page| check_value(page, UTILIZATION, &[], None))?;
    let page = use_energy(&rig, 0, 30_000)?;
    ensure_eq!(of_process(&page, &worker), 4_000_000, "µJ of the worker");
    ensure_eq!(
        of_nobody(&page, "no_samples"),
        20_000_000,
        "µJ without samples"
    );
    Ok(())
}
