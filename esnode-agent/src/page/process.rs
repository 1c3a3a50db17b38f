//! Families of processes, groups, and how they were measured.

mod describe;

use super::{Encode, Page, energy, gpu, identity, latency};
use crate::{
    api::Snapshot,
    bpf::{MapStatus, ProgramStatus},
    ladder::{Rung, Signal},
    process::{
        Disk, Process, Usage, collector::ProcessFacts, label, named::NamedGroup, table::Source,
    },
};
use esnode_ebpf::{Protocol, Traffic};
use std::fmt;

/// Labels that every series of a process or of a group begins with.
#[derive(Clone, Copy)]
enum Owner<'a> {
    Process { pid: &'a str, comm: &'a str },
    Group { group: &'a str },
}

/// [`Owner`] and possibly a protocol, as a label set.
#[derive(Clone, Copy)]
struct Labels<'a>(Owner<'a>, Option<&'static str>);

impl prometheus_client::encoding::EncodeLabelSet for Labels<'_> {
    fn encode(
        &self,
        encoder: &mut prometheus_client::encoding::LabelSetEncoder<'_>,
    ) -> fmt::Result {
        use prometheus_client::encoding::EncodeLabel;
        match self.0 {
            Owner::Process { pid, comm } => {
                ("pid", pid).encode(encoder.encode_label())?;
                ("comm", comm).encode(encoder.encode_label())?;
            }
            Owner::Group { group } => ("group", group).encode(encoder.encode_label())?,
        }
        self.1.map_or(Ok(()), |protocol| {
            ("protocol", protocol).encode(encoder.encode_label())
        })
    }
}

/// One row of the families that processes and groups have in common.
struct Row<'a> {
    owner: Owner<'a>,
    usage: &'a Usage,
    resident_bytes: Option<u64>,
    threads: u64,
}

impl Encode for ProcessFacts {
    fn encode(&self, page: &mut Page<'_>) -> fmt::Result {
        let names: Vec<_> = self
            .shown
            .iter()
            .map(|process| (process.key.pid.to_string(), label(process.name)))
            .collect();
        self.encode_info(page, &names)?;
        let rows: Vec<_> = self
            .shown
            .iter()
            .zip(&names)
            .map(|(process, (pid, comm))| Row {
                owner: Owner::Process { pid, comm },
                usage: &process.usage,
                resident_bytes: process.resident_bytes,
                threads: process.threads.into(),
            })
            .collect();
        let calls = self.knows_calls();
        encode_usage(page, "process", "the process", &rows, calls)?;
        let on_gpus = self.gpus.processes.iter();
        let rows: Vec<_> = on_gpus
            .filter_map(|(place, gpu, process)| {
                let (pid, comm) = names.get(*place)?;
                Some((pid.as_str(), comm.as_str(), &**gpu, process))
            })
            .collect();
        gpu::encode_processes(page, &rows)?;

        let rows: Vec<_> = self
            .groups
            .iter()
            .map(|NamedGroup { label, group, .. }| Row {
                owner: Owner::Group { group: label },
                usage: &group.usage,
                resident_bytes: group.resident_bytes,
                threads: group.threads,
            })
            .collect();
        encode_usage(
            page,
            "group",
            "all processes of the group, ended ones too,",
            &rows,
            calls,
        )?;
        let on_gpus = self.gpus.groups.iter();
        let rows: Vec<_> = on_gpus
            .map(|(group, gpu, used)| (&**group, &**gpu, *used))
            .collect();
        gpu::encode_groups(page, &rows)?;
        if let Some(shares) = &self.energy {
            energy::encode(page, shares, &names)?;
        }
        self.encode_lifetimes(page)?;
        if let Some(disk) = &self.latency {
            latency::encode(page, disk, &self.shown, &self.groups)?;
        }
        self.encode_attribution(page)?;
        encode_programs(page, &self.programs)?;
        encode_maps(page, &self.maps)?;
        page.single_counter(
            "esnode_bpf_missed_returns",
            "Sends and receives whose return no kretprobe saw, as too many were on their way: \
             their bytes are unknown",
            self.missed_returns,
        )
    }

    fn describe(&self, snapshot: &mut Snapshot) {
        snapshot.processes = describe::describe(self);
        snapshot.processes_not_selected = Some(self.hidden as u64);
    }
}

impl ProcessFacts {
    fn encode_info(&self, page: &mut Page<'_>, names: &[(String, String)]) -> fmt::Result {
        identity::encode_processes(
            page,
            self.shown
                .iter()
                .enumerate()
                .filter_map(|(place, process)| {
                    let (pid, comm) = names.get(place)?;
                    Some(identity::Row {
                        pid,
                        comm,
                        group: self.labels.get(place)?,
                        identity: self.identities.get(place)?,
                        start_time: self.start_time(process),
                    })
                }),
        )?;
        identity::encode_groups(page, &self.members)?;
        identity::encode_containers(page, self.identities.iter().chain(self.members.values()))?;
        page.gauge(
            "esnode_processes",
            "Live processes, by whether they have series of their own on this page",
            [("true", self.shown.len()), ("false", self.hidden)]
                .map(|(selected, count)| ([("selected", selected)], count)),
        )
    }

