//! What values on the command line mean, and what is wrong with them.

use regex::Regex;
use std::{net::SocketAddr, time::Duration};

/// `ADDRESS:PORT`, or `:PORT` for all IPv4 addresses.
pub(super) fn listen_address(text: &str) -> Result<SocketAddr, String> {
    let full = if text.starts_with(':') {
        format!("0.0.0.0{text}")
    } else {
        text.to_owned()
    };
    full.parse()
        .map_err(|_| "expected ADDRESS:PORT, such as 127.0.0.1:9100 or [::]:9100".to_owned())
}

pub(super) fn expression(text: &str) -> Result<Regex, String> {
    // The library draws an arrow below the expression; its last line says it in words.
    Regex::new(text).map_err(|error| {
        error
            .to_string()
            .lines()
            .last()
            .unwrap_or_default()
            .trim()
            .to_owned()
    })
}

/// A duration as people write it: `500ms`, `1s`, `2m`, `1h`.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.len()
        - text
            .trim_start_matches(|char: char| char.is_ascii_digit())
            .len();
    let (number, unit) = text.split_at(digits);
    let milliseconds = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err("expected a duration such as 500ms, 1s or 1h".to_owned()),
    };
    let number: u64 = number
        .parse()
        .map_err(|_| "expected a duration such as 500ms, 1s or 1h".to_owned())?;
    let too_long = || "expected a shorter duration".to_owned();
    let milliseconds = number.checked_mul(milliseconds).ok_or_else(too_long)?;
    Ok(Duration::from_millis(milliseconds))
}

/// A duration from the shortest interval of samples up to `longest`.
fn interval(text: &str, longest: &str) -> Result<Duration, String> {
    let interval = duration(text)?;
    if (Duration::from_millis(100)..=duration(longest)?).contains(&interval) {
        Ok(interval)
    } else {
        Err(format!("expected 100ms to {longest}"))
    }
}

pub(super) fn gpu_interval(text: &str) -> Result<Duration, String> {
    interval(text, "5s")
}

pub(super) fn gpu_slow_interval(text: &str) -> Result<Duration, String> {
    interval(text, "1h")
}

pub(super) fn node_interval(text: &str) -> Result<Duration, String> {
    interval(text, "1m")
}

pub(super) fn at_least_one(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) | Err(_) => Err("expected a whole number from 1 on".to_owned()),
        Ok(number) => Ok(number),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_a_unit() {
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("1s"), Ok(Duration::from_secs(1)));
        assert_eq!(duration("2h"), Ok(Duration::from_hours(2)));
        for text in ["", "1", "s", "1.5s", "-1s", "1 s", "1d"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }
}
