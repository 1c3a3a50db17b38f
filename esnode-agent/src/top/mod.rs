//! `esnode-core top`: who uses what now, in the terminal.
//!
//! A `source` gives snapshots, `frame` makes rates of two of them, `model` is the state that keys
//! and snapshots change, `view` draws it into cells, `terminal` puts those on the screen. What is
//! not there: readings of its own (all it knows is in the snapshot), and writes to anything but
//! the terminal.

mod clean;
mod column;
mod frame;
mod history;
mod input;
mod layout;
mod local;
mod model;
mod once;
mod rows;
mod source;
mod terminal;
mod text;
mod view;

pub use clean::Charset;
pub use column::Column;
pub use source::{Source, SourceError};

use crate::cli::TopOptions;
use rows::Listing;
use std::{
    env,
    io::{self, IsTerminal, Write, stdout},
    process::ExitCode,
};
use thiserror::Error;
use view::theme::Theme;

/// Exit code of wrong usage, as clap has it.
const USAGE: u8 = 2;

/// Why it can't go on.
#[derive(Debug, Error)]
pub enum TopError {
    /// No snapshot.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// Standard output is a file or a pipe.
    #[error("standard output is no terminal: use --once for a table, or --json for data")]
    NoTerminal,
    /// The terminal does not do what it must.
    #[error("cannot use the terminal: {0}; --once and --json need none")]
    Terminal(#[source] io::Error),
    /// The table can't be written.
    #[error("cannot print: {0}")]
    Print(#[source] io::Error),
    /// The data can't be written.
    #[error("cannot write JSON: {0}")]
    Json(#[from] serde_json::Error),
    /// There is no thread to be had.
    #[error("cannot start a thread: {0}")]
    Thread(#[source] io::Error),
}

/// Runs it to its end; says on standard error what went wrong.
#[must_use]
pub fn run(options: &TopOptions) -> ExitCode {
    let Err(error) = try_run(options) else {
        return ExitCode::SUCCESS;
    };
    // Where nobody reads the complaint, the exit code is what is left to say.
    let _ = writeln!(io::stderr(), "esnode-core top: {error}");
    match error {
        TopError::NoTerminal => ExitCode::from(USAGE),
        _ => ExitCode::FAILURE,
    }
}

fn try_run(options: &TopOptions) -> Result<(), TopError> {
    let listing = Listing {
        column: options.sort,
        filter: options.filter.clone(),
        ..Listing::default()
    };
    let theme = theme(options, |name| env::var(name).ok());
    if options.once || options.json {
        return once::run(options, listing, theme.charset);
    }
    if !stdout().is_terminal() {
        return Err(TopError::NoTerminal);
    }
    let source = source::open(options)?;
    terminal::run(source, options.interval, listing, theme)
}

/// How it looks, by the options and the environment.
fn theme(options: &TopOptions, variable: impl Fn(&str) -> Option<String>) -> Theme {
    let set = |name| variable(name).filter(|value| !value.is_empty());
    // https://no-color.org: set, and not empty.
    let plain = options.looks.no_color || set("NO_COLOR").is_some();
    let dumb = set("TERM").is_some_and(|term| term == "dumb");
    let charset = if options.looks.ascii {
        Charset::Ascii
    } else {
        Charset::of_locale(&variable)
    };
    Theme {
        color: !plain && !dumb,
        charset,
    }
}
