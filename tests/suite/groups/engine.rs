//! Groups by engine and model.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};
use esnode_tests::agent::{Agent, run};
use esnode_tests::http;
use esnode_tests::page::Page;
use esnode_tests::puppet::{Child, Programs, Puppet};
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

use super::support::{By, Watch, check_refused, check_sent, count, file, label_of};
use crate::Case;
use crate::check::ensure_eq;

pub(crate) fn cases() -> Vec<Case> {
    vec![
        // They look at what counts under names that others have as well.
        Case::alone("groups::engine::server_worker_and_compilers", || {
            family(By::Bpf)
        }),
        Case::alone(
            "groups::engine::server_worker_and_compilers_without_bpf",
            || family(By::Procfs),
        ),
        Case::new("groups::engine::first_page_of_what_was_there", older),
        Case::new("groups::engine::orphans_stay_what_they_are", || {
            orphans(By::Bpf)
        }),
        Case::new(
            "groups::engine::orphans_stay_what_they_are_without_bpf",
            || orphans(By::Procfs),
        ),
        Case::new("groups::engine::rules_of_a_user", own_rules),
        Case::new("groups::engine::bad_rules_are_refused", bad_rules),
    ]
}

const BY_ENGINE: [&str; 4] = ["--group-by", "engine", "--process-limit", "100000"];

/// A server that looks like vLLM's, with a worker.
struct Serving {
    programs: Programs,
    server: Puppet,
    worker: Child,
    group: String,
}

impl Serving {
    fn start(folder: &str, model: &str) -> Result<Self> {
        let programs = Programs::new(folder)?;
        let title = programs.get("vllm")?.to_string_lossy().into_owned();
        let words = ["serve", model, "--tensor-parallel-size", "2"];
        let mut server = Puppet::start(&programs, "vllm", &title, &words)?;
        // As setproctitle leaves it: one string, and a name cut at 15 bytes.
        let worker = programs.get("VLLM::Worker_TP")?;
        let worker = server.spawn(&worker, "VLLM::Worker_TP1", &[])?;
        Ok(Self {
            programs,
            server,
            worker,
            group: format!("vllm/{model}"),
        })
    }
}

/// Fails where a process is taken for something else.
fn check_identity(page: &Page, pid: u32, expected: [(&str, &str); 5]) -> Result<()> {
    for (label, value) in expected {
        ensure_eq!(label_of(page, pid, label)?, value, "{label} of {pid}");
    }
    Ok(())
}

/// All that a server, its worker and what the worker runs send is the model's.
fn family(by: By) -> Result<()> {
    const MODEL: &str = "org/family-7B";
    let watch = Watch::start(by, &BY_ENGINE)?;
    let mut it = Serving::start(&format!("family-{by:?}"), MODEL)?;
    let group = it.group.clone();
    let page = watch.page()?;
    ensure_eq!(count(&page, "processes", &group)?, 2, "processes");
    let (server, worker) = (it.server.root.pid(), it.worker.pid);
    let named = |role, rank| {
        [
            ("engine", "vllm"),
            ("role", role),
            ("rank", rank),
            ("model", MODEL),
            ("group", group.as_str()),
        ]
    };
    check_identity(&page, server, named("server", ""))?;
    check_identity(&page, worker, named("worker", "TP1"))?;
    check_api(&watch.agent, &[(server, server), (worker, server)])?;
    let info = [
        ("group", group.as_str()),
        ("engine", "vllm"),
        ("model", MODEL),
    ];
    ensure_eq!(
        page.select("esnode_group_info", &info).len(),
        1,
        "group info"
    );
    let started = count(&page, "started_total", &group)?;
    let compiler = it.programs.get("cc-of-worker")?;
    it.server.order("send 1000")?;
    it.server.order_child(&mut it.worker, "send 2000")?;
    it.server.order_child(&mut it.worker, "fork 40 100")?;
    let run = format!("run 40 100 {}", compiler.display());
    it.server.order_child(&mut it.worker, &run)?;
    let mut tool = it.server.spawn_from(&mut it.worker, &compiler, "cc", &[])?;
    it.server.order_child(&mut tool, "send 500")?;
    let page = watch.page()?;
    check_identity(&page, tool.pid, named("child", ""))?;
    ensure_eq!(count(&page, "processes", &group)?, 3, "processes");
    if by == By::Bpf {
        check_sent(&page, &group, 1_000 + 2_000 + 4_000 + 4_000 + 500)?;
        for (family, more) in [("started_total", 81), ("exited_total", 80)] {
            let seen = count(&page, family, &group)?;
            let before = if family == "started_total" {
                started
            } else {
                0
            };
            ensure_eq!(seen - before, more, "{family}");
        }
    }
    for command in ["vllm", "VLLM::Worker_TP", "cc-of-worker"] {
        check_sent(&page, command, 0)?;
        ensure_eq!(
            count(&page, "processes", command)?,
            0,
            "processes of {command}"
        );
    }
    Ok(())
}

