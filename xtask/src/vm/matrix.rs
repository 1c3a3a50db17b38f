//! What is tried: the kernels, the rounds in each, and the rungs that each round has to reach.

use clap::ValueEnum;

use crate::processor::Processor;

/// A kernel of Debian.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Kernel {
    /// Bullseye.
    #[value(name = "5.10")]
    V5_10,
    /// Bookworm.
    #[value(name = "6.1")]
    V6_1,
    /// Trixie.
    #[value(name = "6.12")]
    V6_12,
    /// Sid.
    Newest,
    /// Trixie for arm64, as Docker has it on a Mac.
    Arm64,
}

impl Kernel {
    /// Those that a short run boots: the oldest and the newest.
    pub(super) const SHORT: [Self; 2] = [Self::V5_10, Self::Newest];

    /// The name on the command line, in verdicts and of its folder.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::V5_10 => "5.10",
            Self::V6_1 => "6.1",
            Self::V6_12 => "6.12",
            Self::Newest => "newest",
            Self::Arm64 => "arm64",
        }
    }

    /// The release of Debian that has it.
    pub(super) fn suite(self) -> &'static str {
        match self {
            Self::V5_10 => "bullseye",
            Self::V6_1 => "bookworm",
            Self::V6_12 | Self::Arm64 => "trixie",
            Self::Newest => "sid",
        }
    }

    /// The processor that it's for.
    pub(super) fn processor(self) -> Processor {
        match self {
            Self::Arm64 => Processor::Arm64,
            _ => Processor::X86_64,
        }
    }

    /// The rounds in which this kernel reaches other rungs than in those before.
    pub(super) fn rounds(self) -> Vec<Round> {
        let mut seen = Vec::new();
        let mut rounds = Vec::new();
        for round in ROUNDS {
            let expected = round.expected(self);
            if !seen.contains(&expected) {
                seen.push(expected);
                rounds.push(round);
            }
        }
        rounds
    }

    /// Whether it has what a rung needs.
    fn has(self, rung: &str) -> bool {
        // The tracepoints came with Linux 6.3.
        rung != "sock_length" || !matches!(self, Self::V5_10 | Self::V6_1)
    }
}

/// One run of the suite in a virtual machine, with these rungs disabled.
#[derive(Clone, Copy, Debug)]
pub(super) struct Round {
    pub(super) name: &'static str,
    pub(super) without: &'static [&'static str],
}

/// Each lower rung in turn.
pub(super) const ROUNDS: [Round; 7] = [
    Round {
        name: "all",
        without: &[],
    },
    Round {
        name: "fexit",
        without: &["sock_length"],
    },
    Round {
        name: "kprobe",
        without: &["sock_length", "fexit"],
    },
    Round {
        name: "sock_diag",
        without: &["sock_length", "fexit", "kprobe"],
    },
    Round {
        name: "tcp_sock",
        without: &["fexit", "kprobe"],
    },
    Round {
        name: Round::NO_BPF,
        without: &[
            "iter_task",
            "sched_process_exit",
            "sock_length",
            "fexit",
            "kprobe",
            "tcp_sock",
        ],
    },
    Round {
        name: "procfs",
        without: &[
            "iter_task",
            "sched_process_exit",
            "sock_length",
            "fexit",
            "kprobe",
            "tcp_sock",
            "taskstats",
            "sock_diag",
        ],
    },
];

/// The signals on the page, and the rungs of each, best first.
const LADDER: [(&str, &[&str]); 5] = [
    ("process_table", &["iter_task", "procfs"]),
    ("ended_processes", &["sched_process_exit", "taskstats"]),
    ("network", &["sock_length", "fexit", "kprobe", "sock_diag"]),
    (
        "splice_receive",
        &["fexit", "kprobe", "tcp_sock", "sock_diag"],
    ),
    ("splice_receive_unix", &["fexit", "kprobe"]),
];

/// Tests that know nothing of rungs; they run in the round with all rungs. Those of Docker say there
/// that it's missing.
const OF_NO_RUNG: [&str; 10] = [
    "api::",
    "cli::",
    "compose::",
    "docker::",
    "health::",
    "page::",
    "readers::",
    "selection::",
    "server::",
    "top::",
];

