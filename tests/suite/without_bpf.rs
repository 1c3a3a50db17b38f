//! The rungs that need no BPF: each test names those it must land on, and nothing that they can't
//! know is on the page, not even as a zero.

use std::fs;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use esnode_tests::agent::{self, Agent};
use esnode_tests::page::Page;
use esnode_tests::skip;
use esnode_tests::tally::{Io, Protocol, Tally};
use esnode_tests::workload::{self, Name, Workload};
use nix::unistd::geteuid;

use crate::Case;
use crate::check::{Calls, check_gone, ensure_eq, group, process, unattributed, within_grace};
use crate::fallback::need_open_binary;

/// A user who owns nothing.
const NOBODY: u32 = 65_534;

/// Bytes to send, and how many of them to receive.
const TRANSMIT: u64 = 1_000_003;
const RECEIVE: u64 = 995_000;

const METHODS: &[&str] = &[
    "send",
    "write",
    "writev",
    "sendmsg",
    "sendmmsg",
    "sendfile",
    "splice",
    "splice-out",
    "io_uring",
    "io_uring-async",
];

/// A test by itself.
type Run = fn() -> Result<()>;

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for method in METHODS {
        for transport in ["tcp4", "tcp6", "tcp4in6"] {
            let name = format!("without_bpf::{}::{transport}", method.replace('-', "_"));
            cases.push(Case::new(name, move || {
                exact(&[
                    "move",
                    method,
                    transport,
                    &TRANSMIT.to_string(),
                    &RECEIVE.to_string(),
                ])
            }));
        }
    }
    for (case, transmit) in [
        ("peek", "20000"),
        ("eagain", "20000"),
        ("partial", "0"),
        ("zerocopy", "1000003"),
    ] {
        for transport in ["tcp4", "tcp6"] {
            let name = format!("without_bpf::{case}::{transport}");
            cases.push(Case::new(name, move || {
                exact(&["special", case, transport, transmit])
            }));
        }
    }
    let more: [(&str, Run); 19] = [
        ("mptcp4", multipath),
        ("end_of_stream_is_no_byte", || {
            exact(&["half-closed", "50000"])
        }),
        ("slow_peer", || exact(&["slow-peer"])),
        ("other_network_namespace", || {
            exact(&["in-namespace", "move", "send", "tcp4", "1000003", "995000"])
        }),
        ("connections_come_and_go", come_and_go),
        ("connections_nobody_saw_are_nobodys", unseen),
        ("inherited_socket_counts_once", inherited),
        ("older_sockets_count_from_the_start", older),
        ("udp_and_unix_are_absent", absent_protocols),
        ("five_thousand_between_two_scrapes", short_lived),
        ("end_gives_the_rest", rest_at_the_end),
        ("cpu_of_the_ended", cpu_of_the_ended),
        ("ignored_children_are_not_inherited", reaped_child),
        ("threads_belong_to_their_process", threads),
        ("rungs_can_be_left_out", left_out),
        ("fork_storm_never_fails", storm),
        ("hidepid", hidepid),
        ("user_namespace", user_namespace),
        ("container_with_only_proc", only_proc),
    ];
    for (name, run) in more {
        cases.push(Case::new(format!("without_bpf::{name}"), run));
    }
    cases
}

/// Fails where a signal is on another rung.
pub(crate) fn check_rungs(page: &Page, rungs: [&str; 3]) -> Result<()> {
    for (signal, rung) in ["process_table", "ended_processes", "network"]
        .into_iter()
        .zip(rungs)
    {
        let seen = page.label_values("esnode_attribution_source", &[("signal", signal)], "source");
        ensure!(
            seen.len() == 1 && seen.contains(rung),
            "the source of {signal} is {seen:?}, not {rung}"
        );
    }
    check_honest(page, rungs)
}

