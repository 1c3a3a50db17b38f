//! Many GPUs, many processes, many groups.

use anyhow::{Context as _, Result, ensure};
use esnode_tests::page::Page;
use esnode_tests::workload::{Name, Workload};
use serde_json::{Value, json};

use super::support::{
    DEVICE_ENERGY, GROUP_ENERGY, NOBODYS_ENERGY, PROCESS_ENERGY, Rig, check_value, energy, gpu,
    process, workers,
};
use crate::check::ensure_eq;
use crate::{Case, readers};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::new("gpu::bounds::processes_on_every_gpu", many),
        Case::new("gpu::bounds::group_limit", group_limit),
        Case::new("gpu::bounds::groups_that_ended", ended_groups),
    ]
}

const MEMORY: &str = "esnode_process_gpu_memory_used_bytes";

/// 64 processes on each of 8 GPUs.
fn many() -> Result<()> {
    const GPUS: u8 = 8;
    let names = (0..8)
        .map(|_| Name::new("many"))
        .collect::<Result<Vec<_>>>()?;
    let all = names.iter().flat_map(|name| (0..8).map(move |_| name));
    let all: Vec<_> = all
        .map(|name| Workload::run(name, &["idle"]))
        .collect::<Result<_>>()?;
    let memory = |index: u8, place: usize| 1_000_000 * (u64::from(index) + 1) + place as u64;
    let device = |index: u8| {
        let entry = |(place, worker): (usize, &Workload)| json!({ "pid": worker.pid(), "memory": memory(index, place), "sm": 1 });
        let processes: Vec<Value> = all.iter().enumerate().map(entry).collect();
        gpu(index, &processes)
    };
    let devices: Vec<_> = (0..GPUS).map(device).collect();
    let rig = Rig::start(&devices, &[])?;
    let sm = [("engine_type", "sm")];
    let page = rig.until_value("esnode_process_gpu_utilization_percent", &sm, 512.0)?;
    ensure_eq!(page.select(MEMORY, &[]).len(), 512, "series of memory");
    for index in 0..GPUS {
        let index_label = index.to_string();
        check_value(
            &page,
            "esnode_gpu_processes",
            &[("gpu", &index_label)],
            Some(64.0),
        )?;
        for (place, worker) in all.iter().enumerate() {
            let pid = worker.pid().to_string();
            let labels = [("gpu", index_label.as_str()), ("pid", &pid)];
            ensure_eq!(
                page.count(MEMORY, &labels)?,
                Some(memory(index, place)),
                "memory of {labels:?}"
            );
        }
        for (place, name) in names.iter().enumerate() {
            let labels = [("gpu", index_label.as_str()), ("group", &name.comm)];
            let expected = (place * 8..place * 8 + 8)
                .map(|place| memory(index, place))
                .sum();
            let seen = page.count("esnode_group_gpu_memory_used_bytes", &labels)?;
            ensure_eq!(seen, Some(expected), "memory of {labels:?}");
        }
    }
    rig.change(|script| {
        for device in script["devices"].as_array_mut().into_iter().flatten() {
            device["energy_millijoules"] = json!(10_000);
        }
    })?;
    let page = rig.until_value(DEVICE_ENERGY, &[], 80.0)?;
    for sample in page.select(PROCESS_ENERGY, &[]) {
        ensure!(
            (sample.value - 0.1).abs() < 1e-9,
            "not a hundredth: {sample:?}"
        );
    }
    ensure_eq!(
        page.select(PROCESS_ENERGY, &[]).len(),
        512,
        "series of energy"
    );
    ensure_eq!(
        energy(&page, NOBODYS_ENERGY, &[("reason", "idle")]),
        28_800_000,
        "µJ of nobody"
    );
    readers::check_by_promtool(&rig.agent)
}

/// The groups with energy, without those that have a name.
fn others(page: &Page) -> i64 {
    energy(page, GROUP_ENERGY, &[("group", "other")])
}

