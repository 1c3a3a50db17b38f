//! Where names come from, and that nothing waits for them.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use esnode_tests::agent::{Agent, need_bpf};
use esnode_tests::docker::{Container, Docker};
use esnode_tests::page::Page;

use super::{Running, WEB, watch, what, who};
use crate::Case;
use crate::check::{ensure_eq, within_grace};
use crate::disk::need_disk;

/// How long a scrape may take, whatever daemons do.
const USUAL: Duration = Duration::from_secs(1);

/// What a daemon is asked for waits so long for an answer, and then some.
const UNANSWERED: Duration = Duration::from_millis(2_500);

pub(super) fn cases() -> Vec<Case> {
    vec![
        Case::new("docker::names_from_state_files", state_files),
        Case::new("docker::no_names_if_none_are_wanted", no_names),
        // Whoever else uses the daemon would wait for it.
        Case::alone("docker::daemon_that_stands_still", stands_still),
    ]
}

/// There is no socket, but the daemon's folder.
fn state_files() -> Result<()> {
    need_bpf()?;
    need_disk()?;
    let docker = Docker::shared()?;
    let data = docker.data();
    let flags = ["--docker-socket", "/nonexistent", "--docker-data"];
    let agent = Agent::start(
        &[
            &["--select", "^box-", "--group-by", "container"],
            flags.as_slice(),
            &[&data.to_string_lossy()],
        ]
        .concat(),
    )?;
    let running = Running::start(&docker, "state", 1, &WEB)?;
    within_grace(|| running.check_named(&agent.page()?))?;
    within_grace(|| running.check_bytes(&agent.page()?, &WEB))
}

/// The id is there by the control group, and nobody is asked for the rest.
fn no_names() -> Result<()> {
    need_bpf()?;
    need_disk()?;
    let docker = Docker::shared()?;
    let flags = ["--group-by", "container", "--no-container-names"];
    let agent = watch(&docker, &flags)?;
    let running = Running::start(&docker, "nameless", 0, &WEB)?;
    // As long as names take where they're asked for, and more.
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(1) {
        let page = agent.page()?;
        check_nameless(&page, &running.container)?;
        running.check_bytes(&page, &WEB)?;
    }
    Ok(())
}

/// A daemon that doesn't answer costs names, and no time; once it answers, they come.
fn stands_still() -> Result<()> {
    need_bpf()?;
    need_disk()?;
    let docker = Docker::shared()?;
    let running = Running::start(&docker, "still", 0, &WEB)?;
    let pid = running.container.pid()?;
    let paused = docker.pause()?;
    let agent = watch(&docker, &["--group-by", "container"])?;
    let begin = Instant::now();
    while begin.elapsed() < UNANSWERED {
        let start = Instant::now();
        let page = agent.page()?;
        let took = start.elapsed();
        ensure!(took < USUAL, "a page took {took:?}");
        check_nameless(&page, &running.container)?;
        let who = who(&page, &running.container.id, Container::MAIN)?;
        ensure_eq!(who.get("pid"), Some(&pid), "process id");
    }
    drop(paused);
    within_grace(|| running.check_named(&agent.page()?))
}

/// Fails where the page hasn't the container's id, or has a name.
fn check_nameless(page: &Page, container: &Container) -> Result<()> {
    let who = who(page, &container.id, Container::MAIN)?;
    ensure_eq!(who.get("container").map(String::as_str), Some(""), "name");
    let what = what(page, &container.id)?;
    for label in ["container", "image"] {
        ensure_eq!(what.get(label).map(String::as_str), Some(""), "{label}");
    }
    ensure_eq!(
        what.get("runtime").map(String::as_str),
        Some("docker"),
        "runtime"
    );
    Ok(())
}
