//! The sensors of power among the chips, for whoever looks for one that measures the whole node.

use super::{
    chip::{Chip, places},
    sensors::Sensor,
};
use crate::{error::ReadError, page::Names};
use std::path::{Path, PathBuf};

/// Where power can be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::collectors) enum Power {
    /// `powerN_average` or else `powerN_input`, in microwatts.
    Microwatts(PathBuf),
    /// `inN_input` in millivolts and `currN_input` in milliamperes of one channel, of a chip that
    /// does not multiply itself.
    Product {
        millivolts: PathBuf,
        milliamperes: PathBuf,
    },
}

/// One sensor of power.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::collectors) struct PowerMeter {
    /// What the driver calls the chip; empty is unknown.
    pub(in crate::collectors) name: String,
    /// What the driver or the firmware calls it.
    pub(in crate::collectors) label: Option<String>,
    pub(in crate::collectors) power: Power,
    /// `energyN_input` in microjoules, of the same number, or if the chip has one of each only.
    pub(in crate::collectors) energy: Option<PathBuf>,
}

/// Those below `sysfs`. Reads names and labels, and no sensor.
///
/// # Errors
/// If `/sys/class/hwmon` is there and can't be listed.
pub(in crate::collectors) fn find(sysfs: &Path) -> Result<Vec<PowerMeter>, ReadError> {
    let places = places(&sysfs.join("class/hwmon"))?.into_iter();
    Ok(places
        .flat_map(|place| of(&Chip::look_up(&place.folder, Names::Own)))
        .collect())
}

fn of(chip: &Chip) -> Vec<PowerMeter> {
    let sensors = chip.sensors.iter();
    let meters = sensors.filter_map(|sensor| {
        let power = match sensor.kind {
            "power" => {
                Power::Microwatts(file(sensor, "average").or_else(|| file(sensor, "input"))?)
            }
            "in" => product(chip, sensor)?,
            _ => return None,
        };
        Some(PowerMeter {
            name: chip.name.clone().unwrap_or_default(),
            label: sensor.label.clone(),
            energy: energy(chip, sensor),
            power,
        })
    });
    meters.collect()
}

fn file(sensor: &Sensor, element: &str) -> Option<PathBuf> {
    let mut attributes = sensor.attributes.iter();
    let attribute = attributes.find(|attribute| attribute.element == element)?;
    Some(attribute.path.clone())
}

fn number(sensor: &Sensor) -> Option<&str> {
    sensor.id.strip_prefix(sensor.kind)
}

/// Of the chip that is known to number voltages and currents alike and to have no power
/// (Documentation/hwmon/ina3221.rst), as on NVIDIA's Jetson.
fn product(chip: &Chip, voltage: &Sensor) -> Option<Power> {
    chip.name.as_deref().filter(|name| *name == "ina3221")?;
    let mut sensors = chip.sensors.iter();
    let current = sensors.find(|it| it.kind == "curr" && number(it) == number(voltage))?;
    Some(Power::Product {
        millivolts: file(voltage, "input")?,
        milliamperes: file(current, "input")?,
    })
}

fn energy(chip: &Chip, power: &Sensor) -> Option<PathBuf> {
    let of = |kind: &'static str| chip.sensors.iter().filter(move |it| it.kind == kind);
    let same = of("energy").find(|it| number(it) == number(power));
    let single = power.kind == "power" && of("power").count() == 1 && of("energy").count() == 1;
    let only = of("energy").next().filter(|_| single);
    file(same.or(only)?, "input")
}

#[cfg(test)]
mod tests {
    use super::{super::fixture::*, *};
    use crate::collectors::fixture::Host;

    fn meters(host: &Host) -> Vec<PowerMeter> {
        find(&host.sysfs()).expect("readable")
    }

    #[test]
    fn meters_of_a_node() {
        let host = Host::new(&[]);
        for (number, chip) in (0..).zip([CORETEMP, POWER_METER, AMDGPU, INA3221]) {
            add(&host, number, &chip);
        }
        let class = host.sysfs().join("class/hwmon");
        let meter = |name: &str, label: Option<&str>, power| PowerMeter {
            name: name.to_owned(),
            label: label.map(str::to_owned),
            power,
            energy: None,
        };
        let average = |chip: &str| Power::Microwatts(class.join(chip).join("power1_average"));
        let product = Power::Product {
            millivolts: class.join("hwmon3/in1_input"),
            milliamperes: class.join("hwmon3/curr1_input"),
        };
        assert_eq!(
            meters(&host),
            [
                meter("power_meter", None, average("hwmon1")),
                meter("amdgpu", Some("PPT"), average("hwmon2")),
                meter("ina3221", Some("VDD_IN"), product),
            ]
        );
    }

    /// Files of power, and of energy.
    fn energies(files: &[(&str, &str)]) -> Vec<(String, Option<String>)> {
        let host = Host::new(&[]);
        let chip = TestChip {
            device: "platform/aem.1",
            label: "platform_aem_1",
            files,
        };
        add(&host, 0, &chip);
        let name = |path: PathBuf| Some(path.file_name()?.to_string_lossy().into_owned());
        let meters = meters(&host).into_iter();
        meters
            .map(|meter| {
                let Power::Microwatts(power) = meter.power else {
                    panic!("{meter:?}");
                };
                (name(power).expect("a file"), meter.energy.and_then(name))
            })
            .collect()
    }

    #[test]
    fn energy_of_the_same_sensor_or_the_only_one() {
        let file = |file: &str| Some(file.to_owned());
        let one = [("power2_input", "1"), ("energy1_input", "2")];
        assert_eq!(
            energies(&one),
            [("power2_input".to_owned(), file("energy1_input"))]
        );
        let two = [one.as_slice(), &[("power1_average", "3")]].concat();
        assert_eq!(
            energies(&two),
            [
                ("power1_average".to_owned(), file("energy1_input")),
                ("power2_input".to_owned(), None)
            ]
        );
        assert_eq!(energies(&[("power1_cap", "1")]), []);
    }

    #[test]
    fn a_host_without_has_none() {
        assert_eq!(meters(&Host::new(&[])), []);
    }
}
