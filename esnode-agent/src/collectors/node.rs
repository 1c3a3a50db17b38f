//! What the node is called, when it started and how many files are open in it, from `/proc/stat`
//! (proc_stat(5)), `/proc/uptime` (proc_uptime(5)), `/proc/sys/kernel/`, `/proc/sys/fs/file-nr`
//! (proc_sys_kernel(5), proc_sys_fs(5)) and os-release(5), and how well its clock is kept.

mod clock;
mod node_exporter;
mod os;

use super::{next_number, parse_file, parse_optional};
use crate::{
    api::Snapshot,
    error::{ParseError, ReadError, read_file},
    page::{Encode, Page},
};
use clock::Clock;
use os::OsRelease;
use rustix::time::{ClockId, clock_gettime};
use std::{
    fmt, fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

/// How often names are read that change with an upgrade, if at all.
const LOOK: Duration = Duration::from_mins(1);

/// By how many seconds the two clocks may drift apart until it is believed that one was set: they are
/// read one after the other.
const CLOCK_WAS_SET: f64 = 0.1;

/// Names of the node that seldom change; empty is unknown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Names {
    kernel: String,
    /// How that was built.
    version: String,
    machine: String,
    /// Of NIS.
    domain: String,
    os: Option<OsRelease>,
    /// The host's, where the kernel would say the container's.
    host: Option<String>,
}

/// Open files of all processes, files that are mapped or passed on included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Files {
    open: u64,
    limit: u64,
}

/// Names and times of the node.
#[derive(Clone, Debug)]
pub struct NodeFacts {
    names: Arc<Names>,
    hostname: String,
    /// In seconds since 1970.
    boot_time: u64,
    /// In seconds.
    uptime: Option<f64>,
    time: SystemTime,
    clock: Option<Clock>,
    files: Option<Files>,
}

/// Reads what may change anew in each pass.
pub struct NodeCollector {
    procfs: PathBuf,
    /// The hardware that the kernel is made for, if the kernel doesn't say.
    machine: String,
    names: Arc<Names>,
    looked: Option<Instant>,
    /// What the clock was when it booted, in seconds, and the boot time that was read then.
    booted: Option<(f64, u64)>,
}

impl NodeCollector {
    /// Reads below `procfs`; `machine` is the hardware that the kernel is made for, which it says
    /// itself from Linux 6.1 on.
    #[must_use]
    pub fn new(procfs: &Path, machine: String) -> Self {
        Self {
            procfs: procfs.to_owned(),
            machine,
            names: Arc::default(),
            looked: None,
            booted: None,
        }
    }

    /// Samples once.
    ///
    /// # Errors
    /// If a file can't be read or parsed.
    pub fn sample(&mut self) -> Result<NodeFacts, ReadError> {
        if self.looked.is_none_or(|looked| looked.elapsed() >= LOOK) {
            self.names = Arc::new(self.look());
            self.looked = Some(Instant::now());
        }
        let uptime = parse_optional(&self.procfs.join("uptime"), parse_uptime)?;
        let time = SystemTime::now();
        Ok(NodeFacts {
            names: Arc::clone(&self.names),
            hostname: self.hostname()?,
            boot_time: self.boot_time(begin(time))?,
            uptime,
            time,
            clock: Clock::read(),
            files: parse_optional(&self.procfs.join("sys/fs/file-nr"), parse_files)?,
        })
    }

    fn hostname(&self) -> Result<String, ReadError> {
        if let Some(host) = &self.names.host {
            return Ok(host.clone());
        }
        let file = self.procfs.join("sys/kernel/hostname");
        let name = parse_optional(&file, |text| Ok(text.trim_end().to_owned()))?;
        Ok(name.unwrap_or_default())
    }

    fn look(&self) -> Names {
        let of = |name: &str| {
            let file = self.procfs.join("sys/kernel").join(name);
            read_file(&file).ok().map(|text| text.trim_end().to_owned())
        };
        Names {
            kernel: of("osrelease").unwrap_or_default(),
            version: of("version").unwrap_or_default(),
            machine: of("arch").unwrap_or_else(|| self.machine.clone()),
            domain: of("domainname").unwrap_or_default(),
            os: OsRelease::read(&self.procfs),
            host: self.name_of_the_host(),
        }
    }

    /// The name in hostname(5) of process 1, where the kernel's is that of a container: if process 1
    /// is in another UTS namespace. Empty if it can't be read there.
    fn name_of_the_host(&self) -> Option<String> {
        let namespace = |process: &str| fs::read_link(self.procfs.join(process).join("ns/uts"));
        let (own, host) = (namespace("self").ok()?, namespace("1").ok()?);
        if own == host {
            return None;
        }
        let text = read_file(&self.procfs.join("1/root/etc/hostname")).unwrap_or_default();
        let mut lines = text.lines().map(str::trim);
        let name = lines.find(|line| !line.is_empty() && !line.starts_with('#'));
        Some(name.unwrap_or_default().to_owned())
    }

