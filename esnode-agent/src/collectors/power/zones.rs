//! What the zones of RAPL took, since the agent started and in its last interval.

use super::{
    counter::{EnergyCounter, MeanPower},
    node::Taken,
    rapl::{Rapl, Zone},
};
use crate::{collectors::ticker::Tick, error::ReadError};
use std::{
    path::{Path, PathBuf},
    time::Instant,
};

/// What the counter of a zone says.
#[derive(Clone, Debug)]
pub(super) struct ZoneFacts {
    pub(super) zone: Zone,
    /// As the hardware has it.
    pub(super) raw_microjoules: Option<u64>,
    pub(super) taken: Taken,
}

/// All zones, as they were read last.
pub(super) struct ZoneMeters {
    sysfs: PathBuf,
    rapl: Rapl,
    /// In the order of the zones.
    meters: Vec<Meter>,
    failure: Option<ReadError>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Meter {
    raw: Option<u64>,
    energy: EnergyCounter,
    power: MeanPower,
}

impl Meter {
    /// Since the agent started, if the counter can be read now.
    fn readable(&self) -> Option<u64> {
        self.raw.and(self.energy.total())
    }
}

impl ZoneMeters {
    pub(super) fn new(sysfs: &Path) -> Self {
        Self {
            sysfs: sysfs.to_owned(),
            rapl: Rapl::default(),
            meters: Vec::new(),
            failure: None,
        }
    }

    /// Brings all counters up to date.
    pub(super) fn read(&mut self, now: Instant) {
        self.failure = None;
        if self.rapl.zones.is_empty() {
            // The driver may be loaded later.
            match Rapl::find(&self.sysfs) {
                Ok(rapl) => self.rapl = rapl,
                Err(error) => self.failure = Some(error),
            }
            self.meters = vec![Meter::default(); self.rapl.zones.len()];
        }
        for (zone, meter) in self.rapl.zones.iter().zip(&mut self.meters) {
            meter.raw = match zone.read() {
                Ok(raw) => Some(raw),
                Err(error) => {
                    self.failure = Some(error);
                    None
                }
            };
            if let Some(raw) = meter.raw {
                meter.energy.advance(raw, zone.range, now);
            }
        }
    }

    pub(super) fn facts(&self, now: Instant) -> Vec<ZoneFacts> {
        let facts = |(zone, meter): (&Zone, &Meter)| ZoneFacts {
            zone: zone.clone(),
            raw_microjoules: meter.raw,
            taken: Taken {
                watts: meter.power.watts(meter.readable(), now),
                // What was counted stays.
                microjoules: meter.energy.total(),
            },
        };
        self.rapl
            .zones
            .iter()
            .zip(&self.meters)
            .map(facts)
            .collect()
    }

    /// Why a counter could not be read last.
    pub(super) fn complaint(&self) -> Option<String> {
        self.failure.as_ref().map(ToString::to_string)
    }

    /// Whether zones are listed that nothing can be read of.
    pub(super) fn are_hidden(&self) -> bool {
        self.rapl.hidden
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
    use std::time::Duration;

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
}
