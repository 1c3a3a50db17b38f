//! What can be collected, and the frame around it. A collector is one file here (or, for
//! processes, one folder beside) and one arm of [`Collector`].

pub mod cpu;
pub mod disk;
pub mod edac;
pub mod filesystem;
pub mod filter;
#[cfg(test)]
mod fixture;
#[cfg(test)]
mod fuzz;
pub mod guard;
pub mod hwmon;
pub mod infiniband;
pub mod load;
pub mod md;
pub mod memory;
pub mod network;
pub mod node;
pub mod numa;
pub mod power;
pub mod pressure;
mod sys;
mod sysfs;
pub mod thermal;
mod ticker;
mod watchdog;
mod wrapping;

use crate::{
    error::{ParseError, ReadError, read_file},
    gpu::collector::GpuCollector,
    page::{Encode, Facts, Page},
    process::{collector::ProcessCollector, table::TableError},
};
use clap::{ValueEnum, builder::PossibleValue};
use guard::Guarded;
use rustc_hash::FxHashSet;
use std::{
    fmt, io,
    panic::{self, AssertUnwindSafe},
    path::Path,
    time::{Duration, Instant},
};
use thiserror::Error;

/// Makes the names of collectors, and the collectors with the state that they keep between passes.
macro_rules! collectors {
    ($($(#[$what:meta])+ $name:ident($collector:ty),)+) => {
        /// The collectors. The name of a variant, in lower case, is its name on the command line
        /// and its label on the page. They are sampled in this order.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, ValueEnum)]
        pub enum CollectorName {
            $($(#[$what])+ $name,)+
        }

        /// A collector with the state that it keeps between passes.
        pub enum Collector {
            $($(#[$what])+ $name(Box<$collector>),)+
        }

        impl Collector {
            /// Which one it is.
            #[must_use]
            pub fn name(&self) -> CollectorName {
                match self {
                    $(Self::$name(_) => CollectorName::$name,)+
                }
            }

            fn facts(&mut self) -> Outcome {
                match self {
                    $(Self::$name(collector) => boxed(collector.sample()),)+
                }
            }
        }

        $(impl From<$collector> for Collector {
            fn from(collector: $collector) -> Self {
                Self::$name(Box::new(collector))
            }
        })+
    };
}

collectors! {
    /// CPU time, usage and frequency by core.
    Cpu(cpu::CpuCollector),
    /// Load averages.
    Load(load::LoadCollector),
    /// Memory and swap.
    Memory(memory::MemoryCollector),
    /// Memory of NUMA nodes.
    Numa(numa::NumaCollector),
    /// Errors that memory corrected, or could not.
    Edac(Guarded<edac::EdacCollector>),
    /// Waiting for CPU, memory and disks.
    Pressure(pressure::PressureCollector),
    /// Block devices.
    Disk(disk::DiskCollector),
    /// Arrays of software RAID.
    Md(md::MdCollector),
    /// Space of filesystems.
    Filesystem(filesystem::FilesystemCollector),
    /// Network interfaces, TCP and UDP.
    Network(network::NetworkCollector),
    /// InfiniBand and RoCE ports.
    Infiniband(Guarded<infiniband::InfinibandCollector>),
    /// Chips that monitor temperatures, fans and voltages.
    Hwmon(hwmon::HwmonCollector),
    /// Thermal zones, and what cools them.
    Thermal(Guarded<thermal::ThermalCollector>),
    /// Names, boot time and clock of the node.
    Node(node::NodeCollector),
    /// GPUs, and what processes use of them.
    Gpu(GpuCollector),
    /// Power and energy of processors, memory and the machine.
    Power(power::PowerCollector),
    /// Processes and groups: CPU, memory, disk and network.
    Process(ProcessCollector),
}

impl fmt::Display for CollectorName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        // No variant is hidden.
        let value = self.to_possible_value();
        formatter.write_str(value.as_ref().map_or("", PossibleValue::get_name))
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
    /// Its thread does not come back from reading a file.
    #[error("a file does not answer, and is not waited for any more")]
    Hangs,
    /// The system gave no thread.
    #[error("cannot start a thread: {0}")]
    Thread(io::Error),
    /// A defect of the collector.
    #[error("the collector panicked: please report the lines above this in the log")]
    Panicked,
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
            Self::Cpu(collector) => collector.complaint(),
            Self::Filesystem(collector) => collector.complaint(),
            Self::Gpu(collector) => collector.complaint(),
            Self::Power(collector) => collector.complaint(),
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

/// Of items with the same name, keeps the first: a list that grows while the kernel writes it, part by
/// part, can hold one twice, and a page must not.
fn keep_first<T>(items: &mut Vec<T>, name: impl Fn(&T) -> &str) {
    let mut names = FxHashSet::default();
    let first: Vec<_> = items.iter().map(|item| names.insert(name(item))).collect();
    let mut first = first.into_iter();
    items.retain(|_| first.next().unwrap_or(true));
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