    /// `/proc/stat` costs more than all the rest where there are many cores and interrupts: it is
    /// read only when the clock was set, which alone changes when the kernel booted by that clock.
    fn boot_time(&mut self, begin: Option<f64>) -> Result<u64, ReadError> {
        if let Some(((then, boot_time), now)) = self.booted.zip(begin)
            && (now - then).abs() < CLOCK_WAS_SET
        {
            return Ok(boot_time);
        }
        let boot_time = parse_file(&self.procfs.join("stat"), parse_boot_time)?;
        self.booted = begin.map(|begin| (begin, boot_time));
        Ok(boot_time)
    }
}

/// When the clock that runs since boot began, by the clock of the node.
fn begin(time: SystemTime) -> Option<f64> {
    let since_boot = Duration::try_from(clock_gettime(ClockId::Boottime)).ok()?;
    Some(seconds(time)? - since_boot.as_secs_f64())
}

/// In seconds since 1970; a clock before that was never set.
fn seconds(time: SystemTime) -> Option<f64> {
    let time = time.duration_since(UNIX_EPOCH).ok()?;
    Some(time.as_secs_f64())
}

fn parse_uptime(text: &str) -> Result<f64, ParseError> {
    let uptime = text.split_ascii_whitespace().next();
    let uptime = uptime.and_then(|field| field.parse().ok());
    uptime
        .filter(|seconds: &f64| seconds.is_finite() && *seconds >= 0.0)
        .ok_or_else(|| ParseError::new(1, "seconds since the kernel booted"))
}

fn parse_files(text: &str) -> Result<Files, ParseError> {
    let mut fields = text.split_ascii_whitespace();
    let mut next = |what| next_number(&mut fields, 1, what);
    let open = next("a number of open files")?;
    // Since Linux 2.6 always 0.
    next("a number of files that are not in use")?;
    Ok(Files {
        open,
        limit: next("the limit of open files")?,
    })
}

/// When the kernel booted, in seconds since 1970: `btime` of `/proc/stat`.
///
/// # Errors
/// If it is no whole number, or not there, as it is in each kernel.
pub fn parse_boot_time(text: &str) -> Result<u64, ParseError> {
    for (number, line) in (1..).zip(text.lines()) {
        if let Some(seconds) = line.strip_prefix("btime ") {
            let seconds = seconds.trim().parse();
            return seconds.map_err(|_| ParseError::new(number, "seconds since 1970"));
        }
    }
    Err(ParseError::new(0, "a line btime"))
}

impl Encode for NodeFacts {
    fn encode(&self, page: &mut Page<'_>) -> fmt::Result {
        let names = &self.names;
        let os = names.os.as_ref().map(|os| os.get("pretty_name"));
        let labels = [
            ("kernel", names.kernel.as_str()),
            ("os", os.unwrap_or_default()),
            ("machine", &names.machine),
            ("hostname", &self.hostname),
        ];
        page.gauge(
            "esnode_node_info",
            "The node, from /proc/sys/kernel, os-release and uname(2); empty is unknown",
            [(labels, 1_u32)],
        )?;
        page.single_gauge(
            "esnode_node_boot_time_seconds",
            "When the kernel booted, in seconds since 1970, btime of /proc/stat",
            Some(self.boot_time),
        )?;
        page.single_gauge(
            "esnode_node_uptime_seconds",
            "Time since the kernel booted, suspension included, from /proc/uptime",
            self.uptime,
        )?;
        page.single_gauge(
            "esnode_node_time_seconds",
            "The clock of the node when it was sampled, in seconds since 1970",
            seconds(self.time),
        )?;
        if let Some(clock) = &self.clock {
            clock.encode(page)?;
        }
        page.single_gauge(
            "esnode_node_open_files",
            "Open files of all processes and of the kernel, from /proc/sys/fs/file-nr",
            self.files.map(|files| files.open),
        )?;
        page.single_gauge(
            "esnode_node_open_files_limit",
            "Files that all processes can have open together, from /proc/sys/fs/file-nr",
            self.files.map(|files| files.limit),
        )
    }

    fn encode_node_exporter(&self, page: &mut Page<'_>) -> fmt::Result {
        self.encode_by_node_exporter(page)?;
        match &self.clock {
            Some(clock) => clock.encode_node_exporter(page),
            None => Ok(()),
        }
    }

