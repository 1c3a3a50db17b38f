//! Requests to a block device, in known numbers.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use esnode_tests::skip;

use crate::meter::{tell_fact, tell_io};
use crate::{stage, sys};

/// Bytes per request.
const REQUEST: usize = 4096;
/// From one request's place to the next: they don't meet.
const STRIDE: usize = 2 * REQUEST;

/// Reads and then overwrites so many places of a file around the page cache, one at a time.
pub(crate) fn direct(file: &Path, count: usize) -> Result<()> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).custom_flags(libc::O_DIRECT);
    let file = match options.open(file) {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
            skip!("this filesystem has no O_DIRECT")
        }
        opened => opened.with_context(|| file.display().to_string())?,
    };
    let mut buffer = Vec::new();
    let room = sys::aligned(&mut buffer, REQUEST);
    tell_io("open")?;
    stage("open")?;
    let start = Instant::now();
    for place in 0..count {
        file.read_exact_at(room, (place * STRIDE) as u64)?;
    }
    tell_time("read_microseconds", start.elapsed())?;
    tell_io("read")?;
    stage("read")?;
    let start = Instant::now();
    for place in 0..count {
        file.write_all_at(room, (place * STRIDE) as u64)?;
    }
    tell_time("write_microseconds", start.elapsed())?;
    tell_io("end")?;
    Ok(())
}

/// Reads a file twice; the second time, it's in the page cache.
pub(crate) fn cached(file: &Path) -> Result<()> {
    fs::read(file)?;
    tell_io("open")?;
    stage("open")?;
    fs::read(file)?;
    tell_io("end")?;
    Ok(())
}

/// Writes into the page cache, and waits until it's on the device.
pub(crate) fn synced(file: &Path, count: usize) -> Result<()> {
    let file = OpenOptions::new().write(true).open(file)?;
    stage("open")?;
    for place in 0..count {
        file.write_all_at(&[b'y'; REQUEST], (place * STRIDE) as u64)?;
    }
    file.sync_all()?;
    Ok(())
}

fn tell_time(name: &str, time: Duration) -> Result<()> {
    tell_fact(name, u64::try_from(time.as_micros())?);
    Ok(())
}
