//! For tests: adapters as their drivers show them.

use crate::collectors::fixture::Host;

/// ConnectX-7 with InfiniBand.
const MLX5_INFINIBAND: &[(&str, &str)] = &[
    ("board_id", "MT_0000000838"),
    ("fw_ver", "28.39.1002"),
    ("hca_type", "MT4129"),
    ("ports/1/state", "4: ACTIVE"),
    ("ports/1/phys_state", "5: LinkUp"),
    ("ports/1/rate", "400 Gb/sec (4X NDR)"),
    ("ports/1/link_layer", "InfiniBand"),
    ("ports/1/counters/VL15_dropped", "1"),
    ("ports/1/counters/excessive_buffer_overrun_errors", "2"),
    ("ports/1/counters/link_downed", "3"),
    ("ports/1/counters/link_error_recovery", "4"),
    ("ports/1/counters/local_link_integrity_errors", "5"),
    ("ports/1/counters/multicast_rcv_packets", "6"),
    ("ports/1/counters/multicast_xmit_packets", "7"),
    ("ports/1/counters/port_rcv_constraint_errors", "8"),
    ("ports/1/counters/port_rcv_data", "30000000000"),
    ("ports/1/counters/port_rcv_errors", "9"),
    ("ports/1/counters/port_rcv_packets", "110000000"),
    ("ports/1/counters/port_rcv_remote_physical_errors", "10"),
    ("ports/1/counters/port_rcv_switch_relay_errors", "11"),
    ("ports/1/counters/port_xmit_constraint_errors", "12"),
    ("ports/1/counters/port_xmit_data", "40000000000"),
    ("ports/1/counters/port_xmit_discards", "13"),
    ("ports/1/counters/port_xmit_packets", "120000000"),
    ("ports/1/counters/port_xmit_wait", "14"),
    ("ports/1/counters/symbol_error", "15"),
    ("ports/1/counters/unicast_rcv_packets", "16"),
    ("ports/1/counters/unicast_xmit_packets", "17"),
    ("ports/1/hw_counters/lifespan", "10"),
    ("ports/1/hw_counters/out_of_buffer", "18"),
];

/// The same chip with Ethernet, whose link is down.
const MLX5_ROCE: &[(&str, &str)] = &[
    ("board_id", "MT_0000000834"),
    ("fw_ver", "28.39.1002"),
    ("hca_type", "MT4129"),
    ("ports/1/state", "1: DOWN"),
    ("ports/1/phys_state", "3: Disabled"),
    ("ports/1/rate", "2.5 Gb/sec (1X SDR)"),
    ("ports/1/link_layer", "Ethernet"),
    ("ports/1/counters/port_rcv_data", "1000"),
    ("ports/1/counters/port_xmit_data", "2000"),
    ("ports/1/counters/port_rcv_packets", "30"),
    ("ports/1/counters/port_xmit_packets", "40"),
    ("ports/1/hw_counters/lifespan", "10"),
    ("ports/1/hw_counters/local_ack_timeout_err", "38"),
    ("ports/1/hw_counters/np_cnp_sent", "10284520"),
    (
        "ports/1/hw_counters/np_ecn_marked_roce_packets",
        "286733949",
    ),
    ("ports/1/hw_counters/out_of_sequence", "44"),
    ("ports/1/hw_counters/packet_seq_err", "1"),
    ("ports/1/hw_counters/rnr_nak_retry_err", "0"),
    ("ports/1/hw_counters/rp_cnp_handled", "5"),
    ("ports/1/hw_counters/rp_cnp_ignored", "0"),
    ("ports/1/hw_counters/rx_write_requests", "99"),
];

