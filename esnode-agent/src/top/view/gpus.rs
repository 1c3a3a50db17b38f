//! The GPUs: one per line while there is room, else several, else all in one.

use super::{
    header::{fraction, of},
    line::{Line, width},
    theme::{PLAIN, STRONG, Theme},
};
use crate::{
    api::Gpu,
    top::{
        model::GpuPanel,
        text::{bytes, known, watts, whole},
    },
};
use ratatui::{buffer::Buffer, layout::Rect};
use std::collections::BTreeMap;

/// Lines of the rest of the screen: node, title, status, keys.
const OTHER_LINES: u16 = 6;

/// Rows of the table that GPUs leave, if someone asks for all of them.
const FEWEST_ROWS: u16 = 4;

/// Cells that a GPU needs beside others.
const COMPACT_WIDTH: u16 = 39;

/// Cells of a GPU's line that are neither name nor bars.
const BESIDE_BARS: u16 = 57;

/// Why clocks are held down, by the driver's reason and in few letters. An idle GPU is no worse
/// for it.
const MARKS: [(&str, &str); 9] = [
    ("gpu_idle", ""),
    ("applications_clocks_setting", "APP"),
    ("sw_power_cap", "PWR"),
    ("hw_slowdown", "SLOW"),
    ("sync_boost", "SYNC"),
    ("sw_thermal_slowdown", "THERM"),
    ("hw_thermal_slowdown", "HOT"),
    ("hw_power_brake_slowdown", "BRAKE"),
    ("display_clock_setting", "DISP"),
];

/// What the marks mean.
pub(super) const MARKS_MEAN: (&str, &str) = (
    "PWR power cap  BRAKE power brake  THERM too warm, by the driver",
    "HOT too warm, by the chip  SLOW slowdown  APP SYNC DISP clocks set",
);

/// How GPUs are laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// One per line, so many lines.
    Lines(u16),
    /// So many per line, so many lines.
    Compact(u16, u16),
    Summary,
    Nothing,
}

impl Shape {
    /// The shape of so many GPUs on a screen.
    pub(super) fn of(gpus: usize, panel: GpuPanel, screen: Rect) -> Self {
        let count = u16::try_from(gpus).unwrap_or(u16::MAX);
        let beside = (screen.width / COMPACT_WIDTH).max(1);
        let room = screen.height.saturating_sub(OTHER_LINES);
        match panel {
            _ if count == 0 => Self::Nothing,
            GpuPanel::Lines => Self::Lines(count.min(room.saturating_sub(FEWEST_ROWS).max(1))),
            GpuPanel::Fitting if count <= room / 2 => Self::Lines(count),
            GpuPanel::Fitting if count.div_ceil(beside) <= room / 2 => {
                Self::Compact(beside, count.div_ceil(beside))
            }
            GpuPanel::Fitting | GpuPanel::Summary => Self::Summary,
        }
    }

    pub(super) fn height(self) -> u16 {
        match self {
            Self::Lines(lines) | Self::Compact(_, lines) => lines,
            Self::Summary => 1,
            Self::Nothing => 0,
        }
    }
}

/// Draws the GPUs.
pub(super) fn draw(gpus: &[Gpu], shape: Shape, theme: Theme, area: Rect, buffer: &mut Buffer) {
    match shape {
        Shape::Nothing => {}
        Shape::Summary => summary(gpus, &mut Line::new(buffer, theme, area, 0)),
        Shape::Lines(lines) => {
            let names: Vec<_> = gpus.iter().map(|gpu| name(&gpu.name, area.width)).collect();
            let widest = names.iter().map(|name| width(name)).max().unwrap_or(0);
            let count = usize::from(lines);
            // The last line says how many more there are.
            let seen = if gpus.len() > count { count - 1 } else { count };
            for ((row, gpu), name) in (0..).zip(gpus).zip(&names).take(seen) {
                one(
                    gpu,
                    (name, widest),
                    &mut Line::new(buffer, theme, area, row),
                );
            }
            if let Some(more) = gpus.len().checked_sub(seen).filter(|more| *more > 0) {
                let text = format!("{more} more GPUs: g shows all in one line");
                Line::new(buffer, theme, area, lines - 1).put(&text, theme.label());
            }
        }
        Shape::Compact(beside, lines) => {
            let cells = area.width / beside;
            for (place, gpu) in (0..).zip(gpus) {
                // Down the columns, as one reads a list.
                let (column, row) = (place / lines, place % lines);
                let x = area.x + column * cells;
                let cell = Rect::new(x, area.y, cells - 1, area.height).intersection(area);
                compact(gpu, &mut Line::new(buffer, theme, cell, row));
            }
        }
    }
}

