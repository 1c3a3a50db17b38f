//! InfiniBand by the names of this agent.

use super::Port;
use crate::page::Page;
use std::fmt;

/// `ACTIVE` of `state`.
const ACTIVE: u64 = 4;

/// A family: name without `_total`, meaning, and where it is from. The first source is taken that
/// the port has; files of one source add up.
type Family = (
    &'static str,
    &'static str,
    &'static [&'static [&'static str]],
);

const FAMILIES: [Family; 5] = [
    (
        "esnode_infiniband_rx_bytes",
        "Bytes that the port received, port_rcv_data of /sys/class/infiniband in words of 4 bytes \
         (Omni-Path: 8), or else the driver's own count in hw_counters",
        &[
            &["port_rcv_data_64"],
            &["port_rcv_data"],
            &["rx_bytes"],
            &["ip4InOctets", "ip6InOctets"],
        ],
    ),
    (
        "esnode_infiniband_tx_bytes",
        "Bytes that the port sent, port_xmit_data of /sys/class/infiniband in words of 4 bytes \
         (Omni-Path: 8), or else the driver's own count in hw_counters",
        &[
            &["port_xmit_data_64"],
            &["port_xmit_data"],
            &["tx_bytes"],
            &["ip4OutOctets", "ip6OutOctets"],
        ],
    ),
    (
        "esnode_infiniband_rx_packets",
        "Packets that the port received, port_rcv_packets of /sys/class/infiniband, or else the \
         driver's own count in hw_counters",
        &[
            &["port_rcv_packets_64"],
            &["port_rcv_packets"],
            &["rx_pkts"],
            &["ip4InPkts", "ip6InPkts"],
        ],
    ),
    (
        "esnode_infiniband_tx_packets",
        "Packets that the port sent, port_xmit_packets of /sys/class/infiniband, or else the \
         driver's own count in hw_counters",
        &[
            &["port_xmit_packets_64"],
            &["port_xmit_packets"],
            &["tx_pkts"],
            &["ip4OutPkts", "ip6OutPkts"],
        ],
    ),
    (
        "esnode_infiniband_tx_wait_ticks",
        "Ticks of the port's own clock in which it had something to send and could not, for want of \
         credits or its turn, port_xmit_wait of /sys/class/infiniband",
        &[&["port_xmit_wait"]],
    ),
];

/// Shown as kinds of one family, by the names of their files.
const ERRORS: [&str; 25] = [
    "symbol_error",
    "link_error_recovery",
    "link_downed",
    "port_rcv_errors",
    "port_rcv_remote_physical_errors",
    "port_rcv_constraint_errors",
    "port_xmit_discards",
    "port_xmit_constraint_errors",
    "local_link_integrity_errors",
    "excessive_buffer_overrun_errors",
    "VL15_dropped",
    "out_of_sequence",
    "out_of_buffer",
    "packet_seq_err",
    "implied_nak_seq_err",
    "rnr_nak_retry_err",
    "local_ack_timeout_err",
    "rx_drops",
    "to_retransmits",
    "seq_err_naks_rcvd",
    "rnr_naks_rcvd",
    "oos_drop_count",
    "rx_out_of_buffer",
    "ip4InDiscards",
    "ip6InDiscards",
];

/// Kinds of signs of congestion, and the names that drivers have for them.
const CONGESTION: [(&str, &[&str]); 5] = [
    (
        "ecn_marked",
        &[
            "np_ecn_marked_roce_packets",
            "rx_ecn_marked_pkts",
            "RxECNMrkd",
        ],
    ),
    ("cnp_sent", &["np_cnp_sent", "tx_cnp_pkts", "cnpSent"]),
    ("cnp_received", &["rx_cnp_pkts"]),
    ("cnp_handled", &["rp_cnp_handled", "cnpHandled"]),
    ("cnp_ignored", &["rp_cnp_ignored", "cnpIgnored"]),
];

pub(super) fn encode(ports: &[Port], page: &mut Page<'_>) -> fmt::Result {
    let ports = || ports.iter();
    for (name, help, sources) in FAMILIES {
        let first = |port: &Port| sources.iter().find_map(|files| port.sum(files));
        let samples = ports().filter_map(|port| Some((port.labels(), first(port)?)));
        page.counter(name, help, samples)?;
    }
    page.gauge(
        "esnode_infiniband_link_up",
        "Whether the port is active, state of /sys/class/infiniband",
        ports().map(|port| (port.labels(), u32::from(port.state == ACTIVE))),
    )?;
    page.gauge(
        "esnode_infiniband_rate_bytes",
        "Rate of the link in bytes per second, rate of /sys/class/infiniband",
        ports().filter_map(|port| Some((port.labels(), port.rate?))),
    )?;
    page.counter(
        "esnode_infiniband_errors",
        "Errors, drops and what had to be sent again, by the names of the files in counters and \
         hw_counters of /sys/class/infiniband",
        ports().flat_map(|port| {
            let count = |kind| Some((port.with_kind(kind), port.count(kind)?));
            ERRORS.into_iter().filter_map(count)
        }),
    )?;
    page.counter(
        "esnode_infiniband_congestion",
        "Packets that tell of congestion in a RoCE network, from hw_counters of \
         /sys/class/infiniband: ecn_marked ones were received with the mark of a switch, cnp_ are \
         notices about it: sent to who sends too fast, or received, and heeded or not",
        ports().flat_map(|port| {
            let of = |files: &[&str]| files.iter().find_map(|file| port.count(file));
            CONGESTION
                .iter()
                .filter_map(move |(kind, files)| Some((port.with_kind(kind), of(files)?)))
        }),
    )
}

#[cfg(test)]
mod tests {
    use crate::{
        collectors::{
            fixture::{Host, samples},
            infiniband::{InfinibandCollector, fixtures::host},
        },
        page::Names,
    };

    fn page(host: &Host) -> Vec<String> {
        let mut collector = InfinibandCollector::new(&host.sysfs(), Names::Own);
        samples(collector.sample().expect("valid"))
    }

    /// The samples of one port, as `family value` or `family kind value`.
    fn expected(device: &str, lines: &[&str]) -> Vec<String> {
        let of = |line: &&str| {
            let mut words = line.split(' ');
            let mut next = || words.next().expect("a word");
            let (family, second) = (next(), next());
            let labels = format!("device=\"{device}\",port=\"1\"");
            match words.next() {
                Some(value) => {
                    format!("esnode_infiniband_{family}{{{labels},kind=\"{second}\"}} {value}")
                }
                None => format!("esnode_infiniband_{family}{{{labels}}} {second}"),
            }
        };
        lines.iter().map(of).collect()
    }

    #[test]
    fn a_port_of_infiniband() {
        let lines = [
            "rx_bytes_total 120000000000",
            "tx_bytes_total 160000000000",
            "rx_packets_total 110000000",
            "tx_packets_total 120000000",
            "tx_wait_ticks_total 14",
            "link_up 1",
            "rate_bytes 50000000000.0",
            "errors_total symbol_error 15",
            "errors_total link_error_recovery 4",
            "errors_total link_downed 3",
            "errors_total port_rcv_errors 9",
            "errors_total port_rcv_remote_physical_errors 10",
            "errors_total port_rcv_constraint_errors 8",
            "errors_total port_xmit_discards 13",
            "errors_total port_xmit_constraint_errors 12",
            "errors_total local_link_integrity_errors 5",
            "errors_total excessive_buffer_overrun_errors 2",
            "errors_total VL15_dropped 1",
            "errors_total out_of_buffer 18",
        ];
        assert_eq!(page(&host(&["mlx5_0"])), expected("mlx5_0", &lines));
    }

    #[test]
    fn a_port_of_roce_that_is_down() {
        let lines = [
            "rx_bytes_total 4000",
            "tx_bytes_total 8000",
            "rx_packets_total 30",
            "tx_packets_total 40",
            "link_up 0",
            "rate_bytes 312500000.0",
            "errors_total out_of_sequence 44",
            "errors_total packet_seq_err 1",
            "errors_total rnr_nak_retry_err 0",
            "errors_total local_ack_timeout_err 38",
            "congestion_total ecn_marked 286733949",
            "congestion_total cnp_sent 10284520",
            "congestion_total cnp_handled 5",
            "congestion_total cnp_ignored 0",
        ];
        assert_eq!(page(&host(&["mlx5_1"])), expected("mlx5_1", &lines));
    }

    #[test]
    fn ports_that_only_the_driver_counts() {
        let lines = [
            "rx_bytes_total 12400",
            "tx_bytes_total 13500",
            "rx_packets_total 16",
            "tx_packets_total 18",
            "link_up 1",
            "rate_bytes 12500000000.0",
            "errors_total ip4InDiscards 11",
            "congestion_total ecn_marked 7",
            "congestion_total cnp_sent 10",
            "congestion_total cnp_handled 8",
            "congestion_total cnp_ignored 9",
        ];
        assert_eq!(page(&host(&["irdma0"])), expected("irdma0", &lines));
        let lines = [
            "rx_bytes_total 600",
            "tx_bytes_total 700",
            "rx_packets_total 62",
            "tx_packets_total 71",
            "link_up 1",
            "rate_bytes 12500000000.0",
            "errors_total rx_drops 61",
        ];
        assert_eq!(page(&host(&["efa_0"])), expected("efa_0", &lines));
    }

    #[test]
    fn omni_path_counts_flits() {
        let lines = [
            "rx_bytes_total 800",
            "tx_bytes_total 1600",
            "rx_packets_total 3",
            "link_up 1",
            "rate_bytes 12500000000.0",
        ];
        assert_eq!(page(&host(&["hfi1_0"])), expected("hfi1_0", &lines));
        // Whatever udev calls it.
        let renamed = host(&["mlx5_1"]);
        let driver = "sys/class/infiniband/mlx5_1/device/driver";
        renamed.link(driver, "../../../../bus/pci/drivers/hfi1");
        let line = r#"esnode_infiniband_rx_bytes_total{device="mlx5_1",port="1"} 8000"#;
        assert_eq!(page(&renamed)[0], line);
    }

    #[test]
    fn old_kernels_have_64_bits_elsewhere() {
        let page = page(&host(&["mlx4_0"]));
        for line in [
            r#"esnode_infiniband_rx_bytes_total{device="mlx4_0",port="1"} 20000000000"#,
            r#"esnode_infiniband_rx_bytes_total{device="mlx4_0",port="2"} 0"#,
            r#"esnode_infiniband_rx_packets_total{device="mlx4_0",port="1"} 8"#,
            r#"esnode_infiniband_link_up{device="mlx4_0",port="2"} 0"#,
        ] {
            assert!(
                page.iter().any(|it| it == line),
                "{line} is not in {page:?}"
            );
        }
    }
}
