//! A process that was published in one group and belongs into another one from then on.

use anyhow::{Result, ensure};
use esnode_tests::puppet::{Programs, Puppet};

use super::support::{By, Watch, check_sent, count, label_of, sent};
use crate::Case;
use crate::check::ensure_eq;

pub(crate) fn cases() -> Vec<Case> {
    // All of them look at what counts under the name of the engine alone.
    vec![
        Case::alone("groups::moving::recognised_by_a_new_title", retitled),
        Case::alone("groups::moving::recognised_after_exec", exec),
        Case::alone("groups::moving::recognised_after_exec_without_bpf", || {
            known_after_exec(By::Procfs).map(drop)
        }),
        Case::alone("groups::moving::another_program_is_no_worker", leaves),
    ]
}

const BY_ENGINE: [&str; 4] = ["--group-by", "engine", "--process-limit", "100000"];

/// A title makes a worker of a process that had another name.
fn retitled() -> Result<()> {
    let watch = Watch::start(By::Bpf, &BY_ENGINE)?;
    let programs = Programs::new("retitled")?;
    let own = "retitled-one";
    let mut puppet = Puppet::start(&programs, own, own, &[])?;
    puppet.order("send 1000")?;
    let page = watch.page()?;
    check_sent(&page, own, 1_000)?;
    let before = sent(&page, "vllm")?;
    puppet.order("send 500")?;
    puppet.order("rename VLLM::Worker")?;
    puppet.order("send 2000")?;
    let page = watch.page()?;
    check_sent(&page, own, 1_500)?;
    check_sent(&page, "VLLM::Worker", 0)?;
    check_sent(&page, "vllm", before + 2_000)?;
    ensure_eq!(
        label_of(&page, puppet.root.pid(), "group")?,
        "vllm",
        "group"
    );
    ensure_eq!(
        label_of(&page, puppet.root.pid(), "role")?,
        "worker",
        "role"
    );
    puppet.order("send 4000")?;
    puppet.order("fork 10 100")?;
    puppet.root.kill()?;
    let page = watch.page()?;
    check_sent(&page, own, 1_500)?;
    check_sent(&page, "vllm", before + 7_000)
}

/// A wrapper that becomes a server.
fn known_after_exec(by: By) -> Result<(Watch, Puppet)> {
    const MODEL: &str = "exec/model-7B";
    let watch = Watch::start(by, &BY_ENGINE)?;
    let programs = Programs::new(&format!("exec-{by:?}"))?;
    let own = "wrapper-one";
    let mut puppet = Puppet::start(&programs, own, own, &[])?;
    puppet.order("send 1000")?;
    let page = watch.page()?;
    ensure_eq!(label_of(&page, puppet.root.pid(), "group")?, own, "group");
    puppet.order("send 200")?;
    let vllm = programs.get("vllm")?;
    let vllm = vllm.display();
    puppet.order(&format!("become {vllm} {vllm} serve {MODEL}"))?;
    puppet.order("send 2000")?;
    let page = watch.page()?;
    let pid = puppet.root.pid();
    let labels = ["group", "engine", "role", "model"].map(|label| label_of(&page, pid, label));
    let labels = labels.into_iter().collect::<Result<Vec<_>>>()?;
    ensure_eq!(
        labels,
        ["vllm/exec/model-7B", "vllm", "server", MODEL],
        "labels of {pid}"
    );
    ensure_eq!(
        count(&page, "processes", "vllm/exec/model-7B")?,
        1,
        "processes"
    );
    if by == By::Bpf {
        check_sent(&page, own, 1_200)?;
        check_sent(&page, "vllm", 0)?;
        check_sent(&page, "vllm/exec/model-7B", 2_000)?;
    }
    Ok((watch, puppet))
}

/// What it sends later counts for the model as well.
fn exec() -> Result<()> {
    let (watch, mut puppet) = known_after_exec(By::Bpf)?;
    puppet.order("send 3000")?;
    check_sent(&watch.page()?, "vllm/exec/model-7B", 5_000)?;
    puppet.order("send 1000")?;
    puppet.root.kill()?;
    check_sent(&watch.page()?, "vllm/exec/model-7B", 6_000)
}

/// A server that becomes another program is one no more; what it had stays with the model.
fn leaves() -> Result<()> {
    let watch = Watch::start(By::Bpf, &BY_ENGINE)?;
    let programs = Programs::new("leaves")?;
    let vllm = programs.get("vllm")?;
    let title = vllm.to_string_lossy().into_owned();
    let mut puppet = Puppet::start(&programs, "vllm", &title, &["serve", "org/leaves"])?;
    puppet.order("send 1000")?;
    check_sent(&watch.page()?, "vllm/org/leaves", 1_000)?;
    let next = programs.get("leaver-next")?;
    let next = next.display();
    puppet.order(&format!("become {next} {next}"))?;
    puppet.order("send 2000")?;
    let page = watch.page()?;
    ensure_eq!(
        label_of(&page, puppet.root.pid(), "group")?,
        "leaver-next",
        "group"
    );
    check_sent(&page, "vllm/org/leaves", 1_000)?;
    check_sent(&page, "leaver-next", 2_000)?;
    ensure_eq!(
        count(&page, "processes", "vllm/org/leaves")?,
        0,
        "processes"
    );
    puppet.order("send 300")?;
    puppet.root.kill()?;
    let page = watch.page()?;
    ensure!(count(&page, "exited_total", "leaver-next")? == 1, "its end");
    check_sent(&page, "leaver-next", 2_300)
}
