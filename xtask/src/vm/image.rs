//! The first file system of a virtual machine: a cpio archive of the kind "newc", as the kernel's
//! Documentation/driver-api/early-userspace/buffer-format.rst describes it.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

const FOLDER: u32 = 0o040_755;
const PROGRAM: u32 = 0o100_755;
const FILE: u32 = 0o100_644;
const DEVICE: u32 = 0o020_600;

/// Major and minor number of `/dev/console`, where the first process reads and writes.
const CONSOLE: (u32, u32) = (5, 1);

/// An archive that grows.
pub(super) struct Image {
    bytes: Vec<u8>,
    entries: u32,
}

impl Image {
    /// An archive with a console in it.
    pub(super) fn new() -> Self {
        let mut image = Self {
            bytes: Vec::new(),
            entries: 0,
        };
        image.folder("dev");
        image.entry("dev/console", DEVICE, CONSOLE, &[]);
        image
    }

    /// Puts in an empty folder.
    pub(super) fn folder(&mut self, path: &str) {
        self.entry(path, FOLDER, (0, 0), &[]);
    }

    /// Puts in a file.
    pub(super) fn file(&mut self, path: &str, content: &[u8]) {
        self.entry(path, FILE, (0, 0), content);
    }

    /// Puts in a copy of a program.
    pub(super) fn program(&mut self, path: &str, from: &Path) -> Result<()> {
        self.entry(path, PROGRAM, (0, 0), &read(from)?);
        Ok(())
    }

    /// Puts in a folder with copies of files, numbered in their order.
    pub(super) fn files(&mut self, folder: &str, from: &[PathBuf]) -> Result<()> {
        self.folder(folder);
        for (number, path) in from.iter().enumerate() {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            self.file(&format!("{folder}/{number:02}-{name}"), &read(path)?);
        }
        Ok(())
    }

    /// Writes the archive to a file.
    pub(super) fn write(mut self, path: &Path) -> Result<()> {
        self.entry("TRAILER!!!", 0, (0, 0), &[]);
        fs::write(path, self.bytes).with_context(|| format!("cannot write {}", path.display()))
    }

    fn entry(&mut self, path: &str, mode: u32, (major, minor): (u32, u32), content: &[u8]) {
        self.entries += 1;
        let inode = self.entries;
        let size = content.len();
        let name_size = path.len() + 1;
        // Magic, inode, mode, uid, gid, links, time, size, device of the file, device that it is,
        // size of the name, check sum.
        let header = format!(
            "070701{inode:08x}{mode:08x}{0:08x}{0:08x}{1:08x}{0:08x}{size:08x}{0:08x}{0:08x}\
             {major:08x}{minor:08x}{name_size:08x}{0:08x}{path}\0",
            0, 1
        );
        self.bytes.extend_from_slice(header.as_bytes());
        self.pad();
        self.bytes.extend_from_slice(content);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_have_a_header_of_110_bytes_and_are_padded_to_four() {
        let mut image = Image {
            bytes: Vec::new(),
            entries: 0,
        };
        image.file("plan", b"12345");
        assert!(image.bytes.starts_with(b"07070100000001000081a4"));
        // 110 bytes of header, and "plan" with a zero byte.
        assert_eq!(image.bytes.len(), 116 + 8);
        assert!(image.bytes.ends_with(b"plan\0\x0012345\0\0\0"));
    }
}
