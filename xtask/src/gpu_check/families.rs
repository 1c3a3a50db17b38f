//! What on our page is what in nvidia-smi.

/// Labels of `esnode_gpu_info` and the fields that they have to equal.
pub(super) const IDENTITY: [(&str, &str); 4] = [
    ("name", "name"),
    ("driver_version", "driver_version"),
    ("pci_bus_id", "pci.bus_id"),
    ("vbios", "vbios_version"),
];

/// How often the agent reads it, by default.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Group {
    /// Every second.
    Fast,
    /// Every 30 seconds.
    Slow,
}

/// A series of ours and the field that it has to agree with.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rule {
    pub(super) family: &'static str,
    /// Labels beside those of the GPU.
    pub(super) labels: &'static [(&'static str, &'static str)],
    pub(super) field: &'static str,
    /// Our unit in theirs.
    pub(super) scale: f64,
    /// How far ours may be out of what nvidia-smi says before and after, in our unit,
    pub(super) slack: f64,
    /// and that as a part of the larger of those.
    pub(super) relative: f64,
    pub(super) group: Group,
}

const MIB: f64 = 1_048_576.0;
const FAST: Group = Group::Fast;
const SLOW: Group = Group::Slow;

const fn rule(family: &'static str, field: &'static str, slack: f64, group: Group) -> Rule {
    Rule {
        family,
        labels: &[],
        field,
        scale: 1.0,
        slack,
        relative: 0.0,
        group,
    }
}

/// A limit or a state, which has to be one of those that nvidia-smi saw.
const fn labelled(
    family: &'static str,
    labels: &'static [(&'static str, &'static str)],
    field: &'static str,
    group: Group,
) -> Rule {
    Rule {
        labels,
        ..rule(family, field, 0.0, group)
    }
}

/// Memory, which nvidia-smi shows in whole MiB.
const fn memory(family: &'static str, field: &'static str) -> Rule {
    Rule {
        scale: MIB,
        ..rule(family, field, MIB, FAST)
    }
}

/// A clock: it comes in steps of 15 MHz, and moves with temperature and power.
const fn clock(family: &'static str, field: &'static str) -> Rule {
    Rule {
        relative: 0.02,
        ..rule(family, field, 30.0, FAST)
    }
}

/// Microseconds there, seconds here.
const fn throttled(labels: &'static [(&'static str, &'static str)], field: &'static str) -> Rule {
    Rule {
        scale: 1e-6,
        slack: 0.001,
        ..labelled("esnode_gpu_throttle_seconds_total", labels, field, FAST)
    }
}

const POWER: Rule = Rule {
    relative: 0.05,
    ..rule("esnode_gpu_power_watts", "power.draw", 5.0, FAST)
};

const ECC: &str = "esnode_gpu_ecc_errors_total";
const CLOCK_MAX: &str = "esnode_gpu_clock_max_mhz";
const GENERATION: &str = "esnode_gpu_pcie_link_generation";
const WIDTH: &str = "esnode_gpu_pcie_link_width";
const RETIRED: &str = "esnode_gpu_retired_pages";
const REMAPPED: &str = "esnode_gpu_remapped_rows";
const REASON: &str = "esnode_gpu_throttle_reason";
const TEMPERATURE: &str = "esnode_gpu_temperature_celsius";

