//! Arrays of software RAID, from `/proc/mdstat` (`md_seq_show` of drivers/md/md.c; md(4)).

mod node_exporter;
mod parse;

use super::{CollectError, keep_first, parse_optional};
use crate::page::{Encode, Page};
use parse::parse;
use std::{
    fmt,
    path::{Path, PathBuf},
};

/// What an array is, or is doing: one of these.
const STATES: [&str; 7] = [
    "active",
    "inactive",
    "broken",
    "recovering",
    "resync",
    "check",
    "reshape",
];

/// Its devices, while it is active.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Disks {
    /// As many as it should have.
    required: u64,
    /// As many as hold all of its data.
    active: u64,
    /// Whether it can do without one.
    redundant: bool,
}

/// What goes over the whole array, to bring its devices in line or to compare them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Sync {
    /// One of [`STATES`].
    state: &'static str,
    /// Blocks that are done, of so many. `None` while it waits.
    done: Option<(u64, u64)>,
}

/// One array.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Array {
    name: String,
    /// One of [`STATES`]; `None` is another one.
    activity: Option<&'static str>,
    sync: Option<Sync>,
    disks: Option<Disks>,
    /// Devices that failed and were not taken out.
    failed: u64,
    /// Devices that wait for another one to fail, or for the array to be started.
    spare: u64,
    /// Of 1,024 bytes. `None` of an array without devices.
    blocks: Option<u64>,
}

impl Array {
    fn state(&self) -> Option<&'static str> {
        self.sync.map(|sync| sync.state).or(self.activity)
    }

    fn degraded(&self) -> Option<u64> {
        let disks = self.disks.filter(|disks| disks.redundant)?;
        Some(disks.required.saturating_sub(disks.active))
    }

    fn sync_percent(&self) -> Option<f64> {
        let (done, all) = self.sync?.done?;
        (all > 0).then(|| percent(done, all))
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "blocks of an array are below 2^53"
)]
fn percent(part: u64, whole: u64) -> f64 {
    100.0 * part as f64 / whole as f64
}

/// All arrays.
#[derive(Clone, Debug)]
pub struct MdFacts {
    arrays: Vec<Array>,
}

/// Reads the file anew in each pass.
pub struct MdCollector {
    file: PathBuf,
}

impl MdCollector {
    /// Reads below `procfs`.
    #[must_use]
    pub fn new(procfs: &Path) -> Self {
        Self {
            file: procfs.join("mdstat"),
        }
    }

    /// Samples once.
    ///
    /// # Errors
    /// If the file can't be read or parsed; [`CollectError::Off`] if there is no array.
    pub fn sample(&mut self) -> Result<MdFacts, CollectError> {
        let mut arrays = parse_optional(&self.file, parse)?.unwrap_or_default();
        keep_first(&mut arrays, |array| &array.name);
        if arrays.is_empty() {
            let reason = "no software RAID (no array in /proc/mdstat)";
            return Err(CollectError::Off(reason.to_owned()));
        }
        Ok(MdFacts { arrays })
    }
}

impl MdFacts {
    /// Of each array the value that it has.
    fn values<'a, V>(
        &'a self,
        value: impl Fn(&'a Array) -> Option<V> + 'a,
    ) -> impl Iterator<Item = ([(&'static str, &'a str); 1], V)> {
        let arrays = self.arrays.iter();
        arrays.filter_map(move |it| Some(([("device", it.name.as_str())], value(it)?)))
    }
}

impl Encode for MdFacts {
    fn encode(&self, page: &mut Page<'_>) -> fmt::Result {
        page.gauge(
            "esnode_md_raid_disks",
            "Devices that the array should have, from /proc/mdstat; absent while it is inactive",
            self.values(|it| Some(it.disks?.required)),
        )?;
        page.gauge(
            "esnode_md_degraded_disks",
            "Of the devices that the array should have, those that are missing, failed or not yet \
             rebuilt, from /proc/mdstat; absent where none can be missing (raid0, linear)",
            self.values(Array::degraded),
        )?;
        page.gauge(
            "esnode_md_state",
            "Whether the array is in this state, from /proc/mdstat; recovering, resync, check and \
             reshape are those of an active one, running or waiting for their turn",
            self.arrays.iter().flat_map(|array| {
                let is = |state| u32::from(array.state() == Some(state));
                STATES.map(|state| {
                    (
                        [("device", array.name.as_str()), ("state", state)],
                        is(state),
                    )
                })
            }),
        )?;
        page.gauge(
            "esnode_md_sync_completed_percent",
            "How much of its recovery, resync, check or reshape the array is done with, from \
             /proc/mdstat; absent if there is none, or while it waits",
            self.values(Array::sync_percent),
        )
    }

