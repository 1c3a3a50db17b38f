//! Which version of the script holds for a call, and what a device remembers.
//!
//! A sampling pass over a device is a burst of calls, and has to see one version of the script.
//! So a device keeps its version until it was left alone for [`SILENCE`]; calls without a device
//! take the newest. The time of a call is its beginning: one that hung has broken the silence.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};
use std::{env, fs, process};

use crate::abi::{Answer, Code};
use crate::calls::Function;
use crate::queue::{Queue, Utilization};
use crate::script::{Device, MAX_DEVICES, Rule, Rules, Script};

/// A device that wasn't called for so long takes the newest script.
const SILENCE: Duration = Duration::from_millis(20);

/// How often it is looked whether there is a newer script, at most.
const LOOK: Duration = Duration::from_millis(5);

/// Locks; a panic elsewhere has ended the process anyhow.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// µs since 1970.
pub(crate) fn wall_micros() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| u64::try_from(since.as_micros()).unwrap_or(0))
}

/// The script as it was at some time.
#[derive(Debug)]
pub(crate) struct Version {
    pub(crate) script: Script,
    /// When it was read.
    loaded: Instant,
    /// The same in µs since 1970.
    pub(crate) loaded_micros: u64,
    /// Calls of functions that have a rule, by device.
    counts: Mutex<BTreeMap<(Option<usize>, Function), u64>>,
}

impl Version {
    fn new(script: Script) -> Self {
        Self {
            script,
            loaded: Instant::now(),
            loaded_micros: wall_micros(),
            counts: Mutex::default(),
        }
    }

    /// Time since it was read.
    pub(crate) fn age(&self) -> Duration {
        self.loaded.elapsed()
    }

    /// The rule that is for this call on a device, or on none; counts the call.
    pub(crate) fn rule(
        &self,
        rules: &Rules,
        device: Option<usize>,
        function: Function,
    ) -> Option<Rule> {
        let rule = rules.get(&function)?;
        let mut counts = lock(&self.counts);
        let before = counts.entry((device, function)).or_default();
        *before += 1;
        rule.is_for(*before - 1).then_some(*rule)
    }
}

/// What tells one file from another: the time of its last change, its inode, its size.
type Stamp = (i64, i64, u64, u64);

/// The script on the disk.
struct Disk {
    path: Option<PathBuf>,
    looked: Option<Instant>,
    read: Option<(Stamp, Arc<Version>)>,
}

static DISK: Mutex<Disk> = Mutex::new(Disk {
    path: None,
    looked: None,
    read: None,
});

impl Disk {
    fn newest(&mut self, now: Instant) -> Result<Arc<Version>, String> {
        let fresh = |looked: Instant| now.saturating_duration_since(looked) < LOOK;
        if let Some((_, version)) = &self.read
            && self.looked.is_some_and(fresh)
        {
            return Ok(Arc::clone(version));
        }
        self.looked = Some(now);
        let path = match &mut self.path {
            Some(path) => path,
            none => none.insert(
                env::var_os("FAKE_NVML_SCRIPT")
                    .ok_or("FAKE_NVML_SCRIPT is not set")?
                    .into(),
            ),
        };
        let stat = match (fs::metadata(&path), &self.read) {
            (Ok(stat), _) => stat,
            // The test is over and has removed it.
            (Err(_), Some((_, version))) => return Ok(Arc::clone(version)),
            (Err(error), None) => return Err(format!("{}: {error}", path.display())),
        };
        let stamp = (stat.mtime(), stat.mtime_nsec(), stat.ino(), stat.size());
        if let Some((read, version)) = &self.read
            && *read == stamp
        {
            return Ok(Arc::clone(version));
        }
        let script = fs::read_to_string(&path).map_err(|error| error.to_string());
        let script = script.and_then(|text| Script::parse(&text));
        let script = script.map_err(|error| format!("{}: {error}", path.display()))?;
        let version = Arc::new(Version::new(script));
        self.read = Some((stamp, Arc::clone(&version)));
        tell_change();
        Ok(version)
    }
}

