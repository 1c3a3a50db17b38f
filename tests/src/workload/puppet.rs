//! A process that does what lines on stdin tell it, under whatever name and command line it was
//! started with; `esnode_tests::puppet` writes the lines.

use std::env;
use std::ffi::CString;
use std::fs::{self, File};
use std::io;
use std::net::{Ipv4Addr, UdpSocket};
use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use esnode_tests::tally::{Protocol, Tally};
use nix::sys::prctl::set_name;

use crate::crowd::{AT_ONCE, reap_any, send_to};
use crate::meter::{Meter, say, tell_fact};
use crate::{disk, flood, sys, threads, transfer};

/// Set for a program that a puppet became: it says `ok` once it reads stdin. Before, the next line
/// could be read by the one that it was.
const BECAME: &str = "ESNODE_PUPPET_BECAME";

/// Does what it is told until stdin is closed; says `ok` after each line.
pub(crate) fn obey() -> Result<()> {
    if env::var_os(BECAME).is_some() {
        say("ok\n");
    }
    loop {
        let mut line = String::new();
        if io::stdin().read_line(&mut line)? == 0 {
            return Ok(());
        }
        let words: Vec<&str> = line.split_whitespace().collect();
        order(&words).with_context(|| format!("told to {line:?}"))?;
        say("ok\n");
    }
}

/// Enters the control groups of these files, and becomes the next program.
pub(crate) fn join(groups: &str, next: &[&str]) -> Result<()> {
    for group in groups.split(',') {
        fs::write(group, "0").with_context(|| group.to_owned())?;
    }
    threads::become_next(&Tally::default(), next)
}

fn order(words: &[&str]) -> Result<()> {
    let mut meter = Meter::default();
    match *words {
        ["send", bytes] => transfer::udp(bytes.parse()?, 0, &mut meter)?,
        ["write", file, bytes] => drop(disk::write(file.as_ref(), bytes.parse()?)?),
        ["disk", case, file, bytes] => disk::command(case, file.as_ref(), bytes.parse()?)?,
        ["fork", count, bytes] => children(count.parse()?, bytes.parse()?, None, &mut meter)?,
        ["run", count, bytes, program] => {
            children(count.parse()?, bytes.parse()?, Some(program), &mut meter)?;
        }
        ["flood", rate, seconds, names] => {
            let time = Duration::from_secs(seconds.parse()?);
            let (rate, names) = (rate.parse()?, names.parse()?);
            flood::Flood { rate, time, names }.run()?;
        }
        ["spawn", tag, orders, program, title, ref arguments @ ..] => {
            let child = Command::new(program)
                .arg0(title)
                .args(arguments)
                .env_remove(BECAME)
                .stdin(File::open(orders).with_context(|| orders.to_owned())?)
                .spawn()
                .with_context(|| program.to_owned())?;
            tell_fact(tag, child.id().into());
        }
        ["rename", name] => set_name(&CString::new(name)?)?,
        ["become", program, title, ref arguments @ ..] => {
            let mut next = Command::new(program);
            let error = next.arg0(title).args(arguments).env(BECAME, "1").exec();
            return Err(error).with_context(|| program.to_owned());
        }
        _ => bail!("no such order"),
    }
    meter.tell()
}

/// Makes children, one after the other or a few at a time, of which each sends so much and ends;
/// as this program, if there is one.
fn children(count: usize, bytes: usize, program: Option<&str>, meter: &mut Meter) -> Result<()> {
    let sink = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = sink.local_addr()?;
    let mut alive = 0;
    for _ in 0..count {
        if alive == AT_ONCE {
            reap_any()?;
            alive -= 1;
        }
        sys::fork(|| match program {
            None => send_to(address, bytes),
            Some(program) => threads::become_next(
                &Tally::default(),
                &[program, "send-to", &address.to_string(), &bytes.to_string()],
            ),
        })?;
        meter.sent(Protocol::Udp, bytes);
        alive += 1;
    }
    for _ in 0..alive {
        reap_any()?;
    }
    Ok(())
}
