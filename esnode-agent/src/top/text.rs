//! Numbers in few columns.

/// What stands for a value that is not known.
pub(super) const UNKNOWN: &str = "-";

/// A value, or the mark of one that is not known.
pub(super) fn known<T>(value: Option<T>, write: impl FnOnce(T) -> String) -> String {
    value.map_or_else(|| UNKNOWN.to_owned(), write)
}

/// Bytes in at most 5 columns, by powers of 1024: `0`, `512`, `1.5K`, `72.3G`.
#[expect(
    clippy::cast_precision_loss,
    reason = "three digits are shown, of 52 bits that are exact"
)]
pub(super) fn bytes(bytes: u64) -> String {
    scaled(bytes as f64, 1024.0, "K")
}

/// Bytes per second, as [`bytes`].
pub(super) fn rate(bytes_per_second: f64) -> String {
    scaled(bytes_per_second, 1024.0, "K")
}

/// A number with a prefix of its magnitude, in at most 5 columns up to 10^18.
fn scaled(value: f64, step: f64, thousand: &str) -> String {
    let mut value = value;
    for prefix in ["", thousand, "M", "G", "T", "P"] {
        if value < 999.5 || prefix == "P" {
            return if prefix.is_empty() || value >= 99.95 {
                format!("{value:.0}{prefix}")
            } else {
                format!("{value:.1}{prefix}")
            };
        }
        value /= step;
    }
    UNKNOWN.to_owned()
}

/// Percent of one CPU or GPU in at most 5 columns: `0.3`, `99.9`, `1280`.
pub(super) fn percent(percent: f64) -> String {
    if percent < 99.95 {
        format!("{percent:.1}")
    } else {
        format!("{percent:.0}")
    }
}

/// Percent without decimals.
pub(super) fn whole(value: f64) -> String {
    format!("{value:.0}")
}

/// Joules with a prefix of their magnitude: `512`, `1.5k`, `72.3M`.
pub(super) fn joules(joules: f64) -> String {
    scaled(joules, 1000.0, "k")
}

/// Watts in at most 4 columns: `0.3`, `71`, `698`, `5.6k`.
pub(super) fn watts(watts: f64) -> String {
    if watts < 9.95 {
        format!("{watts:.1}")
    } else if watts < 999.5 {
        format!("{watts:.0}")
    } else if watts < 99_950.0 {
        format!("{:.1}k", watts / 1000.0)
    } else {
        format!("{:.0}k", watts / 1000.0)
    }
}

/// A duration by its two largest units: `3d04h`, `5h12m`, `2m07s`, `9s`.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a cast from float saturates, and nothing is negative here"
)]
pub(super) fn duration(seconds: f64) -> String {
    let seconds = seconds.max(0.0) as u64;
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    if days > 0 {
        format!("{days}d{:02}h", hours % 24)
    } else if hours > 0 {
        format!("{hours}h{:02}m", minutes % 60)
    } else if minutes > 0 {
        format!("{minutes}m{:02}s", seconds % 60)
    } else {
        format!("{seconds}s")
    }
}

/// The time of day in UTC, of seconds since 1970.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a cast from float saturates, and nothing is negative here"
)]
pub(super) fn time_of_day(seconds: f64) -> String {
    let seconds = seconds.max(0.0) as u64 % 86_400;
    format!(
        "{:02}:{:02}:{:02}",
        seconds / 3600,
        seconds / 60 % 60,
        seconds % 60
    )
}

/// Indices in few columns, runs as ranges: `0-7`, `0,2,4-5`.
pub(super) fn ranges(indices: impl IntoIterator<Item = u32>) -> String {
    let mut indices: Vec<_> = indices.into_iter().collect();
    indices.sort_unstable();
    indices.dedup();
    let mut runs: Vec<(u32, u32)> = Vec::new();
    for index in indices {
        match runs.last_mut() {
            Some((_, last)) if last.checked_add(1) == Some(index) => *last = index,
            _ => runs.push((index, index)),
        }
    }
    let written = runs.iter().map(|&(first, last)| match last - first {
        0 => first.to_string(),
        1 => format!("{first},{last}"),
        _ => format!("{first}-{last}"),
    });
    written.collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_fit_five_columns() {
        for (value, text) in [
            (0, "0"),
            (999, "999"),
            (1000, "1.0K"),
            (1536, "1.5K"),
            (80 << 30, "80.0G"),
            (141 << 30, "141G"),
            (1000 << 30, "1.0T"),
            (u64::MAX, "16384P"),
        ] {
            assert_eq!(bytes(value), text);
        }
    }

    #[test]
    fn numbers_lose_decimals_as_they_grow() {
        assert_eq!(
            [0.0, 99.94, 99.96, 12800.0].map(percent),
            ["0.0", "99.9", "100", "12800"]
        );
        assert_eq!(
            [0.31, 71.4, 999.6, 123_456.0].map(watts),
            ["0.3", "71", "1.0k", "123k"]
        );
        assert_eq!(
            [9.0, 127.0, 18_720.0, 273_600.0].map(duration),
            ["9s", "2m07s", "5h12m", "3d04h"]
        );
        assert_eq!(time_of_day(1_700_000_000.9), "22:13:20");
    }

    #[test]
    fn indices_are_ranges() {
        assert_eq!(ranges([7, 0, 1, 2, 3, 4, 5, 6]), "0-7");
        assert_eq!(ranges([0, 2, 4, 5, 2]), "0,2,4,5");
        assert_eq!(ranges([]), "");
    }
}
