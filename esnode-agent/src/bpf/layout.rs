//! The one table of kernel fields that the BPF programs use.

use super::{
    btf::{Btf, BtfError},
    hooks,
};
use esnode_ebpf::Layout;
use std::collections::HashMap;
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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum For {
    /// Every program.
    Everything,
    /// Disk bytes (`CONFIG_TASK_IO_ACCOUNTING`).
    Disk,
    /// Resident memory.
    Memory,
    /// Network bytes.
    Network,
    /// Network bytes, from functions.
    Functions,
    /// What leaves TCP sockets without a receive.
    TcpSock,
    /// Latency of block devices.
    Block,
    /// Control groups (`CONFIG_CGROUPS`).
    Cgroups,
}

/// The tree of control groups in which containers are told apart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Hierarchy {
    /// The one of version 2.
    #[default]
    Unified,
    /// That of a controller of version 1, such as `pids`.
    Controller(String),
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
    Field(|l| &mut l.socket_sock, "socket", &["sk"], For::Functions),
    Field(|l| &mut l.socket_type, "socket", &["type"], For::Functions),
    Field(
        |l| &mut l.sock_functions,
        "sock",
        &["__sk_common.skc_prot"],
        For::Functions,
    ),
    Field(
        |l| &mut l.sock_flags,
        "sock",
        &["__sk_common.skc_flags"],
        For::TcpSock,
    ),
    Field(
        |l| &mut l.tcp_copied,
        "tcp_sock",
        &["copied_seq"],
        For::TcpSock,
    ),
    Field(
        |l| &mut l.tcp_arrived,
        "tcp_sock",
        &["rcv_nxt"],
        For::TcpSock,
    ),
    Field(
        |l| &mut l.registers_system_call,
        "pt_regs",
        &["orig_ax", "syscallno"],
        For::TcpSock,
    ),
    Field(
        |l| &mut l.request_flags,
        "request",
        &["cmd_flags"],
        For::Block,
    ),
    Field(
        |l| &mut l.request_length,
        "request",
        &["__data_len"],
        For::Block,
    ),
    Field(
        |l| &mut l.task_cgroups,
        "task_struct",
        &["cgroups"],
        For::Cgroups,
    ),
    Field(|l| &mut l.cgroup_node, "cgroup", &["kn"], For::Cgroups),
    Field(|l| &mut l.node_id, "kernfs_node", &["id"], For::Cgroups),
];

/// Where a task's set of control groups has one of each controller, and their numbers.
const CSS_SET: &str = "css_set";
const STATE: &str = "cgroup_subsys_state";
const CONTROLLERS: &str = "cgroup_subsys_id";

/// A field that only kernels before Linux 6.5 have, which is no fault of later ones.
const SENDPAGE: (&str, &str) = ("proto", "sendpage");

/// Tracepoints whose arguments differ between kernels.
const EXIT: &str = "btf_trace_sched_process_exit";
const INSERT: &str = "btf_trace_block_rq_insert";
const ISSUE: &str = "btf_trace_block_rq_issue";
const REQUEUE: &str = "btf_trace_block_rq_requeue";

/// Where the running kernel keeps what the programs read.
#[derive(Clone, Debug)]
pub struct Resolved {
    /// The offsets, for the programs.
    pub layout: Layout,
    /// Fields that this kernel does not have, and what they are for.
    missing: Vec<(For, String)>,
    /// Number of arguments of those of [`hooks::functions`] that this kernel has.
    functions: HashMap<&'static str, u32>,
    /// Those of [`hooks::tracepoints`] that this kernel has.
    tracepoints: Vec<&'static str>,
}

impl Resolved {
    /// Whether all fields are there that serve a purpose.
    #[must_use]
    pub fn has(&self, purpose: For) -> bool {
        self.lacks(purpose).is_none()
    }

    /// The first field that is missing for a purpose.
    #[must_use]
    pub fn lacks(&self, purpose: For) -> Option<&str> {
        let mut missing = self.missing.iter();
        let (_, field) = missing.find(|(needed_for, _)| *needed_for == purpose)?;
        Some(field)
    }

