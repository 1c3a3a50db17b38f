//! Pages that moved and were missed, from `/proc/vmstat` (proc_vmstat(5)).

use crate::{
    error::ParseError,
    page::{Encode, Page},
};
use std::fmt;

/// Counts since boot; one that this kernel does not keep is unknown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Paging {
    in_bytes: Option<u64>,
    out_bytes: Option<u64>,
    major_faults: Option<u64>,
    /// All faults less the major ones.
    pub(super) minor_faults: Option<u64>,
    /// Linux 4.13.
    oom_kills: Option<u64>,
    /// What node_exporter shows, by the names and in the units of the kernel.
    shown_there: Vec<(String, u64)>,
}

/// Whether node_exporter shows the line: `^(oom_kill|pgpg|pswp|pg.*fault).*`.
fn is_shown_there(name: &str) -> bool {
    let begins = |with: &str| name.starts_with(with);
    begins("oom_kill")
        || begins("pgpg")
        || begins("pswp")
        || (begins("pg") && name.contains("fault"))
}

pub(super) fn parse_vmstat(text: &str) -> Result<Paging, ParseError> {
    let mut paging = Paging::default();
    let mut faults = None;
    let mut is_known = false;
    for (number, line) in (1..).zip(text.lines()) {
        let Some((name, value)) = line.split_once(' ') else {
            return Err(ParseError::new(number, "a name and a count"));
        };
        // That is all that is known of a kernel without `CONFIG_VM_EVENT_COUNTERS`.
        is_known |= name == "nr_free_pages";
        if !is_shown_there(name) {
            continue;
        }
        is_known = true;
        let count = || ParseError::new(number, format!("a count of {name}"));
        let known = paging.shown_there.iter().any(|(known, _)| known == name);
        if known
            || !name
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        {
            return Err(ParseError::new(number, "another count, by its name"));
        }
        let value: u64 = value.trim_end().parse().map_err(|_| count())?;
        paging.shown_there.push((name.to_owned(), value));
        // Despite their names, the kernel writes the first two in KiB.
        let (slot, unit) = match name {
            "pgpgin" => (&mut paging.in_bytes, 1024),
            "pgpgout" => (&mut paging.out_bytes, 1024),
            "pgfault" => (&mut faults, 1),
            "pgmajfault" => (&mut paging.major_faults, 1),
            "oom_kill" => (&mut paging.oom_kills, 1),
            _ => continue,
        };
        *slot = Some(value.checked_mul(unit).ok_or_else(count)?);
    }
    if !is_known {
        return Err(ParseError::new(0, "a count that is known"));
    }
    paging.minor_faults = faults
        .zip(paging.major_faults)
        .map(|(all, major): (u64, u64)| all.saturating_sub(major));
    Ok(paging)
}

impl Encode for Paging {
    fn encode(&self, page: &mut Page<'_>) -> fmt::Result {
        page.single_counter(
            "esnode_memory_page_in_bytes",
            "Bytes that block devices were asked for, swap included, pgpgin of /proc/vmstat",
            self.in_bytes,
        )?;
        page.single_counter(
            "esnode_memory_page_out_bytes",
            "Bytes that block devices were given, swap included, pgpgout of /proc/vmstat",
            self.out_bytes,
        )?;
        let faults = [("major", self.major_faults), ("minor", self.minor_faults)];
        page.counter(
            "esnode_memory_page_faults",
            "Page faults that had to wait for a device (major) and that had not (minor), \
             pgmajfault and pgfault of /proc/vmstat",
            faults
                .into_iter()
                .filter_map(|(kind, count)| Some(([("kind", kind)], count?))),
        )?;
        page.single_counter(
            "esnode_memory_oom_kills",
            "Processes killed for want of memory, of the node or of their control group, oom_kill \
             of /proc/vmstat",
            self.oom_kills,
        )
    }

    fn encode_node_exporter(&self, page: &mut Page<'_>) -> fmt::Result {
        for (name, value) in &self.shown_there {
            page.single_unknown(
                &format!("node_vmstat_{name}"),
                &format!("{name} of /proc/vmstat, in the unit of the kernel"),
                Some(*value),
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collectors::fixture::node_exporter_samples;

    #[test]
    fn lines_by_name() {
        let text = "nr_free_pages 7\npgpgin 3\npgpgout 4\npgfault 100\npgmajfault 30\noom_kill 2\n";
        let expected = Paging {
            in_bytes: Some(3072),
            out_bytes: Some(4096),
            major_faults: Some(30),
            minor_faults: Some(70),
            oom_kills: Some(2),
            shown_there: [
                ("pgpgin", 3),
                ("pgpgout", 4),
                ("pgfault", 100),
                ("pgmajfault", 30),
                ("oom_kill", 2),
            ]
            .map(|(name, value)| (name.to_owned(), value))
            .to_vec(),
        };
        assert_eq!(parse_vmstat(text), Ok(expected));
        assert_eq!(parse_vmstat("nr_free_pages 7\n"), Ok(Paging::default()));
        let faults = parse_vmstat("pgfault 100\n").expect("valid");
        assert_eq!(faults.minor_faults, None);
    }

    #[test]
    fn node_exporter_shows_some_as_they_are() {
        let text = "pgalloc_dma 1\npgpgin 3\npswpout 4\npgmajfault 5\nnuma_pte_updates 6\n\
            pgreuse 7\noom_kill 8\n";
        assert_eq!(
            node_exporter_samples(parse_vmstat(text).expect("valid")),
            [
                "node_vmstat_pgpgin 3",
                "node_vmstat_pswpout 4",
                "node_vmstat_pgmajfault 5",
                "node_vmstat_oom_kill 8",
            ]
        );
    }

    #[test]
    fn a_name_is_there_once_and_plain() {
        let error = Err(ParseError::new(2, "another count, by its name"));
        assert_eq!(parse_vmstat("pgfault 1\npgfault 2\n"), error);
        assert_eq!(parse_vmstat("a 1\npgpg{} 2\n"), error);
        let error = Err(ParseError::new(2, "a name and a count"));
        assert_eq!(parse_vmstat("a 1\npgfau"), error);
    }

    #[test]
    fn says_where_it_breaks() {
        for text in ["", "a 1\n"] {
            let error = Err(ParseError::new(0, "a count that is known"));
            assert_eq!(parse_vmstat(text), error, "{text}");
        }
        for (line, name) in [
            ("pgpgin much", "pgpgin"),
            ("pgpgout 18014398509481984", "pgpgout"),
            ("pgfault -1", "pgfault"),
            ("pgmajfault 1 2", "pgmajfault"),
            ("oom_kill ", "oom_kill"),
        ] {
            let error = ParseError::new(2, format!("a count of {name}"));
            assert_eq!(
                parse_vmstat(&format!("a 1\n{line}\n")),
                Err(error),
                "{line}"
            );
        }
    }
}
