//! Moves known amounts through sockets and files, and says what its system calls returned.
//!
//! `esnode-workload [--hold] COMMAND ARGUMENT…`; the commands are in [`run`]. What was moved goes
//! to stdout in the lines of `esnode_tests::tally`, and `done` at the end; with `--hold` it then
//! waits until stdin is closed.

mod blocked;
mod connections;
mod crowd;
mod device;
mod disk;
mod families;
mod filesystems;
mod flood;
mod meter;
mod puppet;
mod special;
mod surroundings;
mod sys;
mod taking;
mod threads;
mod transfer;
mod transport;

use std::env;
use std::io::{self, Read as _};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use esnode_tests::skip::Skip;
use esnode_tests::tally::EXIT_SKIPPED;
use nix::unistd::alarm;

use crate::meter::say;

/// Seconds after which a workload that is stuck is killed by the kernel.
const PATIENCE: u32 = 150;

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args_os()
        .skip(1)
        .map(|argument| argument.to_string_lossy().into_owned())
        .collect();
    let mut words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let hold = words.first() == Some(&"--hold");
    if hold {
        words.remove(0);
    }
    alarm::set(PATIENCE);
    match run(&words, hold) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => match error.downcast::<Skip>() {
            Ok(Skip(reason)) => {
                say(&format!("skip {reason}\n"));
                ExitCode::from(u8::try_from(EXIT_SKIPPED).unwrap_or(1))
            }
            Err(error) => {
                eprintln!("workload {arguments:?}: {error:#}");
                ExitCode::FAILURE
            }
        },
    }
}

/// Does what the command line asks for, and waits where it should.
fn run(words: &[&str], hold: bool) -> Result<()> {
    match *words {
        ["idle"] => {}
        ["move", method, transport, transmit, receive] => {
            transfer::command(method, transport, transmit.parse()?, receive.parse()?)?;
        }
        ["special", case, transport, transmit] => {
            special::command(case, transport, transmit.parse()?)?;
        }
        ["threads", count, ending, bytes] => {
            return threads::many(count.parse()?, ending.parse()?, bytes.parse()?);
        }
        ["leader-ends", bytes] => return threads::leader_ends(bytes.parse()?),
        ["exec", bytes, ref next @ ..] => threads::exec(bytes.parse()?, next)?,
        ["exec-from-thread", bytes, ref next @ ..] => {
            threads::exec_from_thread(bytes.parse()?, next)?;
        }
        ["rename", name, bytes] => threads::rename(name, bytes.parse()?)?,
        ["stages", first, second] => threads::stages(first.parse()?, second.parse()?)?,
        ["disk", case, file, bytes] => disk::command(case, file.as_ref(), bytes.parse()?)?,
        ["disk-exec", file, bytes, ref next @ ..] => {
            disk::exec(file.as_ref(), bytes.parse()?, next)?;
        }
        ["short-lived", count, bytes, file_bytes, directory] => {
            crowd::short_lived(
                count.parse()?,
                bytes.parse()?,
                file_bytes.parse()?,
                directory.as_ref(),
            )?;
        }
        ["storm", ref names @ ..] => return crowd::storm(names),
        ["mixed", seed, count, ref names @ ..] => {
            crowd::mixed(seed.parse()?, count.parse()?, names)?;
        }
        ["connections", count, bytes] => {
            connections::one_by_one(count.parse()?, bytes.parse()?)?;
        }
        ["unseen-connections", count, bytes] => {
            connections::unseen(count.parse()?, bytes.parse()?)?;
        }
        ["half-closed", bytes] => connections::half_closed(bytes.parse()?)?,
        ["slow-peer"] => connections::slow_peer()?,
        ["inherited", bytes, more] => connections::inherited(bytes.parse()?, more.parse()?)?,
        ["reconnected", ref sizes @ ..] => connections::reconnected(sizes)?,
        ["from-outside", bytes] => connections::from_outside(bytes.parse()?)?,
        ["in-namespace", ref words @ ..] => {
            sys::enter_new_network()?;
            return run(words, hold);
        }
        ["burst", seed] => crowd::burst(seed.parse()?)?,
        ["child-writes", file, bytes] => crowd::child_writes(file.as_ref(), bytes.parse()?)?,
        ["ignored-children", count, bytes, directory] => {
            families::ignored_children(count.parse()?, bytes.parse()?, directory.as_ref())?;
        }
        ["generations", count, bytes, directory] => {
            families::generations(count.parse()?, bytes.parse()?, directory.as_ref())?;
        }
        ["same-pid", first, second] => crowd::same_pid(first.parse()?, second.parse()?)?,
        ["cpu", milliseconds] => crowd::burn(milliseconds.parse()?)?,
        ["take", case, transport] => taking::command(case, transport)?,
        ["blocked", transport, count, bytes] => {
            blocked::command(transport, count.parse()?, bytes.parse()?)?;
        }
        ["direct-io", file, count] => device::direct(file.as_ref(), count.parse()?)?,
        ["cached-io", file] => device::cached(file.as_ref())?,
        ["synced-io", file, count] => device::synced(file.as_ref(), count.parse()?)?,
        ["filesystems", case, folder, ref words @ ..] => {
            filesystems::command(case, folder.as_ref(), words)?;
        }
        ["flood", rate, seconds, names] => {
            let (time, names) = (Duration::from_secs(seconds.parse()?), names.parse()?);
            let rate = rate.parse()?;
            flood::Flood { rate, time, names }.run()?;
        }
        ["ticks"] => crowd::ticks()?,
        ["drop", _number, name] => flood::drop_in(name)?,
        // What it is called says what it is taken for.
        [] | ["serve", ..] => return puppet::obey(),
        ["send-to", address, bytes] => crowd::send_to(address.parse()?, bytes.parse()?)?,
        ["join", groups, ref next @ ..] => puppet::join(groups, next)?,
        ["refuse-bpf", ref next @ ..] => surroundings::refuse_bpf(next)?,
        ["without-tracefs", ref next @ ..] => surroundings::without_tracefs(next)?,
        _ => bail!("no such command: {words:?}"),
    }
    if hold {
        done()?;
    }
    Ok(())
}

/// Says that all is done, and waits until stdin is closed.
fn done() -> Result<()> {
    say("done\n");
    io::stdin()
        .read_to_end(&mut Vec::new())
        .context("wait for the end of stdin")?;
    Ok(())
}

/// Says that a stage is reached, and waits for a line on stdin.
fn stage(name: &str) -> Result<()> {
    say(&format!("at {name}\n"));
    io::stdin()
        .read_line(&mut String::new())
        .context("wait for a line on stdin")?;
    Ok(())
}
