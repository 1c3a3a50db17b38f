//! Drives the real agent as a user would, and asserts the values that it caused itself.
//!
//! A test that can't run here says why: it's printed as ignored, and goes into the file that
//! `ESNODE_TEST_SKIPS` names as a line of its name, a tab and the reason. `ESNODE_TEST_WORKLOAD`
//! and `ESNODE_TEST_FOLDER` say where the workload is, and where files may be made.

#![forbid(unsafe_code)]

mod api;
mod check;
mod cli;
mod compose;
mod conservation;
mod disk;
mod docker;
mod fallback;
mod faults;
mod filesystem;
mod fixtures;
mod flood;
mod gpu;
mod groups;
mod health;
mod ladder;
mod latency;
mod lifecycle;
mod network;
mod node;
mod page;
mod parity;
mod power;
mod readers;
mod rungs;
mod selection;
mod server;
mod short_lived;
mod threads;
mod top;
mod without_bpf;

use std::env;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{PoisonError, RwLock};

use anyhow::Result;
use esnode_tests::agent::Agent;
use esnode_tests::docker::Docker;
use esnode_tests::log;
use esnode_tests::skip::Skip;
use esnode_tests::{vm, workload};
use libtest_mimic::{Arguments, Completion, Failed, Trial};

/// Held for reading by most tests, and for writing by those that can't bear others beside them.
static TURN: RwLock<()> = RwLock::new(());

/// A test before it's given to the harness.
struct Case {
    name: String,
    alone: bool,
    run: Box<dyn FnOnce() -> Result<()> + Send>,
}

impl Case {
    /// A test that others may run beside.
    fn new(name: impl Into<String>, run: impl FnOnce() -> Result<()> + Send + 'static) -> Self {
        Self {
            name: name.into(),
            alone: false,
            run: Box::new(run),
        }
    }

    /// A test that runs while no other does.
    fn alone(name: impl Into<String>, run: impl FnOnce() -> Result<()> + Send + 'static) -> Self {
        Self {
            alone: true,
            ..Self::new(name, run)
        }
    }

    fn into_trial(self) -> Trial {
        let name = self.name.clone();
        Trial::ignorable_test(self.name, move || {
            let others = (!self.alone).then(|| TURN.read().unwrap_or_else(PoisonError::into_inner));
            let nobody = self
                .alone
                .then(|| TURN.write().unwrap_or_else(PoisonError::into_inner));
            log::forget();
            let result = (self.run)();
            drop((others, nobody));
            let Err(error) = result else {
                return Ok(Completion::Completed);
            };
            match error.downcast::<Skip>() {
                Ok(Skip(reason)) => {
                    note_skip(&name, &reason)?;
                    Ok(Completion::ignored_with(reason))
                }
                Err(error) => Err(Failed::from(format!("{error:#}{}", log::shown()))),
            }
        })
    }
}

/// Leaves a line for whoever sums up what wasn't tested.
fn note_skip(name: &str, reason: &str) -> Result<()> {
    if let Some(path) = env::var_os("ESNODE_TEST_SKIPS") {
        let mut file = OpenOptions::new().create(true).append(true).open(path)?;
        file.write_all(format!("{name}\t{reason}\n").as_bytes())?;
    }
    Ok(())
}

/// A path from the environment, or the one that cargo had when it built the suite.
fn path(name: &str, built: &str) -> PathBuf {
    env::var_os(name).map_or_else(|| built.into(), PathBuf::from)
}

fn main() -> Result<ExitCode> {
    if vm::is_init() {
        vm::main()?;
    }
    let arguments = Arguments::from_args();
    workload::set_up(
        &path(
            "ESNODE_TEST_WORKLOAD",
            env!("CARGO_BIN_EXE_esnode-workload"),
        ),
        &path("ESNODE_TEST_FOLDER", env!("CARGO_TARGET_TMPDIR")),
    )?;
    let subjects = [
        network::cases(),
        threads::cases(),
        disk::cases(),
        docker::cases(),
        compose::cases(),
        server::cases(),
        api::cases(),
        page::cases(),
        node::cases(),
        fixtures::cases(),
        power::cases(),
        filesystem::cases(),
        parity::cases(),
        readers::cases(),
        cli::cases(),
        health::cases(),
        top::cases(),
        fallback::cases(),
        without_bpf::cases(),
        ladder::cases(),
        rungs::cases(),
        faults::cases(),
        gpu::cases(),
        groups::cases(),
        selection::cases(),
        latency::cases(),
        lifecycle::cases(),
        short_lived::cases(),
        conservation::cases(),
        page::last_cases(),
        // It makes more command names than the agent that tests share has room for.
        flood::cases(),
    ];
    let trials = subjects
        .into_iter()
        .flatten()
        .map(Case::into_trial)
        .collect();
    let conclusion = libtest_mimic::run(&arguments, trials);
    Agent::stop_shared();
    Docker::stop_shared();
    workload::clean_up()?;
    Ok(conclusion.exit_code())
}
