//! What a GPU shows now.

use super::{Family, Labelled, Labels, Page, Part, Value, listed};
use crate::gpu::facts::{DeviceFacts, Limits, Slow};
use std::fmt;

/// Families with one series for each GPU; memory, activity and processes also for each instance.
const FAMILIES: [Family; 33] = [
    (
        "esnode_gpu_up",
        "Whether the agent's last sample of the GPU succeeded and is not older than three \
         intervals: 1 or 0",
        |part| Some(part.device?.up.into()),
    ),
    (
        "esnode_gpu_sample_age_seconds",
        "Time since the agent's last sample of the GPU that succeeded, in seconds",
        |part| Some(part.device?.age?.as_secs_f64().into()),
    ),
    (
        "esnode_gpu_sample_duration_seconds",
        "How long the NVML calls of the agent's last sample of the GPU took, in seconds",
        |part| Some(part.device?.sample_duration?.as_secs_f64().into()),
    ),
    (
        "esnode_gpu_utilization_percent",
        "Time in which at least one kernel ran, in percent of the driver's last period \
         (nvmlDeviceGetUtilizationRates)",
        |part| Some(part.fast()?.utilization_percent?.into()),
    ),
    (
        "esnode_gpu_memory_utilization_percent",
        "Time in which device memory was read or written, in percent of the driver's last period \
         (nvmlDeviceGetUtilizationRates)",
        |part| Some(part.fast()?.memory_utilization_percent?.into()),
    ),
    (
        "esnode_gpu_encoder_utilization_percent",
        "Time in which the video encoder was busy, in percent of the driver's last period \
         (nvmlDeviceGetEncoderUtilization)",
        |part| Some(part.fast()?.encoder_utilization_percent?.into()),
    ),
    (
        "esnode_gpu_decoder_utilization_percent",
        "Time in which the video decoder was busy, in percent of the driver's last period \
         (nvmlDeviceGetDecoderUtilization)",
        |part| Some(part.fast()?.decoder_utilization_percent?.into()),
    ),
    (
        "esnode_gpu_memory_total_bytes",
        "Device memory that is installed, in bytes (nvmlDeviceGetMemoryInfo)",
        |part| Some(part.memory?.total.into()),
    ),
    (
        "esnode_gpu_memory_used_bytes",
        "Device memory that is allocated, in bytes (nvmlDeviceGetMemoryInfo)",
        |part| Some(part.memory?.used.into()),
    ),
    (
        "esnode_gpu_memory_free_bytes",
        "Device memory that is not allocated, in bytes (nvmlDeviceGetMemoryInfo)",
        |part| Some(part.memory?.free.into()),
    ),
    (
        "esnode_gpu_memory_reserved_bytes",
        "Device memory that driver and firmware keep for themselves, in bytes \
         (nvmlDeviceGetMemoryInfo_v2)",
        |part| Some(part.memory?.reserved?.into()),
    ),
    (
        "esnode_gpu_bar1_total_bytes",
        "Window through which host and other devices reach device memory, in bytes \
         (nvmlDeviceGetBAR1MemoryInfo)",
        |part| Some(part.slow()?.bar1?.0.into()),
    ),
    (
        "esnode_gpu_bar1_used_bytes",
        "What of that window is mapped, in bytes (nvmlDeviceGetBAR1MemoryInfo)",
        |part| Some(part.slow()?.bar1?.1.into()),
    ),
    (
        "esnode_gpu_power_watts",
        "Power that the board draws, in watts, by the driver's own averaging \
         (nvmlDeviceGetPowerUsage)",
        |part| Some(Value::of_thousandths(part.fast()?.power_milliwatts?)),
    ),
    (
        "esnode_gpu_power_limit_watts",
        "Power limit that the driver enforces, in watts (nvmlDeviceGetEnforcedPowerLimit)",
        |part| Some(Value::of_thousandths(part.slow()?.power_limit_milliwatts?)),
    ),
    (
        "esnode_gpu_clock_sm_mhz",
        "Clock of the streaming multiprocessors, in MHz (nvmlDeviceGetClockInfo)",
        |part| Some(part.fast()?.clock_sm_mhz?.into()),
    ),
    (
        "esnode_gpu_clock_memory_mhz",
        "Clock of device memory, in MHz (nvmlDeviceGetClockInfo)",
        |part| Some(part.fast()?.clock_memory_mhz?.into()),
    ),
    (
        "esnode_gpu_clock_graphics_mhz",
        "Clock of graphics, in MHz (nvmlDeviceGetClockInfo)",
        |part| Some(part.fast()?.clock_graphics_mhz?.into()),
    ),
    (
        "esnode_gpu_clock_video_mhz",
        "Clock of video encoder and decoder, in MHz (nvmlDeviceGetClockInfo)",
        |part| Some(part.fast()?.clock_video_mhz?.into()),
    ),
    (
        "esnode_gpu_performance_state",
        "Performance state P0, the fastest, to P15 (nvmlDeviceGetPerformanceState)",
        |part| Some(part.fast()?.performance_state?.into()),
    ),
    (
        "esnode_gpu_processes",
        "Processes that compute on the GPU, by the driver's list, known in /proc or not \
         (nvmlDeviceGetComputeRunningProcesses)",
        |part| Some(part.processes?.into()),
    ),
    (
        "esnode_gpu_unknown_processes",
        "Process ids that the driver names as users of the GPU and /proc does not have: of another \
         PID namespace, or ended; no series are theirs (nvmlDeviceGetComputeRunningProcesses)",
        |part| {
            part.fast()?;
            Some(part.device?.unknown_processes?.into())
        },
    ),
    (
        "esnode_gpu_row_remap_pending",
        "Whether a row of device memory waits for a reset to be replaced: 1 or 0 \
         (nvmlDeviceGetFieldValues)",
        |part| Some(part.slow()?.row_remap_pending?.into()),
    ),
    (
        "esnode_gpu_row_remap_failed",
        "Whether replacing a row of device memory failed: 1 or 0 (nvmlDeviceGetFieldValues)",
        |part| Some(part.slow()?.row_remap_failed?.into()),
    ),
    (
        "esnode_gpu_sm_active_percent",
        "Time in which a streaming multiprocessor had a warp, mean over all of them, in percent of \
         the agent's last interval, sampled by the chip (nvmlGpmMetricsGet)",
        |part| Some(part.activity?.sm_active_percent?.into()),
    ),
    (
        "esnode_gpu_sm_occupancy_percent",
        "Warps that were resident, in percent of those that fit, over the agent's last interval, \
         sampled by the chip (nvmlGpmMetricsGet)",
        |part| Some(part.activity?.sm_occupancy_percent?.into()),
    ),
    (
        "esnode_gpu_tensor_active_percent",
        "Time in which tensor cores were busy, in percent of the agent's last interval, sampled by \
         the chip (nvmlGpmMetricsGet)",
        |part| Some(part.activity?.tensor_active_percent?.into()),
    ),
    (
        "esnode_gpu_dram_active_percent",
        "Bandwidth of device memory that was used, in percent of what there is, over the agent's \
         last interval, sampled by the chip (nvmlGpmMetricsGet)",
        |part| Some(part.activity?.dram_active_percent?.into()),
    ),
    (
        "esnode_gpu_fp16_active_percent",
        "Time in which the half precision pipes were busy, in percent of the agent's last \
         interval, sampled by the chip (nvmlGpmMetricsGet)",
        |part| Some(part.activity?.fp16_active_percent?.into()),
    ),
    (
        "esnode_gpu_fp32_active_percent",
        "Time in which the single precision pipes were busy, in percent of the agent's last \
         interval, sampled by the chip (nvmlGpmMetricsGet)",
        |part| Some(part.activity?.fp32_active_percent?.into()),
    ),
    (
        "esnode_gpu_fp64_active_percent",
        "Time in which the double precision pipes were busy, in percent of the agent's last \
         interval, sampled by the chip (nvmlGpmMetricsGet)",
        |part| Some(part.activity?.fp64_active_percent?.into()),
    ),
    (
        "esnode_gpu_int_active_percent",
        "Time in which the integer pipes were busy, in percent of the agent's last interval, \
         sampled by the chip (nvmlGpmMetricsGet)",
        |part| Some(part.activity?.int_active_percent?.into()),
    ),
    (
        "esnode_gpu_graphics_active_percent",
        "Time in which the graphics and compute engine was busy, in percent of the agent's last \
         interval, sampled by the chip (nvmlGpmMetricsGet)",
        |part| Some(part.activity?.graphics_active_percent?.into()),
    ),
];

