//! How fast cores run, from `cpufreq/` of `/sys/devices/system/cpu/cpuN/`
//! (Documentation/admin-guide/pm/cpufreq.rst) or from `/proc/cpuinfo` (x86).
//!
//! On x86 both ask the same function of the kernel. An attribute costs some 3 µs, and a core in
//! `/proc/cpuinfo` 9 µs, of 1.2 KiB of text: attributes are preferred. But before Linux 5.18
//! the attribute of a busy core interrupts it and waits for 10 ms, whereas `/proc/cpuinfo` does so
//! for all of them at once. It also serves hosts whose firmware governs the frequency, which have no
//! `cpufreq/` but counters of cycles (APERF, MPERF). Where there is neither, in most virtual
//! machines, the kernel writes the nominal frequency for ever: that is no reading, and not shown.

use super::{cpuinfo::Cpuinfo, devices::Cpus, round::Round};
use crate::{collectors::sysfs, error::ReadError, page::Page};
use std::{
    fmt,
    path::{Path, PathBuf},
    time::Duration,
};

/// Limits are those of the hardware, and those that someone set.
const LIMITS_PERIOD: Duration = Duration::from_mins(1);
const LIMITS_BUDGET: Duration = Duration::from_micros(100);
/// Enough for 150 cores; more take turns.
const CURRENT_BUDGET: Duration = Duration::from_micros(500);

/// Frequencies of a core in kHz. What the driver doesn't tell is unknown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Frequency {
    pub(super) core: u32,
    pub(super) current: Option<u64>,
    pub(super) hardware: Limits,
    /// What the governor keeps to.
    pub(super) scaling: Limits,
}

/// The lowest and the highest in kHz.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Limits {
    pub(super) min: Option<u64>,
    pub(super) max: Option<u64>,
}

/// Reads the frequencies in turn.
pub(super) struct Frequencies {
    cpuinfo: Cpuinfo,
    cores: Vec<Files>,
    current: Round,
    limits: Round,
}

/// A core, and its folder `cpufreq` if it has one.
struct Files {
    folder: Option<PathBuf>,
    last: Frequency,
}

impl Frequencies {
    /// Looks what `/proc/cpuinfo` is good for.
    pub(super) fn new(procfs: &Path) -> Self {
        Self {
            cpuinfo: Cpuinfo::new(procfs),
            cores: Vec::new(),
            current: Round::new(Duration::ZERO, CURRENT_BUDGET),
            limits: Round::new(LIMITS_PERIOD, LIMITS_BUDGET),
        }
    }

    /// Looks which of these have the folder.
    pub(super) fn look(&mut self, cpus: &Cpus) {
        let mut having = cpus.having("cpufreq").into_iter().peekable();
        let cores = cpus.online.iter().map(|core| Files {
            folder: having
                .next_if(|(having, _)| having == core)
                .map(|(_, folder)| folder),
            last: Frequency {
                core: *core,
                ..Frequency::default()
            },
        });
        let cores: Vec<_> = cores.collect();
        let place = |files: &Files| (files.last.core, files.folder.is_some());
        if !cores.iter().map(place).eq(self.cores.iter().map(place)) {
            self.cores = cores;
            self.current.restart();
            self.limits.restart();
            self.cpuinfo.restart();
        }
    }

    /// The frequencies, some of them from an earlier pass.
    ///
    /// # Errors
    /// If a file can't be parsed.
    pub(super) fn sample(&mut self) -> Result<Vec<Frequency>, ReadError> {
        let mut having = self.cores.iter().filter(|core| core.folder.is_some());
        let has_cpufreq = having.next().is_some();
        if has_cpufreq {
            self.limits.go(&mut self.cores, Files::read_limits)?;
        }
        if self.cpuinfo.serves(has_cpufreq) {
            if let Some(frequencies) = self.cpuinfo.read()? {
                for core in &mut self.cores {
                    core.last.current = frequencies.get(&core.last.core).copied();
                }
            }
        } else if has_cpufreq {
            self.current.go(&mut self.cores, Files::read_current)?;
        }
        Ok(self.cores.iter().map(|core| core.last).collect())
    }
}

impl Files {
    fn read_current(&mut self) -> Result<(), ReadError> {
        self.last.current = self.kilohertz("scaling_cur_freq")?;
        Ok(())
    }

    fn read_limits(&mut self) -> Result<(), ReadError> {
        self.last.hardware = Limits {
            min: self.kilohertz("cpuinfo_min_freq")?,
            max: self.kilohertz("cpuinfo_max_freq")?,
        };
        self.last.scaling = Limits {
            min: self.kilohertz("scaling_min_freq")?,
            max: self.kilohertz("scaling_max_freq")?,
        };
        Ok(())
    }

    /// A driver that does not know says 0.
    fn kilohertz(&self, name: &str) -> Result<Option<u64>, ReadError> {
        let Some(folder) = &self.folder else {
            return Ok(None);
        };
        let frequency = sysfs::number(&folder.join(name))?;
        Ok(frequency.filter(|frequency| *frequency > 0))
    }
}

