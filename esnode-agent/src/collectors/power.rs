//! Power and energy of processors, memory and the whole machine, from `/sys/class/powercap/` (RAPL),
//! meters in `/sys/class/hwmon/`, and GPUs.
//!
//! Counters begin with the agent: those of the hardware wrap around within minutes or hours, which a
//! thread watches for, whoever scrapes when.

mod counter;
mod encode;
mod node;
mod platform;
mod rapl;
mod zones;

use super::{CollectError, sysfs, ticker::Ticking};
use crate::gpu::{
    collector::Shared as Gpus,
    facts::{DeviceFacts, GpuFacts},
};
use node::{NodePower, Parts, Published, Taken};
use platform::PlatformMeters;
use rapl::Domain;
use std::{
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};
use zones::{ZoneFacts, ZoneMeters};

/// How old what a meter said may be at least: management controllers can take seconds to answer.
const PATIENCE: Duration = Duration::from_secs(15);

/// Power and energy of the node.
#[derive(Clone, Debug)]
pub struct PowerFacts {
    zones: Vec<ZoneFacts>,
    watts: Option<NodePower<f64>>,
    microjoules: Option<NodePower<u64>>,
}

/// What all processor packages took since the agent started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spent {
    /// Energy.
    pub microjoules: u64,
    /// Cores that are online, which took it.
    pub cores: u64,
}

/// That of the last pass, for the collector of processes, which comes after this one: all of a page
/// is from one snapshot. `None` is unknown.
#[derive(Clone, Debug, Default)]
pub struct CpuEnergy(Arc<Mutex<Option<Spent>>>);

impl CpuEnergy {
    /// At the last pass.
    #[must_use]
    pub fn get(&self) -> Option<Spent> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, spent: Option<Spent>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = spent;
    }
}

/// Reads counters in each pass, and all meters in the agent's own interval.
pub struct PowerCollector {
    zones: Ticking<ZoneMeters>,
    platform: Ticking<PlatformMeters>,
    gpus: Option<Gpus>,
    cpu_energy: CpuEnergy,
    sysfs: PathBuf,
    published: Published,
    interval: Duration,
    complaint: Option<String>,
}

impl PowerCollector {
    /// Reads below `sysfs`, meters every `interval`; `gpus` only where these are all of the machine.
    ///
    /// # Errors
    /// If the system refuses a thread.
    pub fn new(sysfs: &Path, interval: Duration, gpus: Option<Gpus>) -> io::Result<Self> {
        Ok(Self {
            zones: Ticking::start("rapl", ZoneMeters::new(sysfs), interval)?,
            platform: Ticking::start("power", PlatformMeters::new(sysfs), interval)?,
            gpus,
            cpu_energy: CpuEnergy::default(),
            sysfs: sysfs.to_owned(),
            published: Published::default(),
            interval,
            complaint: None,
        })
    }

    /// Where others find the energy of processors at each pass.
    #[must_use]
    pub fn cpu_energy(&self) -> CpuEnergy {
        self.cpu_energy.clone()
    }

    /// Why a meter can't be read at the moment.
    #[must_use]
    pub fn complaint(&self) -> Option<String> {
        self.complaint.clone()
    }

    /// Samples once.
    ///
    /// # Errors
    /// [`CollectError::Off`] if nothing here measures power.
    pub fn sample(&mut self) -> Result<PowerFacts, CollectError> {
        let now = Instant::now();
        let mut meters = self.zones.get();
        meters.read(now);
        let zones = meters.facts(now);
        self.complaint = meters.complaint();
        let hidden = meters.are_hidden();
        drop(meters);
        // A meter that hangs is absent; one that only answers slowly is not.
        let age = (self.interval * 3).max(PATIENCE);
        let platform = self.platform.get().readings(now, age);

        let of = |domain| {
            let zones = zones.iter().filter(|it| it.zone.domain == domain);
            let zones: Vec<_> = zones.map(|it| it.taken).collect();
            (!zones.is_empty()).then(|| Taken::sum(&zones))
        };
        let gpus = self.gpus.as_ref().map(Gpus::get);
        let parts = Parts {
            cpu: of(Domain::Package),
            dram: of(Domain::Dram),
            gpu: gpus.map(|gpus| of_gpus(&gpus)).unwrap_or_default(),
        };
        let spent = parts.cpu.and_then(|cpu| cpu.microjoules);
        self.cpu_energy.set(spent.map(|microjoules| Spent {
            microjoules,
            cores: online_cores(&self.sysfs),
        }));
        let psys = of(Domain::Platform);
        let watts = node::watts(&platform, psys, &parts);
        let microjoules = node::microjoules(&platform, psys, &parts);
        let nothing_there = zones.is_empty() && watts.is_none() && microjoules.is_none();
        if nothing_there && self.complaint.is_none() {
            return Err(CollectError::Off(nothing(hidden)));
        }
        Ok(PowerFacts {
            zones,
            watts,
            microjoules: microjoules.map(|counter| self.published.raise(counter)),
        })
    }
}

