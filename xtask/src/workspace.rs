//! Where things are, and how cargo is called.

use std::{
    env,
    ffi::OsString,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

/// What `cargo run` adds to the environment of xtask, and what would move the results elsewhere.
/// Build scripts that watch one of these would run again at every change between
/// `cargo build` and `cargo xtask build`.
const NOT_INHERITED: [&str; 8] = [
    "CARGO_BIN_",
    "CARGO_BUILD_TARGET",
    "CARGO_CRATE_NAME",
    "CARGO_MANIFEST_",
    "CARGO_PKG_",
    "CARGO_PRIMARY_PACKAGE",
    "CARGO_TARGET_DIR",
    "OUT_DIR",
];

const OWN_FOLDER: &str = env!("CARGO_MANIFEST_DIR");

/// The checkout that xtask belongs to.
pub(crate) struct Workspace {
    /// The folder of the workspace's `Cargo.toml`.
    pub(crate) root: PathBuf,
    /// `CARGO_TARGET_DIR`, or `target` in the root.
    pub(crate) target: PathBuf,
    cargo: OsString,
}

impl Workspace {
    pub(crate) fn locate() -> Result<Self> {
        // What cargo says at run time comes first: checkouts that share a target folder share
        // the xtask of one of them.
        let own = env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| OWN_FOLDER.into());
        let root = Path::new(&own)
            .parent()
            .context("the folder of xtask has no parent")?
            .to_owned();
        let target = match env::var_os("CARGO_TARGET_DIR") {
            Some(dir) => std::path::absolute(dir).context("CARGO_TARGET_DIR")?,
            None => root.join("target"),
        };
        let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        Ok(Self {
            root,
            target,
            cargo,
        })
    }

    /// The agent, as [`crate::build`] leaves it.
    pub(crate) fn agent(&self) -> PathBuf {
        self.target.join("release/esnode-core")
    }

    /// Where programs that cargo installs for building go, as `cargo install --root` takes it.
    pub(crate) fn tools(&self) -> PathBuf {
        self.target.join("tools")
    }

    /// A program that runs in the root, where `rust-toolchain.toml` chooses the toolchain.
    pub(crate) fn program(&self, program: impl Into<OsString>) -> Command {
        let mut command = Command::new(program.into());
        command.current_dir(&self.root);
        for (name, _) in env::vars_os() {
            let inherited = name
                .to_str()
                .is_none_or(|name| !NOT_INHERITED.iter().any(|prefix| name.starts_with(prefix)));
            if !inherited {
                command.env_remove(name);
            }
        }
        command
    }

    /// `cargo SUBCOMMAND`, by the cargo that runs xtask.
    pub(crate) fn cargo(&self, subcommand: &str) -> Command {
        let mut command = self.program(self.cargo.clone());
        command.arg(subcommand);
        command
    }

    /// [`Self::cargo`] for subcommands that compile the workspace.
    pub(crate) fn cargo_locked(&self, subcommand: &str) -> Command {
        let mut command = self.cargo(subcommand);
        command
            .arg("--locked")
            .arg("--target-dir")
            .arg(&self.target);
        command
    }

    /// What the toolchain's `rustc` answers to `arguments`, without the last line break.
    pub(crate) fn rustc(&self, arguments: &[&str]) -> Result<String> {
        let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
        let mut command = self.program(rustc);
        crate::step::capture(command.args(arguments))
    }
}
