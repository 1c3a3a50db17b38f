//! The command line. Every flag is an environment variable as well.

use crate::{
    bpf,
    collectors::{CollectorName, disk, filesystem, filter::DeviceFilter, network},
    gpu::{Intervals, filter::Wanted},
    ladder::Rung,
    page::Names,
    version,
};
use clap::{Args, Parser, Subcommand, ValueEnum, builder::FalseyValueParser};
use regex::{Regex, RegexSet};
use std::{net::SocketAddr, path::PathBuf, time::Duration};

/// Which process used what on this node: CPU, memory, disk and network bytes, on one page for
/// Prometheus.
///
/// Reads the kernel by BPF where it may (as root, or with CAP_BPF, CAP_PERFMON and
/// CAP_SYS_PTRACE) and /proc where it may not. `esnode_attribution_source` on the page tells
/// what is read from where.
#[derive(Debug, Parser)]
#[command(
    name = "esnode-core",
    version = version::line(),
    max_term_width = 100,
    args_conflicts_with_subcommands = true
)]
pub struct Cli {
    /// What to do instead of serving.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// How to serve.
    #[command(flatten)]
    pub agent: AgentOptions,
}

/// What to do instead of serving.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Tell what can be measured on this host, what cannot, why, and what to do about it
    ///
    /// Exit code 0: everything is read from its best source. 3: something is not known, or
    /// known less well than it could be.
    Check(CheckOptions),
}

/// Flags of `check`.
#[derive(Args, Debug)]
pub struct CheckOptions {
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// Where to read.
    #[command(flatten)]
    pub sources: Sources,
    /// How to sample GPUs.
    #[command(flatten)]
    pub gpu: GpuFlags,
    /// What to log.
    #[command(flatten)]
    pub log: LogOptions,
}

/// Flags of the agent.
#[derive(Args, Debug)]
pub struct AgentOptions {
    /// What to serve.
    #[command(flatten)]
    pub serving: Serving,
    /// Where to read.
    #[command(flatten)]
    pub sources: Sources,
    /// How to sample GPUs.
    #[command(flatten)]
    pub gpu: GpuFlags,
    /// What to show.
    #[command(flatten)]
    pub page: PageOptions,
    /// What to log.
    #[command(flatten)]
    pub log: LogOptions,
}

/// Flags on serving.
#[derive(Args, Debug)]
#[command(next_help_heading = "Serving")]
pub struct Serving {
    /// Address and port to serve on; repeat the flag, or separate by commas, for more. Port 0
    /// takes a free one, named in the log
    #[arg(
        long,
        env = "ESNODE_LISTEN_ADDRESS",
        value_name = "ADDRESS:PORT",
        default_value = "0.0.0.0:9100",
        value_delimiter = ',',
        value_parser = listen_address
    )]
    pub listen_address: Vec<SocketAddr>,
}

/// Where sysfs is if nobody says otherwise.
pub const DEFAULT_SYSFS: &str = "/sys";

