//! Filesystems: their space and inodes, by statvfs(2) of the mounts in `/proc/PID/mounts`
//! (proc_pid_mounts(5)).

mod mounts;
mod node_exporter;
mod space;

use super::{
    CollectError,
    filter::DeviceFilter,
    watchdog::{Reply, Watchdog},
};
use crate::{
    error::ReadError,
    page::{Encode, Page},
};
use mounts::{Mount, MountFilter, Mounts};
use space::Space;
use std::{
    fmt,
    fs::{self, File},
    io::{self, Read as _},
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

/// Mount points that are not shown if nobody says otherwise: those that node_exporter leaves out,
/// and two kinds that come and go with pods, under names that are never used again. The volumes of
/// a pod are binds of filesystems that are mounted elsewhere as well, or of memory; the sandboxes of
/// containerd and k3s are its own business, as Docker's are.
pub const DEFAULT_MOUNT_EXCLUDE: &str = "^/(dev|proc|run/credentials/.+|sys|var/lib/docker/.+\
    |var/lib/containers/storage/.+|var/lib/kubelet/pods/.+|run/(k3s/)?containerd/.+)($|/)";

/// Types of filesystems that are not shown if nobody says otherwise, as by node_exporter: interfaces
/// of the kernel, images that are always full, and overlays, whose space is that of another
/// filesystem.
pub const DEFAULT_FSTYPE_EXCLUDE: &str = "^(autofs|binfmt_misc|bpf|cgroup2?|configfs|debugfs|devpts\
    |devtmpfs|fusectl|hugetlbfs|iso9660|mqueue|nsfs|overlay|proc|procfs|pstore|rpc_pipefs\
    |securityfs|selinuxfs|squashfs|sysfs|tracefs)$";

/// What is known of a filesystem.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Known(Space),
    /// The system call returned an error.
    Refused,
    /// It did not return.
    Stuck,
}

/// The filesystems that are shown.
#[derive(Clone, Debug)]
pub struct FilesystemFacts {
    filesystems: Vec<(Arc<Mount>, State)>,
}

/// A list of mounts, and the folder that their mount points begin in.
struct View {
    list: PathBuf,
    root: PathBuf,
}

/// What was read of a list.
struct Listed {
    list: PathBuf,
    text: Vec<u8>,
    mounts: Vec<Arc<Mount>>,
    complaint: Option<String>,
}

/// Reads the list anew in each pass, and asks each filesystem.
pub struct FilesystemCollector {
    host: View,
    own: View,
    filter: MountFilter,
    /// Of the last pass: as long as the list is the same, so are the mounts.
    listed: Option<Listed>,
    watchdog: Watchdog<Mount>,
}

impl FilesystemCollector {
    /// Reads below `procfs`. Those mounts are shown whose mount point and type the filters show.
    #[must_use]
    pub fn new(procfs: &Path, points: DeviceFilter, types: DeviceFilter) -> Self {
        Self {
            // Process 1 of the host has the host's mounts, and its `root` leads to them from any
            // other mount namespace: a container that sees the host's processes needs nothing of
            // the host mounted into it. A list and the paths in it must be of the same process, or
            // they tell of other filesystems than are there.
            host: View {
                list: procfs.join("1/mounts"),
                root: procfs.join("1/root"),
            },
            // Everybody may read the list of process 1, but its root takes CAP_SYS_PTRACE. Without,
            // there is the own view (`mounts` is a link to `self/mounts`): on a host, that is the
            // same, unless the service manager gave us a namespace of our own, which has the host's
            // filesystems and little else; in a container, it's the container's. Where process 1
            // is the container's own (no `--pid=host`), both views are the container's: of the
            // host's disks, it has those that something in it is mounted from, such as `/etc/hosts`.
            own: View {
                list: procfs.join("mounts"),
                root: PathBuf::new(),
            },
            filter: MountFilter { points, types },
            listed: None,
            watchdog: Watchdog::new("filesystem"),
        }
    }

