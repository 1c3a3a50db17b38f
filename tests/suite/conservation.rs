//! Conservation: what the groups have and what nobody has is what was moved, to the byte.

use std::collections::BTreeSet;
use std::fs;

use anyhow::{Result, ensure};
use esnode_tests::agent::{Agent, need_bpf};
use esnode_tests::page::Page;
use esnode_tests::skip;
use esnode_tests::tally::{Moved, Protocol, Report};
use esnode_tests::workload::{Name, Workload};

use crate::Case;
use crate::check::{Calls, ensure_eq, group, unattributed};

/// How often a measurement is tried again because others on the machine used the network.
const TRIES: usize = 10;

pub(crate) fn cases() -> Vec<Case> {
    let case = |name: &str, flags: &'static [&str], load: Load, lost: bool| {
        Case::alone(format!("conservation::{name}"), move || match load {
            Load::Network(command) => network(flags, command, lost),
            Load::Disk => disk(flags, lost),
        })
    };
    let all = &[
        "--bpf-threads",
        "8",
        "--bpf-processes",
        "2",
        "--bpf-groups",
        "2",
    ];
    vec![
        Case::new("conservation::fork_and_exec_storm", storm),
        case(
            "tiny_thread_map",
            &["--bpf-threads", "8"],
            Load::Network(THREADS),
            true,
        ),
        case(
            "tiny_process_map",
            &["--bpf-processes", "2"],
            Load::Network(THREADS),
            false,
        ),
        case(
            "tiny_group_map",
            &["--bpf-groups", "2"],
            Load::Network(MIXED),
            true,
        ),
        case("tiny_maps", all, Load::Network(MIXED), true),
        case(
            "few_groups_on_the_page",
            &["--group-limit", "2"],
            Load::Network(MIXED),
            false,
        ),
        case(
            "by_container",
            &["--group-by", "container"],
            Load::Network(MIXED),
            false,
        ),
        case(
            "by_engine",
            &["--group-by", "engine"],
            Load::Network(MIXED),
            false,
        ),
        case(
            "disk_by_engine",
            &["--group-by", "engine"],
            Load::Disk,
            false,
        ),
        case(
            "disk_with_tiny_thread_map",
            &["--bpf-threads", "8"],
            Load::Disk,
            false,
        ),
        case(
            "disk_with_tiny_group_map",
            &["--bpf-groups", "2"],
            Load::Disk,
            true,
        ),
        case(
            "disk_with_few_groups_on_the_page",
            &["--group-limit", "2"],
            Load::Disk,
            false,
        ),
    ]
}

/// What is moved under an agent that lacks room.
#[derive(Clone, Copy)]
enum Load {
    Network(&'static [&'static str]),
    Disk,
}

/// Threads of one process, of which half end.
const THREADS: &[&str] = &["threads", "64", "32", "20000"];
/// A mixed load; the names that its members become are added to it.
const MIXED: &[&str] = &["mixed", "11", "200"];

/// The names that members of a mixed load become.
fn names() -> Result<Vec<Name>> {
    (0..3).map(|_| Name::new("mix")).collect()
}

/// Runs a load under the first name until it's done; gives what all its members said.
fn run(name: &Name, command: &[&str], others: &[Name]) -> Result<Report> {
    let paths: Vec<_> = others
        .iter()
        .map(|other| other.path.to_string_lossy())
        .collect();
    let mut words = command.to_vec();
    if command == MIXED {
        words.extend(paths.iter().map(AsRef::as_ref));
    }
    Ok(Workload::run(name, &words)?.release()?.report)
}

/// With room in the maps, every group has exactly what its members moved, and nobody has nothing.
fn storm() -> Result<()> {
    let agent = Agent::shared_with_bpf()?;
    let (first, others) = (Name::new("mix")?, names()?);
    let before = agent.page()?;
    let report = run(&first, &["mixed", "7", "600"], &[])?;
    let more = run(&first, MIXED, &others)?;
    let after = agent.page()?;
    for name in others.iter().chain([&first]) {
        let mut expected = report.moved.get(&name.comm).cloned().unwrap_or_default();
        expected += &more.moved.get(&name.comm).cloned().unwrap_or_default();
        ensure!(
            expected.total().transmits > 0,
            "nobody became {}",
            name.comm
        );
        group(&after, &[("group", &name.comm)]).check_moved(&expected, Calls::Exact)?;
    }
    for signal in ["network_transmit", "network_receive"] {
        let moved = unattributed(&after, signal)? - unattributed(&before, signal)?;
        ensure_eq!(moved, 0, "{signal} of nobody");
    }
    Ok(())
}

/// Bytes over all groups and nobody.
fn everything(page: &Page) -> Result<(u64, u64)> {
    let all = group(page, &[]);
    let (mut transmit, mut receive) = (0, 0);
    for protocol in Protocol::ALL {
        let Moved {
            transmit_bytes,
            receive_bytes,
            ..
        } = all.moved(protocol)?;
        transmit += transmit_bytes;
        receive += receive_bytes;
    }
    Ok((
        transmit + unattributed(page, "network_transmit")?,
        receive + unattributed(page, "network_receive")?,
    ))
}

