//! The table of workers.

use super::{
    line::{Line, width},
    theme::{INVERSE, PLAIN, Theme},
};
use crate::top::{
    column::{Column, last_part},
    model::Model,
    rows::Row,
};
use ratatui::{buffer::Buffer, layout::Rect};

/// Ancestors that a child is moved to the right by.
const DEEPEST: usize = 8;

/// Whether a row is marked as selected.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Selection {
    Shown,
    /// Nobody can select anything.
    None,
}

/// Draws titles, and as many rows as fit below them.
pub(super) fn draw(
    model: &Model,
    selection: Selection,
    theme: Theme,
    area: Rect,
    buffer: &mut Buffer,
) {
    let columns = model.columns();
    titles(model, &columns, &mut Line::new(buffer, theme, area, 0));
    let seen = model.rows.iter().enumerate().skip(model.offset);
    for (line, (place, row)) in (1..area.height).zip(seen) {
        let selected = selection == Selection::Shown && place == model.cursor();
        let mut line = Line::new(buffer, theme, area, line);
        draw_row(model, &columns, row, selected, &mut line);
    }
    if model.rows.is_empty() && area.height > 1 {
        let why = if model.frame.workers.is_empty() {
            "no process is shown"
        } else {
            "no process is like that: Esc clears the filter, e shows those of no engine"
        };
        Line::new(buffer, theme, area, 1)
            .skip(1)
            .put(why, theme.label());
    }
}

fn titles(model: &Model, columns: &[(Column, u16)], line: &mut Line<'_>) {
    let sorted = model.listing.column(&model.frame);
    let arrow = line.theme.arrow(model.listing.descends(&model.frame));
    let style = INVERSE;
    line.paint(style).put(" ", style);
    for (column, cells) in columns {
        let title = column.title();
        let title = if *column == sorted {
            let room = usize::from(*cells).saturating_sub(1);
            format!("{}{arrow}", title.chars().take(room).collect::<String>())
        } else {
            title.to_owned()
        };
        line.cell(&title, *cells, !column.is_text(), style).skip(1);
    }
}

fn draw_row(
    model: &Model,
    columns: &[(Column, u16)],
    row: &Row,
    selected: bool,
    line: &mut Line<'_>,
) {
    let Some(worker) = model.worker(row) else {
        return;
    };
    let theme = line.theme;
    let beneath = if selected { INVERSE } else { PLAIN };
    line.paint(beneath);
    line.put(if selected { ">" } else { " " }, beneath);
    for (column, cells) in columns {
        let mut text = column.cell(worker);
        if *column == Column::Model && width(&text) > *cells {
            text = last_part(&text).to_owned();
        }
        if model.listing.tree && matches!(column, Column::Command | Column::What) {
            text = indented(&text, row.depth, theme);
        }
        let right = !column.is_text();
        let style = match column {
            Column::Engine => beneath.patch(theme.engine()),
            _ => beneath,
        };
        line.cell(&text, *cells, right, style).skip(1);
    }
}

/// Text moved to the right below its parent.
fn indented(text: &str, depth: usize, theme: Theme) -> String {
    match depth.min(DEEPEST) {
        0 => text.to_owned(),
        depth => format!("{}{}{text}", "  ".repeat(depth - 1), theme.branch()),
    }
}