/// Fails where the API names another server.
fn check_api(agent: &Agent, expected: &[(u32, u32)]) -> Result<()> {
    let answer = http::get(agent.address()?, "/api/v1/processes")?;
    let answer: serde_json::Value = serde_json::from_str(answer.text()?)?;
    let all = answer
        .get("processes")
        .and_then(serde_json::Value::as_array);
    let number = |process: &serde_json::Value, key: &str| process.get(key)?.as_u64();
    let servers: BTreeMap<_, _> = all
        .with_context(|| format!("no processes in {answer}"))?
        .iter()
        .map(|process| (number(process, "pid"), number(process, "server_pid")))
        .collect();
    for (pid, server) in expected {
        let seen = servers.get(&Some(u64::from(*pid))).copied().flatten();
        ensure_eq!(seen, Some(u64::from(*server)), "server of {pid}");
    }
    Ok(())
}

/// A server that was there before the agent: what was sent earlier is nobody's, as always.
fn older() -> Result<()> {
    let mut it = Serving::start("older", "org/older")?;
    it.server.order_child(&mut it.worker, "send 9000")?;
    let watch = Watch::start(By::Bpf, &BY_ENGINE)?;
    it.server.order_child(&mut it.worker, "send 2000")?;
    it.server.order_child(&mut it.worker, "fork 3 100")?;
    check_sent(&watch.page()?, &it.group, 2_300)?;
    it.server.order_child(&mut it.worker, "send 100")?;
    check_sent(&watch.page()?, &it.group, 2_400)
}

/// A worker whose server was killed still holds its memory, and is still known.
fn orphans(by: By) -> Result<()> {
    // The other one of these runs at the same time.
    let model = format!("org/orphan-{by:?}");
    let watch = Watch::start(by, &BY_ENGINE)?;
    let mut it = Serving::start(&format!("orphans-{by:?}"), &model)?;
    watch.page()?;
    it.server.order_child(&mut it.worker, "send 1000")?;
    it.server.root.kill()?;
    let page = watch.page()?;
    let known = [
        ("engine", "vllm"),
        ("role", "worker"),
        ("rank", "TP1"),
        ("model", model.as_str()),
        ("group", it.group.as_str()),
    ];
    check_identity(&page, it.worker.pid, known)?;
    ensure_eq!(count(&page, "processes", &it.group)?, 1, "processes");
    it.server.order_child(&mut it.worker, "send 2000")?;
    it.server.order_child(&mut it.worker, "fork 5 100")?;
    let page = watch.page()?;
    check_identity(&page, it.worker.pid, known)?;
    if by == By::Bpf {
        check_sent(&page, &it.group, 3_500)?;
    }
    Ok(())
}

/// An engine that only its user knows.
fn own_rules() -> Result<()> {
    let programs = Programs::new("own-rules")?;
    let rules = "[[rule]]\nname = \"ours\"\nengine = \"brewer\"\nrole = \"server\"\nserver = true\n\
        program = [\"brew-server\"]\nmodel = { flags = [\"--weights\"] }\n";
    let rules = file(&programs, "rules.toml", rules)?;
    let flags = [&BY_ENGINE[..], &["--engine-rules", &rules]].concat();
    let watch = Watch::start(By::Bpf, &flags)?;
    let title = programs.get("brew-server")?.to_string_lossy().into_owned();
    let words = ["serve", "--weights", "tea/green-1B"];
    let mut puppet = Puppet::start(&programs, "brew-server", &title, &words)?;
    puppet.order("send 700")?;
    watch.page()?;
    puppet.order("fork 3 100")?;
    let page = watch.page()?;
    check_sent(&page, "brewer/tea/green-1B", 1_000)?;
    let pid = puppet.root.pid();
    for (label, value) in [
        ("engine", "brewer"),
        ("role", "server"),
        ("model", "tea/green-1B"),
    ] {
        ensure_eq!(label_of(&page, pid, label)?, value, "{label}");
    }
    Ok(())
}

/// What cannot be used ends the agent, which names the file and the line.
fn bad_rules() -> Result<()> {
    let programs = Programs::new("bad-rules")?;
    let good = "[[rule]]\nname = \"ours\"\nengine = \"brewer\"\nrole = \"server\"\n";
    for (name, text, line) in [
        ("form.toml", "[[rule]]\nname = \n".to_owned(), Some(2)),
        ("regex.toml", format!("{good}title = '(('\n"), Some(5)),
        ("key.toml", format!("{good}programme = [\"x\"]\n"), Some(5)),
        ("missing.toml", String::new(), None),
    ] {
        let path = programs.file(name).to_string_lossy().into_owned();
        if line.is_some() {
            file(&programs, name, &text)?;
        }
        check_refused("--engine-rules", &path, line)?;
    }
    // What never ends, and what never begins.
    for flag in ["--engine-rules", "--group-config"] {
        let pipe = programs.file(&flag.replace('-', "_"));
        mkfifo(&pipe, Mode::S_IRWXU)?;
        for path in ["/dev/zero", &pipe.to_string_lossy()] {
            let output = run(&[flag, path])?;
            let said = String::from_utf8(output.stderr)?;
            ensure_eq!(output.status.code(), Some(1), "exit code for {path}");
            let expected = format!("cannot read {path}: not a file");
            ensure!(said.contains(&expected), "{expected:?} is not in {said:?}");
        }
    }
    Ok(())
}
