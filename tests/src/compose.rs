//! Docker Compose, in each of its generations that this machine has.
//!
//! It comes from `PATH`, or from Debian's packages below [`tools::folder`]. Asked for its `config` it needs no daemon.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};

use crate::{skip, tools};

/// Variables that files of ours or Compose itself would take from whoever runs the tests.
const FOREIGN: [&str; 4] = ["ESNODE_", "COMPOSE_", "NVIDIA_", "DOCKER_"];

/// The generations, which read the same files and differ in much.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Generation {
    /// 1.29, in Python.
    One,
    /// 2 and later, in Go.
    Two,
}

impl Generation {
    /// Both of them.
    pub const ALL: [Self; 2] = [Self::One, Self::Two];

    fn of(version: &str) -> Option<Self> {
        let (major, _) = version.trim().trim_start_matches('v').split_once('.')?;
        match major.parse() {
            Ok(1) => Some(Self::One),
            Ok(2..=u32::MAX) => Some(Self::Two),
            _ => None,
        }
    }
}

impl fmt::Display for Generation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::One => "v1",
            Self::Two => "v2",
        })
    }
}

/// One that was found.
#[derive(Clone, Debug)]
pub struct Compose {
    /// Which it is.
    pub generation: Generation,
    /// What it says that it is, such as `1.29.2`.
    pub version: String,
    program: Program,
}

/// How it is started.
#[derive(Clone, Debug)]
struct Program {
    file: OsString,
    arguments: Vec<OsString>,
    /// Where Python finds it, if that is not where Python looks by itself.
    modules: Option<PathBuf>,
}

impl Compose {
    /// All generations that are here, the first of each that is found.
    #[must_use]
    pub fn all() -> Vec<Self> {
        let mut all: Vec<Self> = Vec::new();
        for program in programs() {
            let Some(found) = Self::ask(program) else {
                continue;
            };
            if all.iter().all(|seen| seen.generation != found.generation) {
                all.push(found);
            }
        }
        all
    }

    /// The one of this generation; without it, the test is skipped.
    pub fn find(generation: Generation) -> Result<Self> {
        let mut all = Self::all().into_iter();
        match all.find(|compose| compose.generation == generation) {
            Some(compose) => Ok(compose),
            None => skip!(
                "needs Docker Compose {generation}, in PATH or brought by `cargo xtask tools`"
            ),
        }
    }

    /// The command that runs it, without any variable that a file could take by accident: none of
    /// the environment's, and none of an `.env` file.
    #[must_use]
    pub fn command(&self) -> Command {
        let own = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut command = self.program.command();
        command.arg("--env-file").arg(own.join("empty.env"));
        command
    }

    /// What `config` makes of these arguments, which come before it: one document.
    pub fn config<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Result<String> {
        let mut command = self.command();
        command.args(arguments).arg("config");
        let output = command.output().with_context(|| format!("{command:?}"))?;
        ensure!(
            output.status.success(),
            "{command:?}: {}: {}",
            output.status,
            String::from_utf8_lossy(&output.stderr).trim_end()
        );
        Ok(String::from_utf8(output.stdout)?)
    }

    fn ask(program: Program) -> Option<Self> {
        let output = program.command().args(["version", "--short"]).output();
        let output = output.ok().filter(|output| output.status.success())?;
        let version = String::from_utf8(output.stdout).ok()?.trim().to_owned();
        Some(Self {
            generation: Generation::of(&version)?,
            version,
            program,
        })
    }
}

impl Program {
    fn new(file: impl Into<OsString>) -> Self {
        Self {
            file: file.into(),
            arguments: Vec::new(),
            modules: None,
        }
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.file);
        command.args(&self.arguments).stdin(Stdio::null());
        for (name, _) in env::vars_os() {
            let known = name.to_string_lossy();
            if FOREIGN.iter().any(|start| known.starts_with(start)) {
                command.env_remove(&name);
            }
        }
        if let Some(modules) = &self.modules {
            command.env("PYTHONPATH", modules);
        }
        command
    }
}

/// Whatever may be one, in the order in which they are preferred.
fn programs() -> Vec<Program> {
    let mut programs = vec![
        Program {
            arguments: vec!["compose".into()],
            ..Program::new("docker")
        },
        Program::new("docker-compose"),
    ];
    if let Some(tools) = tools::folder() {
        let usr = tools.join("usr");
        programs.push(Program::new(
            usr.join("libexec/docker/cli-plugins/docker-compose"),
        ));
        // A script, whose first line may name a Python without its modules.
        programs.push(Program {
            arguments: vec![usr.join("bin/docker-compose").into()],
            modules: Some(usr.join("lib/python3/dist-packages")),
            ..Program::new("/usr/bin/python3")
        });
    }
    programs
}
