//! `esnode-core top` on a pseudo-terminal, against an agent that says what a test tells it.

mod agent;
mod local;
mod pipes;
mod terminal;

use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use agent::{FakeAgent, Script, growing, node};
use anyhow::{Context as _, Result, ensure};
use esnode_tests::agent::command;
use esnode_tests::pty::{Pty, Screen};

use crate::Case;
use crate::check::ensure_eq;

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = vec![
        Case::new("top::at_80_by_24", small),
        Case::new("top::at_200_by_50", large),
        Case::new("top::sort", sort),
        Case::new("top::filter", filter),
        Case::new("top::freeze", freeze),
        Case::new("top::tree", tree),
        Case::new("top::details", details),
        Case::new("top::help", help),
        Case::new("top::resize", resize),
    ];
    cases.extend(terminal::cases());
    cases.extend(pipes::cases());
    cases.extend(local::cases());
    cases
}

/// The command in an environment of our own.
fn top(url: &str, flags: &[&str]) -> Result<Command> {
    let mut command = command()?;
    for variable in ["NO_COLOR", "LC_ALL", "LC_CTYPE"] {
        command.env_remove(variable);
    }
    command
        .args(["top", "--interval", "1s", "--url", url])
        .args(flags)
        .env("TERM", "xterm-256color")
        .env("LANG", "C.UTF-8");
    Ok(command)
}

/// Starts it at 80x24, and waits until it has rates.
fn start(script: Script) -> Result<(FakeAgent, Pty)> {
    let agent = FakeAgent::start(script)?;
    let pty = Pty::start(top(&agent.url(), &[])?, 80, 24)?;
    Ok((agent, pty))
}

/// The process ids of the table, from above.
fn pids(screen: &Screen) -> Vec<u32> {
    let titles = screen.row("PID").map_or(usize::MAX, |row| row + 1);
    // The last two lines are those of state and keys.
    let rows = screen.lines.len().saturating_sub(titles.saturating_add(2));
    let rows = screen.lines.iter().skip(titles).take(rows);
    rows.map_while(|line| {
        line.trim_start_matches('>')
            .split_whitespace()
            .next()?
            .parse()
            .ok()
    })
    .collect()
}

fn wait_for_pids(pty: &Pty, expected: &[u32]) -> Result<Screen> {
    pty.wait(&format!("the processes {expected:?}"), |screen| {
        pids(screen).starts_with(expected)
    })
}

/// Fails where a line of the screen hasn't these words in this order.
fn ensure_words(screen: &Screen, of: &str, words: &str) -> Result<()> {
    let line = screen
        .line(of)
        .with_context(|| format!("no {of} in\n{}", screen.text()))?;
    let line = line.split_whitespace().collect::<Vec<_>>().join(" ");
    ensure!(line.contains(words), "{words:?} is not in {line:?}");
    Ok(())
}

fn small() -> Result<()> {
    let (_agent, pty) = start(node)?;
    let screen = pty.wait_for(" 307 ")?;
    ensure!(
        screen.alternate && screen.cursor_hidden,
        "no screen of its own"
    );
    ensure_words(
        &screen,
        "gpu-node-7",
        "UTC up 1d02h cores 128 load 12.50 10.00 8.00",
    )?;
    ensure_words(&screen, "CPU [", "37.5% MEM [")?;
    ensure_words(&screen, "CPU [", "256G/1.0T")?;
    ensure_words(
        &screen,
        "POWER",
        "POWER 6.5kW DISK read 2.0G/s write 0/s NET rx 0/s tx 3.0K/s",
    )?;
    ensure_words(&screen, " 0 H100", "80% [")?;
    ensure_words(&screen, " 0 H100", "60.0G/80.0G 55C 400/700W 1980MHz")?;
    ensure_words(&screen, " 5 H100", "1980MHz THERM")?;
    ensure!(screen.line("IDLE").is_none(), "an idle GPU is no problem");
    ensure_words(
        &screen,
        "  108 vllm",
        "108 vllm 7 77 58.0G 307 10.0 5.0G 1.0M 2.0K TP7 Llama-3.3-70",
    )?;
    ensure_eq!(
        pids(&screen),
        [108, 107, 106, 105, 104, 103, 102, 101, 100, 900],
        "by GPU"
    );
    ensure_words(
        &screen,
        "of 10",
        "10 of 10 processes, 3 more without series by GPU%",
    )?;
    ensure!(
        screen.last().starts_with("q quit ? help / filter"),
        "no keys"
    );
    Ok(())
}

fn large() -> Result<()> {
    let agent = FakeAgent::start(node)?;
    let pty = Pty::start(top(&agent.url(), &["--sort", "cpu-percent"])?, 200, 50)?;
    let screen = pty.wait_for(" 80.0 ")?;
    ensure_words(
        &screen,
        "  101 serving",
        "101 serving vllm worker TP0 meta-llama/Llama-3.3-70B-Instruct 0 70 58.0G 300 80.0 5.0G \
         1.0M 0 2.0K 0 VLLM::Worker_TP0",
    )?;
    ensure_words(
        &screen,
        "900 ada",
        "900 ada - - - 0.0 5.0G - - - - toolbox bash",
    )?;
    ensure_eq!(pids(&screen).first().copied(), Some(101), "by CPU");
    Ok(())
}

