//! What each core did with received packets, from `/proc/net/softnet_stat` (`softnet_seq_show` of
//! net/core/net-procfs.c), which is the same in all network namespaces.

use super::hexadecimal;
use crate::{
    collectors::wrapping::Wrapping,
    error::ParseError,
    page::{Encode, Page},
};
use rustc_hash::FxHashMap;
use std::fmt;

/// The number of the core is in this column, from Linux 5.10 on.
const CORE: usize = 12;

/// So many columns have all kernels.
const COLUMNS: usize = 9;

/// Families of the agent and of node_exporter, by the first columns.
const FAMILIES: [(&str, &str, &str); 3] = [
    (
        "esnode_network_softnet_processed",
        "node_softnet_processed",
        "Packets that the core took in from network devices, from /proc/net/softnet_stat",
    ),
    (
        "esnode_network_softnet_dropped",
        "node_softnet_dropped",
        "Packets that were dropped as the queue of the core was full (net.core.netdev_max_backlog), \
         from /proc/net/softnet_stat",
    ),
    (
        "esnode_network_softnet_squeezed",
        "node_softnet_times_squeezed",
        "Times that the core ran out of its share of time or packets with packets still waiting \
         (net.core.netdev_budget), from /proc/net/softnet_stat",
    ),
];

/// One core.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Core {
    number: u64,
    counts: [u64; FAMILIES.len()],
}

/// The cores that are online.
#[derive(Clone, Debug, Default)]
pub(super) struct Softnet(pub(super) Vec<Core>);

/// What is kept from pass to pass: the kernel writes 32 bits, which at a million packets per second
/// begin anew every 72 minutes.
#[derive(Debug, Default)]
pub(super) struct Carried(FxHashMap<u64, [Wrapping; FAMILIES.len()]>);

impl Carried {
    /// The same cores, with counts as if the kernel had room for them. Cores that are gone are kept,
    /// as their counts go on when they are back.
    pub(super) fn carry(&mut self, mut cores: Vec<Core>) -> Vec<Core> {
        for core in &mut cores {
            let kept = self.0.entry(core.number).or_default();
            for (kept, count) in kept.iter_mut().zip(&mut core.counts) {
                *count = kept.carry(*count);
            }
        }
        cores
    }
}

pub(super) fn parse(text: &str) -> Result<Vec<Core>, ParseError> {
    let lines = (1..).zip(text.lines()).zip(0..);
    let mut cores: Vec<Core> = Vec::new();
    for ((number, line), place) in lines {
        let core = parse_line(number, line, place)?;
        // They come in their order.
        if cores.last().is_some_and(|last| last.number >= core.number) {
            return Err(ParseError::new(number, "cores in their order"));
        }
        cores.push(core);
    }
    if cores.is_empty() {
        return Err(ParseError::new(0, "a line of a core"));
    }
    Ok(cores)
}

/// `place` is the number of the core if the kernel does not tell it: the same, while all are online.
fn parse_line(number: usize, line: &str, place: u64) -> Result<Core, ParseError> {
    let mut fields = line.split_ascii_whitespace();
    let counts = [
        hexadecimal(fields.next(), number, "packets processed")?,
        hexadecimal(fields.next(), number, "packets dropped")?,
        hexadecimal(fields.next(), number, "times squeezed")?,
    ];
    if line.split_ascii_whitespace().count() < COLUMNS {
        return Err(ParseError::new(number, format!("{COLUMNS} columns")));
    }
    let core = fields.nth(CORE - counts.len());
    Ok(Core {
        number: match core {
            Some(_) => hexadecimal(core, number, "the number of a core")?,
            None => place,
        },
        counts,
    })
}

impl Softnet {
    fn values(&self, place: usize) -> impl Iterator<Item = (String, u64)> {
        let cores = self.0.iter();
        cores.filter_map(move |core| Some((core.number.to_string(), *core.counts.get(place)?)))
    }
}

