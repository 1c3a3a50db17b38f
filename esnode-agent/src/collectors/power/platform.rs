//! Meters of the whole machine: what its power supply or its board gives out, from
//! `/sys/class/hwmon/` (Documentation/hwmon/sysfs-interface.rst).

use super::counter::EnergyCounter;
use crate::collectors::{
    hwmon::power_meters::{self, Power, PowerMeter},
    sysfs::number,
    ticker::Tick,
};
use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// What a meter said. A meter may have either.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Reading {
    pub(super) source: &'static str,
    pub(super) microwatts: Option<u64>,
    pub(super) microjoules: Option<u64>,
}

/// Chips that measure the whole machine: the name of the chip, the label of its sensor if only one of
/// them does, and what the page calls it.
const KNOWN: [(&str, Option<&str>, &str); 5] = [
    // Documentation/hwmon/acpi_power_meter.rst; on servers, the management controller answers.
    ("power_meter", None, "acpi_power_meter"),
    // Documentation/hwmon/ibmaem.rst: Active Energy Manager, by IPMI.
    ("aem1", None, "ibm_aem"),
    ("aem2", None, "ibm_aem"),
    // Documentation/hwmon/ibmpowernv.rst
    ("ibmpowernv", Some("System"), "opal"),
    // Documentation/hwmon/ina3221.rst, as NVIDIA's Jetson boards name the rail that feeds the module.
    ("ina3221", Some("VDD_IN"), "jetson"),
];

fn source(meter: &PowerMeter) -> Option<&'static str> {
    let known = KNOWN.iter().find(|(chip, label, _)| {
        *chip == meter.name && label.is_none_or(|label| meter.label.as_deref() == Some(label))
    });
    known.map(|(.., source)| *source)
}

/// What it says now.
fn read(source: &'static str, meter: &PowerMeter) -> Reading {
    let read = |path: &Path| number::<u64>(path).ok().flatten();
    let microwatts = match &meter.power {
        Power::Microwatts(path) => read(path),
        Power::Product {
            millivolts,
            milliamperes,
        } => read(millivolts)
            .zip(read(milliamperes))
            .and_then(|(volts, amperes)| volts.checked_mul(amperes)),
    };
    Reading {
        source,
        microwatts,
        microjoules: meter.energy.as_deref().and_then(read),
    }
}

/// Finds the meters and reads them, which can take long: management controllers are slow.
struct Platform {
    sysfs: PathBuf,
    meters: Vec<(&'static str, PowerMeter)>,
}

impl Platform {
    fn new(sysfs: &Path) -> Self {
        Self {
            sysfs: sysfs.to_owned(),
            meters: Vec::new(),
        }
    }

    /// What each meter says now. Looks for meters as long as there are none.
    fn read(&mut self) -> Vec<Reading> {
        if self.meters.is_empty() {
            // What can't be listed is told by the collector of hwmon.
            let meters = power_meters::find(&self.sysfs).unwrap_or_default();
            let named = |meter| Some((source(&meter)?, meter));
            self.meters = meters.into_iter().filter_map(named).collect();
        }
        let meters = self.meters.iter();
        let readings: Vec<_> = meters.map(|(source, meter)| read(source, meter)).collect();
        let silent = |it: &Reading| it.microwatts.or(it.microjoules).is_none();
        if readings.iter().all(silent) {
            // A driver that was loaded anew has other paths.
            self.meters.clear();
        }
        readings
    }
}

/// What the meters said last.
pub(super) struct PlatformMeters {
    sysfs: PathBuf,
    last: Option<(Instant, Vec<Reading>)>,
    /// In the order of the meters.
    energy: Vec<EnergyCounter>,
}

impl PlatformMeters {
    /// Of the machine whose sysfs this is.
    pub(super) fn new(sysfs: &Path) -> Self {
        Self {
            sysfs: sysfs.to_owned(),
            last: None,
            energy: Vec::new(),
        }
    }