    fn encode_node_exporter(&self, page: &mut Page<'_>) -> fmt::Result {
        self.encode_by_node_exporter(page)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collectors::fixture::{Host, samples};

    fn page(mdstat: &str) -> Result<Vec<String>, CollectError> {
        let host = Host::new(&[("proc/mdstat", mdstat)]);
        Ok(samples(MdCollector::new(&host.procfs()).sample()?))
    }

    #[test]
    fn an_array_that_is_rebuilt() {
        let page = page(
            "Personalities : [raid1] \n\
             md0 : active raid1 sdc1[2] sdb1[1](F) sda1[0]\n      \
             1000 blocks super 1.2 [2/1] [U_]\n      \
             [==>..................]  recovery = 12.5% (125/1000) finish=17.0min speed=2K/sec\n      \n\
             unused devices: <none>\n",
        );
        assert_eq!(
            page.expect("valid"),
            [
                r#"esnode_md_raid_disks{device="md0"} 2"#,
                r#"esnode_md_degraded_disks{device="md0"} 1"#,
                r#"esnode_md_state{device="md0",state="active"} 0"#,
                r#"esnode_md_state{device="md0",state="inactive"} 0"#,
                r#"esnode_md_state{device="md0",state="broken"} 0"#,
                r#"esnode_md_state{device="md0",state="recovering"} 1"#,
                r#"esnode_md_state{device="md0",state="resync"} 0"#,
                r#"esnode_md_state{device="md0",state="check"} 0"#,
                r#"esnode_md_state{device="md0",state="reshape"} 0"#,
                r#"esnode_md_sync_completed_percent{device="md0"} 12.5"#,
            ]
        );
    }

    #[test]
    fn what_is_unknown_is_absent() {
        let page = page(
            "md1 : active raid0 sdc2[1] sdd2[0]\n      1000 blocks super 1.2 512k chunks\n\n\
             md2 : inactive sdi2[0](S)\n      7932 blocks super external:imsm\n\n\
             md3 : active raid1 sdb1[1] sda1[0]\n      1000 blocks [2/2] [UU]\n\tresync=DELAYED\n\n",
        );
        let mut page = page.expect("valid");
        page.retain(|line| !line.ends_with(" 0") || !line.starts_with("esnode_md_state"));
        assert_eq!(
            page,
            [
                r#"esnode_md_raid_disks{device="md1"} 2"#,
                r#"esnode_md_raid_disks{device="md3"} 2"#,
                r#"esnode_md_degraded_disks{device="md3"} 0"#,
                r#"esnode_md_state{device="md1",state="active"} 1"#,
                r#"esnode_md_state{device="md2",state="inactive"} 1"#,
                r#"esnode_md_state{device="md3",state="resync"} 1"#,
            ]
        );
    }

    #[test]
    fn an_array_that_is_listed_twice_is_shown_once() {
        let array = "md0 : active raid1 a[0] b[1]\n      9 blocks [2/2] [UU]\n\n";
        let mut page = page(&array.repeat(2)).expect("valid");
        page.retain(|line| line.starts_with("esnode_md_raid_disks"));
        assert_eq!(page, [r#"esnode_md_raid_disks{device="md0"} 2"#]);
    }

    #[test]
    fn a_host_without_arrays_is_no_failure() {
        let outcome = page("Personalities : \nunused devices: <none>\n");
        assert!(matches!(outcome, Err(CollectError::Off(_))), "{outcome:?}");
        let outcome = MdCollector::new(Path::new("/nonexistent")).sample();
        assert!(matches!(outcome, Err(CollectError::Off(_))), "{outcome:?}");
    }

    #[test]
    fn an_error_names_the_file() {
        let error = page("md0 : \n").expect_err("malformed").to_string();
        let expected = "proc/mdstat, line 1: expected the state of md0";
        assert!(error.ends_with(expected), "{error}");
    }
}
