//! Memory by the names of node_exporter: a family for each line of `/proc/meminfo`.

use super::{Line, Lines};
use crate::page::Page;
use std::{collections::HashSet, fmt};

impl Lines {
    /// Writes them, without I/O.
    ///
    /// # Errors
    /// Only those of the formatter.
    pub(super) fn encode_node_exporter(&self, page: &mut Page<'_>) -> fmt::Result {
        let mut written = HashSet::new();
        for line in &self.values {
            let Some(name) = self.text.get(line.name.clone()) else {
                continue;
            };
            let family = family(name, line);
            // The kernel writes no line twice; a page with a family twice can't be read.
            if written.insert(family.clone()) {
                let help = format!("{name} of /proc/meminfo");
                page.single_gauge(&family, &help, Some(line.value))?;
            }
        }
        Ok(())
    }
}

/// `Active(anon)` is `node_memory_Active_anon_bytes`.
fn family(name: &str, line: &Line) -> String {
    let name = match name.split_once('(') {
        Some((whole, part)) => format!("{whole}_{}", part.replace(['(', ')'], "")),
        None => name.replace(')', ""),
    };
    let unit = if line.bytes { "_bytes" } else { "" };
    format!("node_memory_{name}{unit}")
}

#[cfg(test)]
mod tests {
    use super::super::{MemoryCollector, parse};
    use crate::collectors::fixture::{Host, node_exporter_samples};

    #[test]
    fn each_line_is_a_family() {
        let host = Host::new(&[
            (
                "proc/meminfo",
                "MemTotal:       1000 kB\nActive(anon):     10 kB\nCommitted_AS:      5 kB\n\
                 HugePages_Total:       3\nDirectMap1G:    25165824 kB\n",
            ),
            ("proc/vmstat", "pgfault 5\n"),
        ]);
        let facts = MemoryCollector::new(&host.procfs()).sample();
        assert_eq!(
            node_exporter_samples(facts.expect("readable")),
            [
                "node_memory_MemTotal_bytes 1024000",
                "node_memory_Active_anon_bytes 10240",
                "node_memory_Committed_AS_bytes 5120",
                "node_memory_HugePages_Total 3",
                "node_memory_DirectMap1G_bytes 25769803776",
                "node_vmstat_pgfault 5",
            ]
        );
    }

    #[test]
    fn no_family_is_there_twice() {
        let facts = parse("MemTotal: 1 kB\nA(b): 2 kB\nA_b: 3 kB\nMemTotal: 4 kB\n");
        assert_eq!(
            node_exporter_samples(facts.expect("valid")),
            [
                "node_memory_MemTotal_bytes 1024",
                "node_memory_A_b_bytes 2048"
            ]
        );
    }
}
