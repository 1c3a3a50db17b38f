//! When two values are the same, read one after the other from a kernel that does not stand still.

use esnode_tests::page::Labels;

use super::run::Look;

/// Values come from the same text, by other arithmetic: ticks over a hundred, sectors times 512.
const ROUNDING: f64 = 1e-9;

/// How a family moves.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Motion {
    /// Only up, or not at all: each value is between those read before and after.
    Grows,
    /// Up and down, also between two reads. Most values are between those read before and after, give
    /// or take what it moved by in the whole run; a mistake would be in all of them.
    Moves {
        /// What it may be off besides.
        slack: f64,
    },
    /// Not at all, as nothing does on a host that is a folder: each value is the same.
    Stands,
}

/// Series that move by what the readers themselves do, or that the kernel does not hold still for.
const SLACK: [(&str, f64, &str); 4] = [
    ("node_procs_running", 4.0, "threads of the reader count"),
    ("node_filefd_allocated", 64.0, "files that the reader opens"),
    ("node_sockstat_", 8.0, "sockets of the scrapes"),
    (
        "node_netstat_Tcp_CurrEstab",
        8.0,
        "connections of the scrapes",
    ),
];

/// node_exporter gives no types to what `/proc/net/snmp` holds; this is no counter.
const GAUGES: [&str; 2] = ["node_netstat_Tcp_CurrEstab", "node_netstat_Ip_Forwarding"];

/// Counters that the kernel sets back by itself: a core that goes idle gives back I/O wait.
const UNSTEADY: [(&str, &str); 2] = [("mode", "idle"), ("mode", "iowait")];

impl Motion {
    /// How a series of node_exporter moves, by its name, type and labels.
    pub(super) fn of(name: &str, kind: &str, labels: &Labels) -> Self {
        let listed = SLACK.iter().find(|(start, ..)| name.starts_with(start));
        let slack = listed.map_or(0.0, |(_, slack, _)| *slack);
        let unsteady =
            |(label, value): &(&str, &str)| labels.get(*label).is_some_and(|it| it == value);
        if name == "node_cpu_seconds_total" && UNSTEADY.iter().any(unsteady) {
            return Self::Moves { slack };
        }
        match kind {
            "counter" => Self::Grows,
            "untyped" if !GAUGES.contains(&name) => Self::Grows,
            _ => Self::Moves { slack },
        }
    }

    /// What is wrong with our values of a series, if something is. A value is in the unit of theirs.
    pub(super) fn difference(
        self,
        looks: &[Look],
        ours: &[Option<f64>],
        theirs: &[Option<f64>],
    ) -> Option<String> {
        let seen = theirs.iter().flatten().copied();
        let (least, most) = range(seen).unwrap_or_default();
        let slack = match self {
            Self::Grows | Self::Stands => 0.0,
            Self::Moves { slack } => slack + (most - least),
        };
        let mut off = Vec::new();
        for (look, ours) in looks.iter().zip(ours) {
            let between = [look.between.0, look.between.1].map(|place| theirs.get(place).copied());
            let between: Vec<Option<f64>> = between.into_iter().flatten().collect();
            match (ours, range(between.iter().flatten().copied())) {
                (Some(ours), Some((low, high))) => {
                    let rounding = ROUNDING * low.abs().max(high.abs());
                    let bounds = (low - slack - rounding)..=(high + slack + rounding);
                    if !bounds.contains(ours) {
                        off.push(format!("{ours} is not in {low}..{high}"));
                    }
                }
                // A series that came or went.
                (None, _) if between.contains(&None) => {}
                (None, _) => off.push("absent".to_owned()),
                (Some(ours), None) => off.push(format!("{ours}, and absent there")),
            }
        }
        let allowed = match self {
            Self::Grows | Self::Stands => 0,
            Self::Moves { .. } => looks.len() / 2,
        };
        let more = off.len();
        let first = off.into_iter().next().filter(|_| more > allowed)?;
        Some(format!("{first}, and so in {more} of {}", looks.len()))
    }
}

fn range(values: impl Iterator<Item = f64>) -> Option<(f64, f64)> {
    values.fold(None, |range, value| {
        let (least, most) = range.unwrap_or((value, value));
        Some((least.min(value), most.max(value)))
    })
}