pub(super) fn encode(frequencies: &[Frequency], page: &mut Page<'_>) -> fmt::Result {
    type Family = (&'static str, &'static str, fn(&Frequency) -> Option<u64>);
    let families: [Family; 2] = [
        (
            "esnode_cpu_frequency_mhz",
            "Frequency of the core when it was last read, of many cores in turn: scaling_cur_freq of \
             cpufreq in /sys/devices/system/cpu, or cpu MHz of /proc/cpuinfo where that is all there \
             is or the kernel is older than 5.18, every ten seconds at most",
            |core| core.current,
        ),
        (
            "esnode_cpu_frequency_max_mhz",
            "Highest frequency of the core, cpuinfo_max_freq of cpufreq in /sys/devices/system/cpu",
            |core| core.hardware.max,
        ),
    ];
    for (name, help, of) in families {
        let megahertz = |core: &Frequency| {
            #[expect(clippy::cast_precision_loss, reason = "kHz are far below 2^52")]
            let kilohertz = of(core)? as f64;
            Some(([("core", core.core)], kilohertz / 1000.0))
        };
        page.gauge(name, help, frequencies.iter().filter_map(megahertz))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collectors::fixture::Host;

    const CPUINFO: &str = "processor\t: 0\nvendor_id\t: GenuineIntel\ncpu MHz\t\t: 2245.780\n\
        flags\t\t: fpu aperfmperf\n\nprocessor\t: 2\ncpu MHz\t\t: 3000.001\nflags\t\t: fpu\n\n\
        processor\t: 1\ncpu MHz\t\t: Unknown\n\n";

    fn host(cores: &[u32], cpuinfo: &str, release: &str) -> Host {
        let host = Host::new(&[
            ("proc/cpuinfo", cpuinfo),
            ("proc/sys/kernel/osrelease", release),
        ]);
        for core in cores {
            for (number, file) in (1..).zip([
                "scaling_cur_freq",
                "cpuinfo_min_freq",
                "cpuinfo_max_freq",
                "scaling_min_freq",
                "scaling_max_freq",
            ]) {
                let file = format!("sys/devices/system/cpu/cpu{core}/cpufreq/{file}");
                host.write(&file, format!("{number}00{core}\n"));
            }
        }
        host
    }

    fn frequencies(host: &Host, online: &[u32]) -> Frequencies {
        let mut frequencies = Frequencies::new(&host.procfs());
        frequencies.look(&Cpus::new(&host.sysfs(), online.to_vec()));
        frequencies
    }

    fn current(host: &Host, online: &[u32]) -> Vec<Option<u64>> {
        let seen = frequencies(host, online).sample().expect("valid");
        seen.iter().map(|core| core.current).collect()
    }

    #[test]
    fn of_cpufreq() {
        let host = host(&[0, 3], CPUINFO, "6.8.0-45-generic\n");
        let seen = frequencies(&host, &[0, 1, 3]).sample().expect("valid");
        let of = |core: u64| Frequency {
            core: u32::try_from(core).expect("small"),
            current: Some(1000 + core),
            hardware: Limits {
                min: Some(2000 + core),
                max: Some(3000 + core),
            },
            scaling: Limits {
                min: Some(4000 + core),
                max: Some(5000 + core),
            },
        };
        let without = Frequency {
            core: 1,
            ..Frequency::default()
        };
        assert_eq!(seen, [of(0), without, of(3)]);
    }

    #[test]
    fn of_cpuinfo_where_asking_a_core_waits() {
        let old = host(&[0, 1, 2], CPUINFO, "5.15.0-91-generic\n");
        let mut frequencies = frequencies(&old, &[0, 1, 2]);
        let seen = frequencies.sample().expect("valid");
        let kilohertz: Vec<_> = seen.iter().map(|core| core.current).collect();
        assert_eq!(kilohertz, [Some(2_245_780), None, Some(3_000_001)]);
        assert_eq!(seen[2].hardware.max, Some(3002));
        // Not so soon again.
        old.write("proc/cpuinfo", "processor : 0\ncpu MHz : x\n");
        assert_eq!(frequencies.sample().expect("not read"), seen);
        // What other architectures write there is no help.
        let arm = host(&[0], "processor\t: 0\nBogoMIPS\t: 2000.00\n", "5.15.0\n");
        assert_eq!(current(&arm, &[0]), [Some(1000)]);
    }

    #[test]
    fn of_cpuinfo_where_there_is_no_cpufreq_if_it_was_measured() {
        let bare = host(&[], CPUINFO, "6.8.0\n");
        assert_eq!(current(&bare, &[0, 1]), [Some(2_245_780), None]);
        let guest = host(&[], &CPUINFO.replace(" aperfmperf", ""), "6.8.0\n");
        assert_eq!(current(&guest, &[0, 1]), [None, None]);
        assert_eq!(current(&Host::new(&[]), &[0, 1]), [None, None]);
    }

    #[test]
    fn a_driver_that_does_not_know_or_refuses() {
        let host = host(&[0, 1], CPUINFO, "6.8.0\n");
        host.write(
            "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq",
            "0\n",
        );
        let file = host
            .sysfs()
            .join("devices/system/cpu/cpu1/cpufreq/scaling_cur_freq");
        std::fs::remove_file(file).expect("removed");
        assert_eq!(current(&host, &[0, 1]), [None, None]);
    }

    #[test]
    fn a_core_that_comes_is_read_at_once() {
        let host = host(&[0, 1], CPUINFO, "6.8.0\n");
        let mut frequencies = frequencies(&host, &[0]);
        assert_eq!(frequencies.sample().expect("valid").len(), 1);
        frequencies.look(&Cpus::new(&host.sysfs(), vec![0, 1]));
        let seen = frequencies.sample().expect("valid");
        assert_eq!(seen[1].hardware.max, Some(3001));
    }

    #[test]
    fn says_where_it_breaks() {
        let host = host(&[0], CPUINFO, "6.8.0\n");
        host.write(
            "sys/devices/system/cpu/cpu0/cpufreq/scaling_max_freq",
            "fast\n",
        );
        let error = frequencies(&host, &[0]).sample().expect_err("no number");
        let error = error.to_string();
        assert!(
            error.ends_with("scaling_max_freq, line 1: expected a whole number"),
            "{error}"
        );
    }
}
