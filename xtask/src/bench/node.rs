//! What the collectors of the node take per scrape, next to node_exporter with its default
//! collectors, in turns.

use std::path::Path;

use anyhow::Result;

use super::{
    exporter::{self, Exporter},
    median,
};

/// Scrapes of each.
const SCRAPES: usize = 200;
/// What each gets before that to open its files and grow to its size.
const SETTLING: usize = 20;

/// The agent with the collectors of the node alone.
const NODE: [&str; 2] = ["--no-bpf", "--disable-collector=process,gpu"];
/// The same, that shows the node by the names of node_exporter too.
const BOTH_NAMES: [&str; 3] = [NODE[0], NODE[1], "--node-exporter-names"];

/// What was found.
pub(super) struct Cost {
    /// CPU time of the agent as a share of that of node_exporter; `None` if that is not installed.
    pub(super) share: Option<f64>,
    pub(super) report: Vec<String>,
}

/// One that is measured.
struct Subject {
    name: &'static str,
    exporter: Exporter,
    /// CPU time of each scrape in milliseconds.
    costs: Vec<f64>,
}

/// Measures the agent, the agent with both sets of names, and node_exporter.
pub(super) fn measure(agent: &Path) -> Result<Cost> {
    let subject = |name, exporter| Subject {
        name,
        exporter,
        costs: Vec::with_capacity(SCRAPES),
    };
    let mut subjects = vec![
        subject("collectors of the node", Exporter::agent(agent, &NODE)?),
        subject(
            "  with --node-exporter-names",
            Exporter::agent(agent, &BOTH_NAMES)?,
        ),
    ];
    let node_exporter = exporter::node_exporter()?;
    subjects.extend(node_exporter.map(|exporter| subject("node_exporter", exporter)));
    for subject in &subjects {
        subject.exporter.scrape_cost(SETTLING)?;
    }
    for _ in 0..SCRAPES {
        for subject in &mut subjects {
            subject.costs.push(subject.exporter.scrape_cost(1)?);
        }
    }

    let mut report = vec![format!(
        "{:<30} {:>18} {:>10} {:>9} {:>10}",
        format!("{SCRAPES} scrapes in turns"),
        "CPU ms per scrape",
        "mean",
        "RSS MB",
        "page kB"
    )];
    let mut medians = Vec::new();
    for subject in &mut subjects {
        let (median, mean) = (median(&mut subject.costs), mean(&subject.costs));
        let (rss, page) = (subject.exporter.resident_mb()?, subject.exporter.page_kb()?);
        let name = subject.name;
        report.push(format!(
            "{name:<30} {median:>18.3} {mean:>10.3} {rss:>9.1} {page:>10.1}"
        ));
        medians.push(median);
    }
    let share = match medians.as_slice() {
        [own, _, theirs] => Some(own / theirs),
        _ => None,
    };
    Ok(Cost { share, report })
}

#[expect(clippy::cast_precision_loss, reason = "a small number")]
fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}