/// Why nothing can be measured, and what to do about it.
fn nothing(hidden: bool) -> String {
    if hidden {
        "RAPL is there, but /sys/class/powercap is hidden, as container engines do: mount the \
         host's /sys elsewhere and name it by --sysfs"
            .to_owned()
    } else {
        "nothing here measures power: no RAPL (/sys/class/powercap; load intel_rapl_msr), no known \
         meter in /sys/class/hwmon (acpi_power_meter …), nothing told by NVML; virtual machines \
         rarely have any"
            .to_owned()
    }
}

/// What all GPUs take together. Those of one that does not tell are unknown.
fn of_gpus(facts: &GpuFacts) -> Taken {
    let of = |device: &DeviceFacts| {
        let energy = device.energy.as_ref().map(|energy| {
            let before = energy.unattributed.iter();
            let before = before.filter(|(reason, _)| *reason == "before_agent");
            let before: u64 = before.map(|(_, microjoules)| microjoules).sum();
            energy.total_microjoules.saturating_sub(before)
        });
        let fast = device.fast.as_ref();
        let milliwatts = fast.and_then(|fast| fast.power_milliwatts);
        Taken {
            watts: milliwatts.map(|milliwatts| f64::from(milliwatts) / 1e3),
            microjoules: energy,
        }
    };
    Taken::sum(&facts.devices.iter().map(of).collect::<Vec<_>>())
}

/// Cores that are online, from `/sys/devices/system/cpu/online`, such as `0-3,8`; those that the
/// agent may use where that can't be read.
fn online_cores(sysfs: &Path) -> u64 {
    let listed = sysfs::text(&sysfs.join("devices/system/cpu/online"));
    let listed = listed.ok().and_then(|list| count(&list));
    listed.unwrap_or_else(|| {
        let own = thread::available_parallelism();
        own.map_or(1, |cores| cores.get() as u64)
    })
}

