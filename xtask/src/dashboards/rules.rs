//! Files of recording and alert rules.

use std::{collections::BTreeMap, fs, path::Path};

use anyhow::{Context as _, Result};
use serde::Deserialize;

/// One rule, and where it stands.
#[derive(Debug)]
pub(super) struct Rule {
    pub(super) place: String,
    pub(super) what: What,
    pub(super) expr: String,
    /// Labels that it adds.
    pub(super) labels: BTreeMap<String, String>,
    pub(super) annotations: BTreeMap<String, String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum What {
    /// The name of its series.
    Record(String),
    Alert,
}

#[derive(Deserialize)]
struct File {
    groups: Vec<Group>,
}

#[derive(Deserialize)]
struct Group {
    rules: Vec<Entry>,
}

#[derive(Deserialize)]
struct Entry {
    record: Option<String>,
    alert: Option<String>,
    expr: String,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
}

/// The rules of all files of a folder.
pub(super) fn read_all(root: &Path, folder: &Path) -> Result<Vec<Rule>> {
    let mut rules = Vec::new();
    for path in super::files(folder, "yml")? {
        let text = fs::read_to_string(&path);
        let text = text.with_context(|| format!("cannot read {}", path.display()))?;
        let file = path
            .strip_prefix(root)
            .unwrap_or(&path)
            .display()
            .to_string();
        rules.extend(parse(&file, &text)?);
    }
    Ok(rules)
}

pub(super) fn parse(file: &str, text: &str) -> Result<Vec<Rule>> {
    let groups: File =
        serde_norway::from_str(text).with_context(|| format!("{file} is no file of rules"))?;
    let entries = groups.groups.into_iter().flat_map(|group| group.rules);
    entries
        .map(|entry| {
            let (name, what) = match (entry.record, entry.alert) {
                (Some(name), None) => (name.clone(), What::Record(name)),
                (None, Some(name)) => (name, What::Alert),
                _ => anyhow::bail!("{file}: a rule either records or alerts: {}", entry.expr),
            };
            Ok(Rule {
                place: format!("{file}: {name}"),
                what,
                expr: entry.expr,
                labels: entry.labels,
                annotations: entry.annotations,
            })
        })
        .collect()
}
