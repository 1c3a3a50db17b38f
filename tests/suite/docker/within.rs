//! The agent in a container, which sees the host and the other containers.

use anyhow::Result;
use esnode_tests::agent::{Agent, need_bpf};
use esnode_tests::docker::{Container, Docker};
use esnode_tests::tally::Protocol;
use esnode_tests::workload::{Name, Workload, select_all};

use super::{DB, Running};
use crate::Case;
use crate::check::{Calls, ensure_eq, process, within_grace};
use crate::disk::need_disk;

/// Bytes that a process of the host sends.
const BYTES: u64 = 300_001;

pub(super) fn cases() -> Vec<Case> {
    vec![Case::new("docker::agent_in_a_container", sees_outside)]
}

fn sees_outside() -> Result<()> {
    need_bpf()?;
    need_disk()?;
    let docker = Docker::shared()?;
    // Docker's default profile refuses bpf(2); tracing programs take CAP_SYS_ADMIN where an engine
    // doesn't know CAP_BPF and CAP_PERFMON.
    let socket = docker.socket();
    let volume = format!("{0}:{0}", socket.display());
    let flags = [
        "--pid=host",
        "--network=host",
        "--cap-add=SYS_ADMIN",
        "--security-opt=seccomp=unconfined",
        "--volume=/sys:/sys:ro",
        "--volume",
        &volume,
    ];
    let select = select_all();
    let words = [
        esnode_tests::docker::AGENT,
        "--listen-address=127.0.0.1:0",
        "--group-by=container",
        "--select=^box-",
        "--select",
        &select,
        "--docker-socket",
        &socket.to_string_lossy(),
    ];
    let own = Container::of(&docker, "agent", 0, &flags, &words)?;
    let agent = Agent::launch(own.start(), 1)?;

    let other = Running::start(&docker, "other", 1, &DB)?;
    within_grace(|| other.check_named(&agent.page()?))?;
    within_grace(|| other.check_bytes(&agent.page()?, &DB))?;

    let name = Name::new("outside")?;
    let bytes = BYTES.to_string();
    let workload = Workload::run(&name, &["move", "send", "tcp4", &bytes, &bytes])?;
    let sent = workload.report.total();
    ensure_eq!(
        sent.of(Protocol::Tcp).transmit_bytes,
        BYTES,
        "sent by the workload"
    );
    let pid = workload.pid().to_string();
    let page = agent.page()?;
    let labels = [("pid", pid.as_str()), ("comm", name.comm.as_str())];
    process(&page, &labels).check_moved(&sent, Calls::Exact)?;
    let of_host = [("pid", pid.as_str()), ("container_id", "")];
    ensure_eq!(
        page.select("esnode_process_info", &of_host).len(),
        1,
        "of the host"
    );
    Ok(())
}
