//! Families of what processes and groups use of GPUs.

use super::{Labels, Page, Value};
use crate::{
    gpu::facts::{GpuProcess, Identity, ProcessUtilization},
    process::gpu::GroupGpu,
};
use prometheus_client::encoding::EncodeLabelSet;
use std::fmt;

/// What `owner` uses of a GPU.
struct Row<'a, O> {
    owner: O,
    gpu: &'a Identity,
    /// By MIG instance.
    memory: Vec<(Option<u32>, u64)>,
    utilization: Option<ProcessUtilization>,
    energy_microjoules: Option<u64>,
}

type Engine = (&'static str, fn(&ProcessUtilization) -> f64);

const ENGINES: [Engine; 4] = [
    ("sm", |utilization| utilization.sm_percent),
    ("memory", |utilization| utilization.memory_percent),
    ("encoder", |utilization| utilization.encoder_percent),
    ("decoder", |utilization| utilization.decoder_percent),
];

/// Writes processes: for each GPU that it uses, id and command name as they are on the page.
pub(in crate::page) fn encode_processes(
    page: &mut Page<'_>,
    rows: &[(&str, &str, &Identity, &GpuProcess)],
) -> fmt::Result {
    let rows: Vec<_> = rows
        .iter()
        .map(|&(pid, comm, gpu, process)| Row {
            owner: [("pid", pid), ("comm", comm)],
            gpu,
            memory: process.memory.clone(),
            utilization: process.utilization,
            energy_microjoules: process.energy_microjoules,
        })
        .collect();
    encode(page, "process", "the process", "", &rows)
}

/// Writes groups: for each GPU that it used, the label of the group.
pub(in crate::page) fn encode_groups(
    page: &mut Page<'_>,
    rows: &[(&str, &Identity, GroupGpu)],
) -> fmt::Result {
    let rows: Vec<_> = rows
        .iter()
        .map(|&(group, gpu, used)| Row {
            owner: [("group", group)],
            gpu,
            memory: used
                .memory_bytes
                .map(|bytes| (None, bytes))
                .into_iter()
                .collect(),
            utilization: used.utilization,
            energy_microjoules: used.energy_microjoules,
        })
        .collect();
    let whose = "all live processes of the group";
    encode(page, "group", whose, ", of ended ones too", &rows)
}

fn encode<O: EncodeLabelSet + Copy>(
    page: &mut Page<'_>,
    prefix: &str,
    whose: &str,
    and_ended: &str,
    rows: &[Row<'_, O>],
) -> fmt::Result {
    page.gauge(
        &format!("esnode_{prefix}_gpu_memory_used_bytes"),
        &format!(
            "Device memory of {whose}, in bytes, by the driver \
             (nvmlDeviceGetComputeRunningProcesses)"
        ),
        rows.iter().flat_map(|row| {
            row.memory.iter().map(|(instance, bytes)| {
                let mig: Vec<_> = instance
                    .map(|instance| ("mig", instance))
                    .into_iter()
                    .collect();
                ((row.owner, (Labels::gpu(row.gpu), mig)), *bytes)
            })
        }),
    )?;
    page.gauge(
        &format!("esnode_{prefix}_gpu_utilization_percent"),
        &format!(
            "Part of an engine of the GPU that {whose} used, in percent, mean of the driver's \
             samples in the agent's last interval (nvmlDeviceGetProcessUtilization)"
        ),
        rows.iter().flat_map(|row| {
            ENGINES.into_iter().filter_map(|(engine, percent)| {
                let labels = (Labels::gpu(row.gpu), [("engine_type", engine)]);
                Some(((row.owner, labels), percent(row.utilization.as_ref()?)))
            })
        }),
    )?;
    page.counter(
        &format!("esnode_{prefix}_gpu_energy_joules"),
        &format!(
            "Energy of the GPU that was used for {whose}{and_ended}, in joules, since the agent \
             started: the GPU's own counter, shared by use of the multiprocessors"
        ),
        rows.iter().filter_map(|row| {
            let energy = Value::joules(row.energy_microjoules?);
            Some(((row.owner, Labels::gpu(row.gpu)), energy))
        }),
    )
}

#[cfg(test)]
mod tests {
    use super::{
        super::fixtures::{assert_lines, assert_unique, identity, worker, written},
        *,
    };

    #[test]
    fn processes_by_gpu_and_instance() {
        let page = written(|page| {
            let (first, second) = (identity(0), identity(1));
            let silent = GpuProcess {
                memory: Vec::new(),
                utilization: None,
                energy_microjoules: None,
                ..worker()
            };
            let on_instances = GpuProcess {
                memory: vec![(Some(1), 7), (Some(2), 0)],
                ..silent.clone()
            };
            let rows = [
                ("42", "a \"b\"\\\\", &first, &worker()),
                ("42", "a \"b\"\\\\", &second, &on_instances),
                ("43", "silent", &first, &silent),
            ];
            encode_processes(page, &rows)
        });
        assert_unique(&page);
        let samples: Vec<_> = page.lines().filter(|line| !line.starts_with('#')).collect();
        let of_worker = r#"pid="42",comm="a \"b\"\\\\",gpu="0",uuid="GPU-0""#;
        let cut = r#"pid="42",comm="a \"b\"\\\\",gpu="1",uuid="GPU-1""#;
        let utilization = |engine, percent| {
            format!(
                r#"esnode_process_gpu_utilization_percent{{{of_worker},engine_type="{engine}"}} {percent}"#
            )
        };
        assert_eq!(
            samples,
            [
                format!("esnode_process_gpu_memory_used_bytes{{{of_worker}}} 5000"),
                format!(r#"esnode_process_gpu_memory_used_bytes{{{cut},mig="1"}} 7"#),
                format!(r#"esnode_process_gpu_memory_used_bytes{{{cut},mig="2"}} 0"#),
                utilization("sm", "50.5"),
                utilization("memory", "20.0"),
                utilization("encoder", "0.0"),
                utilization("decoder", "1.0"),
                format!("esnode_process_gpu_energy_joules_total{{{of_worker}}} 234.56789"),
            ]
        );
    }

    #[test]
    fn groups_by_gpu() {
        let page = written(|page| {
            let gpu = identity(0);
            let used = GroupGpu {
                memory_bytes: Some(0),
                utilization: Some(ProcessUtilization {
                    sm_percent: 99.5,
                    ..ProcessUtilization::default()
                }),
                energy_microjoules: Some(1),
            };
            let ended = GroupGpu {
                energy_microjoules: Some(2_000_000),
                ..GroupGpu::default()
            };
            encode_groups(page, &[("worker", &gpu, used), ("ended", &gpu, ended)])
        });
        assert_unique(&page);
        assert_lines(
            &page,
            &[
                r#"esnode_group_gpu_memory_used_bytes{group="worker",gpu="0",uuid="GPU-0"} 0"#,
                r#"esnode_group_gpu_utilization_percent{group="worker",gpu="0",uuid="GPU-0",engine_type="sm"} 99.5"#,
                r#"esnode_group_gpu_energy_joules_total{group="worker",gpu="0",uuid="GPU-0"} 0.000001"#,
                r#"esnode_group_gpu_energy_joules_total{group="ended",gpu="0",uuid="GPU-0"} 2.0"#,
            ],
        );
        let of_ended = page.lines().filter(|line| line.contains("ended\"")).count();
        assert_eq!(of_ended, 1, "{page}");
    }

    #[test]
    fn nothing_without_processes() {
        assert_eq!(written(|page| encode_processes(page, &[])), "# EOF\n");
        assert_eq!(written(|page| encode_groups(page, &[])), "# EOF\n");
    }
}
