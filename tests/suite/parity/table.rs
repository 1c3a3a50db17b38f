//! Which family of the agent is which of node_exporter.

use esnode_tests::page::{Labels, Page};

use super::run::value;

/// A family of the agent, or a part of one, and what it is called there.
pub(super) struct Pair {
    pub(super) own: &'static str,
    /// Labels of this part alone, which there are in the name or in labels of other names.
    pub(super) own_labels: &'static [(&'static str, &'static str)],
    pub(super) theirs: &'static str,
    pub(super) their_labels: &'static [(&'static str, &'static str)],
    /// Names of labels here and there, where they differ.
    renamed: &'static [(&'static str, &'static str)],
    /// What one of theirs is in ours.
    pub(super) unit: f64,
}

impl Pair {
    const fn new(own: &'static str, theirs: &'static str) -> Self {
        Self {
            own,
            own_labels: &[],
            theirs,
            their_labels: &[],
            renamed: &[],
            unit: 1.0,
        }
    }

    const fn part(mut self, labels: &'static [(&'static str, &'static str)]) -> Self {
        self.own_labels = labels;
        self
    }

    const fn renamed(mut self, labels: &'static [(&'static str, &'static str)]) -> Self {
        self.renamed = labels;
        self
    }

    const fn times(mut self, unit: f64) -> Self {
        self.unit = unit;
        self
    }

    /// The labels of one of our series, as they are there.
    pub(super) fn to_theirs(&self, own: &Labels) -> Labels {
        translate(own, self.own_labels, self.their_labels, self.renamed)
    }

    /// The labels of one of their series, as they are here.
    pub(super) fn to_own(&self, theirs: &Labels) -> Labels {
        let renamed = self.renamed.iter().map(|&(own, theirs)| (theirs, own));
        let renamed: Vec<_> = renamed.collect();
        translate(theirs, self.their_labels, self.own_labels, &renamed)
    }
}

