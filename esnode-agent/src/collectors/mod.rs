//! What can be collected, and the frame around it. A collector is one file here (or, for
//! processes, one folder beside) and one arm of [`Collector`].

pub mod cpu;
pub mod disk;
pub mod filesystem;
pub mod edac;
pub mod filter;
#[cfg(test)]
mod fixture;
pub mod hwmon;
pub mod infiniband;
pub mod load;
pub mod memory;
pub mod network;
pub mod node;
pub mod power;
pub mod pressure;
mod sysfs;
mod ticker;
mod watchdog;
pub mod thermal;
mod wrapping;

use crate::{
    error::{ParseError, ReadError, read_file},
    gpu::{Standing, collector::GpuCollector},
    page::{Encode, Facts, Page},
    process::{collector::ProcessCollector, table::TableError},
};
use clap::ValueEnum;
use std::{
    fmt, io,
    panic::{self, AssertUnwindSafe},
    path::Path,
    time::{Duration, Instant},
};
use thiserror::Error;

/// The collectors. The name of a variant, in lower case, is its name on the command line and
/// its label on the page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, ValueEnum)]
pub enum CollectorName {
    /// CPU time and usage by core.
    Cpu,
    /// Load averages.
    Load,
    /// Memory and swap.
    Memory,
    /// Waiting for CPU, memory and disks.
    Pressure,
    /// Block devices.
    Disk,
    /// Space of filesystems.
    Filesystem,
    /// Network interfaces, TCP and UDP.
    Network,
    /// Names, boot time and clock of the node.
    Node,
    /// GPUs, and what processes use of them.
    Gpu,
    /// Power and energy of processors, memory and the machine.
    Power,
    /// Processes and groups: CPU, memory, disk and network.
    Process,
}

impl fmt::Display for CollectorName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Cpu => "cpu",
            Self::Load => "load",
            Self::Memory => "memory",
            Self::Pressure => "pressure",
            Self::Disk => "disk",
            Self::Filesystem => "filesystem",
            Self::Network => "network",
            Self::Node => "node",
            Self::Gpu => "gpu",
            Self::Power => "power",
            Self::Process => "process",
        })
    }
}

/// Why a collector has no facts.
#[derive(Debug, Error)]
pub enum CollectError {
    /// A file could not be read or parsed.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The process table could not be read.
    #[error(transparent)]
    Table(#[from] TableError),
    /// There is nothing to collect on this host.
    #[error("{0}")]
    Off(String),
    /// The system gave no thread.
    #[error("cannot start a thread: {0}")]
    Thread(io::Error),
    /// A defect of the collector.
    #[error("the collector panicked: please report the lines above this in the log")]
    Panicked,
}

/// A collector with the state that it keeps between passes.
pub enum Collector {
    /// See [`cpu`].
    Cpu(cpu::CpuCollector),
    /// See [`load`].
    Load(load::LoadCollector),
    /// See [`memory`].
    Memory(memory::MemoryCollector),
    /// See [`pressure`].
    Pressure(pressure::PressureCollector),
    /// See [`disk`].
    Disk(disk::DiskCollector),
    /// See [`filesystem`].
    Filesystem(Box<filesystem::FilesystemCollector>),
    /// See [`network`].
    Network(network::NetworkCollector),
    /// See [`node`].
    Node(node::NodeCollector),
    /// See [`crate::gpu`].
    Gpu(GpuCollector),
    /// See [`power`].
    Power(power::PowerCollector),
    /// See [`crate::process`].
    Process(Box<ProcessCollector>),
}

/// The outcome of one collector in one pass.
pub struct Sample {
    /// Which collector.
    pub collector: CollectorName,
    /// How long it took.
    pub duration: Duration,
    /// Its facts, or why there are none.
    pub facts: Outcome,
    /// Why its source can't be read at the moment, though there are facts.
    pub complaint: Option<String>,
}

impl Sample {
    /// Whether the source could be read; `None` where there is none.
    #[must_use]
    pub fn success(&self) -> Option<bool> {
        match &self.facts {
            Err(CollectError::Off(_)) => None,
            Err(_) => Some(false),
            Ok(_) => Some(self.complaint.is_none()),
        }
    }
}

impl Collector {
    /// Which one it is.
    #[must_use]
    pub fn name(&self) -> CollectorName {
        match self {
            Self::Cpu(_) => CollectorName::Cpu,
            Self::Load(_) => CollectorName::Load,
            Self::Memory(_) => CollectorName::Memory,
            Self::Pressure(_) => CollectorName::Pressure,
            Self::Disk(_) => CollectorName::Disk,
            Self::Filesystem(_) => CollectorName::Filesystem,
            Self::Network(_) => CollectorName::Network,
            Self::Node(_) => CollectorName::Node,
            Self::Gpu(_) => CollectorName::Gpu,
            Self::Power(_) => CollectorName::Power,
            Self::Process(_) => CollectorName::Process,
        }
    }

