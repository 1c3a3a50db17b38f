//! What is known of all GPUs, between the threads that sample them and the scrapes that read it.
//! The lock is never held while NVML is called.

use super::{
    counter::{Counter, Reading},
    device::{CounterName, CounterReadings},
    energy::{Claim, EnergyAccount, Use},
    facts::{
        Counters, DeviceFacts, Driver, Fast, GpuFacts, GpuProcess, Identity, MigDevice, Slow, Xid,
    },
    filter::Present,
};
use crate::process::Key;
use rustc_hash::FxHashSet;
use std::{
    collections::BTreeMap,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant, SystemTime},
};

/// After so many intervals a sample is too old to be shown.
pub(super) const STALE: u32 = 3;

/// How often what is sampled.
#[derive(Clone, Copy, Debug)]
pub struct Intervals {
    /// Readings.
    pub fast: Duration,
    /// Readings that change seldom.
    pub slow: Duration,
}

/// Where the library stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Nobody knows yet.
    Opening,
    /// It never answered: why.
    Off(String),
    /// It answers.
    Up,
    /// It answered once, or is there at least, and does not answer now: why.
    Down(String),
}

/// The energy of an interval, and what is known of its use.
#[derive(Clone, Debug)]
pub(super) enum Used {
    /// The driver's samples.
    Sampled(Vec<Claim>),
    /// The driver has none to give.
    NotSampled,
    /// None this time.
    Later,
}

/// One look at a device.
#[derive(Debug)]
pub(super) struct Sample {
    /// When it began.
    pub at: Instant,
    /// How long it took.
    pub took: Duration,
    /// Readings.
    pub fast: Fast,
    /// Readings that change seldom, if it was their turn.
    pub slow: Option<Slow>,
    /// Counters of the device.
    pub counters: CounterReadings,
    /// Energy counter in millijoules, and what was known of the interval.
    pub energy: Option<(u64, Used)>,
    /// Processes on it, their energy not filled in.
    pub processes: Vec<GpuProcess>,
    /// Process ids that nobody knows.
    pub unknown_processes: Option<u64>,
    /// Every process that is alive and was met on this device.
    pub alive: FxHashSet<Key>,
    /// MIG devices.
    pub mig: Vec<MigDevice>,
    /// Until when the driver's samples of processes were taken in.
    pub seen_microseconds: u64,
}

/// What of a [`Sample`] the page shows.
#[derive(Debug)]
struct Shown {
    fast: Fast,
    processes: Vec<GpuProcess>,
    unknown_processes: Option<u64>,
    mig: Vec<MigDevice>,
}

/// A counter of a device.
#[derive(Debug, Default)]
struct Account {
    counter: Counter,
    /// When it was read last.
    read: Option<Instant>,
    /// What came per second from the reading before to the last one.
    rate: Option<f64>,
}

impl Account {
    fn advance(&mut self, reading: Reading, at: Instant, restarted: bool) {
        let gain = self.counter.advance(reading, restarted);
        let since = self.read.replace(at).filter(|_| !restarted);
        let elapsed = since.map(|since| at.saturating_duration_since(since));
        let elapsed = elapsed.filter(|elapsed| !elapsed.is_zero());
        #[expect(
            clippy::cast_precision_loss,
            reason = "bytes per second, to be looked at"
        )]
        let rate = elapsed.map(|elapsed| gain as f64 / elapsed.as_secs_f64());
        self.rate = rate;
    }
}

#[derive(Debug, Default)]
struct Entry {
    identity: Arc<Identity>,
    energy: EnergyAccount,
    counters: BTreeMap<CounterName, Account>,
    xids: BTreeMap<u64, Xid>,
    sampled: Option<(Instant, Duration)>,
    /// Gone as soon as the device is lost.
    shown: Option<Shown>,
    slow: Option<(Instant, Slow)>,
    /// Whether the driver was lost since the last sample.
    restarted: bool,
    seen_microseconds: u64,
}

