//! This host, read in this process as the agent reads it.

use super::{Source, SourceError};
use crate::{
    agent::{self, Found},
    api::Snapshot,
    bpf::sys::use_one_heap,
    cli::{PageOptions, TopOptions},
    page::Names,
    privileges,
    sampler::{Sampler, SamplerThread},
};
use anyhow::{Context, Result};
use std::time::{Duration, SystemTime};
use tokio::runtime::{Builder, Runtime};

/// Processes that are looked at, the most important first.
const PROCESSES: usize = 4096;

/// How long a pass that is running may hold up the end.
const PATIENCE: Duration = Duration::from_millis(400);

/// The collectors of the agent, without its server.
pub(super) struct Local {
    runtime: Runtime,
    /// Dropped first: then its thread ends.
    sampler: Option<Sampler>,
    thread: Option<SamplerThread>,
}

impl Local {
    /// Loads what the agent would load, and gives up the same rights.
    ///
    /// # Errors
    /// If there is nothing to read at all.
    pub(super) fn new(options: &TopOptions) -> Result<Self> {
        use_one_heap();
        privileges::raise_file_limit();
        let runtime = Builder::new_current_thread().enable_all().build();
        let runtime = runtime.context("cannot start the event loop")?;
        let sources = &options.sources;
        agent::check_roots(sources)?;
        let mut found = Found::nothing(&options.identity)?;
        let standings = found.load(sources, &options.gpu)?;
        // Without fewer rights than before, it reads the same.
        let _ = privileges::drop(found.needs());
        let page = PageOptions {
            process_limit: PROCESSES,
            ..PageOptions::default()
        };
        let collectors = agent::collectors(sources, &page, found, &standings)?;
        let (sampler, thread) = Sampler::start(collectors, Names::Own, SystemTime::now())
            .context("cannot start the sampler thread")?;
        Ok(Self {
            runtime,
            sampler: Some(sampler),
            thread: Some(thread),
        })
    }
}

impl Source for Local {
    fn next(&mut self) -> Result<Snapshot, SourceError> {
        let sampler = self.sampler.as_ref().ok_or(crate::sampler::Stopped)?;
        Ok(self.runtime.block_on(sampler.snapshot())?)
    }
}

impl Drop for Local {
    fn drop(&mut self) {
        self.sampler = None;
        if let Some(thread) = self.thread.take() {
            thread.join(PATIENCE);
        }
    }
}
