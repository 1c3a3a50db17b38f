//! Becoming another program where the kernel grants it less.

use std::fs;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use anyhow::{Context as _, Result};
use nix::mount::{MntFlags, umount2};
use nix::unistd::alarm;

use crate::sys::surroundings;

/// Becomes a program that may not use bpf(2).
pub(crate) fn refuse_bpf(next: &[&str]) -> Result<()> {
    surroundings::refuse_bpf()?;
    become_program(next)
}

/// Becomes a program that finds neither tracefs nor debugfs mounted.
pub(crate) fn without_tracefs(next: &[&str]) -> Result<()> {
    surroundings::enter_new_mounts()?;
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    // What was mounted last may cover what came before.
    for folder in mounts.lines().rev().filter_map(tracing_folder) {
        umount2(folder, MntFlags::MNT_DETACH).with_context(|| folder.to_owned())?;
    }
    become_program(next)
}

/// The folder that a line of `mountinfo` has tracefs or debugfs on.
fn tracing_folder(line: &str) -> Option<&str> {
    let (place, kind) = line.split_once(" - ")?;
    let traces = kind.starts_with("tracefs ") || kind.starts_with("debugfs ");
    place.split(' ').nth(4).filter(|_| traces)
}

fn become_program(next: &[&str]) -> Result<()> {
    let (program, arguments) = next.split_first().context("no next program")?;
    // It would outlive this program.
    alarm::cancel();
    let error = Command::new(program).args(arguments).exec();
    Err(error).with_context(|| format!("exec {program}"))
}
