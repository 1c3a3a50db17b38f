//! GPUs that MIG has cut.

use anyhow::{Result, ensure};
use esnode_tests::gpu::{device, uuid};
use esnode_tests::workload::{Name, Workload};
use serde_json::{Value, json};

use super::support::{NOBODYS_ENERGY, Rig, check_value, energy, process, put};
use super::table::full;
use crate::Case;
use crate::check::ensure_eq;

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::new("gpu::mig::instances_beside_their_gpu", instances),
        Case::new("gpu::mig::processes_of_instances", processes),
        Case::new("gpu::mig::instances_come_and_go", come_and_go),
    ]
}

const GIB: u64 = 1 << 30;

const MEMORY: &str = "esnode_process_gpu_memory_used_bytes";

/// A GPU of which there are three MIG devices, two of them in one instance; slots between them
/// are empty.
pub(crate) fn cut(index: u8) -> Value {
    let memory = |total: u64, used: u64| json!({ "total": total * GIB, "used": used * GIB, "free": (total - used) * GIB });
    let mig =
        |gpu_instance: u32, compute_instance: u32, profile: &str, memory: Value, tensor: f64| {
            json!({
                "gpu_instance": gpu_instance, "compute_instance": compute_instance,
                "uuid": format!("MIG-{index}-{gpu_instance}-{compute_instance}"),
                "name": format!("NVIDIA H100 80GB HBM3 MIG {profile}"),
                "memory": memory,
                "gpm": { "5": tensor, "2": tensor / 2.0 },
            })
        };
    let mut gpu = device(index);
    put(
        &mut gpu,
        json!({
            "gpm": { "5": 63.0 },
            "mig": [
                mig(1, 0, "1g.10gb", memory(10, 2), 61.0),
                null,
                mig(2, 0, "1c.2g.20gb", memory(20, 4), 62.0),
                mig(2, 1, "1c.2g.20gb", memory(20, 4), 62.0),
            ],
        }),
    );
    // As in the profile of the instance, not of the part of its multiprocessors.
    for slot in [2, 3] {
        put(
            &mut gpu["mig"][slot],
            json!({ "name": "NVIDIA H100 80GB HBM3 MIG 2g.20gb" }),
        );
    }
    gpu
}

fn instances() -> Result<()> {
    let rig = Rig::start(&[full(0), cut(1)], &[])?;
    let labels = [("mig", "2"), ("profile", "2g.20gb"), ("gpu", "1")];
    let page = rig.until_value("esnode_gpu_tensor_active_percent", &labels, 62.0)?;
    let gpu = uuid(1);
    for (mig, profile, compute, id) in [
        ("1", "1g.10gb", "0", "MIG-1-1-0"),
        ("2", "2g.20gb", "0", "MIG-1-2-0"),
        ("2", "2g.20gb", "1", "MIG-1-2-1"),
    ] {
        let labels = [
            ("gpu", "1"),
            ("uuid", &gpu),
            ("mig", mig),
            ("profile", profile),
            ("compute_instance", compute),
            ("mig_uuid", id),
        ];
        check_value(&page, "esnode_mig_info", &labels, Some(1.0))?;
    }
    ensure_eq!(page.select("esnode_mig_info", &[]).len(), 3, "MIG devices");
    let gib = 1_073_741_824.0;
    for (mig, profile, [total, used, free], tensor, sm) in [
        ("1", "1g.10gb", [10.0, 2.0, 8.0], 61.0, 30.5),
        ("2", "2g.20gb", [20.0, 4.0, 16.0], 62.0, 31.0),
    ] {
        let labels = [
            ("gpu", "1"),
            ("uuid", &*gpu),
            ("mig", mig),
            ("profile", profile),
        ];
        for (name, value) in [
            ("esnode_gpu_memory_total_bytes", total * gib),
            ("esnode_gpu_memory_used_bytes", used * gib),
            ("esnode_gpu_memory_free_bytes", free * gib),
            ("esnode_gpu_tensor_active_percent", tensor),
            ("esnode_gpu_sm_active_percent", sm),
            ("esnode_gpu_processes", 0.0),
        ] {
            // Compute instances of one share these.
            ensure_eq!(
                page.select(name, &labels).len(),
                1,
                "series {name} of instance {mig}"
            );
            check_value(&page, name, &labels, Some(value))?;
        }
    }
    // The GPU itself is there as well, and one that isn't cut has no such labels.
    for (name, value) in [
        ("esnode_gpu_memory_total_bytes", 80.0 * gib),
        ("esnode_gpu_power_watts", 70.0),
        ("esnode_gpu_up", 1.0),
    ] {
        let whole = page.select(name, &[("gpu", "1")]);
        let whole: Vec<_> = whole
            .into_iter()
            .filter(|sample| !sample.labels.contains_key("mig"))
            .collect();
        ensure!(
            whole.len() == 1
                && whole
                    .iter()
                    .all(|sample| (sample.value - value).abs() < 1e-6),
            "{whole:?}"
        );
    }
    let uncut = page.samples().filter(|sample| sample.has(&[("gpu", "0")]));
    ensure_eq!(
        uncut
            .filter(|sample| sample.labels.contains_key("mig"))
            .count(),
        0,
        "series with mig of GPU 0"
    );
    Ok(())
}

