//! The driver's samples of processes: which count, how often, and where they come from.

use anyhow::{Result, ensure};
use esnode_tests::gpu::{FakeNvml, host};
use serde_json::json;

use super::support::{
    DEVICE_ENERGY, NOBODYS_ENERGY, PROCESS_ENERGY, QUICK, Rig, SELDOM, check_value, gpu, process,
    put, workers,
};
use crate::Case;
use crate::check::ensure_eq;

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::new("gpu::sampling::nothing_new_is_no_error", nothing_new),
        Case::new("gpu::sampling::impossible_samples_are_dropped", impossible),
        Case::new("gpu::sampling::mean_of_an_interval", mean),
        Case::new("gpu::sampling::periods_without_a_sample", pauses),
        Case::new("gpu::sampling::driver_that_samples_seldom", seldom_sampled),
        Case::new("gpu::sampling::a_sample_counts_once", once),
        Case::new("gpu::sampling::last_seen_by_device", last_seen),
        Case::new("gpu::sampling::samples_of_before_the_agent", before_agent),
        Case::new("gpu::sampling::beyond_the_list", beyond_the_list),
        Case::new("gpu::sampling::newer_function", newer_function),
        Case::new("gpu::sampling::neither_function", neither_function),
    ]
}

const UTILIZATION: &str = "esnode_process_gpu_utilization_percent";

/// The driver answers NOT_FOUND while nobody computes: utilisation is 0, and the log silent.
fn nothing_new() -> Result<()> {
    let [(name, worker)] = workers(["idle"])?;
    let rig = Rig::start(&[gpu(0, &[process(worker.pid(), 0)])], &[])?;
    let before = rig.agent.log.lines();
    // That there is no sample of a second tells that nothing was done in it.
    rig.until_value(UTILIZATION, &[], 0.0)?;
    for _ in 0..4 {
        let page = rig.next_sample()?;
        for engine in ["sm", "memory", "encoder", "decoder"] {
            let labels = [("comm", name.comm.as_str()), ("engine_type", engine)];
            check_value(&page, UTILIZATION, &labels, Some(0.0))?;
        }
        check_value(&page, PROCESS_ENERGY, &[("comm", &name.comm)], Some(0.0))?;
        check_value(
            &page,
            "esnode_collector_success",
            &[("collector", "gpu")],
            Some(1.0),
        )?;
    }
    ensure_eq!(rig.agent.log.lines(), before, "the log");
    // What is used while nobody computes is idle.
    rig.put(0, json!({ "energy_millijoules": 3_000 }))?;
    let page = rig.until_value(DEVICE_ENERGY, &[], 3.0)?;
    check_value(&page, NOBODYS_ENERGY, &[("reason", "idle")], Some(3.0))
}

/// Entries that say more than 100 % of anything mean nothing, whatever else they say.
fn impossible() -> Result<()> {
    let [(one_name, one), (two_name, two)] = workers(["right", "wrong"])?;
    let rig = Rig::start(
        &[gpu(0, &[process(one.pid(), 0), process(two.pid(), 0)])],
        &[],
    )?;
    rig.next_sample()?;
    let (one, two) = (one.pid(), two.pid());
    rig.put(
        0,
        json!({
            "energy_millijoules": 10_000,
            "samples": [
                { "pid": one, "age_ms": 0, "sm": 40, "mem": 7 },
                { "pid": one, "age_ms": 1, "sm": 101 },
                { "pid": one, "age_ms": 1, "sm": 50, "mem": 4_294_967_295_u32 },
                { "pid": two, "age_ms": 0, "sm": 4_294_967_295_u32 },
                { "pid": two, "age_ms": 0, "sm": 60, "dec": 255 },
            ],
        }),
    )?;
    let page = rig.until_value(DEVICE_ENERGY, &[], 10.0)?;
    check_value(
        &page,
        PROCESS_ENERGY,
        &[("comm", &one_name.comm)],
        Some(4.0),
    )?;
    check_value(
        &page,
        PROCESS_ENERGY,
        &[("comm", &two_name.comm)],
        Some(0.0),
    )?;
    for sample in page.select(UTILIZATION, &[]) {
        ensure!(sample.value <= 100.0, "{sample:?}");
    }
    Ok(())
}

/// Samples of an interval count alike; a process without one in a period did nothing in that.
fn mean() -> Result<()> {
    let [(steady_name, steady), (short_name, short)] = workers(["steady", "short"])?;
    let mut device = gpu(0, &[process(steady.pid(), 50), process(short.pid(), 0)]);
    put(&mut device, json!({ "sample_period_ms": 50 }));
    let rig = Rig::start_with(&[device], &SELDOM)?;
    let sm = [("comm", steady_name.comm.as_str()), ("engine_type", "sm")];
    rig.until_value(UTILIZATION, &sm, 50.0)?;
    rig.next_sample()?;
    let samples = json!([{ "pid": short.pid(), "age_ms": 0, "sm": 100 }]);
    rig.put(
        0,
        json!({ "energy_millijoules": 10_000, "samples": samples }),
    )?;
    let page = rig.until_value(DEVICE_ENERGY, &[], 10.0)?;
    check_value(
        &page,
        PROCESS_ENERGY,
        &[("comm", &steady_name.comm)],
        Some(5.0),
    )?;
    // One of ten periods, or of nine to twelve.
    let seen = page.value(PROCESS_ENERGY, &[("comm", &short_name.comm)]);
    ensure!(
        seen.is_some_and(|joules| (0.8..1.2).contains(&joules)),
        "{seen:?} J"
    );
    Ok(())
}

