//! Containers of a real Docker: bytes that are known, under the right id, name and image.

mod names;
mod passing;
mod within;

use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use esnode_tests::agent::{Agent, need_bpf};
use esnode_tests::docker::{Container, Docker};
use esnode_tests::page::{Labels, Page};
use esnode_tests::tally::{Moved, Protocol, Tally};
use esnode_tests::workload::Workload;

use crate::Case;
use crate::check::{Series, ensure_eq, group, process, within_grace};
use crate::disk::need_disk;

/// Bytes that a container writes to a file on a disk, and that it sends and receives.
pub(crate) struct Amounts {
    write: u64,
    transmit: u64,
    receive: u64,
}

pub(crate) const WEB: Amounts = Amounts {
    write: 4 * 1024 * 1024,
    transmit: 1_000_003,
    receive: 1_000_003,
};
const DB: Amounts = Amounts {
    write: 7 * 1024 * 1024,
    transmit: 200_001,
    receive: 150_000,
};

/// Bytes that runc may write before a program begins, by processes that are in the control group
/// of the container and end there: seen were 4 KiB, in about every second start.
const PREPARATION: u64 = 16 * 1024;

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = vec![
        Case::new("docker::right_container", || {
            need_bpf()?;
            right_container(&["--group-by", "container"])
        }),
        Case::new("docker::right_container_without_bpf", || {
            right_container(&["--group-by", "container", "--no-bpf"])
        }),
    ];
    cases.extend(names::cases());
    cases.extend(passing::cases());
    cases.extend(within::cases());
    cases
}

/// Starts an agent that gives every workload in a container series of its own.
fn watch(docker: &Docker, flags: &[&str]) -> Result<Agent> {
    let socket = docker.socket();
    let socket = socket.to_string_lossy();
    let select = ["--select", "^box-", "--docker-socket", &socket];
    Agent::start(&[&select, flags].concat())
}

/// Makes and runs two containers that write and send other amounts at the same time; the page has
/// each under its own name.
fn right_container(flags: &[&str]) -> Result<()> {
    need_disk()?;
    let docker = Docker::shared()?;
    let agent = watch(&docker, flags)?;
    let web = Running::start(&docker, "web", 0, &WEB)?;
    let db = Running::start(&docker, "db", 1, &DB)?;
    for (running, amounts) in [(&web, &WEB), (&db, &DB)] {
        within_grace(|| running.check_named(&agent.page()?))?;
        within_grace(|| running.check_bytes(&agent.page()?, amounts))?;
    }
    ensure!(
        web.container.image != db.container.image,
        "one image for both"
    );
    Ok(())
}

/// A container whose first process has written, and whose second has sent.
pub(crate) struct Running {
    pub(crate) container: Container,
    writer: Workload,
    sender: Workload,
}

impl Running {
    pub(crate) fn start(
        docker: &Arc<Docker>,
        stem: &str,
        image: usize,
        amounts: &Amounts,
    ) -> Result<Self> {
        let file = Container::file();
        let bytes = amounts.write.to_string();
        let write = ["disk", "write", &file, &bytes];
        let container = Container::create(docker, stem, image, &write)?;
        let writer = container.run()?;
        let (transmit, receive) = (amounts.transmit.to_string(), amounts.receive.to_string());
        let sender = container.exec(&["move", "send", "tcp4", &transmit, &receive])?;
        Ok(Self {
            container,
            writer,
            sender,
        })
    }

    /// Fails where the page doesn't call the container by its name, or its image.
    pub(crate) fn check_named(&self, page: &Page) -> Result<()> {
        let container = &self.container;
        for comm in [Container::MAIN, Container::EXEC] {
            let who = who(page, &container.id, comm)?;
            ensure_eq!(who.get("container"), Some(&container.name), "{comm}: name");
        }
        let what = what(page, &container.id)?;
        ensure_eq!(what.get("container"), Some(&container.name), "name");
        ensure_eq!(
            what.get("image").map(String::as_str),
            Some(container.image),
            "image"
        );
        ensure_eq!(
            what.get("runtime").map(String::as_str),
            Some("docker"),
            "runtime"
        );
        Ok(())
    }

