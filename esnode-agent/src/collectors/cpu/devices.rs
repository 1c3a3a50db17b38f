//! Cores as devices: what `/sys/devices/system/cpu/cpuN/` has of them.

use super::{
    Core,
    frequency::{Frequencies, Frequency},
    isolated::{self, Isolated},
    throttle::{Throttle, Throttles},
};
use crate::{collectors::sysfs, error::ReadError};
use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// How often it is looked which files there are, when cores neither come nor go: a driver may have
/// been loaded.
const LOOK: Duration = Duration::from_mins(1);

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

/// What cores have.
#[derive(Clone, Debug, Default)]
pub(super) struct DeviceFacts {
    pub(super) frequencies: Vec<Frequency>,
    pub(super) throttles: Vec<Throttle>,
    /// Those that the scheduler leaves alone.
    pub(super) isolated: Vec<u32>,
}

/// Reads what cores have, of those that are online.
pub(super) struct Devices {
    cpus: Cpus,
    looked: Option<Instant>,
    frequencies: Frequencies,
    throttles: Throttles,
    isolated: Isolated,
}

impl Devices {
    pub(super) fn new(procfs: &Path, sysfs: &Path) -> Self {
        Self {
            cpus: Cpus::new(sysfs, Vec::new()),
            looked: None,
            frequencies: Frequencies::new(procfs),
            throttles: Throttles::new(),
            isolated: Isolated::default(),
        }
    }

    /// What these cores have.
    ///
    /// # Errors
    /// If a file can't be parsed.
    pub(super) fn sample(&mut self, cores: &[Core]) -> Result<DeviceFacts, ReadError> {
        let online = || cores.iter().filter_map(|core| core.name.parse().ok());
        let same = online().eq(self.cpus.online.iter().copied());
        if !same || self.looked.is_none_or(|looked| looked.elapsed() >= LOOK) {
            self.looked = None;
            self.cpus.online = online().collect();
            self.look()?;
            self.looked = Some(Instant::now());
        }
        let is_isolated = |core: &u32| self.isolated.iter().any(|range| range.contains(core));
        Ok(DeviceFacts {
            frequencies: self.frequencies.sample()?,
            throttles: self.throttles.sample()?,
            isolated: self
                .cpus
                .online
                .iter()
                .copied()
                .filter(is_isolated)
                .collect(),
        })
    }

    fn look(&mut self) -> Result<(), ReadError> {
        let isolated = self.cpus.folder.join("isolated");
        self.isolated = sysfs::attribute(&isolated, isolated::parse)?.unwrap_or_default();
        self.frequencies.look(&self.cpus);
        self.throttles.look(&self.cpus)
    }
}
