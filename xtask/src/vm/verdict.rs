//! What a virtual machine said, and what that makes of it.

use std::collections::BTreeMap;

use super::matrix::{Kernel, Round};
use crate::tally::{Skip, Tally};

/// What every line of the suite for xtask begins with: see `tests/src/vm.rs`.
const MARK: &str = "@vm ";

/// What was heard from a machine.
#[derive(Default)]
pub(super) struct Console {
    /// The kernel's release.
    pub(super) kernel: Option<String>,
    pub(super) rounds: Vec<Heard>,
    /// What went wrong beside tests.
    pub(super) errors: Vec<String>,
    /// Whether it said that it had done everything.
    pub(super) over: bool,
    tail: Vec<String>,
}

/// What was heard of one round.
#[derive(Default)]
pub(super) struct Heard {
    name: String,
    /// Sources on the agent's page, by signal.
    sources: BTreeMap<String, String>,
    /// Instructions that the verifier walked, by program.
    programs: BTreeMap<String, u64>,
    /// The same without names.
    verified: Vec<u64>,
    /// What the agent warned of.
    log: Vec<String>,
    output: String,
    /// Exit code of the suite and seconds.
    end: Option<(i32, f64)>,
}

impl Console {
    /// Takes in a line; returns the round that it ended.
    pub(super) fn hear(&mut self, line: &str) -> Option<&Heard> {
        // Serial terminals and the firmware put their own in front.
        let Some((_, words)) = line.split_once(MARK) else {
            self.hear_other(line);
            return None;
        };
        let (kind, rest) = words.split_once(' ').unwrap_or((words, ""));
        match kind {
            "kernel" => self.kernel = Some(rest.to_owned()),
            "over" => self.over = true,
            "error" => self.errors.push(rest.to_owned()),
            "round" => self.rounds.push(Heard {
                name: rest.to_owned(),
                ..Heard::default()
            }),
            _ => {
                let Some(round) = self.rounds.last_mut() else {
                    self.errors.push(format!("not understood: {words}"));
                    return None;
                };
                round.take(kind, rest);
                return (kind == "end").then_some(round);
            }
        }
        None
    }

    fn hear_other(&mut self, line: &str) {
        const FATAL: [&str; 4] = ["Kernel panic", "BUG: ", "Oops: ", "Internal error: "];
        if FATAL.iter().any(|word| line.contains(word)) {
            self.errors.push(line.to_owned());
        }
        if let Some(round) = self.rounds.last_mut() {
            round.output.push_str(line);
            round.output.push('\n');
        }
        self.tail.push(line.to_owned());
    }

    /// The last lines that weren't for xtask.
    pub(super) fn tail(&self) -> &[String] {
        let from = self.tail.len().saturating_sub(60);
        self.tail.get(from..).unwrap_or_default()
    }
}

impl Heard {
    fn take(&mut self, kind: &str, rest: &str) {
        let (name, value) = rest.rsplit_once(' ').unwrap_or((rest, ""));
        match kind {
            "source" => drop(self.sources.insert(name.to_owned(), value.to_owned())),
            "program" => drop(
                self.programs
                    .insert(name.to_owned(), value.parse().unwrap_or(0)),
            ),
            "verified" => self.verified.extend(value.parse::<u64>()),
            "log" => self.log.push(rest.to_owned()),
            "end" => {
                let mut words = rest.split(' ').skip(1);
                let mut next = || words.next().unwrap_or_default();
                self.end = next().parse().ok().zip(next().parse().ok());
            }
            _ => {}
        }
    }

    /// How many tests ended how.
    pub(super) fn tally(&self) -> Tally {
        Tally::read(&self.output)
    }

    /// What could not be tried.
    pub(super) fn skips(&self) -> Vec<Skip> {
        Skip::read_output(&self.output)
    }

    /// What is wrong with it.
    pub(super) fn complaints(&self, kernel: Kernel, round: &Round) -> Vec<String> {
        let mut complaints = Vec::new();
        for (signal, expected) in round.expected(kernel) {
            let reached = self.sources.get(signal).map_or("not known", String::as_str);
            if reached != expected {
                complaints.push(format!(
                    "the source of {signal} is {reached}, not {expected}"
                ));
            }
        }
        let tally = self.tally();
        match self.end {
            None => complaints.push("it did not end".into()),
            Some((0, _)) if tally.failed == 0 && tally.passed > 0 => {}
            Some((0, _)) => complaints.push("no test passed".into()),
            Some((code, _)) => complaints.push(format!("the suite ended with {code}")),
        }
        complaints
    }

