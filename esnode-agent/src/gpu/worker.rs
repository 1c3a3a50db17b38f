//! The thread of one device. A call that hangs holds up nobody else.

use super::{
    ask::{Lost, Told},
    board::{Board, Sample, Used},
    device::{GpuDevice, mig_uuids},
    epoch::{Epoch, Report},
    filter::Filter,
    people::People,
    usage::{self, Interval},
};
use crate::process::procfs::{Procfs, Units};
use nvml_wrapper::error::NvmlError;
use rustc_hash::FxHashSet;
use std::{
    panic::{self, AssertUnwindSafe},
    path::PathBuf,
    sync::{Arc, mpsc::Sender},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

/// What a worker needs to know.
#[derive(Clone, Debug)]
pub(super) struct Job {
    /// Index among the devices of NVML.
    pub index: u32,
    /// How many there are.
    pub present: u32,
    /// Which are wanted.
    pub filter: Filter,
    /// Where proc is mounted.
    pub procfs: PathBuf,
    /// What was told before.
    pub told: Told,
}

/// Samples a device until the epoch ends, or the device is lost. Tells how it went.
pub(super) fn run(
    job: &Job,
    epoch: &Epoch,
    board: &Board,
    reports: &Sender<Report>,
    events: &Sender<u32>,
) {
    let index = job.index;
    let sampled = || sample(job, epoch, board, reports, events);
    // A defect is as good as a lost device: what is kept of it is thrown away.
    let ended = panic::catch_unwind(AssertUnwindSafe(sampled));
    let report = match ended.unwrap_or(Err(lost(NvmlError::Unknown))) {
        Ok(()) => return,
        Err(Lost {
            driver: true,
            error,
        }) => Report::DriverLost { error },
        Err(Lost { error, .. }) => Report::DeviceLost { index, error },
    };
    // Nobody listens once the agent ends.
    let _ = reports.send(report);
}

fn lost(error: NvmlError) -> Lost {
    use super::library::{Meaning, meaning};
    Lost {
        driver: meaning(&error) == Meaning::DriverLost,
        error,
    }
}

fn sample(
    job: &Job,
    epoch: &Epoch,
    board: &Board,
    reports: &Sender<Report>,
    events: &Sender<u32>,
) -> Result<(), Lost> {
    let Job { index, present, .. } = *job;
    let device = epoch.nvml.device_by_index(index).map_err(lost)?;
    let identity = Arc::new(GpuDevice::identity(&device, index).map_err(lost)?);
    let uuid = identity.uuid.clone();
    let mig = mig_uuids(&device);
    let wanted = job.filter.takes(present, index, &uuid, &mig);
    let _ = reports.send(Report::Found {
        index,
        uuid: uuid.clone(),
        mig,
        wanted,
    });
    if !wanted {
        return Ok(());
    }
    let (seen, accounts) = board.found(Arc::clone(&identity));
    let _ = events.send(index);
    let procfs = Procfs::new(&job.procfs, Units::of_this_kernel());
    let mut people = People::new(&job.procfs, procfs);
    people.adopt(accounts);
    let intervals = board.intervals();
    let mut eye = Eye {
        device: GpuDevice::new(device, identity, job.filter.clone(), job.told.clone()),
        people,
        seen: seen.unwrap_or_else(|| now_microseconds().saturating_sub(micros(intervals.fast))),
        slow_at: None,
        slow_interval: intervals.slow,
    };
    let mut first = true;
    let mut next = Instant::now();
    loop {
        let sample = eye.look();
        if epoch.has_ended() {
            return Ok(());
        }
        match sample {
            Ok(sample) => board.publish(&uuid, sample),
            Err(error) => {
                board.lost(&uuid);
                return Err(error);
            }
        }
        if std::mem::take(&mut first) {
            let _ = reports.send(Report::Sampled);
        }
        next += intervals.fast;
        let now = Instant::now();
        if next < now {
            // A look took too long: those that were missed do not come any more.
            next = now + intervals.fast;
        }
        if epoch.wait_until(next) {
            return Ok(());
        }
    }
}

/// Looks at a device, again and again.
struct Eye<'nvml> {
    device: GpuDevice<'nvml>,
    people: People,
    /// Until when the driver's samples were taken in, in microseconds since 1970.
    seen: u64,
    slow_at: Option<Instant>,
    slow_interval: Duration,
}

impl Eye<'_> {
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
        let samples = self.device.process_samples(after)?;
        let listed = self.device.processes()?;
        self.people.refresh();
        let known = samples.as_deref();
        let Interval {
            processes,
            claims,
            unknown,
        } = usage::join(&mut self.people, listed.as_deref(), known);
        let used = match samples {
            Some(_) => Used::Sampled(claims),
            None if self.device.samples_processes() => Used::Later,
            None => Used::NotSampled,
        };
        // While energy waits to be shared, so do the samples.
        if energy.is_some() || !self.device.has_energy() {
            self.seen = samples.map_or(after, |samples| usage::newest(&samples, after));
        }
        let (fast, counted) = self.device.fast()?;
        counters.extend(counted);
        let mig = self.device.mig(listed.as_deref())?;
        if self.device.end_pass() == 0 {
            // It answers, but to nothing: as good as lost.
            return Err(lost(NvmlError::GpuLost));
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
