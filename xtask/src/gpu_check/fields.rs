//! What nvidia-smi is asked.

/// A field of `--query-gpu`, and its older name.
pub(super) type Field = (&'static str, Option<&'static str>);

/// What is asked for. Fields that a version of nvidia-smi does not know are left out.
pub(super) const FIELDS: &[Field] = &[
    ("index", None),
    ("uuid", Some("gpu_uuid")),
    ("name", Some("gpu_name")),
    ("driver_version", None),
    ("pci.bus_id", Some("gpu_bus_id")),
    ("vbios_version", None),
    ("utilization.gpu", None),
    ("utilization.memory", None),
    ("utilization.encoder", None),
    ("utilization.decoder", None),
    ("memory.total", None),
    ("memory.used", None),
    ("memory.free", None),
    ("memory.reserved", None),
    ("temperature.gpu", None),
    ("temperature.memory", None),
    ("fan.speed", None),
    ("power.draw", None),
    ("enforced.power.limit", None),
    ("clocks.current.sm", Some("clocks.sm")),
    ("clocks.current.memory", Some("clocks.mem")),
    ("clocks.current.graphics", Some("clocks.gr")),
    ("clocks.current.video", Some("clocks.video")),
    ("clocks.max.sm", None),
    ("clocks.max.memory", Some("clocks.max.mem")),
    ("clocks.max.graphics", Some("clocks.max.gr")),
    ("pstate", None),
    ("pcie.link.gen.current", None),
    ("pcie.link.gen.max", None),
    ("pcie.link.width.current", None),
    ("pcie.link.width.max", None),
    ("ecc.errors.corrected.volatile.total", None),
    ("ecc.errors.uncorrected.volatile.total", None),
    ("ecc.errors.corrected.aggregate.total", None),
    ("ecc.errors.uncorrected.aggregate.total", None),
    ("retired_pages.single_bit_ecc.count", None),
    ("retired_pages.double_bit.count", None),
    ("remapped_rows.correctable", None),
    ("remapped_rows.uncorrectable", None),
    ("remapped_rows.pending", None),
    ("remapped_rows.failure", None),
    (
        "clocks_event_reasons.gpu_idle",
        Some("clocks_throttle_reasons.gpu_idle"),
    ),
    (
        "clocks_event_reasons.applications_clocks_setting",
        Some("clocks_throttle_reasons.applications_clocks_setting"),
    ),
    (
        "clocks_event_reasons.sw_power_cap",
        Some("clocks_throttle_reasons.sw_power_cap"),
    ),
    (
        "clocks_event_reasons.hw_slowdown",
        Some("clocks_throttle_reasons.hw_slowdown"),
    ),
    (
        "clocks_event_reasons.sync_boost",
        Some("clocks_throttle_reasons.sync_boost"),
    ),
    (
        "clocks_event_reasons.sw_thermal_slowdown",
        Some("clocks_throttle_reasons.sw_thermal_slowdown"),
    ),
    (
        "clocks_event_reasons.hw_thermal_slowdown",
        Some("clocks_throttle_reasons.hw_thermal_slowdown"),
    ),
    (
        "clocks_event_reasons.hw_power_brake_slowdown",
        Some("clocks_throttle_reasons.hw_power_brake_slowdown"),
    ),
    ("clocks_event_reasons_counters.sw_power_cap", None),
    ("clocks_event_reasons_counters.sync_boost", None),
    ("clocks_event_reasons_counters.sw_thermal_slowdown", None),
    ("clocks_event_reasons_counters.hw_thermal_slowdown", None),
    (
        "clocks_event_reasons_counters.hw_power_brake_slowdown",
        None,
    ),
];
