//! The agent's own families hold the same values as those of node_exporter.

use std::collections::BTreeSet;

use anyhow::Result;
use esnode_tests::page::{Family, Labels, Page};

use super::bounds::Motion;
use super::report::Report;
use super::run::{self, Run, stated};
use super::table::{AGENT, OWN_ONLY, PAIRS, Pair, UNKNOWN};

pub(super) fn check() -> Result<()> {
    let (agent, exporter) = run::start(&[])?;
    let run = Run::take(&agent, &exporter)?;
    let mut report = Report::default();
    for pair in PAIRS {
        compare(pair, &run, &mut report);
    }
    for name in unknown(&run) {
        report.note(
            name,
            "not in the table of this test, with a counterpart or a reason",
        );
    }
    report.finish()
}

/// Compares each series that one of both has.
fn compare(pair: &Pair, run: &Run, report: &mut Report) {
    let their_pages = || run.theirs.iter();
    let kind = their_pages().find_map(|page| family(page, pair.theirs));
    let kind = kind.map_or("gauge", |family| family.kind.as_str());
    let theirs = their_pages().flat_map(|page| page.select(pair.theirs, pair.their_labels));
    let theirs = theirs.map(|sample| stated(&sample.labels));
    let our_pages = run.ours.iter().map(|look| &look.page);
    let ours = our_pages.flat_map(|page| page.select(pair.own, pair.own_labels));
    let ours = ours.map(|sample| pair.to_theirs(&stated(&sample.labels)));
    for labels in theirs.chain(ours).collect::<BTreeSet<Labels>>() {
        let own_labels = pair.to_own(&labels);
        let theirs = run.their_values(pair.theirs, &labels);
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
        let motion = Motion::of(pair.theirs, kind, &labels);
        let difference = motion.difference(&run.ours, &ours, &theirs);
        let difference = difference.map(|text| format!("{text} of {}", pair.theirs));
        report.series(pair.own, &own_labels, difference);
    }
}

fn family<'a>(page: &'a Page, name: &str) -> Option<&'a Family> {
    page.families.iter().find(|family| family.name == name)
}

/// Families of the agent that the table says nothing of.
fn unknown(run: &Run) -> BTreeSet<&str> {
    let looks = run.ours.iter();
    let families = looks.flat_map(|look| &look.page.families);
    let names = families.map(|family| family.name.as_str());
    let known = |name: &str| {
        PAIRS.iter().any(|pair| pair.own == name)
            || OWN_ONLY.iter().any(|(own, _)| *own == name)
            || AGENT.iter().any(|start| name.starts_with(start))
    };
    names.filter(|name| !known(name)).collect()
}