    /// Samples once. A filesystem that does not answer holds it up in the first pass, and no more.
    ///
    /// # Errors
    /// If no list can be read, or the system refuses a thread; [`CollectError::Off`] if there is no
    /// list.
    pub fn sample(&mut self) -> Result<FilesystemFacts, CollectError> {
        let last = self.listed.take();
        let listed = self
            .listed
            .insert(list(&self.host, &self.own, last, &self.filter)?);
        let replies = self.watchdog.ask(&listed.mounts);
        let states = replies.map_err(CollectError::Thread)?.into_iter();
        let states = states.map(|reply| match reply {
            Reply::Answer(Ok(space)) => State::Known(space),
            Reply::Answer(Err(_)) => State::Refused,
            Reply::Hangs => State::Stuck,
        });
        Ok(FilesystemFacts {
            filesystems: listed.mounts.iter().cloned().zip(states).collect(),
        })
    }

    /// What could not be read of the list in the last pass, though the rest was.
    #[must_use]
    pub fn complaint(&self) -> Option<String> {
        self.listed.as_ref()?.complaint.clone()
    }
}

/// Reads the list of the host, or else our own.
fn list(
    host: &View,
    own: &View,
    last: Option<Listed>,
    filter: &MountFilter,
) -> Result<Listed, CollectError> {
    let bytes = last.as_ref().map_or(0, |last| last.text.len());
    // The link is refused to the same people as what it leads to, and reading it asks no filesystem.
    let hosts = match fs::read_link(&host.root) {
        Err(error) if error.kind() != io::ErrorKind::InvalidInput => None,
        _ => host.read(bytes).ok(),
    };
    let (view, text) = match hosts {
        Some(text) => (host, text),
        None => (own, own.read(bytes).map_err(without)?),
    };
    let same = |last: &Listed| last.list == view.list && last.text == text;
    if let Some(last) = last.filter(same) {
        return Ok(last);
    }
    let Mounts { mounts, fault } = mounts::parse(&text, view.root.as_os_str().as_bytes(), filter);
    Ok(Listed {
        list: view.list.clone(),
        text,
        mounts: mounts.into_iter().map(Arc::new).collect(),
        complaint: fault.map(|fault| fault.at(&view.list).to_string()),
    })
}

impl View {
    /// Reads the list, of about so many bytes.
    fn read(&self, bytes: usize) -> Result<Vec<u8>, ReadError> {
        // The kernel gives at most a page at a time.
        let mut text = Vec::with_capacity(bytes + 4096);
        let read = File::open(&self.list).and_then(|mut file| file.read_to_end(&mut text));
        read.map_err(|source| ReadError::Io {
            path: self.list.clone(),
            source,
        })?;
        Ok(text)
    }
}

/// Why there is no list at all.
fn without(error: ReadError) -> CollectError {
    if error.is_absent() {
        let reason = "there is no list of mounts (no /proc/1/mounts and no /proc/mounts)";
        return CollectError::Off(reason.to_owned());
    }
    error.into()
}

/// A family: name, meaning, and the value.
type Family = (&'static str, &'static str, fn(&Mount, State) -> Option<u64>);

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
    fn space(&self) -> Option<&Space> {
        match self {
            Self::Known(space) => Some(space),
            Self::Refused | Self::Stuck => None,
        }
    }

    /// Whether nothing is written to it. While it says nothing, that's what the list says.
    fn read_only(self, mount: &Mount) -> bool {
        self.space()
            .map_or(mount.read_only, |space| space.read_only)
    }
}

