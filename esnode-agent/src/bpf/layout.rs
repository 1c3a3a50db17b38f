//! The one table of kernel fields that the BPF programs use.

use super::btf::{Btf, BtfError};
use esnode_ebpf::Layout;
use thiserror::Error;

/// Why the fields could not be found.
#[derive(Debug, Error)]
pub enum LayoutError {
    /// The kernel's BTF can't be parsed.
    #[error(transparent)]
    Btf(#[from] BtfError),
    /// This kernel lacks a field that no program can do without.
    #[error("this kernel's BTF has no {structure}.{field}, which the process table needs")]
    Missing {
        /// The struct.
        structure: &'static str,
        /// The field, as it is called in current kernels.
        field: &'static str,
    },
}

/// What a field is for, and so what its absence turns off.
#[derive(Clone, Copy, PartialEq, Eq)]
enum For {
    /// Every program.
    Everything,
    /// Disk bytes (`CONFIG_TASK_IO_ACCOUNTING`).
    Disk,
    /// Resident memory.
    Memory,
    /// Network bytes.
    Network,
}

/// One field: where it is stored, the struct, and its paths, newest kernel first.
struct Field(
    fn(&mut Layout) -> &mut u32,
    &'static str,
    &'static [&'static str],
    For,
);

const FIELDS: &[Field] = &[
    Field(
        |l| &mut l.task_pid,
        "task_struct",
        &["pid"],
        For::Everything,
    ),
    Field(
        |l| &mut l.task_tgid,
        "task_struct",
        &["tgid"],
        For::Everything,
    ),
    Field(
        |l| &mut l.task_flags,
        "task_struct",
        &["flags"],
        For::Everything,
    ),
    Field(
        |l| &mut l.task_comm,
        "task_struct",
        &["comm"],
        For::Everything,
    ),
    Field(
        |l| &mut l.task_start_boottime,
        "task_struct",
        &["start_boottime"],
        For::Everything,
    ),
    Field(
        |l| &mut l.task_group_leader,
        "task_struct",
        &["group_leader"],
        For::Everything,
    ),
    Field(
        |l| &mut l.task_real_parent,
        "task_struct",
        &["real_parent"],
        For::Everything,
    ),
    Field(
        |l| &mut l.task_signal,
        "task_struct",
        &["signal"],
        For::Everything,
    ),
    Field(|l| &mut l.task_mm, "task_struct", &["mm"], For::Everything),
    Field(
        |l| &mut l.task_runtime,
        "task_struct",
        &["se.sum_exec_runtime"],
        For::Everything,
    ),
    Field(
        |l| &mut l.task_thread_node,
        "task_struct",
        &["thread_node"],
        For::Everything,
    ),
    Field(
        |l| &mut l.task_read_bytes,
        "task_struct",
        &["ioac.read_bytes"],
        For::Disk,
    ),
    Field(
        |l| &mut l.task_write_bytes,
        "task_struct",
        &["ioac.write_bytes"],
        For::Disk,
    ),
    Field(
        |l| &mut l.task_cancelled_write_bytes,
        "task_struct",
        &["ioac.cancelled_write_bytes"],
        For::Disk,
    ),
    Field(
        |l| &mut l.signal_live,
        "signal_struct",
        &["live.counter"],
        For::Everything,
    ),
    Field(
        |l| &mut l.signal_threads,
        "signal_struct",
        &["nr_threads"],
        For::Everything,
    ),
    Field(
        |l| &mut l.signal_thread_head,
        "signal_struct",
        &["thread_head"],
        For::Everything,
    ),
    Field(
        |l| &mut l.signal_runtime,
        "signal_struct",
        &["sum_sched_runtime"],
        For::Everything,
    ),
    Field(
        |l| &mut l.signal_read_bytes,
        "signal_struct",
        &["ioac.read_bytes"],
        For::Disk,
    ),
    Field(
        |l| &mut l.signal_write_bytes,
        "signal_struct",
        &["ioac.write_bytes"],
        For::Disk,
    ),
    Field(
        |l| &mut l.signal_cancelled_write_bytes,
        "signal_struct",
        &["ioac.cancelled_write_bytes"],
        For::Disk,
    ),
    // Linux 6.2 made these per-CPU counters; indices are MM_FILEPAGES, MM_ANONPAGES, MM_SHMEMPAGES.
    Field(
        |l| &mut l.mm_file_pages,
        "mm_struct",
        &["rss_stat[0].count", "rss_stat.count[0].counter"],
        For::Memory,
    ),
    Field(
        |l| &mut l.mm_anonymous_pages,
        "mm_struct",
        &["rss_stat[1].count", "rss_stat.count[1].counter"],
        For::Memory,
    ),
    Field(
        |l| &mut l.mm_shared_pages,
        "mm_struct",
        &["rss_stat[3].count", "rss_stat.count[3].counter"],
        For::Memory,
    ),
    Field(
        |l| &mut l.sock_family,
        "sock",
        &["__sk_common.skc_family"],
        For::Network,
    ),
    Field(
        |l| &mut l.sock_protocol,
        "sock",
        &["sk_protocol"],
        For::Network,
    ),
];

/// The tracepoint whose arguments differ between kernels.
const EXIT: &str = "btf_trace_sched_process_exit";

/// Where the running kernel keeps what the programs read.
#[derive(Clone, Copy, Debug)]
pub struct Resolved {
    /// The offsets, for the programs.
    pub layout: Layout,
    /// Whether disk bytes can be read.
    pub disk: bool,
    /// Whether resident memory can be read.
    pub memory: bool,
    /// Whether sockets can be told apart.
    pub network: bool,
}

/// Resolves every field from the kernel's BTF (`/sys/kernel/btf/vmlinux`).
///
/// # Errors
/// [`LayoutError`] if the BTF is malformed or a field that every program needs is missing.
pub fn resolve(data: &[u8]) -> Result<Resolved, LayoutError> {
    let btf = Btf::parse(
        data,
        &["task_struct", "signal_struct", "mm_struct", "sock", EXIT],
    )?;
    let mut resolved = Resolved {
        layout: Layout::UNKNOWN,
        disk: true,
        memory: true,
        network: true,
    };
    for Field(slot, structure, paths, purpose) in FIELDS {
        let found = paths.iter().find_map(|path| btf.offset_of(structure, path));
        match (found, purpose) {
            (Some(offset), _) => *slot(&mut resolved.layout) = offset,
            (None, For::Disk) => resolved.disk = false,
            (None, For::Memory) => resolved.memory = false,
            (None, For::Network) => resolved.network = false,
            (None, For::Everything) => {
                let field = paths.first().copied().unwrap_or_default();
                return Err(LayoutError::Missing { structure, field });
            }
        }
    }
    // The first argument of a BTF tracepoint's prototype is its private data.
    resolved.layout.exit_tells_process_dead = u32::from(btf.arguments(EXIT) == Some(3));
    Ok(resolved)
}
