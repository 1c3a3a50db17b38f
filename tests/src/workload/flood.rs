//! Short-lived processes at a chosen rate, of many names.

use std::env;
use std::ffi::CString;
use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use nix::errno::Errno;
use nix::sys::prctl::set_name;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, alarm};

use crate::{meter, sys};

/// Children that are alive at a time, at most.
const AT_ONCE: usize = 64;

/// Every so many processes, one executes a program as well.
const EXEC_EVERY: u64 = 4;

/// What is made.
pub(crate) struct Flood {
    /// Processes per second; fewer where the machine can't.
    pub(crate) rate: u32,
    /// How long.
    pub(crate) time: Duration,
    /// How many command names they have, one after the other.
    pub(crate) names: u64,
}

impl Flood {
    /// Makes them; says how many, once a second and at the end.
    pub(crate) fn run(&self) -> Result<()> {
        alarm::set(u32::try_from(self.time.as_secs())? + 60);
        let path = env::current_exe()?;
        let start = Instant::now();
        let (mut made, mut told, mut alive) = (0_u64, 0, 0);
        let mut next_word = Duration::from_secs(1);
        while start.elapsed() < self.time {
            alive -= reap(WaitPidFlag::WNOHANG)?;
            if alive >= AT_ONCE {
                alive -= reap(WaitPidFlag::empty())?;
            }
            let due = Duration::from_secs(made) / self.rate;
            thread::sleep(due.saturating_sub(start.elapsed()));
            let number = made;
            sys::fork(|| {
                if number.is_multiple_of(EXEC_EVERY) {
                    let word = number.to_string();
                    let mut program = Command::new(&path);
                    let words = ["drop", &word, &self.name(number)];
                    return Err(program.args(words).exec()).context("exec");
                }
                drop_in(&self.name(number))
            })?;
            made += 1;
            alive += 1;
            if start.elapsed() >= next_word {
                next_word += Duration::from_secs(1);
                meter::tell_fact("made", made - told);
                told = made;
            }
        }
        while alive > 0 {
            alive -= reap(WaitPidFlag::empty())?;
        }
        meter::tell_fact("made", made - told);
        Ok(())
    }

    fn name(&self, number: u64) -> String {
        format!("flood-{}", number % self.names)
    }
}

/// What each of the processes does: it takes a name.
pub(crate) fn drop_in(name: &str) -> Result<()> {
    Ok(set_name(&CString::new(name)?)?)
}

/// Reaps a child, or with `WNOHANG` all that have ended; says how many.
fn reap(flags: WaitPidFlag) -> Result<usize> {
    let mut reaped = 0;
    loop {
        match waitpid(None::<Pid>, Some(flags)) {
            Ok(WaitStatus::Exited(_, code)) => {
                ensure!(code == 0, "a child failed");
                reaped += 1;
            }
            Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => return Ok(reaped),
            other => bail!("a child failed: {other:?}"),
        }
        if flags.is_empty() {
            return Ok(reaped);
        }
    }
}