const FAMILIES: [Family; 9] = [
    (
        "esnode_disk_total_bytes",
        "Size of the filesystem, from statvfs(2) of the mounts in /proc/1/mounts",
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
    use crate::collectors::fixture::{self, Host};
    use rustix::fs::statvfs;

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

    fn collector(host: &Host) -> FilesystemCollector {
        FilesystemCollector::new(
            &host.procfs(),
            DeviceFilter::default(),
            DeviceFilter::default(),
        )
    }

    /// What the collector says of the mounts that it sees: mount points, and whether they answer.
    fn sampled(collector: &mut FilesystemCollector) -> Vec<(String, bool)> {
        let facts = collector.sample().expect("a list");
        let filesystem = |(mount, state): &(Arc<Mount>, State)| {
            (mount.point.clone(), matches!(state, State::Known(_)))
        };
        facts.filesystems.iter().map(filesystem).collect()
    }

    #[test]
    fn mounts_of_the_host_are_reached_by_its_root() {
        let host = Host::new(&[
            (
                "proc/1/mounts",
                "/dev/a / ext4 rw 0 0\n/dev/b /data xfs rw 0 0\n",
            ),
            ("proc/mounts", "overlay / overlay rw 0 0\n"),
            ("sys/hosts/data/file", ""),
        ]);
        host.link("proc/1/root", "../../sys/hosts");
        let mut collector = collector(&host);
        let both = [("/".to_owned(), true), ("/data".to_owned(), true)];
        assert_eq!(sampled(&mut collector), both);
        let truth = statvfs(host.sysfs().join("hosts/data")).expect("a folder");
        let facts = collector.sample().expect("a list");
        let (_, State::Known(space)) = facts.filesystems[1] else {
            panic!("{facts:?}");
        };
        assert_eq!(
            (space.block, space.blocks),
            (truth.f_frsize, truth.f_blocks)
        );
        // A list that changed is read anew.
        host.write(
            "proc/1/mounts",
            "/dev/a / ext4 rw 0 0\n/dev/c /gone xfs rw 0 0\n",
        );
        let gone = [("/".to_owned(), true), ("/gone".to_owned(), false)];
        assert_eq!(sampled(&mut collector), gone);
    }

    #[test]
    fn without_the_root_of_the_host_the_own_mounts_are_shown() {
        let host = Host::new(&[
            (
                "proc/1/mounts",
                "/dev/a / ext4 rw 0 0\n/dev/b /nonexistent xfs rw 0 0\n",
            ),
            ("proc/mounts", "overlay / overlay rw 0 0\n"),
        ]);
        assert_eq!(sampled(&mut collector(&host)), [("/".to_owned(), true)]);
        let facts = collector(&host).sample().expect("a list");
        assert_eq!(facts.filesystems[0].0.device, "overlay");
    }

    #[test]
    fn a_bad_line_is_complained_about() {
        let host = Host::new(&[]);
        host.write("proc/mounts", b"a / ext4 rw 0 0\nb /\xff ext4 rw 0 0\n");
        let mut collector = collector(&host);
        for _ in 0..2 {
            assert_eq!(sampled(&mut collector), [("/".to_owned(), true)]);
            let complaint = collector.complaint().expect("a bad line");
            let expected = "proc/mounts, line 2: expected a mount point in UTF-8";
            assert!(complaint.ends_with(expected), "{complaint}");
        }
        host.write("proc/mounts", "a / ext4 rw 0 0\n");
        sampled(&mut collector);
        assert_eq!(collector.complaint(), None);
    }

    #[test]
    fn kernel_and_containers_are_left_out() {
        let points = DeviceFilter::new(None, None, DEFAULT_MOUNT_EXCLUDE);
        for point in [
            "/",
            "/device",
            "/run",
            "/run/user/0",
            "/var/lib/docker",
            "/mnt/proc",
        ] {
            assert!(points.shows(point), "{point}");
        }
        for point in [
            "/dev/shm",
            "/sys",
            "/var/lib/docker/overlay2/a/merged",
            "/var/lib/kubelet/pods/0b5c/volumes/kubernetes.io~projected/kube-api-access-x",
            "/run/k3s/containerd/io.containerd.grpc.v1.cri/sandboxes/a/shm",
            "/run/containerd/io.containerd.grpc.v1.cri/sandboxes/a/shm",
            "/run/credentials/systemd-sysctl.service",
        ] {
            assert!(!points.shows(point), "{point}");
        }
        let types = DeviceFilter::new(None, None, DEFAULT_FSTYPE_EXCLUDE);
        for shown in ["ext4", "xfs", "tmpfs", "nfs4", "fuse.sshfs", "procfuse"] {
            assert!(types.shows(shown), "{shown}");
        }
        for hidden in ["proc", "cgroup", "cgroup2", "overlay", "squashfs"] {
            assert!(!types.shows(hidden), "{hidden}");
        }
    }

    #[test]
    fn a_host_without_a_list_is_no_failure() {
        let outcome = collector(&Host::new(&[])).sample();
        assert!(matches!(outcome, Err(CollectError::Off(_))), "{outcome:?}");
    }
}