/// Fails where something is on the page that these rungs can't know.
fn check_honest(page: &Page, [_, ended, network]: [&str; 3]) -> Result<()> {
    for family in &page.families {
        let name = family.name.as_str();
        let moved = name.contains("_network_receive") || name.contains("_network_transmit");
        let of_processes = name.starts_with("esnode_process_") || name.starts_with("esnode_group_");
        let made_up = match network {
            "none" => moved && of_processes,
            "sock_diag" => {
                (name.contains("network_receives") || name.contains("network_transmits"))
                    || (moved && of_processes && !family.samples.iter().all(is_tcp))
            }
            _ => false,
        };
        ensure!(!made_up, "nobody can know this here: {family:?}");
        ensure!(!name.starts_with("esnode_bpf_"), "without BPF: {family:?}");
    }
    let overruns = page.value("esnode_listener_overruns_total", &[("source", "taskstats")]);
    ensure_eq!(
        overruns,
        (ended == "taskstats").then_some(0.0),
        "records lost by taskstats"
    );
    Ok(())
}

fn is_tcp(sample: &esnode_tests::page::Sample) -> bool {
    sample.has(&[("protocol", "tcp")])
}

/// The rungs of root on a kernel that has everything but BPF.
const BEST: [&str; 3] = ["procfs", "taskstats", "sock_diag"];

/// An agent without BPF that shows every workload.
fn start(flags: &[&str]) -> Result<Agent> {
    if !geteuid().is_root() {
        skip!("needs root to read what others use");
    }
    let select = workload::select_all();
    let mut all = vec!["--no-bpf", "--select", &select, "--group-limit", "100000"];
    all.extend(flags);
    Agent::start(&all)
}

/// Reads the page, which must be on the best rungs.
fn best_page(agent: &Agent) -> Result<Page> {
    let page = agent.page()?;
    check_rungs(&page, BEST)?;
    Ok(page)
}

/// Live sockets: the page says what the system calls returned.
fn exact(command: &[&str]) -> Result<()> {
    let agent = start(&[])?;
    best_page(&agent)?;
    let name = Name::new("tcp")?;
    let workload = Workload::run(&name, command)?;
    let tally = workload.report.total();
    ensure!(
        tally.of(Protocol::Tcp).transmit_bytes > 0,
        "nothing was sent"
    );
    let pid = workload.pid().to_string();
    let alive = best_page(&agent)?;
    let labels = [("pid", pid.as_str()), ("comm", &name.comm)];
    process(&alive, &labels).check_moved(&tally, Calls::Any)?;
    let check = |page: &Page| group(page, &[("group", &name.comm)]).check_moved(&tally, Calls::Any);
    check(&alive).context("while it lives")?;
    workload.release()?;
    let gone = best_page(&agent)?;
    check_gone(&gone, &pid, &name.comm)?;
    check(&gone).context("when it has ended")?;
    // The kernel tells of the freed sockets; nobody gets these bytes again.
    thread::sleep(Duration::from_millis(100));
    check(&best_page(&agent)?).context("some time later")
}

/// Multipath TCP: what has arrived at the process counts as received, read or not.
fn multipath() -> Result<()> {
    let agent = start(&[])?;
    let name = Name::new("tcp")?;
    let words = [
        "move",
        "send",
        "mptcp4",
        &TRANSMIT.to_string(),
        &RECEIVE.to_string(),
    ];
    let workload = Workload::run(&name, &words)?;
    let page = best_page(&agent)?;
    let seen = group(&page, &[("group", &name.comm)]).moved(Protocol::Tcp)?;
    ensure_eq!(seen.transmit_bytes, TRANSMIT, "sent");
    ensure!(
        (RECEIVE..=TRANSMIT).contains(&seen.receive_bytes),
        "received: {seen:?}"
    );
    workload.release()?;
    Ok(())
}

