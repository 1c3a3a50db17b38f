//! Memory, swap and huge pages, from `/proc/meminfo` (proc_meminfo(5)).

mod node_exporter;
mod paging;

use super::{parse_file, parse_optional};
use crate::{
    api::Snapshot,
    error::{ParseError, ReadError},
    page::{Encode, Page},
};
use paging::{Paging, parse_vmstat};
use std::{
    fmt,
    ops::Range,
    path::{Path, PathBuf},
};

/// Bytes by the names of `/proc/meminfo`. A line that this kernel does not write is unknown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemoryFacts {
    total: Option<u64>,
    free: Option<u64>,
    available: Option<u64>,
    buffers: Option<u64>,
    cached: Option<u64>,
    dirty: Option<u64>,
    writeback: Option<u64>,
    slab: Option<u64>,
    shared: Option<u64>,
    swap_total: Option<u64>,
    swap_free: Option<u64>,
    /// Huge pages are numbers of pages of this size.
    huge_page_size: Option<u64>,
    huge_pages: Option<u64>,
    huge_pages_free: Option<u64>,
    huge_pages_reserved: Option<u64>,
    lines: Lines,
    paging: Paging,
}

/// All lines, for node_exporter's names: it has a family for each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Lines {
    /// The file: an allocation for each name would cost as much as reading it.
    text: String,
    values: Vec<Line>,
}

/// One line.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Line {
    /// Where its name stands in the text.
    name: Range<usize>,
    value: u64,
    /// Whether that is in bytes, or else a number of huge pages.
    bytes: bool,
}

/// Reads the files anew in each pass.
pub struct MemoryCollector {
    meminfo: PathBuf,
    vmstat: PathBuf,
    /// What the last page said: the kernel counts a fault in one sum before it does in the other.
    minor_faults: u64,
}

impl MemoryCollector {
    /// Reads below `procfs`.
    #[must_use]
    pub fn new(procfs: &Path) -> Self {
        Self {
            meminfo: procfs.join("meminfo"),
            vmstat: procfs.join("vmstat"),
            minor_faults: 0,
        }
    }

    /// Samples once.
    ///
    /// # Errors
    /// If a file can't be read or parsed.
    pub fn sample(&mut self) -> Result<MemoryFacts, ReadError> {
        let mut facts = parse_file(&self.meminfo, parse)?;
        facts.paging = parse_optional(&self.vmstat, parse_vmstat)?.unwrap_or_default();
        if let Some(faults) = &mut facts.paging.minor_faults {
            self.minor_faults = self.minor_faults.max(*faults);
            *faults = self.minor_faults;
        }
        Ok(facts)
    }
}

fn parse(text: &str) -> Result<MemoryFacts, ParseError> {
    let mut facts = MemoryFacts::default();
    let mut begin = 0;
    for (number, line) in (1..).zip(text.split_inclusive('\n')) {
        let here = begin;
        begin += line.len();
        let Some((name, rest)) = line.split_once(':') else {
            return Err(ParseError::new(number, "a name and a colon"));
        };
        let (value, bytes) = parse_value(name, rest.trim(), number)?;
        facts.lines.values.push(Line {
            name: here..here + name.len(),
            value,
            bytes,
        });
        let slot = match name {
            "MemTotal" => &mut facts.total,
            "MemFree" => &mut facts.free,
            "MemAvailable" => &mut facts.available,
            "Buffers" => &mut facts.buffers,
            "Cached" => &mut facts.cached,
            "Dirty" => &mut facts.dirty,
            "Writeback" => &mut facts.writeback,
            "Slab" => &mut facts.slab,
            "Shmem" => &mut facts.shared,
            "SwapTotal" => &mut facts.swap_total,
            "SwapFree" => &mut facts.swap_free,
            "Hugepagesize" => &mut facts.huge_page_size,
            "HugePages_Total" => &mut facts.huge_pages,
            "HugePages_Free" => &mut facts.huge_pages_free,
            "HugePages_Rsvd" => &mut facts.huge_pages_reserved,
            _ => continue,
        };
        *slot = Some(value);
    }
    if facts.total.is_none() {
        return Err(ParseError::new(0, "a line MemTotal"));
    }
    text.clone_into(&mut facts.lines.text);
    Ok(facts)
}

/// The value of a line, and whether it is in bytes: all are but the numbers of huge pages.
fn parse_value(name: &str, text: &str, line: usize) -> Result<(u64, bool), ParseError> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_()".contains(&byte);
    if name.is_empty() || !name.bytes().all(plain) {
        return Err(ParseError::new(line, "a name such as Active(anon)"));
    }
    if name.starts_with("HugePages_") {
        let pages = text.parse();
        let pages = pages.map_err(|_| ParseError::new(line, "a number of pages"))?;
        return Ok((pages, false));
    }
    let kibibytes = text.strip_suffix(" kB");
    let kibibytes = kibibytes.and_then(|number| number.trim_end().parse().ok());
    let bytes = kibibytes.and_then(|kibibytes: u64| kibibytes.checked_mul(1024));
    let bytes = bytes.ok_or_else(|| ParseError::new(line, "a number of kB"))?;
    Ok((bytes, true))
}

impl MemoryFacts {
    /// Memory that is neither free nor a cache: what free(1) calls used.
    fn used(&self) -> Option<u64> {
        Some(self.total?.saturating_sub(self.available?))
    }

    fn swap_used(&self) -> Option<u64> {
        Some(self.swap_total?.saturating_sub(self.swap_free?))
    }

