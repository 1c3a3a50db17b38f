//! How the programs and maps are doing.

/// One program, as it is attached.
#[derive(Clone, Debug)]
pub struct ProgramStatus {
    /// Name of the program.
    pub program: String,
    /// What it hangs on, such as `tp_btf/sched_process_exit`.
    pub attach: String,
    /// Runs and the time they took; only while `kernel.bpf_stats_enabled` is 1.
    pub statistics: Option<RunStatistics>,
}

/// From the kernel's BPF statistics.
#[derive(Clone, Copy, Debug)]
pub struct RunStatistics {
    /// How often it ran.
    pub runs: u64,
    /// How long, in nanoseconds, over all runs.
    pub nanoseconds: u64,
}

/// How full a map is.
#[derive(Clone, Copy, Debug)]
pub struct MapStatus {
    /// Name of the map.
    pub map: &'static str,
    /// Entries it holds, as far as the last pass met them.
    pub entries: Option<u64>,
    /// Entries it can hold.
    pub capacity: u64,
    /// How often an entry was refused because it was full.
    pub refused: u64,
}

/// Parses `/proc/self/fdinfo/FD` of a BPF program.
pub(super) fn parse_statistics(text: &str) -> Option<RunStatistics> {
    let field = |name: &str| {
        text.lines().find_map(|line| {
            line.strip_prefix(name)?
                .strip_prefix(':')?
                .trim()
                .parse()
                .ok()
        })
    };
    Some(RunStatistics {
        runs: field("run_cnt")?,
        nanoseconds: field("run_time_ns")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statistics_from_fdinfo() {
        let text =
            "pos:\t0\nprog_type:\t26\nrun_time_ns:\t1500\nrun_cnt:\t10\nrecursion_misses:\t0\n";
        let statistics = parse_statistics(text).expect("both fields");
        assert_eq!((statistics.runs, statistics.nanoseconds), (10, 1500));
        assert!(parse_statistics("run_cnt:\t10\n").is_none());
    }
}
