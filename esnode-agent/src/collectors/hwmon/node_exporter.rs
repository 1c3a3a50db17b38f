//! The same facts by the rule of node_exporter, which names families after the files:
//! `temp1_max_hyst` is `node_hwmon_temp_max_hyst_celsius` of the sensor `temp1`.

use super::{HwmonFacts, Told, chip::clean};
use crate::page::Page;
use std::{collections::BTreeMap, fmt};

/// How a number of the kernel becomes one on the page.
#[derive(Clone, Copy)]
enum Scale {
    Same,
    Milli,
    Micro,
}

impl Scale {
    /// As node_exporter computes, so that all digits are the same.
    fn apply(self, value: f64) -> f64 {
        match self {
            Self::Same => value,
            Self::Milli => value * 0.001,
            Self::Micro => value / 1_000_000.0,
        }
    }
}

/// The end of a family's name and its scale, by the sensor's kind and the element of the file.
fn unit(kind: &str, element: &str) -> (&'static str, Scale) {
    match (kind, element) {
        (_, "fault" | "alarm") | ("temp", "type") => ("", Scale::Same),
        (_, "beep") => ("_enabled", Scale::Same),
        ("in" | "cpu", _) => ("_volts", Scale::Milli),
        ("temp", _) => ("_celsius", Scale::Milli),
        ("curr", _) => ("_amps", Scale::Milli),
        ("energy", _) => ("_joule", Scale::Micro),
        ("power", "accuracy") | ("humidity", _) => ("", Scale::Micro),
        ("power", "average_interval" | "average_interval_min" | "average_interval_max") => {
            ("_seconds", Scale::Milli)
        }
        ("power", _) => ("_watt", Scale::Micro),
        ("fan", "input" | "min" | "max" | "target") => ("_rpm", Scale::Same),
        _ => ("", Scale::Same),
    }
}

/// The family of an element, and its scale.
fn family(told: Told<'_>, element: &str) -> (String, Scale) {
    let kind = told.sensor.kind;
    match kind {
        "beep_enable" => return ("node_hwmon_beep_enabled".to_owned(), Scale::Same),
        "vrm" => {
            return (
                "node_hwmon_voltage_regulator_version".to_owned(),
                Scale::Same,
            );
        }
        "update_interval" => {
            return (
                "node_hwmon_update_interval_seconds".to_owned(),
                Scale::Milli,
            );
        }
        _ => {}
    }
    let (unit, scale) = unit(kind, element);
    let element = match element {
        "" => String::new(),
        // The reading goes without, but if there is a file without.
        "input" if told.value("").is_none() => String::new(),
        element => format!("_{}", clean(element)),
    };
    (format!("node_hwmon_{kind}{element}{unit}"), scale)
}

/// Samples of one family, with the file that they are from.
#[derive(Default)]
struct Samples<'a> {
    file: String,
    samples: Vec<([(&'static str, &'a str); 2], f64)>,
}

