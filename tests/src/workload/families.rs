//! Parents and children: to whom the kernel gives what a child used.

use std::path::Path;

use anyhow::{Context as _, Result, bail};
use esnode_tests::tally::Io;
use nix::errno::Errno;
use nix::sys::wait::waitpid;

use crate::crowd::{AT_ONCE, held_child, reap_any};
use crate::meter::{say, tell_io};
use crate::{disk, stage, sys};

/// Children that write a file each, of a parent that ignores their ends: nobody waits for them,
/// and nobody inherits. The first one lives until the next stage; nobody sees the others. The
/// parent writes as well, and each says what it used itself.
pub(crate) fn ignored_children(count: usize, bytes: usize, directory: &Path) -> Result<()> {
    sys::ignore_children()?;
    let write = |index: usize| disk::write(&directory.join(index.to_string()), bytes).map(drop);
    let (pid, hold) = held_child(None, || write(0))?;
    say(&Io::of(pid)?.line("child0"));
    stage("alive")?;
    drop(hold);
    wait_for_all()?;
    write(0)?;
    stage("gone")?;
    for index in 1..=count {
        sys::fork(|| {
            write(index)?;
            tell_io(&format!("child{index}")).map(drop)
        })?;
        if index.is_multiple_of(AT_ONCE) {
            wait_for_all()?;
        }
    }
    wait_for_all()?;
    write(1)
}

/// Waits until there are no children any more, of which none is waited for.
fn wait_for_all() -> Result<()> {
    match waitpid(None, None) {
        Err(Errno::ECHILD) => Ok(()),
        Err(error) => Err(error).context("wait for children"),
        Ok(status) => bail!("a child was waited for: {status:?}"),
    }
}

/// Children that have a child each, which writes a file; they wait for it, and end at once.
pub(crate) fn generations(count: usize, bytes: usize, directory: &Path) -> Result<()> {
    let mut alive = 0;
    stage("start")?;
    for index in 0..count {
        if alive == AT_ONCE {
            reap_any()?;
            alive -= 1;
        }
        let file = directory.join(index.to_string());
        sys::fork(|| {
            sys::fork(|| disk::write(&file, bytes).map(drop))?;
            reap_any().map(drop)
        })?;
        alive += 1;
    }
    for _ in 0..alive {
        reap_any()?;
    }
    Ok(())
}
