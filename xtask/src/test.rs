//! `cargo xtask test`: every test that this machine can run.

use std::{
    collections::BTreeMap,
    env,
    ffi::OsString,
    fs,
    path::PathBuf,
    process::{Command, ExitCode},
};

use anyhow::{Context as _, Result};

use crate::{
    build, image, privilege, step,
    tally::{Skip, Tally},
    tools,
    vm::programs,
    workspace::Workspace,
};

/// Build everything and run every test that this machine can run.
///
/// First the tests beside the code, then the suite that drives the real agent. The suite loads
/// BPF programs, so it runs as root, or through sudo where that asks no password. Where dockerd
/// is, on the path or below target/tools/debian, tests in containers run too, with static builds
/// of the agent and its workload. What cannot run here is listed at the end with the reason; the
/// last line counts all tests.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  cargo xtask test tcp                  all tests with `tcp` in their names
  cargo xtask test -- --test-threads 1  arguments for the test harness")]
pub(crate) struct Args {
    #[command(flatten)]
    ebpf: build::Ebpf,
    /// Run only tests whose names contain this
    filter: Option<String>,
    /// Arguments for the test harness
    #[arg(last = true, value_name = "ARGS")]
    harness: Vec<OsString>,
}

/// What the tests gave so far.
#[derive(Default)]
struct Outcome {
    tally: Tally,
    /// Reasons by name.
    skips: BTreeMap<String, String>,
}

pub(crate) fn main(args: &Args) -> Result<ExitCode> {
    run(&Workspace::locate()?, args, true)
}

/// Runs those tests of the suite whose names contain this.
pub(crate) fn black_box(workspace: &Workspace, filter: &str) -> Result<ExitCode> {
    let args = Args {
        ebpf: build::Ebpf::default(),
        filter: Some(filter.to_owned()),
        harness: Vec::new(),
    };
    run(workspace, &args, false)
}

fn run(workspace: &Workspace, args: &Args, unit_tests: bool) -> Result<ExitCode> {
    // Before cargo may put another one in its place.
    let xtask = env::current_exe().context("cannot tell where xtask is")?;
    let built = build::build(workspace, &args.ebpf)?;
    let fake_nvml = build::fake_nvml(workspace)?;
    let mut outcome = Outcome::default();

    if unit_tests {
        outcome.test("unit tests", args, || {
            let mut cargo = workspace.cargo_locked("test");
            cargo
                .args(["--workspace", "--exclude=esnode-tests"])
                .env("ESNODE_CORE", &built.agent)
                .env("ESNODE_FAKE_NVML", &fake_nvml);
            built.set_object(&mut cargo);
            cargo
        })?;
    }

    let report = workspace.target.join("skipped-tests.tsv");
    fs::write(&report, "").with_context(|| format!("cannot write {}", report.display()))?;
    let root = Root::find();
    let runner = root.runner(workspace)?;
    let mut others = containers(workspace, args)?;
    others.push(("ESNODE_TEST_TOOLS", tools::folder(workspace)));
    outcome.test("black-box tests", args, || {
        let mut cargo = workspace.cargo_locked("test");
        cargo
            .args(["--release", "--package=esnode-tests"])
            .env("ESNODE_CORE", &built.agent)
            .env("ESNODE_FAKE_NVML", &fake_nvml)
            .env("ESNODE_TEST_SKIPS", &report)
            .env("ESNODE_XTASK", &xtask)
            .envs(others.clone())
            .envs(runner.clone());
        cargo
    })?;

    let reported =
        fs::read_to_string(&report).with_context(|| format!("cannot read {}", report.display()))?;
    outcome.skip(Skip::read_report(&reported));
    Ok(outcome.finish(root))
}