fn one(gpu: &Gpu, (name, widest): (&str, u16), line: &mut Line<'_>) {
    let cells = line
        .left()
        .saturating_sub(BESIDE_BARS + widest)
        .div_euclid(2)
        .clamp(2, 60);
    line.cell(&gpu.gpu.to_string(), 2, true, STRONG).skip(1);
    line.cell(name, widest, false, PLAIN).skip(1);
    line.bar(
        gpu.utilization_percent.map(|percent| percent / 100.0),
        cells,
    );
    line.cell(&utilization(gpu), 5, true, PLAIN).skip(1);
    let memory = gpu.memory_used_bytes.zip(gpu.memory_total_bytes);
    line.bar(memory.map(fraction), cells);
    line.cell(&of(memory), 12, true, PLAIN);
    line.cell(&temperature(gpu), 5, true, PLAIN);
    line.cell(&power(gpu), 9, true, PLAIN);
    let clock = known(gpu.clock_sm_mhz, |clock| whole(clock) + "MHz");
    line.cell(&clock, 8, true, PLAIN).skip(1);
    put_marks(gpu, line);
}

fn compact(gpu: &Gpu, line: &mut Line<'_>) {
    line.cell(&gpu.gpu.to_string(), 2, true, STRONG).skip(1);
    line.bar(gpu.utilization_percent.map(|percent| percent / 100.0), 4);
    line.cell(&utilization(gpu), 5, true, PLAIN);
    line.cell(&known(gpu.memory_used_bytes, bytes), 6, true, PLAIN);
    line.cell(&temperature(gpu), 4, true, PLAIN);
    line.cell(
        &known(gpu.power_watts, |value| watts(value) + "W"),
        5,
        true,
        PLAIN,
    )
    .skip(1);
    put_marks(gpu, line);
}

fn summary(gpus: &[Gpu], line: &mut Line<'_>) {
    let used: Vec<_> = gpus
        .iter()
        .filter_map(|gpu| gpu.utilization_percent)
        .collect();
    #[expect(clippy::cast_precision_loss, reason = "a number of GPUs")]
    let mean = (!used.is_empty()).then(|| used.iter().sum::<f64>() / used.len() as f64);
    line.put(&format!("{} GPUs ", gpus.len()), STRONG);
    line.bar(mean.map(|mean| mean / 100.0), 6);
    line.cell(&known(mean, |mean| whole(mean) + "%"), 5, true, PLAIN)
        .skip(2);
    let memory = gpus
        .iter()
        .filter_map(|gpu| gpu.memory_used_bytes.zip(gpu.memory_total_bytes))
        .reduce(|(used, total), (more, whole)| {
            (used.saturating_add(more), total.saturating_add(whole))
        });
    line.fact("MEM", &of(memory));
    let drawn = gpus
        .iter()
        .filter_map(|gpu| gpu.power_watts)
        .reduce(|sum, one| sum + one);
    line.fact("POWER", &known(drawn, |drawn| watts(drawn) + "W"));
    let hottest = gpus
        .iter()
        .filter_map(|gpu| gpu.temperature_celsius)
        .reduce(f64::max);
    line.fact("MAX", &known(hottest, |celsius| whole(celsius) + "C"));
    let mut counts = BTreeMap::new();
    for mark in gpus.iter().flat_map(marks) {
        *counts.entry(mark).or_insert(0_u32) += 1;
    }
    for (mark, count) in counts {
        line.put(&format!("{mark}:{count} "), line.theme.alarm());
    }
}

fn put_marks(gpu: &Gpu, line: &mut Line<'_>) {
    let text = marks(gpu).join(" ");
    line.put(&text, line.theme.alarm());
}

/// Why it is slow, or not there.
fn marks(gpu: &Gpu) -> Vec<String> {
    if !gpu.up {
        return vec!["DOWN".to_owned()];
    }
    let mark = |reason: &String| {
        let known = MARKS.iter().find(|(name, _)| name == reason);
        known.map_or_else(
            || reason.chars().take(8).collect::<String>().to_uppercase(),
            |(_, mark)| (*mark).to_owned(),
        )
    };
    let marks = gpu.throttle_reasons.iter().flatten().map(mark);
    marks.filter(|mark| !mark.is_empty()).collect()
}

fn utilization(gpu: &Gpu) -> String {
    known(gpu.utilization_percent, |percent| whole(percent) + "%")
}

fn temperature(gpu: &Gpu) -> String {
    known(gpu.temperature_celsius, |celsius| whole(celsius) + "C")
}

fn power(gpu: &Gpu) -> String {
    let drawn = known(gpu.power_watts, whole);
    gpu.power_limit_watts.map_or_else(
        || format!("{drawn}W"),
        |limit| format!("{drawn}/{}W", whole(limit)),
    )
}

/// The name without its maker; on a narrow screen up to the first word with a digit: `H100`.
pub(super) fn name(full: &str, screen: u16) -> String {
    let mut name = full;
    for maker in ["NVIDIA ", "Tesla ", "GeForce "] {
        name = name.strip_prefix(maker).unwrap_or(name);
    }
    let most = if screen < 120 { 8 } else { 20 };
    if width(name) > most
        && let Some(digit) = name.find(|char: char| char.is_ascii_digit())
    {
        let end = name
            .char_indices()
            .find(|(at, char)| *at > digit && " -".contains(*char));
        if screen < 120 {
            name = end.and_then(|(end, _)| name.get(..end)).unwrap_or(name);
        }
    }
    name.chars().take(most.into()).collect()
}
