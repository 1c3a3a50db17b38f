//! Arrays by the names of node_exporter: its collector mdadm.

use super::{Array, MdFacts};
use crate::page::Page;
use std::fmt;

/// States that it knows. What else an active array does is active.
const STATES: [&str; 5] = ["active", "check", "inactive", "recovering", "resync"];

impl MdFacts {
    /// Writes them, without I/O.
    ///
    /// # Errors
    /// Only those of the formatter.
    pub(super) fn encode_by_node_exporter(&self, page: &mut Page<'_>) -> fmt::Result {
        page.gauge(
            "node_md_blocks",
            "Blocks of 1,024 bytes of the array, from /proc/mdstat",
            self.values(|it| it.blocks),
        )?;
        page.gauge(
            "node_md_blocks_synced",
            "Of them, those that recovery, resync or check are done with; all if there is none, from \
             /proc/mdstat",
            self.values(blocks_synced),
        )?;
        page.gauge(
            "node_md_disks",
            "Devices of the array by what they are, from /proc/mdstat",
            self.arrays.iter().flat_map(|array| {
                let labels = |state| [("device", array.name.as_str()), ("state", state)];
                let active = array.disks.map_or(0, |disks| disks.active);
                [
                    (labels("active"), active),
                    (labels("failed"), array.failed),
                    (labels("spare"), array.spare),
                ]
            }),
        )?;
        page.gauge(
            "node_md_disks_required",
            "Devices that the array should have, from /proc/mdstat; 0 while it is inactive",
            self.values(|it| Some(it.disks.map_or(0, |disks| disks.required))),
        )?;
        page.gauge(
            "node_md_state",
            "Whether the array is in this state, from /proc/mdstat",
            self.arrays.iter().flat_map(|array| {
                let is = |known| u32::from(state(array) == Some(known));
                STATES.map(|known| {
                    (
                        [("device", array.name.as_str()), ("state", known)],
                        is(known),
                    )
                })
            }),
        )
    }
}

fn state(array: &Array) -> Option<&'static str> {
    let known = array.state().filter(|state| STATES.contains(state));
    known.or(array.activity)
}

fn blocks_synced(array: &Array) -> Option<u64> {
    match array.sync.filter(|sync| STATES.contains(&sync.state)) {
        Some(sync) => Some(sync.done.map_or(0, |(done, _)| done)),
        None => array.blocks,
    }
}

#[cfg(test)]
mod tests {
    use super::super::{MdCollector, MdFacts};
    use crate::collectors::fixture::{Host, node_exporter_samples};

    fn facts(mdstat: &str) -> MdFacts {
        let host = Host::new(&[("proc/mdstat", mdstat)]);
        let facts = MdCollector::new(&host.procfs()).sample();
        facts.expect("valid")
    }

    #[test]
    fn every_word_has_its_family() {
        let page = node_exporter_samples(facts(
            "md6 : active raid1 sdb2[2](F) sdc[1](S) sda2[0]\n      195310144 blocks [2/1] [U_]\n      \
             [=>...]  recovery =  8.5% (16775552/195310144) finish=17.0min speed=259783K/sec\n\n",
        ));
        assert_eq!(
            page,
            [
                r#"node_md_blocks{device="md6"} 195310144"#,
                r#"node_md_blocks_synced{device="md6"} 16775552"#,
                r#"node_md_disks{device="md6",state="active"} 1"#,
                r#"node_md_disks{device="md6",state="failed"} 1"#,
                r#"node_md_disks{device="md6",state="spare"} 1"#,
                r#"node_md_disks_required{device="md6"} 2"#,
                r#"node_md_state{device="md6",state="active"} 0"#,
                r#"node_md_state{device="md6",state="check"} 0"#,
                r#"node_md_state{device="md6",state="inactive"} 0"#,
                r#"node_md_state{device="md6",state="recovering"} 1"#,
                r#"node_md_state{device="md6",state="resync"} 0"#,
            ]
        );
    }

    /// As node_exporter 1.5 wrote it.
    #[test]
    fn what_it_does_not_know_and_what_waits() {
        let array = "active raid1 a[0] b[1]\n      9 blocks [2/2] [UU]\n";
        let page = node_exporter_samples(facts(&format!(
            "md1 : {array}      [=>...]  reshape =  8.5% (4/9) finish=17.0min\n\n\
             md2 : {array}\tresync=PENDING\n\n\
             md3 : inactive a[0](S)\n      9 blocks super external:imsm\n\n\
             md4 : broken raid0 a[0] b[1]\n      9 blocks 512k chunks\n\n"
        )));
        for line in [
            r#"node_md_state{device="md1",state="active"} 1"#,
            r#"node_md_blocks_synced{device="md1"} 9"#,
            r#"node_md_state{device="md2",state="resync"} 1"#,
            r#"node_md_blocks_synced{device="md2"} 0"#,
            r#"node_md_state{device="md3",state="inactive"} 1"#,
            r#"node_md_disks_required{device="md3"} 0"#,
            r#"node_md_disks{device="md3",state="active"} 0"#,
            r#"node_md_disks{device="md4",state="active"} 2"#,
        ] {
            assert!(
                page.iter().any(|it| it == line),
                "{line} is not in {page:?}"
            );
        }
        let broken = |line: &&String| line.starts_with(r#"node_md_state{device="md4""#);
        let states = page.iter().filter(broken).map(|line| line.ends_with(" 0"));
        assert_eq!(states.collect::<Vec<_>>(), [true; 5]);
    }
}
