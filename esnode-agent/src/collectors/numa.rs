//! Memory of NUMA nodes, and where they were asked for it, from `meminfo` and `numastat` of
//! `/sys/devices/system/node/nodeN/` (Documentation/admin-guide/numastat.rst).

use super::{CollectError, sysfs};
use crate::{
    error::{ParseError, ReadError},
    page::{Encode, Page},
};
use std::{
    fmt,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// Nodes come and go with memory that is plugged in (CXL) or given to a guest: how often they are
/// looked for.
const LOOK: Duration = Duration::from_mins(1);

/// The lines of `numastat`, and the kinds of allocations that they count.
const KINDS: [(&str, &str); 6] = [
    ("numa_hit", "hit"),
    ("numa_miss", "miss"),
    ("numa_foreign", "foreign"),
    ("interleave_hit", "interleave"),
    ("local_node", "local"),
    ("other_node", "other"),
];

/// Memory of a node in bytes. A node of CPUs alone has none: zero, as the kernel says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Memory {
    total: u64,
    free: Option<u64>,
    used: Option<u64>,
}

/// Pages that were allocated since boot, in the order of [`KINDS`].
type Allocations = [Option<u64>; KINDS.len()];

/// One node. What it does not tell is unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Node {
    number: u32,
    memory: Option<Memory>,
    allocations: Allocations,
}

/// All nodes that are online.
#[derive(Clone, Debug)]
pub struct NumaFacts {
    nodes: Vec<Node>,
}

/// Reads the files anew in each pass.
pub struct NumaCollector {
    folder: PathBuf,
    nodes: Vec<(u32, PathBuf)>,
    looked: Option<Instant>,
}

impl NumaCollector {
    /// Reads below `sysfs`.
    #[must_use]
    pub fn new(sysfs: &Path) -> Self {
        Self {
            folder: sysfs.join("devices/system/node"),
            nodes: Vec::new(),
            looked: None,
        }
    }

    /// Samples once.
    ///
    /// # Errors
    /// If a file can't be read or parsed; [`CollectError::Off`] if the kernel knows of no nodes.
    pub fn sample(&mut self) -> Result<NumaFacts, CollectError> {
        if self.looked.is_none_or(|looked| looked.elapsed() >= LOOK) {
            self.nodes = self.look()?;
            self.looked = Some(Instant::now());
        }
        let mut nodes = Vec::with_capacity(self.nodes.len());
        for (number, folder) in &self.nodes {
            let node = read(*number, folder)?;
            if node.memory.is_none() {
                // It may be gone.
                self.looked = None;
            }
            nodes.push(node);
        }
        Ok(NumaFacts { nodes })
    }

    fn look(&self) -> Result<Vec<(u32, PathBuf)>, CollectError> {
        let names = sysfs::entries(&self.folder)?.unwrap_or_default();
        let node = |name: String| {
            let number = name.strip_prefix("node")?.parse().ok()?;
            Some((number, self.folder.join(name)))
        };
        let nodes: Vec<_> = names.into_iter().filter_map(node).collect();
        if nodes.is_empty() {
            let reason = "this kernel knows of no NUMA nodes (CONFIG_NUMA)";
            return Err(CollectError::Off(reason.to_owned()));
        }
        Ok(nodes)
    }
}

fn read(number: u32, folder: &Path) -> Result<Node, ReadError> {
    Ok(Node {
        number,
        memory: sysfs::attribute(&folder.join("meminfo"), parse_meminfo)?,
        allocations: sysfs::attribute(&folder.join("numastat"), parse_numastat)?
            .unwrap_or_default(),
    })
}

