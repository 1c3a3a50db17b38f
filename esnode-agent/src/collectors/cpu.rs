//! CPU time and usage by core, and what the scheduler did, from `/proc/stat` (proc_stat(5)); how
//! fast cores run, and how often they got too hot, from `/sys/devices/system/cpu`.

mod cpuinfo;
mod devices;
mod frequency;
mod held;
mod isolated;
mod node_exporter;
mod round;
mod throttle;
mod usage;

use super::{next_number, parse_file, ticker::Ticking};
use crate::{
    api::Snapshot,
    error::{ParseError, ReadError},
    page::{Encode, Page},
};
use devices::{DeviceFacts, Devices};
use held::Held;
use std::{
    fmt, io,
    path::{Path, PathBuf},
    time::Duration,
};
use usage::Usage;

/// States of a core, as `/proc/stat` lists them. Guest time is part of `user` and `nice`.
const STATES: [&str; 8] = [
    "user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal",
];
const IDLE: usize = 3;
const IOWAIT: usize = 4;

/// Time that one core spent in each state since boot, in clock ticks.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Core {
    name: String,
    ticks: [u64; STATES.len()],
    /// In guests, part of `user` and of `nice`. Some containers are not told.
    guest: Option<[u64; 2]>,
}

/// Events of all cores since boot, and tasks at the moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Events {
    context_switches: Option<u64>,
    interrupts: Option<u64>,
    forks: Option<u64>,
    running: Option<u64>,
    blocked: Option<u64>,
}

/// CPU time and usage of all cores.
#[derive(Clone, Debug)]
pub struct CpuFacts {
    cores: Vec<Core>,
    events: Events,
    usage_percent: Vec<(String, f64)>,
    devices: DeviceFacts,
    ticks_per_second: u64,
}

/// Reads the file anew in each pass, and once in the agent's own interval.
pub struct CpuCollector {
    path: PathBuf,
    ticks_per_second: u64,
    usage: Ticking<Usage>,
    held: Held,
    devices: Box<Devices>,
    complaint: Option<String>,
}

impl CpuCollector {
    /// Reads below `procfs` and `sysfs`, for usage every `interval`.
    ///
    /// # Errors
    /// If the system refuses a thread.
    pub fn new(
        procfs: &Path,
        sysfs: &Path,
        ticks_per_second: u64,
        interval: Duration,
    ) -> io::Result<Self> {
        let path = procfs.join("stat");
        Ok(Self {
            usage: Ticking::start("cpu", Usage::new(&path), interval)?,
            path,
            ticks_per_second,
            held: Held::default(),
            devices: Box::new(Devices::new(procfs, sysfs)),
            complaint: None,
        })
    }

    /// Why frequencies and throttles can't be read at the moment.
    #[must_use]
    pub fn complaint(&self) -> Option<String> {
        self.complaint.clone()
    }

    /// Samples once. Without what cores have as devices, there is a complaint.
    ///
    /// # Errors
    /// If `/proc/stat` can't be read or parsed.
    pub fn sample(&mut self) -> Result<CpuFacts, ReadError> {
        self.complaint = None;
        let (mut cores, events) = parse_file(&self.path, parse)?;
        self.held.hold(&mut cores, self.ticks_per_second);
        let devices = self.devices.sample(&cores).unwrap_or_else(|error| {
            self.complaint = Some(error.to_string());
            DeviceFacts::default()
        });
        Ok(CpuFacts {
            usage_percent: self.usage.get().percent(&cores),
            cores,
            events,
            devices,
            ticks_per_second: self.ticks_per_second,
        })
    }
}

fn parse(text: &str) -> Result<(Vec<Core>, Events), ParseError> {
    let mut cores = Vec::new();
    let mut events = Events::default();
    let mut last_core: Option<u32> = None;
    for (number, line) in (1..).zip(text.lines()) {
        let (name, rest) = line.split_once(' ').unwrap_or((line, ""));
        let mut fields = rest.split_ascii_whitespace();
        let mut first = |what| next_number(&mut fields, number, format_args!("{what} {name}"));
        match name {
            // The sum of the lines below it.
            "cpu" => {}
            "ctxt" => events.context_switches = Some(first("the sum of")?),
            // The sum comes first, then those of each interrupt.
            "intr" => events.interrupts = Some(first("the sum of")?),
            "processes" => events.forks = Some(first("the sum of")?),
            "procs_running" => events.running = Some(first("the number of")?),
            "procs_blocked" => events.blocked = Some(first("the number of")?),
            _ => {
                let Some(name) = name.strip_prefix("cpu") else {
                    continue;
                };
                // The kernel writes those that are online, by their numbers.
                let core = name.parse().ok().filter(|core| last_core < Some(*core));
                let core = core.ok_or_else(|| ParseError::new(number, "the next core"))?;
                last_core = Some(core);
                cores.push(parse_core(core, &mut fields, number)?);
            }
        }
    }
    if cores.is_empty() {
        return Err(ParseError::new(0, "a line for each core, such as cpu0"));
    }
    Ok((cores, events))
}