pub(super) fn encode(
    page: &mut Page<'_>,
    parts: &[Part<'_>],
    devices: &[DeviceFacts],
) -> fmt::Result {
    for (name, help, value) in FAMILIES {
        page.gauge(
            name,
            help,
            parts
                .iter()
                .filter_map(|part| Some((part.labels(), value(part)?))),
        )?;
    }
    encode_fast(page, devices)?;
    encode_slow(page, devices)
}

fn encode_fast(page: &mut Page<'_>, devices: &[DeviceFacts]) -> fmt::Result {
    page.gauge(
        "esnode_gpu_temperature_celsius",
        "Temperature by sensor: the chip (gpu), its memory (nvmlDeviceGetTemperature, \
         nvmlDeviceGetFieldValues)",
        listed(devices, "sensor", |device| {
            Some(&device.fast.as_ref()?.temperatures_celsius)
        }),
    )?;
    page.gauge(
        "esnode_gpu_fan_speed_percent",
        "Speed that a fan is set to, in percent of its most (nvmlDeviceGetFanSpeed_v2)",
        listed(devices, "fan", |device| {
            Some(&device.fast.as_ref()?.fan_speeds_percent)
        }),
    )?;
    page.gauge(
        "esnode_gpu_throttle_reason",
        "Whether this holds clocks down now, for every reason that the driver knows: 1 or 0 \
         (nvmlDeviceGetCurrentClocksEventReasons)",
        listed(devices, "reason", |device| {
            Some(&device.fast.as_ref()?.throttle_reasons)
        }),
    )
}

fn encode_slow(page: &mut Page<'_>, devices: &[DeviceFacts]) -> fmt::Result {
    page.gauge(
        "esnode_gpu_clock_max_mhz",
        "Highest setting of a clock, in MHz (nvmlDeviceGetMaxClockInfo)",
        listed(devices, "clock", |device| {
            Some(&device.slow.as_ref()?.clocks_max_mhz)
        }),
    )?;
    page.gauge(
        "esnode_gpu_pcie_link_generation",
        "Generation of the PCIe link: in use now (it falls when idle), and what GPU and slot can \
         do (nvmlDeviceGetCurrPcieLinkGeneration, nvmlDeviceGetMaxPcieLinkGeneration)",
        limited(devices, |slow| slow.pcie_generation),
    )?;
    page.gauge(
        "esnode_gpu_pcie_link_width",
        "Lanes of the PCIe link: in use now, and what GPU and slot can do \
         (nvmlDeviceGetCurrPcieLinkWidth, nvmlDeviceGetMaxPcieLinkWidth)",
        limited(devices, |slow| slow.pcie_width),
    )?;
    page.gauge(
        "esnode_gpu_nvlink_up",
        "Whether an NVLink is up: 1 or 0 (nvmlDeviceGetNvLinkState)",
        listed(devices, "link", |device| {
            Some(&device.slow.as_ref()?.nvlinks_up)
        }),
    )?;
    page.gauge(
        "esnode_gpu_retired_pages",
        "Pages of device memory that are out of use for good, by cause \
         (nvmlDeviceGetFieldValues)",
        listed(devices, "cause", |device| {
            Some(&device.slow.as_ref()?.retired_pages)
        }),
    )?;
    page.gauge(
        "esnode_gpu_remapped_rows",
        "Rows of device memory that spare ones replace, by the errors that caused it \
         (nvmlDeviceGetFieldValues)",
        listed(devices, "cause", |device| {
            Some(&device.slow.as_ref()?.remapped_rows)
        }),
    )
}

/// Samples of a setting and its maximum.
fn limited(
    devices: &[DeviceFacts],
    limits: impl Fn(&Slow) -> Limits,
) -> impl Iterator<Item = (Labelled<'_, &'static str>, u32)> {
    devices.iter().flat_map(move |device| {
        let limits = device.slow.as_ref().map(&limits).unwrap_or_default();
        [("current", limits.current), ("max", limits.max)]
            .into_iter()
            .filter_map(|(limit, value)| Some(((Labels::of(device), [("limit", limit)]), value?)))
    })
}
