//! With `--node-exporter-names`, the page has what node_exporter's has, but for what the README lists.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;
use esnode_tests::page::{Family, Labels, Page};

use super::bounds::Motion;
use super::report::Report;
use super::run::{self, Run, stated};
use super::{exporter, readme};

/// Every family of node_exporter by name: its type, and the labels of its series.
type Families<'a> = BTreeMap<&'a str, (&'a str, BTreeSet<Labels>)>;

pub(super) fn check() -> Result<()> {
    let (agent, exporter) = run::start(&["--node-exporter-names"])?;
    exporter::need_version(&exporter.page()?)?;
    let run = Run::take(&agent, &exporter)?;
    compare(&run, |_| false, Motion::of)?.finish()
}

/// Compares all families, but for those that are left out; `motion` says how each series moves.
pub(super) fn compare(
    run: &Run,
    left_out: impl Fn(&str) -> bool,
    motion: impl Fn(&str, &str, &Labels) -> Motion,
) -> Result<Report> {
    let missing = readme::missing()?;
    let is_missing = |name: &str| missing.iter().any(|row| row.has(name));
    let mut theirs = families(run.theirs.iter());
    let mut ours = families(run.ours.iter().map(|look| &look.page));
    theirs.retain(|name, _| !left_out(name));
    ours.retain(|name, _| !left_out(name));
    let mut report = Report::default();
    for (name, (kind, series)) in &theirs {
        match ours.get(name) {
            None if is_missing(name) => {}
            None => report.note(*name, format!("missing: {kind}, {} series", series.len())),
            Some((our_kind, our_series)) => {
                if !is_kind(our_kind, name, kind) {
                    report.note(*name, format!("{our_kind}, and {kind} there"));
                }
                for labels in series.union(our_series) {
                    let theirs = run.their_values(name, labels);
                    let ours = run.our_values(name, labels);
                    let motion = motion(name, kind, labels);
                    let difference = motion.difference(&run.ours, &ours, &theirs);
                    report.series(name, labels, difference);
                }
            }
        }
    }
    for name in ours.keys().filter(|name| !theirs.contains_key(*name)) {
        report.note(*name, "not there");
    }
    for name in ours.keys().filter(|name| is_missing(name)) {
        report.note(*name, "here, and the README lists it as missing");
    }
    Ok(report)
}

/// Whether our type of a family is right: `OpenMetrics` has no counter whose name doesn't end in
/// `_total`.
fn is_kind(ours: &str, name: &str, theirs: &str) -> bool {
    ours == theirs || theirs == "counter" && ours == "untyped" && !name.ends_with("_total")
}

fn families<'a>(pages: impl Iterator<Item = &'a Page>) -> Families<'a> {
    let mut families = Families::new();
    let named = |family: &&Family| family.name.starts_with("node_");
    for family in pages.flat_map(|page| &page.families).filter(named) {
        let kind = family.kind.as_str();
        let entry = families.entry(&family.name);
        let (_, series) = entry.or_insert_with(|| (kind, BTreeSet::new()));
        series.extend(family.samples.iter().map(|sample| stated(&sample.labels)));
    }
    families
}
