//! What agrees with what.

use super::{
    answer::{Gpu, Told},
    families::{ENGINE_SLACK, ENGINES, Group, IDENTITY, RULES, Rule},
    page::{Labels, Page},
    smi::Snapshot,
};

const MIB: f64 = 1_048_576.0;

/// How one series compares.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Verdict {
    Same,
    /// Both lack it.
    Neither,
    /// nvidia-smi gives no answer that could be compared.
    Unclear,
    /// By how much ours is out of what is allowed.
    Differs(f64),
    /// nvidia-smi knows it, and our page does not have it.
    Absent,
    /// Our page has it, and nvidia-smi says that the device does not.
    Invented,
}

impl Verdict {
    pub(super) fn is_wrong(&self) -> bool {
        matches!(self, Self::Differs(_) | Self::Absent | Self::Invented)
    }
}

/// One comparison.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Compared {
    /// The family, and what tells its series apart.
    pub(super) series: String,
    /// Index.
    pub(super) gpu: String,
    pub(super) ours: String,
    pub(super) theirs: String,
    pub(super) verdict: Verdict,
}

/// A scrape, and what nvidia-smi said around it.
#[derive(Clone, Copy)]
pub(super) struct Round<'a> {
    pub(super) page: &'a Page,
    /// The last before the sample that the page shows, and the first after the scrape.
    pub(super) around: [&'a Snapshot; 2],
    /// All since before the agent started, for what it reads seldom.
    pub(super) since_start: &'a [Snapshot],
    /// Whether there is a process with this id here.
    pub(super) is_here: fn(u32) -> bool,
}

/// Compares a number of ours, `None` if absent, with what nvidia-smi told, in our unit.
pub(super) fn numbers(ours: Option<f64>, told: &[Told], slack: f64, relative: f64) -> Verdict {
    let numbers: Vec<f64> = told.iter().filter_map(Told::number).collect();
    let low = numbers.iter().copied().fold(f64::INFINITY, f64::min);
    let high = numbers.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let is_missing = |told: &Told| *told == Told::Missing;
    match ours {
        None if numbers.is_empty() && told.iter().any(is_missing) => Verdict::Neither,
        _ if told.is_empty() => Verdict::Unclear,
        // It came or went in between: both are right.
        None if numbers.len() < told.len() => Verdict::Unclear,
        None => Verdict::Absent,
        Some(_) if told.iter().all(is_missing) => Verdict::Invented,
        Some(_) if numbers.is_empty() => Verdict::Unclear,
        Some(ours) => {
            let allowed = slack + relative * high.abs();
            // What is lost when a decimal number is scaled.
            let rounding = 1e-9 * high.abs();
            let out = (low - ours).max(ours - high);
            if out <= allowed + rounding {
                Verdict::Same
            } else {
                Verdict::Differs(out)
            }
        }
    }
}

/// Compares everything of every GPU that nvidia-smi lists.
pub(super) fn round(round: &Round<'_>) -> Vec<Compared> {
    let [before, after] = round.around;
    let mut compared = Vec::new();
    for gpu in &after.gpus {
        let labels = [("gpu", gpu.index.as_str()), ("uuid", gpu.uuid.as_str())];
        compared.push(up(gpu, round.page, &labels));
        compared.extend(
            IDENTITY
                .iter()
                .filter_map(|(label, field)| identity(gpu, label, field, round.page, &labels)),
        );
        for rule in RULES {
            let snapshots: Vec<&Snapshot> = match rule.group {
                Group::Fast => vec![before, after],
                Group::Slow => round.since_start.iter().collect(),
            };
            compared.extend(reading(gpu, rule, &snapshots, round.page, &labels));
        }
        compared.extend(processes(gpu, round, &labels));
        compared.extend(engines(gpu, round, &labels));
    }
    compared
}

fn up(gpu: &Gpu, page: &Page, labels: &Labels<'_>) -> Compared {
    let ours = page.number("esnode_gpu_up", labels);
    Compared {
        series: "esnode_gpu_up".to_owned(),
        gpu: gpu.index.clone(),
        ours: shown(ours),
        theirs: "listed".to_owned(),
        verdict: numbers(ours, &[Told::Number(1.0)], 0.0, 0.0),
    }
}

fn identity(
    gpu: &Gpu,
    label: &str,
    field: &str,
    page: &Page,
    labels: &Labels<'_>,
) -> Option<Compared> {
    let theirs = gpu.text(field)?;
    let mut info = page.select("esnode_gpu_info", labels);
    let ours = info
        .next()
        .and_then(|info| info.label(label))
        .unwrap_or_default();
    let verdict = match Told::parse(theirs) {
        Told::Missing if ours.is_empty() => Verdict::Neither,
        Told::Missing => Verdict::Invented,
        Told::Unclear => Verdict::Unclear,
        _ if ours.is_empty() => Verdict::Absent,
        _ if ours.eq_ignore_ascii_case(theirs) => Verdict::Same,
        _ => Verdict::Differs(f64::NAN),
    };
    Some(Compared {
        series: format!("esnode_gpu_info {label}"),
        gpu: gpu.index.clone(),
        ours: ours.to_owned(),
        theirs: theirs.to_owned(),
        verdict,
    })
}

