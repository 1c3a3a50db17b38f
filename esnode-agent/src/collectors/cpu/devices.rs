//! Cores as devices: what `/sys/devices/system/cpu/cpuN/` has of them.

use super::{
    Core,
    frequency::{Frequencies, Frequency},
    throttle::{Throttle, Throttles},
};
use crate::error::ReadError;
use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// How often it is looked which files there are, when cores neither come nor go: a driver may have
/// been loaded.
const LOOK: Duration = Duration::from_secs(60);

/// The cores that are online, by their numbers.
pub(super) struct Cpus {
    folder: PathBuf,
    pub(super) online: Vec<u32>,
}

impl Cpus {
    pub(super) fn new(sysfs: &Path, online: Vec<u32>) -> Self {
        Self {
            folder: sysfs.join("devices/system/cpu"),
            online,
        }
    }

    /// The folder of one.
    pub(super) fn folder(&self, core: u32) -> PathBuf {
        self.folder.join(format!("cpu{core}"))
    }

    /// Those that have this folder, and where.
    pub(super) fn having(&self, name: &str) -> Vec<(u32, PathBuf)> {
        let folder = |core: &u32| (*core, self.folder(*core).join(name));
        let folders = self.online.iter().map(folder);
        folders.filter(|(_, folder)| folder.is_dir()).collect()
    }
}

/// Reads what cores have, of those that are online.
pub(super) struct Devices {
    cpus: Cpus,
    looked: Option<Instant>,
    frequencies: Frequencies,
    throttles: Throttles,
}

impl Devices {
    pub(super) fn new(procfs: &Path, sysfs: &Path) -> Self {
        Self {
            cpus: Cpus::new(sysfs, Vec::new()),
            looked: None,
            frequencies: Frequencies::new(procfs),
            throttles: Throttles::new(),
        }
    }

    /// Frequencies and throttles of these cores, if they have them.
    ///
    /// # Errors
    /// If a file can't be parsed.
    pub(super) fn sample(
        &mut self,
        cores: &[Core],
    ) -> Result<(Vec<Frequency>, Vec<Throttle>), ReadError> {
        let online = || cores.iter().filter_map(|core| core.name.parse().ok());
        let same = online().eq(self.cpus.online.iter().copied());
        if !same || self.looked.is_none_or(|looked| looked.elapsed() >= LOOK) {
            self.cpus.online = online().collect();
            self.looked = None;
            self.frequencies.look(&self.cpus);
            self.throttles.look(&self.cpus)?;
            self.looked = Some(Instant::now());
        }
        Ok((self.frequencies.sample()?, self.throttles.sample()?))
    }
}
