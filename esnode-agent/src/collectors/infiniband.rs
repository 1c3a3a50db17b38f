//! InfiniBand, RoCE and Omni-Path ports, from `/sys/class/infiniband/`
//! (Documentation/ABI/stable/sysfs-class-infiniband). What processes move by RDMA does not
//! pass through the kernel, and is in no other count.

mod families;
#[cfg(test)]
mod fixtures;
mod node_exporter;
mod port;

use super::CollectError;
use crate::page::{Encode, Names, Page};
use port::{Device, Known, ports};
use std::{
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

/// New devices and files are looked for this often.
const LOOK: Duration = Duration::from_mins(1);

/// One port. Data is counted in units of the device.
#[derive(Clone, Debug, PartialEq)]
struct Port {
    device: Arc<Device>,
    number: Arc<str>,
    state: u64,
    /// Only for node_exporter.
    physical_state: Option<u64>,
    /// Bytes per second.
    rate: Option<f64>,
    /// By the names of their files.
    counts: Vec<(&'static str, u64)>,
}

/// The ports of all devices.
#[derive(Clone, Debug)]
pub struct InfinibandFacts {
    ports: Vec<Port>,
}

/// Reads the counters anew in each pass. Some drivers ask their firmware for each of them, so only
/// what is shown is read.
pub struct InfinibandCollector {
    class: PathBuf,
    names: Names,
    known: Vec<Known>,
    looked: Option<Instant>,
}

impl InfinibandCollector {
    /// Reads below `sysfs` what families of these names need.
    #[must_use]
    pub fn new(sysfs: &Path, names: Names) -> Self {
        Self {
            class: sysfs.join("class/infiniband"),
            names,
            known: Vec::new(),
            looked: None,
        }
    }

    /// Samples once.
    ///
    /// # Errors
    /// If a file can't be read or parsed; [`CollectError::Off`] if there are no ports.
    pub fn sample(&mut self) -> Result<InfinibandFacts, CollectError> {
        if self.looked.is_none_or(|looked| looked.elapsed() >= LOOK) {
            self.known = ports(&self.class, self.names)?;
            self.looked = Some(Instant::now());
        }
        let mut found = Vec::with_capacity(self.known.len());
        for known in &self.known {
            found.extend(known.read()?);
        }
        if found.len() < self.known.len() || found.is_empty() {
            // Something went away: perhaps it is back next time.
            self.looked = None;
        }
        if found.is_empty() {
            let reason = "no InfiniBand or RoCE port (/sys/class/infiniband)";
            return Err(CollectError::Off(reason.to_owned()));
        }
        Ok(InfinibandFacts { ports: found })
    }
}

impl Port {
    fn count(&self, file: &str) -> Option<u64> {
        let mut counts = self.counts.iter();
        let (_, count) = counts.find(|(name, _)| *name == file)?;
        Some(count.saturating_mul(self.device.unit(file)))
    }

    /// What these files count together; `None` if none is there.
    fn sum(&self, files: &[&str]) -> Option<u64> {
        let counts = files.iter().filter_map(|file| self.count(file));
        counts.reduce(u64::saturating_add)
    }

    fn labels(&self) -> [(&'static str, &str); 2] {
        [("device", &self.device.name), ("port", &self.number)]
    }

    fn with_kind(&self, kind: &'static str) -> [(&'static str, &str); 3] {
        let [device, port] = self.labels();
        [device, port, ("kind", kind)]
    }
}

impl Encode for InfinibandFacts {
    fn encode(&self, page: &mut Page<'_>) -> fmt::Result {
        families::encode(&self.ports, page)
    }

    fn encode_node_exporter(&self, page: &mut Page<'_>) -> fmt::Result {
        node_exporter::encode(&self.ports, page)
    }
}

#[cfg(test)]
mod tests {
    use super::{fixtures::host, *};

    #[test]
    fn devices_come_and_go() {
        let host = host(&["mlx5_0"]);
        let mut collector = InfinibandCollector::new(&host.sysfs(), Names::Own);
        let ports = |outcome: Result<InfinibandFacts, CollectError>| {
            outcome.map(|facts| facts.ports.len()).unwrap_or_default()
        };
        assert_eq!(ports(collector.sample()), 1);
        host.write("sys/class/infiniband/mlx5_1/ports/1/state", "4: ACTIVE\n");
        assert_eq!(ports(collector.sample()), 1);
        host.remove("sys/class/infiniband/mlx5_0");
        assert!(matches!(collector.sample(), Err(CollectError::Off(_))));
        assert_eq!(ports(collector.sample()), 1);
    }

    #[test]
    fn an_error_names_the_file() {
        let host = host(&["mlx5_0"]);
        for (file, text, expected) in [
            ("state", "ACTIVE\n", "a state such as 4: ACTIVE"),
            ("rate", "fast\n", "a rate such as 100 Gb/sec"),
            ("counters/link_downed", "-1\n", "a count of units of 1"),
            (
                "counters/port_rcv_data",
                "4611686018427387904\n",
                "a count of units of 4",
            ),
        ] {
            let path = format!("sys/class/infiniband/mlx5_0/ports/1/{file}");
            host.write(&path, text);
            let mut collector = InfinibandCollector::new(&host.sysfs(), Names::Own);
            let error = collector.sample().expect_err(text).to_string();
            let end = format!("{path}, line 1: expected {expected}");
            assert!(error.ends_with(&end), "{error}");
            let fine = if file == "rate" {
                "1 Gb/sec\n"
            } else {
                "1: X\n"
            };
            host.write(&path, if file.contains('/') { "1\n" } else { fine });
        }
    }

    #[test]
    fn a_host_without_is_no_failure() {
        let mut collector = InfinibandCollector::new(Path::new("/nonexistent"), Names::Own);
        assert!(matches!(collector.sample(), Err(CollectError::Off(_))));
    }
}
