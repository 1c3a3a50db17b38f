//! Few groups on the page: the rest is `other`, for good, in every mode.

use anyhow::{Result, ensure};
use esnode_tests::container::Container;
use esnode_tests::page::Page;
use esnode_tests::puppet::{Programs, Puppet};

use super::support::{By, Watch, file, sent};
use crate::Case;
use crate::check::ensure_eq;

pub(crate) fn cases() -> Vec<Case> {
    let case = |mode: Mode| Case::alone(format!("groups::few::{}", mode.name()), move || few(mode));
    [Mode::Command, Mode::Container, Mode::Engine, Mode::Rules]
        .into_iter()
        .map(case)
        .collect()
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Command,
    Container,
    Engine,
    Rules,
}

impl Mode {
    fn name(self) -> &'static str {
        match self {
            Self::Command => "command",
            Self::Container => "container",
            Self::Engine => "engine",
            Self::Rules => "rules",
        }
    }
}

const LIMIT: usize = 3;

/// Bytes that all groups sent by UDP.
fn all_sent(page: &Page) -> Result<u64> {
    let labels = page.label_values("esnode_group_network_transmits_total", &[], "group");
    labels.into_iter().map(|label| sent(page, label)).sum()
}

/// Six groups come one after the other, send, and some end.
fn few(mode: Mode) -> Result<()> {
    let programs = Programs::new(&format!("few-{}", mode.name()))?;
    let rules = "process_names:\n  - name: \"r:{{.Comm}}\"\n    comm: [few-0, few-1, few-2, few-3, few-4, few-5]\n";
    let rules = file(&programs, "rules.yaml", rules)?;
    let mut flags = vec!["--group-limit", "3", "--group-by", mode.name()];
    if mode == Mode::Rules {
        flags.extend(["--group-config", &rules]);
    }
    let watch = Watch::start(By::Bpf, &flags)?;
    let before = watch.page()?;
    let mut containers = Vec::new();
    let mut puppets = Vec::new();
    let mut expected = 0;
    for index in 0..6 {
        let name = format!("few-{index}");
        let model = format!("org/few-{index}");
        let title = programs.get("vllm")?.to_string_lossy().into_owned();
        let mut puppet = match mode {
            Mode::Engine => Puppet::start(&programs, "vllm", &title, &["serve", &model])?,
            _ => Puppet::start(&programs, &name, &name, &[])?,
        };
        if mode == Mode::Container {
            let container = Container::new()?;
            container.take(puppet.root.pid())?;
            containers.push(container);
        }
        puppet.order("send 1000")?;
        check_bounds(&watch.page()?)?;
        puppet.order("send 500")?;
        puppet.order("fork 10 100")?;
        expected += 2_500;
        if index % 2 == 0 {
            puppet.root.kill()?;
        } else {
            puppets.push(puppet);
        }
    }
    let after = watch.page()?;
    check_bounds(&after)?;
    let seen = all_sent(&after)? - all_sent(&before)?;
    ensure!(seen >= expected, "{seen} of {expected} bytes sent");
    let other = sent(&after, "other")?;
    ensure!(other >= 2_500 * 3, "other has {other}");
    drop(puppets);
    check_bounds(&watch.page()?)
}

/// Fails where there are more groups than may be.
fn check_bounds(page: &Page) -> Result<()> {
    for family in ["processes", "started_total", "cpu_seconds_total"] {
        let name = format!("esnode_group_{family}");
        let labels = page.label_values(&name, &[], "group");
        ensure!(labels.len() <= LIMIT, "{family} of {labels:?}");
    }
    ensure_eq!(
        page.select("esnode_group_processes", &[("group", "")])
            .len(),
        0,
        "nameless"
    );
    Ok(())
}
