//! What the README says of the names of node_exporter.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, bail, ensure};
use esnode_tests::page::{Labels, Page};

use super::exporter::{self, NodeExporter};
use super::report::Report;

const README: &str = include_str!("../../../README.md");
const HEADING: &str = "### Names of node_exporter\n";
/// The heads of its tables.
const COVERED: &str = "| collector | names |";
const MISSING: &str = "| missing | collector | why |";

/// Families that ours lacks.
pub(super) struct Missing {
    /// Names, or beginnings of names with a star.
    patterns: Vec<String>,
    /// Their collector in node_exporter, unless they are of none.
    collector: Option<String>,
}

impl Missing {
    /// Whether a family is one of these.
    pub(super) fn has(&self, family: &str) -> bool {
        self.patterns.iter().any(|pattern| matches(pattern, family))
    }
}

/// What the README lists as missing.
pub(super) fn missing() -> Result<Vec<Missing>> {
    let rows = table(MISSING)?;
    rows.into_iter()
        .map(|cells| {
            let [names, collector, why] = cells.as_slice() else {
                bail!("not a row of three cells: {cells:?}");
            };
            ensure!(!why.is_empty(), "no reason for {names}");
            let patterns = words(names);
            ensure!(!patterns.is_empty(), "no names in {cells:?}");
            Ok(Missing {
                patterns,
                collector: words(collector).into_iter().next(),
            })
        })
        .collect()
}

/// The collectors of node_exporter whose families the README promises.
fn covered() -> Result<BTreeSet<String>> {
    let rows = table(COVERED)?;
    let cells = rows.iter().filter_map(|cells| cells.first());
    Ok(cells.flat_map(|cell| words(cell)).collect())
}

/// Each default collector of node_exporter is covered or listed as missing, and what is listed is
/// what that collector has, as far as it shows anything on this kernel.
pub(super) fn check() -> Result<()> {
    let exporter = NodeExporter::start(&[])?;
    let page = exporter.page()?;
    exporter::need_version(&page)?;
    let (covered, missing) = (covered()?, missing()?);
    let mut report = Report::default();

    let known = page.label_values("node_scrape_collector_success", &[], "collector");
    let listed = missing.iter().filter_map(|row| row.collector.as_deref());
    let told: BTreeSet<&str> = covered.iter().map(String::as_str).chain(listed).collect();
    for collector in known.symmetric_difference(&told) {
        let where_it_is = if told.contains(collector) {
            "in the README, and no default collector of node_exporter"
        } else {
            "a default collector of node_exporter, and not in the README"
        };
        report.note(*collector, where_it_is);
    }
    for row in &missing {
        let of_it = match &row.collector {
            Some(collector) => families(&exporter.page_of(collector)?),
            None => of_no_collector(&page),
        };
        let others = families(&page);
        for pattern in &row.patterns {
            let named = |families: &BTreeSet<String>| -> Vec<String> {
                let named = families.iter().filter(|family| matches(pattern, family));
                named.cloned().collect()
            };
            let there = of_it.is_empty() || !named(&of_it).is_empty();
            report.series(
                pattern,
                &Labels::new(),
                (!there).then(|| "not there".into()),
            );
            let mut wrong = named(&others);
            wrong.retain(|family| !of_it.contains(family) && row.collector.is_some());
            if !wrong.is_empty() {
                report.note(
                    pattern,
                    format!("means others as well: {}", wrong.join(", ")),
                );
            }
        }
    }
    report.finish()
}

/// The families of collectors.
fn families(page: &Page) -> BTreeSet<String> {
    let all = page.families.iter().map(|family| family.name.clone());
    all.filter(|name| name.starts_with("node_") && !is_of_none(name))
        .collect()
}

/// What it tells of itself.
fn of_no_collector(page: &Page) -> BTreeSet<String> {
    let all = page.families.iter().map(|family| family.name.clone());
    all.filter(|name| is_of_none(name)).collect()
}

fn is_of_none(family: &str) -> bool {
    family == "node_exporter_build_info" || family.starts_with("node_scrape_collector_")
}

fn matches(pattern: &str, family: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(start) => family.starts_with(start),
        None => family == pattern,
    }
}

/// The cells of the rows below this head, in the section on node_exporter.
fn table(head: &str) -> Result<Vec<Vec<&'static str>>> {
    let (_, section) = README.split_once(HEADING).context("no such section")?;
    let section = section.split("\n### ").next().unwrap_or_default();
    let mut lines = section.lines().skip_while(|line| *line != head);
    lines.next().with_context(|| format!("no table {head}"))?;
    let rows: Vec<Vec<&str>> = lines
        .skip(1)
        .map_while(|line| line.strip_prefix('|')?.strip_suffix('|'))
        .map(|row| row.split('|').map(str::trim).collect())
        .collect();
    ensure!(!rows.is_empty(), "no rows below {head}");
    Ok(rows)
}

/// The words of a cell that are set as code.
fn words(cell: &str) -> Vec<String> {
    let parts = cell.split('`').skip(1).step_by(2);
    parts.map(str::to_owned).collect()
}
