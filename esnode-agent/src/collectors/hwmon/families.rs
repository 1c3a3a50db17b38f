//! The agent's own families of chips.

use super::{HwmonFacts, Said, sensors::is_alarm};
use crate::page::Page;
use std::fmt;

/// A family: name, meaning, kind of sensor, which of its attributes in the order of preference, and
/// how many of the kernel's units make one.
type Family = (
    &'static str,
    &'static str,
    &'static str,
    &'static [&'static str],
    f64,
);

const GAUGES: [Family; 6] = [
    (
        "esnode_hwmon_temperature_celsius",
        "Temperature, tempN_input of /sys/class/hwmon",
        "temp",
        &["input"],
        1e3,
    ),
    (
        "esnode_hwmon_temperature_critical_celsius",
        "Temperature from which on the hardware is in danger, tempN_crit of /sys/class/hwmon; read \
         once a minute",
        "temp",
        &["crit"],
        1e3,
    ),
    (
        "esnode_hwmon_fan_rpm",
        "Speed of the fan in revolutions per minute, fanN_input of /sys/class/hwmon",
        "fan",
        &["input"],
        1.0,
    ),
    (
        "esnode_hwmon_power_watts",
        "Power, powerN_average of /sys/class/hwmon, over the chip's own interval, or else \
         powerN_input",
        "power",
        &["average", "input"],
        1e6,
    ),
    (
        "esnode_hwmon_voltage_volts",
        "Voltage, inN_input of /sys/class/hwmon",
        "in",
        &["input"],
        1e3,
    ),
    (
        "esnode_hwmon_current_amperes",
        "Current, currN_input of /sys/class/hwmon",
        "curr",
        &["input"],
        1e3,
    ),
];

const ENERGY: Family = (
    "esnode_hwmon_energy_joules",
    "Energy that the sensor has counted, energyN_input of /sys/class/hwmon",
    "energy",
    &["input"],
    1e6,
);

/// Kinds in plain words; the others are so already.
fn kind(kind: &str) -> &str {
    match kind {
        "temp" => "temperature",
        "in" => "voltage",
        "curr" => "current",
        other => other,
    }
}

/// Of a file that says 0 or 1.
fn flag(value: f64) -> u32 {
    u32::from(value != 0.0)
}

/// Writes all of them.
pub(super) fn encode(facts: &HwmonFacts, page: &mut Page<'_>) -> fmt::Result {
    let named = |(chip, _): &Said| {
        let name = chip.name.clone()?;
        Some(([("chip", chip.id.clone()), ("name", name)], 1_u32))
    };
    page.gauge(
        "esnode_hwmon_chip_info",
        "The chip by its device, and by its driver, name of /sys/class/hwmon",
        facts.chips.iter().filter_map(named),
    )?;
    let samples = |(_, _, kind, elements, per_unit): Family| {
        let told = facts.sensors().filter(move |it| it.sensor.kind == kind);
        told.filter_map(move |it| Some((it.labels(), it.reading(elements)? / per_unit)))
    };
    for family in GAUGES {
        page.gauge(family.0, family.1, samples(family))?;
    }
    page.counter(ENERGY.0, ENERGY.1, samples(ENERGY))?;
    encode_alarms(facts, page)
}

fn encode_alarms(facts: &HwmonFacts, page: &mut Page<'_>) -> fmt::Result {
    let alarms = facts.sensors().flat_map(|told| {
        told.attributes().filter_map(move |(attribute, value)| {
            let element = attribute.element.as_str();
            let limit = element
                .strip_suffix("alarm")
                .filter(|_| is_alarm(element))?;
            let [chip, sensor] = told.labels();
            let labels = [
                chip,
                sensor,
                ("kind", kind(told.sensor.kind)),
                ("limit", limit.trim_end_matches('_')),
            ];
            Some((labels, flag(value)))
        })
    });
    page.gauge(
        "esnode_hwmon_alarm",
        "1: the chip says that the sensor passed this limit, or any if that is empty, *_alarm \
         of /sys/class/hwmon",
        alarms,
    )?;
    page.gauge(
        "esnode_hwmon_fault",
        "1: the chip says that the sensor is broken; its reading is absent then, *_fault of \
         /sys/class/hwmon",
        facts.sensors().filter_map(|told| {
            let [chip, sensor] = told.labels();
            let labels = [chip, sensor, ("kind", kind(told.sensor.kind))];
            Some((labels, told.value("fault").map(flag)?))
        }),
    )
}

#[cfg(test)]
mod tests {
    use super::super::{HwmonCollector, fixture::*};
    use crate::{
        collectors::fixture::{Host, samples},
        page::Names,
    };
    use std::time::Duration;

