//! Which processes have series of their own: never more than the limit, the important first, and
//! the same ones from scrape to scrape.

use std::collections::BTreeSet;
use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::thread;
use std::time::Duration;

use anyhow::{Result, ensure};
use esnode_tests::agent::Agent;
use esnode_tests::container::Container;
use esnode_tests::gpu::{FakeNvml, host};
use esnode_tests::page::Page;
use esnode_tests::puppet::{Child, Programs, Puppet};
use esnode_tests::skip;
use esnode_tests::workload::{Name, Workload};
use nix::unistd::geteuid;

use crate::Case;
use crate::check::{ensure_eq, within_grace};
use crate::gpu::{device_with, holder};

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = vec![
        Case::alone("selection::order_of_claims", order),
        Case::new("selection::more_holders_than_the_limit", many_holders),
        Case::new("selection::counted", counted),
        Case::alone("selection::equals_do_not_take_turns", equals),
        Case::alone("selection::crowd_stays_outside", crowd),
    ];
    for field in ["comm", "cmdline", "cgroup", "user", "container"] {
        cases.push(Case::new(format!("selection::by_{field}"), move || {
            by(field)
        }));
    }
    cases
}

/// How long a process has to be there to come before younger ones, and a little more.
const GROWN: Duration = Duration::from_secs(12);

/// Flags of an agent that reads little else.
const FEW: [&str; 3] = ["--no-bpf", "--collectors", "gpu,process"];

/// The processes that a page has series of.
fn shown(page: &Page) -> Result<BTreeSet<u32>> {
    let pids = page.label_values("esnode_process_info", &[], "pid");
    let pids: BTreeSet<u32> = pids.into_iter().map(str::parse).collect::<Result<_, _>>()?;
    let samples = page.samples();
    let everywhere = samples
        .filter(|sample| sample.name.starts_with("esnode_process_"))
        .filter_map(|sample| sample.labels.get("pid"));
    for pid in everywhere {
        ensure!(pids.contains(&pid.parse()?), "series of {pid} without info");
    }
    let selected = page.count("esnode_processes", &[("selected", "true")])?;
    ensure_eq!(selected, Some(pids.len() as u64), "selected ones");
    Ok(pids)
}

/// A server, a worker and a child of that, and what else runs on a host.
struct Host {
    server: Puppet,
    worker: Child,
    child: Child,
    holder: Workload,
    wanted: Workload,
    busy: Workload,
}

impl Host {
    fn start(programs: &Programs) -> Result<Self> {
        let title = programs.get("vllm")?.to_string_lossy().into_owned();
        let mut server = Puppet::start(programs, "vllm", &title, &["serve", "org/select"])?;
        let worker = programs.get("VLLM::Worker_TP")?;
        let mut worker = server.spawn(&worker, "VLLM::Worker_TP0", &[])?;
        let tool = programs.get("select-tool")?;
        let child = server.spawn_from(&mut worker, &tool, "select-tool", &[])?;
        Ok(Self {
            server,
            worker,
            child,
            holder: Workload::run(&Name::new("holder")?, &["idle"])?,
            wanted: Workload::run(&Name::exact("select-wanted".as_ref())?, &["idle"])?,
            busy: Workload::run(&Name::new("busy")?, &["cpu", "3000"])?,
        })
    }
}