/// What was seen once is counted to its end, and never less than before.
fn come_and_go() -> Result<()> {
    const COUNT: u64 = 8;
    const BYTES: u64 = 30_000;
    let agent = start(&[])?;
    let name = Name::new("conn")?;
    let words = ["connections", &COUNT.to_string(), &BYTES.to_string()];
    let mut workload = Workload::start(&name, &words)?;
    let pid = workload.pid().to_string();
    let mut last = best_page(&agent)?;
    for round in 0..COUNT {
        for (stage, bytes) in [("open", BYTES), ("closed", 2 * BYTES)] {
            workload.wait_for(&format!("at {stage}"))?;
            let expected = round * 2 * BYTES + bytes;
            within_grace(|| {
                let page = best_page(&agent)?;
                for series in [
                    process(&page, &[("pid", &pid), ("comm", &name.comm)]),
                    group(&page, &[("group", &name.comm)]),
                ] {
                    let seen = series.moved(Protocol::Tcp)?;
                    let seen = (seen.transmit_bytes, seen.receive_bytes);
                    ensure_eq!(seen, (expected, expected), "{stage} {round}");
                }
                Ok(())
            })?;
            let page = best_page(&agent)?;
            page.check_monotonic(&last, "esnode_group_")?;
            page.check_monotonic(&last, "esnode_unattributed_")?;
            last = page;
            workload.go_on()?;
        }
    }
    workload.release()?;
    Ok(())
}

/// Connections that come and go between two scrapes are counted, as nobody's.
fn unseen() -> Result<()> {
    const COUNT: u64 = 300;
    const BYTES: u64 = 5_000;
    let agent = start(&[])?;
    let name = Name::new("conn")?;
    let words = ["unseen-connections", &COUNT.to_string(), &BYTES.to_string()];
    let mut workload = Workload::start(&name, &words)?;
    workload.wait_for("at start")?;
    let before = best_page(&agent)?;
    workload.go_on()?;
    workload.wait_for("done")?;
    within_grace(|| {
        let after = best_page(&agent)?;
        let moved = group(&after, &[("group", &name.comm)]).moved(Protocol::Tcp)?;
        for (signal, moved) in [
            ("network_receive", moved.receive_bytes),
            ("network_transmit", moved.transmit_bytes),
        ] {
            let nobody = unattributed(&after, signal)? - unattributed(&before, signal)?;
            // Others may have connections as well.
            ensure!(
                moved + nobody >= COUNT * BYTES,
                "{signal}: {moved} and nobody's {nobody}"
            );
        }
        Ok(())
    })?;
    workload.release()?;
    Ok(())
}

/// Of two processes the older one has a socket, and when that has closed it, the other.
fn inherited() -> Result<()> {
    const BYTES: u64 = 40_000;
    const MORE: u64 = 70_000;
    let agent = start(&["--select", "^heir$"])?;
    let name = Name::new("heir")?;
    let words = ["inherited", &BYTES.to_string(), &MORE.to_string()];
    let mut workload = Workload::start(&name, &words)?;
    let parent = workload.pid().to_string();
    let mut child = String::new();
    for (stage, own, other) in [
        ("shared", BYTES, 0),
        ("used", 2 * BYTES, 0),
        ("handed", 2 * BYTES, MORE),
    ] {
        workload.wait_for(&format!("at {stage}"))?;
        if child.is_empty() {
            child = workload.report.fact("child")?.to_string();
        }
        let page = best_page(&agent)?;
        for (pid, expected) in [(&parent, own), (&child, other)] {
            let seen = process(&page, &[("pid", pid)]).moved(Protocol::Tcp)?;
            let seen = (seen.transmit_bytes, seen.receive_bytes);
            ensure_eq!(seen, (expected, expected), "{stage}: process {pid}");
        }
        workload.go_on()?;
    }
    workload.release()?;
    Ok(())
}

