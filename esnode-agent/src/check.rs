//! `esnode-core check`: where every signal and collector stands on this host, why it stands no
//! better, and what to do about it.

use crate::{
    agent::{self, Found},
    cli::{CheckOptions, IdentityFlags, PageOptions},
    collectors::{CollectError, Collector, CollectorName, Sample},
    ladder::{Refusal, Signal, Standing, State},
    privileges, version,
};
use anyhow::{Context, Result};
use clap::ValueEnum;
use serde::Serialize;
use std::{
    fmt,
    io::{self, Write},
    process::ExitCode,
};
use tracing::warn;

/// Exit code where something is not known, or less well than it could be.
const DEGRADED: u8 = 3;

/// Loads what the agent would load, samples once, and prints what it saw.
///
/// # Errors
/// If there is nothing to read at all, or the report can't be printed.
pub fn run(options: &CheckOptions) -> Result<ExitCode> {
    let sources = &options.sources;
    agent::check_roots(sources)?;
    let mut found = Found::nothing(&IdentityFlags::default())?;
    let standings = found.load(sources, &options.gpu)?;
    if let Err(error) = privileges::drop(found.needs()) {
        warn!(%error, "keeping all privileges");
    }
    let page = PageOptions::default();
    let mut collectors = agent::collectors(sources, &page, found, &standings)?;
    let samples: Vec<_> = collectors.iter_mut().map(Collector::sample).collect();
    let report = Report::new(&standings, &samples);
    let mut text = if options.json {
        serde_json::to_string_pretty(&report).context("cannot write JSON")?
    } else {
        report.to_string()
    };
    text.push('\n');
    io::stdout()
        .write_all(text.as_bytes())
        .context("cannot print the report")?;
    Ok(ExitCode::from(if report.degraded { DEGRADED } else { 0 }))
}

/// Everything that `check` says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Report {
    version: String,
    kernel: String,
    machine: String,
    /// Whether something is not known, or less well than it could be.
    degraded: bool,
    signals: Vec<SignalReport>,
    collectors: Vec<CollectorReport>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct SignalReport {
    signal: String,
    /// The rung in use, as on the page.
    source: Option<String>,
    state: State,
    refused: Vec<RefusalReport>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct RefusalReport {
    source: String,
    reason: String,
    remedy: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct CollectorReport {
    collector: String,
    state: State,
    reason: Option<String>,
}

impl Report {
    fn new(standings: &[Standing], samples: &[Sample]) -> Self {
        let signals: Vec<_> = Signal::ALL
            .into_iter()
            .map(|signal| SignalReport::new(signal, standings))
            .collect();
        let collectors: Vec<_> = CollectorName::value_variants()
            .iter()
            .map(|name| CollectorReport::new(*name, samples))
            .collect();
        let mut states = signals.iter().map(|signal| signal.state);
        let mut collector_states = collectors.iter().map(|collector| collector.state);
        let system = rustix::system::uname();
        Self {
            version: version::line().to_owned(),
            kernel: system.release().to_string_lossy().into_owned(),
            machine: system.machine().to_string_lossy().into_owned(),
            degraded: states.any(State::is_degraded) || collector_states.any(State::is_degraded),
            signals,
            collectors,
        }
    }
}

impl SignalReport {
    fn new(signal: Signal, standings: &[Standing]) -> Self {
        let standing = standings.iter().find(|standing| standing.signal == signal);
        let refused = |refusal: &Refusal| RefusalReport {
            source: refusal.rung.to_string(),
            reason: refusal.reason.clone(),
            remedy: refusal.remedy.clone(),
        };
        Self {
            signal: signal.to_string(),
            source: standing.and_then(|standing| Some(standing.rung?.to_string())),
            state: standing.map_or(State::Off, Standing::state),
            refused: standing.map_or_else(Vec::new, |standing| {
                standing.refused.iter().map(refused).collect()
            }),
        }
    }
}

impl CollectorReport {
    fn new(name: CollectorName, samples: &[Sample]) -> Self {
        let mut samples = samples.iter();
        let outcome = samples.find(|sample| sample.collector == name);
        let (state, reason) = match outcome.map(|sample| (&sample.facts, &sample.complaint)) {
            None => (State::Off, None),
            Some((Ok(_), None)) => (State::Ok, None),
            Some((Ok(_), Some(complaint))) => (State::Missing, Some(complaint.clone())),
            Some((Err(error @ CollectError::Off(_)), _)) => (State::Off, Some(error.to_string())),
            Some((Err(error), _)) => (State::Missing, Some(error.to_string())),
        };
        Self {
            collector: name.to_string(),
            state,
            reason,
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            version,
            kernel,
            machine,
            ..
        } = self;
        writeln!(formatter, "esnode-core {version}")?;
        writeln!(formatter, "Linux {kernel}, {machine}\n")?;
        writeln!(formatter, "{:21}{:20}STATE", "SIGNAL", "SOURCE")?;
        for signal in &self.signals {
            let source = signal.source.as_deref().unwrap_or("none");
            let SignalReport { signal, state, .. } = signal;
            writeln!(formatter, "{signal:21}{source:20}{state}")?;
        }
        writeln!(formatter, "\n{:21}STATE", "COLLECTOR")?;
        for collector in &self.collectors {
            let CollectorReport {
                collector,
                state,
                reason,
            } = collector;
            match reason {
                Some(reason) => writeln!(formatter, "{collector:21}{state}: {reason}")?,
                None => writeln!(formatter, "{collector:21}{state}")?,
            }
        }
        for signal in self.signals.iter().filter(|it| !it.refused.is_empty()) {
            writeln!(formatter, "\nWhy {} is not read from", signal.signal)?;
            // One reason often refuses all rungs.
            let alike = |a: &RefusalReport, b: &RefusalReport| a.reason == b.reason;
            for refusals in signal.refused.chunk_by(alike) {
                let sources: Vec<_> = refusals.iter().map(|it| it.source.as_str()).collect();
                if let Some(RefusalReport { reason, remedy, .. }) = refusals.first() {
                    writeln!(formatter, "  {}: {reason}", sources.join(", "))?;
                    writeln!(formatter, "      to do: {remedy}")?;
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ladder::Rung;

    fn standings(network: Option<Rung>) -> Vec<Standing> {
        vec![Standing {
            signal: Signal::Network,
            rung: network,
            refused: vec![Refusal {
                rung: Rung::SockLength,
                reason: "no such tracepoint".to_owned(),
                remedy: "a newer kernel".to_owned(),
            }],
        }]
    }

    #[test]
    fn another_rung_that_knows_as_much_is_not_degraded() {
        assert!(!Report::new(&standings(Some(Rung::Fexit)), &[]).degraded);
        assert!(Report::new(&standings(Some(Rung::SockDiag)), &[]).degraded);
        assert!(Report::new(&standings(None), &[]).degraded);
    }

    #[test]
    fn the_table_says_what_is_used_and_why_nothing_better() {
        let table = Report::new(&standings(Some(Rung::SockDiag)), &[]).to_string();
        let words: Vec<_> = table
            .lines()
            .find(|line| line.starts_with("network "))
            .expect("a line")
            .split_whitespace()
            .collect();
        assert_eq!(words, ["network", "sock_diag", "degraded"]);
        assert!(table.contains("sock_length: no such tracepoint"));
        assert!(table.contains("to do: a newer kernel"));
    }
}
