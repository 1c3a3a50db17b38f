//! Filesystems: their space and inodes, by statvfs(2) of the mounts in `/proc/PID/mounts`
//! (proc_pid_mounts(5)).

mod families;
mod mounts;
mod node_exporter;
mod space;

pub use families::FilesystemFacts;

use super::{
    CollectError,
    filter::DeviceFilter,
    watchdog::{Reply, Watchdog},
};
use crate::error::ReadError;
use families::State;
use mounts::{Mount, MountFilter, Mounts};
use std::{
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collectors::fixture::Host;
    use rustix::fs::statvfs;

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
