//! What the node is called and when it started, from `/proc/stat` (proc_stat(5)),
//! `/proc/sys/kernel/` (proc_sys_kernel(5)) and os-release(5).

use super::{parse_file, parse_optional};
use crate::{
    error::{ParseError, ReadError, read_file},
    page::{Encode, Page},
};
use std::{
    fmt,
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

/// Names of the node; empty is unknown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Names {
    kernel: String,
    os: String,
    machine: String,
    hostname: String,
}

/// Names and times of the node.
#[derive(Clone, Debug)]
pub struct NodeFacts {
    names: Names,
    /// In seconds since 1970.
    boot_time: Option<u64>,
    time: SystemTime,
}

/// Reads what may change anew in each pass.
pub struct NodeCollector {
    stat: PathBuf,
    hostname: PathBuf,
    names: Names,
}

impl NodeCollector {
    /// Reads below `procfs`; `machine` is the hardware that the kernel is made for.
    #[must_use]
    pub fn new(procfs: &Path, machine: String) -> Self {
        let kernel = procfs.join("sys/kernel");
        Self {
            stat: procfs.join("stat"),
            hostname: kernel.join("hostname"),
            names: Names {
                kernel: read_file(&kernel.join("osrelease"))
                    .map(|release| release.trim_end().to_owned())
                    .unwrap_or_default(),
                os: os(procfs).unwrap_or_default(),
                machine,
                hostname: String::new(),
            },
        }
    }

    /// Samples once.
    ///
    /// # Errors
    /// If a file can't be read or parsed.
    pub fn sample(&mut self) -> Result<NodeFacts, ReadError> {
        let hostname = parse_optional(&self.hostname, |text| Ok(text.trim_end().to_owned()))?;
        Ok(NodeFacts {
            names: Names {
                hostname: hostname.unwrap_or_default(),
                ..self.names.clone()
            },
            boot_time: parse_file(&self.stat, parse_boot_time)?,
            time: SystemTime::now(),
        })
    }
}

/// The operating system of process 1, which is the host's if the agent is in a container with the
/// host's processes; where that may not be looked at, the agent's own.
fn os(procfs: &Path) -> Option<String> {
    let roots = ["1/root", "self/root"].map(|root| procfs.join(root));
    let files = roots
        .iter()
        .flat_map(|root| ["etc/os-release", "usr/lib/os-release"].map(|file| root.join(file)));
    files
        .filter_map(|file| read_file(&file).ok())
        .find_map(|text| parse_os(&text))
}

/// `PRETTY_NAME`, a shell assignment that may be quoted.
fn parse_os(text: &str) -> Option<String> {
    let mut lines = text.lines();
    let value = lines.find_map(|line| line.trim().strip_prefix("PRETTY_NAME="))?;
    let quoted = ['"', '\'']
        .into_iter()
        .find_map(|quote| value.strip_prefix(quote)?.strip_suffix(quote));
    let mut name = String::new();
    let mut characters = quoted.unwrap_or(value).chars();
    while let Some(character) = characters.next() {
        match character {
            '\\' => name.extend(characters.next()),
            _ => name.push(character),
        }
    }
    Some(name)
}

/// When the kernel booted, in seconds since 1970: `btime` of `/proc/stat`.
///
/// # Errors
/// If it is no whole number.
pub fn parse_boot_time(text: &str) -> Result<Option<u64>, ParseError> {
    for (number, line) in (1..).zip(text.lines()) {
        if let Some(seconds) = line.strip_prefix("btime ") {
            let seconds = seconds.trim().parse();
            let seconds = seconds.map_err(|_| ParseError::new(number, "seconds since 1970"))?;
            return Ok(Some(seconds));
        }
    }
    Ok(None)
}

impl Encode for NodeFacts {
    fn encode(&self, page: &mut Page<'_>) -> fmt::Result {
        let Names {
            kernel,
            os,
            machine,
            hostname,
        } = &self.names;
        let labels = [
            ("kernel", kernel.as_str()),
            ("os", os),
            ("machine", machine),
            ("hostname", hostname),
        ];
        page.gauge(
            "esnode_node_info",
            "The node, from /proc/sys/kernel, os-release and uname(2); empty is unknown",
            [(labels, 1_u32)],
        )?;
        page.single_gauge(
            "esnode_node_boot_time_seconds",
            "When the kernel booted, in seconds since 1970, btime of /proc/stat",
            self.boot_time,
        )?;
        page.single_gauge(
            "esnode_node_time_seconds",
            "The clock of the node when it was sampled, in seconds since 1970",
            // A clock before 1970 was never set.
            self.time
                .duration_since(UNIX_EPOCH)
                .ok()
                .map(|time| time.as_secs_f64()),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collectors::fixture::samples;
    use std::time::Duration;

    #[test]
    fn boot_time() {
        assert_eq!(
            parse_boot_time("cpu 1\nbtime 1795435140\n"),
            Ok(Some(1_795_435_140))
        );
        assert_eq!(parse_boot_time("cpu 1\n"), Ok(None));
        for line in [
            "btime ",
            "btime -1",
            "btime 1 2",
            "btime 99999999999999999999",
        ] {
            let error = ParseError::new(2, "seconds since 1970");
            assert_eq!(
                parse_boot_time(&format!("cpu 1\n{line}\n")),
                Err(error),
                "{line}"
            );
        }
    }

    #[test]
    fn names_of_systems() {
        for (text, name) in [
            (
                "NAME=x\nPRETTY_NAME=\"Debian GNU/Linux 13 (trixie)\"\n",
                "Debian GNU/Linux 13 (trixie)",
            ),
            ("PRETTY_NAME='A B'\n", "A B"),
            ("PRETTY_NAME=Plain\n", "Plain"),
            (r#"PRETTY_NAME="a \"b\" \\ \$c""#, r#"a "b" \ $c"#),
            ("PRETTY_NAME=\"half", "\"half"),
            ("PRETTY_NAME=\\", ""),
            ("PRETTY_NAME=", ""),
        ] {
            assert_eq!(parse_os(text).as_deref(), Some(name), "{text}");
        }
        assert_eq!(parse_os("NAME=x\n"), None);
    }

    #[test]
    fn what_is_unknown_is_empty_or_absent() {
        let facts = NodeFacts {
            names: Names {
                kernel: "6.1.0".to_owned(),
                ..Names::default()
            },
            boot_time: None,
            time: UNIX_EPOCH + Duration::from_millis(1500),
        };
        assert_eq!(
            samples(facts),
            [
                r#"esnode_node_info{kernel="6.1.0",os="",machine="",hostname=""} 1"#,
                "esnode_node_time_seconds 1.5",
            ]
        );
    }

    #[test]
    fn a_host_without_its_files_fails() {
        let mut collector = NodeCollector::new(Path::new("/nonexistent"), "m68k".to_owned());
        assert!(collector.sample().is_err());
    }
}