    /// Fails where the page hasn't its bytes, of its processes and of its group.
    pub(crate) fn check_bytes(&self, page: &Page, amounts: &Amounts) -> Result<()> {
        let container = &self.container;
        let written = self.written(amounts)?;
        let pid = container.pid()?;
        let who = who(page, &container.id, Container::MAIN)?;
        ensure_eq!(who.get("pid"), Some(&pid), "process id");
        let labels = [("pid", pid.as_str()), ("comm", Container::MAIN)];
        let writer = process(page, &labels).io()?;
        ensure_eq!(writer.write_bytes, written, "of the process");

        let sent = self.sender.report.total();
        ensure_eq!(
            sent.of(Protocol::Tcp).transmit_bytes,
            amounts.transmit,
            "sent"
        );
        ensure_eq!(
            sent.of(Protocol::Tcp).receive_bytes,
            amounts.receive,
            "received"
        );
        let pid = who_has(page, &container.id, Container::EXEC)?;
        let labels = [("pid", pid.as_str()), ("comm", Container::EXEC)];
        check_sent(process(page, &labels), &sent)?;
        check_group(page, container, written, &sent, 2)
    }

    /// Bytes that the first process has written, by the kernel's account: whole pages, and what the
    /// filesystem notes of the file.
    fn written(&self, amounts: &Amounts) -> Result<u64> {
        let written = self.writer.report.io_at("end")?.write_bytes;
        ensure!(
            written >= amounts.write,
            "only {written} bytes were written"
        );
        Ok(written)
    }
}

/// Fails where the group of a container hasn't these bytes, of so many programs that were started
/// in it. What Docker's own processes wrote before each began can be more.
fn check_group(
    page: &Page,
    container: &Container,
    written: u64,
    sent: &Tally,
    programs: u64,
) -> Result<()> {
    let labels = [("group", container.group())];
    let group = group(page, &labels);
    let seen = group.io()?.write_bytes;
    let most = written + programs * PREPARATION;
    ensure!(
        (written..=most).contains(&seen),
        "written by the group: expected {written} to {most}, seen {seen}"
    );
    check_sent(group, sent)
}

/// Fails where the bytes aren't these. A process of a container begins as one of its engine, in the
/// container already, that reads programs and talks over UNIX sockets: those are not looked at.
fn check_sent(series: Series<'_>, sent: &Tally) -> Result<()> {
    for protocol in [Protocol::Tcp, Protocol::Udp] {
        let (seen, sent) = (series.moved(protocol)?, sent.of(protocol));
        let bytes = |moved: Moved| (moved.transmit_bytes, moved.receive_bytes);
        ensure_eq!(
            bytes(seen),
            bytes(sent),
            "{} bytes sent and received",
            protocol.label()
        );
    }
    Ok(())
}

/// What the page says of the one process of this command name in a container.
fn who(page: &Page, id: &str, comm: &str) -> Result<Labels> {
    one(
        page,
        "esnode_process_info",
        &[("container_id", id), ("comm", comm)],
    )
}

/// Its process id.
fn who_has(page: &Page, id: &str, comm: &str) -> Result<String> {
    who(page, id, comm)?.remove("pid").context("no process id")
}

/// What the page says of a container.
fn what(page: &Page, id: &str) -> Result<Labels> {
    one(page, "esnode_container_info", &[("container_id", id)])
}

/// The labels of the one such sample.
fn one(page: &Page, family: &str, labels: &[(&str, &str)]) -> Result<Labels> {
    let samples = page.select(family, labels);
    ensure_eq!(samples.len(), 1, "samples of {family}{labels:?}");
    Ok(samples.first().context("none")?.labels.clone())
}