fn parse_core<'a>(
    core: u32,
    fields: &mut impl Iterator<Item = &'a str>,
    line: usize,
) -> Result<Core, ParseError> {
    let mut ticks = [0; STATES.len()];
    for (state, ticks) in STATES.iter().zip(&mut ticks) {
        *ticks = next_number(fields, line, format_args!("ticks in {state}"))?;
    }
    let mut fields = fields.peekable();
    let guest = if fields.peek().is_some() {
        let mut next = || next_number(&mut fields, line, "ticks in guests");
        Some([next()?, next()?])
    } else {
        None
    };
    Ok(Core {
        name: core.to_string(),
        ticks,
        guest,
    })
}

impl CpuFacts {
    #[expect(
        clippy::cast_precision_loss,
        reason = "ticks of centuries are below 2^52"
    )]
    fn seconds(&self, ticks: u64) -> f64 {
        ticks as f64 / self.ticks_per_second as f64
    }

    /// Mean over the cores of which it is known.
    #[expect(clippy::cast_precision_loss, reason = "a number of cores")]
    fn mean_usage_percent(&self) -> Option<f64> {
        let cores = self.usage_percent.len();
        let sum: f64 = self.usage_percent.iter().map(|(_, percent)| percent).sum();
        (cores > 0).then(|| sum / cores as f64)
    }
}

impl Encode for CpuFacts {
    fn encode(&self, page: &mut Page<'_>) -> fmt::Result {
        page.gauge(
            "esnode_cpu_usage_percent",
            "Share of time that the core was not idle, 0 to 100, over the last interval of \
             the agent (--node-interval), from /proc/stat",
            self.usage_percent
                .iter()
                .map(|(core, percent)| ([("core", core.as_str())], *percent)),
        )?;
        page.counter(
            "esnode_cpu_time_seconds",
            "Time that the core spent in a state, from /proc/stat; guests count as user",
            self.cores.iter().flat_map(|core| {
                STATES.iter().zip(core.ticks).map(|(state, ticks)| {
                    let labels = [("core", core.name.as_str()), ("state", *state)];
                    (labels, self.seconds(ticks))
                })
            }),
        )?;
        page.single_counter(
            "esnode_cpu_context_switches",
            "Times that a core went from one task to another, ctxt of /proc/stat",
            self.events.context_switches,
        )?;
        page.single_counter(
            "esnode_cpu_interrupts",
            "Interrupts that were served, intr of /proc/stat",
            self.events.interrupts,
        )?;
        page.single_counter(
            "esnode_cpu_forks",
            "Processes and threads that were started, processes of /proc/stat",
            self.events.forks,
        )?;
        let tasks = [
            ("running", self.events.running),
            ("blocked", self.events.blocked),
        ];
        page.gauge(
            "esnode_cpu_tasks",
            "Tasks that run or could run (running) and that wait for a block device (blocked), \
             procs_running and procs_blocked of /proc/stat",
            tasks
                .into_iter()
                .filter_map(|(state, tasks)| Some(([("state", state)], tasks?))),
        )?;
        frequency::encode(&self.devices.frequencies, page)?;
        throttle::encode(&self.devices.throttles, page)
    }

    fn encode_node_exporter(&self, page: &mut Page<'_>) -> fmt::Result {
        self.encode_by_node_exporter(page)
    }

