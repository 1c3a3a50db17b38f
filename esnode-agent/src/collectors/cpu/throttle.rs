//! How often cores were slowed down because they got too hot, from `thermal_throttle/` of
//! `/sys/devices/system/cpu/cpuN/` (Intel only; Documentation/ABI/testing/sysfs-devices-system-cpu).
//!
//! The kernel counts on each thread, but what it counts happens to cores and to packages: the first
//! thread of each is read, as by node_exporter. Sums then count nothing twice, and of 256 threads
//! in two packages 130 files are left, of some 3 µs each. The counters hardly ever change, so they
//! are read every ten seconds at most, and in turn.

use super::{devices::Cpus, round::Round};
use crate::{collectors::sysfs, error::ReadError, page::Page};
use std::{fmt, path::PathBuf, time::Duration};

const PERIOD: Duration = Duration::from_secs(10);
const BUDGET: Duration = Duration::from_micros(200);

/// Throttles since boot, as the first thread of a core, or of a package, knows them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Throttle {
    /// Number of the thread.
    core: u32,
    /// The package, and the core within.
    pub(super) place: Option<(u64, u64)>,
    pub(super) of_core: Option<u64>,
    pub(super) of_package: Option<u64>,
}

/// Reads the counters in turn.
pub(super) struct Throttles {
    counters: Vec<Counters>,
    round: Round,
}

struct Counters {
    folder: PathBuf,
    /// Whether another thread of the package is read for it.
    package_is_read: bool,
    last: Throttle,
}

impl Throttles {
    pub(super) fn new() -> Self {
        Self {
            counters: Vec::new(),
            round: Round::new(PERIOD, BUDGET),
        }
    }

    /// Looks which of these count.
    ///
    /// # Errors
    /// If a file of `topology/` can't be parsed.
    pub(super) fn look(&mut self, cpus: &Cpus) -> Result<(), ReadError> {
        let mut counters: Vec<Counters> = Vec::new();
        for (core, folder) in cpus.having("thermal_throttle") {
            // Some guests and old kernels say -1: then the thread stands for itself.
            let topology = |name: &str| -> Result<_, ReadError> {
                let id = sysfs::number(&cpus.folder(core).join("topology").join(name))?;
                Ok(id.and_then(|id: i64| u64::try_from(id).ok()))
            };
            let package: Option<u64> = topology("physical_package_id")?;
            let place = package.zip(topology("core_id")?);
            let is_read = |same: fn((u64, u64), (u64, u64)) -> bool| {
                let mut places = counters.iter().filter_map(|known| known.last.place);
                place.is_some_and(|place| places.any(|known| same(known, place)))
            };
            if is_read(|known, place| known == place) {
                continue;
            }
            let package_is_read = is_read(|known, place| known.0 == place.0);
            let last = Throttle {
                core,
                place,
                ..Throttle::default()
            };
            counters.push(Counters {
                folder,
                package_is_read,
                last,
            });
        }
        let place = |counters: &Counters| (counters.last.core, counters.last.place);
        if !counters
            .iter()
            .map(place)
            .eq(self.counters.iter().map(place))
        {
            self.counters = counters;
            self.round.restart();
        }
        Ok(())
    }

    /// The counters, some of them from an earlier pass.
    ///
    /// # Errors
    /// If one can't be parsed.
    pub(super) fn sample(&mut self) -> Result<Vec<Throttle>, ReadError> {
        self.round.go(&mut self.counters, |counters| {
            let count = |name: &str| sysfs::number(&counters.folder.join(name));
            counters.last.of_core = count("core_throttle_count")?;
            if !counters.package_is_read {
                counters.last.of_package = count("package_throttle_count")?;
            }
            Ok::<_, ReadError>(())
        })?;
        Ok(self.counters.iter().map(|counters| counters.last).collect())
    }
}

