//! Which family of the agent is which of node_exporter.

use esnode_tests::page::{Labels, Page};

use super::run::value;

/// Labels with their values; or names of labels here and there.
type Names = &'static [(&'static str, &'static str)];

/// A family of the agent, or a part of one, and what it is called there.
pub(super) struct Pair {
    pub(super) own: &'static str,
    /// Labels of this part alone, which there are in the name or in labels of other names.
    pub(super) own_labels: Names,
    pub(super) theirs: &'static str,
    /// A family that they count apart, and we with it.
    pub(super) and: Option<&'static str>,
    /// Names of labels here and there, where they differ.
    renamed: Names,
    /// What one of theirs is in ours.
    pub(super) unit: f64,
}

impl Pair {
    const fn new(own: &'static str, theirs: &'static str) -> Self {
        Self {
            own,
            own_labels: &[],
            theirs,
            and: None,
            renamed: &[],
            unit: 1.0,
        }
    }

    const fn part(mut self, labels: Names) -> Self {
        self.own_labels = labels;
        self
    }

    const fn renamed(mut self, labels: Names) -> Self {
        self.renamed = labels;
        self
    }

    const fn and(mut self, theirs: &'static str) -> Self {
        self.and = Some(theirs);
        self
    }

    const fn times(mut self, unit: f64) -> Self {
        self.unit = unit;
        self
    }

    /// The labels of one of our series, as they are there.
    pub(super) fn to_theirs(&self, own: &Labels) -> Labels {
        let there = |name: &str| {
            let is_part = self.own_labels.iter().any(|(part, _)| *part == name);
            let renamed = self.renamed.iter().find(|(own, _)| *own == name);
            let there = renamed.map_or(name, |(_, there)| there).to_owned();
            (!is_part).then_some(there)
        };
        own.iter()
            .filter_map(|(name, value)| Some((there(name)?, value.clone())))
            .collect()
    }

    /// The labels of one of their series, as they are here.
    pub(super) fn to_own(&self, theirs: &Labels) -> Labels {
        let here = |name: &str| {
            let renamed = self.renamed.iter().find(|(_, there)| *there == name);
            renamed.map_or(name, |(own, _)| own).to_owned()
        };
        let part = self.own_labels.iter();
        theirs
            .iter()
            .map(|(name, value)| (here(name), value.clone()))
            .chain(part.map(|&(name, value)| (name.to_owned(), value.to_owned())))
            .collect()
    }
}

const CORE: Names = &[("core", "cpu")];
const MOUNT: Names = &[("mount", "mountpoint")];
const IFACE: Names = &[("iface", "device")];
const MASTER: Names = &[("iface", "master")];
const CPU: Names = &[("resource", "cpu")];
const IO: Names = &[("resource", "io")];
const MEMORY: Names = &[("resource", "memory")];

