//! Sockets and the memory of their buffers, from `/proc/net/{sockstat,sockstat6}` (`sockstat` of
//! proc_pid_net(5)).

use crate::{
    error::ParseError,
    page::{Encode, Page},
};
use std::fmt;

/// The lines, and the names in them, that are known.
const PROTOCOLS: [&str; 11] = [
    "sockets", "TCP", "UDP", "UDPLITE", "RAW", "FRAG", "TCP6", "UDP6", "UDPLITE6", "RAW6", "FRAG6",
];
const STATES: [&str; 7] = ["used", "inuse", "orphan", "tw", "alloc", "mem", "memory"];

/// How many sockets of a protocol are in a state, or pages in use (`mem`), or bytes (`memory`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    protocol: &'static str,
    state: &'static str,
    count: u64,
}

/// What both files say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Sockets {
    pub(super) counts: Vec<Entry>,
    /// Bytes of a page of memory.
    pub(super) page_size: u64,
}

pub(super) fn parse(text: &str) -> Result<Vec<Entry>, ParseError> {
    let mut counts = Vec::new();
    let mut is_known = false;
    for (number, line) in (1..).zip(text.lines()) {
        let (protocol, rest) = line
            .split_once(':')
            .ok_or_else(|| ParseError::new(number, "the name of a protocol and a colon"))?;
        let Some(protocol) = known(&PROTOCOLS, protocol) else {
            continue;
        };
        is_known = true;
        let mut fields = rest.split_ascii_whitespace();
        while let Some(name) = fields.next() {
            let count = fields.next().and_then(|field| field.parse().ok());
            let expected = || ParseError::new(number, format!("{name} of {protocol}"));
            let count = count.ok_or_else(expected)?;
            let Some(state) = known(&STATES, name) else {
                continue;
            };
            let known = |it: &Entry| (it.protocol, it.state) == (protocol, state);
            if !counts.iter().any(known) {
                counts.push(Entry {
                    protocol,
                    state,
                    count,
                });
            }
        }
    }
    if !is_known {
        return Err(ParseError::new(0, "sockets of a protocol"));
    }
    Ok(counts)
}

