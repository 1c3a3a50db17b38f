//! Hardware monitoring chips: temperatures, fans, voltages, currents and power, from
//! `/sys/class/hwmon` (Documentation/hwmon/sysfs-interface.rst).

mod chip;
mod families;
#[cfg(test)]
mod fixture;
mod node_exporter;
pub(super) mod power_meters;
mod reader;
mod sensors;
mod shared;
mod values;

use super::CollectError;
use crate::{
    error::ReadError,
    page::{Encode, Names, Page},
};
use chip::{Chip, places};
use reader::Reader;
use sensors::{Attribute, Sensor};
use shared::Reading;
use std::{
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use values::Values;

/// A scrape waits this long at most for chips that were quick before.
const WAIT: Duration = Duration::from_millis(10);

/// The first one, which can't know which chips are quick.
const FIRST_WAIT: Duration = Duration::from_millis(100);

/// A chip that has said nothing for so long does not answer: an NVMe command, which is the slowest
/// of what is asked, may take some seconds while the drive is busy.
const PATIENCE: Duration = Duration::from_secs(10);

/// What a slow chip said before the scrape is older by the time between two of them, and that may
/// be minutes; what is older than this is absent.
const AGE: Duration = Duration::from_secs(150);

/// A chip, and what it said.
type Said = (Arc<Chip>, Arc<Values>);

/// What the chips said.
#[derive(Clone, Debug)]
pub struct HwmonFacts {
    chips: Vec<Said>,
}

/// Has the chips read by a thread of its own, see `hwmon/reader.rs`.
pub struct HwmonCollector {
    class: PathBuf,
    reader: Reader,
    /// How long the next scrape waits.
    wait: Duration,
}

impl HwmonCollector {
    /// Reads below `sysfs` what `names` need.
    #[must_use]
    pub fn new(sysfs: &Path, names: Names) -> Self {
        Self {
            class: sysfs.join("class/hwmon"),
            reader: Reader::new(names, PATIENCE),
            wait: FIRST_WAIT,
        }
    }

    /// Samples once.
    ///
    /// # Errors
    /// If a file can't be parsed; [`CollectError::Off`] if there is no chip.
    pub fn sample(&mut self) -> Result<HwmonFacts, CollectError> {
        let places = places(&self.class)?;
        if places.is_empty() {
            let reason = "this host has no hardware monitoring chips (nothing in /sys/class/hwmon)";
            return Err(CollectError::Off(reason.to_owned()));
        }
        let wait = std::mem::replace(&mut self.wait, WAIT);
        let readings = self.reader.read(places, wait);
        let readings = readings.map_err(|source| ReadError::Io {
            path: self.class.clone(),
            source,
        })?;
        let chips = readings.into_iter().flatten().filter_map(fresh);
        Ok(HwmonFacts {
            chips: chips.collect::<Result<_, _>>()?,
        })
    }
}

/// What a chip said, if that is not too old.
fn fresh(reading: Reading) -> Option<Result<Said, ReadError>> {
    let values = (reading.at.elapsed() <= AGE).then_some(reading.values)?;
    Some(match values {
        Ok(values) => Ok((reading.chip, values)),
        Err(malformed) => Err(malformed.into()),
    })
}

/// One sensor of a chip, and what it said.
#[derive(Clone, Copy)]
struct Told<'a> {
    chip: &'a Chip,
    sensor: &'a Sensor,
    values: &'a [Option<f64>],
}

impl HwmonFacts {
    fn sensors(&self) -> impl Iterator<Item = Told<'_>> {
        self.chips.iter().flat_map(|(chip, values)| {
            let sensors = chip.sensors.iter().zip(values.iter());
            sensors.map(|(sensor, values)| Told {
                chip,
                sensor,
                values,
            })
        })
    }
}

impl<'a> Told<'a> {
    /// The attributes that could be read.
    fn attributes(self) -> impl Iterator<Item = (&'a Attribute, f64)> {
        let values = self.sensor.attributes.iter().zip(self.values);
        values.filter_map(|(attribute, value)| Some((attribute, (*value)?)))
    }

    fn value(self, element: &str) -> Option<f64> {
        let mut attributes = self.attributes();
        let (_, value) = attributes.find(|(attribute, _)| attribute.element == element)?;
        Some(value)
    }

    /// The first of these that could be read. What a broken sensor says is nothing.
    fn reading(self, elements: &[&str]) -> Option<f64> {
        let sound = self.value("fault").is_none_or(|fault| fault == 0.0);
        let mut elements = elements.iter();
        elements.find_map(|element| self.value(element).filter(|_| sound))
    }

    fn labels(self) -> [(&'static str, &'a str); 2] {
        [
            ("chip", self.chip.id.as_str()),
            ("sensor", self.sensor.shown.as_str()),
        ]
    }
}

impl Encode for HwmonFacts {
    fn encode(&self, page: &mut Page<'_>) -> fmt::Result {
        families::encode(self, page)
    }