    /// Whether this kernel has a tracepoint.
    #[must_use]
    pub fn has_tracepoint(&self, tracepoint: &str) -> bool {
        self.tracepoints.contains(&tracepoint)
    }

    /// Number of arguments of a function; `None` if this kernel does not have it.
    #[must_use]
    pub fn function_arguments(&self, function: &str) -> Option<u32> {
        self.functions.get(function).copied()
    }
}

/// Resolves every field from the kernel's BTF (`/sys/kernel/btf/vmlinux`).
///
/// # Errors
/// [`LayoutError`] if the BTF is malformed or a field that every program needs is missing.
pub fn resolve(data: &[u8], hierarchy: &Hierarchy) -> Result<Resolved, LayoutError> {
    let tracepoints: Vec<_> = hooks::tracepoints().collect();
    let mut names: Vec<&str> = vec![
        "task_struct",
        "signal_struct",
        "mm_struct",
        "sock",
        "socket",
        "tcp_sock",
        "pt_regs",
        "request",
        "cgroup",
        "kernfs_node",
        CSS_SET,
        STATE,
        CONTROLLERS,
        SENDPAGE.0,
        EXIT,
        INSERT,
        ISSUE,
        REQUEUE,
    ];
    for function in hooks::functions() {
        names.push(function);
    }
    names.extend(tracepoints.iter().map(|(_, described)| described.as_str()));
    let btf = Btf::parse(data, &names)?;
    let mut layout = Layout::UNKNOWN;
    let mut missing = Vec::new();
    for Field(slot, structure, paths, purpose) in FIELDS {
        let found = paths.iter().find_map(|path| btf.offset_of(structure, path));
        if let Some(offset) = found {
            *slot(&mut layout) = offset;
            continue;
        }
        let field = paths.first().copied().unwrap_or_default();
        if *purpose == For::Everything {
            return Err(LayoutError::Missing { structure, field });
        }
        missing.push((*purpose, format!("{structure}.{field}")));
    }
    if let Err(field) = resolve_cgroup(&btf, hierarchy, &mut layout) {
        layout.node_id = Layout::MISSING;
        missing.push((For::Cgroups, field));
    }
    if let Some(offset) = btf.offset_of(SENDPAGE.0, SENDPAGE.1) {
        layout.functions_sendpage = offset;
    }
    // The first argument of a BTF tracepoint's prototype is its private data.
    layout.exit_tells_process_dead = u32::from(btf.arguments(EXIT) == Some(3));
    let request_comes_second = |tracepoint| u32::from(btf.arguments(tracepoint) == Some(3));
    layout.insert_request = request_comes_second(INSERT);
    layout.issue_request = request_comes_second(ISSUE);
    layout.requeue_request = request_comes_second(REQUEUE);
    let functions = hooks::functions()
        .filter_map(|function| Some((function, btf.function_arguments(function)?)))
        .collect();
    let tracepoints = tracepoints
        .iter()
        .filter(|(_, described)| btf.arguments(described).is_some())
        .map(|(name, _)| *name)
        .collect();
    Ok(Resolved {
        layout,
        missing,
        functions,
        tracepoints,
    })
}

/// Finds where the control group of a task in `hierarchy` is.
///
/// # Errors
/// The field that this kernel does not have.
fn resolve_cgroup(btf: &Btf<'_>, hierarchy: &Hierarchy, layout: &mut Layout) -> Result<(), String> {
    let offset = |structure, path: &str| {
        let offset = btf.offset_of(structure, path);
        offset.ok_or_else(|| format!("{structure}.{path}"))
    };
    match hierarchy {
        Hierarchy::Unified => layout.css_set_cgroup = offset(CSS_SET, "dfl_cgrp")?,
        Hierarchy::Controller(name) => {
            let constant = format!("{name}_cgrp_id");
            let number = btf.enumerator(CONTROLLERS, &constant);
            let number = number.ok_or_else(|| format!("{CONTROLLERS}.{constant}"))?;
            layout.css_cgroup = offset(STATE, "cgroup")?;
            layout.css_set_cgroup = offset(CSS_SET, &format!("subsys[{number}]"))?;
        }
    }
    Ok(())
}
