//! All differences at once.

use std::fmt::Write as _;

use anyhow::{Result, bail, ensure};
use esnode_tests::page::Labels;

/// What was compared, and what differs.
#[derive(Default)]
pub(super) struct Report {
    compared: usize,
    /// A family or series, and what is wrong with it.
    differences: Vec<(String, String)>,
}

impl Report {
    /// Takes in what is wrong with a series, if anything is.
    pub(super) fn series(&mut self, name: &str, labels: &Labels, difference: Option<String>) {
        self.compared += 1;
        if let Some(difference) = difference {
            self.note(shown(name, labels), difference);
        }
    }

    /// Takes in values of a series that has to be absent.
    pub(super) fn absent(&mut self, name: &str, labels: &Labels, values: &[Option<f64>]) {
        let there = values.iter().flatten().next();
        let difference = there.map(|value| format!("{value}, of what isn't known"));
        self.series(name, labels, difference);
    }

    /// Takes in what is wrong with a family.
    pub(super) fn note(&mut self, what: impl Into<String>, difference: impl Into<String>) {
        self.differences.push((what.into(), difference.into()));
    }

    /// The same, of one of several hosts.
    pub(super) fn of(mut self, host: &str) -> Self {
        for (what, _) in &mut self.differences {
            what.insert_str(0, &format!("{host}: "));
        }
        self
    }

    /// Takes in what was found elsewhere.
    pub(super) fn add(&mut self, other: Self) {
        self.compared += other.compared;
        self.differences.extend(other.differences);
    }

    /// Fails with a table of all that differs, and where nothing was compared.
    pub(super) fn finish(mut self) -> Result<()> {
        if self.differences.is_empty() {
            ensure!(self.compared > 0, "nothing was compared");
            return Ok(());
        }
        self.differences.sort();
        let widths = self.differences.iter().map(|(what, _)| what.len());
        let width = widths.max().unwrap_or_default().min(80);
        let mut table = String::new();
        for (what, difference) in &self.differences {
            write!(table, "\n  {what:<width$}  {difference}")?;
        }
        bail!(
            "{} differences, in {} series that were compared:{table}",
            self.differences.len(),
            self.compared
        )
    }
}

/// A series as a page has it.
pub(super) fn shown(name: &str, labels: &Labels) -> String {
    let labels: Vec<String> = labels
        .iter()
        .map(|(name, value)| format!("{name}={value:?}"))
        .collect();
    if labels.is_empty() {
        name.to_owned()
    } else {
        format!("{name}{{{}}}", labels.join(","))
    }
}
