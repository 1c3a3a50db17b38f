//! Pages of both, read in turns.

use std::thread;

use anyhow::{Result, anyhow};
use esnode_tests::agent::Agent;
use esnode_tests::http;
use esnode_tests::page::{Format, Labels, Page};

use super::exporter::{self, NodeExporter};

/// Pages of the agent between two of node_exporter, and then so many at the same time as one.
const ROUNDS: usize = 6;

/// A page of the agent.
pub(super) struct Look {
    /// The place of node_exporter's last page that was complete before this one was asked for, and of
    /// the first one that was asked for when this one was complete.
    pub(super) between: (usize, usize),
    pub(super) page: Page,
}

/// What was read.
pub(super) struct Run {
    pub(super) theirs: Vec<Page>,
    pub(super) ours: Vec<Look>,
}

impl Run {
    /// Reads both in turns, then both at the same time between two pages of node_exporter, so that
    /// scrapes that overlap are seen as well.
    pub(super) fn take(agent: &Agent, exporter: &NodeExporter) -> Result<Self> {
        // The first pages open files, and lack what takes two samples.
        text_page(agent)?;
        let mut run = Self {
            theirs: vec![exporter.page()?],
            ours: Vec::new(),
        };
        for _ in 0..ROUNDS {
            let page = text_page(agent)?;
            let last = run.theirs.len() - 1;
            run.theirs.push(exporter.page()?);
            run.ours.push(Look {
                between: (last, last + 1),
                page,
            });
        }
        for _ in 0..ROUNDS {
            let (ours, theirs) = thread::scope(|scope| {
                let ours = scope.spawn(|| text_page(agent));
                let theirs = exporter.page();
                let ours = ours.join().map_err(|_| anyhow!("the reader panicked"));
                (ours, theirs)
            });
            let last = run.theirs.len() - 1;
            run.theirs.extend([theirs?, exporter.page()?]);
            run.ours.push(Look {
                between: (last, last + 2),
                page: ours??,
            });
        }
        Ok(run)
    }

    /// The values of a series on each of node_exporter's pages.
    pub(super) fn their_values(&self, name: &str, labels: &Labels) -> Vec<Option<f64>> {
        self.theirs
            .iter()
            .map(|page| value(page, name, labels))
            .collect()
    }

    /// The values of a series on each of the agent's pages.
    pub(super) fn our_values(&self, name: &str, labels: &Labels) -> Vec<Option<f64>> {
        self.ours
            .iter()
            .map(|look| value(&look.page, name, labels))
            .collect()
    }
}

/// Flags of an agent with collectors of the node alone, which shows the devices that node_exporter
/// shows.
pub(super) fn agent_flags() -> Vec<String> {
    let node = ["--no-bpf", "--disable-collector=process,gpu"];
    let node = node.map(str::to_owned).into_iter();
    node.chain(exporter::agent_flags()).collect()
}

/// The agent with such flags and more, and node_exporter beside it.
pub(super) fn start(more: &[&str]) -> Result<(Agent, NodeExporter)> {
    let exporter = NodeExporter::start(&[])?;
    let flags = agent_flags();
    let flags = flags.iter().map(String::as_str).chain(more.iter().copied());
    let flags: Vec<&str> = flags.collect();
    Ok((Agent::start(&flags)?, exporter))
}

/// The agent's page in the format that node_exporter has: in it, counters are named alike.
fn text_page(agent: &Agent) -> Result<Page> {
    let response = http::get(agent.address()?, "/metrics")?;
    Page::parse(response.text()?, Format::Text)
}

/// The value of one series. Prometheus takes a label without text for none.
pub(super) fn value(page: &Page, name: &str, labels: &Labels) -> Option<f64> {
    let mut samples = page.samples().filter(|sample| sample.name == name);
    let sample = samples.find(|sample| stated(&sample.labels) == *labels)?;
    Some(sample.value)
}

/// Labels that say something.
pub(super) fn stated(labels: &Labels) -> Labels {
    let stated = labels.iter().filter(|(_, value)| !value.is_empty());
    stated
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect()
}
