//! All about one worker.

use super::{
    line::Line,
    theme::{INVERSE, PLAIN, STRONG, Theme},
};
use crate::{
    api::Process,
    top::{
        column::Column,
        frame::{Key, Usage, Worker},
        history::SAMPLES,
        model::Model,
        text::{bytes, duration, joules, known, percent, rate, watts, whole},
    },
};
use ratatui::{buffer::Buffer, layout::Rect};

/// Cells of a sparkline's line before the line itself: its name, what is now, and the most.
const BEFORE_SPARKS: u16 = 34;

/// What is drawn over time.
struct Course {
    name: &'static str,
    value: fn(&Usage) -> Option<f64>,
    write: fn(f64) -> String,
    /// The least that the top of the line stands for.
    least: f64,
}

const COURSES: [Course; 6] = [
    Course {
        name: "GPU %",
        value: |usage| usage.gpu_percent,
        write: whole,
        least: 100.0,
    },
    Course {
        name: "GPU memory",
        value: |usage| usage.gpu_memory_used_bytes.map(float),
        write: rate,
        least: 1.0,
    },
    Course {
        name: "CPU %",
        value: |usage| usage.cpu_percent,
        write: percent,
        least: 100.0,
    },
    Course {
        name: "disk B/s",
        value: Usage::disk,
        write: rate,
        least: 1.0,
    },
    Course {
        name: "network B/s",
        value: Usage::network,
        write: rate,
        least: 1.0,
    },
    Course {
        name: "watts",
        value: |usage| usage.watts,
        write: watts,
        least: 1.0,
    },
];

#[expect(clippy::cast_precision_loss, reason = "exact up to 8 PiB")]
fn float(bytes: u64) -> f64 {
    bytes as f64
}

/// Draws the worker with this key.
pub(super) fn draw(model: &Model, key: Key, theme: Theme, area: Rect, buffer: &mut Buffer) {
    let mut title = Line::new(buffer, theme, area, 0);
    title.paint(INVERSE);
    let Some(worker) = model.find(key) else {
        let gone = format!(
            " Process {} has ended: Esc goes back to the others",
            key.pid
        );
        title.put(&gone, INVERSE);
        return;
    };
    let named = format!(" Process {}  {}", key.pid, worker.process.comm);
    title.put(&named, INVERSE);
    let courses = u16::try_from(COURSES.len()).unwrap_or(0);
    let facts = facts(model, worker);
    let most = area.height.saturating_sub(courses + 1);
    let mut row = 1;
    for facts in facts.iter().take(most.into()) {
        let mut line = Line::new(buffer, theme, area, row);
        line.skip(1);
        for (label, value) in facts {
            line.fact(label, value);
        }
        row += 1;
    }
    let left = area.height.saturating_sub(row);
    // A line between facts and courses, and higher courses, if there is room.
    let spaced = left > courses;
    row += u16::from(spaced);
    let height = (left.saturating_sub(u16::from(spaced)) / courses).clamp(1, 4);
    for course in &COURSES {
        let place = Rect::new(area.x, area.y + row.min(area.height), area.width, height);
        draw_course(model, key, course, theme, place.intersection(area), buffer);
        row += height;
    }
}

type Facts = Vec<(String, String)>;

