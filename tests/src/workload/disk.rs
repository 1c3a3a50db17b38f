//! Reads and writes of files in every way that the kernel accounts for differently. The truth is
//! the process' own `/proc/self/io`, said before and after.

use std::fs::{self, File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::num::NonZeroUsize;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::thread;

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use esnode_tests::skip;
use nix::errno::Errno;

use crate::meter::{Meter, tell_io};
use crate::{sys, threads};

/// Bytes per call.
const CHUNK: usize = 128 * 1024;
/// Threads that read, each its part.
const READERS: usize = 8;

/// Runs a case on a file of so many bytes; those that read find it there.
pub(crate) fn command(case: &str, file: &Path, bytes: usize) -> Result<()> {
    tell_io("start")?;
    match case {
        "direct-read" => direct_read(file, 0, bytes)?,
        "direct-write" => direct_write(file, bytes)?,
        "read" => ensure!(read(file)? == bytes, "the file isn't of {bytes} bytes"),
        "mmap-read" => mmap_read(file, bytes)?,
        "write" => drop(write(file, bytes)?),
        "truncate" => write(file, bytes)?.set_len(0)?,
        "overwrite" => {
            let file = write(file, bytes)?;
            for start in (0..bytes).step_by(CHUNK) {
                file.write_all_at(&vec![b'y'; CHUNK], start as u64)?;
            }
        }
        "remove" => {
            drop(write(file, bytes)?);
            fs::remove_file(file)?;
        }
        "unlinked" => keep_unlinked(file, bytes)?,
        "thread-read" => thread_read(file, bytes)?,
        _ => bail!("no such case: {case}"),
    }
    tell_io("end")?;
    Ok(())
}

/// Writes, and becomes another program.
pub(crate) fn exec(file: &Path, bytes: usize, next: &[&str]) -> Result<()> {
    drop(write(file, bytes)?);
    threads::become_next(&Meter::default().tally, next)
}

/// Opens a file for I/O around the page cache.
fn open_direct(file: &Path, options: &mut OpenOptions) -> Result<File> {
    match options.custom_flags(libc::O_DIRECT).open(file) {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
            skip!("this filesystem has no O_DIRECT")
        }
        opened => opened.with_context(|| file.display().to_string()),
    }
}

fn direct_read(file: &Path, start: usize, bytes: usize) -> Result<()> {
    let file = open_direct(file, OpenOptions::new().read(true))?;
    let mut buffer = Vec::new();
    let room = sys::aligned(&mut buffer, CHUNK);
    for offset in (start..start + bytes).step_by(CHUNK) {
        file.read_exact_at(room, offset as u64)?;
    }
    Ok(())
}

fn direct_write(file: &Path, bytes: usize) -> Result<()> {
    let file = open_direct(
        file,
        OpenOptions::new().write(true).create(true).truncate(true),
    )?;
    let mut buffer = Vec::new();
    let data = sys::aligned(&mut buffer, CHUNK);
    data.fill(b'x');
    for offset in (0..bytes).step_by(CHUNK) {
        file.write_all_at(data, offset as u64)?;
    }
    Ok(())
}

fn read(file: &Path) -> Result<usize> {
    let mut file = File::open(file)?;
    let mut room = vec![0; CHUNK];
    let mut total = 0;
    loop {
        match file.read(&mut room)? {
            0 => return Ok(total),
            bytes => total += bytes,
        }
    }
}

fn mmap_read(file: &Path, bytes: usize) -> Result<()> {
    let mapping = sys::Mapping::of(
        &File::open(file)?,
        NonZeroUsize::new(bytes).context("no bytes")?,
    )?;
    let sum: u64 = mapping.bytes().iter().map(|&byte| u64::from(byte)).sum();
    ensure!(sum > 0, "the file is empty");
    Ok(())
}

/// Writes into the page cache.
pub(crate) fn write(file: &Path, bytes: usize) -> Result<File> {
    let mut out = File::create(file).with_context(|| file.display().to_string())?;
    let mut left = bytes;
    while left > 0 {
        let chunk = left.min(CHUNK);
        match out.write_all(&vec![b'x'; chunk]) {
            Err(error) if error.raw_os_error() == Some(Errno::ENOSPC as i32) => {
                skip!("no space left for the files of this test")
            }
            other => other?,
        }
        left -= chunk;
    }
    Ok(out)
}

/// Leaves a dirty file that is dropped when this process has ended.
fn keep_unlinked(file: &Path, bytes: usize) -> Result<()> {
    let kept = write(file, bytes)?;
    fs::remove_file(file)?;
    std::mem::forget(kept);
    Ok(())
}

/// Reads in threads that have ended when it returns.
fn thread_read(file: &Path, bytes: usize) -> Result<()> {
    let part = bytes / READERS;
    thread::scope(|scope| {
        let readers: Vec<_> = (0..READERS)
            .map(|index| scope.spawn(move || direct_read(file, index * part, part)))
            .collect();
        readers
            .into_iter()
            .try_for_each(|reader| reader.join().map_err(|_| anyhow!("a thread panicked"))?)
    })
}
