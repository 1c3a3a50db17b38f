//! Counters that the kernel writes in 32 bits, and that begin anew at their end.

/// How many values 32 bits have.
const CYCLE: u64 = 1 << 32;

/// One such counter, carried on past its end. It has to be looked at before it has gone half way
/// round.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Wrapping {
    last: u64,
    /// What was counted before the last time that it began anew.
    before: u64,
}

impl Wrapping {
    /// Takes what the kernel says now, and gives what it would say if it had room.
    pub(super) fn carry(&mut self, now: u64) -> u64 {
        // What falls by less was not at its end. What is wider than 32 bits has room.
        let fell = self.last.saturating_sub(now);
        if fell > CYCLE / 2 && self.last < CYCLE {
            self.before = self.before.saturating_add(CYCLE);
        }
        self.last = now;
        self.before.saturating_add(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn carried(counts: &[u64]) -> Vec<u64> {
        let mut counter = Wrapping::default();
        counts.iter().map(|now| counter.carry(*now)).collect()
    }

    #[test]
    fn goes_on_past_its_end() {
        assert_eq!(
            carried(&[5, 4_294_967_295, 0, 7, 4_000_000_000, 1]),
            [
                5,
                4_294_967_295,
                4_294_967_296,
                4_294_967_303,
                8_294_967_296,
                8_589_934_593
            ]
        );
    }

    #[test]
    fn what_was_not_at_its_end_begins_anew() {
        assert_eq!(carried(&[2_000_000_000, 3, 4]), [2_000_000_000, 3, 4]);
        assert_eq!(carried(&[1 << 40, 3]), [1 << 40, 3]);
        assert_eq!(carried(&[u64::MAX, 0]), [u64::MAX, 0]);
    }
}