    fn facts(&mut self) -> Outcome {
        match self {
            Self::Cpu(collector) => boxed(collector.sample()),
            Self::Load(collector) => boxed(collector.sample()),
            Self::Memory(collector) => boxed(collector.sample()),
            Self::Pressure(collector) => boxed(collector.sample()),
            Self::Disk(collector) => boxed(collector.sample()),
            Self::Filesystem(collector) => boxed(collector.sample()),
            Self::Network(collector) => boxed(collector.sample()),
            Self::Node(collector) => boxed(collector.sample()),
            Self::Gpu(collector) => match collector.standing() {
                Standing::Off(reason) => Err(CollectError::Off(reason)),
                Standing::Opening | Standing::Up | Standing::Down(_) => {
                    Ok(Box::new(collector.sample()))
                }
            },
            Self::Power(collector) => boxed(collector.sample()),
            Self::Process(collector) => boxed(collector.sample()),
        }
    }

    /// Samples once, and measures that: no collector does it itself.
    pub fn sample(&mut self) -> Sample {
        let begun = Instant::now();
        // A defect in one must not take the others down. What the panic left half-done is only
        // the collector's own state, which the next pass overwrites or fails on again.
        let facts = panic::catch_unwind(AssertUnwindSafe(|| self.facts()))
            .unwrap_or(Err(CollectError::Panicked));
        Sample {
            collector: self.name(),
            duration: begun.elapsed(),
            facts,
            complaint: self.complaint(),
        }
    }

    /// Why the source can't be read, of a collector that has facts all the same.
    fn complaint(&self) -> Option<String> {
        match self {
            Self::Gpu(collector) => match collector.standing() {
                Standing::Down(reason) => Some(reason),
                Standing::Opening => Some("NVML has not answered yet".to_owned()),
                Standing::Off(_) | Standing::Up => None,
            },
            Self::Power(collector) => collector.complaint(),
            Self::Filesystem(collector) => collector.complaint(),
            _ => None,
        }
    }
}

/// Facts, or why there are none.
pub type Outcome = Result<Facts, CollectError>;

fn boxed<F, E>(facts: Result<F, E>) -> Outcome
where
    F: Encode + Send + 'static,
    E: Into<CollectError>,
{
    facts
        .map(|facts| Box::new(facts) as Facts)
        .map_err(Into::into)
}

/// How the collectors fared in one pass.
#[derive(Debug)]
pub struct Health(Vec<(String, bool, Duration)>);

impl Health {
    /// Of these samples.
    #[must_use]
    pub fn of(samples: &[Sample]) -> Self {
        let health = |sample: &Sample| {
            let success = sample.success()?;
            Some((sample.collector.to_string(), success, sample.duration))
        };
        Self(samples.iter().filter_map(health).collect())
    }
}

impl Encode for Health {
    fn encode(&self, page: &mut Page<'_>) -> fmt::Result {
        let named = |name: &str| [("collector", name.to_owned())];
        page.gauge(
            "esnode_collector_success",
            "Whether the collector could read its source in this scrape; if not, the families of \
             what it reads are absent",
            self.0
                .iter()
                .map(|(name, success, _)| (named(name), u32::from(*success))),
        )?;
        page.gauge(
            "esnode_collector_duration_seconds",
            "Time the collector took to read its source in this scrape",
            self.0
                .iter()
                .map(|(name, _, duration)| (named(name), duration.as_secs_f64())),
        )
    }
}

/// Reads a file and parses it whole.
fn parse_file<T>(
    path: &Path,
    parse: impl FnOnce(&str) -> Result<T, ParseError>,
) -> Result<T, ReadError> {
    parse(&read_file(path)?).map_err(|error| error.at(path))
}

/// The same, of a file that this kernel may not have, or may have switched off.
fn parse_optional<T>(
    path: &Path,
    parse: impl FnOnce(&str) -> Result<T, ParseError>,
) -> Result<Option<T>, ReadError> {
    match parse_file(path, parse) {
        Err(error) if error.is_absent() => Ok(None),
        outcome => outcome.map(Some),
    }
}

/// The next of these fields as a whole number; `what` is expected in `line`.
fn next_number<'a>(
    fields: &mut impl Iterator<Item = &'a str>,
    line: usize,
    what: impl fmt::Display,
) -> Result<u64, ParseError> {
    let field = fields.next().and_then(|field| field.parse().ok());
    field.ok_or_else(|| ParseError::new(line, what.to_string()))
}
