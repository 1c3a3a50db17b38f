//! The state of the view, and how keys and snapshots change it. Nothing here knows a terminal.

use super::{
    clean::{Charset, clean, clean_snapshot},
    column::Column,
    frame::{Frame, Key, Worker},
    history::History,
    input::{Action, Step},
    layout::layout,
    rows::{Listing, Row},
};
use crate::api::Snapshot;
use ratatui::text::Span;
use std::time::{Duration, Instant};

/// What covers the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Screen {
    Table,
    /// All about one worker.
    Details(Key),
    Help,
}

/// How GPUs are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum GpuPanel {
    /// As there is room.
    Fitting,
    /// One per line, as many as fit.
    Lines,
    /// All in one line.
    Summary,
}

/// Whether to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flow {
    Continue,
    Quit,
}

/// The state.
pub(super) struct Model {
    /// What is shown.
    pub(super) frame: Frame,
    /// When it came.
    pub(super) since: Instant,
    /// Newest snapshot, while another one is frozen, and when it came.
    waiting: Option<(Snapshot, Instant)>,
    pub(super) history: History,
    pub(super) listing: Listing,
    /// What is listed of the frame.
    pub(super) rows: Vec<Row>,
    /// Who is selected; nobody follows whoever is first.
    selected: Option<Key>,
    /// Where the selection is, for when who is selected ends.
    cursor: usize,
    /// First row that is seen.
    pub(super) offset: usize,
    /// Rows that were seen when it was last drawn.
    page: usize,
    /// Width when it was last drawn.
    width: u16,
    pub(super) screen: Screen,
    pub(super) gpus: GpuPanel,
    /// Whether a filter is being typed.
    pub(super) typing: bool,
    pub(super) frozen: bool,
    /// Why the last snapshot did not come.
    pub(super) lost: Option<String>,
    charset: Charset,
}

impl Model {
    /// The state at the first snapshot.
    pub(super) fn new(
        snapshot: Snapshot,
        listing: Listing,
        charset: Charset,
        now: Instant,
    ) -> Self {
        let mut model = Self {
            frame: Frame::default(),
            since: now,
            waiting: None,
            history: History::default(),
            listing,
            rows: Vec::new(),
            selected: None,
            cursor: 0,
            offset: 0,
            page: 1,
            width: 80,
            screen: Screen::Table,
            gpus: GpuPanel::Fitting,
            typing: false,
            frozen: false,
            lost: None,
            charset,
        };
        model.show(snapshot, now);
        model
    }

    /// Takes a snapshot that came `now`.
    pub(super) fn take(&mut self, snapshot: Snapshot, now: Instant) {
        self.lost = None;
        if self.frozen {
            self.waiting = Some((snapshot, now));
        } else {
            self.show(snapshot, now);
        }
    }

    /// Takes word that there was no snapshot.
    pub(super) fn lose(&mut self, reason: &str) {
        self.lost = Some(clean(reason, self.charset));
    }

    fn show(&mut self, mut snapshot: Snapshot, now: Instant) {
        self.since = now;
        // The same sample once more says nothing of the time since.
        if snapshot.time_seconds.to_bits() == self.frame.snapshot.time_seconds.to_bits()
            && snapshot.time_seconds > 0.0
        {
            return;
        }
        clean_snapshot(&mut snapshot, self.charset);
        self.frame = Frame::after(&self.frame, snapshot);
        self.history.add(&self.frame);
        self.list();
    }

