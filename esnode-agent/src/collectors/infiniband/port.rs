//! Which files a port has, and reading them.

use super::Port;
use crate::{
    collectors::sysfs::{attribute, entries, text},
    error::{ParseError, ReadError},
    page::Names,
};
use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

/// Folders of counters below a port, and the files in them that our families need.
const OWN: [(&str, &[&str]); 3] = [
    // The kernel's names for what the InfiniBand specification has every port count.
    (
        "counters",
        &[
            "port_rcv_data",
            "port_xmit_data",
            "port_rcv_packets",
            "port_xmit_packets",
            "port_xmit_wait",
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
        ],
    ),
    // Before Linux 4.5 those in `counters` have 32 bits.
    (
        "counters_ext",
        &[
            "port_rcv_data_64",
            "port_xmit_data_64",
            "port_rcv_packets_64",
            "port_xmit_packets_64",
        ],
    ),
    // The driver's names: mlx5, bnxt_re and efa, irdma.
    (
        "hw_counters",
        &[
            "out_of_sequence",
            "out_of_buffer",
            "packet_seq_err",
            "implied_nak_seq_err",
            "rnr_nak_retry_err",
            "local_ack_timeout_err",
            "np_cnp_sent",
            "np_ecn_marked_roce_packets",
            "rp_cnp_handled",
            "rp_cnp_ignored",
            "rx_bytes",
            "tx_bytes",
            "rx_pkts",
            "tx_pkts",
            "rx_drops",
            "to_retransmits",
            "seq_err_naks_rcvd",
            "rnr_naks_rcvd",
            "oos_drop_count",
            "rx_out_of_buffer",
            "tx_cnp_pkts",
            "rx_cnp_pkts",
            "rx_ecn_marked_pkts",
            "ip4InOctets",
            "ip6InOctets",
            "ip4OutOctets",
            "ip6OutOctets",
            "ip4InPkts",
            "ip6InPkts",
            "ip4OutPkts",
            "ip6OutPkts",
            "ip4InDiscards",
            "ip6InDiscards",
            "cnpSent",
            "cnpHandled",
            "cnpIgnored",
            "RxECNMrkd",
        ],
    ),
];

/// The same, of what only node_exporter shows.
const NODE_EXPORTER: [(&str, &[&str]); 2] = [
    (
        "counters",
        &[
            "unicast_rcv_packets",
            "unicast_xmit_packets",
            "multicast_rcv_packets",
            "multicast_xmit_packets",
            "port_rcv_discards",
            "port_rcv_switch_relay_errors",
        ],
    ),
    (
        "counters_ext",
        &[
            "port_unicast_rcv_packets",
            "port_unicast_xmit_packets",
            "port_multicast_rcv_packets",
            "port_multicast_xmit_packets",
        ],
    ),
];

/// Counters of data are in words of so many bytes, but those of Omni-Path in flits.
const WORD: u64 = 4;
const FLIT: u64 = 8;

/// One adapter. Empty is unknown.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Device {
    pub(super) name: String,
    pub(super) board: String,
    pub(super) firmware: String,
    pub(super) adapter: String,
    /// Bytes in a word of data.
    word: u64,
}

/// A port and the files that it has.
pub(super) struct Known {
    device: Arc<Device>,
    number: Arc<str>,
    folder: PathBuf,
    files: Vec<(&'static str, PathBuf)>,
    names: Names,
}

/// The ports of all devices in this folder.
pub(super) fn ports(class: &Path, names: Names) -> Result<Vec<Known>, ReadError> {
    let mut known = Vec::new();
    for name in entries(class)?.unwrap_or_default() {
        let folder = class.join(&name);
        let device = Arc::new(Device::at(&folder, name));
        let ports = folder.join("ports");
        for number in entries(&ports)?.unwrap_or_default() {
            let folder = ports.join(&number);
            known.push(Known {
                device: Arc::clone(&device),
                number: number.into(),
                files: files(&folder, names)?,
                folder,
                names,
            });
        }
    }
    Ok(known)
}

fn files(port: &Path, names: Names) -> Result<Vec<(&'static str, PathBuf)>, ReadError> {
    let more = NODE_EXPORTER.iter().filter(|_| names != Names::Own);
    let mut files = Vec::new();
    for (folder, wanted) in OWN.iter().chain(more) {
        let folder = port.join(folder);
        let there = entries(&folder)?.unwrap_or_default();
        let wanted = wanted.iter().copied();
        let wanted = wanted.filter(|name| there.iter().any(|it| it == name));
        files.extend(wanted.map(|name| (name, folder.join(name))));
    }
    Ok(files)
}

impl Device {
    fn at(folder: &Path, name: String) -> Self {
        let of = |file: &str| text(&folder.join(file)).unwrap_or_default();
        let driver = fs::read_link(folder.join("device/driver")).unwrap_or_default();
        let omni_path = driver.file_name().is_some_and(|driver| driver == "hfi1");
        Self {
            board: of("board_id"),
            firmware: of("fw_ver"),
            adapter: of("hca_type"),
            word: if omni_path || name.starts_with("hfi1_") {
                FLIT
            } else {
                WORD
            },
            name,
        }
    }