/// Every family of the agent that node_exporter has too, if by another name.
#[rustfmt::skip]
pub(super) const PAIRS: &[Pair] = &[
    Pair::new("esnode_cpu_time_seconds_total", "node_cpu_seconds_total")
        .renamed(&[("core", "cpu"), ("state", "mode")]),
    Pair::new("esnode_cpu_context_switches_total", "node_context_switches_total"),
    Pair::new("esnode_cpu_interrupts_total", "node_intr_total"),
    Pair::new("esnode_cpu_forks_total", "node_forks_total"),
    Pair::new("esnode_cpu_tasks", "node_procs_running").part(&[("state", "running")]),
    Pair::new("esnode_cpu_tasks", "node_procs_blocked").part(&[("state", "blocked")]),
    Pair::new("esnode_cpu_frequency_mhz", "node_cpu_scaling_frequency_hertz")
        .renamed(CORE).times(1e-6),
    Pair::new("esnode_cpu_frequency_max_mhz", "node_cpu_frequency_max_hertz")
        .renamed(CORE).times(1e-6),
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

    Pair::new("esnode_disk_total_bytes", "node_filesystem_size_bytes").renamed(MOUNT),
    Pair::new("esnode_disk_free_bytes", "node_filesystem_free_bytes").renamed(MOUNT),
    Pair::new("esnode_disk_available_bytes", "node_filesystem_avail_bytes").renamed(MOUNT),
    Pair::new("esnode_disk_inodes", "node_filesystem_files").renamed(MOUNT),
    Pair::new("esnode_disk_inodes_free", "node_filesystem_files_free").renamed(MOUNT),
    Pair::new("esnode_disk_readonly", "node_filesystem_readonly").renamed(MOUNT),

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
    Pair::new("esnode_md_raid_disks", "node_md_disks_required"),

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
    Pair::new("esnode_network_carrier_changes_total", "node_network_carrier_changes_total")
        .renamed(IFACE),
    Pair::new("esnode_network_bond_slaves", "node_bonding_slaves").renamed(MASTER),
    Pair::new("esnode_network_bond_slaves_active", "node_bonding_active").renamed(MASTER),
    Pair::new("esnode_network_softnet_processed_total", "node_softnet_processed_total")
        .renamed(CORE),
    Pair::new("esnode_network_softnet_dropped_total", "node_softnet_dropped_total").renamed(CORE),
    Pair::new("esnode_network_softnet_squeezed_total", "node_softnet_times_squeezed_total")
        .renamed(CORE),
    Pair::new("esnode_network_conntrack_entries", "node_nf_conntrack_entries"),
    Pair::new("esnode_network_conntrack_limit", "node_nf_conntrack_entries_limit"),
    Pair::new("esnode_network_conntrack_drops_total", "node_nf_conntrack_stat_drop"),
    Pair::new("esnode_network_conntrack_early_drops_total", "node_nf_conntrack_stat_early_drop"),
    Pair::new("esnode_network_sockets", "node_sockstat_TCP_inuse").and("node_sockstat_TCP6_inuse")
        .part(&[("protocol", "tcp"), ("state", "in_use")]),
    Pair::new("esnode_network_sockets", "node_sockstat_TCP_orphan")
        .part(&[("protocol", "tcp"), ("state", "orphan")]),
    Pair::new("esnode_network_sockets", "node_sockstat_TCP_tw")
        .part(&[("protocol", "tcp"), ("state", "time_wait")]),
    Pair::new("esnode_network_sockets", "node_sockstat_TCP_alloc")
        .part(&[("protocol", "tcp"), ("state", "allocated")]),
    Pair::new("esnode_network_sockets", "node_sockstat_UDP_inuse").and("node_sockstat_UDP6_inuse")
        .part(&[("protocol", "udp"), ("state", "in_use")]),
    Pair::new("esnode_network_socket_memory_bytes", "node_sockstat_TCP_mem_bytes")
        .part(&[("protocol", "tcp")]),
    Pair::new("esnode_network_socket_memory_bytes", "node_sockstat_UDP_mem_bytes")
        .part(&[("protocol", "udp")]),
    Pair::new("esnode_network_udp_errors_total", "node_netstat_Udp_InErrors")
        .and("node_netstat_Udp6_InErrors"),
    Pair::new("esnode_network_tcp_retransmits_total", "node_netstat_Tcp_RetransSegs"),
    Pair::new("esnode_network_tcp_resets_total", "node_netstat_Tcp_OutRsts"),
    Pair::new("esnode_network_tcp_connections", "node_netstat_Tcp_CurrEstab"),
    Pair::new("esnode_network_listen_overflows_total", "node_netstat_TcpExt_ListenOverflows"),

    Pair::new("esnode_infiniband_rx_bytes_total", "node_infiniband_port_data_received_bytes_total"),
    Pair::new("esnode_infiniband_tx_bytes_total",
        "node_infiniband_port_data_transmitted_bytes_total"),
    Pair::new("esnode_infiniband_rate_bytes", "node_infiniband_rate_bytes_per_second"),

    Pair::new("esnode_node_open_files", "node_filefd_allocated"),
    Pair::new("esnode_node_open_files_limit", "node_filefd_maximum"),
    Pair::new("esnode_node_boot_time_seconds", "node_boot_time_seconds"),
    Pair::new("esnode_node_time_seconds", "node_time_seconds"),
    Pair::new("esnode_node_clock_synchronized", "node_timex_sync_status"),
    Pair::new("esnode_node_clock_offset_seconds", "node_timex_offset_seconds"),
    Pair::new("esnode_node_clock_max_error_seconds", "node_timex_maxerror_seconds"),
    Pair::new("esnode_node_clock_estimated_error_seconds", "node_timex_estimated_error_seconds"),
];