/// Takes some labels away, renames the others, and adds some.
fn translate(
    labels: &Labels,
    without: &[(&str, &str)],
    with: &[(&str, &str)],
    renamed: &[(&str, &str)],
) -> Labels {
    let taken = |name: &str| without.iter().any(|(it, _)| *it == name);
    let kept = labels.iter().filter(|(name, _)| !taken(name));
    let kept = kept.map(|(name, value)| {
        let other = renamed.iter().find(|(from, _)| from == name);
        (other.map_or(name.as_str(), |(_, to)| *to), value.as_str())
    });
    kept.chain(with.iter().copied())
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

const IFACE: &[(&str, &str)] = &[("iface", "device")];
const CPU: &[(&str, &str)] = &[("resource", "cpu")];
const IO: &[(&str, &str)] = &[("resource", "io")];
const MEMORY: &[(&str, &str)] = &[("resource", "memory")];

/// Every family of the agent that node_exporter has too, if by another name.
#[rustfmt::skip]
pub(super) const PAIRS: &[Pair] = &[
    Pair::new("esnode_cpu_time_seconds_total", "node_cpu_seconds_total")
        .renamed(&[("core", "cpu"), ("state", "mode")]),
    Pair::new("esnode_cpu_context_switches_total", "node_context_switches_total"),
    Pair::new("esnode_cpu_interrupts_total", "node_intr_total"),
    Pair::new("esnode_cpu_forks_total", "node_forks_total"),
    Pair::new("esnode_cpu_load_avg_1m", "node_load1"),
    Pair::new("esnode_cpu_load_avg_5m", "node_load5"),
    Pair::new("esnode_cpu_load_avg_15m", "node_load15"),

    Pair::new("esnode_pressure_waiting_seconds_total", "node_pressure_cpu_waiting_seconds_total")
        .part(CPU),
    Pair::new("esnode_pressure_waiting_seconds_total", "node_pressure_io_waiting_seconds_total")
        .part(IO),
    Pair::new("esnode_pressure_stalled_seconds_total", "node_pressure_io_stalled_seconds_total")
        .part(IO),
    Pair::new("esnode_pressure_waiting_seconds_total", "node_pressure_memory_waiting_seconds_total")
        .part(MEMORY),
    Pair::new("esnode_pressure_stalled_seconds_total", "node_pressure_memory_stalled_seconds_total")
        .part(MEMORY),

    Pair::new("esnode_memory_total_bytes", "node_memory_MemTotal_bytes"),
    Pair::new("esnode_memory_free_bytes", "node_memory_MemFree_bytes"),
    Pair::new("esnode_memory_available_bytes", "node_memory_MemAvailable_bytes"),
    Pair::new("esnode_memory_buffers_bytes", "node_memory_Buffers_bytes"),
    Pair::new("esnode_memory_cached_bytes", "node_memory_Cached_bytes"),
    Pair::new("esnode_memory_dirty_bytes", "node_memory_Dirty_bytes"),
    Pair::new("esnode_memory_writeback_bytes", "node_memory_Writeback_bytes"),
    Pair::new("esnode_memory_slab_bytes", "node_memory_Slab_bytes"),
    Pair::new("esnode_memory_shared_bytes", "node_memory_Shmem_bytes"),
    Pair::new("esnode_swap_total_bytes", "node_memory_SwapTotal_bytes"),
    Pair::new("esnode_swap_free_bytes", "node_memory_SwapFree_bytes"),
    Pair::new("esnode_memory_page_in_bytes_total", "node_vmstat_pgpgin").times(1024.0),
    Pair::new("esnode_memory_page_out_bytes_total", "node_vmstat_pgpgout").times(1024.0),
    Pair::new("esnode_memory_page_faults_total", "node_vmstat_pgmajfault")
        .part(&[("kind", "major")]),
    Pair::new("esnode_memory_oom_kills_total", "node_vmstat_oom_kill"),

    Pair::new("esnode_disk_read_bytes_total", "node_disk_read_bytes_total"),
    Pair::new("esnode_disk_written_bytes_total", "node_disk_written_bytes_total"),
    Pair::new("esnode_disk_read_ops_total", "node_disk_reads_completed_total"),
    Pair::new("esnode_disk_write_ops_total", "node_disk_writes_completed_total"),
    Pair::new("esnode_disk_discards_total", "node_disk_discards_completed_total"),
    Pair::new("esnode_disk_flushes_total", "node_disk_flush_requests_total"),
    Pair::new("esnode_disk_read_seconds_total", "node_disk_read_time_seconds_total"),
    Pair::new("esnode_disk_write_seconds_total", "node_disk_write_time_seconds_total"),
    Pair::new("esnode_disk_io_seconds_total", "node_disk_io_time_seconds_total"),
    Pair::new("esnode_disk_io_weighted_seconds_total", "node_disk_io_time_weighted_seconds_total"),
    Pair::new("esnode_disk_io_in_progress", "node_disk_io_now"),

    Pair::new("esnode_network_rx_bytes_total", "node_network_receive_bytes_total").renamed(IFACE),
    Pair::new("esnode_network_rx_packets_total", "node_network_receive_packets_total")
        .renamed(IFACE),
    Pair::new("esnode_network_rx_errors_total", "node_network_receive_errs_total").renamed(IFACE),
    Pair::new("esnode_network_rx_dropped_total", "node_network_receive_drop_total").renamed(IFACE),
    Pair::new("esnode_network_tx_bytes_total", "node_network_transmit_bytes_total").renamed(IFACE),
    Pair::new("esnode_network_tx_packets_total", "node_network_transmit_packets_total")
        .renamed(IFACE),
    Pair::new("esnode_network_tx_errors_total", "node_network_transmit_errs_total").renamed(IFACE),
    Pair::new("esnode_network_tx_dropped_total", "node_network_transmit_drop_total")
        .renamed(IFACE),
    Pair::new("esnode_network_up", "node_network_up").renamed(IFACE),
    Pair::new("esnode_network_speed_bytes", "node_network_speed_bytes").renamed(IFACE),
    Pair::new("esnode_network_tcp_retransmits_total", "node_netstat_Tcp_RetransSegs"),
    Pair::new("esnode_network_tcp_resets_total", "node_netstat_Tcp_OutRsts"),
    Pair::new("esnode_network_tcp_connections", "node_netstat_Tcp_CurrEstab"),
    Pair::new("esnode_network_listen_overflows_total", "node_netstat_TcpExt_ListenOverflows"),

    Pair::new("esnode_node_boot_time_seconds", "node_boot_time_seconds"),
    Pair::new("esnode_node_time_seconds", "node_time_seconds"),
];

/// Families of the agent whose values node_exporter doesn't have, and why they can't be compared.
pub(super) const OWN_ONLY: &[(&str, &str)] = &[
    ("esnode_cpu_usage_percent", "of the agent's own interval"),
    ("esnode_memory_used_bytes", "a difference of two others"),
    ("esnode_swap_used_bytes", "a difference of two others"),
    (
        "esnode_memory_huge_pages_total_bytes",
        "bytes, where there are pages there",
    ),
    ("esnode_memory_huge_pages_free_bytes", "the same"),
    ("esnode_memory_huge_pages_reserved_bytes", "the same"),
    (
        "esnode_network_udp_errors_total",
        "a sum over IPv4 and IPv6",
    ),
    (
        "esnode_node_info",
        "other labels: see node_uname_info, node_os_info",
    ),
];

/// Whether node_exporter's page says that something isn't known of what has these labels.
type IsUnknown = fn(&Page, &Labels) -> bool;

/// Series of ours that are absent where node_exporter has a value for what isn't known: absent beats
/// zero. By whether node_exporter's page has such a value.
pub(super) const UNKNOWN: &[(&str, IsUnknown)] = &[
    // The kernel gives -1 where the link is down, or virtual; -1 Mbit/s there.
    ("esnode_network_speed_bytes", |page, labels| {
        value(page, "node_network_speed_bytes", labels).is_some_and(|speed| speed < 0.0)
    }),
    // Such as `lo`, whose driver tells the kernel nothing; down there.
    ("esnode_network_up", |page, labels| {
        let Some(device) = labels.get("device") else {
            return false;
        };
        let unknown = [("device", device.as_str()), ("operstate", "unknown")];
        page.value("node_network_info", &unknown).is_some()
    }),
];

/// What the agent tells of itself.
pub(super) const AGENT: &[&str] = &[
    "esnode_agent_",
    "esnode_attribution_",
    "esnode_collector_",
    "esnode_passes_total",
    "esnode_scrapes_total",
    "process_",
];