    fn describe(&self, snapshot: &mut Snapshot) {
        snapshot.node.hostname.clone_from(&self.hostname);
        snapshot.node.uptime_seconds = self.uptime;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collectors::fixture::{Host, samples};

    #[test]
    fn boot_time() {
        assert_eq!(
            parse_boot_time("cpu 1\nbtime 1795435140\n"),
            Ok(1_795_435_140)
        );
        let lost = Err(ParseError::new(0, "a line btime"));
        assert_eq!(parse_boot_time("cpu 1\n"), lost);
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
    fn uptime_and_open_files() {
        assert_eq!(parse_uptime("992.73 1526.04\n"), Ok(992.73));
        for text in ["", "x 1", "-1 1", "inf 1", "nan", &"9".repeat(400)] {
            let error = ParseError::new(1, "seconds since the kernel booted");
            assert_eq!(parse_uptime(text), Err(error), "{text}");
        }
        let files = Files {
            open: 313,
            limit: u64::MAX,
        };
        assert_eq!(parse_files("313\t0\t18446744073709551615\n"), Ok(files));
        for (text, expected) in [
            ("", "a number of open files"),
            ("-1 0 5", "a number of open files"),
            ("1", "a number of files that are not in use"),
            ("1 0", "the limit of open files"),
            ("1 0 18446744073709551616", "the limit of open files"),
        ] {
            assert_eq!(
                parse_files(text),
                Err(ParseError::new(1, expected)),
                "{text}"
            );
        }
    }

    #[test]
    fn a_clock_that_was_set_changes_when_it_booted() {
        let host = Host::new(&[("proc/stat", "btime 100\n")]);
        let mut collector = NodeCollector::new(&host.procfs(), String::new());
        let mut at = |begin| collector.boot_time(begin).expect("readable");
        assert_eq!(at(Some(100.25)), 100);
        // As long as it was not set, the file is not read.
        host.write("proc/stat", "btime 200\n");
        assert_eq!(at(Some(100.3)), 100);
        assert_eq!(at(Some(200.25)), 200);
        // Where that is not known, it is.
        host.write("proc/stat", "btime 300\n");
        assert_eq!(at(None), 300);
        assert_eq!(at(Some(200.25)), 300);
    }

    #[test]
    fn the_clocks_do_not_drift() {
        let begins = [begin(SystemTime::now()), begin(SystemTime::now())];
        let [before, after] = begins.map(|begin| begin.expect("a clock that was set"));
        assert!((after - before).abs() < 1.0, "{before} {after}");
    }

    #[test]
    fn what_is_unknown_is_empty_or_absent() {
        let facts = NodeFacts {
            names: Arc::new(Names {
                kernel: "6.1.0".to_owned(),
                ..Names::default()
            }),
            hostname: String::new(),
            boot_time: 100,
            uptime: None,
            time: UNIX_EPOCH + Duration::from_millis(1500),
            clock: None,
            files: None,
        };
        assert_eq!(
            samples(facts),
            [
                r#"esnode_node_info{kernel="6.1.0",os="",machine="",hostname=""} 1"#,
                "esnode_node_boot_time_seconds 100",
                "esnode_node_time_seconds 1.5",
            ]
        );
    }

    #[test]
    fn the_kernel_knows_the_machine_best() {
        let host = Host::new(&[
            ("proc/stat", "btime 100\n"),
            ("proc/uptime", "7.50 3.00\n"),
            ("proc/sys/fs/file-nr", "1\t0\t2\n"),
            ("proc/sys/kernel/hostname", "a\n"),
        ]);
        let page = || {
            let facts = NodeCollector::new(&host.procfs(), "m68k".to_owned()).sample();
            let mut lines = samples(facts.expect("readable"));
            let of_the_machine = ["esnode_node_time_seconds ", "esnode_node_clock_"];
            lines.retain(|line| !of_the_machine.iter().any(|start| line.starts_with(start)));
            lines
        };
        assert_eq!(
            page(),
            [
                r#"esnode_node_info{kernel="",os="",machine="m68k",hostname="a"} 1"#,
                "esnode_node_boot_time_seconds 100",
                "esnode_node_uptime_seconds 7.5",
                "esnode_node_open_files 1",
                "esnode_node_open_files_limit 2",
            ]
        );
        host.write("proc/sys/kernel/arch", "aarch64\n");
        let info = r#"esnode_node_info{kernel="",os="",machine="aarch64",hostname="a"} 1"#;
        assert_eq!(page().first().map(String::as_str), Some(info));
    }

    #[test]
    fn a_container_has_the_name_of_its_host() {
        let host = Host::new(&[
            ("proc/stat", "btime 100\n"),
            ("proc/sys/kernel/hostname", "813ed56e90f0\n"),
            ("proc/1/root/etc/hostname", "# by hand\ngpu-node-07\n"),
        ]);
        let name = || {
            let facts = NodeCollector::new(&host.procfs(), String::new()).sample();
            facts.expect("readable").hostname
        };
        // Nobody says in which namespace who is.
        assert_eq!(name(), "813ed56e90f0");
        host.link("proc/self/ns/uts", "uts:[1]");
        host.link("proc/1/ns/uts", "uts:[2]");
        assert_eq!(name(), "gpu-node-07");
        host.remove("proc/1/root");
        assert_eq!(name(), "");
        host.remove("proc/1/ns");
        host.link("proc/1/ns/uts", "uts:[1]");
        assert_eq!(name(), "813ed56e90f0");
    }

    #[test]
    fn a_host_without_its_files_fails() {
        let mut collector = NodeCollector::new(Path::new("/nonexistent"), "m68k".to_owned());
        assert!(collector.sample().is_err());
    }
}
