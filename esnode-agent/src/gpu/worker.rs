//! The thread that samples devices, one after the other.

use super::{
    ask::{Lost, Told},
    board::{Board, STALE, Sample, Used},
    book::GroupBook,
    device::{GpuDevice, mig_uuids},
    epoch::{Epoch, News, Report},
    facts::{GpuProcess, ProcessUtilization},
    filter::Filter,
    people::{Files, People},
    usage::{self, Interval, Period, SETTLED, Samples},
};
use crate::privileges::{self, Needs};
use crate::process::{
    Key,
    procfs::{Procfs, Units},
};
use nvml_wrapper::error::NvmlError;
use rustc_hash::{FxHashMap, FxHashSet};
use std::{
    collections::hash_map::Entry,
    panic::{self, AssertUnwindSafe},
    path::PathBuf,
    sync::{Arc, mpsc::Sender},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};
use tracing::warn;

/// What a thread that samples needs to know.
#[derive(Clone, Debug)]
pub(super) struct Job {
    /// How many devices there are.
    pub present: u32,
    /// Which are wanted.
    pub filter: Filter,
    /// Where proc is mounted.
    pub procfs: PathBuf,
    /// Files that are kept open for processes.
    pub files: Files,
    /// Which groups they are in.
    pub groups: GroupBook,
    /// What was told before.
    pub told: Told,
    /// Where to report to.
    pub reports: Sender<News>,
    /// Where to say which devices can report events.
    pub events: Sender<u32>,
}

/// Samples the devices of a shift until the epoch ends, or none is left.
pub(super) fn run(job: &Job, shift: usize, epoch: &Epoch, board: &Board) {
    let mut eyes: FxHashMap<u32, Eye<'_>> = FxHashMap::default();
    if let Err(error) = privileges::raise_for_driver() {
        warn!(%error, "cannot be an administrator for the GPU driver");
    }
    let mut is_administrator = true;
    let mut counted = Instant::now();
    let interval = board.intervals().fast;
    let mut next = Instant::now();
    loop {
        let devices = epoch.roster.devices(shift);
        if devices.is_empty() {
            return;
        }
        eyes.retain(|index, _| devices.contains(index));
        for index in devices {
            if !epoch.roster.begin(shift, index) {
                continue;
            }
            // A defect is as good as a lost device: what is kept of it is thrown away.
            let sample = || sample(job, index, &mut eyes, epoch, board);
            let sampled = panic::catch_unwind(AssertUnwindSafe(sample));
            let sampled = sampled.unwrap_or(Err(NvmlError::Unknown.into()));
            if epoch.has_ended() {
                return;
            }
            let stays = sampled.as_ref().is_ok_and(|wanted| *wanted);
            if let Err(Lost { driver, error }) = sampled {
                // Nobody listens once the agent ends.
                let report = if driver {
                    Report::DriverLost { error }
                } else {
                    Report::DeviceLost { index, error }
                };
                let _ = job.reports.send((epoch.number, report));
            }
            epoch.roster.end(shift, index, !stays);
        }
        if is_administrator && !eyes.values().any(Eye::needs_administrator) {
            is_administrator = false;
            if let Err(error) = privileges::drop(Needs::default()) {
                warn!(%error, "the thread that samples GPUs keeps all privileges");
            }
        }
        // One thread is enough to see whether devices came or went.
        if shift == 0 && counted.elapsed() >= board.intervals().slow {
            counted = Instant::now();
            if epoch.nvml.device_count().is_ok_and(|it| it != job.present) {
                let _ = job.reports.send((epoch.number, Report::Recounted));
            }
        }
        next += interval;
        let now = Instant::now();
        if next < now {
            // It took too long: those that were missed do not come any more.
            next = now + interval / 10;
        }
        if epoch.wait_until(next) {
            return;
        }
    }
}

/// Samples one device, once; the first time it is looked up. Says whether it is wanted at all.
fn sample<'nvml>(
    job: &Job,
    index: u32,
    eyes: &mut FxHashMap<u32, Eye<'nvml>>,
    epoch: &'nvml Epoch,
    board: &Board,
) -> Result<bool, Lost> {
    let (eye, first) = match eyes.entry(index) {
        Entry::Occupied(known) => (known.into_mut(), false),
        Entry::Vacant(place) => match find(job, index, epoch, board)? {
            Some(eye) => (place.insert(eye), true),
            None => return Ok(false),
        },
    };
    let sample = eye.look();
    if epoch.has_ended() {
        return Ok(true);
    }
    match sample {
        Ok(sample) => board.publish(&eye.uuid, sample),
        Err(error) => {
            board.lost(&eye.uuid);
            return Err(error);
        }
    }
    if first {
        let _ = job.reports.send((epoch.number, Report::Sampled { index }));
    }
    Ok(true)
}

