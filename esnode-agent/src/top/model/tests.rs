use super::*;
use crate::api::Process;

fn snapshot(time: f64, cpus: &[(u32, f64)]) -> Snapshot {
    let process = |&(pid, cpu): &(u32, f64)| Process {
        pid,
        comm: format!("comm-{pid}"),
        cpu_seconds_total: cpu,
        ..Process::default()
    };
    Snapshot {
        time_seconds: time,
        processes: cpus.iter().map(process).collect(),
        ..Snapshot::default()
    }
}

fn model(cpus: &[(u32, f64)]) -> Model {
    let idle: Vec<_> = cpus.iter().map(|(pid, _)| (*pid, 0.0)).collect();
    let now = Instant::now();
    let mut model = Model::new(
        snapshot(1.0, &idle),
        Listing::default(),
        Charset::Unicode,
        now,
    );
    model.take(snapshot(2.0, cpus), now);
    model
}

fn pids(model: &Model) -> Vec<u32> {
    model.rows.iter().map(|row| row.key.pid).collect()
}

fn selected(model: &Model) -> u32 {
    model.rows[model.cursor()].key.pid
}

fn press(model: &mut Model, action: Action) {
    assert_eq!(model.update(action, Instant::now()), Flow::Continue);
}

#[test]
fn the_selection_follows_its_process() {
    let mut model = model(&[(1, 0.9), (2, 0.5), (3, 0.1)]);
    assert_eq!((pids(&model), selected(&model)), (vec![1, 2, 3], 1));
    press(&mut model, Action::Move(Step::Lines(1)));
    assert_eq!(selected(&model), 2);
    model.take(
        snapshot(3.0, &[(1, 0.9), (2, 1.4), (3, 0.3)]),
        Instant::now(),
    );
    assert_eq!((pids(&model), selected(&model)), (vec![2, 3, 1], 2));
    press(&mut model, Action::Reverse);
    assert_eq!((pids(&model), selected(&model)), (vec![1, 3, 2], 2));
    // Its neighbour inherits the selection when it ends.
    model.take(snapshot(4.0, &[(1, 0.9), (3, 0.4)]), Instant::now());
    assert_eq!((pids(&model), selected(&model)), (vec![1, 3], 3));
}

#[test]
fn the_selection_stays_within_the_list_and_the_screen() {
    let cpus: Vec<_> = (1..=30)
        .map(|pid| (pid, f64::from(100 - pid) / 100.0))
        .collect();
    let mut model = model(&cpus);
    model.fit(80, 10);
    for (step, expected, offset) in [
        (Step::Lines(-1), 0, 0),
        (Step::Pages(1), 9, 0),
        (Step::Pages(1), 18, 9),
        (Step::Last, 29, 20),
        (Step::Lines(1), 29, 20),
        (Step::Pages(-1), 20, 20),
        (Step::First, 0, 0),
    ] {
        press(&mut model, Action::Move(step));
        model.fit(80, 10);
        assert_eq!(
            (model.cursor(), model.offset),
            (expected, offset),
            "{step:?}"
        );
    }
    press(&mut model, Action::Move(Step::Last));
    model.fit(80, 50);
    assert_eq!(model.offset, 0, "all fit");
}

#[test]
fn frozen_values_stop_and_then_catch_up() {
    let mut model = model(&[(1, 0.5)]);
    press(&mut model, Action::Freeze);
    model.take(snapshot(3.0, &[(1, 0.5), (2, 0.0)]), Instant::now());
    model.take(snapshot(4.0, &[(1, 0.7), (2, 0.0)]), Instant::now());
    assert_eq!(pids(&model), [1]);
    assert_eq!(model.frame.workers[0].usage.cpu_percent, Some(50.0));
    press(&mut model, Action::Freeze);
    assert_eq!(pids(&model), [1, 2]);
    // 0.2 s of CPU in the 2 s since the frame that was frozen.
    let percent = model.frame.workers[0].usage.cpu_percent.expect("known");
    assert!((percent - 10.0).abs() < 1e-9, "{percent}");
}

#[test]
fn a_filter_is_typed_accepted_and_left() {
    let mut model = model(&[(10, 0.5), (21, 0.2), (22, 0.1)]);
    press(&mut model, Action::Filter);
    press(&mut model, Action::Type('2'));
    assert_eq!((pids(&model), model.typing), (vec![21, 22], true));
    press(&mut model, Action::Type('x'));
    assert!(model.rows.is_empty());
    press(&mut model, Action::Erase);
    press(&mut model, Action::Accept);
    assert_eq!((pids(&model), model.typing), (vec![21, 22], false));
    press(&mut model, Action::Back);
    assert_eq!(pids(&model), [10, 21, 22]);
}

#[test]
fn sorting_moves_over_the_columns_that_are_seen() {
    let mut model = model(&[(1, 0.1), (2, 0.9)]);
    assert_eq!(model.listing.column(&model.frame), Column::CpuPercent);
    press(&mut model, Action::SortBeside(-1));
    assert_eq!(model.listing.column(&model.frame), Column::Watts);
    press(&mut model, Action::SortBy(Column::Pid));
    assert_eq!(pids(&model), [1, 2]);
    press(&mut model, Action::SortBeside(-1));
    assert_eq!(model.listing.column(&model.frame), Column::Pid);
    press(&mut model, Action::SortBy(Column::Pid));
    assert_eq!(pids(&model), [2, 1], "the same key again reverses");
}

#[test]
fn details_stay_with_a_worker_that_ended() {
    let mut model = model(&[(1, 0.9), (2, 0.1)]);
    press(&mut model, Action::Details);
    let Screen::Details(key) = model.screen else {
        panic!("{:?}", model.screen);
    };
    assert_eq!(key.pid, 1);
    model.take(snapshot(3.0, &[(2, 0.1)]), Instant::now());
    assert_eq!(model.screen, Screen::Details(key));
    assert!(model.find(key).is_none());
    press(&mut model, Action::Back);
    assert_eq!(model.screen, Screen::Table);
}

#[test]
fn the_same_sample_again_keeps_the_rates() {
    let mut model = model(&[(1, 0.5)]);
    model.take(snapshot(2.0, &[(1, 0.5)]), Instant::now());
    assert_eq!(model.frame.workers[0].usage.cpu_percent, Some(50.0));
}

#[test]
fn a_lost_connection_is_told_until_it_is_back() {
    let mut model = model(&[(1, 0.5)]);
    model.lose("no answer");
    assert_eq!(model.lost.as_deref(), Some("no answer"));
    let later = model.since + Duration::from_secs(7);
    assert_eq!(model.age(later), Duration::from_secs(7));
    model.take(snapshot(3.0, &[(1, 0.6)]), later);
    assert_eq!(
        (model.lost.is_none(), model.age(later)),
        (true, Duration::ZERO)
    );
}
