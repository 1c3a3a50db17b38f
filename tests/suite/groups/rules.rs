//! Groups by the configuration file of process-exporter.

use anyhow::{Result, ensure};
use esnode_tests::agent::run;
use esnode_tests::puppet::{Programs, Puppet};

use super::support::{By, Watch, check_refused, check_sent, count, file, label_of};
use crate::Case;
use crate::check::ensure_eq;

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::alone("groups::rules::examples_of_process_exporter", || {
            examples(By::Bpf)
        }),
        Case::alone(
            "groups::rules::examples_of_process_exporter_without_bpf",
            || examples(By::Procfs),
        ),
        Case::alone("groups::rules::children_of_a_named_process", || {
            children(By::Bpf)
        }),
        Case::alone(
            "groups::rules::children_of_a_named_process_without_bpf",
            || children(By::Procfs),
        ),
        Case::alone("groups::rules::unseen_processes_by_their_name", unseen),
        Case::alone("groups::rules::same_as_by_command", default_of_packages),
        Case::alone("groups::rules::bad_files_are_refused", bad_files),
    ]
}

/// Rules as in the README of process-exporter: by `comm`, by `exe`, and by `cmdline` with captures.
const RULES: &str = r#"
process_names:
  # comm is the second field of /proc/<pid>/stat minus parens.
  - comm:
    - rules-bash

  # exe is argv[0]. If no slashes, only basename of argv[0] need match.
  - exe:
    - rules-postgres
    cmdline:
    - --config_path\s+(?P<Path>\S+)
    name: "{{.ExeBase}}:{{.Matches.Path}}"

  - name: "{{.ExeFull}}@{{.Comm}}"
    exe:
    - rules-full

  # A JVM by the class that it runs.
  - name: "{{.Matches.Cfgfile}}"
    cmdline:
    - rules-java\s.*-cfg=(?P<Cfgfile>[^ ]+)
    - -Xmx\d+m
"#;

const ALL: [&str; 2] = ["--process-limit", "100000"];

/// A puppet of this program, which has its own name for `argv[0]`.
fn start(programs: &Programs, name: &str, words: &[&str]) -> Result<Puppet> {
    let title = programs.get(name)?.to_string_lossy().into_owned();
    Puppet::start(programs, name, &title, &[&["serve"], words].concat())
}

fn examples(by: By) -> Result<()> {
    let programs = Programs::new(&format!("examples-{by:?}"))?;
    let rules = file(&programs, "all.yaml", RULES)?;
    let watch = Watch::start(by, &[&ALL[..], &["--group-config", &rules]].concat())?;
    let full = programs.get("rules-full")?;
    let full = format!("{}@rules-full", full.display());
    let cases = [
        ("rules-bash", &[][..], "rules-bash"),
        (
            "rules-postgres",
            &["--config_path", "/etc/pg.conf"],
            "rules-postgres:/etc/pg.conf",
        ),
        ("rules-postgres", &["--other"], "other"),
        ("rules-full", &[], &full),
        (
            "rules-java",
            &["-Xmx512m", "-cfg=kafka.properties"],
            "kafka.properties",
        ),
        ("rules-java", &["-cfg=kafka.properties"], "other"),
    ];
    let mut puppets = Vec::new();
    for (name, words, _) in &cases {
        puppets.push(start(&programs, name, words)?);
    }
    watch.page()?;
    for (puppet, bytes) in puppets.iter_mut().zip(1..) {
        puppet.order(&format!("send {bytes}000"))?;
    }
    let page = watch.page()?;
    for ((puppet, (name, words, group)), bytes) in puppets.iter().zip(&cases).zip(1_u64..) {
        let seen = label_of(&page, puppet.root.pid(), "group")?;
        ensure_eq!(seen, *group, "group of {name} {words:?}");
        if *group != "other" {
            ensure_eq!(count(&page, "processes", group)?, 1, "processes of {group}");
            if by == By::Bpf {
                check_sent(&page, group, bytes * 1_000)?;
            }
        }
    }
    ensure!(count(&page, "processes", "other")? >= 2, "others");
    drop(puppets);
    let page = watch.page()?;
    ensure_eq!(
        count(&page, "processes", "kafka.properties")?,
        0,
        "processes"
    );
    if by == By::Bpf {
        check_sent(&page, "kafka.properties", 5_000)?;
    }
    Ok(())
}

