//! What top does to its terminal: colours, characters, the end; and what it says without an agent.

use std::process::Command;
use std::sync::Arc;

use anyhow::{Result, ensure};
use esnode_tests::pty::Pty;
use nix::sys::signal::Signal;

use super::agent::{FakeAgent, growing, hostile, node};
use super::{memory, start, top, wait_for_pids};
use crate::Case;
use crate::check::ensure_eq;

pub(super) fn cases() -> Vec<Case> {
    vec![
        Case::new("top::no_color", no_color),
        Case::new("top::ascii", ascii),
        Case::new("top::leaves_the_terminal_as_it_was", leave),
        Case::new("top::agent_goes_and_comes_back", reconnect),
        Case::new("top::there_is_no_agent_from_the_start", no_agent),
        Case::new("top::names_do_not_command_the_terminal", control_characters),
    ]
}

/// The colours that were asked for, by SGR.
fn colours(bytes: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(bytes).into_owned();
    let sequences = text.split("\u{1b}[").skip(1);
    let sgr = sequences.filter_map(|rest| {
        let end = rest.find(|char: char| !char.is_ascii_digit() && !";:".contains(char))?;
        rest.get(end..)?.starts_with('m').then(|| rest.get(..end))?
    });
    sgr.flat_map(|codes| codes.split(';'))
        .filter(|code| {
            let code: u32 = code.parse().unwrap_or(0);
            // 39, 49 and 59 are the terminal's own.
            matches!(code, 30..=38 | 40..=48 | 58 | 90..=107)
        })
        .map(str::to_owned)
        .collect()
}

fn no_color() -> Result<()> {
    let agent = FakeAgent::start(node)?;
    let coloured = Pty::start(top(&agent.url(), &[])?, 80, 24)?;
    coloured.wait_for(" 307 ")?;
    ensure!(!colours(&coloured.bytes()).is_empty(), "no colour at all");
    let plain: [(&[&str], &str, &str); 3] = [
        (&[], "NO_COLOR", "1"),
        (&[], "TERM", "dumb"),
        (&["--no-color"], "TERM", "xterm"),
    ];
    for (flags, name, value) in plain {
        let mut command = top(&agent.url(), flags)?;
        command.env(name, value);
        let pty = Pty::start(command, 80, 24)?;
        // Marks say what colours would.
        let screen = pty.wait_for(" 307 ")?;
        ensure!(screen.line("THERM").is_some(), "no mark");
        ensure!(screen.line(">").is_some(), "nothing is selected");
        let seen = colours(&pty.bytes());
        ensure!(
            seen.is_empty(),
            "colours {seen:?} with {flags:?} {name}={value}"
        );
    }
    Ok(())
}

fn ascii() -> Result<()> {
    let agent = FakeAgent::start(hostile)?;
    for (flags, locale) in [(&[][..], "C"), (&["--ascii"][..], "C.UTF-8")] {
        let mut command = top(&agent.url(), flags)?;
        command.env("LANG", locale);
        let pty = Pty::start(command, 120, 24)?;
        pty.wait_for("????")?;
        ensure!(pty.bytes().is_ascii(), "more than ASCII in {locale}");
    }
    Ok(())
}

fn leave() -> Result<()> {
    for way in ["q", "\u{3}", "SIGTERM", "SIGHUP"] {
        let agent = FakeAgent::start(node)?;
        let mut pty = Pty::start(top(&agent.url(), &[])?, 80, 24)?;
        let before = format!(
            "{:?}",
            Pty::start(Command::new("true"), 80, 24)?.settings()?
        );
        wait_for_pids(&pty, &[108])?;
        ensure!(
            format!("{:?}", pty.settings()?) != before,
            "the terminal isn't raw"
        );
        match way {
            "SIGTERM" => pty.signal(Signal::SIGTERM)?,
            "SIGHUP" => pty.signal(Signal::SIGHUP)?,
            keys => pty.send(keys)?,
        }
        let status = pty.end()?;
        ensure_eq!(status.code(), Some(0), "exit code after {way:?}");
        pty.wait("the first screen and a cursor", |screen| {
            !screen.alternate && !screen.cursor_hidden
        })?;
        ensure_eq!(
            format!("{:?}", pty.settings()?),
            before,
            "settings after {way:?}"
        );
    }
    Ok(())
}

fn reconnect() -> Result<()> {
    let (agent, pty) = start(growing)?;
    pty.wait_for("2.0G")?;
    let (address, asked) = (agent.address, Arc::clone(&agent.asked));
    drop(agent);
    let screen = pty.wait_for("NO CONNECTION, shown is 3s old")?;
    ensure!(
        screen.line("grower").is_some(),
        "what was known is gone:\n{}",
        screen.text()
    );
    let frozen = memory(&screen);
    let _again = FakeAgent::start_at(address, growing, asked)?;
    pty.wait("new values", |screen| {
        screen.line("NO CONNECTION").is_none() && memory(screen) != frozen
    })?;
    Ok(())
}

/// What is wrong at once is said on the terminal as it is.
fn no_agent() -> Result<()> {
    let url = FakeAgent::start(node)?.url();
    let mut pty = Pty::start(top(&url, &[])?, 120, 24)?;
    ensure_eq!(pty.end()?.code(), Some(1), "exit code");
    let screen = pty.wait_for("cannot get http://127.0.0.1:")?;
    ensure!(
        !screen.alternate && !screen.cursor_hidden,
        "the terminal is not as it was"
    );
    Ok(())
}

fn control_characters() -> Result<()> {
    let agent = FakeAgent::start(hostile)?;
    for keys in ["", "\r", "/EVIL"] {
        let pty = Pty::start(top(&agent.url(), &["--no-color"])?, 200, 50)?;
        pty.wait_for("EVIL")?;
        pty.send(keys)?;
        let screen = pty.wait_for("[31m?5mEVIL???")?;
        let text = String::from_utf8_lossy(&pty.bytes()).into_owned();
        for sequence in ["\u{1b}]", "\u{7}", "\u{9b}", "\u{1b}[31m", "\u{202e}"] {
            ensure!(
                !text.contains(sequence),
                "{sequence:?} reached the terminal"
            );
        }
        if keys.is_empty() {
            // Wide names leave the columns in their places.
            let place = |of: &str, part: &str| {
                let line = screen.line(of)?;
                let before = line.split(part).next()?.chars();
                Some(
                    before
                        .map(|char| if char >= '\u{4e00}' { 2 } else { 1 })
                        .sum::<usize>(),
                )
            };
            ensure_eq!(
                place(" 67 ", "模型服务"),
                place("PID", "COMMAND"),
                "the column COMMAND"
            );
        }
    }
    Ok(())
}
