//! Families of GPUs.

mod counters;
mod describe;
#[cfg(test)]
pub(super) mod fixtures;
mod part;
mod process;
mod readings;

pub(super) use describe::describe_process;
pub(super) use part::{Part, Value, parts};
pub(super) use process::{encode_groups, encode_processes};

use super::{Encode, Page, dcgm};
use crate::{
    api::Snapshot,
    gpu::{
        collector::GpuSample,
        facts::{DeviceFacts, GpuFacts},
    },
};
use part::Labels;
use std::fmt;

/// A family: its name, its help, and its number.
type Family = (&'static str, &'static str, fn(&Part<'_>) -> Option<Value>);

impl Encode for GpuSample {
    fn encode(&self, page: &mut Page<'_>) -> fmt::Result {
        self.facts.encode(page)?;
        let hostname = self.dcgm_hostname.as_deref();
        hostname.map_or(Ok(()), |hostname| dcgm::encode(&self.facts, hostname, page))
    }

    fn describe(&self, snapshot: &mut Snapshot) {
        self.facts.describe(snapshot);
    }
}

impl Encode for GpuFacts {
    fn encode(&self, page: &mut Page<'_>) -> fmt::Result {
        self.encode_driver(page)?;
        self.encode_identity(page)?;
        let parts: Vec<_> = parts(&self.devices).collect();
        readings::encode(page, &parts, &self.devices)?;
        counters::encode(page, &parts, &self.devices)
    }

    fn describe(&self, snapshot: &mut Snapshot) {
        snapshot.gpus = self.devices.iter().map(describe::describe).collect();
    }
}

impl GpuFacts {
    fn encode_driver(&self, page: &mut Page<'_>) -> fmt::Result {
        page.single_gauge(
            "esnode_gpu_driver_up",
            "Whether the NVIDIA driver answers through NVML: 1 or 0",
            self.driver_up.map(u32::from),
        )?;
        page.single_counter(
            "esnode_gpu_reinitializations",
            "Times that the agent opened NVML again after the driver was gone",
            self.driver_up.map(|_| self.reinitializations),
        )
    }

    fn encode_identity(&self, page: &mut Page<'_>) -> fmt::Result {
        let driver = self.driver.as_ref();
        let version = driver.map_or("", |driver| driver.version.as_str());
        let cuda = driver.and_then(|driver| driver.cuda_version.as_deref());
        page.gauge(
            "esnode_gpu_info",
            "Which GPU it is and which driver it has, by NVML; empty labels are unknown; always 1",
            self.devices.iter().map(|device| {
                let identity = &device.identity;
                let labels = [
                    ("name", identity.name.as_deref().unwrap_or_default()),
                    ("driver_version", version),
                    ("cuda_version", cuda.unwrap_or_default()),
                    (
                        "pci_bus_id",
                        identity.pci_bus_id.as_deref().unwrap_or_default(),
                    ),
                    ("vbios", identity.vbios.as_deref().unwrap_or_default()),
                    (
                        "architecture",
                        identity.architecture.as_deref().unwrap_or_default(),
                    ),
                ];
                ((Labels::of(device), labels), 1_u32)
            }),
        )?;
        page.gauge(
            "esnode_mig_info",
            "A MIG device: a compute instance and the GPU instance (mig) that it is part of, by \
             NVML; always 1",
            self.devices.iter().flat_map(|device| {
                device.mig.iter().map(|mig| {
                    let number = [("compute_instance", mig.compute_instance)];
                    let uuid = [("mig_uuid", mig.uuid.as_str())];
                    ((Labels::of(device).at(mig), (number, uuid)), 1_u32)
                })
            }),
        )
    }
}

/// The labels of a GPU and one more.
type Labelled<'a, N> = (Labels<'a>, [(&'static str, N); 1]);

/// Samples of a list that devices have: one series an entry, which `label` names.
fn listed<'a, N: Copy + 'a, V: Copy + Into<Value> + 'a>(
    devices: &'a [DeviceFacts],
    label: &'static str,
    list: impl Fn(&'a DeviceFacts) -> Option<&'a Vec<(N, V)>>,
) -> impl Iterator<Item = (Labelled<'a, N>, Value)> {
    devices.iter().flat_map(move |device| {
        let labels = Labels::of(device);
        let entries = list(device).into_iter().flatten();
        entries.map(move |(name, value)| ((labels, [(label, *name)]), (*value).into()))
    })
}

#[cfg(test)]
mod tests {
    use super::{
        fixtures::{assert_lines, assert_unique, cut, facts, full, written},
        *,
    };
    use crate::gpu::facts::Identity;

    fn page(facts: GpuFacts) -> String {
        let page = written(move |page| facts.encode(page));
        assert_unique(&page);
        page
    }

    #[test]
    fn everything_that_is_known_is_there() {
        let page = page(facts(vec![full()]));
        assert_lines(
            &page,
            &[
                "esnode_gpu_driver_up 1",
                "esnode_gpu_reinitializations_total 3",
                r#"esnode_gpu_info{gpu="0",uuid="GPU-0",name="NVIDIA \"H100\"",driver_version="570.86.10",cuda_version="12.8",pci_bus_id="00000000:03:00.0",vbios="96.00.99",architecture="Hopper"} 1"#,
            ],
        );
        let expected = [
            ("up", "", "1"),
            ("sample_age_seconds", "", "0.25"),
            ("utilization_percent", "", "65"),
            ("memory_utilization_percent", "", "0"),
            ("encoder_utilization_percent", "", "1"),
            ("decoder_utilization_percent", "", "2"),
            ("memory_total_bytes", "", "85899345920"),
            ("memory_used_bytes", "", "1048576000"),
            ("memory_free_bytes", "", "84000000000"),
            ("memory_reserved_bytes", "", "850769920"),
            ("bar1_total_bytes", "", "137438953472"),
            ("bar1_used_bytes", "", "7340032"),
            ("power_watts", "", "123.456"),
            ("power_limit_watts", "", "700.0"),
            ("clock_sm_mhz", "", "1980"),
            ("clock_memory_mhz", "", "2619"),
            ("clock_graphics_mhz", "", "1979"),
            ("clock_video_mhz", "", "1545"),
            ("performance_state", "", "0"),
            ("sample_duration_seconds", "", "0.004"),
            // One that is known and two that are not.
            ("processes", "", "3"),
            ("unknown_processes", "", "2"),
            ("row_remap_pending", "", "0"),
            ("row_remap_failed", "", "1"),
            ("sm_active_percent", "", "25.0"),
            ("sm_occupancy_percent", "", "26.0"),
            ("tensor_active_percent", "", "27.5"),
            ("dram_active_percent", "", "28.0"),
            ("fp16_active_percent", "", "29.0"),
            ("fp32_active_percent", "", "30.0"),
            ("fp64_active_percent", "", "31.0"),
            ("int_active_percent", "", "32.0"),
            ("graphics_active_percent", "", "33.0"),
            ("temperature_celsius", r#",sensor="gpu""#, "41"),
            ("temperature_celsius", r#",sensor="memory""#, "52"),
            ("fan_speed_percent", r#",fan="1""#, "31"),
            ("throttle_reason", r#",reason="gpu_idle""#, "0"),
            ("throttle_reason", r#",reason="sw_power_cap""#, "1"),
            ("clock_max_mhz", r#",clock="memory""#, "2620"),
            ("pcie_link_generation", r#",limit="current""#, "4"),
            ("pcie_link_generation", r#",limit="max""#, "5"),
            ("pcie_link_width", r#",limit="max""#, "16"),
            ("nvlink_up", r#",link="0""#, "1"),
            ("nvlink_up", r#",link="1""#, "0"),
            ("retired_pages", r#",cause="double_bit_ecc""#, "2"),
            ("remapped_rows", r#",cause="uncorrected""#, "4"),
            ("energy_joules_total", "", "1234.567891"),
            ("pcie_rx_bytes_total", "", "1152921504606846976"),
            ("pcie_tx_bytes_total", "", "11"),
            ("pcie_replays_total", "", "12"),
            ("throttle_seconds_total", r#",reason="sw_power_cap""#, "1.5"),
            ("nvlink_rx_bytes_total", r#",link="1""#, "14"),
            ("nvlink_tx_bytes_total", r#",link="0""#, "15"),
            ("nvlink_errors_total", r#",link="0",kind="crc""#, "17"),
            (
                "ecc_errors_total",
                r#",kind="corrected",scope="volatile""#,
                "18",
            ),
            ("xid_errors_total", r#",xid="94""#, "3"),
            ("xid_last_time_seconds", r#",xid="79""#, "1700000000.0"),
        ];
        for (family, labels, value) in expected {
            let line = format!(r#"esnode_gpu_{family}{{gpu="0",uuid="GPU-0"{labels}}} {value}"#);
            assert_lines(&page, &[&line]);
        }
        assert!(!page.contains(r#"pcie_link_width{gpu="0",uuid="GPU-0",limit="current""#));
        assert!(!page.contains("mig"));
    }

    #[test]
    fn energy_adds_up_as_it_is_printed() {
        let page = page(facts(vec![full()]));
        // 1000.000001 + 0 + the group's 234.56789.
        assert_lines(
            &page,
            &[
                r#"esnode_gpu_energy_joules_total{gpu="0",uuid="GPU-0"} 1234.567891"#,
                r#"esnode_unattributed_gpu_energy_joules_total{gpu="0",uuid="GPU-0",reason="idle"} 1000.000001"#,
                r#"esnode_unattributed_gpu_energy_joules_total{gpu="0",uuid="GPU-0",reason="before_start"} 0.0"#,
            ],
        );
    }

    #[test]
    fn absent_is_not_zero() {
        let bare = DeviceFacts {
            identity: Identity {
                uuid: "GPU-0".to_owned(),
                ..Identity::default()
            }
            .into(),
            ..DeviceFacts::default()
        };
        let bare = GpuFacts {
            devices: vec![bare],
            ..GpuFacts::default()
        };
        let page = page(bare);
        let samples: Vec<_> = page.lines().filter(|line| !line.starts_with('#')).collect();
        assert_eq!(
            samples,
            [
                r#"esnode_gpu_info{gpu="0",uuid="GPU-0",name="",driver_version="",cuda_version="",pci_bus_id="",vbios="",architecture=""} 1"#,
                r#"esnode_gpu_up{gpu="0",uuid="GPU-0"} 0"#,
            ]
        );
        assert_eq!(written(|page| GpuFacts::default().encode(page)), "# EOF\n");
    }

    #[test]
    fn what_survives_a_lost_gpu() {
        let lost = DeviceFacts {
            up: false,
            fast: None,
            slow: None,
            counters: None,
            ..cut()
        };
        let page = page(GpuFacts {
            driver_up: Some(false),
            ..facts(vec![lost])
        });
        assert_lines(
            &page,
            &[
                "esnode_gpu_driver_up 0",
                r#"esnode_gpu_up{gpu="1",uuid="GPU-1"} 0"#,
                r#"esnode_gpu_sample_age_seconds{gpu="1",uuid="GPU-1"} 0.25"#,
                r#"esnode_gpu_energy_joules_total{gpu="1",uuid="GPU-1"} 1234.567891"#,
                r#"esnode_gpu_xid_errors_total{gpu="1",uuid="GPU-1",xid="154"} 1"#,
            ],
        );
        for gone in ["memory", "active", "processes", "clock", "pcie", "ecc"] {
            assert!(!page.contains(gone), "{gone}\n{page}");
        }
    }

    #[test]
    fn instances_beside_their_gpu() {
        let page = page(facts(vec![full(), cut()]));
        assert_lines(
            &page,
            &[
                r#"esnode_mig_info{gpu="1",uuid="GPU-1",mig="1",profile="1g.10gb",compute_instance="0",mig_uuid="MIG-a"} 1"#,
                r#"esnode_mig_info{gpu="1",uuid="GPU-1",mig="2",profile="2g.20gb",compute_instance="1",mig_uuid="MIG-c"} 1"#,
                r#"esnode_gpu_memory_total_bytes{gpu="0",uuid="GPU-0"} 85899345920"#,
                r#"esnode_gpu_memory_total_bytes{gpu="1",uuid="GPU-1"} 85899345920"#,
                r#"esnode_gpu_memory_total_bytes{gpu="1",uuid="GPU-1",mig="1",profile="1g.10gb"} 10000000000"#,
                r#"esnode_gpu_memory_total_bytes{gpu="1",uuid="GPU-1",mig="2",profile="2g.20gb"} 20000000000"#,
                r#"esnode_gpu_tensor_active_percent{gpu="1",uuid="GPU-1",mig="2",profile="2g.20gb"} 20.0"#,
                r#"esnode_gpu_processes{gpu="1",uuid="GPU-1",mig="1",profile="1g.10gb"} 1"#,
                r#"esnode_gpu_processes{gpu="1",uuid="GPU-1",mig="2",profile="2g.20gb"} 1"#,
            ],
        );
        let of_instances = page.lines().filter(|line| line.contains("mig=")).count();
        assert_eq!(of_instances, 3 + 2 * (3 + 1 + 1), "{page}");
    }

    #[test]
    fn processes_are_unknown_without_a_list() {
        let mut unlisted = DeviceFacts {
            unknown_processes: None,
            processes: Vec::new(),
            ..cut()
        };
        unlisted.mig[1].processes = None;
        let page = page(facts(vec![unlisted]));
        let known: Vec<_> = page
            .lines()
            .filter(|line| !line.starts_with('#') && line.contains("processes"))
            .collect();
        assert_eq!(
            known,
            [r#"esnode_gpu_processes{gpu="1",uuid="GPU-1",mig="1",profile="1g.10gb"} 1"#]
        );
    }
}