/// Families of the agent, or parts of them, whose values node_exporter doesn't have, and why they
/// can't be compared.
#[rustfmt::skip]
pub(super) const OWN_ONLY: &[(&str, Names, &str)] = &[
    ("esnode_cpu_usage_percent", &[], "of the agent's own interval"),
    ("esnode_cpu_throttles_total", &[], "by scope, where there is a family for each there"),
    ("esnode_memory_used_bytes", &[], "a difference of two others"),
    ("esnode_swap_used_bytes", &[], "a difference of two others"),
    ("esnode_memory_huge_pages_total_bytes", &[], "bytes, where there are pages there"),
    ("esnode_memory_huge_pages_free_bytes", &[], "the same"),
    ("esnode_memory_huge_pages_reserved_bytes", &[], "the same"),
    ("esnode_memory_page_faults_total", &[("kind", "minor")], "all faults less the major ones"),
    ("esnode_numa_memory_total_bytes", &[], "not among its default collectors"),
    ("esnode_numa_memory_free_bytes", &[], "the same"),
    ("esnode_numa_memory_used_bytes", &[], "the same"),
    ("esnode_numa_allocations_total", &[], "the same"),
    ("esnode_pressure_stalled_seconds_total", &[("resource", "irq")], "from version 1.8 on"),
    ("esnode_pressure_stalled_seconds_total", &[("resource", "cpu")], "never read there"),
    ("esnode_disk_used_bytes", &[], "a difference of two others"),
    ("esnode_disk_stuck", &[], "together in node_filesystem_device_error there"),
    ("esnode_disk_error", &[], "the same"),
    ("esnode_md_degraded_disks", &[], "a difference of two others"),
    ("esnode_md_state", &[], "more states than there"),
    ("esnode_md_sync_completed_percent", &[], "blocks of the array there"),
    ("esnode_infiniband_link_up", &[], "a number for each state there"),
    ("esnode_infiniband_rx_packets_total", &[], "several kinds of packets there"),
    ("esnode_infiniband_tx_packets_total", &[], "the same"),
    ("esnode_infiniband_errors_total", &[], "a family for each kind there"),
    ("esnode_infiniband_congestion_total", &[], "not there"),
    ("esnode_infiniband_tx_wait_ticks_total", &[], "not there by default"),
    ("esnode_node_info", &[], "other labels: see node_uname_info, node_os_info"),
    ("esnode_node_uptime_seconds", &[], "not there"),
];

/// Families of sensors: node_exporter has them by other labels, of paths in `/sys`.
pub(super) const SENSORS: &[&str] = &[
    "esnode_cooling_device_",
    "esnode_cpu_package_",
    "esnode_dram_",
    "esnode_hwmon_",
    "esnode_memory_controller_",
    "esnode_memory_dimm_",
    "esnode_memory_ecc_",
    "esnode_node_energy_joules_total",
    "esnode_node_power_watts",
    "esnode_thermal_zone_",
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
    // An array that is inactive does not say what it should have; 0 there.
    ("esnode_md_raid_disks", |page, labels| {
        let Some(device) = labels.get("device") else {
            return false;
        };
        let inactive = [("device", device.as_str()), ("state", "inactive")];
        page.value("node_md_state", &inactive) == Some(1.0)
    }),
];

/// What the agent tells of itself, and the names of node_exporter.
pub(super) const AGENT: &[&str] = &[
    "esnode_agent_",
    "esnode_attribution_",
    "esnode_collector_",
    "esnode_passes_total",
    "esnode_scrapes_total",
    "node_",
    "process_",
];
