//! Sensors of a chip and their files: which there are, and what they are called. None is read here.

use crate::{
    collectors::sysfs::{entries, text},
    page::Names,
};
use std::path::{Path, PathBuf};

/// Kinds of sensors, by the beginnings of their files: those that node_exporter knows too.
const KINDS: [&str; 13] = [
    "temp",
    "fan",
    "in",
    "curr",
    "power",
    "energy",
    "humidity",
    "intrusion",
    "pwm",
    "cpu",
    "vrm",
    "beep_enable",
    "update_interval",
];

/// One file of a sensor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Attribute {
    /// The name after that of the sensor, such as `input`; empty where the file is named like the
    /// sensor.
    pub(super) element: String,
    pub(super) path: PathBuf,
    /// The kernel says that it is a whole number (Documentation/hwmon/sysfs-interface.rst), and a
    /// family of the agent is made of it.
    pub(super) exact: bool,
    /// Changes only if somebody sets it.
    pub(super) setting: bool,
}

/// One sensor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Sensor {
    /// One of [`KINDS`].
    pub(super) kind: &'static str,
    /// What its files are called, such as `temp1`.
    pub(super) id: String,
    /// What the driver or the firmware calls it.
    pub(super) label: Option<String>,
    /// The label if that says which sensor of its kind it is, or else the id.
    pub(super) shown: String,
    pub(super) attributes: Vec<Attribute>,
}

/// Old drivers have their files in the folder of the device.
pub(super) fn look_up(folder: &Path, names: Names) -> Vec<Sensor> {
    let mut sensors: Vec<Sensor> = Vec::new();
    for folder in [folder.to_owned(), folder.join("device")] {
        for file in entries(&folder).ok().flatten().unwrap_or_default() {
            let Some((kind, id, element)) = split(&file) else {
                continue;
            };
            let wanted = element == "label" || exact(kind, element);
            if !wanted && names == Names::Own {
                continue;
            }
            let path = folder.join(&file);
            // Every device has a folder `power`.
            if element.is_empty() && path.is_dir() {
                continue;
            }
            let sensor = place_of(&mut sensors, kind, id);
            if element == "label" {
                sensor.label = sensor.label.take().or_else(|| text(&path).ok());
            } else if sensor.attributes.iter().all(|it| it.element != element) {
                sensor.attributes.push(Attribute {
                    element: element.to_owned(),
                    exact: exact(kind, element),
                    setting: setting(kind, element),
                    path,
                });
            }
        }
    }
    name_sensors(&mut sensors);
    sensors
}

/// Kind, id and element of a file: `temp1_crit_alarm` is `crit_alarm` of `temp1`.
fn split(file: &str) -> Option<(&'static str, String, &str)> {
    let digit = |c: char| c.is_ascii_digit();
    let (kind, rest) = file.split_at_checked(file.find(digit).unwrap_or(file.len()))?;
    let kind = KINDS.into_iter().find(|it| *it == kind)?;
    let element = rest.trim_start_matches(digit);
    let number: u32 = match rest.strip_suffix(element)? {
        "" => 0,
        number => number.parse().ok()?,
    };
    let element = match element {
        "" => "",
        element => element.strip_prefix('_').filter(|it| !it.is_empty())?,
    };
    Some((kind, format!("{kind}{number}"), element))
}

/// The sensor of this id, which is made if it is not there yet.
fn place_of<'a>(sensors: &'a mut Vec<Sensor>, kind: &'static str, id: String) -> &'a mut Sensor {
    let place = sensors.iter().position(|sensor| sensor.id == id);
    let place = place.unwrap_or(sensors.len());
    if place == sensors.len() {
        sensors.push(Sensor {
            kind,
            shown: id.clone(),
            id,
            label: None,
            attributes: Vec::new(),
        });
    }
    #[expect(clippy::indexing_slicing, reason = "it was found or pushed just now")]
    &mut sensors[place]
}

/// Shows labels where they say which sensor of its kind it is.
fn name_sensors(sensors: &mut [Sensor]) {
    let names: Vec<_> = sensors
        .iter()
        .map(|it| (it.kind, it.id.clone(), it.label.clone()))
        .collect();
    for sensor in sensors {
        let Some(label) = sensor.label.as_ref().filter(|label| !label.is_empty()) else {
            continue;
        };
        let same = names.iter().filter(|(kind, id, other)| {
            *kind == sensor.kind && (id == label || other.as_ref() == Some(label))
        });
        if same.count() == 1 {
            sensor.shown.clone_from(label);
        }
    }
}