/// Lines such as `Node 0 MemTotal:       14640928 kB`.
fn parse_meminfo(text: &str) -> Result<Memory, ParseError> {
    let (mut total, mut free, mut used) = (None, None, None);
    for (number, line) in (1..).zip(text.lines()) {
        let mut fields = line.split_ascii_whitespace().skip(2);
        let slot = match fields.next() {
            Some("MemTotal:") => &mut total,
            Some("MemFree:") => &mut free,
            Some("MemUsed:") => &mut used,
            _ => continue,
        };
        let kibibytes: Option<u64> = fields.next().and_then(|field| field.parse().ok());
        let bytes = kibibytes
            .filter(|_| fields.next() == Some("kB"))
            .and_then(|kibibytes| kibibytes.checked_mul(1024));
        *slot = Some(bytes.ok_or_else(|| ParseError::new(number, "a number of kB"))?);
    }
    Ok(Memory {
        total: total.ok_or_else(|| ParseError::new(0, "a line MemTotal"))?,
        free,
        used,
    })
}

fn parse_numastat(text: &str) -> Result<Allocations, ParseError> {
    let mut allocations = Allocations::default();
    for (number, line) in (1..).zip(text.lines()) {
        let mut fields = line.split_ascii_whitespace();
        let name = fields.next().unwrap_or_default();
        let known = KINDS.iter().zip(&mut allocations);
        let Some((_, slot)) = known.into_iter().find(|((known, _), _)| *known == name) else {
            continue;
        };
        let pages = fields.next().and_then(|field| field.parse().ok());
        let missing = || ParseError::new(number, format!("a number of pages in {name}"));
        *slot = Some(pages.ok_or_else(missing)?);
    }
    Ok(allocations)
}

