//! Reading a file of each core without paying for all of them in one pass.

use std::time::{Duration, Instant};

/// Rounds over a list: in each pass as many items as time allows, so that neither hundreds of cores
/// nor a driver that is slow to answer hold up a scrape. Only the first round ends in its pass, so
/// that the first page is whole.
pub(super) struct Round {
    /// A round begins no sooner than this after the last began.
    period: Duration,
    /// A pass reads no more once this has gone by; one item at least.
    budget: Duration,
    begun: Option<Instant>,
    /// How many items of this round were read.
    read: usize,
}

impl Round {
    pub(super) fn new(period: Duration, budget: Duration) -> Self {
        Self {
            period,
            budget,
            begun: None,
            read: 0,
        }
    }

    /// Begins anew, in the next pass, for a list that changed.
    pub(super) fn restart(&mut self) {
        self.begun = None;
    }

    /// Reads those whose turn it is. One that fails keeps its turn, so that it fails until it is
    /// mended.
    ///
    /// # Errors
    /// Those of `read`.
    pub(super) fn go<T, E>(
        &mut self,
        items: &mut [T],
        mut read: impl FnMut(&mut T) -> Result<(), E>,
    ) -> Result<(), E> {
        let now = Instant::now();
        let is_first = self.begun.is_none();
        if is_first {
            self.read = 0;
        } else if self.read >= items.len() {
            if self.begun.is_some_and(|begun| now - begun < self.period) {
                return Ok(());
            }
            self.read = 0;
            self.begun = Some(now);
        }
        for item in items.iter_mut().skip(self.read) {
            read(item)?;
            self.read += 1;
            if !is_first && now.elapsed() >= self.budget {
                break;
            }
        }
        self.begun = self.begun.or(Some(now));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEVER: Duration = Duration::MAX;

    /// What a pass over three items reads.
    fn pass(round: &mut Round) -> Vec<u32> {
        let mut read = Vec::new();
        let outcome = round.go(&mut [1, 2, 3], |item| {
            read.push(*item);
            Ok::<(), ()>(())
        });
        assert_eq!(outcome, Ok(()));
        read
    }

    #[test]
    fn each_in_turn_once_the_first_round_is_over() {
        let mut round = Round::new(Duration::ZERO, Duration::ZERO);
        assert_eq!(pass(&mut round), [1, 2, 3]);
        for expected in [1, 2, 3, 1] {
            assert_eq!(pass(&mut round), [expected]);
        }
        round.restart();
        assert_eq!(pass(&mut round), [1, 2, 3]);
    }

    #[test]
    fn all_at_once_if_time_allows() {
        let mut round = Round::new(Duration::ZERO, NEVER);
        assert_eq!(pass(&mut round), [1, 2, 3]);
        assert_eq!(pass(&mut round), [1, 2, 3]);
    }

    #[test]
    fn no_sooner_than_the_period() {
        let mut round = Round::new(NEVER, NEVER);
        assert_eq!(pass(&mut round), [1, 2, 3]);
        assert!(pass(&mut round).is_empty());
    }

    #[test]
    fn one_that_fails_keeps_its_turn() {
        let mut round = Round::new(Duration::ZERO, Duration::ZERO);
        assert_eq!(pass(&mut round), [1, 2, 3]);
        let fail = |item: &mut u32| if *item == 2 { Err(()) } else { Ok(()) };
        let mut items = [1, 2, 3];
        assert_eq!(round.go(&mut items, fail), Ok(()));
        assert_eq!(round.go(&mut items, fail), Err(()));
        assert_eq!(round.go(&mut items, fail), Err(()));
        assert_eq!(pass(&mut round), [2]);
    }
}