/// The driver has no sample of a period in which nobody did anything: such a period counts too.
fn pauses() -> Result<()> {
    let [(name, worker)] = workers(["pauses"])?;
    let mut device = gpu(0, &[process(worker.pid(), 60)]);
    put(&mut device, json!({ "sample_period_ms": 50 }));
    let rig = Rig::start_with(&[device], &SELDOM)?;
    let sm = [("comm", name.comm.as_str()), ("engine_type", "sm")];
    rig.until_value(UTILIZATION, &sm, 60.0)?;
    // How often the driver samples, is seen in an interval without a pause.
    rig.next_sample()?;
    rig.put(0, json!({ "processes": [process(worker.pid(), 0)] }))?;
    rig.next_sample()?;
    let samples = json!([{ "pid": worker.pid(), "age_ms": 0, "sm": 60 }]);
    rig.put(
        0,
        json!({ "energy_millijoules": 10_000, "samples": samples }),
    )?;
    let page = rig.until_value(DEVICE_ENERGY, &[], 10.0)?;
    // Busy in one of ten periods, or of some more if there was no sample in an interval.
    let seen = page.value(PROCESS_ENERGY, &[("comm", &name.comm)]);
    ensure!(
        seen.is_some_and(|joules| (0.1..0.8).contains(&joules)),
        "{seen:?} J"
    );
    Ok(())
}

/// Where the agent looks more often than the driver samples, energy waits for the next sample.
fn seldom_sampled() -> Result<()> {
    let [(name, worker)] = workers(["seldom"])?;
    let mut device = gpu(0, &[process(worker.pid(), 50)]);
    put(&mut device, json!({ "sample_period_ms": 350 }));
    let rig = Rig::start(&[device], &[])?;
    let sm = [("comm", name.comm.as_str()), ("engine_type", "sm")];
    rig.until_value(UTILIZATION, &sm, 50.0)?;
    for millijoules in [1_000, 2_000, 3_000, 4_000] {
        rig.put(0, json!({ "energy_millijoules": millijoules }))?;
        let page = rig.until_value(DEVICE_ENERGY, &[], f64::from(millijoules) / 1e3)?;
        let half = f64::from(millijoules) / 2e3;
        check_value(&page, PROCESS_ENERGY, &[("comm", &name.comm)], Some(half))?;
        check_value(&page, UTILIZATION, &sm, Some(50.0))?;
    }
    Ok(())
}

/// The driver keeps samples for ten seconds, and gives them to whoever asks for older ones; they
/// tell of one interval alone.
fn once() -> Result<()> {
    let [(name, worker)] = workers(["once"])?;
    let rig = Rig::start(&[gpu(0, &[process(worker.pid(), 50)])], &[])?;
    let sm = [("comm", name.comm.as_str()), ("engine_type", "sm")];
    rig.until_value(UTILIZATION, &sm, 50.0)?;
    rig.put(0, json!({ "energy_millijoules": 10_000 }))?;
    rig.until_value(PROCESS_ENERGY, &[("comm", &name.comm)], 5.0)?;
    rig.put(0, json!({ "processes": [process(worker.pid(), 0)] }))?;
    rig.until_value(UTILIZATION, &sm, 0.0)?;
    // Far more energy, and the samples are still in the driver's queue.
    rig.put(0, json!({ "energy_millijoules": 90_000 }))?;
    let page = rig.until_value(DEVICE_ENERGY, &[], 90.0)?;
    check_value(&page, PROCESS_ENERGY, &[("comm", &name.comm)], Some(5.0))?;
    check_value(&page, UTILIZATION, &sm, Some(0.0))
}

/// Each GPU has its own queue: a sample isn't old because another GPU had a newer one.
fn last_seen() -> Result<()> {
    let [(name, worker)] = workers(["twogpus"])?;
    let pid = worker.pid();
    let listed = [process(pid, 0)];
    let rig = Rig::start(&[gpu(0, &listed), gpu(1, &listed)], &[])?;
    rig.next_sample()?;
    // So that the sample below is of after the start.
    std::thread::sleep(std::time::Duration::from_millis(300));
    let energy_of = |index| [("comm", name.comm.as_str()), ("gpu", index)];
    rig.put(
        0,
        json!({ "energy_millijoules": 10_000, "samples": [{ "pid": pid, "age_ms": 0, "sm": 60 }] }),
    )?;
    rig.until_value(PROCESS_ENERGY, &energy_of("0"), 6.0)?;
    rig.put(1, json!({ "energy_millijoules": 10_000, "samples": [{ "pid": pid, "age_ms": 250, "sm": 30 }] }))?;
    let page = rig.until_value(DEVICE_ENERGY, &[("gpu", "1")], 10.0)?;
    check_value(&page, PROCESS_ENERGY, &energy_of("1"), Some(3.0))?;
    check_value(&page, PROCESS_ENERGY, &energy_of("0"), Some(6.0))
}