fn sort() -> Result<()> {
    let (_agent, pty) = start(node)?;
    wait_for_pids(&pty, &[108, 107])?;
    pty.wait_for(" 307 ")?;
    for (keys, first) in [
        ("C", [101, 102]),
        ("r", [900, 108]),
        ("P", [100, 101]),
        ("P", [900, 108]),
        ("W", [108, 107]),
        // To the right of watts is CPU.
        (">", [101, 102]),
        ("<", [108, 107]),
    ] {
        pty.send(keys)?;
        wait_for_pids(&pty, &first).with_context(|| format!("after {keys}"))?;
    }
    // The selection stays with its process.
    pty.send("\u{1b}[B")?;
    pty.wait("the second selected", |screen| {
        screen.line(">   107").is_some() || screen.line(">    107").is_some()
    })?;
    pty.send("C")?;
    wait_for_pids(&pty, &[101, 102])?;
    pty.wait("the same selected", |screen| {
        screen.line(">").is_some_and(|line| line.contains("107"))
    })?;
    Ok(())
}

fn filter() -> Result<()> {
    let (_agent, pty) = start(node)?;
    wait_for_pids(&pty, &[108, 107])?;
    pty.send("/toolb")?;
    let screen = pty.wait("one process", |screen| pids(screen) == [900])?;
    ensure_words(&screen, "1 of 10", "filter: toolb_")?;
    // A letter that is a command elsewhere is text here.
    pty.send("q")?;
    pty.wait_for("no process is like that")?;
    pty.send("\u{7f}\u{7f}o\r")?;
    pty.wait_for("no process is like that")?;
    pty.send("\u{1b}")?;
    wait_for_pids(&pty, &[108, 107])?;
    pty.send("e")?;
    let screen = pty.wait_for("engines only")?;
    ensure!(
        !pids(&screen).contains(&900),
        "bash is no engine:\n{}",
        screen.text()
    );
    Ok(())
}

/// The memory of the one process, which grows from answer to answer.
fn memory(screen: &Screen) -> Option<String> {
    let words = screen.line("grower")?.split_whitespace().rev();
    words
        .filter(|word| word.ends_with('G'))
        .map(str::to_owned)
        .next()
}

fn freeze() -> Result<()> {
    let (agent, pty) = start(growing)?;
    pty.wait_for("2.0G")?;
    pty.send(" ")?;
    let frozen = memory(&pty.wait_for("FROZEN")?);
    ensure!(frozen.is_some(), "no memory");
    let asked = agent.asked();
    let start = Instant::now();
    while agent.asked() < asked + 3 && start.elapsed() < Duration::from_secs(30) {
        thread::sleep(Duration::from_millis(20));
    }
    ensure!(agent.asked() >= asked + 3, "nobody asks the agent any more");
    thread::sleep(Duration::from_millis(200));
    ensure_eq!(memory(&pty.screen()), frozen, "memory while frozen");
    pty.send("p")?;
    let screen = pty.wait("values again", |screen| memory(screen) != frozen)?;
    ensure!(screen.line("FROZEN").is_none(), "still frozen");
    Ok(())
}

fn tree() -> Result<()> {
    let (_agent, pty) = start(node)?;
    wait_for_pids(&pty, &[108, 107])?;
    pty.send("t")?;
    let screen = wait_for_pids(&pty, &[100, 108, 107])?;
    let worker = screen.line("  108 vllm").context("no worker")?;
    ensure!(worker.contains("└ TP7 Llama"), "no branch in {worker:?}");
    ensure!(
        screen
            .line("processes")
            .is_some_and(|line| line.contains("tree")),
        "no tree"
    );
    Ok(())
}

fn details() -> Result<()> {
    let (_agent, pty) = start(node)?;
    pty.wait_for(" 307 ")?;
    pty.send("\r")?;
    let screen = pty.wait_for("Process 108  VLLM::Worker_TP7")?;
    ensure_words(
        &screen,
        "engine",
        "engine vllm role worker TP7 model meta-llama/Llama-3.3-70B-Instruct",
    )?;
    ensure_words(&screen, "GPU power", "RSS 5.0G GPU power 307W CPU power -")?;
    ensure_words(
        &screen,
        "disk read",
        "disk read 1.0M/s written 0/s network rx 2.0K/s tx 0/s",
    )?;
    ensure_words(&screen, "SM", "GPU 7 SM 77% memory held 58.0G")?;
    for course in [
        "GPU %",
        "GPU memory",
        "CPU %",
        "disk B/s",
        "network B/s",
        "watts",
    ] {
        let line = screen
            .line(&format!(" {course}"))
            .with_context(|| format!("no {course}"))?;
        ensure!(line.contains("max"), "{line:?}");
    }
    let bars = |screen: &Screen| {
        let line = screen.line(" watts").unwrap_or_default();
        line.chars()
            .filter(|char| ('▁'..='█').contains(char))
            .count()
    };
    let before = bars(&screen);
    pty.wait("a longer course", |screen| bars(screen) > before)?;
    pty.send("\u{1b}")?;
    wait_for_pids(&pty, &[108, 107])?;
    Ok(())
}

fn help() -> Result<()> {
    let (_agent, pty) = start(node)?;
    wait_for_pids(&pty, &[108])?;
    pty.send("?")?;
    let screen = pty.wait_for("reverse the order")?;
    ensure!(
        screen
            .line("sort by  ")
            .is_some_and(|line| line.contains("C CPU%")),
        "no letters"
    );
    pty.send("?")?;
    wait_for_pids(&pty, &[108])?;
    Ok(())
}

fn resize() -> Result<()> {
    let (_agent, pty) = start(node)?;
    wait_for_pids(&pty, &[108])?;
    pty.resize(200, 50)?;
    pty.wait_for("CONTAINER/POD")?;
    pty.resize(30, 8)?;
    pty.wait_for("too small")?;
    pty.resize(80, 24)?;
    let screen = pty.wait("the table again", |screen| pids(screen).starts_with(&[108]))?;
    ensure!(
        screen.last().starts_with("q quit"),
        "no keys:\n{}",
        screen.text()
    );
    Ok(())
}
