//! Cores that the scheduler leaves alone, from `/sys/devices/system/cpu/isolated`
//! (Documentation/admin-guide/cputopology.rst). They are chosen at boot.

use crate::error::ParseError;
use std::ops::RangeInclusive;

/// Ranges of cores.
pub(super) type Isolated = Vec<RangeInclusive<u32>>;

/// A list such as `1-3,8`, or nothing.
pub(super) fn parse(text: &str) -> Result<Isolated, ParseError> {
    let range = |part: &str| {
        let (from, to) = part.split_once('-').unwrap_or((part, part));
        Some(from.parse().ok()?..=to.parse().ok()?)
    };
    let parts = text.trim().split(',').filter(|part| !part.is_empty());
    let ranges: Option<_> = parts.map(range).collect();
    ranges.ok_or_else(|| ParseError::new(1, "a list of cores such as 1-3,8"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_ranges() {
        assert_eq!(parse("1-3,8\n"), Ok(vec![1..=3, 8..=8]));
        assert_eq!(parse("\n"), Ok(Vec::new()));
        for text in ["x", "1-", "1-2-3", "-1", "99999999999"] {
            let error = ParseError::new(1, "a list of cores such as 1-3,8");
            assert_eq!(parse(text), Err(error), "{text}");
        }
    }
}