    /// What one stands for in the count of this file.
    pub(super) fn unit(&self, file: &str) -> u64 {
        if file.contains("_data") { self.word } else { 1 }
    }
}

impl Known {
    /// What the port says now; `None` if it is gone.
    pub(super) fn read(&self) -> Result<Option<Port>, ReadError> {
        let Some(state) = attribute(&self.folder.join("state"), parse_state)? else {
            return Ok(None);
        };
        let mut counts = Vec::with_capacity(self.files.len());
        for (name, path) in &self.files {
            let count = attribute(path, |text| parse_count(text, self.device.unit(name)))?;
            counts.extend(count.flatten().map(|count| (*name, count)));
        }
        Ok(Some(Port {
            device: Arc::clone(&self.device),
            number: Arc::clone(&self.number),
            state,
            physical_state: match self.names {
                Names::Own => None,
                Names::AndNodeExporter => attribute(&self.folder.join("phys_state"), parse_state)?,
            },
            rate: attribute(&self.folder.join("rate"), parse_rate)?,
            counts,
        }))
    }
}

/// A number before its name, such as `4: ACTIVE`.
fn parse_state(text: &str) -> Result<u64, ParseError> {
    let number = text
        .split_once(':')
        .and_then(|(number, _)| number.trim().parse().ok());
    number.ok_or_else(|| ParseError::new(1, "a state such as 4: ACTIVE"))
}

/// Such as `100 Gb/sec (4X EDR)`, to bytes per second.
fn parse_rate(text: &str) -> Result<f64, ParseError> {
    let number = text
        .split_once(" Gb/sec")
        .and_then(|(number, _)| number.parse::<f64>().ok());
    let gigabits = number.filter(|number| number.is_finite() && *number >= 0.0);
    let gigabits = gigabits.ok_or_else(|| ParseError::new(1, "a rate such as 100 Gb/sec"))?;
    Ok(gigabits * (1_000_000_000.0 / 8.0))
}

/// `None` where the driver counts nothing, and says so.
fn parse_count(text: &str, unit: u64) -> Result<Option<u64>, ParseError> {
    if text.starts_with("N/A") {
        return Ok(None);
    }
    let count = text.trim().parse().ok();
    let count = count.filter(|count: &u64| count.checked_mul(unit).is_some());
    match count {
        Some(count) => Ok(Some(count)),
        None => Err(ParseError::new(1, format!("a count of units of {unit}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_and_rates() {
        assert_eq!(parse_state("4: ACTIVE\n"), Ok(4));
        assert_eq!(parse_state("5: LinkUp\n"), Ok(5));
        for text in [
            "",
            "ACTIVE",
            ": ACTIVE",
            "-1: DOWN",
            "99999999999999999999: X",
        ] {
            let error = ParseError::new(1, "a state such as 4: ACTIVE");
            assert_eq!(parse_state(text), Err(error), "{text}");
        }
        assert_eq!(parse_rate("100 Gb/sec (4X EDR)\n"), Ok(12_500_000_000.0));
        assert_eq!(parse_rate("2.5 Gb/sec (1X SDR)"), Ok(312_500_000.0));
        for text in [
            "",
            "100",
            "fast Gb/sec",
            "-1 Gb/sec",
            "inf Gb/sec",
            "NaN Gb/sec",
        ] {
            let error = ParseError::new(1, "a rate such as 100 Gb/sec");
            assert_eq!(parse_rate(text), Err(error), "{text}");
        }
    }

    #[test]
    fn counts() {
        assert_eq!(parse_count("17\n", 4), Ok(Some(17)));
        assert_eq!(parse_count("N/A (no PMA)\n", 4), Ok(None));
        assert_eq!(parse_count("18446744073709551615", 1), Ok(Some(u64::MAX)));
        for text in ["", "-1", "0x1", "4611686018427387904"] {
            let error = ParseError::new(1, "a count of units of 4");
            assert_eq!(parse_count(text, 4), Err(error), "{text}");
        }
    }
}
