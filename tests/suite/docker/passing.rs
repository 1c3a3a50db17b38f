//! What comes and goes between two scrapes, and what leaves the page.

use anyhow::{Error, Result, ensure};
use esnode_tests::agent::need_bpf;
use esnode_tests::docker::{Container, Docker};
use esnode_tests::page::Page;
use esnode_tests::tally::{Io, Moved, Protocol};
use esnode_tests::workload::Workload;

use super::{Running, WEB, check_group, watch};
use crate::Case;
use crate::check::{Series, ensure_eq, group, within_grace};
use crate::disk::need_disk;

/// Processes that come and go in a container.
const COUNT: u64 = 5;
/// Bytes that each of them sends and receives, and writes.
const BYTES: u64 = 100_003;
const SENT: u64 = 1_000;
const WRITTEN: u64 = 1024 * 1024;

/// The group of containers that nobody saw alive, and of those that are no more.
const GONE: &str = "gone";

pub(super) fn cases() -> Vec<Case> {
    vec![
        Case::new("docker::children_between_two_scrapes", children),
        Case::new("docker::processes_between_two_scrapes", processes),
        // What others have in their containers would be in the group as well.
        Case::alone("docker::container_between_two_scrapes", container),
        Case::new("docker::removed_container_leaves_the_page", removed),
    ]
}

/// Children of the first process that have ended before the next scrape, to the byte: nothing but
/// them is in the container meanwhile.
fn children() -> Result<()> {
    need_bpf()?;
    need_disk()?;
    let docker = Docker::shared()?;
    let agent = watch(&docker, &["--group-by", "container"])?;
    let [count, sent, written] = [COUNT, SENT, WRITTEN].map(|number| number.to_string());
    let words = ["short-lived", &count, &sent, &written, Container::DATA];
    let container = Container::create(&docker, "children", 0, &words)?;
    let mut workload = Workload::launch(container.start())?;
    workload.wait_for("at start")?;
    let pid = container.pid()?;
    let labels = [("group", container.group())];
    within_grace(|| group(&agent.page()?, &labels).io())?;
    let (before, own) = (agent.page()?, Io::of(&pid)?);
    workload.go_on()?;
    workload.wait_for("done")?;
    // What it reaped is in the account of the one that reaped it.
    let own = Io::of(&pid)? - own;
    ensure!(
        own.write_bytes >= COUNT * WRITTEN,
        "the children wrote {own:?}"
    );

    let after = agent.page()?;
    let (before, after) = (group(&before, &labels), group(&after, &labels));
    ensure_eq!(after.io()? - before.io()?, own, "disk bytes of the group");
    let udp = |group: Series<'_>| Ok::<_, Error>(group.moved(Protocol::Udp)?.transmit_bytes);
    ensure_eq!(
        udp(after)? - udp(before)?,
        COUNT * SENT,
        "sent by the group"
    );
    for family in ["_started_total", "_exited_total"] {
        let more = after.number(family)? - before.number(family)?;
        ensure_eq!(more, COUNT, "{family} moved by");
    }
    ensure_eq!(after.number("_processes")?, 1, "alive");
    Ok(())
}

/// Processes that `docker exec` starts and that have ended before the next scrape.
fn processes() -> Result<()> {
    need_bpf()?;
    need_disk()?;
    let docker = Docker::shared()?;
    let agent = watch(&docker, &["--group-by", "container"])?;
    let running = Running::start(&docker, "exec", 0, &WEB)?;
    let container = &running.container;
    let labels = [("group", container.group())];
    let ended = |page: &Page| group(page, &labels).number("_exited_total");
    within_grace(|| running.check_bytes(&agent.page()?, &WEB))?;
    let before = ended(&agent.page()?)?;

    let mut written = running.written(&WEB)?;
    let mut sent = running.sender.report.total();
    let bytes = BYTES.to_string();
    for _ in 0..COUNT {
        let moved = container.exec(&["move", "send", "tcp4", &bytes, &bytes])?;
        sent += &moved.release()?.report.total();
        let file = Container::file();
        let disk = container.exec(&["disk", "write", &file, &WRITTEN.to_string()])?;
        written += disk.release()?.report.io_at("end")?.write_bytes;
    }
    ensure!(
        written >= WEB.write + COUNT * WRITTEN,
        "{written} bytes were written"
    );
    within_grace(|| check_group(&agent.page()?, container, written, &sent, 2 + 2 * COUNT))?;
    let after = agent.page()?;
    let more = ended(&after)? - before;
    // The engine has processes of its own in there, before each.
    ensure!(more >= 2 * COUNT, "{more} processes ended in the group");
    ensure_eq!(group(&after, &labels).number("_processes")?, 2, "alive");
    Ok(())
}

/// A container that was there between two scrapes only. Whether any pass of the agent saw it alive
/// is left to chance, and with it whether its bytes are in its own group or in that of the unseen.
fn container() -> Result<()> {
    need_bpf()?;
    let docker = Docker::shared()?;
    let agent = watch(&docker, &["--group-by", "container"])?;
    let bytes = BYTES.to_string();
    let words = ["move", "send", "tcp4", &bytes, &bytes];
    let container = Container::create(&docker, "brief", 0, &words)?;
    let tcp = |page: &Page| -> Result<Moved> {
        let mut sum = group(page, &[("group", GONE)]).moved(Protocol::Tcp)?;
        sum += group(page, &[("group", container.group())]).moved(Protocol::Tcp)?;
        Ok(sum)
    };
    let mut expected = tcp(&agent.page()?)?;
    let workload = container.run()?;
    let sent = workload.release()?.report.total().of(Protocol::Tcp);
    ensure_eq!(sent.transmit_bytes, BYTES, "sent by the workload");
    container.remove()?;
    expected += sent;
    within_grace(|| {
        ensure_eq!(tcp(&agent.page()?)?, expected, "of what is gone");
        Ok(())
    })
}

/// A container that is no more leaves no process and no info; its group stays for a while.
fn removed() -> Result<()> {
    need_bpf()?;
    need_disk()?;
    let docker = Docker::shared()?;
    let agent = watch(&docker, &["--group-by", "container"])?;
    let running = Running::start(&docker, "removed", 0, &WEB)?;
    within_grace(|| running.check_named(&agent.page()?))?;
    within_grace(|| running.check_bytes(&agent.page()?, &WEB))?;
    let before = agent.page()?;
    running.container.remove()?;

    let after = agent.page()?;
    let id = [("container_id", running.container.id.as_str())];
    for family in ["esnode_process_info", "esnode_container_info"] {
        ensure_eq!(
            before.select(family, &id).is_empty(),
            false,
            "{family} before"
        );
        ensure_eq!(after.select(family, &id).len(), 0, "{family} after the end");
    }
    let sent = running.sender.report.total();
    check_group(&after, &running.container, running.written(&WEB)?, &sent, 2)?;
    after.check_monotonic(&before, "esnode_group_network")?;
    let labels = [("group", running.container.group())];
    ensure_eq!(group(&after, &labels).number("_processes")?, 0, "alive");
    Ok(())
}