/// How many numbers a list such as `0-3,8` has; `None` if it is none.
fn count(list: &str) -> Option<u64> {
    let range = |range: &str| {
        let (from, to) = range.split_once('-').unwrap_or((range, range));
        let (from, to): (u64, u64) = (from.parse().ok()?, to.parse().ok()?);
        to.checked_sub(from)?.checked_add(1)
    };
    list.split(',')
        .try_fold(0_u64, |sum, part| sum.checked_add(range(part)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collectors::fixture::{Host, node_exporter_samples, samples};

    const INTERVAL: Duration = Duration::from_hours(1);

    fn zone(number: &str, name: &str, microjoules: u64) -> [(String, String); 3] {
        let file = |file: &str| format!("sys/class/powercap/intel-rapl:{number}/{file}");
        [
            (file("name"), format!("{name}\n")),
            (file("energy_uj"), format!("{microjoules}\n")),
            (file("max_energy_range_uj"), "262143328850\n".to_owned()),
        ]
    }

    fn host(zones: &[(&str, &str, u64)]) -> Host {
        let host = Host::new(&[("sys/devices/system/cpu/online", "0-3,8\n")]);
        for (number, name, microjoules) in zones {
            for (file, text) in zone(number, name, *microjoules) {
                host.write(&file, text);
            }
        }
        host
    }

    fn set(host: &Host, number: &str, microjoules: u64) {
        let file = format!("sys/class/powercap/intel-rapl:{number}/energy_uj");
        host.write(&file, format!("{microjoules}\n"));
    }

    #[test]
    fn packages_memory_and_their_sum() {
        let host = host(&[
            ("0", "package-0", 1_000_000),
            ("0:0", "dram", 2_000_000),
            ("1", "package-1", 262_143_000_000),
            ("1:0", "dram", 3_000_000),
        ]);
        let mut power = PowerCollector::new(&host.sysfs(), INTERVAL, None).expect("threads");
        power.sample().expect("readable");
        set(&host, "0", 5_000_000);
        set(&host, "1", 671_150);
        set(&host, "1:0", 3_250_000);
        let facts = power.sample().expect("readable");
        let cpu = power.cpu_energy().get();
        let expected = Spent {
            microjoules: 5_000_000,
            cores: 5,
        };
        assert_eq!(cpu, Some(expected));
        let mut lines = samples(facts.clone());
        // Power is that of an interval of some milliseconds.
        lines.retain(|line| !line.contains("_watts"));
        assert_eq!(
            lines,
            [
                r#"esnode_cpu_package_energy_joules_total{package="0"} 4.0"#,
                r#"esnode_cpu_package_energy_joules_total{package="1"} 1.0"#,
                r#"esnode_dram_energy_joules_total{package="0"} 0.0"#,
                r#"esnode_dram_energy_joules_total{package="1"} 0.25"#,
                r#"esnode_node_energy_joules_total{source="cpu+dram"} 5.25"#,
            ]
        );
        let class = host.sysfs().join("class/powercap");
        let line = |family: &str, index: u32, zone: &str, joules: f64| {
            let path = class.join(format!("intel-rapl:{zone}"));
            let path = path.display();
            format!(
                r#"node_rapl_{family}_joules_total{{index="{index}",path="{path}"}} {joules:?}"#
            )
        };
        assert_eq!(
            node_exporter_samples(facts),
            [
                line("package", 0, "0", 5.0),
                line("package", 1, "1", 0.67115),
                line("dram", 0, "0:0", 2.0),
                line("dram", 1, "1:0", 3.25),
            ]
        );
    }

    #[test]
    fn power_of_an_interval() {
        let host = host(&[("0", "package-0", 0)]);
        let interval = Duration::from_millis(60);
        let mut power = PowerCollector::new(&host.sysfs(), interval, None).expect("threads");
        let begun = Instant::now();
        let mut joules = 0;
        let watts = loop {
            // Some 100 W.
            joules += 1_000_000;
            set(&host, "0", joules);
            thread::sleep(Duration::from_millis(10));
            let watts = power.sample().expect("readable").watts;
            if begun.elapsed() > interval * 4
                && let Some(watts) = watts
            {
                break watts;
            }
            assert!(begun.elapsed() < Duration::from_mins(1), "no power");
        };
        assert_eq!(watts.source, "cpu");
        // A busy machine sleeps longer than it is told to.
        assert!(watts.value > 1.0 && watts.value <= 150.0, "{watts:?}");
    }

    #[test]
    fn a_meter_of_all_is_named() {
        let host = host(&[("0", "package-0", 0)]);
        host.write("sys/class/hwmon/hwmon3/name", "power_meter\n");
        host.write("sys/class/hwmon/hwmon3/power1_average", "412500000\n");
        let mut power = PowerCollector::new(&host.sysfs(), INTERVAL, None).expect("threads");
        let lines = samples(power.sample().expect("readable"));
        let watts = r#"esnode_node_power_watts{source="acpi_power_meter"} 412.5"#;
        let energy = r#"esnode_node_energy_joules_total{source="cpu"} 0.0"#;
        assert!(lines.iter().any(|line| line == watts), "{lines:?}");
        assert!(lines.iter().any(|line| line == energy), "{lines:?}");
    }

    #[test]
    fn says_why_there_is_nothing() {
        let reason = |host: &Host| {
            let mut power = PowerCollector::new(&host.sysfs(), INTERVAL, None).expect("threads");
            match power.sample() {
                Err(CollectError::Off(reason)) => reason,
                other => panic!("{other:?}"),
            }
        };
        let nothing = host(&[]);
        assert!(reason(&nothing).starts_with("nothing here measures power"));
        nothing.link("sys/class/powercap/intel-rapl:0", "../nowhere");
        assert!(reason(&nothing).contains("is hidden"));
    }

    #[test]
    fn what_can_not_be_read_is_a_complaint() {
        let host = host(&[("0", "package-0", 0)]);
        host.write("sys/class/powercap/intel-rapl:0/energy_uj", "lots\n");
        let mut power = PowerCollector::new(&host.sysfs(), INTERVAL, None).expect("threads");
        assert!(samples(power.sample().expect("no facts")).is_empty());
        let complaint = power.complaint().expect("a reason");
        let expected = "intel-rapl:0/energy_uj, line 1: expected microjoules";
        assert!(complaint.ends_with(expected), "{complaint}");
    }

    #[test]
    fn lists_of_cores() {
        for (list, cores) in [
            ("0", Some(1)),
            ("0-127", Some(128)),
            ("0-3,8,10-11", Some(7)),
            ("", None),
            ("3-0", None),
            ("0-18446744073709551615", None),
            ("a", None),
        ] {
            assert_eq!(count(list), cores, "{list}");
        }
    }
}
