//! `--once` and `--json`: two samples one interval apart, printed.

use super::{
    TopError,
    clean::Charset,
    frame::Frame,
    model::Model,
    rows::Listing,
    source,
    view::{self, theme::Theme},
};
use crate::{api::Snapshot, cli::TopOptions};
use ratatui::crossterm::terminal;
use serde_json::{Value, json};
use std::{
    fmt::Write as _,
    io::{self, ErrorKind, IsTerminal, Write, stdout},
    thread,
    time::Instant,
};

/// Columns of a table that goes into a file or a pipe.
const PIPE_WIDTH: u16 = 200;

/// Takes two samples, and prints what is listed of them.
///
/// # Errors
/// If there is no sample, or it can't be printed.
pub(super) fn run(
    options: &TopOptions,
    listing: Listing,
    charset: Charset,
) -> Result<(), TopError> {
    let mut source = source::open(options)?;
    let before = source.next()?;
    thread::sleep(options.interval);
    let now = source.next()?;
    let text = if options.json {
        document(before, now, &listing)?
    } else {
        table(before, now, listing, charset, width(options))
    };
    match stdout()
        .write_all(text.as_bytes())
        .and_then(|()| stdout().flush())
    {
        // Whoever read it has read enough, as `head` does.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        done => done.map_err(TopError::Print),
    }
}

fn width(options: &TopOptions) -> u16 {
    options.width.unwrap_or_else(|| {
        let terminal = stdout().is_terminal().then(terminal::size);
        let columns = terminal
            .and_then(io::Result::ok)
            .map(|(columns, _)| columns);
        columns.filter(|columns| *columns > 0).unwrap_or(PIPE_WIDTH)
    })
}

/// The table.
fn table(
    before: Snapshot,
    now: Snapshot,
    listing: Listing,
    charset: Charset,
    width: u16,
) -> String {
    let moment = Instant::now();
    let mut model = Model::new(before, listing, charset, moment);
    model.take(now, moment);
    let theme = Theme {
        color: false,
        charset,
    };
    view::print(&mut model, theme, width)
}

/// The last snapshot with the rates since the first: the processes that are listed, in order.
fn document(before: Snapshot, now: Snapshot, listing: &Listing) -> Result<String, TopError> {
    let frame = Frame::after(&Frame::first(before), now);
    let rows = listing.rows(&frame);
    let workers = rows.iter().filter_map(|row| frame.workers.get(row.index));
    let workers = workers
        .map(serde_json::to_value)
        .collect::<Result<_, _>>()?;
    let mut document = serde_json::to_value(&frame.snapshot)?;
    if let Value::Object(fields) = &mut document {
        fields.insert("processes".to_owned(), Value::Array(workers));
        if let Some(seconds) = frame.interval_seconds {
            fields.insert("interval_seconds".to_owned(), json!(seconds));
        }
        let rates = serde_json::to_value(frame.rates)?;
        if let (Some(Value::Object(node)), Value::Object(rates)) = (fields.get_mut("node"), rates) {
            node.extend(rates);
        }
    }
    let mut text = escaped(&serde_json::to_string_pretty(&document)?);
    text.push('\n');
    Ok(text)
}

/// JSON without the control characters that JSON allows, for whom it is shown to by a terminal:
/// they are in strings only, where they can be escaped.
fn escaped(json: &str) -> String {
    let mut text = String::with_capacity(json.len());
    for char in json.chars() {
        if char.is_control() && char != '\n' {
            // Writing to a string does not fail.
            let _ = write!(text, "\\u{:04x}", u32::from(char));
        } else {
            text.push(char);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{api::Process, top::Column};

    fn snapshot(time: f64, cpu: f64) -> Snapshot {
        let process = |pid, comm: &str| Process {
            pid,
            comm: comm.to_owned(),
            cpu_seconds_total: cpu * f64::from(pid),
            ..Process::default()
        };
        Snapshot {
            time_seconds: time,
            processes: vec![
                process(1, "a\u{1b}[2J"),
                process(2, "b\u{9b}2J"),
                process(3, "c"),
            ],
            ..Snapshot::default()
        }
    }

    fn listing(filter: &str) -> Listing {
        Listing {
            column: Some(Column::CpuPercent),
            filter: filter.to_owned(),
            ..Listing::default()
        }
    }

    #[test]
    fn json_is_sorted_has_rates_and_escapes_controls() {
        let text = document(snapshot(10.0, 0.0), snapshot(12.0, 0.5), &listing("2j"));
        let text = text.expect("serializable");
        assert!(!text.contains(['\u{1b}', '\u{9b}']), "{text}");
        let value: Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(value["interval_seconds"], 2.0);
        let listed: Vec<_> = value["processes"]
            .as_array()
            .expect("a list")
            .iter()
            .map(|process| (process["comm"].as_str(), process["cpu_percent"].as_f64()))
            .collect();
        assert_eq!(
            listed,
            [
                (Some("b\u{9b}2J"), Some(50.0)),
                (Some("a\u{1b}[2J"), Some(25.0))
            ]
        );
    }

    #[test]
    fn a_table_has_all_that_match() {
        let text = table(
            snapshot(10.0, 0.0),
            snapshot(12.0, 0.5),
            listing("c"),
            Charset::Ascii,
            100,
        );
        let last = text.lines().last().expect("a row");
        assert!(last.contains("75.0") && last.ends_with(" c"), "{text}");
        assert_eq!(text.lines().count(), 5, "{text}");
    }
}