/// Flags on sources.
#[derive(Args, Debug)]
#[command(next_help_heading = "Sources")]
pub struct Sources {
    /// Where proc is mounted; in a container, perhaps the host's
    #[arg(
        long,
        env = "ESNODE_PROCFS",
        value_name = "DIRECTORY",
        default_value = "/proc"
    )]
    pub procfs: PathBuf,

    /// Where sysfs is mounted
    #[arg(
        long,
        env = "ESNODE_SYSFS",
        value_name = "DIRECTORY",
        default_value = DEFAULT_SYSFS
    )]
    pub sysfs: PathBuf,

    /// Load no BPF programs: processes come from /proc, their ends from taskstats, and network bytes
    /// from sock_diag, which knows TCP only
    #[arg(long, env = "ESNODE_NO_BPF", value_parser = FalseyValueParser::new())]
    pub no_bpf: bool,

    /// Run only these collectors (repeat, or separate by commas)
    #[arg(
        long,
        env = "ESNODE_COLLECTORS",
        value_name = "NAME",
        value_delimiter = ',',
        default_values_t = CollectorName::value_variants().to_vec(),
        hide_default_value = true
    )]
    pub collectors: Vec<CollectorName>,

    /// Do not run this collector (repeat, or separate by commas)
    #[arg(
        long,
        env = "ESNODE_DISABLE_COLLECTOR",
        value_name = "NAME",
        value_delimiter = ','
    )]
    pub disable_collector: Vec<CollectorName>,

    /// Read the usage of CPUs, and power meters, this often, whether anyone scrapes or not: 100ms
    /// to 1m
    #[arg(long, env = "ESNODE_NODE_INTERVAL", value_name = "DURATION", default_value = "5s",
        value_parser = node_interval)]
    pub node_interval: Duration,

    /// Entries of the BPF map of threads: those that use the network, those that exec'ed, and
    /// those that end. Memory is used as entries are; beyond, traffic is unattributed
    #[arg(long, env = "ESNODE_BPF_THREADS", value_name = "N", default_value_t = 65_536,
        value_parser = clap::value_parser!(u32).range(1..))]
    pub bpf_threads: u32,

    /// Entries of the BPF map of processes that lost a thread which had used the network
    #[arg(long, env = "ESNODE_BPF_PROCESSES", value_name = "N", default_value_t = 32_768,
        value_parser = clap::value_parser!(u32).range(1..))]
    pub bpf_processes: u32,

    /// Entries of the BPF map of command names since start; beyond, what processes of new names
    /// use is unattributed
    #[arg(long, env = "ESNODE_BPF_GROUPS", value_name = "N", default_value_t = 8_192,
        value_parser = clap::value_parser!(u32).range(1..))]
    pub bpf_groups: u32,

    /// Entries of the BPF map of TCP sockets, used where splice(2) out of them can only be told by
    /// the place in the stream; beyond, splices are not counted
    #[arg(long, env = "ESNODE_BPF_SOCKETS", value_name = "N", default_value_t = 65_536,
        value_parser = clap::value_parser!(u32).range(1..))]
    pub bpf_sockets: u32,

    /// Measure how long block devices take for the requests of each process and group, in
    /// histograms: two more BPF programs per request
    #[arg(long, env = "ESNODE_DISK_LATENCY", value_parser = FalseyValueParser::new())]
    pub disk_latency: bool,

    /// Attach an empty program beside each of ours: with kernel.bpf_stats_enabled=1, the page
    /// then tells what counting costs above calling any program
    #[arg(long, env = "ESNODE_BPF_BASELINE", value_parser = FalseyValueParser::new())]
    pub bpf_baseline: bool,

    /// Do as if these rungs of the attribution ladder were refused; for tests
    #[arg(
        long,
        env = "ESNODE_WITHOUT",
        value_name = "RUNG",
        value_delimiter = ',',
        hide = true
    )]
    pub without: Vec<Rung>,

    /// Do as if the kernel refused to attach to these tracepoints and functions; for tests
    #[arg(
        long,
        env = "ESNODE_REFUSE_HOOK",
        value_name = "NAME",
        value_delimiter = ',',
        hide = true
    )]
    pub refuse_hook: Vec<String>,

    /// Which devices are shown.
    #[command(flatten)]
    pub devices: DeviceFlags,
}

impl Sources {
    /// The collectors that are to run.
    #[must_use]
    pub fn enabled(&self) -> Vec<CollectorName> {
        let wanted = |name: &&CollectorName| {
            self.collectors.contains(name) && !self.disable_collector.contains(name)
        };
        CollectorName::value_variants()
            .iter()
            .filter(wanted)
            .copied()
            .collect()
    }

    /// How to load BPF.
    #[must_use]
    pub fn bpf(&self) -> bpf::Options {
        bpf::Options {
            threads: self.bpf_threads,
            processes: self.bpf_processes,
            groups: self.bpf_groups,
            sockets: self.bpf_sockets,
            baseline: self.bpf_baseline,
            disk_latency: self.disk_latency,
            without: self.without.clone(),
            refuse_hooks: self.refuse_hook.clone(),
        }
    }
}

