//! An agent that groups, and pages of it on which no group may fall.

use std::cell::RefCell;
use std::fs;

use anyhow::{Context as _, Result, ensure};
use esnode_tests::agent::{Agent, need_bpf, run};
use esnode_tests::page::Page;
use esnode_tests::puppet::Programs;
use esnode_tests::tally::Protocol;

use crate::check::{ensure_eq, group, missed_events};

/// From where an agent has its numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum By {
    Bpf,
    Procfs,
}

/// An agent whose pages are compared with each other.
pub(crate) struct Watch {
    pub(crate) agent: Agent,
    last: RefCell<Option<Page>>,
}

impl Watch {
    pub(crate) fn start(by: By, flags: &[&str]) -> Result<Self> {
        let mut all = flags.to_vec();
        match by {
            By::Bpf => need_bpf()?,
            By::Procfs => all.push("--no-bpf"),
        }
        if !all.contains(&"--group-limit") {
            all.extend(["--group-limit", "100000"]);
        }
        Ok(Self {
            agent: Agent::start(&all)?,
            last: RefCell::new(None),
        })
    }

    /// The next page: what groups had on the last one, they still have.
    pub(crate) fn page(&self) -> Result<Page> {
        let page = self.agent.page()?;
        if let Some(last) = self.last.replace(Some(page.clone())) {
            for prefix in ["esnode_group_", "esnode_unattributed_"] {
                page.check_monotonic(&last, prefix)?;
            }
        }
        Ok(page)
    }
}

/// UDP bytes that a group sent; none if there is no such group.
pub(crate) fn sent(page: &Page, label: &str) -> Result<u64> {
    let labels = [("group", label)];
    Ok(group(page, &labels).moved(Protocol::Udp)?.transmit_bytes)
}

/// Fails where a group sent something else.
pub(crate) fn check_sent(page: &Page, label: &str, bytes: u64) -> Result<()> {
    check_bytes(page, sent(page, label)?, bytes, label)
}

/// Fails where something else was sent than `expected`. A call may be missing, with its bytes, for
/// each event that the page says programs missed.
pub(crate) fn check_bytes(page: &Page, seen: u64, expected: u64, who: &str) -> Result<()> {
    /// What a call of these tests sends at most.
    const CALL: u64 = 10_000;
    check_missed(page, seen, expected, CALL, &format!("sent by {who}"))
}

/// Fails where a count is another one. It may be less by `each` for each event that the page says
/// programs missed.
pub(crate) fn check_missed(
    page: &Page,
    seen: u64,
    expected: u64,
    each: u64,
    what: &str,
) -> Result<()> {
    let most = missed_events(page)? * each;
    if seen < expected && expected - seen <= most {
        return Ok(());
    }
    ensure_eq!(seen, expected, "{what}");
    Ok(())
}

/// A counter or gauge of a group; none if there is no such group.
pub(crate) fn count(page: &Page, family: &str, label: &str) -> Result<u64> {
    let count = page.count(&format!("esnode_group_{family}"), &[("group", label)])?;
    Ok(count.unwrap_or(0))
}

/// The label of a process.
pub(crate) fn label_of<'a>(page: &'a Page, pid: u32, label: &str) -> Result<&'a str> {
    let pid = pid.to_string();
    let values = page.label_values("esnode_process_info", &[("pid", &pid)], label);
    let mut values = values.into_iter();
    let value = values
        .next()
        .with_context(|| format!("the page has no process {pid}"))?;
    ensure_eq!(values.next(), None, "another {label} of {pid}");
    Ok(value)
}

/// A file in the folder of a test.
pub(crate) fn file(programs: &Programs, name: &str, text: &str) -> Result<String> {
    let path = programs.file(name);
    fs::write(&path, text)?;
    Ok(path.to_string_lossy().into_owned())
}

/// Fails unless the agent refuses a file that a flag names, and names the file, and the line if that
/// is told.
pub(crate) fn check_refused(flag: &str, path: &str, line: Option<u32>) -> Result<()> {
    let output = run(&[flag, path])?;
    let said = String::from_utf8(output.stderr)?;
    ensure!(
        output.status.code() == Some(1),
        "{path}: {:?}",
        output.status
    );
    ensure!(said.contains(path), "no file in {said:?}");
    if let Some(line) = line {
        let named = [format!("line {line}"), format!("{path}:{line}")];
        ensure!(
            named.iter().any(|it| said.contains(it)),
            "no line {line} in {said:?}"
        );
    }
    Ok(())
}
