//! How busy cores are, over the agent's own interval: a number that does not depend on who scrapes
//! when.

use super::{Core, IDLE, IOWAIT, parse};
use crate::collectors::{parse_file, ticker::Tick};
use std::path::{Path, PathBuf};

/// The last whole interval.
pub(super) struct Usage {
    path: PathBuf,
    /// Where the interval that runs began.
    begin: Option<Vec<Core>>,
    /// Percent by core; none before the first interval is over.
    percent: Option<Vec<(String, f64)>>,
}

impl Usage {
    /// Of the cores in this file.
    pub(super) fn new(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            begin: None,
            percent: None,
        }
    }

    /// Percent by core over the last whole interval; before there is one, from its beginning to
    /// `cores`.
    pub(super) fn percent(&self, cores: &[Core]) -> Vec<(String, f64)> {
        let begun = || Some(usage(self.begin.as_ref()?, cores));
        self.percent.clone().or_else(begun).unwrap_or_default()
    }
}

impl Tick for Usage {
    type Reading = Option<Vec<Core>>;

    fn reader(&self) -> Box<dyn FnMut() -> Self::Reading + Send> {
        let path = self.path.clone();
        // Why it fails is told by the next scrape, which reads the same file.
        Box::new(move || parse_file(&path, parse).ok().map(|(cores, _)| cores))
    }

    fn tick(&mut self, now: Self::Reading) {
        let both = self.begin.as_ref().zip(now.as_ref());
        self.percent = both.map(|(begin, now)| usage(begin, now));
        self.begin = now;
    }
}

/// Share of time that each core was busy between two readings; absent where no time passed.
#[expect(
    clippy::cast_precision_loss,
    reason = "differences of ticks are far below 2^52"
)]
fn usage(before: &[Core], after: &[Core]) -> Vec<(String, f64)> {
    let of = |(place, core): (usize, &Core)| {
        // Cores come and go seldom: most are where they were.
        let same = |before: &&Core| before.name == core.name;
        let there = before.get(place).filter(same);
        let before = there.or_else(|| before.iter().find(same))?;
        // Idle and iowait can fall by a little; such a tick counts as none.
        let passed = core.ticks.iter().zip(&before.ticks);
        let passed = passed.map(|(now, then)| now.saturating_sub(*then) as f64);
        let (mut total, mut idle) = (0.0, 0.0);
        for (state, ticks) in passed.enumerate() {
            total += ticks;
            if state == IDLE || state == IOWAIT {
                idle += ticks;
            }
        }
        (total > 0.0).then(|| (core.name.clone(), (total - idle) * 100.0 / total))
    };
    after.iter().enumerate().filter_map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn core(user: u64, idle: u64, iowait: u64) -> Core {
        Core {
            name: "0".to_owned(),
            ticks: [user, 0, 0, idle, iowait, 0, 0, 0],
            guest: None,
        }
    }

    fn percent(percent: f64) -> Vec<(String, f64)> {
        vec![("0".to_owned(), percent)]
    }

    #[test]
    fn usage_is_the_share_that_was_not_idle() {
        let seen = usage(&[core(100, 100, 50)], &[core(125, 160, 65)]);
        assert_eq!(seen, percent(25.0));
        assert!(usage(&[core(1, 1, 1)], &[core(1, 1, 1)]).is_empty());
        assert!(usage(&[], &[core(1, 1, 1)]).is_empty());
        let huge = core(u64::MAX, u64::MAX, 0);
        assert_eq!(usage(&[core(0, 0, 0)], &[huge]), percent(50.0));
    }

    #[test]
    fn a_core_that_went_leaves_the_others_theirs() {
        let named = |name: &str, user, idle| Core {
            name: name.to_owned(),
            ..core(user, idle, 0)
        };
        let before = [named("0", 0, 0), named("1", 10, 10), named("3", 0, 0)];
        let seen = usage(&before, &[named("1", 20, 10), named("3", 1, 3)]);
        assert_eq!(seen, [("1".to_owned(), 100.0), ("3".to_owned(), 25.0)]);
    }

    #[test]
    fn it_is_that_of_the_last_whole_interval() {
        let mut usage = Usage::new(Path::new("/nonexistent"));
        assert!(usage.percent(&[core(30, 70, 0)]).is_empty());
        usage.tick(Some(vec![core(0, 0, 0)]));
        // The first interval still runs.
        assert_eq!(usage.percent(&[core(30, 70, 0)]), percent(30.0));
        usage.tick(Some(vec![core(50, 50, 0)]));
        // Whoever asks now, and later, gets the same.
        assert_eq!(usage.percent(&[core(50, 50, 0)]), percent(50.0));
        assert_eq!(usage.percent(&[core(150, 50, 0)]), percent(50.0));
        usage.tick(Some(vec![core(140, 60, 0)]));
        assert_eq!(usage.percent(&[core(150, 60, 0)]), percent(90.0));
        usage.tick(None);
        assert!(usage.percent(&[core(150, 60, 0)]).is_empty());
    }
}
