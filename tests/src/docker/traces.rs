//! What container engines leave behind: mounts, and empty folders outside of those that they're given.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;
use nix::mount::{MntFlags, umount2};

/// Folders in which engines put their own, whatever their flags say.
const RUN: [&str; 4] = [
    "/run/docker/plugins",
    "/run/containerd/s",
    "/run/containerd",
    "/run/runc",
];

/// Unmounts what is still mounted in a folder, such as the network namespace of the host, which
/// the daemon keeps once a container has used it.
pub(super) fn unmount(folder: &Path) -> Result<()> {
    let mounts = fs::read_to_string("/proc/self/mounts")?;
    let places = mounts.lines().filter_map(|line| line.split(' ').nth(1));
    let places: Vec<_> = places
        .map(Path::new)
        .filter(|place| place.starts_with(folder))
        .collect();
    // What lies on top of another was mounted later.
    for place in places.into_iter().rev() {
        umount2(place, MntFlags::MNT_DETACH)?;
    }
    Ok(())
}

/// Folders that weren't there, the innermost first.
pub(super) struct Traces(Vec<PathBuf>);

impl Traces {
    /// Looks at what there is before an engine starts.
    pub(super) fn before() -> Self {
        let run = RUN.iter().map(PathBuf::from);
        // With the cgroupfs driver, one for all containers in each hierarchy of version 1, or in
        // the only one of version 2.
        let hierarchies = fs::read_dir("/sys/fs/cgroup").into_iter().flatten();
        let folders = hierarchies.filter_map(|entry| Some(entry.ok()?.path()));
        let groups = folders
            .chain(["/sys/fs/cgroup".into()])
            .map(|folder| folder.join("docker"));
        Self(
            run.chain(groups)
                .flat_map(|folder| super::missing(&folder))
                .collect(),
        )
    }

    /// Removes those that are there now, if they are empty.
    pub(super) fn remove(&self) {
        for folder in &self.0 {
            // What isn't there or isn't empty is somebody else's by now.
            let _ = fs::remove_dir(folder);
        }
    }
}
