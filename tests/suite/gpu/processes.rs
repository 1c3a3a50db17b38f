//! Processes on GPUs: who they are, their memory, how much they compute, and everything else that
//! is known of them beside that.

use anyhow::{Result, ensure};
use esnode_tests::gpu::uuid;
use esnode_tests::page::Page;
use esnode_tests::workload::Workload;
use nix::unistd::gettid;
use serde_json::json;

use super::support::{Rig, check_value, gpu, process, put, workers};
use crate::Case;
use crate::check::ensure_eq;

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::new("gpu::processes::memory_and_engines_by_gpu", by_gpu),
        Case::new("gpu::processes::unknown_memory_is_absent", unknown_memory),
        Case::new("gpu::processes::only_those_of_proc", only_known),
        Case::new("gpu::processes::two_contexts_of_one", two_contexts),
        Case::new("gpu::processes::off_the_gpu_but_alive", off_the_gpu),
    ]
}

const MEMORY: &str = "esnode_process_gpu_memory_used_bytes";
const UTILIZATION: &str = "esnode_process_gpu_utilization_percent";
const GROUP_MEMORY: &str = "esnode_group_gpu_memory_used_bytes";
const GROUP_UTILIZATION: &str = "esnode_group_gpu_utilization_percent";

/// A larger process id than the kernel ever gives.
const NOBODY: u32 = 4_200_000;

/// Fails where a process doesn't use the engines of a GPU like this: SM, memory, encoder, decoder.
pub(crate) fn check_engines(
    page: &Page,
    labels: &[(&str, &str)],
    expected: [f64; 4],
) -> Result<()> {
    let engines = ["sm", "memory", "encoder", "decoder"];
    for (engine, percent) in engines.into_iter().zip(expected) {
        let labels = [labels, &[("engine_type", engine)]].concat();
        check_value(page, UTILIZATION, &labels, Some(percent))?;
    }
    ensure_eq!(
        page.select(UTILIZATION, labels).len(),
        4,
        "engines of {labels:?}"
    );
    Ok(())
}

/// One worker on two GPUs, and one on the second of them alone.
fn by_gpu() -> Result<()> {
    let [(first, one), (second, two)] = workers(["both", "single"])?;
    let entry = |worker: &Workload, memory: u64, sm: u32| json!({ "pid": worker.pid(), "memory": memory, "sm": sm, "mem": sm + 1, "enc": sm + 2, "dec": sm + 3 });
    let rig = Rig::start(
        &[
            gpu(0, &[entry(&one, 1_001, 10)]),
            gpu(1, &[entry(&one, 2_002, 20), entry(&two, 3_003, 30)]),
        ],
        &[],
    )?;
    let pids = [one.pid().to_string(), two.pid().to_string()];
    let uuids = [uuid(0), uuid(1)];
    let page = rig.until(|page| {
        for (pid, name, gpu, place, memory, sm) in [
            (&pids[0], &first, "0", 0, 1_001.0, 10.0),
            (&pids[0], &first, "1", 1, 2_002.0, 20.0),
            (&pids[1], &second, "1", 1, 3_003.0, 30.0),
        ] {
            let labels = [
                ("pid", pid.as_str()),
                ("comm", &name.comm),
                ("gpu", gpu),
                ("uuid", &uuids[place]),
            ];
            check_value(page, MEMORY, &labels, Some(memory))?;
            check_engines(page, &labels, [sm, sm + 1.0, sm + 2.0, sm + 3.0])?;
        }
        Ok(())
    })?;
    ensure_eq!(page.select(MEMORY, &[]).len(), 3, "series of memory");
    ensure_eq!(
        page.select(UTILIZATION, &[]).len(),
        12,
        "series of utilisation"
    );
    for sample in page
        .samples()
        .filter(|sample| sample.name.starts_with("esnode_process_gpu_"))
    {
        let labels: Vec<_> = sample.labels.keys().map(String::as_str).collect();
        let engine = sample.labels.contains_key("engine_type");
        let expected = ["comm", "engine_type", "gpu", "pid", "uuid"];
        let expected = expected
            .into_iter()
            .filter(|label| engine || *label != "engine_type");
        ensure_eq!(
            labels,
            expected.collect::<Vec<_>>(),
            "labels of {}",
            sample.name
        );
    }
    for (gpu, count) in [("0", 1.0), ("1", 2.0)] {
        check_value(&page, "esnode_gpu_processes", &[("gpu", gpu)], Some(count))?;
        check_value(
            &page,
            "esnode_gpu_unknown_processes",
            &[("gpu", gpu)],
            Some(0.0),
        )?;
    }
    Ok(())
}

/// What the driver says is N/A isn't on the page, neither is a sum that would need it.
fn unknown_memory() -> Result<()> {
    let [(first, one), (second, two)] = workers(["known", "secret"])?;
    let pair = Workload::run(&second, &["idle"])?;
    let mut secret = process(two.pid(), 40);
    put(&mut secret, json!({ "memory": null }));
    let rig = Rig::start(
        &[gpu(
            0,
            &[process(one.pid(), 0), secret, process(pair.pid(), 0)],
        )],
        &[],
    )?;
    let pid = two.pid().to_string();
    let labels = [("pid", pid.as_str()), ("comm", &second.comm)];
    let sm = [&labels[..], &[("engine_type", "sm")]].concat();
    let page = rig.until_value(UTILIZATION, &sm, 40.0)?;
    check_value(&page, MEMORY, &labels, None)?;
    check_value(&page, GROUP_MEMORY, &[("group", &second.comm)], None)?;
    let sm = [("group", second.comm.as_str()), ("engine_type", "sm")];
    check_value(&page, GROUP_UTILIZATION, &sm, Some(40.0))?;
    let pid = one.pid().to_string();
    check_value(&page, MEMORY, &[("pid", &pid)], Some(1_073_741_824.0))?;
    check_value(
        &page,
        GROUP_MEMORY,
        &[("group", &first.comm)],
        Some(1_073_741_824.0),
    )
}