impl Encode for Softnet {
    fn encode(&self, page: &mut Page<'_>) -> fmt::Result {
        for (place, (name, _, help)) in FAMILIES.iter().enumerate() {
            let samples = self.values(place);
            page.counter(name, help, samples.map(|(core, it)| ([("core", core)], it)))?;
        }
        Ok(())
    }

    fn encode_node_exporter(&self, page: &mut Page<'_>) -> fmt::Result {
        for (place, (_, name, help)) in FAMILIES.iter().enumerate() {
            let samples = self.values(place);
            page.counter(name, help, samples.map(|(core, it)| ([("cpu", core)], it)))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collectors::fixture::{node_exporter_samples, samples};

    /// Of Linux 6.18: core 1 is offline.
    const CORES: &str = "\
        000000ff 00000002 00000001 00000000 00000000 00000000 00000000 00000000 00000000 00000000 \
        00000000 00000000 00000000 00000000 00000000\n\
        ffffffff 00000000 00000003 00000000 00000000 00000000 00000000 00000000 00000000 00000000 \
        00000000 00000000 00000002 00000000 00000000\n";

    #[test]
    fn hexadecimal_by_core() {
        assert_eq!(
            samples(Softnet(parse(CORES).expect("valid"))),
            [
                r#"esnode_network_softnet_processed_total{core="0"} 255"#,
                r#"esnode_network_softnet_processed_total{core="2"} 4294967295"#,
                r#"esnode_network_softnet_dropped_total{core="0"} 2"#,
                r#"esnode_network_softnet_dropped_total{core="2"} 0"#,
                r#"esnode_network_softnet_squeezed_total{core="0"} 1"#,
                r#"esnode_network_softnet_squeezed_total{core="2"} 3"#,
            ]
        );
        let page = node_exporter_samples(Softnet(parse(CORES).expect("valid")));
        let line = r#"node_softnet_times_squeezed_total{cpu="2"} 3"#;
        assert!(page.iter().any(|it| it == line), "{page:?}");
        assert_eq!(page.len(), 6, "{page:?}");
    }

    #[test]
    fn older_kernels_do_not_name_the_core() {
        let old = "1 2 3 0 0 0 0 0 0 0 0\n4 5 6 0 0 0 0 0 0 0 0\n";
        let numbers = parse(old)
            .expect("valid")
            .into_iter()
            .map(|core| core.number);
        assert_eq!(numbers.collect::<Vec<_>>(), [0, 1]);
    }

    #[test]
    fn counts_go_on_past_32_bits() {
        let mut carried = Carried::default();
        let mut second = |text: &str| carried.carry(parse(text).expect("valid"))[1].counts[0];
        assert_eq!(second(CORES), 4_294_967_295);
        assert_eq!(
            second(&CORES.replace("ffffffff", "00000001")),
            4_294_967_297
        );
    }

    #[test]
    fn says_where_it_breaks() {
        let cut = "0 0 0 0 0 0 0 0 0 0 0 0";
        for (line, expected) in [
            (String::new(), "packets processed"),
            ("1".to_owned(), "packets dropped"),
            ("1 fg 3".to_owned(), "packets dropped"),
            ("1 2 10000000000000000".to_owned(), "times squeezed"),
            (format!("{cut} -"), "the number of a core"),
        ] {
            let expected = format!("{expected} in hexadecimal");
            let error = Err(ParseError::new(2, expected));
            assert_eq!(parse(&format!("{cut}\n{line}\n")), error, "{line}");
        }
        let columns = Err(ParseError::new(2, "9 columns"));
        assert_eq!(parse(&format!("{cut}\n1 2 3 0 0 0 0 0\n")), columns);
        assert_eq!(parse(""), Err(ParseError::new(0, "a line of a core")));
        let error = Err(ParseError::new(2, "cores in their order"));
        assert_eq!(parse(&format!("{cut} 1\n{cut} 1\n")), error);
    }
}