/// GPUs, then recognised workers, their children, what a rule names, and who is busy.
fn order() -> Result<()> {
    let programs = Programs::new("order-of-claims")?;
    let it = Host::start(&programs)?;
    let name = Name::new("idle")?;
    let idle: Vec<_> = (0..40)
        .map(|_| Workload::run(&name, &["idle"]))
        .collect::<Result<_>>()?;
    let fake = FakeNvml::new(&host(&[device_with(&[holder(it.holder.pid())])]))?;
    thread::sleep(GROWN);
    let workers = BTreeSet::from([it.server.root.pid(), it.worker.pid]);
    let wanted = [it.holder.pid(), 0, 0, it.child.pid, it.wanted.pid()];
    for limit in 0..=5_usize {
        let limit_text = limit.to_string();
        let flags = ["--process-limit", &limit_text, "--select", "select-wanted"];
        let agent = fake.start(&[&FEW[..], &flags].concat())?;
        let mut expected: BTreeSet<u32> = wanted.iter().take(limit).copied().collect();
        expected.remove(&0);
        if limit >= 3 {
            expected.extend(&workers);
        }
        within_grace(|| {
            let seen = shown(&agent.page()?)?;
            ensure_eq!(seen.len(), limit, "processes with series");
            ensure!(seen.is_superset(&expected), "{expected:?} of {seen:?}");
            let of_workers = seen.intersection(&workers).count();
            ensure_eq!(of_workers, limit.saturating_sub(1).min(2), "workers");
            Ok(())
        })?;
    }
    // With room for more, who is busy.
    let agent = fake.start(&[&FEW[..], &["--process-limit", "32"]].concat())?;
    agent.page()?;
    let more = Workload::run(&Name::new("busy")?, &["cpu", "2000"])?;
    within_grace(|| {
        let seen = shown(&agent.page()?)?;
        ensure_eq!(seen.len(), 32, "processes with series");
        ensure!(seen.contains(&it.busy.pid()), "the busy one of {seen:?}");
        ensure!(!seen.contains(&more.pid()), "a young one of {seen:?}");
        Ok(())
    })?;
    drop(idle);
    Ok(())
}

/// Also who is on a GPU has a place only within the limit.
fn many_holders() -> Result<()> {
    let name = Name::new("holder")?;
    let all: Vec<_> = (0..6)
        .map(|_| Workload::run(&name, &["idle"]))
        .collect::<Result<_>>()?;
    let entries: Vec<_> = all.iter().map(|it| holder(it.pid())).collect();
    let fake = FakeNvml::new(&host(&[device_with(&entries)]))?;
    let agent = fake.start(&[&FEW[..], &["--process-limit", "4"]].concat())?;
    let pids: BTreeSet<u32> = all.iter().map(Workload::pid).collect();
    let first = within_grace(|| {
        let page = agent.page()?;
        let seen = shown(&page)?;
        ensure_eq!(seen.len(), 4, "processes with series");
        ensure!(seen.is_subset(&pids), "{seen:?} of {pids:?}");
        let memory = "esnode_process_gpu_memory_used_bytes";
        ensure_eq!(page.select(memory, &[]).len(), 4, "series of memory");
        Ok(seen)
    })?;
    for _ in 0..20 {
        ensure_eq!(shown(&agent.page()?)?, first, "the same ones");
    }
    // All of them are in the group.
    let labels = [("group", name.comm.as_str())];
    let page = agent.page()?;
    let memory = page.count("esnode_group_gpu_memory_used_bytes", &labels)?;
    ensure_eq!(memory, Some(6 << 30), "memory of the group");
    Ok(())
}

/// Every live process is either selected or not.
fn counted() -> Result<()> {
    let agent = Agent::start(&["--process-limit", "7"])?;
    for _ in 0..5 {
        let page = agent.page()?;
        ensure_eq!(shown(&page)?.len(), 7, "processes with series");
        let hidden = page.count("esnode_processes", &[("selected", "false")])?;
        let all = page.count("esnode_group_processes", &[])?.unwrap_or(0);
        ensure_eq!(hidden, Some(all - 7), "processes without series");
        ensure!(all > 20, "{all} processes on this machine");
    }
    Ok(())
}

