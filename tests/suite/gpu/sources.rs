//! Which functions of NVML the families of the page come from.

/// A function, or several for the same, how the log names what it gives, and that as the page has
/// it: a family, and a label where only a part of it goes.
pub(super) type Source = (
    &'static [&'static str],
    &'static str,
    &'static [(&'static str, Option<(&'static str, &'static str)>)],
);

pub(super) const SOURCES: [Source; 22] = [
    (
        &["nvmlDeviceGetUtilizationRates"],
        "utilization",
        &[
            ("esnode_gpu_utilization_percent", None),
            ("esnode_gpu_memory_utilization_percent", None),
        ],
    ),
    (
        &["nvmlDeviceGetEncoderUtilization"],
        "encoder_utilization",
        &[("esnode_gpu_encoder_utilization_percent", None)],
    ),
    (
        &["nvmlDeviceGetDecoderUtilization"],
        "decoder_utilization",
        &[("esnode_gpu_decoder_utilization_percent", None)],
    ),
    (
        &["nvmlDeviceGetMemoryInfo_v2", "nvmlDeviceGetMemoryInfo"],
        "memory",
        &[
            ("esnode_gpu_memory_total_bytes", None),
            ("esnode_gpu_memory_used_bytes", None),
            ("esnode_gpu_memory_free_bytes", None),
            ("esnode_gpu_memory_reserved_bytes", None),
        ],
    ),
    (
        &["nvmlDeviceGetTemperature"],
        "temperature",
        &[("esnode_gpu_temperature_celsius", Some(("sensor", "gpu")))],
    ),
    (
        &["nvmlDeviceGetNumFans"],
        "fans",
        &[("esnode_gpu_fan_speed_percent", None)],
    ),
    (
        &["nvmlDeviceGetPowerUsage"],
        "power",
        &[("esnode_gpu_power_watts", None)],
    ),
    (
        &["nvmlDeviceGetClockInfo"],
        "clock_sm",
        &[
            ("esnode_gpu_clock_sm_mhz", None),
            ("esnode_gpu_clock_memory_mhz", None),
            ("esnode_gpu_clock_graphics_mhz", None),
            ("esnode_gpu_clock_video_mhz", None),
        ],
    ),
    (
        &["nvmlDeviceGetMaxClockInfo"],
        "clock_max",
        &[("esnode_gpu_clock_max_mhz", None)],
    ),
    (
        &["nvmlDeviceGetPerformanceState"],
        "performance_state",
        &[("esnode_gpu_performance_state", None)],
    ),
    (
        &[
            "nvmlDeviceGetCurrentClocksEventReasons",
            "nvmlDeviceGetCurrentClocksThrottleReasons",
        ],
        "throttle_reason",
        &[("esnode_gpu_throttle_reason", None)],
    ),
    (
        &["nvmlDeviceGetBAR1MemoryInfo"],
        "bar1_memory",
        &[
            ("esnode_gpu_bar1_total_bytes", None),
            ("esnode_gpu_bar1_used_bytes", None),
        ],
    ),
    (
        &["nvmlDeviceGetEnforcedPowerLimit"],
        "power_limit",
        &[("esnode_gpu_power_limit_watts", None)],
    ),
    (
        &["nvmlDeviceGetCurrPcieLinkGeneration"],
        "pcie_link_generation",
        &[(
            "esnode_gpu_pcie_link_generation",
            Some(("limit", "current")),
        )],
    ),
    (
        &["nvmlDeviceGetMaxPcieLinkWidth"],
        "pcie_link_width_max",
        &[("esnode_gpu_pcie_link_width", Some(("limit", "max")))],
    ),
    (
        &["nvmlDeviceGetPcieReplayCounter"],
        "pcie_replays",
        &[("esnode_gpu_pcie_replays_total", None)],
    ),
    (
        &["nvmlDeviceGetTotalEccErrors"],
        "ecc_",
        &[("esnode_gpu_ecc_errors_total", None)],
    ),
    (
        &["nvmlDeviceGetNvLinkErrorCounter"],
        "nvlink_",
        &[("esnode_gpu_nvlink_errors_total", None)],
    ),
    (
        &["nvmlDeviceGetFieldValues"],
        "fields",
        &[
            ("esnode_gpu_pcie_rx_bytes_total", None),
            ("esnode_gpu_pcie_tx_bytes_total", None),
            ("esnode_gpu_nvlink_rx_bytes_total", None),
            ("esnode_gpu_nvlink_tx_bytes_total", None),
            ("esnode_gpu_throttle_seconds_total", None),
            ("esnode_gpu_remapped_rows", None),
            ("esnode_gpu_row_remap_pending", None),
            ("esnode_gpu_row_remap_failed", None),
            ("esnode_gpu_temperature_celsius", Some(("sensor", "memory"))),
        ],
    ),
    (
        &["nvmlDeviceGetTotalEnergyConsumption"],
        "energy",
        &[
            ("esnode_gpu_energy_joules_total", None),
            ("esnode_unattributed_gpu_energy_joules_total", None),
            ("esnode_group_gpu_energy_joules_total", None),
            ("esnode_process_gpu_energy_joules_total", None),
        ],
    ),
    (
        &["nvmlDeviceGetComputeRunningProcesses_v3"],
        "processes",
        &[
            ("esnode_gpu_processes", None),
            ("esnode_gpu_unknown_processes", None),
            ("esnode_process_gpu_memory_used_bytes", None),
            ("esnode_group_gpu_memory_used_bytes", None),
            // Whoever isn't listed may have no sample and still be in the group.
            ("esnode_group_gpu_utilization_percent", None),
        ],
    ),
    (
        &[
            "nvmlDeviceGetProcessUtilization",
            "nvmlDeviceGetProcessesUtilizationInfo",
        ],
        "process_utilization",
        &[
            ("esnode_group_gpu_utilization_percent", None),
            ("esnode_process_gpu_utilization_percent", None),
            ("esnode_group_gpu_energy_joules_total", None),
            ("esnode_process_gpu_energy_joules_total", None),
        ],
    ),
];