/// An id that no process of `/proc` has is counted, and nothing else: nobody has it, it's that of
/// a thread, or its process has ended.
fn only_known() -> Result<()> {
    let [(name, worker), (_, ended)] = workers(["alone", "ended"])?;
    let ended_pid = ended.pid();
    ended.release()?;
    let thread = u32::try_from(gettid().as_raw())?;
    ensure!(
        thread != std::process::id(),
        "the test runs on the main thread"
    );
    let strangers = [NOBODY, ended_pid, thread];
    let mut processes = strangers.map(|pid| process(pid, 10)).to_vec();
    processes.push(process(worker.pid(), 20));
    let rig = Rig::start(&[gpu(0, &processes)], &[])?;
    let own = worker.pid().to_string();
    let sm = [("pid", own.as_str()), ("engine_type", "sm")];
    let page = rig.until_value(UTILIZATION, &sm, 20.0)?;
    check_value(&page, "esnode_gpu_processes", &[], Some(4.0))?;
    check_value(&page, "esnode_gpu_unknown_processes", &[], Some(3.0))?;
    let shown = page
        .samples()
        .filter(|sample| sample.name.starts_with("esnode_process_gpu_"));
    for sample in shown {
        ensure!(
            sample.has(&[("pid", &own), ("comm", &name.comm)]),
            "not to be believed: {sample:?}"
        );
    }
    let groups = page.label_values(GROUP_MEMORY, &[], "group");
    ensure_eq!(groups, [name.comm.as_str()].into(), "groups");
    for pid in strangers {
        let any = page
            .samples()
            .find(|sample| sample.has(&[("pid", &pid.to_string())]));
        ensure!(any.is_none(), "not to be believed: {any:?}");
    }
    // Their energy isn't the worker's.
    rig.put(0, json!({ "energy_millijoules": 1_000 }))?;
    let page = rig.until_value("esnode_gpu_energy_joules_total", &[], 1.0)?;
    check_value(
        &page,
        "esnode_process_gpu_energy_joules_total",
        &[],
        Some(0.2),
    )?;
    let unknown = [("reason", "unknown_process")];
    check_value(
        &page,
        "esnode_unattributed_gpu_energy_joules_total",
        &unknown,
        Some(0.3),
    )
}

/// A process may be in the driver's list twice; what it uses is the sum.
fn two_contexts() -> Result<()> {
    let [(name, worker)] = workers(["twice"])?;
    let entry = |memory: u64| json!({ "pid": worker.pid(), "memory": memory });
    let rig = Rig::start(&[gpu(0, &[entry(100), entry(20)])], &[])?;
    let page = rig.next_sample()?;
    let pid = worker.pid().to_string();
    let labels = [("pid", pid.as_str()), ("comm", &name.comm)];
    ensure_eq!(page.select(MEMORY, &labels).len(), 1, "series of memory");
    check_value(&page, MEMORY, &labels, Some(120.0))?;
    check_value(&page, GROUP_MEMORY, &[], Some(120.0))
}

/// A process that left the GPU has no readings any more; its energy stays with it while it lives.
fn off_the_gpu() -> Result<()> {
    const ENERGY: &str = "esnode_process_gpu_energy_joules_total";
    let [(name, worker)] = workers(["leaves"])?;
    let rig = Rig::start(&[gpu(0, &[process(worker.pid(), 50)])], &[])?;
    let pid = worker.pid().to_string();
    let labels = [("pid", pid.as_str()), ("comm", &name.comm)];
    let sm = [&labels[..], &[("engine_type", "sm")]].concat();
    rig.until_value(UTILIZATION, &sm, 50.0)?;
    rig.put(0, json!({ "energy_millijoules": 2_000 }))?;
    rig.until_value(ENERGY, &labels, 1.0)?;
    rig.put(0, json!({ "processes": [] }))?;
    let page = rig.until_value("esnode_gpu_processes", &[], 0.0)?;
    check_value(&page, MEMORY, &labels, None)?;
    let page = rig.next_sample()?;
    let page = rig.next_sample().unwrap_or(page);
    check_value(&page, ENERGY, &labels, Some(1.0))?;
    check_value(&page, MEMORY, &labels, None)?;
    // It comes back, and goes on where it was.
    rig.put(0, json!({ "processes": [process(worker.pid(), 50)] }))?;
    rig.until_value(UTILIZATION, &sm, 50.0)?;
    rig.put(0, json!({ "energy_millijoules": 4_000 }))?;
    rig.until_value(ENERGY, &labels, 2.0)?;
    drop(worker);
    rig.until(|page| {
        ensure!(
            page.select(ENERGY, &labels).is_empty(),
            "the process is gone, its energy isn't"
        );
        Ok(())
    })?;
    Ok(())
}
