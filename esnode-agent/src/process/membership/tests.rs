use super::*;
use crate::{
    identity::{container::cgroup, engine::Worker},
    process::{Key, ledger::KernelLedger},
};
use std::path::Path;

const ID: &str = "1f2e3d4c5b6a79880716253443526170a1b2c3d4e5f60718293a4b5c6d7e8f90";
const SHORT: &str = "1f2e3d4c5b6a";

fn command(text: &str) -> Name {
    let mut bytes = [0; 16];
    bytes[..text.len()].copy_from_slice(text.as_bytes());
    Name::from_bytes(bytes)
}

fn process(pid: u32, group: Name) -> Process {
    Process {
        key: Key {
            pid,
            start_nanoseconds: 1,
        },
        name: command("python3"),
        group,
        ..Process::default()
    }
}

fn in_container(path: &str) -> Identity {
    Identity {
        cgroup: cgroup::parse(&format!("0::{path}\n")).map(Arc::new),
        ..Identity::default()
    }
}

fn by(by: GroupBy) -> Membership {
    Membership::new(by, None, 8)
}

#[test]
fn engines_and_models_have_a_group_each() {
    let worker = |model: Option<&str>| Identity {
        worker: Some(Arc::new(Worker {
            engine: "vllm".into(),
            role: "worker".into(),
            rank: None,
            model: model.map(Arc::from),
            server: None,
        })),
        ..Identity::default()
    };
    let mut membership = by(GroupBy::Engine);
    let one = process(1, command("python3"));
    let group = membership.of(&one, &worker(Some("org/model")));
    assert_eq!(&*membership.text(group), "vllm/org/model");
    assert_eq!(membership.of(&one, &worker(Some("org/model"))), group);
    let unknown = membership.of(&one, &worker(None));
    assert_eq!(&*membership.text(unknown), "vllm");
    let other = membership.of(&one, &Identity::default());
    assert_eq!((other, &*membership.text(other)), (one.name, "python3"));
}

#[test]
fn rules_name_what_they_match_and_the_rest_is_other() {
    let text = "process_names:\n- name: shells\n  comm: [bash]\n";
    let config = Config::parse(Path::new("f"), text).expect("valid");
    let mut membership = Membership::new(GroupBy::Rules, Some(Arc::new(config)), 8);
    let named = Identity {
        rule: Some("shells".into()),
        ..Identity::default()
    };
    let one = process(1, command("bash"));
    let group = membership.of(&one, &named);
    assert_eq!(&*membership.text(group), "shells");
    let rest = membership.of(&one, &Identity::default());
    assert_eq!(&*membership.text(rest), OTHER);
    // Of those that ended unseen, the command name is known.
    assert_eq!(&*membership.text(command("bash")), "shells");
    assert_eq!(&*membership.text(command("dash")), OTHER);
}

#[test]
fn groups_beyond_the_limit_are_other() {
    let mut membership = by(GroupBy::Container);
    let one = process(1, command("a"));
    let groups: Vec<_> = (0..9_u8)
        .map(|number| {
            let id = format!("{number:02x}").repeat(32);
            membership.of(&one, &in_container(&format!("/docker/{id}")))
        })
        .collect();
    // Three are always there.
    let texts = groups.iter().map(|group| membership.text(*group));
    let other = texts.filter(|text| &**text == OTHER).count();
    assert_eq!(other, 9 - (8 - 3));
}

#[test]
fn a_container_without_processes_is_gone_after_a_while() {
    let mut membership = by(GroupBy::Container);
    let (outer, inner, host) = (Name::of_cgroup(7), Name::of_cgroup(8), Name::of_cgroup(1));
    let path = format!("/docker/{ID}");
    assert_eq!(&*membership.text(outer), GONE);
    assert!(membership.learn(&process(1, outer), &in_container(&path)));
    assert!(!membership.learn(&process(1, outer), &in_container(&path)));
    assert!(membership.learn(&process(2, inner), &in_container(&(path + "/init.scope"))));
    assert!(membership.learn(&process(3, host), &in_container("/user.slice")));
    for name in [outer, inner] {
        assert_eq!(&*membership.text(name), SHORT);
    }
    assert_eq!(&*membership.text(host), HOST);

    let begin = Instant::now();
    let after = |seconds| begin + Duration::from_secs(seconds);
    // As long as one of its control groups has a process, it lives.
    for second in [0, 100, 200, 300] {
        let retired = membership.retire(
            &[process(2, inner), process(3, host)],
            &[],
            after(second),
            |_| false,
        );
        assert!(retired.folded.is_empty());
    }
    let only_host = [process(3, host)];
    for second in [301, 302, 303] {
        assert!(
            membership
                .retire(&only_host, &[], after(second), |_| false)
                .folded
                .is_empty()
        );
    }
    let mut retired = membership.retire(&only_host, &[], after(423), |_| false);
    retired.folded.sort_unstable();
    let gone = Membership::gone();
    assert_eq!(retired.folded, [(outer, gone), (inner, gone)]);
    assert_eq!(retired.texts, [Arc::from(SHORT)]);
    assert_eq!(&*membership.text(outer), GONE);
    // What is left of the host's control groups stays with the host.
    for second in [430, 500, 600] {
        membership.retire(&[], &[], after(second), |_| false);
    }
    assert_eq!(&*membership.text(Name::of_number(HOST_NUMBER)), HOST);
    assert_eq!(membership.texts.len(), 3);
    assert!(membership.idle.is_empty());
}

#[test]
fn the_last_numbers_are_shown_however_rarely_someone_looks() {
    let mut membership = by(GroupBy::Container);
    let name = Name::of_cgroup(7);
    let identity = in_container(&format!("/docker/{ID}"));
    membership.learn(&process(1, name), &identity);
    let begin = Instant::now();
    membership.retire(&[process(1, name)], &[], begin, |_| false);
    for hours in 1..=2 {
        let retired = membership.retire(&[], &[], begin + Duration::from_hours(hours), |_| false);
        assert!(retired.folded.is_empty());
    }
    let retired = membership.retire(&[], &[], begin + Duration::from_hours(3), |_| false);
    assert_eq!(retired.folded.len(), 1);
}

#[test]
fn what_was_taken_for_gone_stays_there() {
    // As the collector does it when it learns whose a control group is.
    let name = Name::of_cgroup(7);
    let mut ledger = KernelLedger::default();
    let group = |cpu_nanoseconds| {
        let mut group = crate::process::Group::of(name);
        group.usage.cpu_nanoseconds = cpu_nanoseconds;
        group
    };
    ledger.complete(&mut vec![group(5)], &[]);
    ledger.leave_past(name, Membership::gone());
    let mut groups = vec![group(8)];
    ledger.complete(&mut groups, &[]);
    groups.sort_by_key(|group| group.usage.cpu_nanoseconds);
    let sums = groups.iter().map(|it| (it.name, it.usage.cpu_nanoseconds));
    let sums: Vec<_> = sums.collect();
    assert_eq!(sums, [(name, 3), (Membership::gone(), 5)]);
}

#[test]
fn what_nobody_saw_alive_makes_room_at_once() {
    let mut membership = by(GroupBy::Container);
    let (unseen, alive) = (Name::of_cgroup(7), Name::of_cgroup(8));
    // Of the second, nobody has been able to read whose it is, but it lives.
    let known = [unseen, alive, Membership::gone(), command("a")];
    let retired = membership.retire(&[process(1, alive)], &known, Instant::now(), |_| false);
    assert_eq!(retired.folded, [(unseen, Membership::gone())]);
    assert!(retired.texts.is_empty());
}
