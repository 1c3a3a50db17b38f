//! GPUs with known values, for the tests of pages.

use crate::{
    gpu::facts::{
        Activity, Counters, DeviceFacts, Driver, Energy, Fast, GpuFacts, GpuProcess, Identity,
        Limits, Memory, MigDevice, ProcessUtilization, Slow, Xid,
    },
    page::{self, Encode, Names, Page},
    process::Key,
};
use esnode_ebpf::Name;
use std::{
    collections::BTreeMap,
    fmt,
    time::{Duration, UNIX_EPOCH},
};

/// A page of what the function writes.
pub(in crate::page) fn written(
    write: impl Fn(&mut Page<'_>) -> fmt::Result + Send + 'static,
) -> String {
    struct By<F>(F);
    impl<F: Fn(&mut Page<'_>) -> fmt::Result> Encode for By<F> {
        fn encode(&self, page: &mut Page<'_>) -> fmt::Result {
            (self.0)(page)
        }
    }
    page::render(vec![Box::new(By(write))], Names::Own, 4096).unwrap()
}

/// Asserts that the page has these lines.
pub(in crate::page) fn assert_lines(page: &str, lines: &[&str]) {
    for line in lines {
        assert!(
            page.lines().any(|of_page| of_page == *line),
            "{line}\n{page}"
        );
    }
}

/// Asserts that no family comes twice and that no series does.
pub(in crate::page) fn assert_unique(page: &str) {
    let mut seen = std::collections::HashSet::new();
    for line in page.lines() {
        let key = line.rsplit_once(' ').map_or(line, |(key, _)| key);
        assert!(seen.insert(key.to_owned()), "twice: {key}\n{page}");
    }
}

pub(in crate::page) fn driver() -> Driver {
    Driver {
        version: "570.86.10".to_owned(),
        cuda_version: Some("12.8".to_owned()),
    }
}

pub(in crate::page) fn identity(index: u32) -> Identity {
    Identity {
        index,
        uuid: format!("GPU-{index}"),
        name: Some("NVIDIA \"H100\"".to_owned()),
        pci_bus_id: Some("00000000:03:00.0".to_owned()),
        vbios: Some("96.00.99".to_owned()),
        architecture: Some("Hopper".to_owned()),
        minor: Some(7),
    }
}

/// A GPU that tells everything.
pub(in crate::page) fn full() -> DeviceFacts {
    DeviceFacts {
        identity: identity(0).into(),
        up: true,
        hangs: false,
        age: Some(Duration::from_millis(250)),
        sample_duration: Some(Duration::from_millis(4)),
        fast: Some(fast()),
        slow: Some(slow()),
        counters: Some(counters()),
        energy: Some(Energy {
            total_microjoules: 1_234_567_891,
            unattributed: vec![("idle", 1_000_000_001), ("before_start", 0)],
            groups: vec![(name(b"worker"), 234_567_890)],
        }),
        processes: vec![worker()],
        unknown_processes: Some(2),
        xids: BTreeMap::from([
            (79, xid(1, 1_700_000_000)),
            (94, xid(3, 1_700_000_500)),
            (154, xid(1, 1_600_000_000)),
        ]),
        mig: Vec::new(),
    }
}

fn fast() -> Fast {
    Fast {
        utilization_percent: Some(65),
        memory_utilization_percent: Some(0),
        encoder_utilization_percent: Some(1),
        decoder_utilization_percent: Some(2),
        memory: Some(Memory {
            total: 85_899_345_920,
            used: 1_048_576_000,
            free: 84_000_000_000,
            reserved: Some(850_769_920),
        }),
        temperatures_celsius: vec![("gpu", 41), ("memory", 52)],
        fan_speeds_percent: vec![(0, 30), (1, 31)],
        power_milliwatts: Some(123_456),
        clock_sm_mhz: Some(1980),
        clock_memory_mhz: Some(2619),
        clock_graphics_mhz: Some(1979),
        clock_video_mhz: Some(1545),
        performance_state: Some(0),
        throttle_reasons: vec![("gpu_idle", false), ("sw_power_cap", true)],
        activity: activity(25.0),
    }
}

fn activity(percent: f64) -> Activity {
    Activity {
        sm_active_percent: Some(percent),
        sm_occupancy_percent: Some(percent + 1.0),
        tensor_active_percent: Some(percent + 2.5),
        dram_active_percent: Some(percent + 3.0),
        fp16_active_percent: Some(percent + 4.0),
        fp32_active_percent: Some(percent + 5.0),
        fp64_active_percent: Some(percent + 6.0),
        int_active_percent: Some(percent + 7.0),
        graphics_active_percent: Some(percent + 8.0),
    }
}

fn slow() -> Slow {
    Slow {
        power_limit_milliwatts: Some(700_000),
        clocks_max_mhz: vec![("sm", 1980), ("memory", 2620)],
        bar1: Some((137_438_953_472, 7_340_032)),
        pcie_generation: Limits {
            current: Some(4),
            max: Some(5),
        },
        pcie_width: Limits {
            current: None,
            max: Some(16),
        },
        nvlinks_up: vec![(0, true), (1, false)],
        retired_pages: vec![("single_bit_ecc", 1), ("double_bit_ecc", 2)],
        remapped_rows: vec![("corrected", 3), ("uncorrected", 4)],
        row_remap_pending: Some(false),
        row_remap_failed: Some(true),
    }
}

fn counters() -> Counters {
    Counters {
        throttle_nanoseconds: vec![("sw_power_cap", 1_500_000_000)],
        pcie_rx_bytes: Some(1 << 60),
        pcie_rx_bytes_per_second: Some(1500.5),
        pcie_tx_bytes_per_second: None,
        pcie_tx_bytes: Some(11),
        pcie_replays: Some(12),
        nvlink_rx_bytes: vec![(0, 13), (1, 14)],
        nvlink_tx_bytes: vec![(0, 15)],
        nvlink_errors: vec![(0, "replay", 16), (0, "crc", 17)],
        ecc_errors: vec![
            ("corrected", "volatile", 18),
            ("uncorrected", "aggregate", 19),
        ],
    }
}

fn xid(count: u64, seconds: u64) -> Xid {
    Xid {
        count,
        last: UNIX_EPOCH + Duration::from_secs(seconds),
    }
}

/// A GPU that MIG has cut: instance 1 has one compute instance, instance 2 has two.
pub(in crate::page) fn cut() -> DeviceFacts {
    let instance = |gpu_instance, compute_instance, uuid: &str, profile: &str| MigDevice {
        gpu_instance,
        compute_instance,
        uuid: uuid.to_owned(),
        profile: profile.to_owned(),
        memory: Some(Memory {
            total: 10_000_000_000 * u64::from(gpu_instance),
            used: u64::from(gpu_instance) << 21,
            free: 5,
            reserved: None,
        }),
        processes: Some(1),
        activity: Activity {
            tensor_active_percent: Some(f64::from(gpu_instance) * 10.0),
            ..Activity::default()
        },
    };
    DeviceFacts {
        identity: identity(1).into(),
        mig: vec![
            instance(1, 0, "MIG-a", "1g.10gb"),
            instance(2, 0, "MIG-b", "2g.20gb"),
            instance(2, 1, "MIG-c", "2g.20gb"),
        ],
        ..full()
    }
}

pub(in crate::page) fn worker() -> GpuProcess {
    GpuProcess {
        key: Key {
            pid: 42,
            start_nanoseconds: 10_000_000,
        },
        memory: vec![(None, 5_000)],
        listed: true,
        utilization: Some(ProcessUtilization {
            sm_percent: 50.5,
            memory_percent: 20.0,
            encoder_percent: 0.0,
            decoder_percent: 1.0,
        }),
        energy_microjoules: Some(234_567_890),
    }
}

fn name(text: &[u8]) -> Name {
    let mut bytes = [0; 16];
    bytes[..text.len()].copy_from_slice(text);
    Name::from_bytes(bytes)
}

/// Facts of these GPUs under a driver that is up.
pub(in crate::page) fn facts(devices: Vec<DeviceFacts>) -> GpuFacts {
    GpuFacts {
        driver_up: Some(true),
        driver: Some(driver()),
        reinitializations: 3,
        devices,
    }
}
