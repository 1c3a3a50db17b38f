//! The verdicts on all kernels, and what could not be tried.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    fs,
    path::Path,
};

use anyhow::{Context as _, Result};

use super::{
    machine::End,
    matrix::{Kernel, Round},
    verdict::{Console, Heard},
};
use crate::{step, tally::Tally};

/// How many names of tests with one reason are printed.
const NAMES: usize = 4;

/// What came of the kernels so far.
#[derive(Default)]
pub(super) struct Report {
    tally: Tally,
    verdicts: Vec<String>,
    /// Where which tests were skipped, by reason.
    skips: BTreeMap<String, Skipped>,
    /// Each skipped test: kernel and round, name, reason.
    list: String,
}

/// What was skipped for one reason.
#[derive(Default)]
struct Skipped {
    names: BTreeSet<String>,
    rounds: BTreeSet<String>,
}

impl Report {
    /// Judges what was heard from a kernel.
    pub(super) fn judge(&mut self, kernel: Kernel, rounds: &[Round], console: &Console, end: &End) {
        if let Some(release) = &console.kernel {
            let name = kernel.name();
            self.verdicts.push(format!("{name} is Linux {release}"));
        }
        for (round, heard) in rounds.iter().zip(&console.rounds) {
            self.judge_round(kernel, round, heard);
        }
        let mut errors = console.errors.clone();
        match end {
            End::Off if console.over && console.rounds.len() == rounds.len() => {}
            End::Off => errors.push("the machine ended before it was done".into()),
            End::Silent | End::Late => errors.push(format!("the machine was ended: {end}")),
        }
        if !errors.is_empty() {
            self.tally.failed += 1;
            eprintln!("The end of the console of {}:", kernel.name());
            console
                .tail()
                .iter()
                .for_each(|line| eprintln!("    {line}"));
        }
        for error in errors {
            self.fail(&format!("{}: {error}", kernel.name()));
        }
    }

    fn judge_round(&mut self, kernel: Kernel, round: &Round, heard: &Heard) {
        let place = format!("{} {}", kernel.name(), round.name);
        self.verdicts.push(heard.line(kernel.name()));
        let mut tally = heard.tally();
        let complaints = heard.complaints(kernel, round);
        if !complaints.is_empty() {
            tally.failed = tally.failed.max(1);
            eprintln!("What {place} said:");
            heard.details().for_each(|line| eprintln!("    {line}"));
        }
        self.tally += tally;
        for complaint in complaints {
            self.fail(&format!("{place}: {complaint}"));
        }
        for skip in heard.skips() {
            // A list in memory takes what is written.
            let _ = writeln!(self.list, "{place}\t{}\t{}", skip.name, skip.reason);
            let skipped = self.skips.entry(skip.reason).or_default();
            skipped.names.insert(skip.name);
            skipped.rounds.insert(place.clone());
        }
    }

    fn fail(&mut self, error: &str) {
        eprintln!("error: {error}");
        self.verdicts.push(format!("  FAILED: {error}"));
    }

    /// Prints everything, with the sum as the last line; returns whether all went well.
    pub(super) fn print(&self, folder: &Path) -> Result<bool> {
        let list = folder.join("skipped-tests.tsv");
        fs::write(&list, &self.list).with_context(|| format!("cannot write {}", list.display()))?;
        if !self.skips.is_empty() {
            step::print(&format!("Skipped ({} lists all):", list.display()));
        }
        for (reason, Skipped { names, rounds }) in &self.skips {
            let count = names.len();
            let first: Vec<_> = names.iter().take(NAMES).map(String::as_str).collect();
            let dots = if count > NAMES { ", …" } else { "" };
            let rounds: Vec<_> = rounds.iter().map(String::as_str).collect();
            step::print(&format!(
                "  {reason}: {count} tests ({}{dots}) in {}",
                first.join(", "),
                rounds.join(", ")
            ));
        }
        for line in &self.verdicts {
            step::print(line);
        }
        step::print(&self.tally.to_string());
        Ok(self.tally.failed == 0)
    }
}