fn known(names: &[&'static str], name: &str) -> Option<&'static str> {
    names.iter().copied().find(|known| *known == name)
}

impl Sockets {
    fn get(&self, protocol: &str, state: &str) -> Option<u64> {
        let mut counts = self.counts.iter();
        let found = counts.find(|it| (it.protocol, it.state) == (protocol, state))?;
        Some(found.count)
    }

    /// Of IPv4, and of IPv6 where the kernel has it.
    fn both(&self, v4: &str, v6: &str) -> Option<u64> {
        let count = self.get(v4, "inuse")?;
        Some(count.saturating_add(self.get(v6, "inuse").unwrap_or_default()))
    }

    fn memory(&self, protocol: &str) -> Option<u64> {
        let pages = self.get(protocol, "mem")?;
        Some(pages.saturating_mul(self.page_size))
    }
}

impl Encode for Sockets {
    fn encode(&self, page: &mut Page<'_>) -> fmt::Result {
        let sockets = [
            ("tcp", "in_use", self.both("TCP", "TCP6")),
            ("tcp", "orphan", self.get("TCP", "orphan")),
            ("tcp", "time_wait", self.get("TCP", "tw")),
            ("tcp", "allocated", self.get("TCP", "alloc")),
            ("udp", "in_use", self.both("UDP", "UDP6")),
        ];
        page.gauge(
            "esnode_network_sockets",
            "Sockets of IPv4 and IPv6, from /proc/net/sockstat and sockstat6: in_use are connected or \
             bound ones of the network namespace, orphan those that no process has any more, \
             time_wait closed ones that wait for stray packets, allocated all that have memory, in \
             all namespaces",
            sockets.into_iter().filter_map(|(protocol, state, count)| {
                Some(([("protocol", protocol), ("state", state)], count?))
            }),
        )?;
        let memory = [("tcp", self.memory("TCP")), ("udp", self.memory("UDP"))];
        page.gauge(
            "esnode_network_socket_memory_bytes",
            "Memory of the buffers of all sockets, in all network namespaces, mem of \
             /proc/net/sockstat, which counts whole pages",
            memory
                .into_iter()
                .filter_map(|(protocol, bytes)| Some(([("protocol", protocol)], bytes?))),
        )
    }

    fn encode_node_exporter(&self, page: &mut Page<'_>) -> fmt::Result {
        for Entry {
            protocol,
            state,
            count,
        } in &self.counts
        {
            let name = format!("node_sockstat_{protocol}_{state}");
            let help = format!("{state} of {protocol}, from /proc/net/sockstat and sockstat6");
            page.single_gauge(&name, &help, Some(*count))?;
            if *state == "mem" {
                let help = format!("{help}, in bytes");
                page.single_gauge(&format!("{name}_bytes"), &help, self.memory(protocol))?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collectors::fixture::{node_exporter_samples, samples};

    const SOCKSTAT: &str = "sockets: used 812\n\
        TCP: inuse 40 orphan 1 tw 3 alloc 57 mem 150\nUDP: inuse 6 mem 2\n\
        UDPLITE: inuse 0\nRAW: inuse 0\nFRAG: inuse 0 memory 4096\n";
    const SOCKSTAT6: &str = "TCP6: inuse 2\nUDP6: inuse 1\nFRAG6: inuse 0 memory 0\n";

    fn sockets(files: &[&str]) -> Sockets {
        let counts = files.iter().flat_map(|text| parse(text).expect("valid"));
        Sockets {
            counts: counts.collect(),
            page_size: 4096,
        }
    }

    #[test]
    fn what_is_said_twice_counts_once() {
        let twice = parse("RAW: inuse 1 inuse 2\nRAW: inuse 3\n").expect("valid");
        assert_eq!(twice, parse("RAW: inuse 1\n").expect("valid"));
    }

    #[test]
    fn both_families_together() {
        let memory = [
            r#"esnode_network_socket_memory_bytes{protocol="tcp"} 614400"#,
            r#"esnode_network_socket_memory_bytes{protocol="udp"} 8192"#,
        ];
        let of = |tcp: u64, udp: u64| {
            let mut lines = [
                ("tcp", "in_use", tcp),
                ("tcp", "orphan", 1),
                ("tcp", "time_wait", 3),
                ("tcp", "allocated", 57),
                ("udp", "in_use", udp),
            ]
            .map(|(protocol, state, count)| {
                let labels = format!("protocol=\"{protocol}\",state=\"{state}\"");
                format!("esnode_network_sockets{{{labels}}} {count}")
            })
            .to_vec();
            lines.extend(memory.map(str::to_owned));
            lines
        };
        assert_eq!(samples(sockets(&[SOCKSTAT, SOCKSTAT6])), of(42, 7));
        assert_eq!(samples(sockets(&[SOCKSTAT])), of(40, 6));
        assert!(samples(sockets(&[])).is_empty());
    }

    #[test]
    fn names_of_node_exporter() {
        let expected = [
            "sockets_used 812",
            "TCP_inuse 40",
            "TCP_orphan 1",
            "TCP_tw 3",
            "TCP_alloc 57",
            "TCP_mem 150",
            "TCP_mem_bytes 614400",
            "UDP_inuse 6",
            "UDP_mem 2",
            "UDP_mem_bytes 8192",
            "UDPLITE_inuse 0",
            "RAW_inuse 0",
            "FRAG_inuse 0",
            "FRAG_memory 4096",
            "TCP6_inuse 2",
            "UDP6_inuse 1",
            "FRAG6_inuse 0",
            "FRAG6_memory 0",
        ]
        .map(|line| format!("node_sockstat_{line}"));
        assert_eq!(
            node_exporter_samples(sockets(&[SOCKSTAT, SOCKSTAT6])),
            expected
        );
    }

    #[test]
    fn what_is_not_known_is_left_out() {
        assert_eq!(parse("NEW: inuse 1\nTCP: flying 7\n"), Ok(Vec::new()));
    }

    #[test]
    fn says_where_it_breaks() {
        for text in ["", "NEW: inuse 1\n"] {
            let error = Err(ParseError::new(0, "sockets of a protocol"));
            assert_eq!(parse(text), error, "{text}");
        }
        for (line, expected) in [
            ("", "the name of a protocol and a colon"),
            ("TCP inuse 4", "the name of a protocol and a colon"),
            ("TCP: inuse", "inuse of TCP"),
            ("TCP: inuse -1", "inuse of TCP"),
            ("TCP: inuse 1 mem 99999999999999999999", "mem of TCP"),
        ] {
            let error = Err(ParseError::new(2, expected));
            assert_eq!(
                parse(&format!("sockets: used 1\n{line}\n")),
                error,
                "{line}"
            );
        }
    }
}
