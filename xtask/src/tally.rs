//! Counts tests from what their harness prints, and lists what was skipped.

use std::fmt;

/// How many tests ended how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
    pub(crate) skipped: u64,
}

impl Tally {
    /// Adds up the lines `test result: ok. 3 passed; 0 failed; 1 ignored; …`, one per harness.
    pub(crate) fn read(output: &str) -> Self {
        let mut tally = Self::default();
        for line in output.lines() {
            let Some(result) = line.strip_prefix("test result: ") else {
                continue;
            };
            let mut number = 0;
            for word in result.split_whitespace() {
                match word {
                    "passed;" => tally.passed += number,
                    "failed;" => tally.failed += number,
                    "ignored;" => tally.skipped += number,
                    _ => number = word.parse().unwrap_or(0),
                }
            }
        }
        tally
    }
}

impl std::ops::AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            passed,
            failed,
            skipped,
        } = self;
        write!(f, "{passed} passed, {failed} failed, {skipped} skipped")
    }
}

/// A test that this machine cannot run.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Skip {
    pub(crate) name: String,
    pub(crate) reason: String,
}

impl Skip {
    fn new(name: &str, reason: &str) -> Self {
        let reason = if reason.is_empty() {
            "no reason given"
        } else {
            reason
        };
        Self {
            name: name.trim().to_owned(),
            reason: reason.to_owned(),
        }
    }

    /// Reads a report of lines `name<TAB>reason`.
    pub(crate) fn read_report(report: &str) -> Vec<Self> {
        report
            .lines()
            .filter(|line| !line.trim().is_empty())
            .map(|line| {
                let (name, reason) = line.split_once('\t').unwrap_or((line, ""));
                Self::new(name, reason.trim())
            })
            .collect()
    }

    /// Reads the lines `test NAME ... ignored, REASON` of a harness.
    pub(crate) fn read_output(output: &str) -> Vec<Self> {
        output
            .lines()
            .filter_map(|line| line.strip_prefix("test ")?.split_once(" ... ignored"))
            .map(|(name, rest)| {
                let reason = rest.trim_start_matches([',', ' ']);
                let inner = reason
                    .strip_prefix('(')
                    .and_then(|reason| reason.strip_suffix(')'));
                Self::new(name, inner.unwrap_or(reason))
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn adds_up_the_results_of_all_harnesses() {
        let output = "\
running 2 tests
test a ... ok
test result: ok. 2 passed; 0 failed; 0 ignored; 0 measured; 7 filtered out; finished in 0.00s

test result: FAILED. 30 passed; 1 failed; 4 ignored; 5 measured; 0 filtered out; finished in 9.1s
error: test failed, to rerun pass `--lib`
test result: \u{1b}[32mok\u{1b}[m. 1 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out
";
        let tally = Tally::read(output);
        assert_eq!(
            tally,
            Tally {
                passed: 33,
                failed: 1,
                skipped: 5
            }
        );
        assert_eq!(tally.to_string(), "33 passed, 1 failed, 5 skipped");
    }

    #[test]
    fn output_without_results_counts_nothing() {
        assert_eq!(
            Tally::read("the test result: 9 passed; of others"),
            Tally::default()
        );
        assert_eq!(Tally::read(""), Tally::default());
    }

    #[test]
    fn reads_the_report_of_skips() {
        let report = "gpu::energy\tno GPU\n\nnet::io_uring\t not allowed: EPERM \nbare\n";
        assert_eq!(
            Skip::read_report(report),
            [
                Skip::new("gpu::energy", "no GPU"),
                Skip::new("net::io_uring", "not allowed: EPERM"),
                Skip::new("bare", "no reason given"),
            ]
        );
    }

    #[test]
    fn reads_ignored_tests_of_both_harnesses() {
        let output = "\
test plain     ... ignored
test builtin::why ... ignored, needs a GPU
test mimic::why   ... ignored (needs (real) root)
test src/lib.rs - open (line 3) ... ignored
test fine ... ok
";
        assert_eq!(
            Skip::read_output(output),
            [
                Skip::new("plain", "no reason given"),
                Skip::new("builtin::why", "needs a GPU"),
                Skip::new("mimic::why", "needs (real) root"),
                Skip::new("src/lib.rs - open (line 3)", "no reason given"),
            ]
        );
    }
}