impl Outcome {
    /// Compiles tests, which ends everything when it fails, then runs and counts them.
    fn test(&mut self, name: &str, args: &Args, cargo: impl Fn() -> Command) -> Result<()> {
        step::run(&format!("Building the {name}"), cargo().arg("--no-run"))?;
        let mut cargo = cargo();
        cargo.arg("--no-fail-fast").args(&args.filter);
        cargo.arg("--").args(&args.harness);
        let (status, output) = step::tee(&format!("Running the {name}"), &mut cargo)?;
        let mut tally = Tally::read(&output);
        if !status.success() && tally.failed == 0 {
            eprintln!("error: the {name} ended early ({status}), which counts as one failure");
            tally.failed = 1;
        }
        self.tally += tally;
        self.skip(Skip::read_output(&output));
        Ok(())
    }

    /// Takes note of skipped tests; of the reasons for one test, the last is kept.
    fn skip(&mut self, skips: Vec<Skip>) {
        self.skips
            .extend(skips.into_iter().map(|skip| (skip.name, skip.reason)));
    }

    fn finish(self, root: Root) -> ExitCode {
        step::announce("The tests are done");
        if root == Root::Unavailable {
            step::print(
                "The black-box tests ran without root, as sudo is missing or asks for a password.",
            );
        }
        if self.skips.is_empty() && self.tally.skipped == 0 {
            step::print("Nothing was skipped.");
        } else {
            step::print("Skipped on this machine:");
        }
        for (name, reason) in &self.skips {
            step::print(&format!("  {name}: {reason}"));
        }
        step::print(&self.tally.to_string());
        ExitCode::from(u8::from(self.tally.failed > 0))
    }
}

/// What tests in containers need, by variable: static builds of the agent and the workload, and what
/// the image is made from. Nothing where such tests can't run or aren't asked for.
fn containers(workspace: &Workspace, args: &Args) -> Result<Vec<(&'static str, PathBuf)>> {
    let path = env::var_os("PATH").unwrap_or_default();
    let mut folders = env::split_paths(&path).chain([tools::folder(workspace).join("usr/sbin")]);
    let there = folders.any(|folder| folder.join("dockerd").is_file());
    let asked = |filter: &String| filter.contains("docker") || filter.contains("compose");
    if !there || !args.filter.as_ref().is_none_or(asked) {
        return Ok(Vec::new());
    }
    let (agent, workload) = programs::for_containers(workspace)?;
    let image = image::prepare(workspace)?.folder;
    Ok(vec![
        ("ESNODE_IMAGE_CONTEXT", image),
        ("ESNODE_STATIC_AGENT", agent),
        ("ESNODE_STATIC_WORKLOAD", workload),
    ])
}

/// How the black-box tests become root.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Root {
    Already,
    Sudo,
    Unavailable,
}

impl Root {
    fn find() -> Self {
        if privilege::is_root() {
            Self::Already
        } else if privilege::has_free_sudo() {
            Self::Sudo
        } else {
            Self::Unavailable
        }
    }

    /// The variable that makes cargo start the tests, and only them, through sudo.
    fn runner(self, workspace: &Workspace) -> Result<Option<(String, String)>> {
        if self != Self::Sudo {
            return Ok(None);
        }
        let rustc = workspace.rustc(&["-vV"])?;
        let host = rustc
            .lines()
            .find_map(|line| line.strip_prefix("host: "))
            .context("`rustc -vV` names no host")?;
        let name = host.to_uppercase().replace(['-', '.'], "_");
        let keep = privilege::preserve_env([
            "ESNODE_CORE",
            "ESNODE_FAKE_NVML",
            "ESNODE_IMAGE_CONTEXT",
            "ESNODE_STATIC_AGENT",
            "ESNODE_STATIC_WORKLOAD",
            "ESNODE_TEST_SKIPS",
            "ESNODE_TEST_TOOLS",
            "ESNODE_XTASK",
        ]);
        Ok(Some((
            format!("CARGO_TARGET_{name}_RUNNER"),
            format!("sudo -n {keep} --"),
        )))
    }
}
