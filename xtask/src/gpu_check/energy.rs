//! Energy: a counter of ours, which nvidia-smi does not have, next to the power that it shows.

use std::time::Instant;

use super::{
    answer::{Gpu, Told},
    compare::{Compared, Verdict, numbers, shown},
    page::Page,
    smi::Snapshot,
};

/// How far mean power by the counter may be from that by nvidia-smi: a part of it,
const RELATIVE: f64 = 0.10;
/// and in watts, for GPUs that do next to nothing.
const SLACK_WATTS: f64 = 2.0;

const TOTAL: &str = "esnode_gpu_energy_joules_total";

/// A scrape, and when that was.
pub(super) struct Scrape {
    pub(super) at: Instant,
    pub(super) page: Page,
}

/// Mean power over the whole run, both ways.
pub(super) fn power(gpu: &Gpu, scrapes: &[Scrape], snapshots: &[Snapshot]) -> Option<Compared> {
    let drawn: Vec<(Instant, f64)> = snapshots
        .iter()
        .filter_map(|snapshot| {
            let gpu = snapshot.gpus.iter().find(|other| other.uuid == gpu.uuid)?;
            Some((snapshot.at, gpu.told("power.draw")?.number()?))
        })
        .collect();
    let theirs = mean(&drawn)?;
    let labels = labels(gpu);
    let counted: Vec<(f64, f64)> = scrapes
        .iter()
        .filter_map(|scrape| {
            let begin = scrapes.first()?.at;
            let age = scrape
                .page
                .number("esnode_gpu_sample_age_seconds", &labels)?;
            let at = scrape.at.duration_since(begin).as_secs_f64() - age;
            Some((at, scrape.page.number(TOTAL, &labels)?))
        })
        .collect();
    let ours = match (counted.first(), counted.last()) {
        (Some(first), Some(last)) if last.0 > first.0 => {
            Some((last.1 - first.1) / (last.0 - first.0))
        }
        _ => None,
    };
    let slack = (RELATIVE * theirs).max(SLACK_WATTS);
    Some(Compared {
        series: "esnode_gpu_energy_joules_total, as mean watts".to_owned(),
        gpu: gpu.index.clone(),
        ours: shown(ours),
        theirs: format!("{} mean of power.draw", shown(Some(theirs))),
        verdict: if counted.is_empty() {
            // GPUs before Volta have no such counter, which nvidia-smi does not tell.
            Verdict::Unclear
        } else {
            numbers(ours, &[Told::Number(theirs)], slack, 0.0)
        },
    })
}

/// The mean of what was read at these times, by trapezoids.
fn mean(readings: &[(Instant, f64)]) -> Option<f64> {
    let (mut joules, mut seconds) = (0.0, 0.0);
    for pair in readings.windows(2) {
        let [(begin, first), (end, second)] = pair else {
            continue;
        };
        let step = end.duration_since(*begin).as_secs_f64();
        joules += (first + second) / 2.0 * step;
        seconds += step;
    }
    (seconds > 0.0).then(|| joules / seconds)
}

/// That processes' energy, with what is unattributed, is the GPU's, to the microjoule.
pub(super) fn sum(gpu: &Gpu, page: &Page) -> Option<Compared> {
    let labels = labels(gpu);
    let total = microjoules(page.number(TOTAL, &labels)?);
    let families = [
        "esnode_group_gpu_energy_joules_total",
        "esnode_unattributed_gpu_energy_joules_total",
    ];
    let parts: i128 = families
        .iter()
        .flat_map(|family| page.select(family, &labels))
        .filter_map(|sample| sample.number().map(microjoules))
        .sum();
    Some(Compared {
        series: "esnode_gpu_energy_joules_total, groups and unattributed".to_owned(),
        gpu: gpu.index.clone(),
        ours: format!("{parts} uJ"),
        theirs: format!("{total} uJ (ours)"),
        verdict: if parts == total {
            Verdict::Same
        } else {
            #[expect(clippy::cast_precision_loss, reason = "it is shown, not compared")]
            Verdict::Differs((parts - total) as f64)
        },
    })
}