/// Thirty processes that do the same, and places for ten.
fn equals() -> Result<()> {
    const SCRAPES: usize = 40;
    let name = Name::new("equal")?;
    let mut all: Vec<_> = (0..30)
        .map(|_| {
            let mut workload = Workload::start(&name, &["ticks"])?;
            workload.wait_for("at ticks")?;
            Ok(workload)
        })
        .collect::<Result<_>>()?;
    let flags = [
        "--process-limit",
        "10",
        "--select",
        &format!("^{}$", name.comm),
    ];
    let agent = Agent::start(&flags)?;
    thread::sleep(GROWN);
    let mut last = shown(&agent.page()?)?;
    let (mut changes, mut once) = (0, last.clone());
    for _ in 0..SCRAPES {
        thread::sleep(Duration::from_millis(250));
        let now = shown(&agent.page()?)?;
        ensure_eq!(now.len(), 10, "processes with series");
        changes += now.difference(&last).count();
        once.extend(&now);
        last = now;
    }
    ensure!(changes <= 3, "{changes} changes: {} had series", once.len());
    all.clear();
    Ok(())
}

/// Those that will be gone soon do not take the places of those that stay.
fn crowd() -> Result<()> {
    let name = Name::new("stay")?;
    let all: Vec<_> = (0..12)
        .map(|_| Workload::run(&name, &["idle"]))
        .collect::<Result<_>>()?;
    thread::sleep(GROWN);
    let agent = Agent::start(&["--process-limit", "8"])?;
    let mut storm = Workload::start(&Name::new("storm")?, &["storm"])?;
    storm.wait_for("at storm")?;
    let first = shown(&agent.page()?)?;
    let mut newcomers: BTreeSet<u32> = BTreeSet::new();
    for _ in 0..40 {
        thread::sleep(Duration::from_millis(100));
        newcomers.extend(shown(&agent.page()?)?.difference(&first));
    }
    storm.release()?;
    ensure!(newcomers.len() <= 2, "{newcomers:?} came after {first:?}");
    drop(all);
    Ok(())
}

/// A process that one rule names has series, however idle it is.
fn by(field: &str) -> Result<()> {
    let name = Name::new("sel")?;
    let mut container = None;
    let (mut puppet, value) = match field {
        "comm" => (start(&name, &[])?, format!("^{}$", name.comm)),
        "cmdline" => (
            start(&name, &["serve", "by-cmdline"])?,
            "serve by-cmd".into(),
        ),
        "user" => {
            if !geteuid().is_root() {
                skip!("needs root to become another user");
            }
            let mut command = Command::new(&name.path);
            command.uid(4_242);
            (Workload::launch(command)?, "4242".into())
        }
        _ => {
            let made = container.insert(Container::new()?);
            let value = if field == "cgroup" {
                format!("/docker/{}", made.short())
            } else {
                made.short().to_owned()
            };
            (
                Workload::launch(made.command::<&str>(&name.path, &[]))?,
                value,
            )
        }
    };
    puppet.order("send 100")?;
    let rule = format!("{field}={value}");
    let flags = [&FEW[..], &["--process-limit", "100000", "--select", &rule]].concat();
    let wide = Agent::start(&flags)?;
    ensure!(shown(&wide.page()?)?.contains(&puppet.pid()), "not at all");
    // Workers of other tests may be there, and come first.
    let engines = |page: &Page| {
        let all = page.select("esnode_process_info", &[]);
        let work = all
            .iter()
            .filter(|it| it.labels.get("engine").is_some_and(|it| !it.is_empty()));
        work.count()
    };
    let limit = (engines(&wide.page()?) + 3).to_string();
    let chosen = |select: &[&str]| -> Result<bool> {
        let flags = [&FEW[..], &["--process-limit", &limit], select].concat();
        let agent = Agent::start(&flags)?;
        Ok(shown(&agent.page()?)?.contains(&puppet.pid()))
    };
    ensure!(chosen(&["--select", &rule])?, "{rule} doesn't bring it in");
    let other = format!("{field}=^no-such-{field}$");
    ensure!(!chosen(&["--select", &other])?, "it is there by {other}");
    Ok(())
}

fn start(name: &Name, words: &[&str]) -> Result<Workload> {
    let mut command = Command::new(&name.path);
    command.args(words);
    Workload::launch(command)
}