/// Flags on the devices of the node.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Devices")]
pub struct DeviceFlags {
    /// Do not show block devices whose name matches this regular expression; an empty one shows
    /// all. Otherwise it is memory, loops, floppy disks and partitions that are not shown
    #[arg(long, env = "ESNODE_DISK_DEVICE_EXCLUDE", value_name = "REGEX", value_parser = expression,
        conflicts_with = "disk_device_include")]
    pub disk_device_exclude: Option<Regex>,

    /// Show only block devices whose name matches this regular expression
    #[arg(long, env = "ESNODE_DISK_DEVICE_INCLUDE", value_name = "REGEX", value_parser = expression)]
    pub disk_device_include: Option<Regex>,

    /// Do not show network interfaces whose name matches this regular expression; an empty one
    /// shows all. Otherwise it is the host's ends of links to containers that are not shown
    #[arg(long, env = "ESNODE_NETWORK_DEVICE_EXCLUDE", value_name = "REGEX",
        value_parser = expression, conflicts_with = "network_device_include")]
    pub network_device_exclude: Option<Regex>,

    /// Show only network interfaces whose name matches this regular expression
    #[arg(long, env = "ESNODE_NETWORK_DEVICE_INCLUDE", value_name = "REGEX",
        value_parser = expression)]
    pub network_device_include: Option<Regex>,

    /// Do not show filesystems whose mount point matches this regular expression; an empty one
    /// shows all. Otherwise it is those below /dev, /proc and /sys, and those of containers and
    /// pods that are not shown
    #[arg(long, env = "ESNODE_MOUNT_EXCLUDE", value_name = "REGEX", value_parser = expression,
        conflicts_with = "mount_include")]
    pub mount_exclude: Option<Regex>,

    /// Show only filesystems whose mount point matches this regular expression
    #[arg(long, env = "ESNODE_MOUNT_INCLUDE", value_name = "REGEX", value_parser = expression)]
    pub mount_include: Option<Regex>,

    /// Do not show filesystems whose type matches this regular expression; an empty one shows all.
    /// Otherwise it is those of the kernel, overlays, and images such as squashfs that are not
    /// shown
    #[arg(long, env = "ESNODE_FSTYPE_EXCLUDE", value_name = "REGEX", value_parser = expression,
        conflicts_with = "fstype_include")]
    pub fstype_exclude: Option<Regex>,

    /// Show only filesystems whose type matches this regular expression
    #[arg(long, env = "ESNODE_FSTYPE_INCLUDE", value_name = "REGEX", value_parser = expression)]
    pub fstype_include: Option<Regex>,
}

impl DeviceFlags {
    /// Which block devices are shown.
    #[must_use]
    pub fn disks(&self) -> DeviceFilter {
        DeviceFilter::new(
            self.disk_device_exclude.as_ref(),
            self.disk_device_include.as_ref(),
            disk::DEFAULT_EXCLUDE,
        )
    }

    /// Which network interfaces are shown.
    #[must_use]
    pub fn interfaces(&self) -> DeviceFilter {
        DeviceFilter::new(
            self.network_device_exclude.as_ref(),
            self.network_device_include.as_ref(),
            network::DEFAULT_EXCLUDE,
        )
    }

    /// Which filesystems are shown, by their mount points.
    #[must_use]
    pub fn mounts(&self) -> DeviceFilter {
        DeviceFilter::new(
            self.mount_exclude.as_ref(),
            self.mount_include.as_ref(),
            filesystem::DEFAULT_MOUNT_EXCLUDE,
        )
    }

    /// Which filesystems are shown, by their types.
    #[must_use]
    pub fn fstypes(&self) -> DeviceFilter {
        DeviceFilter::new(
            self.fstype_exclude.as_ref(),
            self.fstype_include.as_ref(),
            filesystem::DEFAULT_FSTYPE_EXCLUDE,
        )
    }
}

/// Flags on GPUs.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "GPUs")]
pub struct GpuFlags {
    /// Sample GPUs this often: 100ms to 5s, as the driver keeps samples of processes for 10 s
    #[arg(long, env = "ESNODE_GPU_INTERVAL", value_name = "DURATION", default_value = "1s",
        value_parser = gpu_interval)]
    pub gpu_interval: Duration,

    /// Read what changes seldom this often: limits, links, ECC errors, rows; at least 100ms
    #[arg(long, env = "ESNODE_GPU_SLOW_INTERVAL", value_name = "DURATION", default_value = "30s",
        value_parser = gpu_slow_interval)]
    pub gpu_slow_interval: Duration,

    /// Sample only these GPUs: index, UUID or the beginning of it, MIG device as 0:1 or MIG-…
    /// (repeat, or separate by commas). Otherwise NVIDIA_VISIBLE_DEVICES says which
    #[arg(
        long,
        env = "ESNODE_GPU_DEVICES",
        value_name = "DEVICE",
        value_delimiter = ','
    )]
    pub gpu_devices: Vec<Wanted>,

    /// NVIDIA's management library, if it is not libnvidia-ml.so.1 where the system looks for it
    #[arg(long, env = "ESNODE_NVML_LIBRARY", value_name = "PATH")]
    pub nvml_library: Option<PathBuf>,
}

