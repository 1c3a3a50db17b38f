//! Groups by container.

use std::fs;
use std::thread;
use std::time::Duration;

use anyhow::{Result, ensure};
use esnode_tests::container::Container;
use esnode_tests::page::Page;
use esnode_tests::puppet::{Programs, Puppet};
use esnode_tests::tally::Io;
use esnode_tests::workload::{Name, Workload};

use super::support::{By, Watch, check_bytes, check_missed, check_sent, count, label_of, sent};
use crate::Case;
use crate::check::{ensure_eq, group, within_grace};

pub(crate) fn cases() -> Vec<Case> {
    let case = |name: &str, by: By, run: fn(By) -> Result<()>| {
        let by_name = if by == By::Bpf { "" } else { "_without_bpf" };
        Case::new(format!("groups::container::{name}{by_name}"), move || {
            run(by)
        })
    };
    vec![
        case("live_process", By::Bpf, live),
        case("live_process", By::Procfs, live),
        case("short_children", By::Bpf, short_children),
        case("moves_in_after_it_was_published", By::Bpf, moves_in),
        case("moves_in_before_any_page", By::Bpf, moves_in_unseen),
        Case::alone("groups::container::unseen_container_is_gone", unseen),
        Case::alone("groups::container::retired_container_is_gone", || {
            retired(By::Bpf)
        }),
        Case::alone(
            "groups::container::retired_container_is_gone_without_bpf",
            || retired(By::Procfs),
        ),
        Case::alone("groups::container::beyond_the_limit", || beyond(By::Bpf)),
        Case::alone("groups::container::beyond_the_limit_without_bpf", || {
            beyond(By::Procfs)
        }),
        case("many_containers_come_and_go", By::Bpf, many),
    ]
}

const BY_CONTAINER: [&str; 4] = ["--group-by", "container", "--process-limit", "100000"];

/// Starts a workload in a container.
fn start(container: &Container, name: &Name, words: &[&str]) -> Result<Workload> {
    let mut all = vec!["--hold"];
    all.extend(words);
    Workload::launch(container.command(&name.path, &all))
}

/// A process in a container: its numbers, and who it is.
fn live(by: By) -> Result<()> {
    let watch = Watch::start(by, &BY_CONTAINER)?;
    let container = Container::new()?;
    let name = Name::new("inside")?;
    let file = name.file(".data");
    let path = file.to_string_lossy();
    let mut disk = start(&container, &name, &["disk", "write", &path, "300000"])?;
    disk.wait_for("done")?;
    let mut network = start(
        &container,
        &name,
        &["move", "send", "udp4", "50000", "20000"],
    )?;
    network.wait_for("done")?;
    let page = watch.page()?;
    let own = [("group", container.short())];
    ensure_eq!(group(&page, &own).number("_processes")?, 2, "processes");
    let written = Io::of(disk.pid())?.write_bytes + Io::of(network.pid())?.write_bytes;
    ensure!(written >= 300_000, "{written} bytes written");
    ensure_eq!(group(&page, &own).io()?.write_bytes, written, "written");
    if by == By::Bpf {
        let calls = crate::check::Calls::Exact;
        group(&page, &own).check_moved(&network.report.total(), calls)?;
    }
    ensure_eq!(
        label_of(&page, disk.pid(), "container_id")?,
        container.id,
        "id"
    );
    ensure_eq!(
        label_of(&page, disk.pid(), "group")?,
        container.short(),
        "group"
    );
    let id = [("container_id", container.id.as_str())];
    let runtimes = page.label_values("esnode_container_info", &id, "runtime");
    ensure_eq!(Vec::from_iter(runtimes), ["docker"], "runtime");
    let groups = page.label_values("esnode_group_info", &id, "group");
    ensure_eq!(
        Vec::from_iter(groups),
        [container.short()],
        "group of the container"
    );
    // Groups by command name are no groups here.
    ensure!(
        group(&page, &[("group", &name.comm)]).any().is_none(),
        "a command"
    );
    fs::remove_file(&file)?;
    Ok(())
}