#[derive(Debug)]
struct State {
    standing: Standing,
    driver: Option<Driver>,
    opened: u64,
    /// By UUID.
    devices: BTreeMap<String, Entry>,
    /// Whether the first samples are there, or it is known that none will come soon.
    settled: bool,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Board {
    intervals: Intervals,
    state: Mutex<State>,
    changed: Condvar,
}

impl Board {
    /// An empty one.
    #[must_use]
    pub(super) fn new(intervals: Intervals) -> Self {
        Self {
            intervals,
            state: Mutex::new(State {
                standing: Standing::Opening,
                driver: None,
                opened: 0,
                devices: BTreeMap::new(),
                settled: false,
            }),
            changed: Condvar::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How often is sampled.
    #[must_use]
    pub(super) fn intervals(&self) -> Intervals {
        self.intervals
    }

    /// Where the library stands.
    #[must_use]
    pub(super) fn standing(&self) -> Standing {
        self.lock().standing.clone()
    }

    /// How often the library was opened.
    #[must_use]
    pub(super) fn times_opened(&self) -> u64 {
        self.lock().opened
    }

    /// The library was opened.
    pub(super) fn opened(&self, driver: Driver) {
        let mut state = self.lock();
        state.standing = Standing::Up;
        state.driver = Some(driver);
        state.opened += 1;
    }

    /// The library is there, but has not answered for long.
    pub(super) fn hang(&self) {
        let mut state = self.lock();
        if state.standing == Standing::Opening {
            state.standing =
                Standing::Down("NVML hangs: it has not answered since the start".into());
        }
    }

    /// There is no library, or none that answers.
    pub(super) fn closed(&self, standing: Standing) {
        let mut state = self.lock();
        state.standing = standing;
        for entry in state.devices.values_mut() {
            entry.shown = None;
            entry.restarted = true;
        }
    }

    /// Everything that is to be known at the start is known.
    pub(super) fn settle(&self) {
        self.lock().settled = true;
        self.changed.notify_all();
    }

    /// Waits for that, for some time.
    pub(super) fn wait_settled(&self, patience: Duration) {
        let state = self.lock();
        // Whether it came in time is of no concern: the page follows.
        let _ = self
            .changed
            .wait_timeout_while(state, patience, |state| !state.settled);
    }

    /// A device was found. Gives what goes on from before: until when its samples of processes
    /// were taken in, unless the driver was lost, and the processes that have energy.
    pub(super) fn found(&self, identity: Arc<Identity>) -> (Option<u64>, Vec<Key>) {
        let mut state = self.lock();
        let entry = state.devices.entry(identity.uuid.clone()).or_default();
        entry.identity = identity;
        let seen = (!entry.restarted && entry.sampled.is_some()).then_some(entry.seen_microseconds);
        (seen, entry.energy.processes().collect())
    }

    /// How many devices were ever found that are not among these.
    #[must_use]
    pub(super) fn missing(&self, found: &[Present]) -> usize {
        let state = self.lock();
        let is_missing = |uuid: &&String| !found.iter().any(|present| present.uuid == **uuid);
        state.devices.keys().filter(is_missing).count()
    }

    /// Where the device of an index is on the bus, if it was ever seen.
    #[must_use]
    pub(super) fn bus_id(&self, index: u32) -> Option<String> {
        let state = self.lock();
        let mut devices = state.devices.values();
        let device = devices.find(|device| device.identity.index == index)?;
        device.identity.pci_bus_id.clone()
    }

    /// A device is gone.
    pub(super) fn lost(&self, uuid: &str) {
        if let Some(entry) = self.lock().devices.get_mut(uuid) {
            entry.shown = None;
            entry.restarted = true;
        }
    }

    /// A critical error of a device was told.
    pub(super) fn xid(&self, uuid: &str, code: u64, at: SystemTime) {
        if let Some(entry) = self.lock().devices.get_mut(uuid) {
            let xid = entry.xids.entry(code).or_insert(Xid { count: 0, last: at });
            xid.count += 1;
            xid.last = at;
        }
    }

    /// Takes in a sample.
    pub(super) fn publish(&self, uuid: &str, sample: Sample) {
        let mut state = self.lock();
        let Some(entry) = state.devices.get_mut(uuid) else {
            return;
        };
        let restarted = std::mem::take(&mut entry.restarted);
        for (name, reading) in sample.counters {
            let account = entry.counters.entry(name).or_default();
            account.advance(reading, sample.at, restarted);
        }
        if let Some((millijoules, used)) = &sample.energy {
            let by = match used {
                Used::Sampled(claims) => Use::Sampled(claims),
                Used::NotSampled => Use::NotSampled,
                Used::Later => Use::Later,
            };
            entry.energy.share(*millijoules, sample.at, restarted, by);
            if by != Use::NotSampled {
                let listed = sample.processes.iter().filter(|process| process.listed);
                listed.for_each(|process| entry.energy.open(process.key));
            }
        }
        entry.energy.retain(|key| sample.alive.contains(key));
        if let Some(slow) = sample.slow {
            entry.slow = Some((sample.at, slow));
        }
        entry.sampled = Some((sample.at, sample.took));
        entry.seen_microseconds = sample.seen_microseconds;
        entry.shown = Some(Shown {
            fast: sample.fast,
            processes: sample.processes,
            unknown_processes: sample.unknown_processes,
            mig: sample.mig,
        });
    }

    /// Everything that is known at this moment.
    #[must_use]
    pub(super) fn facts(&self, now: Instant) -> GpuFacts {
        let state = self.lock();
        let driver_up = match state.standing {
            Standing::Up => Some(true),
            Standing::Down(_) => Some(false),
            Standing::Opening | Standing::Off(_) => None,
        };
        let mut devices: Vec<_> = state
            .devices
            .values()
            .map(|entry| entry.facts(now, self.intervals))
            .collect();
        devices.sort_by_key(|device| device.identity.index);
        GpuFacts {
            driver_up,
            driver: state.driver.clone(),
            reinitializations: state.opened.saturating_sub(1),
            devices,
        }
    }
}

impl Entry {
    fn facts(&self, now: Instant, intervals: Intervals) -> DeviceFacts {
        let age = self
            .sampled
            .map(|(at, _)| now.saturating_duration_since(at));
        let is_fresh = |at: Instant, interval: Duration| {
            now.saturating_duration_since(at) <= interval.saturating_mul(STALE)
        };
        let fresh = self
            .sampled
            .is_some_and(|(at, _)| is_fresh(at, intervals.fast));
        let shown = self.shown.as_ref().filter(|_| fresh);
        let slow = self.slow.as_ref().filter(|_| shown.is_some());
        let slow = slow.filter(|(at, _)| is_fresh(*at, intervals.slow));
        DeviceFacts {
            identity: Arc::clone(&self.identity),
            up: shown.is_some(),
            hangs: self.shown.is_some() && !fresh,
            age,
            sample_duration: shown.and(self.sampled).map(|(_, took)| took),
            fast: shown.map(|shown| shown.fast.clone()),
            slow: slow.map(|(_, slow)| slow.clone()),
            counters: shown
                .map(|_| self.counters(|read| is_fresh(read, intervals.slow.max(intervals.fast)))),
            energy: self.energy.facts(),
            processes: self.processes(shown),
            unknown_processes: shown.and_then(|shown| shown.unknown_processes),
            xids: self.xids.clone(),
            mig: shown.map_or_else(Vec::new, |shown| shown.mig.clone()),
        }
    }

    /// Those of the last sample, and those that are alive and were there before, with their energy.
    fn processes(&self, shown: Option<&Shown>) -> Vec<GpuProcess> {
        let mut processes = shown.map_or_else(Vec::new, |shown| shown.processes.clone());
        let known: FxHashSet<_> = processes.iter().map(|process| process.key).collect();
        let past = self.energy.processes().filter(|key| !known.contains(key));
        processes.extend(past.map(|key| GpuProcess {
            key,
            memory: Vec::new(),
            listed: false,
            utilization: None,
            energy_microjoules: None,
        }));
        for process in &mut processes {
            process.energy_microjoules = self.energy.of(&process.key);
        }
        processes
    }

    fn counters(&self, is_fresh: impl Fn(Instant) -> bool) -> Counters {
        let mut counters = Counters::default();
        for (name, account) in &self.counters {
            if !account.read.is_some_and(&is_fresh) {
                continue;
            }
            let total = account.counter.total();
            match *name {
                CounterName::Throttle(reason) => {
                    counters.throttle_nanoseconds.push((reason, total));
                }
                CounterName::PcieRx => {
                    counters.pcie_rx_bytes = Some(total);
                    counters.pcie_rx_bytes_per_second = account.rate;
                }
                CounterName::PcieTx => {
                    counters.pcie_tx_bytes = Some(total);
                    counters.pcie_tx_bytes_per_second = account.rate;
                }
                CounterName::PcieReplays => counters.pcie_replays = Some(total),
                CounterName::NvlinkRx(link) => counters.nvlink_rx_bytes.push((link, total)),
                CounterName::NvlinkTx(link) => counters.nvlink_tx_bytes.push((link, total)),
                CounterName::NvlinkErrors(link, kind) => {
                    counters.nvlink_errors.push((link, kind, total));
                }
                CounterName::Ecc(kind, scope) => counters.ecc_errors.push((kind, scope, total)),
            }
        }
        counters
    }
}
