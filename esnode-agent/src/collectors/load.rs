//! Load averages, from `/proc/loadavg` (proc_loadavg(5)).

use super::parse_file;
use crate::{
    error::{ParseError, ReadError},
    page::{Encode, Page},
};
use std::{fmt, path::PathBuf};

/// Runnable and uninterruptible tasks, averaged over 1, 5 and 15 minutes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LoadFacts {
    /// The three averages.
    pub averages: [f64; 3],
}

/// Reads the file anew in each pass.
pub struct LoadCollector {
    path: PathBuf,
}

impl LoadCollector {
    /// Reads below `procfs`.
    #[must_use]
    pub fn new(procfs: &std::path::Path) -> Self {
        Self {
            path: procfs.join("loadavg"),
        }
    }

    /// Samples once.
    ///
    /// # Errors
    /// If the file can't be read or parsed.
    pub fn sample(&mut self) -> Result<LoadFacts, ReadError> {
        parse_file(&self.path, parse)
    }
}

fn parse(text: &str) -> Result<LoadFacts, ParseError> {
    let mut fields = text.split_ascii_whitespace();
    let mut next = || {
        let field = fields.next().and_then(|field| field.parse().ok());
        field.ok_or_else(|| ParseError::new(1, "three load averages"))
    };
    Ok(LoadFacts {
        averages: [next()?, next()?, next()?],
    })
}

impl Encode for LoadFacts {
    fn encode(&self, page: &mut Page<'_>) -> fmt::Result {
        const NAMES: [(&str, &str); 3] = [
            (
                "esnode_cpu_load_avg_1m",
                "Load average over one minute, from /proc/loadavg",
            ),
            (
                "esnode_cpu_load_avg_5m",
                "Load average over five minutes, from /proc/loadavg",
            ),
            (
                "esnode_cpu_load_avg_15m",
                "Load average over fifteen minutes, from /proc/loadavg",
            ),
        ];
        for ((name, help), average) in NAMES.iter().zip(self.averages) {
            page.single_gauge(name, help, Some(average))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_averages() {
        let facts = parse("0.52 1.25 12.00 3/512 4242\n").expect("valid");
        assert_eq!(
            facts,
            LoadFacts {
                averages: [0.52, 1.25, 12.0]
            }
        );
        assert_eq!(
            parse("0.52 x"),
            Err(ParseError::new(1, "three load averages"))
        );
    }
}
