//! Connections that the packet filter keeps track of, from `/proc/net/stat/nf_conntrack` (with
//! `CONFIG_NF_CONNTRACK_PROCFS`) and `/proc/sys/net/netfilter/`
//! (Documentation/networking/nf_conntrack-sysctl.rst).

use super::hexadecimal;
use crate::{
    collectors::sysfs,
    error::{ParseError, ReadError},
    page::{Encode, Page},
};
use std::{fmt, path::Path};

/// The columns that are read, of each core its own count, with their meanings.
const COLUMNS: [(&str, &str); 8] = [
    ("found", "Entries that were looked for and found"),
    ("invalid", "Packets that could not be tracked"),
    ("ignore", "Packets that belonged to an entry already"),
    ("insert", "Entries inserted"),
    ("insert_failed", "Entries that could not be inserted"),
    ("drop", "Packets dropped as they could not be tracked"),
    ("early_drop", "Entries dropped to make room for others"),
    (
        "search_restart",
        "Searches begun anew as the table was resized",
    ),
];

/// What the file says, added up over cores.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Stat {
    entries: Option<u64>,
    counts: [Option<u64>; COLUMNS.len()],
}

/// The table of connections of a network namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Conntrack {
    stat: Stat,
    limit: Option<u64>,
}

impl Conntrack {
    /// Of what the file says.
    pub(super) fn of(stat: Stat) -> Self {
        Self { stat, limit: None }
    }

    /// Reads also what `/proc/sys/net/netfilter` says, which is of the reader's own namespace.
    pub(super) fn look_up(&mut self, sysctl: &Path) -> Result<(), ReadError> {
        self.limit = sysfs::number(&sysctl.join("nf_conntrack_max"))?;
        if self.stat.entries.is_none() && self.limit.is_some() {
            self.stat.entries = sysfs::number(&sysctl.join("nf_conntrack_count"))?;
        }
        Ok(())
    }
}

pub(super) fn parse(text: &str) -> Result<Stat, ParseError> {
    let mut lines = (1..).zip(text.lines());
    let names = lines.next().map_or("", |(_, line)| line);
    if !names.starts_with("entries") {
        return Err(ParseError::new(1, "names of columns, entries first"));
    }
    let mut stat = Stat::default();
    for (number, line) in lines {
        let mut fields = line.split_ascii_whitespace();
        for name in names.split_ascii_whitespace() {
            let field = fields.next();
            if name == "entries" {
                // Every line has all of them.
                stat.entries = Some(hexadecimal(field, number, name)?);
                continue;
            }
            let place = COLUMNS.iter().position(|(column, _)| *column == name);
            if let Some(sum) = place.and_then(|place| stat.counts.get_mut(place)) {
                let count = hexadecimal(field, number, name)?;
                *sum = Some(sum.unwrap_or_default().saturating_add(count));
            }
        }
    }
    if stat.entries.is_none() {
        return Err(ParseError::new(2, "counts of a core"));
    }
    Ok(stat)
}

impl Stat {
    fn count(&self, name: &str) -> Option<u64> {
        let place = COLUMNS.iter().position(|(column, _)| *column == name)?;
        *self.counts.get(place)?
    }
}

impl Encode for Conntrack {
    fn encode(&self, page: &mut Page<'_>) -> fmt::Result {
        page.single_gauge(
            "esnode_network_conntrack_entries",
            "Connections that are tracked in the network namespace, entries of \
             /proc/net/stat/nf_conntrack, or else nf_conntrack_count of /proc/sys/net/netfilter",
            self.stat.entries,
        )?;
        page.single_gauge(
            "esnode_network_conntrack_limit",
            "Connections that can be tracked, nf_conntrack_max of /proc/sys/net/netfilter; absent if \
             the agent is in another network namespace than process 1",
            self.limit,
        )?;
        page.single_counter(
            "esnode_network_conntrack_drops",
            "Packets that were dropped as their connection could not be tracked, mostly as the table \
             was full, drop of /proc/net/stat/nf_conntrack",
            self.stat.count("drop"),
        )?;
        page.single_counter(
            "esnode_network_conntrack_early_drops",
            "Connections that are tracked no more, to make room for others in a full table, \
             early_drop of /proc/net/stat/nf_conntrack",
            self.stat.count("early_drop"),
        )
    }