/// Everything that both have.
pub(super) const RULES: &[Rule] = &[
    rule(
        "esnode_gpu_utilization_percent",
        "utilization.gpu",
        10.0,
        FAST,
    ),
    rule(
        "esnode_gpu_memory_utilization_percent",
        "utilization.memory",
        10.0,
        FAST,
    ),
    rule(
        "esnode_gpu_encoder_utilization_percent",
        "utilization.encoder",
        10.0,
        FAST,
    ),
    rule(
        "esnode_gpu_decoder_utilization_percent",
        "utilization.decoder",
        10.0,
        FAST,
    ),
    memory("esnode_gpu_memory_total_bytes", "memory.total"),
    memory("esnode_gpu_memory_used_bytes", "memory.used"),
    memory("esnode_gpu_memory_free_bytes", "memory.free"),
    memory("esnode_gpu_memory_reserved_bytes", "memory.reserved"),
    Rule {
        slack: 2.0,
        ..labelled(TEMPERATURE, &[("sensor", "gpu")], "temperature.gpu", FAST)
    },
    Rule {
        slack: 2.0,
        ..labelled(
            TEMPERATURE,
            &[("sensor", "memory")],
            "temperature.memory",
            FAST,
        )
    },
    Rule {
        slack: 3.0,
        ..labelled(
            "esnode_gpu_fan_speed_percent",
            &[("fan", "0")],
            "fan.speed",
            FAST,
        )
    },
    POWER,
    rule(
        "esnode_gpu_power_limit_watts",
        "enforced.power.limit",
        0.01,
        SLOW,
    ),
    clock("esnode_gpu_clock_sm_mhz", "clocks.current.sm"),
    clock("esnode_gpu_clock_memory_mhz", "clocks.current.memory"),
    clock("esnode_gpu_clock_graphics_mhz", "clocks.current.graphics"),
    clock("esnode_gpu_clock_video_mhz", "clocks.current.video"),
    labelled(CLOCK_MAX, &[("clock", "sm")], "clocks.max.sm", SLOW),
    labelled(CLOCK_MAX, &[("clock", "memory")], "clocks.max.memory", SLOW),
    labelled(
        CLOCK_MAX,
        &[("clock", "graphics")],
        "clocks.max.graphics",
        SLOW,
    ),
    rule("esnode_gpu_performance_state", "pstate", 0.0, FAST),
    labelled(
        GENERATION,
        &[("limit", "current")],
        "pcie.link.gen.current",
        SLOW,
    ),
    labelled(GENERATION, &[("limit", "max")], "pcie.link.gen.max", SLOW),
    labelled(
        WIDTH,
        &[("limit", "current")],
        "pcie.link.width.current",
        SLOW,
    ),
    labelled(WIDTH, &[("limit", "max")], "pcie.link.width.max", SLOW),
    labelled(
        ECC,
        &[("kind", "corrected"), ("scope", "volatile")],
        "ecc.errors.corrected.volatile.total",
        SLOW,
    ),
    labelled(
        ECC,
        &[("kind", "uncorrected"), ("scope", "volatile")],
        "ecc.errors.uncorrected.volatile.total",
        SLOW,
    ),
    labelled(
        ECC,
        &[("kind", "corrected"), ("scope", "aggregate")],
        "ecc.errors.corrected.aggregate.total",
        SLOW,
    ),
    labelled(
        ECC,
        &[("kind", "uncorrected"), ("scope", "aggregate")],
        "ecc.errors.uncorrected.aggregate.total",
        SLOW,
    ),
    labelled(
        RETIRED,
        &[("cause", "single_bit_ecc")],
        "retired_pages.single_bit_ecc.count",
        SLOW,
    ),
    labelled(
        RETIRED,
        &[("cause", "double_bit_ecc")],
        "retired_pages.double_bit.count",
        SLOW,
    ),
    labelled(
        REMAPPED,
        &[("cause", "corrected")],
        "remapped_rows.correctable",
        SLOW,
    ),
    labelled(
        REMAPPED,
        &[("cause", "uncorrected")],
        "remapped_rows.uncorrectable",
        SLOW,
    ),
    rule(
        "esnode_gpu_row_remap_pending",
        "remapped_rows.pending",
        0.0,
        SLOW,
    ),
    rule(
        "esnode_gpu_row_remap_failed",
        "remapped_rows.failure",
        0.0,
        SLOW,
    ),
    labelled(
        REASON,
        &[("reason", "gpu_idle")],
        "clocks_event_reasons.gpu_idle",
        FAST,
    ),
    labelled(
        REASON,
        &[("reason", "applications_clocks_setting")],
        "clocks_event_reasons.applications_clocks_setting",
        FAST,
    ),
    labelled(
        REASON,
        &[("reason", "sw_power_cap")],
        "clocks_event_reasons.sw_power_cap",
        FAST,
    ),
    labelled(
        REASON,
        &[("reason", "hw_slowdown")],
        "clocks_event_reasons.hw_slowdown",
        FAST,
    ),
    labelled(
        REASON,
        &[("reason", "sync_boost")],
        "clocks_event_reasons.sync_boost",
        FAST,
    ),
    labelled(
        REASON,
        &[("reason", "sw_thermal_slowdown")],
        "clocks_event_reasons.sw_thermal_slowdown",
        FAST,
    ),
    labelled(
        REASON,
        &[("reason", "hw_thermal_slowdown")],
        "clocks_event_reasons.hw_thermal_slowdown",
        FAST,
    ),
    labelled(
        REASON,
        &[("reason", "hw_power_brake_slowdown")],
        "clocks_event_reasons.hw_power_brake_slowdown",
        FAST,
    ),
    throttled(
        &[("reason", "sw_power_cap")],
        "clocks_event_reasons_counters.sw_power_cap",
    ),
    throttled(
        &[("reason", "sync_boost")],
        "clocks_event_reasons_counters.sync_boost",
    ),
    throttled(
        &[("reason", "sw_thermal_slowdown")],
        "clocks_event_reasons_counters.sw_thermal_slowdown",
    ),
    throttled(
        &[("reason", "hw_thermal_slowdown")],
        "clocks_event_reasons_counters.hw_thermal_slowdown",
    ),
    throttled(
        &[("reason", "hw_power_brake_slowdown")],
        "clocks_event_reasons_counters.hw_power_brake_slowdown",
    ),
];

/// Columns of `pmon` and engines of ours. `pmon` shows the driver's last sample, the page the
/// mean of those of the agent's last interval.
pub(super) const ENGINES: [(&str, &str); 4] = [
    ("sm", "sm"),
    ("mem", "memory"),
    ("enc", "encoder"),
    ("dec", "decoder"),
];

/// How far the one may be from the other, in percent of the engine.
pub(super) const ENGINE_SLACK: f64 = 20.0;

#[cfg(test)]
mod tests {
    use super::{super::fields::FIELDS, *};

    #[test]
    fn every_field_of_a_rule_is_asked_for() {
        let asked = |field: &str| FIELDS.iter().any(|(name, _)| *name == field);
        for rule in RULES {
            assert!(asked(rule.field), "{}", rule.field);
        }
        for (_, field) in IDENTITY {
            assert!(asked(field), "{field}");
        }
    }
}