/// Writes all families.
pub(super) fn encode(facts: &HwmonFacts, page: &mut Page<'_>) -> fmt::Result {
    page.gauge(
        "node_hwmon_chip_names",
        "What the driver calls the chip, name of /sys/class/hwmon",
        facts.chips.iter().filter_map(|(chip, _)| {
            let name = clean(chip.name.as_deref()?);
            let labels = [("chip", chip.id.clone()), ("chip_name", name)];
            Some((labels, 1_u32))
        }),
    )?;
    page.gauge(
        "node_hwmon_sensor_label",
        "What the driver calls the sensor, *_label of /sys/class/hwmon",
        facts.sensors().filter_map(|told| {
            let labels = [
                ("chip", told.chip.id.as_str()),
                ("label", told.sensor.label.as_deref()?),
                ("sensor", &told.sensor.id),
            ];
            Some((labels, 1_u32))
        }),
    )?;
    let mut families: BTreeMap<(bool, String), Samples<'_>> = BTreeMap::new();
    for told in facts.sensors() {
        let kind = told.sensor.kind;
        let labels = [("chip", told.chip.id.as_str()), ("sensor", &told.sensor.id)];
        for (attribute, value) in told.attributes() {
            let (name, scale) = family(told, &attribute.element);
            let family = families.entry((kind == "energy", name)).or_default();
            if family.samples.is_empty() {
                family.file = match attribute.element.as_str() {
                    "" => kind.to_owned(),
                    element => format!("{kind}N_{element}"),
                };
            }
            family.samples.push((labels, scale.apply(value)));
        }
    }
    for ((is_counter, name), Samples { file, samples }) in families {
        let help =
            format!("What sensors say by the rule of node_exporter, {file} of /sys/class/hwmon");
        if is_counter {
            page.counter(&name, &help, samples)?;
        } else {
            page.gauge(&name, &help, samples)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::{HwmonCollector, fixture::*};
    use crate::{
        collectors::fixture::{Host, node_exporter_samples},
        page::Names,
    };
    use std::time::Duration;

    /// The page of a host with these chips, by the names of node_exporter.
    fn page(chips: &[TestChip<'_>]) -> Vec<String> {
        let host = Host::new(&[]);
        for (number, chip) in (0..).zip(chips) {
            add(&host, number, chip);
        }
        // The kernel has it beside zones that are chips too.
        host.write("sys/devices/platform/coretemp.0/temp", "27800\n");
        let mut collector = HwmonCollector {
            wait: Duration::from_secs(10),
            ..HwmonCollector::new(&host.sysfs(), Names::AndNodeExporter)
        };
        let page = node_exporter_samples(collector.sample().expect("read")).into_iter();
        page.map(|line| line.replace("node_hwmon_", "")).collect()
    }

    /// What node_exporter 1.5 wrote of the same files.
    #[test]
    fn samples_are_those_of_node_exporter() {
        let board = r#"{chip="platform_nct6775_656",sensor="#;
        let gpu = r#"{chip="0000:00:01_1_0000:01:00_0",sensor="#;
        let meter = r#"{chip="lnxsybus:00_acpi000d:00",sensor="#;
        assert_eq!(
            page(&[POWER_METER, AMDGPU, BOARD]),
            [
                r#"chip_names{chip="lnxsybus:00_acpi000d:00",chip_name="power_meter"} 1"#
                    .to_owned(),
                r#"chip_names{chip="0000:00:01_1_0000:01:00_0",chip_name="amdgpu"} 1"#.to_owned(),
                r#"chip_names{chip="platform_nct6775_656",chip_name="nct6775"} 1"#.to_owned(),
                r#"sensor_label{chip="0000:00:01_1_0000:01:00_0",label="vddgfx",sensor="in0"} 1"#
                    .to_owned(),
                r#"sensor_label{chip="0000:00:01_1_0000:01:00_0",label="PPT",sensor="power1"} 1"#
                    .to_owned(),
                r#"sensor_label{chip="0000:00:01_1_0000:01:00_0",label="edge",sensor="temp1"} 1"#
                    .to_owned(),
                r#"sensor_label{chip="platform_nct6775_656",label="",sensor="in1"} 1"#.to_owned(),
                format!(r#"beep_enabled{board}"beep_enable0"}} 1.0"#),
                format!(r#"cpu_vid_volts{board}"cpu0"}} 1.1"#),
                format!(r#"fan_alarm{board}"fan1"}} 0.0"#),
                format!(r#"fan_div{board}"fan1"}} 4.0"#),
                format!(r#"fan_enable{gpu}"fan1"}} 0.0"#),
                format!(r#"fan_max_rpm{gpu}"fan1"}} 3300.0"#),
                format!(r#"fan_min_alarm{board}"fan2"}} 1.0"#),
                format!(r#"fan_min_rpm{board}"fan1"}} 500.0"#),
                format!(r#"fan_rpm{gpu}"fan1"}} 1200.0"#),
                format!(r#"fan_rpm{board}"fan1"}} 8550.0"#),
                format!(r#"fan_rpm{board}"fan2"}} 0.0"#),
                format!(r#"fan_target_rpm{gpu}"fan1"}} 1300.0"#),
                format!(r#"humidity{board}"humidity1"}} 0.045"#),
                format!(r#"in_beep_enabled{board}"in1"}} 0.0"#),
                format!(r#"in_volts{gpu}"in0"}} 1.3"#),
                format!(r#"intrusion_alarm{board}"intrusion0"}} 1.0"#),
                format!(r#"power_alarm{meter}"power1"}} 0.0"#),
                format!(r#"power_average_interval_seconds{meter}"power1"}} 1.5"#),
                format!(r#"power_average_watt{meter}"power1"}} 344.0"#),
                format!(r#"power_average_watt{gpu}"power1"}} 18.5"#),
                format!(r#"power_cap_watt{meter}"power1"}} 1.0"#),
                format!(r#"power_is_battery_watt{meter}"power1"}} 0.0"#),
                format!(r#"power_watt{gpu}"power1"}} 19.0"#),
                format!(r#"pwm{gpu}"pwm1"}} 128.0"#),
                format!(r#"pwm{board}"pwm2"}} 255.0"#),
                format!(r#"pwm_auto_point1_temp{board}"pwm2"}} 40000.0"#),
                format!(r#"pwm_enable{gpu}"pwm1"}} 2.0"#),
                format!(r#"temp_celsius{gpu}"temp1"}} 35.0"#),
                format!(r#"temp_emergency_celsius{gpu}"temp1"}} 105.0"#),
                format!(r#"temp_lcrit_alarm_celsius{board}"temp1"}} 0.0"#),
                format!(r#"temp_type{board}"temp1"}} 4.0"#),
                format!(r#"update_interval_seconds{board}"update_interval0"}} 1.5"#),
                format!(r#"voltage_regulator_version{board}"vrm0"}} 110.0"#),
                format!(r#"energy_joule_total{board}"energy1"}} 1234.56789"#),
            ]
        );
    }

    #[test]
    fn a_file_without_element_and_all_digits() {
        let page = page(&[CORETEMP, NVME]);
        for line in [
            r#"temp_celsius{chip="platform_coretemp_0",sensor="temp0"} 27.8"#,
            r#"temp_celsius{chip="platform_coretemp_0",sensor="temp2"} -5.5"#,
            r#"temp_crit_celsius{chip="nvme_nvme0",sensor="temp1"} 84.85000000000001"#,
            r#"temp_crit_alarm_celsius{chip="platform_coretemp_0",sensor="temp2"} 0.001"#,
        ] {
            assert!(
                page.iter().any(|it| it == line),
                "{line} is not in {page:?}"
            );
        }
    }
}
