//! What the agent found on this host, and what it is told about processes.

use super::{find_gpus, load_bpf};
use crate::{
    bpf::Bpf,
    cli::{GpuFlags, IdentityFlags, Sources},
    gpu::{Gpus, book::GroupBook},
    grouping::process_exporter::Config,
    identity::{container, engine::Engines},
    ladder::Standing,
    privileges::Needs,
    process::{fallback::Fallback, membership::GroupBy},
};
use anyhow::{Context, Result, bail};
use std::{fs, path::Path, sync::Arc, time::Duration};

/// A file of rules is not longer, in bytes.
const RULES: u64 = 4 * 1024 * 1024;

/// What was found on this host, for the collectors.
pub struct Found {
    /// BPF, if it is loaded.
    pub bpf: Option<Bpf>,
    /// What stands in for it.
    pub fallback: Fallback,
    /// GPUs, if they are wanted.
    pub gpus: Option<Gpus>,
    /// Where these read which groups processes are in.
    pub book: GroupBook,
    /// Who processes are.
    pub who: Who,
}

/// By what it is told who processes are.
#[derive(Debug)]
pub struct Who {
    /// How they are put together.
    pub by: GroupBy,
    /// By which rules, if by rules.
    pub(super) rules: Option<Arc<Config>>,
    /// The user's rules for engines, and those that the agent brings.
    pub(super) engines: Option<Engines>,
    /// Where to look for what containers are called.
    pub(super) containers: Option<container::Options>,
    /// So long a container without processes has series of its own, if not as usual.
    pub(super) container_linger: Option<Duration>,
}

impl Found {
    /// Nothing but files.
    ///
    /// # Errors
    /// See [`Who::of`].
    pub fn nothing(flags: &IdentityFlags) -> Result<Self> {
        let who = Who::of(flags)?;
        Ok(Self {
            bpf: None,
            fallback: Fallback::default(),
            gpus: None,
            book: who.book(),
            who,
        })
    }

    /// Loads what this host has. Gives where every signal stands. Rights are still as they were.
    ///
    /// # Errors
    /// If the system refuses a thread.
    pub fn load(&mut self, sources: &Sources, gpu: &GpuFlags) -> Result<Vec<Standing>> {
        // Opening the driver takes time, which BPF takes as well.
        self.gpus = find_gpus(sources, gpu, self.book.clone())?;
        let (bpf, mut standings) = load_bpf(sources, self.who.by);
        let (procfs, sysfs) = (&sources.procfs, &sources.sysfs);
        // The rungs below BPF, for the signals that have none yet.
        self.fallback = Fallback::open(procfs, sysfs, &sources.without, &mut standings);
        self.bpf = bpf;
        Ok(standings)
    }

    /// What reading what was found needs.
    #[must_use]
    pub fn needs(&self) -> Needs {
        Needs::of(self.bpf.as_ref(), &self.fallback)
    }
}

impl Who {
    /// Reads the files that the flags name.
    ///
    /// # Errors
    /// What is wrong with flags or files.
    pub fn of(flags: &IdentityFlags) -> Result<Self> {
        let by = flags.group_by().map_err(anyhow::Error::msg)?;
        let rules = flags.group_config.as_deref().map(|path| {
            let config = Config::parse(path, &read_rules(path)?);
            Ok::<_, anyhow::Error>(Arc::new(config.context("cannot use --group-config")?))
        });
        let engines = flags.engine_rules.as_deref().map(|path| {
            let engines = Engines::with_user_rules(path, &read_rules(path)?);
            engines.context("cannot use --engine-rules")
        });
        Ok(Self {
            by,
            rules: rules.transpose()?,
            engines: engines.transpose()?,
            containers: flags.container_sources(),
            container_linger: flags.container_linger,
        })
    }

    /// Where the GPUs' accounts read which groups processes are in.
    #[must_use]
    pub fn book(&self) -> GroupBook {
        match self.by {
            GroupBy::Command => GroupBook::default(),
            GroupBy::Container | GroupBy::Engine | GroupBy::Rules => GroupBook::new(),
        }
    }
}

/// Reads a file of rules, if it is one: another kind of file may never end, or never begin.
fn read_rules(path: &Path) -> Result<String> {
    let failed = || format!("cannot read {}", path.display());
    let kind = fs::metadata(path).with_context(failed)?;
    if !kind.is_file() {
        bail!("{}: not a file", failed());
    }
    if kind.len() > RULES {
        bail!("{}: longer than {RULES} bytes", failed());
    }
    fs::read_to_string(path).with_context(failed)
}
