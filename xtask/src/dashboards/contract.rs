//! What the agent exports, by the tables of the README: they are the contract.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result, bail};

use super::{families::Families, labels::Labels, names};

/// Where the README's tables of families begin and end.
const FIRST: &str = "\n## The page\n";
const NEXT: &str = "\n## ";

/// The labels that all families have whose names begin like this.
const OF_SUBJECTS: [(&str, &[&str]); 2] = [
    ("esnode_process_", &["pid", "comm"]),
    ("esnode_group_", &["group"]),
];

/// The labels that Prometheus and the Collector add.
const OF_TARGET: [&str; 2] = ["instance", "job"];

/// What the type of a family is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Counter,
    Gauge,
    Histogram,
    Unknown,
}

/// What the README says of a family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Family {
    pub(super) kind: Kind,
    /// All that a series of it may have.
    pub(super) labels: Labels,
}

/// The families of the README's tables.
pub(super) fn read(readme: &str) -> Result<Families> {
    let (_, page) = readme
        .split_once(FIRST)
        .context("README.md has no section \"The page\"")?;
    let page = page.split(NEXT).next().unwrap_or_default();
    let mut families = BTreeMap::new();
    for section in page.split("\n### ") {
        let title = section.lines().next().unwrap_or_default();
        read_section(section, &mut families)
            .with_context(|| format!("README.md, section \"{title}\""))?;
    }
    if families.is_empty() {
        bail!("README.md has no table whose first column is \"family\"");
    }
    Ok(Families::exported(families))
}

fn read_section(section: &str, families: &mut BTreeMap<String, Family>) -> Result<()> {
    let common = common_labels(section);
    let mut lines = section.lines();
    while let Some(head) = lines.next() {
        let head = cells(head);
        if head.first() != Some(&"family") {
            continue;
        }
        let own = head.get(2) == Some(&"labels");
        let rows = lines.by_ref().skip(1).map(cells);
        for row in rows.take_while(|row| !row.is_empty()) {
            let [name, kind, labels, ..] = row.as_slice() else {
                bail!("not a row of a table of families: {row:?}");
            };
            // "none at all" is told in words.
            let none = own || labels.starts_with("none");
            let common = if none { &[][..] } else { &common };
            let all = names::code(labels).flat_map(str::split_whitespace);
            let labels: BTreeSet<&str> = all.chain(common.iter().copied()).collect();
            let names = names::in_cell(name)?;
            let kinds = kinds(kind, names.len()).with_context(|| name.to_string())?;
            for (name, kind) in names.into_iter().zip(kinds) {
                add(families, &name, kind, &labels)?;
            }
        }
    }
    if let Some(derived) = groups_of_processes(section) {
        let all: Vec<_> = families
            .iter()
            .map(|(name, family)| (name.clone(), family.clone()))
            .collect();
        for (name, family) in all {
            let Some(rest) = name.strip_prefix("esnode_process_") else {
                continue;
            };
            let Labels::Known(mut labels) = family.labels else {
                continue;
            };
            let name = format!("{derived}{rest}");
            labels.retain(|label| !["pid", "comm"].contains(&label.as_str()));
            if !families.contains_key(&name) {
                let labels = labels.iter().map(String::as_str).collect();
                add(families, &name, family.kind, &labels)?;
            }
        }
    }
    Ok(())
}

fn add(
    families: &mut BTreeMap<String, Family>,
    name: &str,
    kind: Kind,
    labels: &BTreeSet<&str>,
) -> Result<()> {
    let of_subject = OF_SUBJECTS
        .iter()
        .filter(|(prefix, _)| name.starts_with(prefix));
    let more = of_subject.flat_map(|(_, labels)| labels.iter().copied());
    let all = labels.iter().copied().chain(more).chain(OF_TARGET);
    let labels = Labels::Known(all.map(str::to_owned).collect());
    if families
        .insert(name.to_owned(), Family { kind, labels })
        .is_some()
    {
        bail!("{name} is there twice: leave one of the rows");
    }
    Ok(())
}

/// "The same families as `esnode_group_…`": the beginning of the names that a section gives to what
/// the tables before it have of processes.
fn groups_of_processes(section: &str) -> Option<&str> {
    let (_, rest) = section.split_once("The same families as `")?;
    rest.split_once("…`").map(|(prefix, _)| prefix)
}

/// The labels that a section gives to all its tables, from "Labels:" to the end of the paragraph.
fn common_labels(section: &str) -> Vec<&str> {
    let Some((_, rest)) = section.split_once("Labels:") else {
        return Vec::new();
    };
    let paragraph = rest.split("\n\n").next().unwrap_or_default();
    names::code(paragraph)
        .filter(|word| names::is_name(word))
        .collect()
}

/// The cells of a row; none for other lines.
fn cells(line: &str) -> Vec<&str> {
    let row = line.strip_prefix('|').and_then(|row| row.strip_suffix('|'));
    row.map_or_else(Vec::new, |row| row.split('|').map(str::trim).collect())
}

/// One type for all names, or one for each.
fn kinds(cell: &str, count: usize) -> Result<Vec<Kind>> {
    let words = cell.split(',').map(str::trim);
    let kinds: Vec<Kind> = words
        // Of the info families, `1` is the value.
        .filter(|word| *word != "1")
        .map(|word| match word {
            "counter" => Ok(Kind::Counter),
            "gauge" => Ok(Kind::Gauge),
            "histogram" => Ok(Kind::Histogram),
            "" => Ok(Kind::Unknown),
            other => bail!("\"{other}\" is no type of a family"),
        })
        .collect::<Result<_>>()?;
    match kinds.as_slice() {
        [kind] => Ok(vec![*kind; count]),
        kinds if kinds.len() == count => Ok(kinds.to_vec()),
        kinds => bail!("{} types for {count} families", kinds.len()),
    }
}