    fn describe(&self, snapshot: &mut Snapshot) {
        snapshot.node.cores = Some(self.cores.len() as u64);
        snapshot.node.cpu_usage_percent = self.mean_usage_percent();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collectors::fixture::{Host, samples};

    const STAT: &str = "cpu  3 0 0 3 0 0 0 0 0 0\ncpu0 1 2 3 4 5 6 7 8 9 10\n\
        cpu12 11 12 13 14 15 16 17 18\nintr 77 2 75\nctxt 5\nbtime 3\nprocesses 9\n\
        procs_running 2\nprocs_blocked 1\n\n";

    #[test]
    fn cores_without_the_sum() {
        let (cores, _) = parse(STAT).expect("valid");
        assert_eq!(cores.len(), 2);
        assert_eq!((cores[1].name.as_str(), cores[1].ticks[7]), ("12", 18));
        assert_eq!((cores[0].guest, cores[1].guest), (Some([9, 10]), None));
    }

    #[test]
    fn events_of_all_cores() {
        let (_, events) = parse(STAT).expect("valid");
        let expected = Events {
            context_switches: Some(5),
            interrupts: Some(77),
            forks: Some(9),
            running: Some(2),
            blocked: Some(1),
        };
        assert_eq!(events, expected);
        let (_, events) = parse("cpu0 1 2 3 4 5 6 7 8\n").expect("valid");
        assert_eq!(events, Events::default());
    }

    #[test]
    fn says_where_it_breaks() {
        let first = "cpu1 1 2 3 4 5 6 7 8\n";
        for (line, expected) in [
            ("intr ", "the sum of intr"),
            ("intr x 1", "the sum of intr"),
            ("ctxt", "the sum of ctxt"),
            ("ctxt -1", "the sum of ctxt"),
            ("processes 99999999999999999999", "the sum of processes"),
            ("procs_running x", "the number of procs_running"),
            ("procs_blocked -1", "the number of procs_blocked"),
            ("cpu2", "ticks in user"),
            ("cpu2 1 2", "ticks in system"),
            ("cpu2 1 2 3 4 5 6 7 18446744073709551616", "ticks in steal"),
            ("cpu2 1 2 3 4 5 6 7 8 x", "ticks in guests"),
            ("cpu2 1 2 3 4 5 6 7 8 9", "ticks in guests"),
            ("cpu0 1 2 3 4 5 6 7 8", "the next core"),
            ("cpu1 1 2 3 4 5 6 7 8", "the next core"),
            ("cpux 1 2 3 4 5 6 7 8", "the next core"),
            ("cpu4294967296 1 2 3 4 5 6 7 8", "the next core"),
        ] {
            let error = ParseError::new(2, expected);
            assert_eq!(parse(&format!("{first}{line}\n")), Err(error), "{line}");
        }
        let last = "cpu4294967295 1 2 3 4 5 6 7 8\n";
        assert!(parse(last).is_ok());
        assert_eq!(
            parse(&last.repeat(2)),
            Err(ParseError::new(2, "the next core"))
        );
        let error = ParseError::new(0, "a line for each core, such as cpu0");
        assert_eq!(parse("intr 1\n"), Err(error.clone()));
        assert_eq!(parse(""), Err(error));
    }

    #[test]
    fn times_tasks_frequencies_and_throttles() {
        let host = Host::new(&[
            ("proc/stat", STAT),
            (
                "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq",
                "2245780\n",
            ),
            (
                "sys/devices/system/cpu/cpu12/cpufreq/cpuinfo_max_freq",
                "3700000\n",
            ),
            (
                "sys/devices/system/cpu/cpu12/thermal_throttle/core_throttle_count",
                "3\n",
            ),
            (
                "sys/devices/system/cpu/cpu12/thermal_throttle/package_throttle_count",
                "4\n",
            ),
        ]);
        let hour = Duration::from_hours(1);
        let collector = CpuCollector::new(&host.procfs(), &host.sysfs(), 100, hour);
        let mut collector = collector.expect("a thread");
        let mut page = || samples(collector.sample().expect("readable"));
        let seen = page();
        assert_eq!(
            seen[..2],
            [
                r#"esnode_cpu_time_seconds_total{core="0",state="user"} 0.01"#,
                r#"esnode_cpu_time_seconds_total{core="0",state="nice"} 0.02"#,
            ]
        );
        assert_eq!(
            seen[16..],
            [
                "esnode_cpu_context_switches_total 5",
                "esnode_cpu_interrupts_total 77",
                "esnode_cpu_forks_total 9",
                r#"esnode_cpu_tasks{state="running"} 2"#,
                r#"esnode_cpu_tasks{state="blocked"} 1"#,
                r#"esnode_cpu_frequency_mhz{core="0"} 2245.78"#,
                r#"esnode_cpu_frequency_max_mhz{core="12"} 3700.0"#,
                r#"esnode_cpu_throttles_total{core="12",scope="core"} 3"#,
                r#"esnode_cpu_throttles_total{core="12",scope="package"} 4"#,
            ]
        );
        // A core that went takes all with it, and idle time never falls.
        host.write("proc/stat", "cpu0 1 2 3 3 5 6 7 8 9 10\n");
        let seen = page();
        assert_eq!(seen.len(), 9, "{seen:?}");
        assert_eq!(
            seen[3],
            r#"esnode_cpu_time_seconds_total{core="0",state="idle"} 0.04"#
        );
        assert_eq!(seen[8], r#"esnode_cpu_frequency_mhz{core="0"} 2245.78"#);
    }

    #[test]
    fn a_bad_file_of_a_core_takes_no_times_away() {
        let file = "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq";
        let host = Host::new(&[("proc/stat", STAT), (file, "fast\n")]);
        let hour = Duration::from_hours(1);
        let collector = CpuCollector::new(&host.procfs(), &host.sysfs(), 100, hour);
        let mut collector = collector.expect("a thread");
        // Sixteen times, three events and two kinds of tasks.
        assert_eq!(samples(collector.sample().expect("readable")).len(), 21);
        let complaint = collector.complaint().expect("a reason");
        assert!(
            complaint.contains("scaling_cur_freq, line 1"),
            "{complaint}"
        );
        host.write(file, "2245780\n");
        assert_eq!(samples(collector.sample().expect("readable")).len(), 22);
        assert_eq!(collector.complaint(), None);
    }
}