/// Whether a family of the agent is made of it.
fn exact(kind: &str, element: &str) -> bool {
    matches!(
        (kind, element),
        ("temp", "input" | "crit")
            | ("power", "input" | "average")
            | ("fan" | "in" | "curr" | "energy", "input")
            | (_, "fault")
    ) || is_alarm(element)
}

/// Whether it says that a limit was passed.
pub(super) fn is_alarm(element: &str) -> bool {
    element == "alarm" || element.ends_with("_alarm")
}

/// Whether it changes only if somebody sets it: a limit, or how the sensor works.
fn setting(kind: &str, element: &str) -> bool {
    const LIMITS: [&str; 9] = [
        "min",
        "max",
        "crit",
        "lcrit",
        "emergency",
        "cap",
        "rated_",
        "auto_",
        "average_",
    ];
    const MODES: [&str; 10] = [
        "type",
        "enable",
        "mode",
        "div",
        "pulses",
        "offset",
        "beep",
        "accuracy",
        "is_battery",
        "freq",
    ];
    const WATERMARKS: [&str; 2] = ["_lowest", "_highest"];
    matches!(kind, "vrm" | "beep_enable" | "update_interval")
        || MODES.contains(&element)
        || LIMITS.iter().any(|limit| element.starts_with(limit))
            && !is_alarm(element)
            && !WATERMARKS.iter().any(|mark| element.ends_with(mark))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collectors::fixture::Host;

    #[test]
    fn names_of_files() {
        for (file, kind, id, element) in [
            ("temp1_input", "temp", "temp1", "input"),
            ("in0_input", "in", "in0", "input"),
            ("temp10_crit_alarm", "temp", "temp10", "crit_alarm"),
            ("pwm1", "pwm", "pwm1", ""),
            ("pwm2_auto_point1_temp", "pwm", "pwm2", "auto_point1_temp"),
            ("update_interval", "update_interval", "update_interval0", ""),
            ("temp", "temp", "temp0", ""),
        ] {
            assert_eq!(split(file), Some((kind, id.to_owned(), element)), "{file}");
        }
        for file in [
            "",
            "name",
            "1",
            "temp1x",
            "temp1_",
            "temp99999999999_input",
            "in_voltage0_raw",
            "temp_input",
            "freq1_input",
            "tempé1_input",
        ] {
            assert_eq!(split(file), None, "{file}");
        }
    }

    #[test]
    fn limits_are_read_less_often_than_readings() {
        for element in [
            "crit",
            "max_hyst",
            "cap",
            "average_interval",
            "auto_point1_pwm",
        ] {
            assert!(setting("temp", element), "{element}");
        }
        for element in [
            "input",
            "average",
            "crit_alarm",
            "fault",
            "",
            "average_highest",
        ] {
            assert!(!setting("temp", element), "{element}");
        }
        assert!(setting("update_interval", ""));
    }

    #[test]
    fn labels_that_are_not_unique_are_not_shown() {
        let files = [
            ("temp1_input", "1"),
            ("temp1_label", "Core 0"),
            ("temp2_input", "1"),
            ("temp2_label", "VR"),
            ("temp3_input", "1"),
            ("temp3_label", "VR"),
            ("temp4_input", "1"),
            ("temp4_label", ""),
            ("temp5_input", "1"),
            ("temp5_label", "temp6"),
            ("temp6_input", "1"),
            ("in1_input", "1"),
            ("in1_label", "VR"),
        ];
        let host = Host::new(&[]);
        for (file, text) in files {
            host.write(&format!("sys/{file}"), format!("{text}\n"));
        }
        let sensors = look_up(&host.sysfs(), Names::Own);
        let shown: Vec<&str> = sensors.iter().map(|it| it.shown.as_str()).collect();
        assert_eq!(
            shown,
            ["VR", "Core 0", "temp2", "temp3", "temp4", "temp5", "temp6"]
        );
    }

    #[test]
    fn old_drivers_have_their_files_at_the_device() {
        let host = Host::new(&[
            ("sys/power/control", "auto\n"),
            ("sys/device/power/control", "auto\n"),
            ("sys/device/temp1_input", "1\n"),
        ]);
        let sensors = look_up(&host.sysfs(), Names::AndNodeExporter);
        let ids: Vec<&str> = sensors.iter().map(|it| it.id.as_str()).collect();
        assert_eq!(ids, ["temp1"]);
    }
}
