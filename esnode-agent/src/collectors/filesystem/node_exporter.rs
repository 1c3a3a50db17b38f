//! The same by the names of node_exporter, whose page has zeros where ours has nothing.
//!
//! It differs from node_exporter where that is wrong: a mount point that is mounted upon has the
//! labels of what is seen there, once; blocks are counted in `f_frsize`, their unit, as by df(1);
//! and every escape in names is undone.

use super::{
    families::{Family, State},
    space::Space,
};

/// So many blocks in bytes.
fn bytes(state: State, blocks: fn(&Space) -> u64) -> Option<u64> {
    let space = state.space()?;
    space.bytes(blocks(space))
}

/// In the order of node_exporter.
pub(super) const FAMILIES: [Family; 7] = [
    (
        "node_filesystem_avail_bytes",
        "Filesystem space available to non-root users in bytes, from statvfs(2)",
        |_, state| bytes(state, |space| space.available),
    ),
    (
        "node_filesystem_device_error",
        "Whether statvfs(2) of the filesystem fails or does not return",
        |_, state| Some(u64::from(state.space().is_none())),
    ),
    (
        "node_filesystem_files",
        "Filesystem total file nodes, from statvfs(2)",
        |_, state| state.space().map(|space| space.inodes),
    ),
    (
        "node_filesystem_files_free",
        "Filesystem total free file nodes, from statvfs(2)",
        |_, state| state.space().map(|space| space.inodes_free),
    ),
    (
        "node_filesystem_free_bytes",
        "Filesystem free space in bytes, from statvfs(2)",
        |_, state| bytes(state, |space| space.free),
    ),
    (
        "node_filesystem_readonly",
        "Filesystem read-only status, from statvfs(2)",
        |mount, state| state.space().map(|_| u64::from(state.read_only(mount))),
    ),
    (
        "node_filesystem_size_bytes",
        "Filesystem size in bytes, from statvfs(2)",
        |_, state| bytes(state, |space| space.blocks),
    ),
];
