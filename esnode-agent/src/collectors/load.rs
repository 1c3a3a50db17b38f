//! Load averages, from `/proc/loadavg` (proc_loadavg(5)).

use super::parse_file;
use crate::{
    api::Snapshot,
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
        // What else is a number to Rust, "nan" or "inf", the kernel does not write.
        field
            .filter(|average: &f64| average.is_finite() && *average >= 0.0)
            .ok_or_else(|| ParseError::new(1, "three load averages"))
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

    fn encode_node_exporter(&self, page: &mut Page<'_>) -> fmt::Result {
        let names = ["node_load1", "node_load5", "node_load15"];
        for (name, average) in names.into_iter().zip(self.averages) {
            page.single_gauge(name, "Load average, from /proc/loadavg", Some(average))?;
        }
        Ok(())
    }

    fn describe(&self, snapshot: &mut Snapshot) {
        snapshot.node.cpu_load_avg = Some(self.averages);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collectors::fixture::{node_exporter_samples, samples};

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
            samples(facts),
            [
                "esnode_cpu_load_avg_1m 0.52",
                "esnode_cpu_load_avg_5m 1.25",
                "esnode_cpu_load_avg_15m 12.0",
            ]
        );
        assert_eq!(
            node_exporter_samples(facts),
            ["node_load1 0.52", "node_load5 1.25", "node_load15 12.0"]
        );
    }

    #[test]
    fn says_where_it_breaks() {
        for text in [
            "",
            "0.52 x",
            "0.52 1.25",
            "0.52 1.25 nan",
            "0.52 1.25 inf",
            "0.52 1.25 -1",
            &format!("0.52 1.25 1{}", "0".repeat(400)),
        ] {
            let error = ParseError::new(1, "three load averages");
            assert_eq!(parse(text), Err(error), "{text}");
        }
    }
}