    fn encode_node_exporter(&self, page: &mut Page<'_>) -> fmt::Result {
        page.single_gauge(
            "node_nf_conntrack_entries",
            "Connections that are tracked, from /proc/net/stat/nf_conntrack or \
             /proc/sys/net/netfilter",
            self.stat.entries,
        )?;
        page.single_gauge(
            "node_nf_conntrack_entries_limit",
            "Connections that can be tracked, nf_conntrack_max of /proc/sys/net/netfilter",
            self.limit,
        )?;
        for ((column, meaning), count) in COLUMNS.iter().zip(self.stat.counts) {
            let name = format!("node_nf_conntrack_stat_{column}");
            let help = format!("{meaning}, {column} of /proc/net/stat/nf_conntrack");
            page.single_gauge(&name, &help, count)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collectors::fixture::{Host, node_exporter_samples, samples};

    const STAT: &str = "entries  clashres found new invalid ignore delete chainlength insert \
        insert_failed drop early_drop icmp_error  expect_new expect_create expect_delete \
        search_restart\n\
        0000001a  00000000 00000001 00000000 00000002 00000003 00000000 00000009 00000004 \
        00000005 00000006 00000007 00000000  00000000 00000000 00000000 00000008\n\
        0000001a  00000000 00000000 00000000 00000000 00000000 00000000 00000009 00000000 \
        00000000 0000000a 00000000 00000000  00000000 00000000 00000000 00000000\n";

    fn conntrack(files: &[(&str, &str)], stat: &str) -> Conntrack {
        let host = Host::new(files);
        let stat = match stat {
            "" => Stat::default(),
            text => parse(text).expect("valid"),
        };
        let mut conntrack = Conntrack::of(stat);
        let sysctl = host.procfs().join("sys/net/netfilter");
        conntrack.look_up(&sysctl).expect("valid");
        conntrack
    }

    #[test]
    fn counts_are_summed_over_cores_and_entries_are_not() {
        let files = [
            ("proc/sys/net/netfilter/nf_conntrack_max", "262144\n"),
            ("proc/sys/net/netfilter/nf_conntrack_count", "99\n"),
        ];
        assert_eq!(
            samples(conntrack(&files, STAT)),
            [
                "esnode_network_conntrack_entries 26",
                "esnode_network_conntrack_limit 262144",
                "esnode_network_conntrack_drops_total 16",
                "esnode_network_conntrack_early_drops_total 7",
            ]
        );
        let expected = [
            "entries 26",
            "entries_limit 262144",
            "stat_found 1",
            "stat_invalid 2",
            "stat_ignore 3",
            "stat_insert 4",
            "stat_insert_failed 5",
            "stat_drop 16",
            "stat_early_drop 7",
            "stat_search_restart 8",
        ]
        .map(|line| format!("node_nf_conntrack_{line}"));
        assert_eq!(node_exporter_samples(conntrack(&files, STAT)), expected);
    }

    #[test]
    fn a_kernel_without_the_table_in_procfs_has_its_size() {
        let files = [
            ("proc/sys/net/netfilter/nf_conntrack_max", "262144\n"),
            ("proc/sys/net/netfilter/nf_conntrack_count", "99\n"),
        ];
        assert_eq!(
            samples(conntrack(&files, "")),
            [
                "esnode_network_conntrack_entries 99",
                "esnode_network_conntrack_limit 262144",
            ]
        );
        assert!(samples(conntrack(&[], "")).is_empty());
    }

    #[test]
    fn says_where_it_breaks() {
        let broken = |text: &str, line, expected: &str| {
            assert_eq!(parse(text), Err(ParseError::new(line, expected)), "{text}");
        };
        broken("", 1, "names of columns, entries first");
        broken("found drop\n1 2\n", 1, "names of columns, entries first");
        broken("entries drop\n1 2\n1\n", 3, "drop in hexadecimal");
        broken("entries drop\n", 2, "counts of a core");
        broken("entries drop\n\n", 2, "entries in hexadecimal");
        let huge = "entries drop\n1 10000000000000000\n";
        broken(huge, 2, "drop in hexadecimal");
    }
}