    /// What they said if that is not older than `age`, with energy since the agent started.
    pub(super) fn readings(&self, now: Instant, age: Duration) -> Vec<Reading> {
        let fresh = self.last.as_ref();
        let fresh = fresh.filter(|(at, _)| now.saturating_duration_since(*at) <= age);
        let readings = fresh.into_iter().flat_map(|(_, readings)| readings);
        readings
            .zip(self.energy.iter().map(EnergyCounter::total))
            .map(|(reading, total)| Reading {
                microjoules: reading.microjoules.and(total),
                ..*reading
            })
            .collect()
    }
}

impl Tick for PlatformMeters {
    type Reading = Vec<Reading>;

    fn reader(&self) -> Box<dyn FnMut() -> Self::Reading + Send> {
        let mut platform = Platform::new(&self.sysfs);
        Box::new(move || platform.read())
    }

    fn tick(&mut self, readings: Self::Reading) {
        let now = Instant::now();
        self.energy
            .resize_with(readings.len(), EnergyCounter::default);
        for (reading, counter) in readings.iter().zip(&mut self.energy) {
            if let Some(microjoules) = reading.microjoules {
                counter.advance(microjoules, None, now);
            }
        }
        self.last = Some((now, readings));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collectors::fixture::Host;

    #[test]
    fn only_what_measures_the_whole_machine_counts() {
        let host = Host::new(&[
            ("sys/class/hwmon/hwmon0/name", "power_meter\n"),
            ("sys/class/hwmon/hwmon0/power1_average", "412000000\n"),
            ("sys/class/hwmon/hwmon0/power1_input", "1\n"),
            ("sys/class/hwmon/hwmon0/power1_average_max", "2\n"),
            ("sys/class/hwmon/hwmon1/name", "aem1\n"),
            ("sys/class/hwmon/hwmon1/power1_average", "410000000\n"),
            ("sys/class/hwmon/hwmon1/energy1_input", "9000000\n"),
            ("sys/class/hwmon/hwmon2/name", "ina3221\n"),
            ("sys/class/hwmon/hwmon2/in1_label", "VDD_CPU\n"),
            ("sys/class/hwmon/hwmon2/in1_input", "3\n"),
            ("sys/class/hwmon/hwmon2/curr1_input", "3\n"),
            ("sys/class/hwmon/hwmon2/in2_label", "VDD_IN\n"),
            ("sys/class/hwmon/hwmon2/in2_input", "5000\n"),
            ("sys/class/hwmon/hwmon2/curr2_input", "1400\n"),
            ("sys/class/hwmon/hwmon3/name", "amdgpu\n"),
            ("sys/class/hwmon/hwmon3/power1_average", "30000000\n"),
        ]);
        let reading = |source, microwatts, microjoules| Reading {
            source,
            microwatts: Some(microwatts),
            microjoules,
        };
        assert_eq!(
            Platform::new(&host.sysfs()).read(),
            [
                reading("acpi_power_meter", 412_000_000, None),
                reading("ibm_aem", 410_000_000, Some(9_000_000)),
                reading("jetson", 7_000_000, None),
            ]
        );
    }

    #[test]
    fn a_meter_may_come_later_and_go() {
        let host = Host::new(&[]);
        let mut platform = Platform::new(&host.sysfs());
        assert!(platform.read().is_empty());
        host.write("sys/class/hwmon/hwmon7/name", "power_meter\n");
        host.write("sys/class/hwmon/hwmon7/power1_average", "5000000\n");
        assert_eq!(platform.read().len(), 1);
        host.write("sys/class/hwmon/hwmon7/power1_average", "busy\n");
        assert_eq!(platform.read()[0].microwatts, None);
    }

    #[test]
    fn energy_counts_from_the_first_reading_and_old_readings_go() {
        let said = |microjoules| {
            vec![Reading {
                source: "ibm_aem",
                microwatts: Some(1),
                microjoules: Some(microjoules),
            }]
        };
        let mut meters = PlatformMeters::new(Path::new("/nonexistent"));
        meters.tick(said(9_000_000));
        meters.tick(said(9_000_500));
        let (now, age) = (Instant::now(), Duration::from_secs(15));
        assert_eq!(meters.readings(now, age), said(500));
        let later = now + Duration::from_secs(20);
        assert!(meters.readings(later, age).is_empty());
    }
}