    /// How old what is shown is.
    pub(super) fn age(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.since)
    }

    /// Lists anew; the selection stays with who is selected, or where that one was.
    fn list(&mut self) {
        self.rows = self.listing.rows(&self.frame);
        let last = self.rows.len().saturating_sub(1);
        let Some(selected) = self.selected else {
            self.cursor = 0;
            return;
        };
        if let Some(place) = self.rows.iter().position(|row| row.key == selected) {
            self.cursor = place;
        } else {
            self.cursor = self.cursor.min(last);
            self.selected = self.rows.get(self.cursor).map(|row| row.key);
        }
    }

    /// Does what was asked for.
    pub(super) fn update(&mut self, action: Action, now: Instant) -> Flow {
        match action {
            Action::Quit => return Flow::Quit,
            Action::Help if self.screen == Screen::Help => self.screen = Screen::Table,
            Action::Help => self.screen = Screen::Help,
            Action::Back => self.back(),
            Action::Move(step) => self.step(step),
            Action::SortBeside(by) => self.sort_beside(by),
            Action::SortBy(column) => self.sort_by(column),
            Action::Reverse => self.listing.reversed = !self.listing.reversed,
            Action::Freeze => self.freeze(now),
            Action::Tree => self.listing.tree = !self.listing.tree,
            Action::EnginesOnly => self.listing.engines_only = !self.listing.engines_only,
            Action::Gpus => {
                self.gpus = match self.gpus {
                    GpuPanel::Fitting => GpuPanel::Lines,
                    GpuPanel::Lines => GpuPanel::Summary,
                    GpuPanel::Summary => GpuPanel::Fitting,
                }
            }
            Action::Details => self.details(),
            Action::Filter => {
                self.screen = Screen::Table;
                self.typing = true;
            }
            Action::Type(char) => self.listing.filter.push(char),
            Action::Erase => {
                self.listing.filter.pop();
            }
            Action::Accept => self.typing = false,
        }
        self.list();
        Flow::Continue
    }

    fn back(&mut self) {
        if self.screen == Screen::Table {
            self.typing = false;
            self.listing.filter.clear();
        } else {
            self.screen = Screen::Table;
        }
    }

    fn details(&mut self) {
        self.screen = match self.screen {
            Screen::Table => self
                .rows
                .get(self.cursor)
                .map_or(Screen::Table, |row| Screen::Details(row.key)),
            Screen::Details(_) | Screen::Help => Screen::Table,
        };
    }

    fn step(&mut self, step: Step) {
        let last = self.rows.len().saturating_sub(1);
        let page = isize::try_from(self.page.max(2) - 1).unwrap_or(1);
        self.cursor = match step {
            Step::Lines(lines) => self.cursor.saturating_add_signed(lines),
            Step::Pages(pages) => self
                .cursor
                .saturating_add_signed(pages.saturating_mul(page)),
            Step::First => 0,
            Step::Last => last,
        }
        .min(last);
        self.selected = self.rows.get(self.cursor).map(|row| row.key);
        if let (Screen::Details(_), Some(key)) = (self.screen, self.selected) {
            self.screen = Screen::Details(key);
        }
    }

    fn sort_by(&mut self, column: Column) {
        if self.listing.column(&self.frame) == column {
            self.listing.reversed = !self.listing.reversed;
        } else {
            self.listing.reversed = false;
        }
        self.listing.column = Some(column);
    }

    fn sort_beside(&mut self, by: isize) {
        let columns = self.columns();
        let present = self.listing.column(&self.frame);
        let place = columns.iter().position(|(column, _)| *column == present);
        let next = place.map_or(0, |place| place.saturating_add_signed(by));
        if let Some((column, _)) = columns.get(next)
            && *column != present
        {
            self.listing.column = Some(*column);
            self.listing.reversed = false;
        }
    }

    fn freeze(&mut self, now: Instant) {
        self.frozen = !self.frozen;
        if let (false, Some((snapshot, came))) = (self.frozen, self.waiting.take()) {
            self.show(snapshot, came.min(now));
        }
    }

    /// The columns of the table, and how wide each is: one column of the screen at the left is
    /// the mark of the selection.
    pub(super) fn columns(&self) -> Vec<(Column, u16)> {
        let snapshot = &self.frame.snapshot;
        let mut workers = self.frame.workers.iter();
        let gpus =
            !snapshot.gpus.is_empty() || workers.any(|worker| !worker.process.gpus.is_empty());
        layout(self.width.saturating_sub(1), gpus, |column| {
            if !column.is_text() {
                return column.width();
            }
            let cells = self.frame.workers.iter().map(|worker| column.cell(worker));
            let widths = cells.map(|cell| Span::raw(cell).width());
            u16::try_from(widths.max().unwrap_or(0)).unwrap_or(u16::MAX)
        })
    }

    /// Sets how much of the table is seen, and scrolls so that the selection is.
    pub(super) fn fit(&mut self, width: u16, page: usize) {
        self.width = width;
        self.page = page;
        let most = self.rows.len().saturating_sub(page);
        let least = (self.cursor + 1).saturating_sub(page);
        self.offset = self.offset.clamp(least, self.cursor.max(least)).min(most);
    }

    /// Which row is selected.
    pub(super) fn cursor(&self) -> usize {
        self.cursor
    }

    /// The worker of a row.
    pub(super) fn worker(&self, row: &Row) -> Option<&Worker> {
        self.frame.workers.get(row.index)
    }

    /// A worker, if it lives.
    pub(super) fn find(&self, key: Key) -> Option<&Worker> {
        let mut workers = self.frame.workers.iter();
        workers.find(|worker| Key::of(&worker.process) == key)
    }
}

#[cfg(test)]
mod tests;