    /// Whether the rung of the network counts calls, not only bytes.
    fn knows_calls(&self) -> bool {
        let by_sockets = |source: &Source| {
            source.signal == Signal::Network && source.rung == Some(Rung::SockDiag)
        };
        !self.sources.iter().any(by_sockets)
    }

    /// Start of a process in seconds since 1970; `None` if the boot time is unknown.
    fn start_time_seconds(&self, process: &Process) -> Option<f64> {
        let boot = self.boot_time_seconds;
        boot.map(|boot| process.key.start_time_seconds(boot))
    }

    /// The same as a label; empty if it is unknown.
    fn start_time(&self, process: &Process) -> String {
        let start = self.start_time_seconds(process);
        start.map_or_else(String::new, |start| format!("{start:.6}"))
    }

    fn encode_lifetimes(&self, page: &mut Page<'_>) -> fmt::Result {
        let labels = |named: &NamedGroup| [("group", named.label.clone())];
        let groups = || self.groups.iter();
        page.gauge(
            "esnode_group_processes",
            "Live processes of the group",
            groups().map(|named| (labels(named), named.group.processes)),
        )?;
        page.counter(
            "esnode_group_started",
            "Processes that began under the group's name, or took it by exec or rename, since the \
             agent started",
            groups().map(|named| (labels(named), named.group.started)),
        )?;
        page.counter(
            "esnode_group_exited",
            "Processes that ended under the group's name since the agent started",
            groups().map(|named| (labels(named), named.group.exited)),
        )
    }

    fn encode_attribution(&self, page: &mut Page<'_>) -> fmt::Result {
        page.counter(
            "esnode_unattributed_bytes",
            "Bytes that a hook saw and no group got, by what they are and why; groups and these \
             add up to all that the hooks saw",
            self.unattributed.iter().map(|lost| {
                (
                    [("signal", lost.signal), ("reason", lost.reason)],
                    lost.bytes,
                )
            }),
        )?;
        page.gauge(
            "esnode_attribution_source",
            "Where a signal is read, none if nowhere; always 1",
            self.sources
                .iter()
                .map(|source| (source_labels(*source), 1_u32)),
        )?;
        page.counter(
            "esnode_listener_overruns",
            "Times that the kernel told of more than was taken in, so that at least one record of \
             this source was lost",
            self.overruns
                .iter()
                .map(|(rung, count)| ([("source", rung.to_string())], *count)),
        )?;
        page.gauge(
            "esnode_network_namespaces",
            "Network namespaces of processes, by whether their sockets are read",
            self.namespaces.iter().flat_map(|namespaces| {
                [
                    ("true", Some(namespaces.read)),
                    ("false", namespaces.refused),
                ]
                .into_iter()
                .filter_map(|(read, count)| Some(([("read", read)], count?)))
            }),
        )?;
        page.single_gauge(
            "esnode_processes_malformed",
            "Processes that are left out because their /proc/PID/stat makes no sense",
            self.malformed,
        )
    }
}