impl Encode for NumaFacts {
    fn encode(&self, page: &mut Page<'_>) -> fmt::Result {
        type Family = (&'static str, &'static str, fn(&Memory) -> Option<u64>);
        let families: [Family; 3] = [
            (
                "esnode_numa_memory_total_bytes",
                "Memory of the NUMA node that the kernel manages, MemTotal of its meminfo in \
                 /sys/devices/system/node; none if it has CPUs alone",
                |memory| Some(memory.total),
            ),
            (
                "esnode_numa_memory_free_bytes",
                "Memory of the NUMA node that nothing uses, MemFree of its meminfo in \
                 /sys/devices/system/node",
                |memory| memory.free,
            ),
            (
                "esnode_numa_memory_used_bytes",
                "Memory of the NUMA node that is not free, caches included, MemUsed of its \
                 meminfo in /sys/devices/system/node",
                |memory| memory.used,
            ),
        ];
        for (name, help, bytes) in families {
            let of = |node: &Node| Some(([("node", node.number)], bytes(&node.memory?)?));
            page.gauge(name, help, self.nodes.iter().filter_map(of))?;
        }
        page.counter(
            "esnode_numa_allocations",
            "Pages that were allocated on the NUMA node, from its numastat: as intended (hit), \
             though another was meant (miss), on another though this was meant (foreign), by \
             interleaving as intended (interleave), for a task that ran on it (local) or elsewhere \
             (other)",
            self.nodes
                .iter()
                .flat_map(|node| {
                    let kinds = KINDS.iter().zip(node.allocations);
                    kinds.filter_map(|((_, kind), pages)| Some(((node.number, *kind), pages?)))
                })
                .map(|((node, kind), pages)| (([("node", node)], [("kind", kind)]), pages)),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collectors::fixture::{Host, samples};

    fn meminfo(node: u32, [total, free, used]: [u64; 3]) -> String {
        format!(
            "Node {node} MemTotal:       {total} kB\nNode {node} MemFree:        {free} kB\n\
             Node {node} MemUsed:        {used} kB\nNode {node} HugePages_Total:     7\n"
        )
    }

    #[test]
    fn nodes_with_gaps_without_memory_and_without_cpus() {
        let host = Host::new(&[
            ("sys/devices/system/node/online", "0,2,10\n"),
            (
                "sys/devices/system/node/node0/meminfo",
                &meminfo(0, [100, 40, 60]),
            ),
            (
                "sys/devices/system/node/node0/numastat",
                "numa_hit 1\nnuma_miss 2\nnuma_foreign 3\ninterleave_hit 4\nlocal_node 5\n\
                 other_node 6\n",
            ),
            (
                "sys/devices/system/node/node10/meminfo",
                &meminfo(10, [8, 5, 3]),
            ),
            ("sys/devices/system/node/node10/numastat", "numa_hit 9\n"),
            (
                "sys/devices/system/node/node2/meminfo",
                &meminfo(2, [0, 0, 0]),
            ),
        ]);
        let facts = NumaCollector::new(&host.sysfs()).sample();
        assert_eq!(
            samples(facts.expect("readable")),
            [
                r#"esnode_numa_memory_total_bytes{node="0"} 102400"#,
                r#"esnode_numa_memory_total_bytes{node="2"} 0"#,
                r#"esnode_numa_memory_total_bytes{node="10"} 8192"#,
                r#"esnode_numa_memory_free_bytes{node="0"} 40960"#,
                r#"esnode_numa_memory_free_bytes{node="2"} 0"#,
                r#"esnode_numa_memory_free_bytes{node="10"} 5120"#,
                r#"esnode_numa_memory_used_bytes{node="0"} 61440"#,
                r#"esnode_numa_memory_used_bytes{node="2"} 0"#,
                r#"esnode_numa_memory_used_bytes{node="10"} 3072"#,
                r#"esnode_numa_allocations_total{node="0",kind="hit"} 1"#,
                r#"esnode_numa_allocations_total{node="0",kind="miss"} 2"#,
                r#"esnode_numa_allocations_total{node="0",kind="foreign"} 3"#,
                r#"esnode_numa_allocations_total{node="0",kind="interleave"} 4"#,
                r#"esnode_numa_allocations_total{node="0",kind="local"} 5"#,
                r#"esnode_numa_allocations_total{node="0",kind="other"} 6"#,
                r#"esnode_numa_allocations_total{node="10",kind="hit"} 9"#,
            ]
        );
    }

    #[test]
    fn a_node_that_goes_is_looked_for() {
        let host = Host::new(&[
            (
                "sys/devices/system/node/node0/meminfo",
                &meminfo(0, [1, 0, 1]),
            ),
            (
                "sys/devices/system/node/node1/meminfo",
                &meminfo(1, [2, 0, 2]),
            ),
        ]);
        let mut collector = NumaCollector::new(&host.sysfs());
        let mut totals = || {
            let mut lines = samples(collector.sample().expect("readable"));
            lines.retain(|line| line.contains("total"));
            lines
        };
        assert_eq!(totals().len(), 2);
        let node = host.sysfs().join("devices/system/node/node1");
        std::fs::remove_dir_all(node).expect("removed");
        let left = [r#"esnode_numa_memory_total_bytes{node="0"} 1024"#];
        assert_eq!(totals(), left);
        host.write(
            "sys/devices/system/node/node3/meminfo",
            meminfo(3, [3, 0, 3]),
        );
        // The one that went made it look.
        assert_eq!(totals().len(), 2);
    }

    #[test]
    fn says_where_it_breaks() {
        let first = "Node 0 MemTotal: 1 kB\n";
        for line in [
            "Node 0 MemFree:",
            "Node 0 MemFree: 5",
            "Node 0 MemFree: -5 kB",
            "Node 0 MemFree: 99999999999999999999 kB",
            "Node 0 MemUsed: 18014398509481984 kB",
        ] {
            let error = ParseError::new(2, "a number of kB");
            assert_eq!(
                parse_meminfo(&format!("{first}{line}\n")),
                Err(error),
                "{line}"
            );
        }
        let error = ParseError::new(0, "a line MemTotal");
        assert_eq!(parse_meminfo("Node 0 MemFree: 5 kB\n"), Err(error));
        for line in ["numa_miss", "numa_miss x", "numa_miss 99999999999999999999"] {
            let error = ParseError::new(2, "a number of pages in numa_miss");
            assert_eq!(
                parse_numastat(&format!("numa_hit 1\n{line}\n")),
                Err(error),
                "{line}"
            );
        }
    }

    #[test]
    fn a_kernel_without_is_no_failure() {
        let host = Host::new(&[("sys/devices/system/cpu/online", "0\n")]);
        let outcome = NumaCollector::new(&host.sysfs()).sample();
        assert!(matches!(outcome, Err(CollectError::Off(_))), "{outcome:?}");
    }
}
