use std::time::Instant;

use super::super::{answer, fields::FIELDS};
use super::*;

const UUID: &str = "GPU-8e137fa6-c3d9-6980-7733-0d8df296756e";

fn told(numbers: &[f64]) -> Vec<Told> {
    numbers.iter().copied().map(Told::Number).collect()
}

#[test]
fn between_before_and_after_and_a_bit() {
    let between = told(&[100.0, 120.0]);
    for (ours, verdict) in [
        (100.0, Verdict::Same),
        (111.0, Verdict::Same),
        (97.0, Verdict::Same),
        (123.0, Verdict::Same),
        (96.0, Verdict::Differs(4.0)),
        (125.0, Verdict::Differs(5.0)),
    ] {
        assert_eq!(numbers(Some(ours), &between, 3.0, 0.0), verdict, "{ours}");
    }
    assert_eq!(numbers(Some(131.0), &between, 0.0, 0.1), Verdict::Same);
    // A reading that falls.
    let falling = told(&[120.0, 100.0]);
    assert_eq!(numbers(Some(110.0), &falling, 0.0, 0.0), Verdict::Same);
}

#[test]
fn limits_are_equal() {
    assert_eq!(
        numbers(Some(700.0), &told(&[700.0, 700.0]), 0.0, 0.0),
        Verdict::Same
    );
    let one_more = numbers(Some(701.0), &told(&[700.0, 700.0]), 0.0, 0.0);
    assert_eq!(one_more, Verdict::Differs(1.0));
}

#[test]
fn what_is_not_there_is_absent() {
    let missing = [Told::Missing, Told::Missing];
    assert_eq!(numbers(None, &missing, 0.0, 0.0), Verdict::Neither);
    assert_eq!(numbers(Some(0.0), &missing, 0.0, 0.0), Verdict::Invented);
    assert_eq!(numbers(None, &told(&[1.0, 1.0]), 9.0, 0.0), Verdict::Absent);
    // Known at one time only.
    let came = [Told::Missing, Told::Number(1.0)];
    assert_eq!(numbers(None, &came, 0.0, 0.0), Verdict::Unclear);
    assert_eq!(numbers(Some(1.0), &came, 0.0, 0.0), Verdict::Same);
    let unclear = [Told::Unclear, Told::Unclear];
    assert_eq!(numbers(Some(1.0), &unclear, 0.0, 0.0), Verdict::Unclear);
    assert_eq!(numbers(None, &unclear, 0.0, 0.0), Verdict::Unclear);
    assert_eq!(numbers(None, &[], 0.0, 0.0), Verdict::Unclear);
}