impl GpuFlags {
    /// How often is sampled.
    #[must_use]
    pub fn intervals(&self) -> Intervals {
        Intervals {
            fast: self.gpu_interval,
            slow: self.gpu_slow_interval,
        }
    }
}

/// Flags on the page.
#[derive(Args, Debug)]
#[command(next_help_heading = "Page")]
pub struct PageOptions {
    /// How many processes get series of their own: those on GPUs, however many they are, those
    /// that --select names, then those that used most CPU, disk and network recently. All others
    /// are in their group's series
    #[arg(
        long,
        env = "ESNODE_PROCESS_LIMIT",
        value_name = "N",
        default_value_t = PageOptions::default().process_limit
    )]
    pub process_limit: usize,

    /// How many groups (command names) get series of their own; the rest is in group "other",
    /// which counts as one
    #[arg(long, env = "ESNODE_GROUP_LIMIT", value_name = "N",
        default_value_t = PageOptions::default().group_limit, value_parser = at_least_one)]
    pub group_limit: usize,

    /// Show processes whose command name (at most 15 bytes) matches this regular expression before
    /// all others, within --process-limit; repeat the flag for more. The variable holds one
    #[arg(long, env = "ESNODE_SELECT", value_name = "REGEX", value_parser = pattern)]
    pub select: Vec<Regex>,

    /// Show GPUs by the names of dcgm-exporter as well, for dashboards and alerts made for it
    #[arg(long, env = "ESNODE_DCGM_NAMES", value_parser = FalseyValueParser::new())]
    pub dcgm_names: bool,

    /// Show the node by the names of node_exporter as well, for dashboards and alerts made for it
    #[arg(long, env = "ESNODE_NODE_EXPORTER_NAMES", value_parser = FalseyValueParser::new())]
    pub node_exporter_names: bool,
}

impl Default for PageOptions {
    fn default() -> Self {
        Self {
            process_limit: 64,
            group_limit: 256,
            select: Vec::new(),
            dcgm_names: false,
            node_exporter_names: false,
        }
    }
}

impl PageOptions {
    /// By which names facts are written.
    #[must_use]
    pub fn names(&self) -> Names {
        if self.node_exporter_names {
            Names::AndNodeExporter
        } else {
            Names::Own
        }
    }

    /// All patterns of `--select`.
    ///
    /// # Errors
    /// If they are too large together.
    pub fn patterns(&self) -> Result<RegexSet, regex::Error> {
        RegexSet::new(self.select.iter().map(Regex::as_str))
    }
}

/// Flags on the log.
#[derive(Args, Debug)]
#[command(next_help_heading = "Log")]
pub struct LogOptions {
    /// Least severe level that is logged
    #[arg(
        long,
        env = "ESNODE_LOG_LEVEL",
        value_name = "LEVEL",
        default_value = "info"
    )]
    pub log_level: LogLevel,

    /// Lines for people, or JSON objects for machines; on standard error
    #[arg(
        long,
        env = "ESNODE_LOG_FORMAT",
        value_name = "FORMAT",
        default_value = "text"
    )]
    pub log_format: LogFormat,
}

/// Severity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[expect(missing_docs, reason = "the names are the field's own")]
pub enum LogLevel {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

/// Form of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// One line per event.
    Text,
    /// One JSON object per event.
    Json,
}

/// `ADDRESS:PORT`, or `:PORT` for all IPv4 addresses.
fn listen_address(text: &str) -> Result<SocketAddr, String> {
    let full = if text.starts_with(':') {
        format!("0.0.0.0{text}")
    } else {
        text.to_owned()
    };
    full.parse()
        .map_err(|_| "expected ADDRESS:PORT, such as 127.0.0.1:9100 or [::]:9100".to_owned())
}

fn pattern(text: &str) -> Result<Regex, String> {
    if text.is_empty() {
        return Err("an empty expression matches every process".to_owned());
    }
    expression(text)
}