/// What was moved before the agent began doesn't count; what the same sockets move later does.
fn older() -> Result<()> {
    const BYTES: u64 = 30_000;
    let name = Name::new("conn")?;
    let mut workload = Workload::start(&name, &["connections", "1", &BYTES.to_string()])?;
    workload.wait_for("at open")?;
    let agent = start(&[])?;
    let labels = [("group", name.comm.as_str())];
    let moved = |page: &Page| -> Result<u64> {
        Ok(group(page, &labels).moved(Protocol::Tcp)?.transmit_bytes)
    };
    ensure_eq!(moved(&best_page(&agent)?)?, 0, "before the agent began");
    workload.go_on()?;
    workload.wait_for("at closed")?;
    within_grace(|| {
        ensure_eq!(moved(&best_page(&agent)?)?, BYTES, "since then");
        Ok(())
    })?;
    workload.go_on()?;
    workload.release()?;
    Ok(())
}

/// Protocols that this rung doesn't know have no series.
fn absent_protocols() -> Result<()> {
    let agent = start(&[])?;
    for transport in ["udp4", "stream"] {
        let name = Name::new("udp")?;
        let words = ["move", "send", transport, "100000", "100000"];
        let workload = Workload::run(&name, &words)?;
        let page = best_page(&agent)?;
        let labels = [("group", name.comm.as_str())];
        let seen = group(&page, &labels);
        seen.check_moved(&Tally::default(), Calls::Any)?;
        ensure!(seen.number("_processes")? == 1, "the group isn't there");
        workload.release()?;
    }
    Ok(())
}

/// Processes that nobody saw: their disk bytes and their number.
fn short_lived() -> Result<()> {
    const COUNT: u64 = 5_000;
    const WRITTEN: u64 = 64 * 1024;
    let agent = start(&[])?;
    let name = Name::new("short")?;
    let directory = name.file(".d");
    fs::create_dir(&directory)?;
    let mut workload = Workload::start(
        &name,
        &[
            "short-lived",
            &COUNT.to_string(),
            "100",
            &WRITTEN.to_string(),
            &directory.to_string_lossy(),
        ],
    )?;
    workload.wait_for("at start")?;
    let before = best_page(&agent)?;
    workload.go_on()?;
    workload.wait_for("done")?;
    let after = best_page(&agent)?;
    let labels = [("group", name.comm.as_str())];
    let (before, after) = (group(&before, &labels), group(&after, &labels));
    for counter in ["_started_total", "_exited_total"] {
        let moved = after.number(counter)? - before.number(counter)?;
        ensure_eq!(moved, COUNT, "{counter} moved by");
    }
    ensure_eq!(after.number("_processes")?, 1, "processes alive");
    let children = workload.report.io_at("children")?;
    ensure!(
        children.write_bytes >= COUNT * WRITTEN,
        "the children wrote {children:?}"
    );
    // The kernel adds a child's account to the one that reaps it: what the parent has is the sum.
    after.check_io(Io::of(workload.pid())?)?;
    fs::remove_dir_all(&directory)?;
    Ok(())
}

/// What a process does after the last scrape, and in one that nobody saw.
fn rest_at_the_end() -> Result<()> {
    let agent = start(&[])?;
    for (case, scraped) in [
        ("write", true),
        ("write", false),
        ("direct-write", true),
        ("truncate", false),
        ("overwrite", true),
    ] {
        let name = Name::new("disk")?;
        let file = name.file(".data").to_string_lossy().into_owned();
        let words = ["disk-exec", &file, "1048576", &name.path.to_string_lossy()];
        let rest = ["--hold", "disk", case, &file, "2097152"];
        let words: Vec<_> = words.into_iter().chain(rest).collect();
        let mut workload = Workload::start(&name, &words)?;
        if scraped {
            best_page(&agent)?;
        }
        workload.wait_for("done")?;
        let last = workload.release()?.io()?;
        let page = best_page(&agent)?;
        let labels = [("group", name.comm.as_str())];
        let seen = group(&page, &labels);
        seen.check_io(last)
            .with_context(|| format!("{case}, seen before its end: {scraped}"))?;
        ensure_eq!(
            (
                seen.number("_started_total")?,
                seen.number("_exited_total")?
            ),
            (1, 1),
            "{case}: started, exited"
        );
        fs::remove_file(&file)?;
    }
    Ok(())
}