/// A host with one GPU of which this is known.
fn snapshot(known: &[(&'static str, &str)], memory: &str, sm: &str) -> Snapshot {
    let names: Vec<_> = FIELDS.iter().map(|(name, _)| *name).collect();
    let of = |name: &&str| {
        let known = known.iter().find(|(field, _)| field == name);
        known.map_or("[N/A]", |(_, value)| value)
    };
    let line: Vec<_> = names.iter().map(of).collect();
    Snapshot {
        at: Instant::now(),
        gpus: answer::gpus(&names, &line.join(", ")).unwrap(),
        processes: answer::processes(&format!("{UUID}, 42, {memory}\n")),
        pmon: answer::pmon(&format!(
            "# gpu pid type sm mem\n    0   42   C   {sm}   -\n"
        )),
    }
}

const KNOWN: [(&str, &str); 6] = [
    ("index", "0"),
    ("uuid", UUID),
    ("name", "NVIDIA H100 80GB HBM3"),
    ("memory.used", "1000"),
    ("clocks_event_reasons.sw_power_cap", "Active"),
    ("clocks_event_reasons_counters.sw_power_cap", "1500000"),
];

fn page(lines: &[(&str, &str, &str)]) -> Page {
    let line = |(family, labels, value): &(&str, &str, &str)| {
        format!("{family}{{gpu=\"0\",uuid=\"{UUID}\"{labels}}} {value}\n")
    };
    Page::parse(&lines.iter().map(line).collect::<String>()).unwrap()
}

const OURS: [(&str, &str, &str); 8] = [
    ("esnode_gpu_up", "", "1"),
    ("esnode_gpu_info", ",name=\"NVIDIA H100 80GB HBM3\"", "1"),
    ("esnode_gpu_memory_used_bytes", "", "1048600000"),
    (
        "esnode_gpu_throttle_reason",
        ",reason=\"sw_power_cap\"",
        "1",
    ),
    (
        "esnode_gpu_throttle_seconds_total",
        ",reason=\"sw_power_cap\"",
        "1.5",
    ),
    ("esnode_gpu_processes", "", "1"),
    (
        "esnode_process_gpu_memory_used_bytes",
        ",pid=\"42\",comm=\"a\"",
        "1048576",
    ),
    (
        "esnode_process_gpu_utilization_percent",
        ",pid=\"42\",comm=\"a\",engine_type=\"sm\"",
        "41.5",
    ),
];

fn wrong(page: &Page, snapshots: &[Snapshot; 2]) -> Vec<(String, Verdict)> {
    wrong_where(|_| true, page, snapshots)
}

fn wrong_where(
    is_here: fn(u32) -> bool,
    page: &Page,
    snapshots: &[Snapshot; 2],
) -> Vec<(String, Verdict)> {
    let [before, after] = snapshots;
    let compared = round(&Round {
        page,
        around: [before, after],
        since_start: snapshots,
        is_here,
    });
    let wrong = compared.into_iter().filter(|line| line.verdict.is_wrong());
    wrong.map(|line| (line.series, line.verdict)).collect()
}

#[test]
fn a_page_that_agrees() {
    let snapshots = [snapshot(&KNOWN, "1", "40"), snapshot(&KNOWN, "1", "44")];
    assert_eq!(wrong(&page(&OURS), &snapshots), []);
    // Memory of a process, and its share, that nvidia-smi does not know.
    let snapshots = [
        snapshot(&KNOWN, "[N/A]", "-"),
        snapshot(&KNOWN, "[N/A]", "-"),
    ];
    let without: Vec<_> = OURS
        .into_iter()
        .filter(|(family, ..)| *family != "esnode_process_gpu_memory_used_bytes")
        .collect();
    assert_eq!(wrong(&page(&without), &snapshots), []);
}

#[test]
fn each_line_that_is_missing_is_found() {
    let snapshots = [snapshot(&KNOWN, "1", "40"), snapshot(&KNOWN, "1", "44")];
    for (place, (family, ..)) in OURS.iter().enumerate() {
        let mut rest = OURS.to_vec();
        rest.remove(place);
        let wrong = wrong(&page(&rest), &snapshots);
        assert_eq!(wrong.len(), 1, "{wrong:?}");
        assert!(wrong[0].0.starts_with(family), "{wrong:?}");
        assert_eq!(wrong[0].1, Verdict::Absent, "{wrong:?}");
    }
}

#[test]
fn each_value_that_is_another_is_found() {
    let snapshots = [snapshot(&KNOWN, "1", "40"), snapshot(&KNOWN, "1", "44")];
    for (place, (family, ..)) in OURS.iter().enumerate() {
        let mut lines = OURS.to_vec();
        if *family == "esnode_gpu_info" {
            lines[place].1 = ",name=\"NVIDIA A100\"";
        } else {
            lines[place].2 = "7000000000";
        }
        let wrong = wrong(&page(&lines), &snapshots);
        assert_eq!(wrong.len(), 1, "{wrong:?}");
        assert!(wrong[0].0.starts_with(family), "{wrong:?}");
        assert!(matches!(wrong[0].1, Verdict::Differs(_)), "{wrong:?}");
    }
}

#[test]
fn what_nvidia_smi_does_not_have_is_not_ours_to_invent() {
    let snapshots = [snapshot(&KNOWN, "1", "40"), snapshot(&KNOWN, "1", "44")];
    let mut lines = OURS.to_vec();
    lines.push(("esnode_gpu_fan_speed_percent", ",fan=\"0\"", "0"));
    let expected = (
        "esnode_gpu_fan_speed_percent 0".to_owned(),
        Verdict::Invented,
    );
    assert_eq!(wrong(&page(&lines), &snapshots), [expected]);
}

#[test]
fn a_process_of_another_namespace_has_no_series() {
    let snapshots = [snapshot(&KNOWN, "1", "40"), snapshot(&KNOWN, "1", "44")];
    let of_device = OURS.into_iter();
    let of_device = of_device.filter(|(family, ..)| family.starts_with("esnode_gpu_"));
    let of_device: Vec<_> = of_device.collect();
    let nobody = |_| false;
    assert_eq!(wrong_where(nobody, &page(&of_device), &snapshots), []);
    let invented = wrong_where(nobody, &page(&OURS), &snapshots);
    assert_eq!(invented.len(), 1, "{invented:?}");
    assert_eq!(invented[0].1, Verdict::Invented);
}

#[test]
fn numbers_are_short() {
    assert_eq!(shown(Some(700.0)), "700");
    assert_eq!(shown(Some(122.04)), "122.04");
    assert_eq!(shown(Some(0.0)), "0");
    assert_eq!(shown(None), "absent");
}