/// What the queue has of before the agent tells nothing of its first interval.
fn before_agent() -> Result<()> {
    let [(name, worker)] = workers(["early"])?;
    let mut device = gpu(0, &[process(worker.pid(), 0)]);
    let samples = json!([{ "pid": worker.pid(), "age_ms": 5_000, "sm": 90 }]);
    put(
        &mut device,
        json!({ "energy_millijoules": 5_000, "samples": samples }),
    );
    let rig = Rig::start(&[device.clone()], &[])?;
    // The fake counts the age from when a script came.
    put(&mut device, json!({ "energy_millijoules": 8_000 }));
    rig.put(0, device)?;
    let page = rig.until_value(DEVICE_ENERGY, &[], 8.0)?;
    let sm = [("comm", name.comm.as_str()), ("engine_type", "sm")];
    check_value(&page, UTILIZATION, &sm, Some(0.0))?;
    check_value(&page, PROCESS_ENERGY, &[], Some(0.0))?;
    check_value(
        &page,
        NOBODYS_ENERGY,
        &[("reason", "before_agent")],
        Some(5.0),
    )?;
    check_value(&page, NOBODYS_ENERGY, &[("reason", "idle")], Some(3.0))
}

/// A process that computes without being in the list of those that do, as one of graphics.
fn beyond_the_list() -> Result<()> {
    let [(name, worker)] = workers(["drawing"])?;
    let rig = Rig::start(&[gpu(0, &[])], &[])?;
    rig.next_sample()?;
    let samples = json!([{ "pid": worker.pid(), "age_ms": 0, "sm": 50 }]);
    rig.put(
        0,
        json!({ "energy_millijoules": 2_000, "samples": samples }),
    )?;
    let page = rig.until_value(DEVICE_ENERGY, &[], 2.0)?;
    check_value(&page, PROCESS_ENERGY, &[("comm", &name.comm)], Some(1.0))?;
    check_value(&page, "esnode_process_gpu_memory_used_bytes", &[], None)?;
    check_value(&page, "esnode_gpu_processes", &[], Some(0.0))?;
    check_value(&page, "esnode_gpu_unknown_processes", &[], Some(0.0))
}

/// Newer parts refuse the older function, and newer libraries may lack it.
fn newer_function() -> Result<()> {
    const PLAIN: &str = "nvmlDeviceGetProcessUtilization";
    let [(name, worker)] = workers(["newer"])?;
    for refused in [Some("NOT_SUPPORTED"), None] {
        let mut script = host(&[gpu(0, &[process(worker.pid(), 35)])]);
        let mut fake = FakeNvml::new(&script)?;
        if let Some(error) = refused {
            script["calls"] = json!({ PLAIN: { "error": error } });
            fake.set(&script)?;
        } else {
            fake = fake.without_symbols(&[PLAIN])?;
        }
        let rig = Rig::of(fake, script, &QUICK)?;
        let sm = [("comm", name.comm.as_str()), ("engine_type", "sm")];
        rig.until_value(UTILIZATION, &sm, 35.0)?;
        rig.put(0, json!({ "energy_millijoules": 4_000 }))?;
        rig.until_value(PROCESS_ENERGY, &[("comm", &name.comm)], 1.4)?;
        let lines = rig.agent.log.lines();
        let told = lines
            .iter()
            .any(|line| line.contains("process_utilization"));
        ensure!(!told, "nothing is missing: {lines:#?}");
    }
    Ok(())
}

/// Where processes aren't sampled, how much they compute isn't known, and nobody gets energy.
fn neither_function() -> Result<()> {
    let [(name, worker)] = workers(["unseen"])?;
    let script = host(&[gpu(0, &[process(worker.pid(), 35)])]);
    let fake = FakeNvml::new(&script)?.without_symbols(&[
        "nvmlDeviceGetProcessUtilization",
        "nvmlDeviceGetProcessesUtilizationInfo",
    ])?;
    let rig = Rig::of(fake, script, &QUICK)?;
    rig.next_sample()?;
    rig.put(0, json!({ "energy_millijoules": 4_000 }))?;
    let page = rig.until_value(DEVICE_ENERGY, &[], 4.0)?;
    check_value(
        &page,
        NOBODYS_ENERGY,
        &[("reason", "no_samples")],
        Some(4.0),
    )?;
    check_value(&page, UTILIZATION, &[], None)?;
    check_value(&page, PROCESS_ENERGY, &[], None)?;
    check_value(&page, "esnode_group_gpu_utilization_percent", &[], None)?;
    let memory = "esnode_process_gpu_memory_used_bytes";
    check_value(
        &page,
        memory,
        &[("comm", &name.comm)],
        Some(1_073_741_824.0),
    )?;
    let lines = rig.agent.log.lines();
    let told = lines
        .iter()
        .filter(|line| line.contains("process_utilization"));
    ensure_eq!(told.count(), 1, "lines about it in {lines:#?}");
    Ok(())
}
