//! Processors that things are built for, by the names that the tools have for them.

use std::{
    env::consts::ARCH,
    fs,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result};
use clap::ValueEnum;

use crate::{step, workspace::Workspace};

/// A processor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Processor {
    #[value(name = "x86_64", alias = "amd64")]
    X86_64,
    #[value(name = "arm64", alias = "aarch64")]
    Arm64,
}

impl Processor {
    /// The processor of this machine.
    pub(crate) fn own() -> Result<Self> {
        let own = Self::value_variants()
            .iter()
            .find(|processor| processor.arch() == ARCH);
        own.copied()
            .with_context(|| format!("this is made for x86-64 and arm64, not for {ARCH}"))
    }

    /// As Rust calls it.
    pub(crate) fn arch(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64",
            Self::Arm64 => "aarch64",
        }
    }

    /// As Debian, Docker and Go call it.
    pub(crate) fn debian(self) -> &'static str {
        match self {
            Self::X86_64 => "amd64",
            Self::Arm64 => "arm64",
        }
    }

    /// What builds programs that need nothing of the system.
    pub(crate) fn static_target(self) -> String {
        format!("{}-unknown-linux-musl", self.arch())
    }

    /// What builds programs for the GNU C library.
    pub(crate) fn gnu_target(self) -> String {
        format!("{}-unknown-linux-gnu", self.arch())
    }

    /// What the C library of Debian and its kin is called by, also in the names of cross compilers.
    pub(crate) fn multiarch(self) -> String {
        format!("{}-linux-gnu", self.arch())
    }
}

/// The variable that tells cargo what links programs for a target.
pub(crate) fn linker_variable(target: &str) -> String {
    let name = target.to_uppercase().replace('-', "_");
    format!("CARGO_TARGET_{name}_LINKER")
}

/// Makes cargo link static programs by the linker that comes with Rust: for another processor there
/// is mostly no other.
pub(crate) fn link_by_rust(cargo: &mut Command, target: &str) {
    cargo.env(linker_variable(target), "rust-lld");
}

/// Brings Rust's standard library for a target.
pub(crate) fn ensure_standard_library(workspace: &Workspace, target: &str) -> Result<()> {
    let folder = workspace.rustc(&["--print", "target-libdir", "--target", target])?;
    if fs::read_dir(&folder).is_ok_and(|mut files| files.next().is_some()) {
        return Ok(());
    }
    let mut rustup = workspace.program("rustup");
    rustup.args(["target", "add", target]).stdin(Stdio::null());
    step::run(&format!("Adding the target {target}"), &mut rustup).with_context(|| {
        format!("the standard library for {target} is missing: `rustup target add {target}`")
    })
}
