//! The families of filesystems.

use super::{mounts::Mount, node_exporter, space::Space};
use crate::page::{Encode, Page};
use std::{fmt, sync::Arc};

/// What is known of a filesystem.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Known(Space),
    /// The system call returned an error.
    Refused,
    /// It did not return.
    Stuck,
}

/// The filesystems that are shown.
#[derive(Clone, Debug)]
pub struct FilesystemFacts {
    pub(super) filesystems: Vec<(Arc<Mount>, State)>,
}

/// A family: name, meaning, and the value.
pub(super) type Family = (&'static str, &'static str, fn(&Mount, State) -> Option<u64>);

/// Of the space, if the filesystem says that it has any: those of the kernel, and of tmpfs without a
/// limit, say zero, which means nothing.
fn bytes(state: State, blocks: impl FnOnce(&Space) -> Option<u64>) -> Option<u64> {
    let space = state.space().filter(|space| space.blocks > 0)?;
    space.bytes(blocks(space)?)
}

/// Of the inodes, if their number is limited: some filesystems make them as they need, and say zero.
fn inodes(state: State, inodes: fn(&Space) -> u64) -> Option<u64> {
    state.space().filter(|space| space.inodes > 0).map(inodes)
}

impl State {
    pub(super) fn space(&self) -> Option<&Space> {
        match self {
            Self::Known(space) => Some(space),
            Self::Refused | Self::Stuck => None,
        }
    }

    /// Whether nothing is written to it. While it says nothing, that's what the list says.
    pub(super) fn read_only(self, mount: &Mount) -> bool {
        self.space()
            .map_or(mount.read_only, |space| space.read_only)
    }
}

const FAMILIES: [Family; 9] = [
    (
        "esnode_disk_total_bytes",
        "Size of the filesystem, from statvfs(2) of the mounts in /proc/1/mounts, or of our own",
        |_, state| bytes(state, |space| Some(space.blocks)),
    ),
    (
        "esnode_disk_used_bytes",
        "Space of the filesystem that is in use, as df(1) tells it, from statvfs(2)",
        |_, state| bytes(state, Space::used),
    ),
    (
        "esnode_disk_free_bytes",
        "Space of the filesystem that is not in use, what is reserved for root included, from \
         statvfs(2)",
        |_, state| bytes(state, |space| Some(space.free)),
    ),
    (
        "esnode_disk_available_bytes",
        "Space of the filesystem that is left to others than root, from statvfs(2)",
        |_, state| bytes(state, |space| Some(space.available)),
    ),
    (
        "esnode_disk_inodes",
        "Inodes of the filesystem, if their number is limited, from statvfs(2)",
        |_, state| inodes(state, |space| space.inodes),
    ),
    (
        "esnode_disk_inodes_free",
        "Inodes of the filesystem that are not in use, from statvfs(2)",
        |_, state| inodes(state, |space| space.inodes_free),
    ),
    (
        "esnode_disk_readonly",
        "Whether the filesystem or its mount is read-only, from statvfs(2), or from \
         /proc/1/mounts while that has no answer",
        |mount, state| Some(u64::from(state.read_only(mount))),
    ),
    (
        "esnode_disk_stuck",
        "Whether the filesystem does not answer statvfs(2), or is not asked because too many of its \
         type do not; it has no other values then",
        |_, state| Some(u64::from(state == State::Stuck)),
    ),
    (
        "esnode_disk_error",
        "Whether the filesystem answers statvfs(2) with an error; it has no other values then",
        |_, state| Some(u64::from(state == State::Refused)),
    ),
];

impl FilesystemFacts {
    /// Writes these families; `point` is the name of the label for the mount point.
    fn write(&self, page: &mut Page<'_>, families: &[Family], point: &str) -> fmt::Result {
        for (name, help, value) in families {
            let samples = self.filesystems.iter().filter_map(|(mount, state)| {
                let labels = [
                    ("device", mount.device.as_str()),
                    (point, &mount.point),
                    ("fstype", &mount.fstype),
                ];
                Some((labels, value(mount, *state)?))
            });
            page.gauge(name, help, samples)?;
        }
        Ok(())
    }
}

impl Encode for FilesystemFacts {
    fn encode(&self, page: &mut Page<'_>) -> fmt::Result {
        self.write(page, &FAMILIES, "mount")
    }