/// Looks a device up; `None` if it is not wanted.
fn find<'nvml>(
    job: &Job,
    index: u32,
    epoch: &'nvml Epoch,
    board: &Board,
) -> Result<Option<Eye<'nvml>>, Lost> {
    let device = epoch.nvml.device_by_index(index)?;
    let identity = Arc::new(GpuDevice::identity(&device, index)?);
    let uuid = identity.uuid.clone();
    let mig = mig_uuids(&device);
    let wanted = job.filter.takes(job.present, index, &uuid, &mig);
    if epoch.has_ended() {
        return Ok(None);
    }
    let found = Report::Found {
        index,
        uuid: uuid.clone(),
        mig,
        wanted,
    };
    let _ = job.reports.send((epoch.number, found));
    if !wanted {
        return Ok(None);
    }
    let (seen, accounts) = board.found(Arc::clone(&identity));
    let _ = job.events.send(index);
    let procfs = Procfs::new(&job.procfs, Units::of_this_kernel());
    let mut people = People::new(&job.procfs, procfs, job.files.clone(), job.groups.clone());
    people.adopt(accounts);
    let intervals = board.intervals();
    Ok(Some(Eye {
        uuid,
        device: GpuDevice::new(device, identity, job.filter.clone(), job.told.clone()),
        people,
        seen: seen.unwrap_or_else(|| now_microseconds().saturating_sub(micros(intervals.fast))),
        asked: Instant::now(),
        shared: true,
        period: Period::default(),
        utilization: FxHashMap::default(),
        slow_at: None,
        slow_interval: intervals.slow,
        patience: SETTLED.max(intervals.fast * STALE),
    }))
}

/// Looks at a device, again and again.
struct Eye<'nvml> {
    uuid: String,
    device: GpuDevice<'nvml>,
    people: People,
    /// Until when the driver's samples were taken in, in microseconds since 1970.
    seen: u64,
    /// When that was.
    asked: Instant,
    /// Whether what was used until then has been shared.
    shared: bool,
    /// How often the driver samples.
    period: Period,
    /// What processes did, as far as it is known.
    utilization: FxHashMap<Key, ProcessUtilization>,
    slow_at: Option<Instant>,
    slow_interval: Duration,
    /// How long what is known of utilisation holds.
    patience: Duration,
}

impl Eye<'_> {
    /// Whether the driver tells something of this device to administrators only.
    fn needs_administrator(&self) -> bool {
        self.device.samples_activity() || self.device.has_mig()
    }

    fn look(&mut self) -> Result<Sample, Lost> {
        let at = Instant::now();
        let mut counters = Vec::new();
        let is_due = |last: Instant| at.duration_since(last) >= self.slow_interval;
        let mut slow = None;
        if self.slow_at.is_none_or(is_due) {
            let (readings, counted) = self.device.slow()?;
            counters.extend(counted);
            slow = Some(readings);
            self.slow_at = Some(at);
        }
        // Energy and samples of processes one after the other, as they are shared together.
        let energy = self.device.energy_millijoules()?;
        // A clock that was set back must not make us wait until it is where it was.
        let after = self.seen.min(now_microseconds());
        let asked = Instant::now();
        let samples = self.device.process_samples(after)?;
        let listed = self.device.processes()?;
        self.people.refresh(std::mem::take(&mut self.shared));
        let interval = asked.duration_since(self.asked);
        let samples = samples.filter(|samples| {
            // No sample may also mean that the driver has not sampled yet.
            !samples.is_empty() || interval >= SETTLED
        });
        let given = samples.as_deref().map(|samples| {
            self.period.learn(samples);
            Samples {
                given: samples,
                interval,
                period: self.period,
            }
        });
        let Interval {
            mut processes,
            claims,
            unknown,
        } = usage::join(&mut self.people, listed.as_deref(), given);
        let used = match samples {
            Some(_) => Used::Sampled(claims),
            None if self.device.samples_processes() => Used::Later,
            None => Used::NotSampled,
        };
        if matches!(used, Used::Later) && interval < self.patience {
            // What was known last holds until there is more.
            for process in &mut processes {
                process.utilization = self.utilization.get(&process.key).copied();
            }
        }
        let known = |process: &GpuProcess| Some((process.key, process.utilization?));
        self.utilization = processes.iter().filter_map(known).collect();
        // While energy waits to be shared, so do the samples.
        let waits = energy.is_none() && self.device.has_energy();
        if let (Some(samples), false) = (&samples, waits) {
            self.seen = usage::newest(samples, after);
            self.asked = asked;
            self.shared = true;
        }
        let (fast, counted) = self.device.fast()?;
        counters.extend(counted);
        let mig = self.device.mig(listed.as_deref())?;
        if self.device.end_pass() == 0 {
            // It answers, but to nothing: as good as lost.
            return Err(NvmlError::GpuLost.into());
        }
        Ok(Sample {
            at,
            took: at.elapsed(),
            fast,
            slow,
            counters,
            energy: energy.map(|energy| (energy, used)),
            unknown_processes: listed.is_some().then_some(unknown),
            alive: self.people.alive().collect::<FxHashSet<_>>(),
            processes,
            mig,
            seen_microseconds: self.seen,
        })
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// The time, as the driver's samples have it.
fn now_microseconds() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, micros)
}
