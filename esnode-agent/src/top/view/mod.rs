//! Draws the state into a buffer of cells: what is on a terminal, and what `--once` prints.

mod details;
mod gpus;
mod header;
mod help;
mod line;
mod table;
pub(super) mod theme;

use super::{
    model::{Model, Screen},
    text::duration,
};
use gpus::Shape;
use help::Keys;
use line::Line;
use ratatui::{buffer::Buffer, layout::Rect, text::Span};
use std::time::Instant;
use table::Selection;
use theme::{PLAIN, STRONG, Theme};

/// The smallest screen that is of use.
const SMALLEST: (u16, u16) = (40, 10);

/// Draws everything.
pub(super) fn draw(model: &mut Model, theme: Theme, now: Instant, area: Rect, buffer: &mut Buffer) {
    if area.width < SMALLEST.0 || area.height < SMALLEST.1 {
        let (width, height) = SMALLEST;
        let lines = [
            "too small:".to_owned(),
            format!("{width}x{height} at least"),
            "q quits".to_owned(),
        ];
        for (row, text) in (0..).zip(lines) {
            Line::new(buffer, theme, area, row).put(&text, PLAIN);
        }
        return;
    }
    let (rest, bottom) = split(area, area.height - 2);
    let body = top(model, theme, area, rest, buffer);
    model.fit(area.width, usize::from(body.height.saturating_sub(1)));
    match model.screen {
        Screen::Table => table::draw(model, Selection::Shown, theme, body, buffer),
        Screen::Details(key) => details::draw(model, key, theme, body, buffer),
        Screen::Help => help::draw(theme, body, buffer),
    }
    status(model, now, &mut Line::new(buffer, theme, bottom, 0));
    let keys = match model.screen {
        Screen::Table if model.typing => Keys::Typing,
        Screen::Table => Keys::Table,
        Screen::Details(_) | Screen::Help => Keys::Inner,
    };
    help::keys(keys, &mut Line::new(buffer, theme, bottom, 1));
}

/// Draws node and GPUs at the top, the latter where there is room; gives what is left below.
fn top(model: &Model, theme: Theme, screen: Rect, area: Rect, buffer: &mut Buffer) -> Rect {
    let (head, rest) = split(area, header::HEIGHT);
    header::draw(&model.frame, theme, head, buffer);
    if model.screen != Screen::Table {
        return rest;
    }
    let gpus = &model.frame.snapshot.gpus;
    let shape = Shape::of(gpus.len(), model.gpus, screen);
    let (panel, rest) = split(rest, shape.height());
    gpus::draw(gpus, shape, theme, panel, buffer);
    rest
}

fn split(area: Rect, height: u16) -> (Rect, Rect) {
    let height = height.min(area.height);
    let above = Rect { height, ..area };
    let below = Rect {
        y: area.y + height,
        height: area.height - height,
        ..area
    };
    (above, below)
}

/// What is shown of how many, and what is out of the ordinary.
fn status(model: &Model, now: Instant, line: &mut Line<'_>) {
    let theme = line.theme;
    if let Some(reason) = &model.lost {
        let age = duration(model.age(now).as_secs_f64());
        line.put(&format!("NO CONNECTION, shown is {age} old"), theme.alarm());
        line.put(&format!(": {reason}"), PLAIN).skip(1);
        return;
    }
    if model.frozen {
        let age = duration(model.age(now).as_secs_f64());
        line.put(&format!("FROZEN {age} ago"), theme.alarm())
            .skip(1);
    }
    let (shown, all) = (model.rows.len(), model.frame.workers.len());
    let beyond = model.frame.snapshot.processes_not_selected;
    let more = match beyond {
        Some(beyond) if beyond > 0 => format!(", {beyond} more without series"),
        _ => String::new(),
    };
    line.put(&format!("{shown} of {all} processes{more}"), theme.label())
        .skip(1);
    let by = model.listing.column(&model.frame).title();
    let arrow = theme.arrow(model.listing.descends(&model.frame));
    line.put(&format!("by {by}{arrow}"), theme.label()).skip(1);
    for (on, word) in [
        (model.listing.tree, "tree"),
        (model.listing.engines_only, "engines only"),
    ] {
        if on {
            line.put(word, STRONG).skip(1);
        }
    }
    if model.typing || !model.listing.filter.is_empty() {
        let cursor = if model.typing { "_" } else { "" };
        let filter = super::clean::clean(&model.listing.filter, theme.charset);
        line.put(&format!("filter: {filter}{cursor}"), STRONG);
    }
}

/// Node, GPUs and all rows as lines of text, without anything that a terminal would obey.
pub(super) fn print(model: &mut Model, theme: Theme, width: u16) -> String {
    let count = |length: usize| u16::try_from(length).unwrap_or(u16::MAX);
    let gpus = count(model.frame.snapshot.gpus.len());
    let rows = count(model.rows.len().max(1));
    let height = (header::HEIGHT + 1)
        .saturating_add(gpus)
        .saturating_add(rows);
    let area = Rect::new(0, 0, width, height);
    let mut buffer = Buffer::empty(area);
    let (head, rest) = split(area, header::HEIGHT);
    header::draw(&model.frame, theme, head, &mut buffer);
    let (panel, rest) = split(rest, gpus);
    let lines = if gpus == 0 {
        Shape::Nothing
    } else {
        Shape::Lines(gpus)
    };
    gpus::draw(&model.frame.snapshot.gpus, lines, theme, panel, &mut buffer);
    model.fit(width, usize::from(rest.height));
    table::draw(model, Selection::None, theme, rest, &mut buffer);
    text(&buffer)
}

/// The lines of a buffer, without spaces at their ends.
pub(super) fn text(buffer: &Buffer) -> String {
    let area = buffer.area;
    let mut text = String::new();
    for y in area.top()..area.bottom() {
        let mut line = String::new();
        let mut x = area.left();
        while x < area.right() {
            let symbol = buffer.cell((x, y)).map_or(" ", |cell| cell.symbol());
            line.push_str(symbol);
            // A wide character takes the next cell as well.
            let cells = Span::raw(symbol).width().max(1);
            x = x.saturating_add(u16::try_from(cells).unwrap_or(1));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests;
