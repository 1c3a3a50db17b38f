//! How the programs and maps are doing.

use super::sys::ProgramCounters;

/// One program, as it is attached.
#[derive(Clone, Debug)]
pub struct ProgramStatus {
    /// Name of the program.
    pub program: String,
    /// What it hangs on, such as `tp_btf/sched_process_exit`.
    pub attach: String,
    /// What the kernel counts of it.
    pub counters: ProgramCounters,
    /// Whether the kernel counts runs and their time (`kernel.bpf_stats_enabled`).
    pub timed: bool,
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
