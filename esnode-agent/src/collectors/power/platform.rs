//! Meters of the whole machine: what its power supply or its board gives out, from
//! `/sys/class/hwmon/` (Documentation/hwmon/sysfs-interface.rst).

use super::counter::EnergyCounter;
use crate::collectors::{
    hwmon::power_meters::{self, Power, PowerMeter},
    sysfs::{number, text},
    ticker::Tick,
};
use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// What the meters of one kind say together: each supply of a machine may have one. Either may be
/// unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Reading {
    pub(super) source: &'static str,
    pub(super) microwatts: Option<u64>,
    pub(super) microjoules: Option<u64>,
}

/// What a meter said. A meter may have either.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Said {
    source: &'static str,
    microwatts: Option<u64>,
    /// The counter of energy, where it has one, and what it says.
    energy: Option<(PathBuf, Option<u64>)>,
}

/// How often it is looked which meters there are: a driver may have been loaded, or loaded again.
const LOOK: Duration = Duration::from_mins(1);

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

/// The sensors of a socket's module (NVIDIA's Grace), told apart by what their maker says of them:
/// `Module Power Socket 0` is all of it, `CPU Power Socket 0` and others are parts of it.
fn is_part(meter: &PowerMeter) -> bool {
    let Some(said) = oem_info(meter) else {
        return false;
    };
    let socket = said.rsplit_once("Power Socket ");
    let is_of_socket = socket.is_some_and(|(_, number)| number.parse::<u32>().is_ok());
    is_of_socket && !said.starts_with("Module")
}

/// `powerN_oem_info`, beside `powerN_average` (Documentation/hwmon/acpi_power_meter.rst).
fn oem_info(meter: &PowerMeter) -> Option<String> {
    let Power::Microwatts(path) = &meter.power else {
        return None;
    };
    let (sensor, _) = path.file_name()?.to_str()?.split_once('_')?;
    text(&path.with_file_name(format!("{sensor}_oem_info"))).ok()
}

/// What it says now.
fn read(source: &'static str, meter: &PowerMeter) -> Said {
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
    let energy = meter.energy.as_ref();
    Said {
        source,
        microwatts,
        energy: energy.map(|path| (path.clone(), read(path))),
    }
}

/// Finds the meters and reads them, which can take long: management controllers are slow.
struct Platform {
    sysfs: PathBuf,
    looked: Option<Instant>,
    meters: Vec<(&'static str, PowerMeter)>,
}

impl Platform {
    fn new(sysfs: &Path) -> Self {
        Self {
            sysfs: sysfs.to_owned(),
            looked: None,
            meters: Vec::new(),
        }
    }

    /// What each meter says now. Looks for meters now and then, and as long as there are none.
    fn read(&mut self, now: Instant) -> Vec<Said> {
        let since = |looked| now.saturating_duration_since(looked);
        if self.looked.is_none_or(|looked| since(looked) >= LOOK) {
            // What can't be listed is told by the collector of hwmon.
            let meters = power_meters::find(&self.sysfs).unwrap_or_default();
            let whole = |meter: &PowerMeter| source(meter).filter(|_| !is_part(meter));
            let named = |meter| Some((whole(&meter)?, meter));
            self.meters = meters.into_iter().filter_map(named).collect();
            self.looked = Some(now);
        }
        let meters = self.meters.iter();
        let said: Vec<_> = meters.map(|(source, meter)| read(source, meter)).collect();
        let energy = |it: &Said| it.energy.as_ref().and_then(|(_, microjoules)| *microjoules);
        if said.iter().all(|it| it.microwatts.or(energy(it)).is_none()) {
            // A driver that was loaded anew has other paths.
            self.looked = None;
        }
        said
    }
}

/// What the meters said last.
pub(super) struct PlatformMeters {
    sysfs: PathBuf,
    last: Option<(Instant, Vec<Said>)>,
    /// By path, of the meters that are there.
    counters: HashMap<PathBuf, EnergyCounter>,
    /// What the meters of each source counted since the agent started, those that went included.
    microjoules: HashMap<&'static str, u64>,
}

impl PlatformMeters {
    /// Of the machine whose sysfs this is.
    pub(super) fn new(sysfs: &Path) -> Self {
        Self {
            sysfs: sysfs.to_owned(),
            last: None,
            counters: HashMap::new(),
            microjoules: HashMap::new(),
        }
    }

    /// What they said by source, if that is not older than `age`, with energy since the agent
    /// started.
    pub(super) fn readings(&self, now: Instant, age: Duration) -> Vec<Reading> {
        let fresh = self.last.as_ref();
        let fresh = fresh.filter(|(at, _)| now.saturating_duration_since(*at) <= age);
        let said = fresh.map_or(&[][..], |(_, said)| said);
        let mut readings: Vec<Reading> = Vec::new();
        for Said { source, .. } in said {
            if readings.iter().any(|reading| reading.source == *source) {
                continue;
            }
            let alike = || said.iter().filter(|it| it.source == *source);
            let counts = |it: &Said| matches!(it.energy, Some((_, Some(_))));
            let total = self.microjoules.get(source).copied();
            readings.push(Reading {
                source,
                // If one of them is unknown, so is their sum.
                microwatts: alike()
                    .map(|it| it.microwatts)
                    .try_fold(0_u64, |sum, it| sum.checked_add(it?)),
                microjoules: total.filter(|_| alike().all(counts)),
            });
        }
        readings
    }
}

impl Tick for PlatformMeters {
    type Reading = Vec<Said>;

    fn reader(&self) -> Box<dyn FnMut() -> Self::Reading + Send> {
        let mut platform = Platform::new(&self.sysfs);
        Box::new(move || platform.read(Instant::now()))
    }

