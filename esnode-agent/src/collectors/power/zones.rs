//! What the zones of RAPL took, since the agent started and in its last interval.

use super::{
    counter::{EnergyCounter, MeanPower},
    node::Taken,
    rapl::{Rapl, Zone},
};
use crate::{collectors::ticker::Tick, error::ReadError};
use std::{
    io::ErrorKind,
    mem,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// What the counter of a zone says.
#[derive(Clone, Debug)]
pub(super) struct ZoneFacts {
    pub(super) zone: Zone,
    /// As the hardware has it.
    pub(super) raw_microjoules: Option<u64>,
    pub(super) taken: Taken,
}

/// How often it is looked which zones there are: a driver may have been loaded, or loaded again.
const LOOK: Duration = Duration::from_mins(1);

/// All zones, as they were read last.
pub(super) struct ZoneMeters {
    sysfs: PathBuf,
    looked: Option<Instant>,
    /// Whether zones are listed that nothing can be read of.
    hidden: bool,
    /// Those that are listed, then those that were.
    meters: Vec<Meter>,
    failure: Option<ReadError>,
}

#[derive(Clone, Debug)]
struct Meter {
    zone: Zone,
    raw: Option<u64>,
    energy: EnergyCounter,
    power: MeanPower,
}

impl Meter {
    fn new(zone: Zone) -> Self {
        Self {
            zone,
            raw: None,
            energy: EnergyCounter::default(),
            power: MeanPower::default(),
        }
    }

    /// Since the agent started, if the counter can be read now.
    fn readable(&self) -> Option<u64> {
        self.raw.and(self.energy.total())
    }
}

impl ZoneMeters {
    pub(super) fn new(sysfs: &Path) -> Self {
        Self {
            sysfs: sysfs.to_owned(),
            looked: None,
            hidden: false,
            meters: Vec::new(),
            failure: None,
        }
    }

    /// Brings all counters up to date.
    pub(super) fn read(&mut self, now: Instant) {
        self.failure = None;
        let silent = self.meters.iter().all(|meter| meter.raw.is_none());
        let since = |looked| now.saturating_duration_since(looked);
        if silent || self.looked.is_none_or(|looked| since(looked) >= LOOK) {
            match Rapl::find(&self.sysfs) {
                Ok(rapl) => self.take(rapl),
                Err(error) => self.failure = Some(error),
            }
            self.looked = Some(now);
        }
        for meter in &mut self.meters {
            meter.raw = match meter.zone.read() {
                Ok(raw) => Some(raw),
                Err(error) => {
                    self.failure = Some(error);
                    None
                }
            };
            if let Some(raw) = meter.raw {
                meter.energy.advance(raw, meter.zone.range, now);
            }
        }
    }

    /// Takes in what is listed now. A zone that has its name on the page already goes on there, in
    /// whichever folder it is, and one that is no longer listed keeps what was counted.
    fn take(&mut self, rapl: Rapl) {
        self.hidden = rapl.hidden;
        let mut before = mem::take(&mut self.meters);
        for zone in rapl.zones {
            let known = before.iter().position(|meter| meter.zone.is(&zone));
            self.meters.push(match known {
                Some(known) => Meter {
                    zone,
                    ..before.remove(known)
                },
                None => Meter::new(zone),
            });
        }
        self.meters.append(&mut before);
    }

    pub(super) fn facts(&self, now: Instant) -> Vec<ZoneFacts> {
        let facts = |meter: &Meter| ZoneFacts {
            zone: meter.zone.clone(),
            raw_microjoules: meter.raw,
            taken: Taken {
                watts: meter.power.watts(meter.readable(), now),
                // What was counted stays.
                microjoules: meter.energy.total(),
            },
        };
        self.meters.iter().map(facts).collect()
    }

    /// Why a counter could not be read last, and what to do about it.
    pub(super) fn complaint(&self) -> Option<String> {
        let failure = self.failure.as_ref()?;
        let is_refused = matches!(failure, ReadError::Io { source, .. }
            if source.kind() == ErrorKind::PermissionDenied);
        let remedy = if is_refused {
            "; run the agent as root or with CAP_DAC_READ_SEARCH"
        } else {
            ""
        };
        Some(format!("{failure}{remedy}"))
    }

    /// Whether zones are listed that nothing can be read of.
    pub(super) fn are_hidden(&self) -> bool {
        self.hidden
    }
}

impl Tick for ZoneMeters {
    /// Counters take microseconds to read, and are read where they are kept.
    type Reading = ();

    fn reader(&self) -> Box<dyn FnMut() + Send> {
        Box::new(|| ())
    }

    fn tick(&mut self, (): ()) {
        let now = Instant::now();
        self.read(now);
        for meter in &mut self.meters {
            meter.power.tick(meter.readable(), now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collectors::fixture::Host;
    use std::fs;

    const ENERGY: &str = "sys/class/powercap/intel-rapl:0/energy_uj";

    fn host() -> Host {
        Host::new(&[
            ("sys/class/powercap/intel-rapl:0/name", "package-0\n"),
            (
                "sys/class/powercap/intel-rapl:0/max_energy_range_uj",
                "65532610987\n",
            ),
            (ENERGY, "65532000000\n"),
        ])
    }

    #[test]
    fn counters_go_on_over_their_end() {
        let host = host();
        let mut meters = ZoneMeters::new(&host.sysfs());
        let begin = Instant::now();
        meters.read(begin);
        host.write(ENERGY, "389013\n");
        let later = begin + Duration::from_secs(1);
        meters.read(later);
        let facts = meters.facts(later);
        assert_eq!(facts[0].taken.microjoules, Some(1_000_000));
        assert_eq!(facts[0].raw_microjoules, Some(389_013));
    }

    #[test]
    fn what_was_counted_stays_while_a_counter_can_not_be_read() {
        let host = host();
        let mut meters = ZoneMeters::new(&host.sysfs());
        meters.tick(());
        host.write(ENERGY, "65532500000\n");
        meters.read(Instant::now());
        host.write(ENERGY, "none\n");
        meters.tick(());
        let facts = meters.facts(Instant::now() + Duration::from_secs(1));
        assert_eq!(facts[0].taken.microjoules, Some(500_000));
        assert_eq!(
            (facts[0].raw_microjoules, facts[0].taken.watts),
            (None, None)
        );
        let complaint = meters.complaint().expect("a reason");
        assert!(
            complaint.ends_with("energy_uj, line 1: expected microjoules"),
            "{complaint}"
        );
    }

    #[test]
    fn who_may_not_read_is_told_what_to_do() {
        let mut meters = ZoneMeters::new(Path::new("/nonexistent"));
        meters.failure = Some(ReadError::Io {
            path: PathBuf::from("energy_uj"),
            source: ErrorKind::PermissionDenied.into(),
        });
        let complaint = meters.complaint().expect("a reason");
        let expected = "cannot read energy_uj: permission denied; run the agent as root or with \
                        CAP_DAC_READ_SEARCH";
        assert_eq!(complaint, expected);
    }

    #[test]
    fn a_driver_may_come_later() {
        let host = Host::new(&[]);
        let mut meters = ZoneMeters::new(&host.sysfs());
        meters.tick(());
        assert!(meters.facts(Instant::now()).is_empty());
        host.write("sys/class/powercap/intel-rapl:0/name", "package-0\n");
        host.write(ENERGY, "7\n");
        meters.tick(());
        assert_eq!(meters.facts(Instant::now())[0].taken.microjoules, Some(0));
        assert_eq!(meters.complaint(), None);
    }

    #[test]
    fn zones_are_listed_again_and_go_on() {
        let host = host();
        let mut meters = ZoneMeters::new(&host.sysfs());
        let begin = Instant::now();
        meters.read(begin);
        // The driver is loaded again, and finds another package besides.
        let old = host.sysfs().join("class/powercap/intel-rapl:0");
        fs::remove_dir_all(old).expect("removable");
        for (zone, name, microjoules) in
            [("1", "package-1", "5"), ("2", "package-0", "65532000700")]
        {
            host.write(
                format!("sys/class/powercap/intel-rapl:{zone}/name").as_str(),
                name,
            );
            host.write(
                format!("sys/class/powercap/intel-rapl:{zone}/energy_uj").as_str(),
                microjoules,
            );
        }
        let totals = |meters: &ZoneMeters| -> Vec<_> {
            let facts = meters.facts(begin).into_iter();
            facts
                .map(|facts| (facts.zone.name, facts.taken.microjoules))
                .collect()
        };
        // What can not be read at all is looked for at once.
        meters.read(begin + Duration::from_secs(1));
        meters.read(begin + Duration::from_secs(2));
        let both = [
            ("package-1".to_owned(), Some(0)),
            ("package-0".to_owned(), Some(700)),
        ];
        assert_eq!(totals(&meters), both);
        assert_eq!(meters.complaint(), None);
        // One that joins others is seen within a minute.
        host.write("sys/class/powercap/intel-rapl:2:0/name", "dram\n");
        host.write("sys/class/powercap/intel-rapl:2:0/energy_uj", "9\n");
        meters.read(begin + Duration::from_secs(30));
        assert_eq!(totals(&meters), both);
        meters.read(begin + Duration::from_secs(62));
        let expected = [both.as_slice(), &[("dram".to_owned(), Some(0))]].concat();
        assert_eq!(totals(&meters), expected);
    }
}