pub(super) fn encode(throttles: &[Throttle], page: &mut Page<'_>) -> fmt::Result {
    let scopes = |throttle: &Throttle| {
        let labels = |scope| ([("core", throttle.core)], [("scope", scope)]);
        let of = |scope, count: Option<u64>| Some((labels(scope), count?));
        [
            of("core", throttle.of_core),
            of("package", throttle.of_package),
        ]
    };
    page.counter(
        "esnode_cpu_throttles",
        "Times that the core, or its whole package, was slowed down because it got too hot, of the \
         first thread of each, from thermal_throttle in /sys/devices/system/cpu; read every ten \
         seconds at most, and of many cores in turn, so that it may lag by some scrapes",
        throttles.iter().flat_map(scopes).flatten(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collectors::fixture::Host;

    /// Threads with their package, core, and counts of both.
    fn host(threads: &[(u32, &str, &str, [u64; 2])]) -> Host {
        let host = Host::new(&[]);
        for (thread, package, core, [of_core, of_package]) in threads {
            let write = |file: &str, value: &str| {
                let file = format!("sys/devices/system/cpu/cpu{thread}/{file}");
                host.write(&file, format!("{value}\n"));
            };
            write("topology/physical_package_id", package);
            write("topology/core_id", core);
            write("thermal_throttle/core_throttle_count", &of_core.to_string());
            write(
                "thermal_throttle/package_throttle_count",
                &of_package.to_string(),
            );
        }
        host
    }

    fn throttle(
        core: u32,
        place: Option<(u64, u64)>,
        of_core: u64,
        of_package: Option<u64>,
    ) -> Throttle {
        Throttle {
            core,
            place,
            of_core: Some(of_core),
            of_package,
        }
    }

    #[test]
    fn the_first_thread_of_each() {
        let host = host(&[
            (0, "0", "0", [1, 10]),
            (1, "0", "4", [2, 11]),
            (2, "1", "0", [3, 12]),
            (3, "0", "0", [4, 13]),
        ]);
        let cpus = Cpus::new(&host.sysfs(), vec![0, 1, 2, 3, 9]);
        let mut throttles = Throttles::new();
        throttles.look(&cpus).expect("valid");
        let seen = [
            throttle(0, Some((0, 0)), 1, Some(10)),
            throttle(1, Some((0, 4)), 2, None),
            throttle(2, Some((1, 0)), 3, Some(12)),
        ];
        assert_eq!(throttles.sample().expect("valid"), seen);
        // They are not read again so soon, nor forgotten when nothing changed.
        host.write(
            "sys/devices/system/cpu/cpu0/thermal_throttle/core_throttle_count",
            "5\n",
        );
        throttles.look(&cpus).expect("valid");
        assert_eq!(throttles.sample().expect("valid"), seen);
    }

    #[test]
    fn without_a_place_it_stands_for_itself() {
        let host = host(&[(0, "-1", "0", [1, 10]), (1, "-1", "0", [2, 11])]);
        let mut throttles = Throttles::new();
        throttles
            .look(&Cpus::new(&host.sysfs(), vec![0, 1]))
            .expect("valid");
        let seen = [
            throttle(0, None, 1, Some(10)),
            throttle(1, None, 2, Some(11)),
        ];
        assert_eq!(throttles.sample().expect("valid"), seen);
    }

    #[test]
    fn says_where_it_breaks() {
        let host = host(&[(0, "0", "0", [1, 10])]);
        let cpus = Cpus::new(&host.sysfs(), vec![0]);
        let count = "sys/devices/system/cpu/cpu0/thermal_throttle/core_throttle_count";
        for text in ["", "x\n", "-1\n", "99999999999999999999\n"] {
            host.write(count, text);
            let mut throttles = Throttles::new();
            throttles.look(&cpus).expect("valid");
            let error = throttles.sample().expect_err("no count").to_string();
            assert!(
                error.ends_with("core_throttle_count, line 1: expected a whole number"),
                "{error}"
            );
            // And again, until it is mended.
            throttles.sample().expect_err("no count");
        }
    }
}
