//! Thermal zones and what cools them, from `/sys/class/thermal`
//! (Documentation/ABI/testing/sysfs-class-thermal).

use super::{
    CollectError,
    sysfs::{entries, number, text},
};
use crate::{
    error::ReadError,
    page::{Encode, Page},
};
use std::{
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

/// What does not change as a rule is looked up again after this time.
const LOOKED_UP: Duration = Duration::from_mins(1);

/// In millidegrees. What is below (drivers have -274000 for what they don't know) is no temperature.
const ABSOLUTE_ZERO: i64 = -273_150;

/// A zone or a device: its number and its type, such as `x86_pkg_temp`, and the file with its value.
#[derive(Debug, PartialEq, Eq)]
struct Place {
    number: String,
    kind: String,
    file: PathBuf,
    /// The highest state, of a device.
    max: Option<i64>,
}

/// What the kernel has at the moment.
struct Places {
    /// Entries of the folder.
    names: Vec<String>,
    zones: Vec<Arc<Place>>,
    devices: Vec<Arc<Place>>,
    looked_up: Instant,
}

/// What the file of a place says; `None` where the kernel refuses.
type Values = Vec<(Arc<Place>, Option<i64>)>;

/// Temperatures in millidegrees and states of cooling.
#[derive(Clone, Debug)]
pub struct ThermalFacts {
    zones: Values,
    devices: Values,
}

/// Reads values anew in each pass.
pub struct ThermalCollector {
    class: PathBuf,
    places: Option<Places>,
}

impl ThermalCollector {
    /// Reads below `sysfs`.
    #[must_use]
    pub fn new(sysfs: &Path) -> Self {
        Self {
            class: sysfs.join("class/thermal"),
            places: None,
        }
    }

    /// Samples once.
    ///
    /// # Errors
    /// If a file can't be parsed; [`CollectError::Off`] if there is neither zone nor device.
    pub fn sample(&mut self) -> Result<ThermalFacts, CollectError> {
        let names = entries(&self.class)?.unwrap_or_default();
        let known = self.places.take();
        let known = known.filter(|it| it.names == names && it.looked_up.elapsed() < LOOKED_UP);
        let places = match known {
            Some(known) => known,
            None => look_up(&self.class, names)?,
        };
        let places = self.places.insert(places);
        if places.zones.is_empty() && places.devices.is_empty() {
            let reason = "this host has no thermal zones (nothing in /sys/class/thermal)";
            return Err(CollectError::Off(reason.to_owned()));
        }
        Ok(ThermalFacts {
            zones: read(&places.zones)?,
            devices: read(&places.devices)?,
        })
    }
}

fn look_up(class: &Path, names: Vec<String>) -> Result<Places, ReadError> {
    let mut zones = Vec::new();
    let mut devices = Vec::new();
    for name in &names {
        let folder = class.join(name);
        let place = |number: &str, file: &str| Place {
            number: number.to_owned(),
            kind: text(&folder.join("type")).unwrap_or_default(),
            file: folder.join(file),
            max: None,
        };
        if let Some(number) = name.strip_prefix("thermal_zone") {
            zones.push(Arc::new(place(number, "temp")));
        } else if let Some(device) = name.strip_prefix("cooling_device") {
            devices.push(Arc::new(Place {
                max: number(&folder.join("max_state"))?,
                ..place(device, "cur_state")
            }));
        }
    }
    Ok(Places {
        names,
        zones,
        devices,
        looked_up: Instant::now(),
    })
}

/// A zone that is switched off, or whose sensor has nothing to say yet, refuses (`EAGAIN`, `EINVAL`,
/// `ENODATA`).
fn read(places: &[Arc<Place>]) -> Result<Values, ReadError> {
    let read = |place: &Arc<Place>| Ok((Arc::clone(place), number(&place.file)?));
    places.iter().map(read).collect()
}

type Labels<'a> = [(&'static str, &'a str); 2];

fn labels<'a>(place: &'a Place, number: &'static str) -> Labels<'a> {
    [(number, place.number.as_str()), ("type", &place.kind)]
}

impl ThermalFacts {
    fn temperatures(&self) -> impl Iterator<Item = (Labels<'_>, i64)> {
        let zones = self.zones.iter();
        zones.filter_map(|(zone, temperature)| Some((labels(zone, "zone"), (*temperature)?)))
    }

    /// States as the kernel says them, and the highest ones.
    fn states(&self, number: &'static str) -> impl Iterator<Item = (Labels<'_>, i64)> {
        let devices = self.devices.iter();
        devices.filter_map(move |(device, state)| Some((labels(device, number), (*state)?)))
    }

    fn max_states(&self, number: &'static str) -> impl Iterator<Item = (Labels<'_>, i64)> {
        let devices = self.devices.iter();
        devices.filter_map(move |(device, _)| Some((labels(device, number), device.max?)))
    }
}

#[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
fn degrees(millidegrees: i64) -> f64 {
    millidegrees as f64 / 1000.0
}

impl Encode for ThermalFacts {
    fn encode(&self, page: &mut Page<'_>) -> fmt::Result {
        let known = self.temperatures().filter(|(_, it)| *it >= ABSOLUTE_ZERO);
        page.gauge(
            "esnode_thermal_zone_temperature_celsius",
            "Temperature of the zone, thermal_zoneN/temp of /sys/class/thermal",
            known.map(|(labels, millidegrees)| (labels, degrees(millidegrees))),
        )?;
        page.gauge(
            "esnode_cooling_device_state",
            "How much the device cools or slows down, 0 is not at all, cooling_deviceN/cur_state of \
             /sys/class/thermal",
            // Of one that is not in use, some drivers say -1.
            self.states("device").filter(|(_, state)| *state >= 0),
        )?;
        page.gauge(
            "esnode_cooling_device_max_state",
            "The highest state of the device, cooling_deviceN/max_state of /sys/class/thermal",
            self.max_states("device"),
        )
    }

    fn encode_node_exporter(&self, page: &mut Page<'_>) -> fmt::Result {
        page.gauge(
            "node_thermal_zone_temp",
            "Temperature of the zone in degrees Celsius, thermal_zoneN/temp of /sys/class/thermal",
            self.temperatures()
                .map(|(labels, millidegrees)| (labels, degrees(millidegrees))),
        )?;
        page.gauge(
            "node_cooling_device_cur_state",
            "State of the cooling device, cooling_deviceN/cur_state of /sys/class/thermal",
            self.states("name"),
        )?;
        page.gauge(
            "node_cooling_device_max_state",
            "Highest state of the cooling device, cooling_deviceN/max_state of /sys/class/thermal",
            self.max_states("name"),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collectors::fixture::{Host, node_exporter_samples, samples};

    fn host() -> Host {
        let host = Host::new(&[]);
        for (file, text) in [
            ("thermal_zone0/type", "acpitz"),
            ("thermal_zone0/temp", "-2500"),
            ("thermal_zone2/type", "iwlwifi_1"),
            ("thermal_zone10/type", "x86_pkg_temp"),
            ("thermal_zone10/temp", "45850"),
            ("cooling_device3/type", "Processor"),
            ("cooling_device3/cur_state", "1"),
            ("cooling_device3/max_state", "10"),
            ("cooling_device4/type", "intel_powerclamp"),
            ("cooling_device4/cur_state", "-1"),
            ("cooling_device4/max_state", "50"),
        ] {
            host.write(&format!("sys/class/thermal/{file}"), format!("{text}\n"));
        }
        host
    }

    #[test]
    fn zones_and_devices() {
        let host = host();
        // As a sensor that is a directory: it can't be read, like one that answers EAGAIN.
        host.write("sys/class/thermal/thermal_zone2/temp/x", "");
        let facts = ThermalCollector::new(&host.sysfs()).sample().expect("read");
        assert_eq!(
            samples(facts),
            [
                r#"esnode_thermal_zone_temperature_celsius{zone="0",type="acpitz"} -2.5"#,
                r#"esnode_thermal_zone_temperature_celsius{zone="10",type="x86_pkg_temp"} 45.85"#,
                r#"esnode_cooling_device_state{device="3",type="Processor"} 1"#,
                r#"esnode_cooling_device_max_state{device="3",type="Processor"} 10"#,
                r#"esnode_cooling_device_max_state{device="4",type="intel_powerclamp"} 50"#,
            ]
        );
    }

    #[test]
    fn by_the_names_of_node_exporter() {
        let facts = ThermalCollector::new(&host().sysfs()).sample();
        assert_eq!(
            node_exporter_samples(facts.expect("read")),
            [
                r#"node_thermal_zone_temp{zone="0",type="acpitz"} -2.5"#,
                r#"node_thermal_zone_temp{zone="10",type="x86_pkg_temp"} 45.85"#,
                r#"node_cooling_device_cur_state{name="3",type="Processor"} 1"#,
                r#"node_cooling_device_cur_state{name="4",type="intel_powerclamp"} -1"#,
                r#"node_cooling_device_max_state{name="3",type="Processor"} 10"#,
                r#"node_cooling_device_max_state{name="4",type="intel_powerclamp"} 50"#,
            ]
        );
    }

    #[test]
    fn a_temperature_below_absolute_zero_is_none() {
        let host = host();
        host.write("sys/class/thermal/thermal_zone0/temp", "-274000\n");
        let facts = ThermalCollector::new(&host.sysfs()).sample().expect("read");
        let page = samples(facts);
        assert!(!page.iter().any(|line| line.contains("acpitz")), "{page:?}");
    }

    #[test]
    fn zones_come_and_values_are_read_anew() {
        let host = host();
        let mut collector = ThermalCollector::new(&host.sysfs());
        collector.sample().expect("read");
        host.write("sys/class/thermal/thermal_zone0/temp", "3000\n");
        host.write("sys/class/thermal/thermal_zone1/temp", "4000\n");
        let page = samples(collector.sample().expect("read"));
        assert_eq!(
            page[..2],
            [
                r#"esnode_thermal_zone_temperature_celsius{zone="0",type="acpitz"} 3.0"#,
                r#"esnode_thermal_zone_temperature_celsius{zone="1",type=""} 4.0"#,
            ]
        );
    }

    #[test]
    fn says_which_file_is_malformed() {
        for (file, text) in [
            ("thermal_zone10/temp", "45.8"),
            ("thermal_zone10/temp", ""),
            ("cooling_device3/cur_state", "99999999999999999999"),
            ("cooling_device3/max_state", "10 of 11"),
        ] {
            let host = host();
            host.write(&format!("sys/class/thermal/{file}"), text);
            let error = ThermalCollector::new(&host.sysfs()).sample();
            let error = error.expect_err("malformed").to_string();
            let expected = format!("/sys/class/thermal/{file}, line 1: expected a whole number");
            assert!(error.ends_with(&expected), "{error}");
        }
    }

    #[test]
    fn a_host_without_is_no_failure() {
        let empty = Host::new(&[]);
        for sysfs in [empty.sysfs(), PathBuf::from("/nonexistent")] {
            let outcome = ThermalCollector::new(&sysfs).sample();
            assert!(matches!(outcome, Err(CollectError::Off(_))), "{outcome:?}");
        }
    }
}
