//! What a filesystem says of its space, by statvfs(2).

use super::mounts::Mount;
use crate::collectors::watchdog::Call;
use rustix::{
    fs::{StatVfsMountFlags, statvfs},
    io::Errno,
};
use std::fmt;

/// Space in blocks, and inodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Space {
    /// Bytes of a block.
    pub(super) block: u64,
    pub(super) blocks: u64,
    pub(super) free: u64,
    /// Those that are free and not reserved for root.
    pub(super) available: u64,
    pub(super) inodes: u64,
    pub(super) inodes_free: u64,
    pub(super) read_only: bool,
}

impl Space {
    /// So many blocks in bytes, if that is a number of 64 bits.
    pub(super) fn bytes(&self, blocks: u64) -> Option<u64> {
        blocks.checked_mul(self.block)
    }

    /// Blocks that are in use, as by df(1).
    pub(super) fn used(&self) -> Option<u64> {
        self.blocks.checked_sub(self.free)
    }
}

impl Call for Mount {
    type Answer = Result<Space, Errno>;

    fn call(&self) -> Self::Answer {
        let said = statvfs(&self.path)?;
        Ok(Space {
            // The unit of the counts; `f_bsize` is only good for I/O, and is another one for FUSE.
            block: said.f_frsize,
            blocks: said.f_blocks,
            free: said.f_bfree,
            available: said.f_bavail,
            inodes: said.f_files,
            inodes_free: said.f_ffree,
            read_only: said.f_flag.contains(StatVfsMountFlags::RDONLY),
        })
    }

    /// Filesystems of one type share a server, a daemon, or a network.
    fn kind(&self) -> &str {
        &self.fstype
    }
}

impl fmt::Display for Mount {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            device,
            point,
            fstype,
            ..
        } = self;
        write!(
            formatter,
            "the filesystem at {point:?} ({fstype}, {device:?})"
        )
    }
}
