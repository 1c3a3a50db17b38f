//! Counts what system calls returned, and says it.

use std::env;
use std::io::{self, Write as _};

use anyhow::{Context as _, Result};
use esnode_tests::tally::{Io, Protocol, Tally};

/// Counts for one process; its name goes into the report.
#[derive(Default)]
pub(crate) struct Meter {
    pub(crate) tally: Tally,
}

impl Meter {
    pub(crate) fn sent(&mut self, protocol: Protocol, bytes: usize) {
        self.tally.sent(protocol, bytes);
    }

    pub(crate) fn received(&mut self, protocol: Protocol, bytes: usize) {
        self.tally.received(protocol, bytes);
    }

    /// Says what was counted, under the name that this process was started with.
    pub(crate) fn tell(&self) -> Result<()> {
        say(&self.tally.lines(&own_name()?));
        Ok(())
    }
}

/// The last part of the path that this process was started by, fit for a report's line.
pub(crate) fn own_name() -> Result<String> {
    let path = env::args_os().next().context("no name")?;
    let path = path.to_string_lossy();
    let name = path.rsplit('/').next().unwrap_or_default();
    Ok(name.replace(|char: char| char.is_whitespace() || char == '=', "?"))
}

/// Writes lines to stdout in one piece, so that processes that share it don't mix theirs.
pub(crate) fn say(lines: &str) {
    let mut stdout = io::stdout().lock();
    // A test that has gone away isn't interested.
    let _ = stdout
        .write_all(lines.as_bytes())
        .and_then(|()| stdout.flush());
}

/// Says this process' own disk account as it is now.
pub(crate) fn tell_io(moment: &str) -> Result<Io> {
    let io = Io::of("self")?;
    say(&io.line(moment));
    Ok(io)
}

/// Says a figure.
pub(crate) fn tell_fact(name: &str, value: u64) {
    say(&format!("fact {name}={value}\n"));
}