/// CPU time of a thread and of a child that nobody saw.
fn cpu_of_the_ended() -> Result<()> {
    let agent = start(&[])?;
    best_page(&agent)?;
    let name = Name::new("cpu")?;
    let workload = Workload::run(&name, &["cpu", "400"])?;
    let used = workload.report.fact("cpu_microseconds")?;
    workload.release()?;
    let page = best_page(&agent)?;
    let labels = [("group", name.comm.as_str())];
    let seen = page
        .value("esnode_group_cpu_seconds_total", &labels)
        .context("no CPU time")?;
    #[expect(clippy::cast_precision_loss, reason = "less than a second")]
    let used = used as f64 / 1e6;
    // The kernel's own sum ends before the process does.
    ensure!(
        (used - 0.005..used + 0.1).contains(&seen),
        "used {used} s, on the page {seen} s"
    );
    ensure_eq!(group(&page, &labels).number("_exited_total")?, 2, "exited");
    Ok(())
}

/// A child's bytes are its own, whether or not the kernel adds them to the parent's.
fn reaped_child() -> Result<()> {
    let agent = start(&[])?;
    crate::disk::reaped_child(&agent, |seen, truth| seen == truth)
}

/// Threads with names of their own, that ended, in a process that nobody saw.
fn threads() -> Result<()> {
    let agent = start(&[])?;
    let before = best_page(&agent)?;
    let name = Name::new("thr")?;
    let file = name.file(".data");
    let length = 16 * 1024 * 1024;
    fs::write(&file, vec![b'x'; length])?;
    let words = ["disk", "thread-read", &file.to_string_lossy(), "16777216"];
    let workload = Workload::run(&name, &words)?;
    let last = workload.release()?.io()?;
    let page = best_page(&agent)?;
    let labels = [("group", name.comm.as_str())];
    group(&page, &labels).check_io(last)?;
    ensure_eq!(group(&page, &labels).number("_exited_total")?, 1, "exited");
    let nobody = unattributed(&page, "disk_read")? - unattributed(&before, "disk_read")?;
    ensure_eq!(nobody, 0, "disk bytes of nobody");
    fs::remove_file(&file)?;
    Ok(())
}

/// Each rung can be refused alone, and takes nothing else with it.
fn left_out() -> Result<()> {
    for (without, rungs) in [
        ("sock_diag", ["procfs", "taskstats", "none"]),
        ("taskstats", ["procfs", "none", "sock_diag"]),
        ("taskstats,sock_diag", ["procfs", "none", "none"]),
    ] {
        let agent = start(&["--without", without])?;
        check_rungs(&agent.page()?, rungs).with_context(|| format!("--without {without}"))?;
        let log = agent.log.lines().join("\n");
        for rung in without.split(',') {
            ensure!(
                log.contains(&format!("not read from {rung}:")),
                "the log doesn't say that {rung} is left out"
            );
        }
    }
    Ok(())
}

/// Processes vanish while they are read.
fn storm() -> Result<()> {
    let agent = start(&[])?;
    let name = Name::new("storm")?;
    let mut workload = Workload::start(&name, &["storm"])?;
    workload.wait_for("at storm")?;
    let mut last = best_page(&agent)?;
    for _ in 0..40 {
        let page = best_page(&agent)?;
        ensure_eq!(
            page.value("esnode_collector_success", &[("collector", "process")]),
            Some(1.0),
            "the process collector"
        );
        ensure_eq!(
            page.value("esnode_processes_malformed", &[]),
            Some(0.0),
            "malformed"
        );
        page.check_monotonic(&last, "esnode_group_")?;
        last = page;
    }
    let forks = workload.release()?.report.fact("forks")?;
    let page = best_page(&agent)?;
    let labels = [("group", name.comm.as_str())];
    // The storm itself began after the agent did.
    ensure_eq!(
        group(&page, &labels).number("_started_total")?,
        forks + 1,
        "started"
    );
    ensure_eq!(
        group(&page, &labels).number("_exited_total")?,
        forks + 1,
        "exited"
    );
    Ok(())
}