/// Children that nobody ever saw.
fn short_children(by: By) -> Result<()> {
    const COUNT: u64 = 200;
    let watch = Watch::start(by, &BY_CONTAINER)?;
    let container = Container::new()?;
    let name = Name::new("short")?;
    let directory = name.file(".d");
    fs::create_dir(&directory)?;
    let path = directory.to_string_lossy();
    let words = ["short-lived", "200", "1000", "65536", &path];
    let mut workload = start(&container, &name, &words)?;
    workload.wait_for("at start")?;
    let before = watch.page()?;
    workload.go_on()?;
    workload.wait_for("done")?;
    let after = watch.page()?;
    let label = container.short();
    let moved = sent(&after, label)? - sent(&before, label)?;
    check_bytes(&after, moved, COUNT * 1_000, "the children")?;
    for family in ["started_total", "exited_total"] {
        let moved = count(&after, family, label)? - count(&before, family, label)?;
        check_missed(&after, moved, COUNT, 1, family)?;
    }
    let children = workload.report.io_at("children")?.write_bytes;
    let labels = [("group", label)];
    let (before, after) = (group(&before, &labels).io()?, group(&after, &labels).io()?);
    ensure_eq!(
        after.write_bytes - before.write_bytes,
        children,
        "written by the children"
    );
    fs::remove_dir_all(&directory)?;
    Ok(())
}

/// What a process had on the host's page stays there.
fn moves_in(by: By) -> Result<()> {
    let watch = Watch::start(by, &BY_CONTAINER)?;
    let container = Container::new()?;
    let programs = Programs::new(&format!("moves-in-{by:?}"))?;
    let mut puppet = Puppet::start(&programs, "mover", "mover", &[])?;
    let file = programs.file("data").to_string_lossy().into_owned();
    puppet.order("send 3000")?;
    puppet.order(&format!("write {file} 200000"))?;
    let before = watch.page()?;
    let label = container.short();
    check_sent(&before, label, 0)?;
    let at_home = Io::of(puppet.root.pid())?.write_bytes;
    container.take(puppet.root.pid())?;
    let moved = watch.page()?;
    check_sent(&moved, label, 0)?;
    puppet.order("send 7000")?;
    puppet.order("fork 5 100")?;
    puppet.order(&format!("write {file} 400000"))?;
    let page = watch.page()?;
    if by == By::Bpf {
        check_sent(&page, label, 7_500)?;
        let [started, exited] = ["started_total", "exited_total"];
        ensure_eq!(count(&page, started, label)?, 6, "came or were born there");
        ensure_eq!(count(&page, exited, label)?, 5, "ended there");
    }
    let all = Io::of(puppet.root.pid())?.write_bytes;
    let labels = [("group", label)];
    ensure_eq!(
        group(&page, &labels).io()?.write_bytes,
        all - at_home,
        "written there"
    );
    // And back.
    container.release(puppet.root.pid())?;
    puppet.order("send 500")?;
    let page = watch.page()?;
    if by == By::Bpf {
        ensure!(sent(&page, "host")? >= 3_000, "the host's share");
        // What was sent since the last page counts where the process is.
        check_sent(&page, label, 7_500)?;
    }
    ensure_eq!(count(&page, "processes", label)?, 0, "processes there");
    puppet.root.kill()?;
    watch.page()?;
    Ok(())
}

/// What no page had counts where the process is when one is read, or when it ends.
fn moves_in_unseen(by: By) -> Result<()> {
    let watch = Watch::start(by, &BY_CONTAINER)?;
    let container = Container::new()?;
    let programs = Programs::new("moves-in-unseen")?;
    watch.page()?;
    let mut puppet = Puppet::start(&programs, "mover", "mover", &[])?;
    puppet.order("send 3000")?;
    container.take(puppet.root.pid())?;
    puppet.order("send 4000")?;
    check_sent(&watch.page()?, container.short(), 7_000)?;
    puppet.order("send 1000")?;
    puppet.root.kill()?;
    check_sent(&watch.page()?, container.short(), 8_000)
}

/// A container that lives and dies between two pages.
fn unseen() -> Result<()> {
    let watch = Watch::start(By::Bpf, &BY_CONTAINER)?;
    let before = watch.page()?;
    let mut container = Container::new()?;
    let name = Name::new("brief")?;
    let workload = start(&container, &name, &["move", "send", "udp4", "90000", "0"])?;
    workload.release()?;
    container.remove()?;
    let after = watch.page()?;
    check_sent(&after, container.short(), 0)?;
    ensure_eq!(
        sent(&after, "gone")? - sent(&before, "gone")?,
        90_000,
        "sent by containers that are gone"
    );
    // It was born on the host, and came in before it became the workload.
    let ended = |page| count(page, "exited_total", "gone");
    ensure_eq!(ended(&after)? - ended(&before)?, 1, "ended there");
    Ok(())
}