fn expression(text: &str) -> Result<Regex, String> {
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
fn duration(text: &str) -> Result<Duration, String> {
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

fn gpu_interval(text: &str) -> Result<Duration, String> {
    interval(text, "5s")
}

fn gpu_slow_interval(text: &str) -> Result<Duration, String> {
    interval(text, "1h")
}

fn node_interval(text: &str) -> Result<Duration, String> {
    interval(text, "1m")
}

fn at_least_one(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) | Err(_) => Err("expected a whole number from 1 on".to_owned()),
        Ok(number) => Ok(number),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn parse(arguments: &[&str]) -> Result<AgentOptions, clap::Error> {
        Cli::try_parse_from(std::iter::once(&"esnode-core").chain(arguments)).map(|cli| cli.agent)
    }

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_flag_is_a_variable() {
        for argument in Cli::command().get_arguments() {
            let Some(flag) = argument
                .get_long()
                .filter(|flag| !matches!(*flag, "help" | "version"))
            else {
                continue;
            };
            let variable = format!("ESNODE_{}", flag.to_uppercase().replace('-', "_"));
            assert_eq!(
                argument.get_env().and_then(|name| name.to_str()),
                Some(variable.as_str())
            );
        }
    }

    #[test]
    fn lists_by_comma_or_repetition() {
        let cli = parse(&[
            "--listen-address",
            "127.0.0.1:1,[::1]:2",
            "--listen-address",
            ":3",
        ])
        .expect("valid");
        let addresses: Vec<_> = cli
            .serving
            .listen_address
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(addresses, ["127.0.0.1:1", "[::1]:2", "0.0.0.0:3"]);
        let cli = parse(&["--collectors", "cpu,load", "--disable-collector", "load"]);
        assert_eq!(cli.expect("valid").sources.enabled(), [CollectorName::Cpu]);
        let all = parse(&[]).expect("valid").sources.enabled();
        assert_eq!(all, CollectorName::value_variants());
    }

    #[test]
    fn devices_are_shown_or_left_out() {
        let disks = |arguments: &[&str]| parse(arguments).map(|it| it.sources.devices.disks());
        let filter = disks(&[]).expect("valid");
        assert!(filter.shows("sda") && !filter.shows("sda1"));
        let filter = disks(&["--disk-device-exclude", "^sd"]).expect("valid");
        assert!(filter.shows("loop0") && !filter.shows("sda"));
        let filter = disks(&["--disk-device-include", "1$"]).expect("valid");
        assert!(filter.shows("sda1") && !filter.shows("sda"));
        let both = ["--disk-device-include", "a", "--disk-device-exclude", "b"];
        assert!(disks(&both).is_err());
        let flags = ["--network-device-exclude", ""];
        let devices = parse(&flags).expect("valid").sources.devices;
        assert!(devices.interfaces().shows("veth0") && !devices.disks().shows("sda1"));
        let flags = ["--mount-include", "^/dev/", "--fstype-exclude", "^nfs"];
        let devices = parse(&flags).expect("valid").sources.devices;
        assert!(devices.mounts().shows("/dev/shm") && !devices.mounts().shows("/"));
        assert!(devices.fstypes().shows("proc") && !devices.fstypes().shows("nfs4"));
    }

    #[test]
    fn durations_have_a_unit() {
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("1s"), Ok(Duration::from_secs(1)));
        assert_eq!(duration("2h"), Ok(Duration::from_hours(2)));
        for text in ["", "1", "s", "1.5s", "-1s", "1 s", "1d"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn bad_values_say_what_is_expected() {
        for (arguments, expected) in [
            (["--listen-address", "localhost"], "ADDRESS:PORT"),
            (["--group-limit", "0"], "from 1 on"),
            (["--select", "a("], "unclosed group"),
            (["--collectors", "gpuu"], "possible values: cpu"),
            (["--select", ""], "matches every process"),
            (["--disk-device-exclude", "a("], "unclosed group"),
            (["--bpf-groups", "0"], "0 is not in"),
            (["--gpu-interval", "1"], "such as 500ms"),
            (["--gpu-interval", "10s"], "100ms to 5s"),
            (["--gpu-interval", "9999999999999999999s"], "shorter"),
            (["--gpu-slow-interval", "18446744073709551615h"], "shorter"),
            (["--gpu-devices", "first"], "expected an index"),
        ] {
            let error = parse(&arguments).expect_err("invalid").to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