    /// So many huge pages in bytes.
    fn huge(&self, pages: Option<u64>) -> Option<u64> {
        pages?.checked_mul(self.huge_page_size?)
    }
}

impl Encode for MemoryFacts {
    fn encode(&self, page: &mut Page<'_>) -> fmt::Result {
        let families = [
            (
                "esnode_memory_total_bytes",
                "Memory that the kernel manages, MemTotal of /proc/meminfo",
                self.total,
            ),
            (
                "esnode_memory_used_bytes",
                "Memory that is not available: MemTotal less MemAvailable of /proc/meminfo",
                self.used(),
            ),
            (
                "esnode_memory_free_bytes",
                "Memory that nothing uses, MemFree of /proc/meminfo",
                self.free,
            ),
            (
                "esnode_memory_available_bytes",
                "Memory that programs can get without swapping, MemAvailable of /proc/meminfo",
                self.available,
            ),
            (
                "esnode_memory_buffers_bytes",
                "Cached blocks of devices, Buffers of /proc/meminfo",
                self.buffers,
            ),
            (
                "esnode_memory_cached_bytes",
                "Cached pages of files, Cached of /proc/meminfo",
                self.cached,
            ),
            (
                "esnode_memory_dirty_bytes",
                "Memory waiting to be written to disk, Dirty of /proc/meminfo",
                self.dirty,
            ),
            (
                "esnode_memory_writeback_bytes",
                "Memory being written to disk, Writeback of /proc/meminfo",
                self.writeback,
            ),
            (
                "esnode_memory_slab_bytes",
                "Memory of kernel objects, Slab of /proc/meminfo",
                self.slab,
            ),
            (
                "esnode_memory_shared_bytes",
                "Shared memory and tmpfs, Shmem of /proc/meminfo",
                self.shared,
            ),
            (
                "esnode_swap_total_bytes",
                "Swap space, SwapTotal of /proc/meminfo",
                self.swap_total,
            ),
            (
                "esnode_swap_used_bytes",
                "Swap space in use: SwapTotal less SwapFree of /proc/meminfo",
                self.swap_used(),
            ),
            (
                "esnode_swap_free_bytes",
                "Swap space not in use, SwapFree of /proc/meminfo",
                self.swap_free,
            ),
            (
                "esnode_memory_huge_pages_total_bytes",
                "Memory set aside as huge pages of the default size, HugePages_Total of \
                 /proc/meminfo",
                self.huge(self.huge_pages),
            ),
            (
                "esnode_memory_huge_pages_free_bytes",
                "Huge pages of the default size that are not in use, HugePages_Free of \
                 /proc/meminfo",
                self.huge(self.huge_pages_free),
            ),
            (
                "esnode_memory_huge_pages_reserved_bytes",
                "Free huge pages of the default size that are promised to someone, HugePages_Rsvd \
                 of /proc/meminfo",
                self.huge(self.huge_pages_reserved),
            ),
        ];
        for (name, help, bytes) in families {
            page.single_gauge(name, help, bytes)?;
        }
        self.paging.encode(page)
    }

    fn encode_node_exporter(&self, page: &mut Page<'_>) -> fmt::Result {
        self.lines.encode_node_exporter(page)?;
        self.paging.encode_node_exporter(page)
    }

    fn describe(&self, snapshot: &mut Snapshot) {
        let node = &mut snapshot.node;
        node.memory_total_bytes = self.total;
        node.memory_available_bytes = self.available;
        node.swap_total_bytes = self.swap_total;
        node.swap_used_bytes = self.swap_used();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_by_name_in_bytes() {
        let facts = parse(
            "MemTotal:       1000 kB\nMemFree:         100 kB\nMemAvailable:    400 kB\n\
             HugePages_Total:       3\nSwapTotal:         8 kB\nSwapFree:          2 kB\n\
             Hugepagesize:       2048 kB\n",
        )
        .expect("valid");
        assert_eq!(facts.total, Some(1_024_000));
        assert_eq!(facts.used(), Some(600 * 1024));
        assert_eq!(facts.swap_used(), Some(6 * 1024));
        assert_eq!(facts.huge(facts.huge_pages), Some(6 << 20));
        assert_eq!(facts.huge(facts.huge_pages_free), None);
        assert_eq!(facts.slab, None);
    }

    #[test]
    fn says_where_it_breaks() {
        assert_eq!(
            parse("MemTotal: 5 kB\nMemFree: much\n"),
            Err(ParseError::new(2, "a number of kB"))
        );
        assert_eq!(
            parse("MemTotal: 99999999999999999999 kB\n"),
            Err(ParseError::new(1, "a number of kB"))
        );
        assert_eq!(
            parse("MemTotal: 5 kB\nHugePages_Free: 5 kB\n"),
            Err(ParseError::new(2, "a number of pages"))
        );
        assert_eq!(
            parse("MemTotal: 5 kB\nUnheardOf: 5 MB\n"),
            Err(ParseError::new(2, "a number of kB"))
        );
        assert_eq!(
            parse("MemTotal: 5 kB\nMem Free: 5 kB\n"),
            Err(ParseError::new(2, "a name such as Active(anon)"))
        );
        assert_eq!(
            parse("MemTotal: 5 kB\nMemFr"),
            Err(ParseError::new(2, "a name and a colon"))
        );
        assert_eq!(parse(""), Err(ParseError::new(0, "a line MemTotal")));
    }
}
