//! CPU time and usage by core, and what the scheduler did, from `/proc/stat` (proc_stat(5)).

mod usage;

use super::{next_number, parse_file, ticker::Ticking};
use crate::{
    error::{ParseError, ReadError},
    page::{Encode, Page},
};
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
}

/// Events of all cores since boot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Events {
    context_switches: Option<u64>,
    interrupts: Option<u64>,
    forks: Option<u64>,
}

/// CPU time and usage of all cores.
#[derive(Clone, Debug)]
pub struct CpuFacts {
    cores: Vec<Core>,
    events: Events,
    usage_percent: Vec<(String, f64)>,
    ticks_per_second: u64,
}

/// Reads the file anew in each pass, and once in the agent's own interval.
pub struct CpuCollector {
    path: PathBuf,
    ticks_per_second: u64,
    usage: Ticking<Usage>,
}

impl CpuCollector {
    /// Reads below `procfs`, for usage every `interval`; takes a first reading, so that the first
    /// page has usage.
    ///
    /// # Errors
    /// If the system refuses a thread.
    pub fn new(procfs: &Path, ticks_per_second: u64, interval: Duration) -> io::Result<Self> {
        let path = procfs.join("stat");
        Ok(Self {
            usage: Ticking::start("cpu", Usage::new(&path), interval)?,
            path,
            ticks_per_second,
        })
    }

    /// Samples once.
    ///
    /// # Errors
    /// If the file can't be read or parsed.
    pub fn sample(&mut self) -> Result<CpuFacts, ReadError> {
        let (cores, events) = parse_file(&self.path, parse)?;
        Ok(CpuFacts {
            usage_percent: self.usage.get().percent(&cores),
            cores,
            events,
            ticks_per_second: self.ticks_per_second,
        })
    }
}

fn parse(text: &str) -> Result<(Vec<Core>, Events), ParseError> {
    let mut cores = Vec::new();
    let mut events = Events::default();
    for (number, line) in (1..).zip(text.lines()) {
        let Some((name, rest)) = line.split_once(' ') else {
            continue;
        };
        let mut fields = rest.split_ascii_whitespace();
        let mut sum = || next_number(&mut fields, number, format_args!("the sum of {name}"));
        match name {
            // The sum of the lines below it.
            "cpu" => {}
            "ctxt" => events.context_switches = Some(sum()?),
            // The sum comes first, then those of each interrupt.
            "intr" => events.interrupts = Some(sum()?),
            "processes" => events.forks = Some(sum()?),
            _ => {
                let Some(name) = name.strip_prefix("cpu") else {
                    continue;
                };
                let mut ticks = [0; STATES.len()];
                for (state, ticks) in STATES.iter().zip(&mut ticks) {
                    let field = fields.next().and_then(|field| field.parse().ok());
                    *ticks = field
                        .ok_or_else(|| ParseError::new(number, format!("ticks in {state}")))?;
                }
                cores.push(Core {
                    name: name.to_owned(),
                    ticks,
                });
            }
        }
    }
    if cores.is_empty() {
        return Err(ParseError::new(0, "a line for each core, such as cpu0"));
    }
    Ok((cores, events))
}

impl Encode for CpuFacts {
    #[expect(
        clippy::cast_precision_loss,
        reason = "ticks of centuries are below 2^52"
    )]
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
                    let seconds = ticks as f64 / self.ticks_per_second as f64;
                    ([("core", core.name.as_str()), ("state", *state)], seconds)
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
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAT: &str = "cpu  3 0 0 3 0 0 0 0 0 0\ncpu0 1 2 3 4 5 6 7 8 9 10\n\
        cpu12 11 12 13 14 15 16 17 18 0 0\nintr 77 2 75\nctxt 5\nbtime 3\nprocesses 9\n";

    #[test]
    fn cores_without_the_sum() {
        let (cores, _) = parse(STAT).expect("valid");
        assert_eq!(cores.len(), 2);
        assert_eq!((cores[1].name.as_str(), cores[1].ticks[7]), ("12", 18));
    }

    #[test]
    fn events_of_all_cores() {
        let (_, events) = parse(STAT).expect("valid");
        let expected = Events {
            context_switches: Some(5),
            interrupts: Some(77),
            forks: Some(9),
        };
        assert_eq!(events, expected);
        let (_, events) = parse("cpu0 1 2 3 4 5 6 7 8\n").expect("valid");
        assert_eq!(events, Events::default());
    }

    #[test]
    fn says_where_it_breaks() {
        let first = "cpu0 1 2 3 4 5 6 7 8\n";
        for (line, expected) in [
            ("intr ", "intr"),
            ("intr x 1", "intr"),
            ("ctxt -1", "ctxt"),
            ("processes 99999999999999999999", "processes"),
        ] {
            let error = ParseError::new(2, format!("the sum of {expected}"));
            assert_eq!(parse(&format!("{first}{line}\n")), Err(error), "{line}");
        }
        assert_eq!(
            parse("cpu 1\ncpu0 1 2\n"),
            Err(ParseError::new(2, "ticks in system"))
        );
        assert!(parse("intr 1\n").is_err());
    }
}