/// A container that came when there was no room stays in `other`, also when others leave, and when
/// it is no more itself.
fn beyond(by: By) -> Result<()> {
    let few = ["--container-linger", "1s", "--group-limit", "3"];
    let watch = Watch::start(by, &[&BY_CONTAINER[..], &few].concat())?;
    watch.page()?;
    let mut places = Vec::new();
    for bytes in ["300000", "200000"] {
        let container = Container::new()?;
        let name = Name::new("beyond")?;
        let path = name.file(".data").to_string_lossy().into_owned();
        let mut workload = start(&container, &name, &["disk", "write", &path, bytes])?;
        workload.wait_for("done")?;
        watch.page()?;
        // Dropped in this order: a control group with a process can't be removed.
        places.push((workload, container));
    }
    let other = |page: &Page| count(page, "disk_write_bytes_total", "other");
    let before = other(&watch.page()?)?;
    ensure!(before >= 200_000, "the second wrote {before}");
    let mut last = before;
    for (workload, mut container) in places {
        let label = container.short().to_owned();
        workload.release()?;
        container.remove()?;
        // Its series leave, so not all that was there stays; `other` does, and never falls.
        let mut page = watch.agent.page()?;
        for _ in 0..5 {
            thread::sleep(Duration::from_millis(400));
            page = watch.agent.page()?;
            let now = other(&page)?;
            ensure!(now >= last, "other fell from {last} to {now}");
            last = now;
        }
        ensure!(
            group(&page, &[("group", &label)]).any().is_none(),
            "{label} is still there"
        );
    }
    Ok(())
}

/// A container that was seen keeps its series for a while; then they are part of the past.
fn retired(by: By) -> Result<()> {
    let flags = [&BY_CONTAINER[..], &["--container-linger", "1s"]].concat();
    let watch = Watch::start(by, &flags)?;
    let mut container = Container::new()?;
    let name = Name::new("retired")?;
    let file = name.file(".data");
    let path = file.to_string_lossy();
    let mut workload = start(&container, &name, &["disk", "write", &path, "300000"])?;
    workload.wait_for("done")?;
    let label = container.short().to_owned();
    let seen = watch.page()?;
    ensure_eq!(count(&seen, "processes", &label)?, 1, "processes");
    let gone = count(&seen, "disk_write_bytes_total", "gone")?;
    let io = workload.release()?.io()?;
    container.remove()?;
    let last = watch.page()?;
    let written = count(&last, "disk_write_bytes_total", &label)?;
    if by == By::Bpf {
        ensure_eq!(written, io.write_bytes, "written by the container");
    }
    ensure!(written >= 300_000, "the container wrote {written}");
    // Its series leave, and what they had is elsewhere.
    let folded = |page: &Page| -> Result<()> {
        ensure!(
            group(page, &[("group", &label)]).any().is_none(),
            "still there"
        );
        let now = count(page, "disk_write_bytes_total", "gone")?;
        // Without hooks, processes of the host are there as well that nobody saw alive.
        let exact = by == By::Bpf;
        ensure!(
            now - gone == written || (!exact && now - gone > written),
            "of {written} bytes, {} are in what is gone",
            now - gone
        );
        Ok(())
    };
    within_grace(|| folded(&watch.agent.page()?))?;
    // Another one of the same name begins with nothing.
    let page = watch.agent.page()?;
    ensure!(count(&page, "exited_total", "gone")? >= 1, "ended ones");
    fs::remove_file(&file)?;
    Ok(())
}

/// Thirty pages while containers come, are moved into, and go: `Watch` sees to it that no group
/// falls. In the end all that was sent is somewhere.
fn many(by: By) -> Result<()> {
    let watch = Watch::start(by, &BY_CONTAINER)?;
    let programs = Programs::new("many-containers")?;
    let containers = [Container::new()?, Container::new()?, Container::new()?];
    let mut puppets = Vec::new();
    for index in 0..4 {
        let name = format!("many-{index}");
        puppets.push(Puppet::start(&programs, &name, &name, &[])?);
    }
    let shares = |page: &Page| -> Result<u64> {
        let shares = containers.iter().map(|it| sent(page, it.short()));
        shares.sum()
    };
    let mut expected = 0;
    for container in containers.iter().zip(&puppets) {
        container.0.take(container.1.root.pid())?;
    }
    watch.page()?;
    let mut place = 0;
    for round in 0..30_u64 {
        for (index, puppet) in puppets.iter_mut().take(3).enumerate() {
            puppet.order(&format!("send {}000", round % 3 + 1))?;
            puppet.order("fork 3 100")?;
            expected += (round % 3 + 1) * 1_000 + 300;
            if (round + index as u64).is_multiple_of(4) {
                place = (place + 1) % containers.len();
                let container = containers.get(place).unwrap_or(&containers[0]);
                container.take(puppet.root.pid())?;
            }
        }
        ensure_eq!(
            shares(&watch.page()?)?,
            expected,
            "sent by all, round {round}"
        );
    }
    drop(puppets);
    ensure_eq!(shares(&watch.page()?)?, expected, "sent by all that ended");
    Ok(())
}