/// The newest version of the script. Without one there is nothing to go on with.
pub(crate) fn newest() -> Arc<Version> {
    let newest = lock(&DISK).newest(Instant::now());
    newest.unwrap_or_else(|error| {
        eprintln!("fake NVML: {error}");
        process::abort()
    })
}

/// How often something changed that may concern those who wait for events.
static CHANGES: Mutex<u64> = Mutex::new(0);

/// Wakes those who wait for events.
static CHANGED: Condvar = Condvar::new();

/// How often something changed by now.
pub(crate) fn changes() -> u64 {
    *lock(&CHANGES)
}

/// Wakes those who wait for events.
pub(crate) fn tell_change() {
    *lock(&CHANGES) += 1;
    CHANGED.notify_all();
}

/// Waits until there are more changes than this, at most for this time.
pub(crate) fn wait_for_change(seen: u64, at_most: Duration) {
    let none = |changes: &mut u64| *changes == seen;
    // Whoever waited looks for himself what has changed.
    let _ = CHANGED.wait_timeout_while(lock(&CHANGES), at_most, none);
}

/// What is remembered of a GPU, by its index.
#[derive(Debug)]
pub(crate) struct Memory {
    view: Option<Arc<Version>>,
    called: Option<Instant>,
    /// Samples of process utilisation.
    pub(crate) queue: Queue,
    /// Ids of events that were delivered.
    pub(crate) delivered: BTreeSet<u64>,
}

impl Memory {
    const fn new() -> Self {
        Self {
            view: None,
            called: None,
            queue: Queue::new(),
            delivered: BTreeSet::new(),
        }
    }

    /// The version that a call sees which begins now.
    fn view(
        &mut self,
        index: usize,
        now: Instant,
        newest: impl FnOnce() -> Arc<Version>,
    ) -> Arc<Version> {
        let kept = self.view.as_ref().filter(|_| !is_silent(self.called, now));
        let kept = kept.map(Arc::clone);
        self.called = Some(now);
        let version = kept.unwrap_or_else(newest);
        let seen = self.view.replace(Arc::clone(&version));
        if !seen
            .as_ref()
            .is_some_and(|seen| Arc::ptr_eq(seen, &version))
        {
            self.turn(seen.as_deref(), &version, index);
        }
        version
    }

    /// Processes do from now on what the new version says.
    fn turn(&mut self, seen: Option<&Version>, version: &Version, index: usize) {
        let device = version.script.devices.get(index);
        let uuid = |device: &Device| device.uuid.clone();
        let before = seen.and_then(|seen| seen.script.devices.get(index));
        if before.map(uuid) != device.map(uuid) {
            self.queue = Queue::new();
        }
        let processes = device.and_then(|device| device.processes.as_deref());
        let processes: Vec<(u32, Utilization)> = processes
            .unwrap_or_default()
            .iter()
            .map(|process| (process.pid, process.utilization()))
            .collect();
        let period = device.map_or(1, |device| device.sample_period_ms * 1000);
        self.queue.follow(wall_micros(), period, &processes);
    }
}

/// Whether a device was left alone long enough.
fn is_silent(called: Option<Instant>, now: Instant) -> bool {
    called.is_none_or(|called| now.saturating_duration_since(called) >= SILENCE)
}

static MEMORIES: [Mutex<Memory>; MAX_DEVICES] = [const { Mutex::new(Memory::new()) }; MAX_DEVICES];

/// What is remembered of the GPU with this index.
pub(crate) fn memory(index: usize) -> Answer<MutexGuard<'static, Memory>> {
    let memory = MEMORIES.get(index).ok_or(Code::INVALID_ARGUMENT)?;
    Ok(lock(memory))
}

/// The version of the script that a call on this GPU sees.
pub(crate) fn view(index: usize) -> Answer<Arc<Version>> {
    Ok(memory(index)?.view(index, Instant::now(), newest))
}

#[cfg(test)]
#[path = "state_tests.rs"]
mod tests;