fn source_labels(source: Source) -> [(&'static str, String); 2] {
    let rung = source
        .rung
        .map_or_else(|| "none".to_owned(), |rung| rung.to_string());
    [("signal", source.signal.to_string()), ("source", rung)]
}

/// A family: what its name says, how its help begins, and its number.
type Column<T> = (&'static str, &'static str, fn(&T) -> u64);

/// The families that processes and groups share; `prefix` is `process` or `group`.
/// Without `calls` the numbers of calls are unknown.
fn encode_usage(
    page: &mut Page<'_>,
    prefix: &str,
    whose: &str,
    rows: &[Row<'_>],
    calls: bool,
) -> fmt::Result {
    fn plain<'a>(row: &Row<'a>) -> Labels<'a> {
        Labels(row.owner, None)
    }
    page.counter(
        &format!("esnode_{prefix}_cpu_seconds"),
        &format!("User and system time of {whose} ended threads included, from the scheduler"),
        rows.iter()
            .map(|row| (plain(row), seconds(row.usage.cpu_nanoseconds))),
    )?;
    page.gauge(
        &format!("esnode_{prefix}_resident_memory_bytes"),
        &format!("Resident memory of {whose}: files, anonymous and shared pages"),
        rows.iter()
            .filter_map(|row| Some((plain(row), row.resident_bytes?))),
    )?;
    page.gauge(
        &format!("esnode_{prefix}_threads"),
        &format!("Live threads of {whose}"),
        rows.iter().map(|row| (plain(row), row.threads)),
    )?;
    let disk: [Column<Disk>; 3] = [
        ("read", "read from storage for", |disk| disk.read_bytes),
        ("write", "dirtied or written directly by", |disk| {
            disk.write_bytes
        }),
        (
            "cancelled_write",
            "written, but truncated before they reached storage, by",
            |disk| disk.cancelled_write_bytes,
        ),
    ];
    // The kernel adds the account of a child that was waited for to its parent's.
    let account = match prefix {
        "process" => "as in /proc/PID/io, children that it waited for included",
        _ => "each counted once, by the account of /proc/PID/io",
    };
    for (what, help, number) in disk {
        page.counter(
            &format!("esnode_{prefix}_disk_{what}_bytes"),
            &format!("Bytes {help} {whose} {account}"),
            rows.iter()
                .filter_map(|row| Some((plain(row), number(row.usage.disk.as_ref()?)))),
        )?;
    }
    let network: [Column<Traffic>; 4] = [
        ("receive_bytes", "Payload bytes received by", |traffic| {
            traffic.receive_bytes
        }),
        ("transmit_bytes", "Payload bytes sent by", |traffic| {
            traffic.transmit_bytes
        }),
        ("receives", "Successful receive calls of", |traffic| {
            traffic.receives
        }),
        ("transmits", "Successful send calls of", |traffic| {
            traffic.transmits
        }),
    ];
    for (what, help, number) in network.into_iter().take(if calls { 4 } else { 2 }) {
        page.counter(
            &format!("esnode_{prefix}_network_{what}"),
            &format!("{help} {whose} since the agent started, from the socket layer"),
            rows.iter().flat_map(|row| {
                let network = row.usage.network.iter().flat_map(|network| network.iter());
                let used = network
                    .zip(Protocol::ALL)
                    .filter(|(traffic, _)| is_used(traffic));
                used.map(move |(traffic, protocol)| {
                    let labels = Labels(row.owner, Some(protocol_label(protocol)));
                    (labels, number(traffic))
                })
            }),
        )?;
    }
    Ok(())
}

#[expect(
    clippy::cast_precision_loss,
    reason = "nanoseconds of a century are below 2^62"
)]
fn seconds(nanoseconds: u64) -> f64 {
    nanoseconds as f64 / 1e9
}

/// Whether a protocol was ever used, in either direction. Series for the others would be most
/// of the page, and say nothing.
fn is_used(traffic: &Traffic) -> bool {
    traffic != &Traffic::default()
}

fn protocol_label(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
        Protocol::Unix => "unix",
        Protocol::Other => "other",
    }
}

fn encode_programs(page: &mut Page<'_>, programs: &[ProgramStatus]) -> fmt::Result {
    page.gauge(
        "esnode_bpf_program_info",
        "A BPF program of the agent and what it is attached to; always 1",
        programs.iter().map(|program| {
            (
                [
                    ("program", program.program.as_str()),
                    ("attach", program.attach.as_str()),
                ],
                1_u32,
            )
        }),
    )?;
    page.counter(
        "esnode_bpf_program_misses",
        "Events that a BPF program did not see, as its CPU was in the middle of it already, for a \
         preempted task",
        programs.iter().filter_map(|program| {
            Some((
                [("program", program.program.as_str())],
                program.counters.misses?,
            ))
        }),
    )?;
    let timed = || {
        let timed = programs.iter().filter(|program| program.timed);
        timed.map(|program| ([("program", program.program.as_str())], program.counters))
    };
    page.counter(
        "esnode_bpf_program_runs",
        "Runs of a BPF program, while the kernel counts them (kernel.bpf_stats_enabled)",
        timed().map(|(labels, counters)| (labels, counters.runs)),
    )?;
    page.counter(
        "esnode_bpf_program_run_seconds",
        "Time in a BPF program, while the kernel counts it (kernel.bpf_stats_enabled)",
        timed().map(|(labels, counters)| (labels, seconds(counters.nanoseconds))),
    )
}

fn encode_maps(page: &mut Page<'_>, maps: &[MapStatus]) -> fmt::Result {
    let labels = |map: &MapStatus| [("map", map.map)];
    page.gauge(
        "esnode_bpf_map_entries",
        "Entries of a BPF map that this scrape met",
        maps.iter()
            .filter_map(|map| Some((labels(map), map.entries?))),
    )?;
    page.gauge(
        "esnode_bpf_map_capacity",
        "Entries that a BPF map can hold",
        maps.iter().map(|map| (labels(map), map.capacity)),
    )?;
    page.counter(
        "esnode_bpf_map_refused",
        "Entries that a full BPF map refused",
        maps.iter().map(|map| (labels(map), map.refused)),
    )
}