/// Intel E810, which has no counters of InfiniBand.
const IRDMA: &[(&str, &str)] = &[
    ("fw_ver", "1.54"),
    ("ports/1/state", "4: ACTIVE"),
    ("ports/1/phys_state", "5: LinkUp"),
    ("ports/1/rate", "100 Gb/sec (4X EDR)"),
    ("ports/1/hw_counters/RxECNMrkd", "7"),
    ("ports/1/hw_counters/cnpHandled", "8"),
    ("ports/1/hw_counters/cnpIgnored", "9"),
    ("ports/1/hw_counters/cnpSent", "10"),
    ("ports/1/hw_counters/ip4InDiscards", "11"),
    ("ports/1/hw_counters/ip4InOctets", "12000"),
    ("ports/1/hw_counters/ip4InPkts", "12"),
    ("ports/1/hw_counters/ip4OutOctets", "13000"),
    ("ports/1/hw_counters/ip4OutPkts", "13"),
    ("ports/1/hw_counters/ip6InOctets", "400"),
    ("ports/1/hw_counters/ip6InPkts", "4"),
    ("ports/1/hw_counters/ip6OutOctets", "500"),
    ("ports/1/hw_counters/ip6OutPkts", "5"),
];

/// Omni-Path, whose words are flits of 8 bytes, and whose driver refuses to count some things.
const HFI1: &[(&str, &str)] = &[
    (
        "board_id",
        "Intel Omni-Path Host Fabric Interface Adapter 100 Series",
    ),
    ("fw_ver", "1.27.0"),
    ("ports/1/state", "4: ACTIVE"),
    ("ports/1/phys_state", "5: LinkUp"),
    ("ports/1/rate", "100 Gb/sec (4X EDR)"),
    ("ports/1/counters/port_rcv_data", "100"),
    ("ports/1/counters/port_xmit_data", "200"),
    ("ports/1/counters/port_rcv_packets", "3"),
    ("ports/1/counters/port_xmit_packets", "N/A (no PMA)"),
];

/// Amazon's Elastic Fabric Adapter.
const EFA: &[(&str, &str)] = &[
    ("fw_ver", "0.0.0.0"),
    ("ports/1/state", "4: ACTIVE"),
    ("ports/1/phys_state", "5: LinkUp"),
    ("ports/1/rate", "100 Gb/sec (4X EDR)"),
    ("ports/1/hw_counters/rx_bytes", "600"),
    ("ports/1/hw_counters/rx_drops", "61"),
    ("ports/1/hw_counters/rx_pkts", "62"),
    ("ports/1/hw_counters/tx_bytes", "700"),
    ("ports/1/hw_counters/tx_pkts", "71"),
];

/// A ConnectX-3 under a kernel older than 4.5: 32 bits in `counters`, 64 beside them.
const MLX4: &[(&str, &str)] = &[
    ("board_id", "SM_1141000001000"),
    ("fw_ver", "2.31.5050"),
    ("hca_type", "MT4099"),
    ("ports/1/state", "4: ACTIVE"),
    ("ports/1/phys_state", "5: LinkUp"),
    ("ports/1/rate", "40 Gb/sec (4X QDR)"),
    ("ports/1/counters/port_rcv_data", "4294967295"),
    ("ports/1/counters_ext/port_rcv_data_64", "5000000000"),
    ("ports/1/counters_ext/port_rcv_packets_64", "8"),
    ("ports/1/counters_ext/port_unicast_rcv_packets", "9"),
    ("ports/2/state", "1: DOWN"),
    ("ports/2/phys_state", "2: Polling"),
    ("ports/2/rate", "10 Gb/sec (4X SDR)"),
    ("ports/2/counters/port_rcv_data", "0"),
];

/// A host with one of each of these: `mlx5_0`, `mlx5_1`, `irdma0`, `hfi1_0`, `efa_0`, `mlx4_0`.
pub(super) fn host(devices: &[&str]) -> Host {
    let host = Host::new(&[]);
    for device in devices {
        let files = match *device {
            "mlx5_0" => MLX5_INFINIBAND,
            "mlx5_1" => MLX5_ROCE,
            "irdma0" => IRDMA,
            "hfi1_0" => HFI1,
            "efa_0" => EFA,
            _ => MLX4,
        };
        for (file, text) in files {
            host.write(
                &format!("sys/class/infiniband/{device}/{file}"),
                format!("{text}\n"),
            );
        }
    }
    host
}
