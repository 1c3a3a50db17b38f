//! Filesystems in a mount namespace of this process' own, which go with it.

use std::ffi::OsStr;
use std::fs::{self, OpenOptions};
use std::io::ErrorKind;
use std::os::fd::AsRawFd as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use esnode_tests::skip;
use nix::mount::{MsFlags, mount};

use crate::stage;
use crate::sys::surroundings;

/// Mounts what the case is about, below a folder.
pub(crate) fn command(case: &str, folder: &Path, words: &[&str]) -> Result<()> {
    surroundings::enter_new_mounts()?;
    match (case, words) {
        ("sized", [name, options]) => sized(folder, name, options),
        ("silent", []) => silent(folder),
        ("not-utf8", []) => {
            mount_on(&folder.join("before"), "tmpfs", "")?;
            mount_on(&folder.join(OsStr::from_bytes(b"\xffodd")), "tmpfs", "")?;
            mount_on(&folder.join("behind"), "tmpfs", "")
        }
        _ => bail!("no such case: {case} {words:?}"),
    }
}

/// Mounts a filesystem on a folder that is made for it; its type is its device as well.
fn mount_on(folder: &Path, fstype: &str, options: &str) -> Result<()> {
    fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    mount(
        Some(fstype),
        folder,
        Some(fstype),
        MsFlags::empty(),
        Some(options),
    )
    .with_context(|| format!("mount {fstype} on {}", folder.display()))
}

/// A filesystem in memory that gets read-only, one that covers another, and two of the kernel.
fn sized(folder: &Path, name: &str, options: &str) -> Result<()> {
    let point = folder.join(name);
    mount_on(&point, "tmpfs", options)?;
    mount_on(&folder.join("twice"), "tmpfs", "size=4k")?;
    mount_on(&folder.join("twice"), "tmpfs", "size=8k")?;
    mount_on(&folder.join("proc"), "proc", "")?;
    mount_on(&folder.join("sysfs"), "sysfs", "")?;
    stage("writable")?;
    let flags = MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
    mount(None::<&str>, &point, None::<&str>, flags, Some(options)).context("remount")?;
    stage("read-only")
}

/// A filesystem whose daemon never answers, and then is gone.
fn silent(folder: &Path) -> Result<()> {
    let opened = OpenOptions::new().read(true).write(true).open("/dev/fuse");
    let daemon = match opened {
        Err(error) if error.kind() == ErrorKind::NotFound => skip!("there is no /dev/fuse here"),
        opened => opened.context("open /dev/fuse")?,
    };
    let options = format!(
        "fd={},rootmode=40000,user_id=0,group_id=0",
        daemon.as_raw_fd()
    );
    mount_on(&folder.join("beside"), "tmpfs", "size=64k")?;
    mount_on(&folder.join("silent"), "fuse", &options)?;
    stage("silent")?;
    drop(daemon);
    stage("gone")
}