/// Tests that choose the rungs themselves, and start many agents; they run in the round with all
/// rungs. A short run leaves them to the host.
const OF_OWN_RUNGS: [&str; 4] = ["check::", "fallback::", "faults::", "ladder::"];

/// Tests of block devices; they run in the round with all rungs.
const OF_DEVICES: [&str; 1] = ["latency::"];

/// Tests of what stands in for BPF; they run in the round without it. A short run leaves them to
/// the host.
const OF_NO_BPF: [&str; 1] = ["without_bpf::"];

/// Tests that a short run leaves out as well, for the time that they take.
const LONG: [&str; 7] = [
    "conservation::",
    "flood::",
    "groups::few::",
    "groups::moving::",
    "groups::rules::",
    "lifecycle::",
    "short_lived::",
];

/// Tests that a short run leaves out where processes are read as in the round with all rungs.
const OF_PROCESSES: [&str; 2] = ["disk::", "groups::"];

impl Round {
    /// The round without BPF, but with what stands in for it.
    const NO_BPF: &str = "no-bpf";

    /// The beginnings of the names of tests that this round leaves out.
    pub(super) fn left_out(&self, short: bool) -> Vec<&'static str> {
        let lower = !self.without.is_empty();
        let by_bpf = self.name != Self::NO_BPF;
        let choices: [(bool, &[&'static str]); 6] = [
            (short || by_bpf, &OF_NO_BPF),
            (short || lower, &OF_NO_RUNG),
            (short || lower, &OF_OWN_RUNGS),
            (lower, &OF_DEVICES),
            (short, &LONG),
            (
                short && lower && !self.without.contains(&"iter_task"),
                &OF_PROCESSES,
            ),
        ];
        let left_out = choices.into_iter().filter(|(leave, _)| *leave);
        left_out.flat_map(|(_, names)| names).copied().collect()
    }

    /// The sources that the page has to name on this kernel, by signal.
    pub(super) fn expected(&self, kernel: Kernel) -> Vec<(&'static str, &'static str)> {
        let free = |rung: &&str| kernel.has(rung) && !self.without.contains(rung);
        let best = |rungs: &[&'static str]| rungs.iter().copied().find(free).unwrap_or("none");
        let sources = LADDER.map(|(signal, rungs)| (signal, best(rungs)));
        let network = sources.into_iter().find(|(signal, _)| *signal == "network");
        let network = network.map_or("none", |(_, rung)| rung);
        let by_bpf = !["sock_diag", "none"].contains(&network);
        // What is spliced is counted by BPF beside the rest, or by sockets with the rest.
        let beside = |(signal, rung)| match signal {
            "splice_receive" if !by_bpf => (signal, network),
            "splice_receive_unix" if !by_bpf => (signal, "none"),
            _ => (signal, rung),
        };
        sources.map(beside).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sources(kernel: Kernel, round: &str) -> Vec<&'static str> {
        let round = ROUNDS.iter().find(|other| other.name == round).unwrap();
        let expected = round.expected(kernel);
        expected.into_iter().map(|(_, source)| source).collect()
    }

    #[test]
    fn each_round_takes_the_best_rung_that_is_left() {
        let best = [
            "iter_task",
            "sched_process_exit",
            "sock_length",
            "fexit",
            "fexit",
        ];
        assert_eq!(sources(Kernel::Newest, "all"), best);
        let old = ["iter_task", "sched_process_exit", "fexit", "fexit", "fexit"];
        assert_eq!(sources(Kernel::V5_10, "all"), old);
        let places = [
            "iter_task",
            "sched_process_exit",
            "sock_length",
            "tcp_sock",
            "none",
        ];
        assert_eq!(sources(Kernel::Newest, "tcp_sock"), places);
        let none = ["procfs", "none", "none", "none", "none"];
        assert_eq!(sources(Kernel::Newest, "procfs"), none);
    }

    #[test]
    fn rounds_that_differ_in_nothing_are_left_out() {
        let names =
            |kernel: Kernel| -> Vec<_> { kernel.rounds().iter().map(|round| round.name).collect() };
        assert_eq!(names(Kernel::Newest).len(), ROUNDS.len());
        let old = ["all", "kprobe", "sock_diag", "no-bpf", "procfs"];
        assert_eq!(names(Kernel::V5_10), old);
    }
}