fn reading(
    gpu: &Gpu,
    rule: &Rule,
    snapshots: &[&Snapshot],
    page: &Page,
    labels: &Labels<'_>,
) -> Option<Compared> {
    let told: Vec<Told> = snapshots
        .iter()
        .filter_map(|snapshot| snapshot.gpus.iter().find(|other| other.uuid == gpu.uuid))
        .filter_map(|gpu| gpu.told(rule.field))
        .map(|told| scaled(told, rule.scale))
        .collect();
    if told.is_empty() {
        return None;
    }
    let labels: Vec<_> = labels.iter().chain(rule.labels).copied().collect();
    let ours = page.number(rule.family, &labels);
    let values: Vec<&str> = rule.labels.iter().map(|(_, value)| *value).collect();
    Some(Compared {
        series: format!("{} {}", rule.family, values.join(" "))
            .trim_end()
            .to_owned(),
        gpu: gpu.index.clone(),
        ours: shown(ours),
        theirs: range(&told),
        verdict: numbers(ours, &told, rule.slack, rule.relative),
    })
}

/// The processes that were there before and after.
fn processes(gpu: &Gpu, round: &Round<'_>, labels: &Labels<'_>) -> Vec<Compared> {
    let [before, after] = round.around.map(|snapshot| {
        let rows = snapshot.processes.iter();
        rows.filter(|row| row.uuid == gpu.uuid).collect::<Vec<_>>()
    });
    #[expect(clippy::cast_precision_loss, reason = "small numbers")]
    let counts = [before.len(), after.len()].map(|count| Told::Number(count as f64));
    let ours = round.page.number("esnode_gpu_processes", labels);
    let mut compared = vec![Compared {
        series: "esnode_gpu_processes".to_owned(),
        gpu: gpu.index.clone(),
        ours: shown(ours),
        theirs: range(&counts),
        verdict: numbers(ours, &counts, 0.0, 0.0),
    }];
    for row in after {
        let Some(earlier) = before.iter().find(|other| other.pid == row.pid) else {
            continue;
        };
        let pid = row.pid.to_string();
        let told = [&earlier.memory, &row.memory].map(|told| scaled(told.clone(), MIB));
        let labels: Vec<_> = labels
            .iter()
            .copied()
            .chain([("pid", pid.as_str())])
            .collect();
        let family = "esnode_process_gpu_memory_used_bytes";
        let ours = round.page.sum(family, &labels);
        let verdict = match ours {
            // Of another PID namespace: no series is its.
            None if !(round.is_here)(row.pid) => continue,
            Some(_) if !(round.is_here)(row.pid) => Verdict::Invented,
            ours => numbers(ours, &told, MIB, 0.0),
        };
        compared.push(Compared {
            series: format!("{family} {pid}"),
            gpu: gpu.index.clone(),
            ours: shown(ours),
            theirs: range(&told),
            verdict,
        });
    }
    compared
}

/// Utilisation of processes that compute. `pmon` shows a dash for what it has no sample of,
/// which says nothing of ours.
fn engines(gpu: &Gpu, round: &Round<'_>, labels: &Labels<'_>) -> Vec<Compared> {
    let [before, after] = round.around;
    let mut compared = Vec::new();
    let computes = |pid| {
        let mut processes = after.processes.iter();
        (round.is_here)(pid) && processes.any(|row| row.pid == pid)
    };
    let rows = after.pmon.iter();
    for row in rows.filter(|row| row.gpu == gpu.index && computes(row.pid)) {
        let mut earlier = before.pmon.iter();
        let earlier = earlier.find(|other| (&other.gpu, other.pid) == (&row.gpu, row.pid));
        for (column, engine) in ENGINES {
            let told = [earlier, Some(row)].map(|row| row?.told(column)?.number());
            let told: Vec<Told> = told.into_iter().flatten().map(Told::Number).collect();
            if told.is_empty() {
                continue;
            }
            let pid = row.pid.to_string();
            let more = [("pid", pid.as_str()), ("engine_type", engine)];
            let labels: Vec<_> = labels.iter().copied().chain(more).collect();
            let ours = round
                .page
                .number("esnode_process_gpu_utilization_percent", &labels);
            compared.push(Compared {
                series: format!("esnode_process_gpu_utilization_percent {engine} {pid}"),
                gpu: gpu.index.clone(),
                ours: shown(ours),
                theirs: range(&told),
                verdict: numbers(ours, &told, ENGINE_SLACK, 0.0),
            });
        }
    }
    compared
}

fn scaled(told: Told, scale: f64) -> Told {
    match told {
        Told::Number(number) => Told::Number(number * scale),
        other => other,
    }
}

/// A number as short as it can be.
pub(super) fn shown(number: Option<f64>) -> String {
    number.map_or_else(
        || "absent".to_owned(),
        |number| {
            let text = format!("{number:.3}");
            text.trim_end_matches('0').trim_end_matches('.').to_owned()
        },
    )
}

/// What was told first and last.
fn range(told: &[Told]) -> String {
    let one = |told: Option<&Told>| match told {
        Some(Told::Number(number)) => shown(Some(*number)),
        Some(Told::Text(text)) => text.clone(),
        Some(Told::Missing) => "N/A".to_owned(),
        Some(Told::Unclear) | None => "?".to_owned(),
    };
    let (first, last) = (one(told.first()), one(told.last()));
    if first == last {
        first
    } else {
        format!("{first}..{last}")
    }
}

#[cfg(test)]
#[path = "compare_tests.rs"]
mod tests;
