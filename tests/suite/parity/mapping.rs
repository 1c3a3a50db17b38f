//! The agent's own families hold the same values as those of node_exporter.

use std::collections::BTreeSet;

use anyhow::Result;
use esnode_tests::page::{Family, Labels, Page, Sample};

use super::bounds::Motion;
use super::report::{Report, shown};
use super::run::{self, Run, stated};
use super::table::{AGENT, OWN_ONLY, PAIRS, Pair, SENSORS, UNKNOWN};

pub(super) fn check() -> Result<()> {
    let (agent, exporter) = run::start(&[])?;
    compare(&Run::take(&agent, &exporter)?, Motion::of).finish()
}

/// Compares all families, of which `motion` says how each series moves.
pub(super) fn compare(run: &Run, motion: impl Fn(&str, &str, &Labels) -> Motion) -> Report {
    let mut report = Report::default();
    for pair in PAIRS {
        compare_pair(pair, run, &motion, &mut report);
    }
    for name in unknown(run) {
        report.note(
            name,
            "not in the table of this test, with a counterpart or a reason",
        );
    }
    report
}

/// Compares each series that one of both has.
fn compare_pair(
    pair: &Pair,
    run: &Run,
    motion: impl Fn(&str, &str, &Labels) -> Motion,
    report: &mut Report,
) {
    let their_pages = || run.theirs.iter();
    let kind = their_pages().find_map(|page| family(page, pair.theirs));
    let kind = kind.map_or("gauge", |family| family.kind.as_str());
    let theirs = their_pages().flat_map(|page| page.select(pair.theirs, &[]));
    let theirs = theirs.map(|sample| stated(&sample.labels));
    let our_pages = run.ours.iter().map(|look| &look.page);
    let ours = our_pages.flat_map(|page| page.select(pair.own, pair.own_labels));
    let ours = ours.map(|sample| pair.to_theirs(&stated(&sample.labels)));
    for labels in theirs.chain(ours).collect::<BTreeSet<Labels>>() {
        let own_labels = pair.to_own(&labels);
        let mut theirs = run.their_values(pair.theirs, &labels);
        if let Some(other) = pair.and {
            let others = run.their_values(other, &labels);
            for (sum, other) in theirs.iter_mut().zip(others) {
                // Absent where the kernel has no IPv6.
                *sum = sum.map(|value| value + other.unwrap_or(0.0));
            }
        }
        let unknown = UNKNOWN.iter().find(|(own, _)| *own == pair.own);
        if unknown.is_some_and(|(_, there)| run.theirs.iter().all(|page| there(page, &labels))) {
            report.absent(
                pair.own,
                &own_labels,
                &run.our_values(pair.own, &own_labels),
            );
            continue;
        }
        let mut ours = run.our_values(pair.own, &own_labels);
        for value in ours.iter_mut().flatten() {
            *value /= pair.unit;
        }
        let motion = motion(pair.theirs, kind, &labels);
        let difference = motion.difference(&run.ours, &ours, &theirs);
        let difference = difference.map(|text| format!("{text} of {}", pair.theirs));
        report.series(pair.own, &own_labels, difference);
    }
}

fn family<'a>(page: &'a Page, name: &str) -> Option<&'a Family> {
    page.families.iter().find(|family| family.name == name)
}

/// Series of the agent that the table says nothing of.
fn unknown(run: &Run) -> BTreeSet<String> {
    let known = |sample: &&Sample| {
        let is = |name: &str, labels: &[_]| sample.name == name && sample.has(labels);
        let starts = |start: &&str| sample.name.starts_with(start);
        PAIRS.iter().any(|pair| is(pair.own, pair.own_labels))
            || OWN_ONLY.iter().any(|(own, labels, _)| is(own, labels))
            || SENSORS.iter().chain(AGENT).any(starts)
    };
    let samples = run.ours.iter().flat_map(|look| look.page.samples());
    samples
        .filter(|sample| !known(sample))
        .map(|sample| shown(&sample.name, &sample.labels))
        .collect()
}
