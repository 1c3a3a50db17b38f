//! The lines of the node.

use super::{
    line::Line,
    theme::{PLAIN, STRONG, Theme},
};
use crate::top::{
    frame::Frame,
    text::{UNKNOWN, bytes, duration, known, percent, rate, time_of_day, watts},
};
use ratatui::{buffer::Buffer, layout::Rect};

/// Lines that it takes.
pub(super) const HEIGHT: u16 = 3;

/// Cells of the second line that are not bars.
const BESIDE_BARS: u16 = 50;

/// Draws the lines of the node.
pub(super) fn draw(frame: &Frame, theme: Theme, area: Rect, buffer: &mut Buffer) {
    identity(frame, &mut Line::new(buffer, theme, area, 0));
    levels(frame, &mut Line::new(buffer, theme, area, 1));
    rates(frame, &mut Line::new(buffer, theme, area, 2));
}

fn identity(frame: &Frame, line: &mut Line<'_>) {
    let (node, theme) = (&frame.snapshot.node, line.theme);
    line.cell(
        &node.hostname,
        super::line::width(&node.hostname).min(30),
        false,
        STRONG,
    )
    .skip(2);
    let time = time_of_day(frame.snapshot.time_seconds);
    line.put(&time, PLAIN).put(" UTC", theme.label()).skip(2);
    line.fact("up", &known(node.uptime_seconds, duration));
    line.fact("cores", &known(node.cores, |cores| cores.to_string()));
    let load = known(node.cpu_load_avg, |load| {
        load.map(|load| format!("{load:.2}")).join(" ")
    });
    line.fact("load", &load);
}

fn levels(frame: &Frame, line: &mut Line<'_>) {
    let node = &frame.snapshot.node;

    let cells = line
        .left()
        .saturating_sub(BESIDE_BARS)
        .div_euclid(2)
        .min(60);
    line.put("CPU ", line.theme.label());
    line.bar(node.cpu_usage_percent.map(|percent| percent / 100.0), cells);
    let cpu = known(node.cpu_usage_percent, |value| percent(value) + "%");
    line.cell(&cpu, 7, true, PLAIN).skip(2);
    let used = node.memory_total_bytes.zip(node.memory_available_bytes);
    let used = used.map(|(total, available)| (total.saturating_sub(available), total));
    line.put("MEM ", line.theme.label());
    line.bar(used.map(fraction), cells);
    line.cell(&of(used), 12, true, PLAIN).skip(2);
    line.fact("SWAP", &of(node.swap_used_bytes.zip(node.swap_total_bytes)));
}

fn rates(frame: &Frame, line: &mut Line<'_>) {
    let rates = &frame.rates;
    let both = |one: &str, in_: Option<f64>, other: &str, out: Option<f64>| {
        let written = |value: Option<f64>| known(value, |value| rate(value) + "/s");
        format!("{one} {} {other} {}", written(in_), written(out))
    };
    line.fact(
        "POWER",
        &known(frame.snapshot.node.power_watts, |value| watts(value) + "W"),
    );
    line.fact(
        "DISK",
        &both(
            "read",
            rates.disk_read_bytes_per_second,
            "write",
            rates.disk_written_bytes_per_second,
        ),
    );
    line.fact(
        "NET",
        &both(
            "rx",
            rates.network_rx_bytes_per_second,
            "tx",
            rates.network_tx_bytes_per_second,
        ),
    );
}

/// A part of a whole, 0 to 1.
#[expect(
    clippy::cast_precision_loss,
    reason = "it becomes a bar of a few cells"
)]
pub(super) fn fraction((part, whole): (u64, u64)) -> f64 {
    if whole == 0 {
        0.0
    } else {
        part as f64 / whole as f64
    }
}

/// A part of a whole in bytes.
pub(super) fn of(pair: Option<(u64, u64)>) -> String {
    pair.map_or_else(
        || UNKNOWN.to_owned(),
        |(part, whole)| format!("{}/{}", bytes(part), bytes(whole)),
    )
}