/// Bytes of the groups that belong to neither the load, nor an agent, nor this suite.
fn foreign(page: &Page, own: &BTreeSet<String>) -> Result<(u64, u64)> {
    let (mut transmit, mut receive) = (0, 0);
    for name in page.label_values("esnode_group_network_transmit_bytes_total", &[], "group") {
        if !own.contains(name) {
            for protocol in Protocol::ALL {
                let moved = group(page, &[("group", name)]).moved(protocol)?;
                transmit += moved.transmit_bytes;
                receive += moved.receive_bytes;
            }
        }
    }
    Ok((transmit, receive))
}

/// Runs a load under an agent that lacks room. Its sum over groups and nobody must move by what
/// the load moved and what reading the page moved. An agent with room watches beside it, so that
/// it's known whether anyone else used the network meanwhile; then it's tried again. Only where
/// bytes must be `lost` may nobody have any.
fn network(flags: &[&str], command: &[&str], lost: bool) -> Result<()> {
    need_bpf()?;
    let narrow = Agent::start(flags)?;
    let wide = Agent::shared()?;
    let mut disturbers = String::new();
    for _ in 0..TRIES {
        let (first, others) = (Name::new("mix")?, names()?);
        let mut own: BTreeSet<String> = others.iter().map(|name| name.comm.clone()).collect();
        own.extend([first.comm.clone(), command_name("self")?]);
        own.extend([command_name(narrow.pid())?, command_name(wide.pid())?]);

        let wide_before = wide.page()?;
        let (before, first_answer) = narrow.scrape()?;
        let moved = run(&first, command, &others)?.total().total();
        let (after, second_answer) = narrow.scrape()?;
        let wide_after = wide.page()?;

        if foreign(&wide_before, &own)? != foreign(&wide_after, &own)? {
            disturbers = format!("{:?}", changed(&wide_before, &wide_after, &own)?);
            continue;
        }
        // Between the two samples: the first answer left and came in, the second request too.
        let scraping = first_answer.response_bytes + second_answer.request_bytes;
        let (start, end) = (everything(&before)?, everything(&after)?);
        ensure_eq!(
            end.0 - start.0,
            moved.transmit_bytes + scraping,
            "sent by groups and nobody"
        );
        ensure_eq!(
            end.1 - start.1,
            moved.receive_bytes + scraping,
            "received by groups and nobody"
        );
        let nobody = unattributed(&after, "network_transmit")?;
        ensure_eq!(nobody > 0, lost, "whether nobody has some of it");
        return after.check_monotonic(&before, "esnode_group_");
    }
    skip!("others on this machine kept using the network: {disturbers}")
}

/// The groups that used the network between two pages, but for one's own.
fn changed(before: &Page, after: &Page, own: &BTreeSet<String>) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for name in after.label_values("esnode_group_network_transmit_bytes_total", &[], "group") {
        let mut same = true;
        for protocol in Protocol::ALL {
            let labels = [("group", name)];
            same &=
                group(before, &labels).moved(protocol)? == group(after, &labels).moved(protocol)?;
        }
        if !same && !own.contains(name) {
            names.push(name.to_owned());
        }
    }
    Ok(names)
}

/// The command name of a process.
fn command_name(process: impl std::fmt::Display) -> Result<String> {
    Ok(fs::read_to_string(format!("/proc/{process}/comm"))?
        .trim_end()
        .to_owned())
}

/// As [`network`], for the bytes written by processes that end. An agent that lacks room must not lose
/// them. Whoever else writes, which the kernel itself does at times, makes it try again.
fn disk(flags: &[&str], lost: bool) -> Result<()> {
    need_bpf()?;
    let narrow = Agent::start(flags)?;
    let wide = Agent::shared()?;
    let written = |page: &Page, labels: &[(&str, &str)]| -> Result<u64> {
        Ok(page
            .count("esnode_group_disk_write_bytes_total", labels)?
            .unwrap_or(0))
    };
    for _ in 0..TRIES {
        let name = Name::new("crowd")?;
        let directory = name.file(".d");
        fs::create_dir(&directory)?;
        let words = [
            "short-lived",
            "200",
            "100",
            "65536",
            &directory.to_string_lossy(),
        ];
        let mut workload = Workload::start(&name, &words)?;
        workload.wait_for("at start")?;
        let own = [("group", name.comm.as_str())];

        let wide_before = wide.page()?;
        let before = narrow.page()?;
        workload.go_on()?;
        workload.wait_for("done")?;
        let after = narrow.page()?;
        let wide_after = wide.page()?;

        let children = workload.report.io_at("children")?.write_bytes;
        fs::remove_dir_all(&directory)?;
        let group = written(&wide_after, &own)? - written(&wide_before, &own)?;
        ensure_eq!(group, children, "written by the group");
        if written(&wide_after, &[])? - written(&wide_before, &[])? != children {
            continue;
        }
        let everything = |page: &Page| -> Result<u64> {
            Ok(written(page, &[])? + unattributed(page, "disk_write")?)
        };
        ensure_eq!(
            everything(&after)? - everything(&before)?,
            children,
            "written by groups and nobody"
        );
        let nobody = unattributed(&after, "disk_write")?;
        ensure_eq!(nobody > 0, lost, "whether nobody has some of it");
        return after.check_monotonic(&before, "esnode_group_");
    }
    skip!("others on this machine kept writing")
}