/// A process that no rule names is in the group of its nearest ancestor that has one.
fn children(by: By) -> Result<()> {
    let programs = Programs::new(&format!("children-{by:?}"))?;
    let rules = file(&programs, "all.yaml", RULES)?;
    let watch = Watch::start(by, &[&ALL[..], &["--group-config", &rules]].concat())?;
    let words = ["--config_path", "family"];
    let mut parent = start(&programs, "rules-postgres", &words)?;
    let group = "rules-postgres:family";
    watch.page()?;
    let tool = programs.get("some-tool")?;
    let bash = programs.get("rules-bash")?;
    let mut child = parent.spawn(&tool, "some-tool", &[])?;
    parent.order_child(&mut child, "send 1000")?;
    let mut named = parent.spawn_from(&mut child, &bash, "rules-bash", &[])?;
    parent.order_child(&mut named, "send 5000")?;
    parent.order_child(&mut child, &format!("run 50 100 {}", tool.display()))?;
    let page = watch.page()?;
    ensure_eq!(
        label_of(&page, child.pid, "group")?,
        group,
        "group of the child"
    );
    ensure_eq!(
        label_of(&page, named.pid, "group")?,
        "rules-bash",
        "one with a rule"
    );
    ensure_eq!(count(&page, "processes", group)?, 2, "processes");
    if by == By::Bpf {
        check_sent(&page, group, 6_000)?;
        check_sent(&page, "rules-bash", 5_000)?;
        ensure_eq!(
            count(&page, "exited_total", group)?,
            50,
            "children that ended"
        );
    }
    Ok(())
}

/// Where the command name decides, a process that nobody saw alive is in its group.
fn unseen() -> Result<()> {
    let programs = Programs::new("unseen-rules")?;
    let text = "process_names:\n  - comm: [rules-bash]\n    name: \"shells\"\n  - exe: [x]\n";
    let rules = file(&programs, "all.yaml", text)?;
    let watch = Watch::start(By::Bpf, &[&ALL[..], &["--group-config", &rules]].concat())?;
    let bash = programs.get("rules-bash")?;
    let mut parent = Puppet::start(&programs, "nobody", "nobody", &[])?;
    parent.order(&format!("run 30 1000 {}", bash.display()))?;
    // The parent was not seen either, so its children were in no group of its.
    let page = watch.page()?;
    check_sent(&page, "shells", 30_000)?;
    ensure_eq!(count(&page, "exited_total", "shells")?, 30, "ended");
    // Now it is in `other`, and what it starts is a matter of rules all the same.
    parent.order(&format!("run 30 1000 {}", bash.display()))?;
    check_sent(&watch.page()?, "shells", 60_000)
}

/// The configuration that the packages of process-exporter bring groups by command name.
fn default_of_packages() -> Result<()> {
    let programs = Programs::new("default-rules")?;
    let text = "process_names:\n  - name: \"{{.Comm}}\"\n    cmdline:\n    - '.+'\n";
    let rules = file(&programs, "all.yaml", text)?;
    let watch = Watch::start(By::Bpf, &[&ALL[..], &["--group-config", &rules]].concat())?;
    let tool = programs.get("default-tool")?;
    let mut puppet = Puppet::start(&programs, "default-main", "default-main", &[])?;
    puppet.order("send 700")?;
    watch.page()?;
    puppet.order("send 300")?;
    let mut child = puppet.spawn(&tool, "default-tool", &[])?;
    puppet.order_child(&mut child, "send 2000")?;
    puppet.order(&format!("run 20 100 {}", tool.display()))?;
    let page = watch.page()?;
    check_sent(&page, "default-main", 1_000)?;
    check_sent(&page, "default-tool", 4_000)?;
    ensure_eq!(count(&page, "exited_total", "default-tool")?, 20, "ended");
    Ok(())
}

/// A file that cannot be used ends the agent, which names the file and the line.
fn bad_files() -> Result<()> {
    let programs = Programs::new("bad-files")?;
    for (name, text, line) in [
        ("yaml.yaml", "process_names:\n  - comm: [a\n", None),
        (
            "regex.yaml",
            "process_names:\n  - name: x\n    cmdline:\n    - '(('\n",
            Some(4),
        ),
        (
            "name.yaml",
            "process_names:\n  - name: \"{{.Nothing}}\"\n    comm:\n    - x\n",
            Some(2),
        ),
    ] {
        let path = file(&programs, name, text)?;
        check_refused("--group-config", &path, line)?;
    }
    for flags in [
        &["--group-by", "rules"][..],
        &["--group-by", "engine", "--group-config", "x"],
    ] {
        let output = run(flags)?;
        ensure!(!output.status.success(), "{flags:?} were taken");
        let said = String::from_utf8(output.stderr)?;
        ensure!(said.contains("--group-config"), "{said:?}");
    }
    Ok(())
}
