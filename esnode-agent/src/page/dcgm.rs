//! Families of GPUs by the names, labels and units of dcgm-exporter's default set, for
//! dashboards and alerts that know those.
//!
//! Differences, each so that a sum over series is what it says: readings of a whole GPU have one
//! series, not one for each of its MIG instances; memory and activity of a GPU that MIG has cut
//! have series of instances alone. `DCGM_FI_DEV_XID_ERRORS` is absent until the first error.

mod labels;
mod xid;

use super::{
    Page,
    gpu::{Part, Value, parts},
};
use crate::gpu::facts::{Fast, GpuFacts, Slow};
use labels::Labels;
use std::fmt;

/// A family: its name, its help, and its number.
type Family = (&'static str, &'static str, fn(&Part<'_>) -> Option<Value>);

const GAUGES: [Family; 18] = [
    (
        "DCGM_FI_DEV_SM_CLOCK",
        "As esnode_gpu_clock_sm_mhz (MHz)",
        |part| Some(part.fast()?.clock_sm_mhz?.into()),
    ),
    (
        "DCGM_FI_DEV_MEM_CLOCK",
        "As esnode_gpu_clock_memory_mhz (MHz)",
        |part| Some(part.fast()?.clock_memory_mhz?.into()),
    ),
    (
        "DCGM_FI_DEV_MEMORY_TEMP",
        "As esnode_gpu_temperature_celsius of sensor memory (degrees Celsius)",
        |part| temperature(part.fast()?, "memory"),
    ),
    (
        "DCGM_FI_DEV_GPU_TEMP",
        "As esnode_gpu_temperature_celsius of sensor gpu (degrees Celsius)",
        |part| temperature(part.fast()?, "gpu"),
    ),
    (
        "DCGM_FI_DEV_POWER_USAGE",
        "As esnode_gpu_power_watts (W)",
        |part| Some(Value::of_thousandths(part.fast()?.power_milliwatts?)),
    ),
    (
        "DCGM_FI_DEV_GPU_UTIL",
        "As esnode_gpu_utilization_percent (percent)",
        |part| Some(part.fast()?.utilization_percent?.into()),
    ),
    (
        "DCGM_FI_DEV_MEM_COPY_UTIL",
        "As esnode_gpu_memory_utilization_percent (percent)",
        |part| Some(part.fast()?.memory_utilization_percent?.into()),
    ),
    (
        "DCGM_FI_DEV_ENC_UTIL",
        "As esnode_gpu_encoder_utilization_percent (percent)",
        |part| Some(part.fast()?.encoder_utilization_percent?.into()),
    ),
    (
        "DCGM_FI_DEV_DEC_UTIL",
        "As esnode_gpu_decoder_utilization_percent (percent)",
        |part| Some(part.fast()?.decoder_utilization_percent?.into()),
    ),
    (
        "DCGM_FI_DEV_FB_FREE",
        "As esnode_gpu_memory_free_bytes (MiB, rounded down)",
        |part| Some(mebibytes(part.memory?.free)),
    ),
    (
        "DCGM_FI_DEV_FB_USED",
        "As esnode_gpu_memory_used_bytes (MiB, rounded down)",
        |part| Some(mebibytes(part.memory?.used)),
    ),
    (
        "DCGM_FI_DEV_FB_RESERVED",
        "As esnode_gpu_memory_reserved_bytes (MiB, rounded down)",
        |part| Some(mebibytes(part.memory?.reserved?)),
    ),
    (
        "DCGM_FI_DEV_ROW_REMAP_FAILURE",
        "As esnode_gpu_row_remap_failed (1 or 0)",
        |part| Some(part.slow()?.row_remap_failed?.into()),
    ),
    (
        "DCGM_FI_PROF_GR_ENGINE_ACTIVE",
        "As esnode_gpu_graphics_active_percent (ratio, 0 to 1)",
        |part| Some(ratio(part.activity?.graphics_active_percent?)),
    ),
    (
        "DCGM_FI_PROF_PCIE_TX_BYTES",
        "Rate of esnode_gpu_pcie_tx_bytes_total over the last interval (bytes per second)",
        |part| Some(part.counters()?.pcie_tx_bytes_per_second?.into()),
    ),
    (
        "DCGM_FI_PROF_PCIE_RX_BYTES",
        "Rate of esnode_gpu_pcie_rx_bytes_total over the last interval (bytes per second)",
        |part| Some(part.counters()?.pcie_rx_bytes_per_second?.into()),
    ),
    (
        "DCGM_FI_PROF_PIPE_TENSOR_ACTIVE",
        "As esnode_gpu_tensor_active_percent (ratio, 0 to 1)",
        |part| Some(ratio(part.activity?.tensor_active_percent?)),
    ),
    (
        "DCGM_FI_PROF_DRAM_ACTIVE",
        "As esnode_gpu_dram_active_percent (ratio, 0 to 1)",
        |part| Some(ratio(part.activity?.dram_active_percent?)),
    ),
];

/// Counters of dcgm-exporter. Their names do not end in `_total`, as OpenMetrics wants of one.
const COUNTERS: [Family; 4] = [
    (
        "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION",
        "Counter, as esnode_gpu_energy_joules_total (mJ, rounded down)",
        |part| {
            let energy = part.device?.energy.as_ref()?;
            Some((energy.total_microjoules / 1000).into())
        },
    ),
    (
        "DCGM_FI_DEV_PCIE_REPLAY_COUNTER",
        "Counter, as esnode_gpu_pcie_replays_total",
        |part| Some(part.counters()?.pcie_replays?.into()),
    ),
    (
        "DCGM_FI_DEV_UNCORRECTABLE_REMAPPED_ROWS",
        "Counter, as esnode_gpu_remapped_rows of cause uncorrected",
        |part| remapped(part.slow()?, "uncorrected"),
    ),
    (
        "DCGM_FI_DEV_CORRECTABLE_REMAPPED_ROWS",
        "Counter, as esnode_gpu_remapped_rows of cause corrected",
        |part| remapped(part.slow()?, "corrected"),
    ),
];

/// Writes the families of `--dcgm-names`. Without a host name there is no label for it.
///
/// # Errors
/// Only those of the formatter.
pub fn encode(facts: &GpuFacts, hostname: &str, page: &mut Page<'_>) -> fmt::Result {
    let driver = facts.driver.as_ref();
    let version = driver.map(|driver| driver.version.as_str());
    let labels = |identity, mig| Labels {
        identity,
        mig,
        hostname,
        version,
    };
    let parts: Vec<_> = parts(&facts.devices).map(uncut).collect();
    let samples = |value: fn(&Part<'_>) -> Option<Value>| {
        parts
            .iter()
            .filter_map(move |part| Some((labels(part.identity, part.mig), value(part)?)))
    };
    for (name, help, value) in GAUGES {
        page.gauge(name, help, samples(value))?;
    }
    for (name, help, value) in COUNTERS {
        page.unknown(name, help, samples(value))?;
    }
    page.gauge(
        "DCGM_FI_DEV_XID_ERRORS",
        "Code of the critical error (XID) that came last since the agent started",
        facts.devices.iter().filter_map(|device| {
            let code = xid::last(device)?;
            let error = ([("err_code", code)], [("err_msg", xid::text(code))]);
            Some(((labels(&device.identity, None), error), code))
        }),
    )
}

/// Leaves memory and activity of a GPU that MIG has cut to its instances.
fn uncut(part: Part<'_>) -> Part<'_> {
    match part.device {
        Some(device) if !device.mig.is_empty() => Part {
            memory: None,
            activity: None,
            ..part
        },
        _ => part,
    }
}

fn temperature(fast: &Fast, sensor: &str) -> Option<Value> {
    let mut sensors = fast.temperatures_celsius.iter();
    let (_, celsius) = sensors.find(|(name, _)| *name == sensor)?;
    Some((*celsius).into())
}

fn remapped(slow: &Slow, cause: &str) -> Option<Value> {
    let mut causes = slow.remapped_rows.iter();
    let (_, rows) = causes.find(|(name, _)| *name == cause)?;
    Some((*rows).into())
}

fn mebibytes(bytes: u64) -> Value {
    Value::Whole(bytes >> 20)
}

fn ratio(percent: f64) -> Value {
    Value::Real(percent / 100.0)
}

#[cfg(test)]
mod tests {
    use super::{
        super::{
            gpu::fixtures::{assert_lines, assert_unique, cut, facts, full, written},
            text::from_open_metrics,
        },
        *,
    };
    use crate::gpu::facts::{DeviceFacts, Identity};

    const GPU: &str = r#"gpu="0",UUID="GPU-0",pci_bus_id="00000000:03:00.0",device="nvidia0",modelName="NVIDIA \"H100\"",Hostname="node",DCGM_FI_DRIVER_VERSION="570.86.10""#;

    fn page(facts: GpuFacts) -> String {
        let page = written(move |page| encode(&facts, "node", page));
        assert_unique(&page);
        page
    }

    #[test]
    fn names_labels_and_units_of_the_exporter() {
        let page = page(facts(vec![full()]));
        let expected = [
            ("DEV_SM_CLOCK", "1980"),
            ("DEV_MEM_CLOCK", "2619"),
            ("DEV_MEMORY_TEMP", "52"),
            ("DEV_GPU_TEMP", "41"),
            ("DEV_POWER_USAGE", "123.456"),
            ("DEV_GPU_UTIL", "65"),
            ("DEV_MEM_COPY_UTIL", "0"),
            ("DEV_ENC_UTIL", "1"),
            ("DEV_DEC_UTIL", "2"),
            ("DEV_FB_FREE", "80108"),
            ("DEV_FB_USED", "1000"),
            ("DEV_FB_RESERVED", "811"),
            ("DEV_ROW_REMAP_FAILURE", "1"),
            ("PROF_GR_ENGINE_ACTIVE", "0.33"),
            ("PROF_PCIE_RX_BYTES", "1500.5"),
            ("PROF_PIPE_TENSOR_ACTIVE", "0.275"),
            ("PROF_DRAM_ACTIVE", "0.28"),
            ("DEV_TOTAL_ENERGY_CONSUMPTION", "1234567"),
            ("DEV_PCIE_REPLAY_COUNTER", "12"),
            ("DEV_UNCORRECTABLE_REMAPPED_ROWS", "4"),
            ("DEV_CORRECTABLE_REMAPPED_ROWS", "3"),
        ];
        for (name, value) in expected {
            assert_lines(&page, &[&format!("DCGM_FI_{name}{{{GPU}}} {value}")]);
        }
        // The one that came last, not the one with the highest code.
        assert_lines(
            &page,
            &[
                &format!(
                    r#"DCGM_FI_DEV_XID_ERRORS{{{GPU},err_code="94",err_msg="Contained memory error"}} 94"#
                ),
                "# TYPE DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION unknown",
                "# TYPE DCGM_FI_DEV_GPU_UTIL gauge",
            ],
        );
        let samples = page.lines().filter(|line| !line.starts_with('#')).count();
        assert_eq!(samples, expected.len() + 1, "{page}");
    }

    #[test]
    fn plain_text_says_untyped() {
        let page = from_open_metrics(&page(facts(vec![full()])));
        assert_lines(
            &page,
            &[
                "# TYPE DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION untyped",
                &format!("DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION{{{GPU}}} 1234567"),
            ],
        );
    }

    #[test]
    fn memory_and_activity_of_instances_alone() {
        let page = page(facts(vec![cut()]));
        let device = r#"gpu="1",UUID="GPU-1",pci_bus_id="00000000:03:00.0",device="nvidia1",modelName="NVIDIA \"H100\"""#;
        let rest = r#"Hostname="node",DCGM_FI_DRIVER_VERSION="570.86.10""#;
        let instance = r#"GPU_I_PROFILE="2g.20gb",GPU_I_ID="2""#;
        assert_lines(
            &page,
            &[
                &format!("DCGM_FI_DEV_FB_USED{{{device},{instance},{rest}}} 4"),
                &format!("DCGM_FI_PROF_PIPE_TENSOR_ACTIVE{{{device},{instance},{rest}}} 0.2"),
                &format!("DCGM_FI_DEV_POWER_USAGE{{{device},{rest}}} 123.456"),
            ],
        );
        let of = |name: &str| page.lines().filter(|line| line.starts_with(name)).count();
        assert_eq!(of("DCGM_FI_DEV_FB_USED{"), 2, "{page}");
        assert_eq!(of("DCGM_FI_PROF_PIPE_TENSOR_ACTIVE{"), 2, "{page}");
        assert_eq!(of("DCGM_FI_PROF_DRAM_ACTIVE{"), 0, "{page}");
        assert_eq!(of("DCGM_FI_DEV_POWER_USAGE{"), 1, "{page}");
    }

    #[test]
    fn nothing_of_a_gpu_that_never_answered() {
        let silent = DeviceFacts {
            identity: full().identity,
            ..DeviceFacts::default()
        };
        assert_eq!(page(facts(vec![silent])), "# EOF\n");
    }

    #[test]
    fn labels_that_are_unknown() {
        let mut anonymous = facts(vec![DeviceFacts {
            identity: Identity::default().into(),
            ..full()
        }]);
        anonymous.driver = None;
        let page = written(move |page| encode(&anonymous, "", page));
        assert_lines(
            &page,
            &[
                r#"DCGM_FI_DEV_GPU_UTIL{gpu="0",UUID="",pci_bus_id="",device="nvidia0",modelName=""} 65"#,
            ],
        );
    }
}