    /// The page of a host with this chip.
    fn page(chip: &TestChip<'_>) -> Vec<String> {
        let host = Host::new(&[]);
        add(&host, 0, chip);
        let mut collector = HwmonCollector {
            wait: Duration::from_secs(10),
            ..HwmonCollector::new(&host.sysfs(), Names::Own)
        };
        let facts = collector.sample().expect("read");
        let labels = format!(r#"chip="{}""#, chip.label);
        let lines = samples(facts).into_iter();
        lines
            .map(|line| line.replace(&labels, "C").replace("esnode_hwmon_", ""))
            .collect()
    }

    #[test]
    fn temperatures_of_cores() {
        assert_eq!(
            page(&CORETEMP),
            [
                r#"chip_info{C,name="coretemp"} 1"#,
                r#"temperature_celsius{C,sensor="Package id 0"} 45.85"#,
                r#"temperature_celsius{C,sensor="Core 0"} -5.5"#,
                r#"temperature_critical_celsius{C,sensor="Package id 0"} 100.0"#,
                r#"temperature_critical_celsius{C,sensor="Core 0"} 100.0"#,
                r#"alarm{C,sensor="Package id 0",kind="temperature",limit="crit"} 0"#,
                r#"alarm{C,sensor="Core 0",kind="temperature",limit="crit"} 1"#,
            ]
        );
    }

    #[test]
    fn the_same_label_of_two_sensors() {
        assert_eq!(
            page(&K10TEMP),
            [
                r#"chip_info{C,name="k10temp"} 1"#,
                r#"temperature_celsius{C,sensor="Tctl"} 44.375"#,
                r#"temperature_celsius{C,sensor="temp3"} 40.0"#,
                r#"temperature_celsius{C,sensor="temp4"} 41.25"#,
            ]
        );
    }

    #[test]
    fn an_nvme_drive_and_a_broken_sensor() {
        assert_eq!(
            page(&NVME),
            [
                r#"chip_info{C,name="nvme"} 1"#,
                r#"temperature_celsius{C,sensor="Composite"} 30.85"#,
                r#"temperature_critical_celsius{C,sensor="Composite"} 84.85"#,
                r#"alarm{C,sensor="Composite",kind="temperature",limit=""} 0"#,
                r#"fault{C,sensor="Composite",kind="temperature"} 0"#,
                r#"fault{C,sensor="Sensor 2",kind="temperature"} 1"#,
            ]
        );
    }

    #[test]
    fn power_is_the_average_where_there_is_one() {
        assert_eq!(
            page(&POWER_METER),
            [
                r#"chip_info{C,name="power_meter"} 1"#,
                r#"power_watts{C,sensor="power1"} 344.0"#,
                r#"alarm{C,sensor="power1",kind="power",limit=""} 0"#,
            ]
        );
        assert_eq!(
            page(&AMDGPU),
            [
                r#"chip_info{C,name="amdgpu"} 1"#,
                r#"temperature_celsius{C,sensor="edge"} 35.0"#,
                r#"fan_rpm{C,sensor="fan1"} 1200.0"#,
                r#"power_watts{C,sensor="PPT"} 18.5"#,
                r#"voltage_volts{C,sensor="vddgfx"} 1.3"#,
            ]
        );
    }

    #[test]
    fn currents_and_voltages_of_a_board() {
        assert_eq!(
            page(&INA3221),
            [
                r#"chip_info{C,name="ina3221"} 1"#,
                r#"voltage_volts{C,sensor="VDD_IN"} 5.072"#,
                r#"current_amperes{C,sensor="curr1"} 1.464"#,
                r#"alarm{C,sensor="curr1",kind="current",limit="crit"} 0"#,
            ]
        );
    }

    #[test]
    fn fans_of_a_server_and_energy() {
        assert_eq!(
            page(&BOARD),
            [
                r#"chip_info{C,name="nct6775"} 1"#,
                r#"fan_rpm{C,sensor="fan1"} 8550.0"#,
                r#"fan_rpm{C,sensor="fan2"} 0.0"#,
                r#"energy_joules_total{C,sensor="energy1"} 1234.56789"#,
                r#"alarm{C,sensor="fan1",kind="fan",limit=""} 0"#,
                r#"alarm{C,sensor="fan2",kind="fan",limit="min"} 1"#,
                r#"alarm{C,sensor="intrusion0",kind="intrusion",limit=""} 1"#,
                r#"alarm{C,sensor="temp1",kind="temperature",limit="lcrit"} 0"#,
            ]
        );
    }
}