fn labels(gpu: &Gpu) -> [(&'static str, &str); 2] {
    [("gpu", gpu.index.as_str()), ("uuid", gpu.uuid.as_str())]
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "joules of a lifetime in microjoules are below 2^53"
)]
fn microjoules(joules: f64) -> i128 {
    (joules * 1e6).round() as i128
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::answer;
    use super::*;

    fn gpu(watts: &str) -> Gpu {
        let names = ["index", "uuid", "power.draw"];
        answer::gpus(&names, &format!("0, GPU-0, {watts}")).unwrap()[0].clone()
    }

    /// Power as it was read, in steps of a second.
    fn snapshots(begin: Instant, watts: &[&str]) -> Vec<Snapshot> {
        let snapshot = |(second, watts): (u64, &&str)| Snapshot {
            at: begin + Duration::from_secs(second),
            gpus: vec![gpu(watts)],
            processes: Vec::new(),
            pmon: Vec::new(),
        };
        (0..).zip(watts).map(snapshot).collect()
    }

    /// Scrapes after this many seconds, of samples with an age.
    fn scrapes(begin: Instant, scrapes: &[(u64, f64, f64)]) -> Vec<Scrape> {
        let scrape = |&(second, age, joules): &(u64, f64, f64)| {
            let labels = r#"{gpu="0",uuid="GPU-0"}"#;
            let page =
                format!("esnode_gpu_sample_age_seconds{labels} {age}\n{TOTAL}{labels} {joules}\n");
            Scrape {
                at: begin + Duration::from_secs(second),
                page: Page::parse(&page).unwrap(),
            }
        };
        scrapes.iter().map(scrape).collect()
    }

    #[test]
    fn energy_fits_the_mean_of_power() {
        let begin = Instant::now();
        // 100 W rising to 300 W: 200 W on average.
        let read = snapshots(begin, &["100", "200", "300"]);
        for (joules, verdict) in [
            (400.0, Verdict::Same),
            (438.0, Verdict::Same),
            (362.0, Verdict::Same),
            (450.0, Verdict::Differs(25.0)),
            (0.0, Verdict::Differs(200.0)),
        ] {
            let counted = scrapes(begin, &[(1, 0.5, 7000.0), (3, 0.5, 7000.0 + joules)]);
            let compared = power(&gpu("1"), &counted, &read).unwrap();
            assert_eq!(compared.verdict, verdict, "{joules}");
        }
        // The second sample was taken half a second earlier than the scrape makes believe.
        let counted = scrapes(begin, &[(1, 0.0, 7000.0), (3, 0.5, 7300.0)]);
        let compared = power(&gpu("1"), &counted, &read).unwrap();
        assert_eq!(compared.verdict, Verdict::Same);
    }

    #[test]
    fn one_without_the_other() {
        let begin = Instant::now();
        let nothing = scrapes(begin, &[]);
        let read = snapshots(begin, &["100", "100"]);
        let compared = power(&gpu("1"), &nothing, &read).unwrap();
        assert_eq!(compared.verdict, Verdict::Unclear);
        let unread = snapshots(begin, &["[N/A]", "[N/A]"]);
        assert_eq!(power(&gpu("1"), &nothing, &unread), None);
    }

    #[test]
    fn parts_are_the_whole_to_the_microjoule() {
        let page = |idle: &str| {
            let labels = r#"gpu="0",uuid="GPU-0""#;
            let page = format!(
                "{TOTAL}{{{labels}}} 1234.567891\n\
                 esnode_group_gpu_energy_joules_total{{group=\"a\",{labels}}} 234.56789\n\
                 esnode_group_gpu_energy_joules_total{{group=\"b\",{labels}}} 0.1\n\
                 esnode_unattributed_gpu_energy_joules_total{{{labels},reason=\"idle\"}} {idle}\n"
            );
            Page::parse(&page).unwrap()
        };
        let verdict = |idle| sum(&gpu("1"), &page(idle)).unwrap().verdict;
        assert_eq!(verdict("999.900001"), Verdict::Same);
        assert_eq!(verdict("999.900002"), Verdict::Differs(1.0));
        assert_eq!(sum(&gpu("1"), &Page::default()), None);
    }
}