    fn encode_node_exporter(&self, page: &mut Page<'_>) -> fmt::Result {
        self.write(page, &node_exporter::FAMILIES, "mountpoint")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collectors::fixture;
    use std::path::PathBuf;

    const SPACE: Space = Space {
        block: 4096,
        blocks: 100,
        free: 30,
        available: 20,
        inodes: 50,
        inodes_free: 40,
        read_only: true,
    };

    fn facts(states: &[State]) -> FilesystemFacts {
        let mount = |(number, state): (usize, &State)| {
            let mount = Mount {
                device: format!("/dev/sd{number}"),
                point: format!("/mnt/{number}"),
                fstype: "ext4".to_owned(),
                read_only: false,
                path: PathBuf::new(),
            };
            (Arc::new(mount), *state)
        };
        FilesystemFacts {
            filesystems: states.iter().enumerate().map(mount).collect(),
        }
    }

    /// Samples of one filesystem, without its labels.
    fn values(samples: &[String], number: usize) -> Vec<String> {
        let labels = format!(r#"="/mnt/{number}""#);
        let samples = samples.iter().filter(|line| line.contains(&labels));
        let value = |line: &String| {
            let name = line.split('{').next().unwrap_or_default();
            format!("{name} {}", line.rsplit(' ').next().unwrap_or_default())
        };
        samples.map(value).collect()
    }

    #[test]
    fn space_in_bytes() {
        let page = fixture::samples(facts(&[State::Known(SPACE)]));
        assert_eq!(
            page[0],
            r#"esnode_disk_total_bytes{device="/dev/sd0",mount="/mnt/0",fstype="ext4"} 409600"#
        );
        assert_eq!(
            values(&page, 0),
            [
                "esnode_disk_total_bytes 409600",
                "esnode_disk_used_bytes 286720",
                "esnode_disk_free_bytes 122880",
                "esnode_disk_available_bytes 81920",
                "esnode_disk_inodes 50",
                "esnode_disk_inodes_free 40",
                "esnode_disk_readonly 1",
                "esnode_disk_stuck 0",
                "esnode_disk_error 0",
            ]
        );
    }

    #[test]
    fn what_says_nothing_has_no_space() {
        let page = fixture::samples(facts(&[State::Stuck, State::Refused]));
        assert_eq!(
            values(&page, 0),
            [
                "esnode_disk_readonly 0",
                "esnode_disk_stuck 1",
                "esnode_disk_error 0"
            ]
        );
        assert_eq!(
            values(&page, 1),
            [
                "esnode_disk_readonly 0",
                "esnode_disk_stuck 0",
                "esnode_disk_error 1"
            ]
        );
    }

    #[test]
    fn what_is_not_limited_or_not_a_number_is_absent() {
        let none = Space {
            blocks: 0,
            inodes: 0,
            ..SPACE
        };
        let huge = Space {
            blocks: u64::MAX,
            free: u64::MAX,
            available: 1,
            ..SPACE
        };
        let more_free_than_there_is = Space { free: 101, ..SPACE };
        let states = [none, huge, more_free_than_there_is].map(State::Known);
        let page = fixture::samples(facts(&states));
        assert_eq!(
            values(&page, 0),
            [
                "esnode_disk_readonly 1",
                "esnode_disk_stuck 0",
                "esnode_disk_error 0"
            ]
        );
        let of_huge = values(&page, 1);
        assert_eq!(
            of_huge[..2],
            [
                "esnode_disk_used_bytes 0",
                "esnode_disk_available_bytes 4096"
            ]
        );
        assert!(!values(&page, 2).iter().any(|line| line.contains("used")));
    }

    #[test]
    fn by_the_names_of_node_exporter() {
        let unlimited = Space {
            blocks: 0,
            free: 0,
            available: 0,
            ..SPACE
        };
        let states = [State::Known(SPACE), State::Stuck, State::Known(unlimited)];
        let page = fixture::node_exporter_samples(facts(&states));
        let expected = concat!(
            r#"node_filesystem_avail_bytes{device="/dev/sd0",mountpoint="/mnt/0",fstype="ext4"}"#,
            " 81920"
        );
        assert_eq!(page[0], expected);
        assert_eq!(
            values(&page, 0),
            [
                "node_filesystem_avail_bytes 81920",
                "node_filesystem_device_error 0",
                "node_filesystem_files 50",
                "node_filesystem_files_free 40",
                "node_filesystem_free_bytes 122880",
                "node_filesystem_readonly 1",
                "node_filesystem_size_bytes 409600",
            ]
        );
        assert_eq!(values(&page, 1), ["node_filesystem_device_error 1"]);
        assert!(values(&page, 2).contains(&"node_filesystem_size_bytes 0".to_owned()));
    }
}
