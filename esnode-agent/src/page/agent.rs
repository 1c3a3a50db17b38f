//! Families about the agent itself.

use super::{Encode, Page};
use crate::version;
use std::{
    collections::BTreeMap,
    fmt, fs,
    sync::Mutex,
    time::{SystemTime, UNIX_EPOCH},
};

/// Answers to requests for the page, by HTTP status code.
#[derive(Debug, Default)]
pub struct ScrapeCounts(Mutex<BTreeMap<u16, u64>>);

impl ScrapeCounts {
    /// Counts one answer.
    pub fn count(&self, code: u16) {
        *self.lock().entry(code).or_default() += 1;
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<u16, u64>> {
        self.0
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// What the agent used, and how often it was asked. Unknown is absent.
#[derive(Debug)]
pub struct AgentFacts {
    scrapes: Vec<(u16, u64)>,
    passes: u64,
    cpu_seconds: f64,
    resident_bytes: Option<u64>,
    virtual_bytes: Option<u64>,
    threads: Option<u64>,
    open_fds: Option<u64>,
    max_fds: Option<u64>,
    start_time_seconds: f64,
}

impl AgentFacts {
    /// Reads them of the running process, from `/proc/self` and its clocks.
    #[must_use]
    pub fn sample(scrapes: &ScrapeCounts, passes: u64, started: SystemTime) -> Self {
        let cpu = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let field = |name: &str| {
            let value = status
                .lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            value.and_then(|value| value.split_ascii_whitespace().next()?.parse::<u64>().ok())
        };
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
        Self {
            scrapes: scrapes
                .lock()
                .iter()
                .map(|(code, count)| (*code, *count))
                .collect(),
            passes,
            #[expect(
                clippy::cast_precision_loss,
                reason = "seconds, with nanoseconds as a fraction"
            )]
            cpu_seconds: cpu.tv_sec as f64 + cpu.tv_nsec as f64 / 1e9,
            resident_bytes: field("VmRSS").map(|kibibytes| kibibytes * 1024),
            virtual_bytes: field("VmSize").map(|kibibytes| kibibytes * 1024),
            threads: field("Threads"),
            // The directory that is being read is open as well.
            open_fds: fs::read_dir("/proc/self/fd")
                .ok()
                .map(|fds| fds.count() as u64 - 1),
            max_fds: limit.current,
            start_time_seconds: started
                .duration_since(UNIX_EPOCH)
                .map_or(0.0, |since| since.as_secs_f64()),
        }
    }
}

impl Encode for AgentFacts {
    fn encode(&self, page: &mut Page<'_>) -> fmt::Result {
        page.gauge(
            "esnode_agent_build_info",
            "The agent that wrote this page; always 1",
            [(
                [("version", version::VERSION), ("commit", version::COMMIT)],
                1_u32,
            )],
        )?;
        page.counter(
            "esnode_scrapes",
            "Requests for this page that were answered before this one, by HTTP status code",
            self.scrapes
                .iter()
                .map(|(code, count)| ([("code", u32::from(*code))], *count)),
        )?;
        page.single_counter(
            "esnode_passes",
            "Passes over all collectors, this one included; scrapes that overlap share one",
            Some(self.passes),
        )?;
        page.single_counter(
            "process_cpu_seconds",
            "User and system CPU time of the agent, from its CPU clock",
            Some(self.cpu_seconds),
        )?;
        let gauges = [
            (
                "process_resident_memory_bytes",
                "Resident memory of the agent, from /proc/self/status",
                self.resident_bytes,
            ),
            (
                "process_virtual_memory_bytes",
                "Virtual memory of the agent, from /proc/self/status",
                self.virtual_bytes,
            ),
            (
                "process_open_fds",
                "Open file descriptors of the agent, from /proc/self/fd",
                self.open_fds,
            ),
            (
                "process_max_fds",
                "How many file descriptors the agent may open (RLIMIT_NOFILE)",
                self.max_fds,
            ),
            (
                "process_threads",
                "Threads of the agent, from /proc/self/status",
                self.threads,
            ),
        ];
        for (name, help, value) in gauges {
            page.single_gauge(name, help, value)?;
        }
        page.single_gauge(
            "process_start_time_seconds",
            "When the agent started, in seconds since 1970",
            Some(self.start_time_seconds),
        )
    }
}