/// Groups beyond the limit are in `other`, with all that they used.
fn group_limit() -> Result<()> {
    const LIMIT: usize = 3;
    let all = workers(["limit", "limit", "limit", "limit", "limit", "limit"])?;
    let processes = all.each_ref().map(|(_, worker)| process(worker.pid(), 10));
    let rig = Rig::start(
        &[gpu(0, &processes)],
        &["--group-limit", &LIMIT.to_string()],
    )?;
    let sm = [("engine_type", "sm")];
    rig.until_value("esnode_group_gpu_utilization_percent", &sm, 60.0)?;
    rig.put(0, json!({ "energy_millijoules": 10_000 }))?;
    let page = rig.until_value(DEVICE_ENERGY, &[], 10.0)?;
    let groups = page.label_values(GROUP_ENERGY, &[], "group");
    ensure!(
        groups.len() <= LIMIT + 1,
        "more than {LIMIT} groups: {groups:?}"
    );
    let named = groups.len() - usize::from(groups.contains("other"));
    let hidden = i64::try_from(all.len() - named)?;
    ensure!(hidden >= 3, "{groups:?}");
    ensure_eq!(others(&page), hidden * 1_000_000, "µJ of the others");
    ensure_eq!(
        energy(&page, GROUP_ENERGY, &[]),
        6_000_000,
        "µJ of all groups"
    );
    let memory = page.value("esnode_group_gpu_memory_used_bytes", &[]);
    ensure_eq!(memory, Some(6.0 * 1_073_741_824.0), "memory of all groups");
    // Processes have series of their own all the same.
    for (name, worker) in &all {
        let pid = worker.pid().to_string();
        check_value(
            &page,
            PROCESS_ENERGY,
            &[("pid", &pid), ("comm", &name.comm)],
            Some(1.0),
        )?;
    }
    // One of them ends, and what it used stays.
    let [(_, first), rest @ ..] = all;
    drop(first);
    let processes: Vec<_> = rest
        .iter()
        .map(|(_, worker)| process(worker.pid(), 10))
        .collect();
    rig.put(
        0,
        json!({ "processes": processes, "energy_millijoules": 10_000 }),
    )?;
    rig.until_value("esnode_gpu_processes", &[], 5.0)?;
    rig.next_sample()?;
    rig.put(0, json!({ "energy_millijoules": 20_000 }))?;
    let page = rig.until_value(DEVICE_ENERGY, &[], 20.0)?;
    ensure_eq!(
        energy(&page, GROUP_ENERGY, &[]),
        11_000_000,
        "µJ of all groups"
    );
    Ok(())
}

/// Groups of processes that have come and gone, one after the other, add up as well.
fn ended_groups() -> Result<()> {
    let rig = Rig::start(&[gpu(0, &[])], &["--group-limit", "2"])?;
    for round in 1..=5_u32 {
        let [(_, worker)] = workers(["brief"])?;
        rig.put(0, json!({ "processes": [process(worker.pid(), 50)] }))?;
        let pid = worker.pid().to_string();
        let sm = [("pid", pid.as_str()), ("engine_type", "sm")];
        rig.until_value("esnode_process_gpu_utilization_percent", &sm, 50.0)?;
        rig.put(0, json!({ "energy_millijoules": round * 2_000 }))?;
        rig.until_value(DEVICE_ENERGY, &[], f64::from(round) * 2.0)?;
        rig.put(0, json!({ "processes": [] }))?;
        drop(worker);
        let page = rig.next_sample()?;
        let rounds = i64::from(round);
        ensure_eq!(
            energy(&page, GROUP_ENERGY, &[]),
            rounds * 1_000_000,
            "µJ after {round} workers"
        );
        let groups = page.label_values(GROUP_ENERGY, &[], "group");
        ensure!(groups.len() <= 3, "after {round} workers: {groups:?}");
    }
    let page = rig.page()?;
    let other = page
        .value(GROUP_ENERGY, &[("group", "other")])
        .context("no others")?;
    ensure!(other >= 3.0, "the others have {other} J");
    Ok(())
}