/// Starts an agent with these flags behind a command that changes its surroundings, in a mount
/// namespace of its own; these are the tools that it takes.
fn surrounded(prelude: &str, flags: &str, tools: &[&str]) -> Result<Agent> {
    if !geteuid().is_root() {
        skip!("needs root to make namespaces");
    }
    for tool in tools.iter().chain(&["sh", "unshare"]) {
        let found = Command::new("sh")
            .args(["-c", &format!("command -v {tool}")])
            .output();
        if !found.is_ok_and(|output| output.status.success()) {
            skip!("there is no {tool} here");
        }
    }
    let script = format!(
        "{prelude} {} --listen-address 127.0.0.1:0 {flags}",
        agent::binary()?.display()
    );
    let mut command = Command::new("unshare");
    for (name, value) in agent::command()?.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command
        .args(["--mount", "sh", "-ec", &script])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    Agent::launch(command, 1)
}

/// Fails where a process whose account can't be read has one.
fn check_no_disk(page: &Page, pid: &str) -> Result<()> {
    let seen = page.value("esnode_process_disk_read_bytes_total", &[("pid", pid)]);
    ensure!(seen.is_none(), "an account that can't be read has {seen:?}");
    Ok(())
}

/// Other users' processes are hidden: there are fewer on the page, and no zeros for them.
fn hidepid() -> Result<()> {
    need_open_binary()?;
    let folder = workload::directory()?.join("hidepid");
    fs::create_dir_all(&folder)?;
    let folder = folder.display();
    let prelude = format!(
        "mount -t proc -o hidepid=2 proc {folder}; exec setpriv --reuid {NOBODY} --regid {NOBODY} \
         --clear-groups"
    );
    let agent = surrounded(
        &prelude,
        &format!("--no-bpf --procfs {folder}"),
        &["setpriv", "mount"],
    )?;
    let page = agent.page()?;
    check_rungs(&page, ["procfs", "none", "sock_diag"])?;
    let shown = page.value("esnode_processes", &[]).unwrap_or_default();
    ensure!(
        (1.0..10.0).contains(&shown),
        "{shown} processes, though others are hidden"
    );
    check_no_disk(&page, "1")
}

/// Root in a user namespace is nobody outside.
fn user_namespace() -> Result<()> {
    let agent = surrounded("exec unshare --user --map-root-user", "", &[])?;
    let page = agent.page()?;
    check_rungs(&page, ["procfs", "none", "sock_diag"])?;
    ensure!(
        page.value("esnode_group_processes", &[]).unwrap_or(0.0) > 1.0,
        "no processes on the page"
    );
    check_no_disk(&page, "1")
}

/// A container: its own processes in `/proc`, and nothing in `/sys`.
fn only_proc() -> Result<()> {
    let empty = workload::directory()?.join("empty");
    fs::create_dir_all(&empty)?;
    let agent = surrounded(
        "exec unshare --pid --fork --kill-child --mount-proc",
        &format!("--sysfs {}", empty.display()),
        &[],
    )?;
    let page = agent.page()?;
    check_rungs(&page, ["procfs", "none", "sock_diag"])?;
    ensure_eq!(
        page.value("esnode_processes", &[]),
        Some(1.0),
        "processes in this container"
    );
    ensure_eq!(
        page.value("esnode_collector_success", &[("collector", "process")]),
        Some(1.0),
        "the process collector"
    );
    Ok(())
}