/// Their memory is by instance. How much they compute isn't known, and so energy isn't shared.
fn processes() -> Result<()> {
    let (first, second) = (Name::new("migone")?, Name::new("migtwo")?);
    let workers = [
        Workload::run(&first, &["idle"])?,
        Workload::run(&second, &["idle"])?,
    ];
    let pids = workers.each_ref().map(|worker| worker.pid().to_string());
    let on = |place: usize, instance: u32, memory: u64| {
        let mut entry = process(workers.get(place).map_or(0, Workload::pid), 50);
        put(
            &mut entry,
            json!({ "memory": memory, "gpu_instance": instance, "compute_instance": 0 }),
        );
        entry
    };
    let mut gpu = cut(0);
    put(
        &mut gpu,
        json!({ "energy_millijoules": 5_000, "processes": [on(0, 1, 111), on(0, 2, 222), on(1, 2, 333)] }),
    );
    let rig = Rig::start(&[gpu], &[])?;
    let page = rig.next_sample()?;
    for (pid, name, mig, bytes) in [
        (&pids[0], &first, "1", 111.0),
        (&pids[0], &first, "2", 222.0),
        (&pids[1], &second, "2", 333.0),
    ] {
        let labels = [
            ("pid", pid.as_str()),
            ("comm", &name.comm),
            ("gpu", "0"),
            ("mig", mig),
        ];
        check_value(&page, MEMORY, &labels, Some(bytes))?;
    }
    ensure_eq!(page.select(MEMORY, &[]).len(), 3, "series of memory");
    check_value(
        &page,
        "esnode_group_gpu_memory_used_bytes",
        &[("group", &first.comm)],
        Some(333.0),
    )?;
    for (mig, count) in [("1", 1.0), ("2", 2.0)] {
        check_value(&page, "esnode_gpu_processes", &[("mig", mig)], Some(count))?;
    }
    for family in [
        "esnode_process_gpu_utilization_percent",
        "esnode_process_gpu_energy_joules_total",
    ] {
        check_value(&page, family, &[], None)?;
    }
    rig.put(0, json!({ "energy_millijoules": 7_500 }))?;
    let page = rig.until_value("esnode_gpu_energy_joules_total", &[], 7.5)?;
    ensure_eq!(
        energy(&page, NOBODYS_ENERGY, &[("reason", "no_samples")]),
        2_500_000,
        "µJ without samples"
    );
    ensure_eq!(
        energy(&page, NOBODYS_ENERGY, &[("reason", "before_agent")]),
        5_000_000,
        "µJ before the agent"
    );
    Ok(())
}

fn come_and_go() -> Result<()> {
    let rig = Rig::start(&[cut(0)], &["--gpu-slow-interval", "200ms"])?;
    ensure_eq!(
        rig.next_sample()?.select("esnode_mig_info", &[]).len(),
        3,
        "MIG devices"
    );
    rig.change(|script| script["devices"][0]["mig"][0] = Value::Null)?;
    let page = rig.until(|page| {
        let left = page.label_values("esnode_mig_info", &[], "mig_uuid");
        ensure_eq!(left, ["MIG-0-2-0", "MIG-0-2-1"].into(), "MIG devices");
        Ok(())
    })?;
    check_value(&page, "esnode_gpu_memory_used_bytes", &[("mig", "1")], None)?;
    check_value(
        &page,
        "esnode_gpu_memory_used_bytes",
        &[("mig", "2")],
        Some(4.0 * 1_073_741_824.0),
    )
}