    fn encode_node_exporter(&self, page: &mut Page<'_>) -> fmt::Result {
        node_exporter::encode(self, page)
    }
}

#[cfg(test)]
mod tests {
    use super::{super::fixture::samples, fixture::*, *};
    use crate::collectors::fixture::Host;
    use std::time::Instant;

    fn collector(host: &Host, names: Names) -> HwmonCollector {
        HwmonCollector {
            wait: Duration::from_secs(10),
            ..HwmonCollector::new(&host.sysfs(), names)
        }
    }

    #[test]
    fn what_cannot_be_read_is_absent() {
        let host = Host::new(&[]);
        add(&host, 0, &JC42);
        host.write("sys/class/hwmon/hwmon0/temp2_input/x", "");
        let facts = collector(&host, Names::Own).sample().expect("read");
        assert_eq!(
            samples(facts),
            [
                r#"esnode_hwmon_chip_info{chip="i2c_0_0_0018",name="jc42"} 1"#,
                r#"esnode_hwmon_temperature_celsius{chip="i2c_0_0_0018",sensor="temp1"} 33.5"#,
            ]
        );
    }

    #[test]
    fn says_which_file_is_malformed() {
        for (file, text) in [
            ("temp1_input", "45.85"),
            ("temp1_input", ""),
            ("temp2_crit", "N/A"),
            ("temp2_crit_alarm", "99999999999999999999"),
        ] {
            let host = Host::new(&[]);
            add(&host, 0, &JC42);
            add(&host, 3, &CORETEMP);
            host.write(&format!("sys/class/hwmon/hwmon3/{file}"), text);
            let mut collector = collector(&host, Names::Own);
            let error = collector.sample().expect_err("malformed").to_string();
            let expected =
                format!("sys/class/hwmon/hwmon3/{file}, line 1: expected a whole number");
            assert!(error.ends_with(&expected), "{error}");
        }
    }

    #[test]
    fn chips_come_and_go() {
        let host = Host::new(&[]);
        add(&host, 0, &JC42);
        let mut collector = collector(&host, Names::Own);
        let mut chips = |host: &Host| {
            collector.wait = Duration::from_secs(10);
            let facts = collector.sample().expect("read");
            let chips = facts.chips.iter().map(|(chip, _)| chip.name.clone());
            assert!(host.sysfs().exists());
            chips.flatten().collect::<Vec<_>>()
        };
        assert_eq!(chips(&host), ["jc42"]);
        add(&host, 1, &NVME);
        assert_eq!(chips(&host), ["jc42", "nvme"]);
        std::fs::remove_file(host.sysfs().join("class/hwmon/hwmon0")).expect("removed");
        assert_eq!(chips(&host), ["nvme"]);
        // The number goes to another chip.
        add(&host, 0, &K10TEMP);
        assert_eq!(chips(&host), ["k10temp", "nvme"]);
    }

    #[test]
    fn limits_are_kept_and_readings_are_not() {
        let host = Host::new(&[]);
        add(&host, 0, &CORETEMP);
        let mut collector = collector(&host, Names::Own);
        collector.sample().expect("read");
        host.write("sys/class/hwmon/hwmon0/temp1_input", "50000\n");
        host.write("sys/class/hwmon/hwmon0/temp1_crit", "7\n");
        collector.wait = Duration::from_secs(10);
        let page = samples(collector.sample().expect("read"));
        for line in [
            r#"temperature_celsius{chip="platform_coretemp_0",sensor="Package id 0"} 50.0"#,
            r#"temperature_critical_celsius{chip="platform_coretemp_0",sensor="Package id 0"} 100.0"#,
        ] {
            let line = format!("esnode_hwmon_{line}");
            assert!(page.contains(&line), "{line} is not in {page:?}");
        }
    }

    #[test]
    fn what_is_too_old_is_absent() {
        let chip = Arc::new(Chip::look_up(Path::new("/nonexistent"), Names::Own));
        let said = |age: Duration| {
            let values = Ok(Arc::default());
            let at = Instant::now().checked_sub(age).expect("after boot");
            let chip = Arc::clone(&chip);
            fresh(Reading { chip, values, at }).is_some()
        };
        assert!(said(Duration::ZERO));
        assert!(said(AGE / 2));
        assert!(!said(AGE + Duration::from_millis(1)));
    }

    #[test]
    fn a_host_without_is_no_failure() {
        let empty = Host::new(&[("sys/class/x", "")]);
        std::fs::create_dir(empty.sysfs().join("class/hwmon")).expect("folder");
        for sysfs in [empty.sysfs(), PathBuf::from("/nonexistent")] {
            let outcome = HwmonCollector::new(&sysfs, Names::Own).sample();
            assert!(matches!(outcome, Err(CollectError::Off(_))), "{outcome:?}");
        }
    }
}
