//! Counters of a device that never fall, whatever its driver does.

/// How far a counter of the driver counts before it begins anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Width {
    /// To 2^32, at least as far as anyone knows.
    Bits32,
    /// To 2^64: it does not wrap.
    Bits64,
}

/// A number that a driver said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Reading {
    /// The number.
    pub value: u64,
    /// Its type.
    pub width: Width,
    /// What one of it is.
    pub unit: u64,
}

impl Reading {
    /// A number that does not wrap.
    #[must_use]
    pub(super) fn wide(value: u64) -> Self {
        Self {
            value,
            width: Width::Bits64,
            unit: 1,
        }
    }
}

/// A counter that goes on where that of the driver falls: because it wrapped, or because the
/// driver or the device began anew.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counter {
    last: Option<u64>,
    total: u64,
}

impl Counter {
    /// Takes in a reading and gives what came to it. The first reading comes whole: it is what
    /// the device had counted before anyone asked. `restarted` says that the library was opened
    /// again since the last one, so that a lower number is a new beginning and not a wrap.
    pub(super) fn advance(&mut self, reading: Reading, restarted: bool) -> u64 {
        let Reading { value, width, unit } = reading;
        let gain = match self.last.replace(value) {
            Some(last) if value >= last => value - last,
            Some(last) if width == Width::Bits32 && !restarted => wrapped(last, value),
            Some(_) | None => value,
        };
        let gain = gain.saturating_mul(unit);
        self.total += gain;
        gain
    }

    /// Everything that was counted.
    #[must_use]
    pub(super) fn total(&self) -> u64 {
        self.total
    }
}

/// From `last` over 2^32 to `value`. More than half of the range is no wrap, but a counter that
/// was cleared.
fn wrapped(last: u64, value: u64) -> u64 {
    const RANGE: u64 = 1 << 32;
    match (RANGE + value).checked_sub(last) {
        Some(gain) if gain < RANGE / 2 => gain,
        _ => value,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn narrow(value: u64) -> Reading {
        Reading {
            value,
            width: Width::Bits32,
            unit: 1,
        }
    }

    #[test]
    fn goes_on_after_a_restart() {
        let mut counter = Counter::default();
        assert_eq!(counter.advance(Reading::wide(1_000), false), 1_000);
        assert_eq!(counter.advance(Reading::wide(1_500), false), 500);
        assert_eq!(counter.advance(Reading::wide(200), true), 200);
        assert_eq!(counter.total(), 1_700);
    }

    #[test]
    fn wraps_at_32_bits_but_not_when_cleared() {
        let mut counter = Counter::default();
        counter.advance(narrow(0xffff_ff00), false);
        assert_eq!(counter.advance(narrow(0x100), false), 0x200);
        // Cleared, or the driver was loaded again.
        counter.advance(narrow(0x4000_0000), false);
        assert_eq!(counter.advance(narrow(5), false), 5);
        counter.advance(narrow(0xffff_ff00), false);
        assert_eq!(counter.advance(narrow(7), true), 7);
    }

    #[test]
    fn a_counter_beyond_32_bits_does_not_wrap_there() {
        let mut counter = Counter::default();
        counter.advance(narrow(1 << 33), false);
        assert_eq!(counter.advance(narrow((1 << 33) + 7), false), 7);
        assert_eq!(counter.advance(narrow(9), false), 9);
    }

    #[test]
    fn wraps_in_its_own_unit() {
        let kibibytes = |value| Reading {
            unit: 1024,
            ..narrow(value)
        };
        let mut counter = Counter::default();
        counter.advance(kibibytes(u64::from(u32::MAX)), false);
        assert_eq!(counter.advance(kibibytes(1), false), 2 * 1024);
        assert_eq!(counter.total(), ((1 << 32) + 1) * 1024);
    }

    #[test]
    fn a_wide_counter_that_falls_began_anew() {
        let mut counter = Counter::default();
        counter.advance(Reading::wide(u64::from(u32::MAX)), false);
        assert_eq!(counter.advance(Reading::wide(3), false), 3);
    }
}
