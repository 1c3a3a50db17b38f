//! The command line. Every flag is an environment variable as well.

mod devices;
mod health;
mod identity;
mod top;
mod values;

pub use devices::{DeviceFlags, GpuFlags};
pub use health::HealthOptions;
pub use identity::IdentityFlags;
pub use top::{AgentUrl, TopOptions};

use crate::{
    bpf::{self, GroupsBy, layout::Hierarchy},
    collectors::CollectorName,
    ladder::Rung,
    page::Names,
    process::select::SelectRule,
    version,
};
use clap::{Args, Parser, Subcommand, ValueEnum, builder::FalseyValueParser};
use std::{net::SocketAddr, path::PathBuf, time::Duration};
use values::{at_least_one, listen_address, node_interval};

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
    Check(Box<CheckOptions>),
    /// Show which worker uses what, now, in the terminal
    ///
    /// Press ? for the keys. Rates are those between two samples; what is not known is shown as -.
    Top(Box<TopOptions>),
    /// Ask the agent on this host whether it answers, as container engines do
    ///
    /// Exit code 0: it does, on all addresses that --listen-address names. 1: it does not.
    Health(HealthOptions),
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
    /// Who processes are.
    #[command(flatten)]
    pub identity: IdentityFlags,
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
    pub fn bpf(&self, groups_by: GroupsBy, hierarchy: Hierarchy) -> bpf::Options {
        bpf::Options {
            threads: self.bpf_threads,
            processes: self.bpf_processes,
            groups: self.bpf_groups,
            sockets: self.bpf_sockets,
            baseline: self.bpf_baseline,
            disk_latency: self.disk_latency,
            groups_by,
            hierarchy,
            without: self.without.clone(),
            refuse_hooks: self.refuse_hook.clone(),
        }
    }
}

/// Flags on the page.
#[derive(Args, Debug)]
#[command(next_help_heading = "Page")]
pub struct PageOptions {
    /// How many processes get series of their own: those on GPUs, those that work for inference
    /// engines, what these started, those that --select names, then those that used most CPU, disk
    /// and network recently. All others are in their group's series
    #[arg(
        long,
        env = "ESNODE_PROCESS_LIMIT",
        value_name = "N",
        default_value_t = PageOptions::default().process_limit
    )]
    pub process_limit: usize,

    /// How many groups get series of their own; the rest is in group "other",
    /// which counts as one
    #[arg(long, env = "ESNODE_GROUP_LIMIT", value_name = "N",
        default_value_t = PageOptions::default().group_limit, value_parser = at_least_one)]
    pub group_limit: usize,

    /// Show processes before all that are merely busy whose command name (at most 15 bytes) matches
    /// this regular expression; or of which another FIELD does: cmdline, cgroup, user (as a whole),
    /// container (or the beginning of its id), engine, model. Repeat the flag for more; the variable
    /// holds one
    #[arg(long, env = "ESNODE_SELECT", value_name = "[FIELD=]REGEX")]
    pub select: Vec<SelectRule>,

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

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use clap::CommandFactory;

    pub(crate) fn parse(arguments: &[&str]) -> Result<AgentOptions, clap::Error> {
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