    fn tick(&mut self, said: Self::Reading) {
        let now = Instant::now();
        let listed = |path: &PathBuf| {
            let mut paths = said.iter().filter_map(|it| it.energy.as_ref());
            paths.any(|(listed, _)| listed == path)
        };
        // Another meter may have the path next.
        self.counters.retain(|path, _| listed(path));
        for it in &said {
            if let Some((path, Some(microjoules))) = &it.energy {
                let counter = self.counters.entry(path.clone()).or_default();
                let before = counter.total().unwrap_or(0);
                counter.advance(*microjoules, None, now);
                let gain = counter.total().unwrap_or(0).saturating_sub(before);
                *self.microjoules.entry(it.source).or_default() += gain;
            }
        }
        self.last = Some((now, said));
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
        let said = |source, microwatts, energy| Said {
            source,
            microwatts: Some(microwatts),
            energy,
        };
        let energy = host.sysfs().join("class/hwmon/hwmon1/energy1_input");
        assert_eq!(
            Platform::new(&host.sysfs()).read(Instant::now()),
            [
                said("acpi_power_meter", 412_000_000, None),
                said("ibm_aem", 410_000_000, Some((energy, Some(9_000_000)))),
                said("jetson", 7_000_000, None),
            ]
        );
    }

    #[test]
    fn parts_of_a_module_are_not_the_machine() {
        let host = Host::new(&[]);
        let add = |number: u32, said: &str| {
            let file = |file| format!("sys/class/hwmon/hwmon{number}/{file}");
            host.write(&file("name"), "power_meter\n");
            host.write(&file("power1_average"), format!("{number}000000\n"));
            host.write(&file("power1_oem_info"), format!("{said}\n"));
        };
        let watts = || {
            let said = Platform::new(&host.sysfs()).read(Instant::now());
            said.iter().map(|it| it.microwatts).collect::<Vec<_>>()
        };
        add(1, "Grace Power Socket 0");
        add(2, "CPU Power Socket 0");
        add(3, "SysIO Power Socket 0");
        assert_eq!(watts(), []);
        add(4, "Module Power Socket 0");
        add(5, "Module Power Socket 1");
        assert_eq!(watts(), [Some(4_000_000), Some(5_000_000)]);
        add(6, "Power Supply");
        assert_eq!(watts().len(), 3);
    }

    #[test]
    fn a_meter_may_come_later_and_go() {
        let host = Host::new(&[]);
        let mut platform = Platform::new(&host.sysfs());
        let begin = Instant::now();
        assert!(platform.read(begin).is_empty());
        host.write("sys/class/hwmon/hwmon7/name", "power_meter\n");
        host.write("sys/class/hwmon/hwmon7/power1_average", "5000000\n");
        assert_eq!(platform.read(begin).len(), 1);
        // One that joins others is seen within a minute.
        host.write("sys/class/hwmon/hwmon8/name", "power_meter\n");
        host.write("sys/class/hwmon/hwmon8/power1_average", "6000000\n");
        assert_eq!(platform.read(begin + LOOK / 2).len(), 1);
        assert_eq!(platform.read(begin + LOOK).len(), 2);
        host.write("sys/class/hwmon/hwmon7/power1_average", "busy\n");
        assert_eq!(platform.read(begin + LOOK)[0].microwatts, None);
    }

    const AGE: Duration = Duration::from_secs(15);

    fn said(path: &str, microwatts: Option<u64>, microjoules: Option<u64>) -> Said {
        Said {
            source: "ibm_aem",
            microwatts,
            energy: Some((PathBuf::from(path), microjoules)),
        }
    }

    fn reading(microwatts: Option<u64>, microjoules: Option<u64>) -> [Reading; 1] {
        [Reading {
            source: "ibm_aem",
            microwatts,
            microjoules,
        }]
    }

    #[test]
    fn energy_counts_from_the_first_reading_and_old_readings_go() {
        let mut meters = PlatformMeters::new(Path::new("/nonexistent"));
        meters.tick(vec![said("1", Some(1), Some(9_000_000))]);
        meters.tick(vec![said("1", Some(1), Some(9_000_500))]);
        let now = Instant::now();
        assert_eq!(meters.readings(now, AGE), reading(Some(1), Some(500)));
        let later = now + Duration::from_secs(20);
        assert!(meters.readings(later, AGE).is_empty());
    }

    #[test]
    fn two_supplies_are_added_and_an_unknown_one_makes_the_sum_unknown() {
        let mut meters = PlatformMeters::new(Path::new("/nonexistent"));
        meters.tick(vec![
            said("1", Some(200), Some(3)),
            said("2", Some(210), Some(4)),
        ]);
        meters.tick(vec![
            said("1", Some(200), Some(10)),
            said("2", Some(210), Some(6)),
        ]);
        let now = Instant::now();
        assert_eq!(meters.readings(now, AGE), reading(Some(410), Some(9)));
        meters.tick(vec![said("1", Some(200), None), said("2", None, Some(7))]);
        assert_eq!(meters.readings(now, AGE), reading(None, None));
    }

    #[test]
    fn a_meter_that_comes_back_elsewhere_adds_to_what_was_counted() {
        let mut meters = PlatformMeters::new(Path::new("/nonexistent"));
        meters.tick(vec![said("1", Some(1), Some(1_000))]);
        meters.tick(vec![said("1", Some(1), Some(1_700))]);
        meters.tick(Vec::new());
        meters.tick(vec![said("5", Some(1), Some(20))]);
        let now = Instant::now();
        assert_eq!(meters.readings(now, AGE), reading(Some(1), Some(700)));
        meters.tick(vec![said("5", Some(1), Some(30))]);
        assert_eq!(meters.readings(now, AGE), reading(Some(1), Some(710)));
    }
}