/// What is known of it, by lines.
fn facts(model: &Model, worker: &Worker) -> Vec<Facts> {
    let Worker { process, usage } = worker;
    let now = model.frame.snapshot.time_seconds;
    let age = process.start_time_seconds.map(|start| now - start);
    let pid = |pid: u32| pid.to_string();
    let mut lines = vec![
        named([
            ("user", process.user.clone()),
            ("running for", known(age, duration)),
            ("parent", pid(process.parent_pid)),
            ("server", process.server_pid.map_or_else(String::new, pid)),
        ]),
        named([
            ("engine", process.engine.clone()),
            ("role", Column::Role.cell(worker)),
            ("model", process.model.clone()),
        ]),
        named([
            ("container", process.container.clone()),
            ("image", process.image.clone()),
            ("id", process.container_id.chars().take(12).collect()),
        ]),
        named([
            ("pod", process.pod.clone()),
            ("namespace", process.namespace.clone()),
        ]),
        named([
            ("RSS", known(process.resident_memory_bytes, bytes)),
            (
                "GPU power",
                known(usage.gpu_watts, |value| watts(value) + "W"),
            ),
            (
                "CPU power",
                known(usage.cpu_watts, |value| watts(value) + "W"),
            ),
            ("threads", process.threads.to_string()),
            ("group", process.group.clone()),
        ]),
        named([
            (
                "disk read",
                known(usage.disk_read_bytes_per_second, rate) + "/s",
            ),
            (
                "written",
                known(usage.disk_write_bytes_per_second, rate) + "/s",
            ),
            (
                "network rx",
                known(usage.network_receive_bytes_per_second, rate) + "/s",
            ),
            (
                "tx",
                known(usage.network_transmit_bytes_per_second, rate) + "/s",
            ),
        ]),
        totals(process),
    ];
    lines.extend(gpus(process));
    lines.retain(|facts| !facts.is_empty());
    lines
}

/// Those that are known.
fn named<const N: usize>(facts: [(&str, String); N]) -> Facts {
    facts
        .into_iter()
        .filter(|(_, value)| !value.is_empty())
        .map(|(label, value)| (label.to_owned(), value))
        .collect()
}

/// What went over the network since it started, by protocol.
fn totals(process: &Process) -> Facts {
    let protocols = process.network.iter().flatten();
    protocols
        .map(|(protocol, traffic)| {
            let (received, sent) = (traffic.receive_bytes_total, traffic.transmit_bytes_total);
            let value = format!("{} in, {} out", bytes(received), bytes(sent));
            (format!("{protocol} in all"), value)
        })
        .collect()
}

/// A line for each GPU that it uses.
fn gpus(process: &Process) -> impl Iterator<Item = Facts> {
    process.gpus.iter().map(|gpu| {
        named([
            ("GPU", gpu.gpu.to_string()),
            (
                "SM",
                known(gpu.utilization_sm_percent, |value| whole(value) + "%"),
            ),
            ("memory held", known(gpu.memory_used_bytes, bytes)),
            (
                "memory busy",
                known(gpu.utilization_memory_percent, |value| whole(value) + "%"),
            ),
            (
                "energy",
                known(gpu.energy_joules_total, |value| joules(value) + "J"),
            ),
        ])
    })
}

fn draw_course(
    model: &Model,
    key: Key,
    course: &Course,
    theme: Theme,
    area: Rect,
    buffer: &mut Buffer,
) {
    let cells = usize::from(area.width.saturating_sub(BEFORE_SPARKS)).min(SAMPLES);
    let values: Vec<_> = model.history.of(key, course.value).collect();
    let newest = values.last().copied().flatten();
    let values: Vec<_> = values.into_iter().rev().take(cells).collect();
    let most = values.iter().flatten().copied().reduce(f64::max);
    let mut line = Line::new(buffer, theme, area, 0);
    line.skip(1).cell(course.name, 12, false, theme.label());
    line.cell(&known(newest, course.write), 7, true, STRONG)
        .skip(2);
    line.cell(
        &format!("max {}", known(most, course.write)),
        11,
        false,
        PLAIN,
    );
    let scale = most.unwrap_or(0.0).max(course.least);
    let rows = area.height;
    // The newest at the right.
    for (back, value) in (0..).zip(values) {
        let Some(value) = value else {
            continue;
        };
        let fraction = value / scale;
        for (row, char) in (0..).zip(theme.column(fraction, rows)) {
            let x = BEFORE_SPARKS + u16::try_from(cells).unwrap_or(0) - 1 - back;
            Line::new(buffer, theme, area, row)
                .skip(x)
                .put(char.encode_utf8(&mut [0; 4]), theme.engine());
        }
    }
}