    /// Everything in one line.
    pub(super) fn line(&self, kernel: &str) -> String {
        let sources = self.sources.iter();
        let sources: Vec<_> = sources
            .map(|(signal, source)| format!("{signal}={source}"))
            .collect();
        let seconds = self.end.map_or(0.0, |(_, seconds)| seconds);
        format!(
            "{kernel} {} {}: {} in {seconds:.0} s; verified instructions: {}",
            self.name,
            sources.join(" "),
            self.tally(),
            self.instructions()
        )
    }

    /// The most first. What the agent does not name is there as `other`.
    fn instructions(&self) -> String {
        let mut unnamed = self.verified.clone();
        let mut programs: Vec<_> = self.programs.iter().collect();
        for (_, count) in &programs {
            if let Some(index) = unnamed.iter().position(|other| other == *count) {
                unnamed.swap_remove(index);
            }
        }
        let other = "other".to_owned();
        programs.extend(unnamed.iter().map(|count| (&other, count)));
        programs.sort_by(|(_, one), (_, two)| two.cmp(one));
        if programs.is_empty() {
            return "not told by this kernel".into();
        }
        let words = programs
            .iter()
            .map(|(name, count)| format!("{name} {count}"));
        words.collect::<Vec<_>>().join(", ")
    }

    /// What explains a failure: what the agent warned of, and the output without what went well.
    pub(super) fn details(&self) -> impl Iterator<Item = &str> {
        let output = self.output.lines().filter(|line| {
            !line.is_empty() && !line.ends_with("... ok") && !line.contains(" ... ignored")
        });
        self.log.iter().map(String::as_str).chain(output)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vm::matrix::ROUNDS;

    const SAID: &str = "\
[    0.1] a word of the kernel
@vm kernel 6.1.0-50-amd64
@vm round all
@vm source process_table iter_task
@vm source ended_processes sched_process_exit
@vm source network fexit
@vm source splice_receive fexit
@vm source splice_receive_unix fexit
@vm program task_rename 820493
@vm verified 0 7087
@vm verified 1 820493
test disk::write ... ok
test page::plain ... ignored (needs promtool)
test result: ok. 1 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 9.00s
@vm end all 0 12.7
@vm over";

    fn hear(said: &str) -> Console {
        let mut console = Console::default();
        for line in said.lines() {
            console.hear(line);
        }
        console
    }

    fn complaints(said: &str) -> Vec<String> {
        let console = hear(said);
        let round = console.rounds.first().unwrap();
        round.complaints(Kernel::V6_1, &ROUNDS[0])
    }

    #[test]
    fn a_round_is_one_line() {
        let console = hear(SAID);
        assert!(console.over && console.errors.is_empty());
        assert_eq!(complaints(SAID), [""; 0]);
        assert_eq!(
            console.rounds.first().unwrap().line("6.1"),
            "6.1 all ended_processes=sched_process_exit network=fexit process_table=iter_task \
             splice_receive=fexit splice_receive_unix=fexit: 1 passed, 0 failed, 1 skipped in \
             13 s; verified instructions: task_rename 820493, other 7087"
        );
    }

    #[test]
    fn another_rung_than_expected_is_a_failure() {
        let said = SAID.replace("network fexit", "network none");
        let expected = ["the source of network is none, not fexit"];
        assert_eq!(complaints(&said), expected);
    }

    #[test]
    fn a_round_without_end_or_tests_is_a_failure() {
        let cut = SAID.split("@vm end").next().unwrap();
        assert_eq!(complaints(cut), ["it did not end"]);
        assert_eq!(
            complaints(&SAID.replace("1 passed", "0 passed")),
            ["no test passed"]
        );
        let failed = SAID.replace("end all 0", "end all 101");
        assert_eq!(complaints(&failed), ["the suite ended with 101"]);
    }

    #[test]
    fn a_panic_is_an_error() {
        let console = hear("[    2.5] Kernel panic - not syncing: Attempted to kill init!");
        assert_eq!(console.errors.len(), 1);
        assert!(!console.over);
    }
}
