//! `cargo xtask build-ebpf`: the BPF programs, with the tools that building them needs.

use std::{
    env::consts::ARCH,
    ffi::OsString,
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use anyhow::{Context as _, Result, bail};

use crate::{step, workspace::Workspace};

/// The last bpf-linker that links with the LLVM inside rustc; later ones need LLVM 23 on the
/// machine. When the pinned Rust changes its LLVM, this has to follow.
const BPF_LINKER: &str = "0.10.4";

const TARGET: &str = if cfg!(target_endian = "little") {
    "bpfel-unknown-none"
} else {
    "bpfeb-unknown-none"
};

/// Build the BPF programs.
///
/// Leaves them in `target/bpf/esnode.bpf.o`, from where `cargo xtask build` takes them into the
/// agent. Brings the rust-src component (by rustup) and bpf-linker (by `cargo install`, into
/// `target/tools`) where they are missing; that takes one to three minutes, once.
#[derive(clap::Args)]
pub(crate) struct Args {}

pub(crate) fn main(_: &Args) -> Result<ExitCode> {
    let object = build(&Workspace::locate()?)?;
    step::announce(&format!("Built {}", object.display()));
    Ok(ExitCode::SUCCESS)
}

/// Builds the programs and returns the path of the object.
pub(crate) fn build(workspace: &Workspace) -> Result<PathBuf> {
    build_for(workspace, ARCH).context(
        "the BPF programs were not built; \
         `--no-ebpf` does without them: `cargo xtask build --no-ebpf`, and so for `run` and `test`",
    )
}

/// Builds the programs for kernels of this architecture.
pub(crate) fn build_for(workspace: &Workspace, arch: &str) -> Result<PathBuf> {
    ensure_rust_src(workspace)?;
    ensure_bpf_linker(workspace)?;
    let mut cargo = workspace.cargo("build");
    target_options(&mut cargo, workspace, arch);
    step::run("Building the BPF programs", &mut cargo)?;

    let folder = folder(workspace, arch);
    let object = folder.join("esnode.bpf.o");
    replace(&folder.join(TARGET).join("bpf/esnode"), &object)?;
    Ok(object)
}

/// Makes a cargo command work on the programs and their target, which is in no toolchain:
/// `core` is compiled from rust-src, which a pinned stable compiler allows under
/// `RUSTC_BOOTSTRAP`.
pub(crate) fn target_options(cargo: &mut Command, workspace: &Workspace, arch: &str) {
    cargo
        .args(["--package=esnode-ebpf", "--lib", "--bin=esnode"])
        .args(["--features=programs", "--profile=bpf", "--locked"])
        .args(["--target", TARGET, "-Zbuild-std=core"])
        .arg("--target-dir")
        .arg(folder(workspace, arch))
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_ENCODED_RUSTFLAGS", rustflags(workspace, arch));
}

/// The folder of what is built for an architecture, the host's or another.
fn folder(workspace: &Workspace, arch: &str) -> PathBuf {
    let name = if arch == ARCH {
        "bpf".to_owned()
    } else {
        format!("bpf-{arch}")
    };
    workspace.target.join(name)
}

/// Debug information is what bpf-linker turns into BTF. The architecture chooses the layout of
/// `pt_regs` in aya-ebpf.
fn rustflags(workspace: &Workspace, arch: &str) -> OsString {
    let arch = if arch.starts_with("riscv64") {
        "riscv64"
    } else {
        arch
    };
    let mut flags = OsString::from(format!("--cfg=bpf_target_arch=\"{arch}\""));
    flags.push("\x1f-Cdebuginfo=2\x1f-Clink-arg=--btf\x1f-Clinker=");
    flags.push(bpf_linker(workspace));
    flags
}

/// Brings the source of `core` for the toolchain in use.
pub(crate) fn ensure_rust_src(workspace: &Workspace) -> Result<()> {
    let sysroot = PathBuf::from(workspace.rustc(&["--print", "sysroot"])?);
    let lock = sysroot.join("lib/rustlib/src/rust/library/Cargo.lock");
    if lock.exists() {
        return Ok(());
    }
    let rustc = workspace.rustc(&["--version"])?;
    let version = rustc.split_whitespace().nth(1).unwrap_or("?");
    let rustup = workspace.program("rustup").arg("--version").output();
    if rustup.is_err_and(|error| error.kind() == ErrorKind::NotFound) {
        bail!(
            "rust-src is missing and rustup is not installed: \
             install the rust-src component of Rust {version} \
             (with rustup: `rustup component add rust-src --toolchain {version}`)"
        );
    }
    let mut rustup = workspace.program("rustup");
    rustup.args(["component", "add", "rust-src"]);
    step::run("Adding the component rust-src", &mut rustup).with_context(|| {
        format!(
            "rust-src of Rust {version} is missing and rustup could not bring it; \
             with a network: `rustup component add rust-src --toolchain {version}`"
        )
    })?;
    if !lock.exists() {
        bail!(
            "rust-src is still missing from {}: the `rustc` in use is not rustup's; \
             install the rust-src component of Rust {version} there",
            sysroot.display()
        );
    }
    Ok(())
}

fn bpf_linker(workspace: &Workspace) -> PathBuf {
    workspace.tools().join("bin/bpf-linker")
}

fn ensure_bpf_linker(workspace: &Workspace) -> Result<()> {
    let linker = bpf_linker(workspace);
    if is_bpf_linker(&mut workspace.program(&linker)) {
        return Ok(());
    }
    if linker.exists() {
        // Cargo does not see a change of linker.
        let made = workspace.target.join("bpf");
        fs::remove_dir_all(&made)
            .or_else(|error| match error.kind() {
                ErrorKind::NotFound => Ok(()),
                _ => Err(error),
            })
            .with_context(|| format!("cannot remove {}", made.display()))?;
    }
    let tools = workspace.tools();
    let mut cargo = workspace.cargo("install");
    cargo
        .args(["bpf-linker", "--version", BPF_LINKER, "--locked", "--force"])
        .arg("--root")
        .arg(&tools)
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .env_remove("RUSTFLAGS")
        .env_remove("RUSTC_BOOTSTRAP");
    let title = format!("Installing bpf-linker {BPF_LINKER} (one to two minutes, once)");
    step::run(&title, &mut cargo).with_context(|| {
        format!(
            "bpf-linker {BPF_LINKER} is missing and could not be installed; with a network: \
             `cargo install bpf-linker --version {BPF_LINKER} --locked --root {}`",
            tools.display()
        )
    })?;
    if !is_bpf_linker(&mut workspace.program(&linker)) {
        bail!("{} does not run or is not {BPF_LINKER}", linker.display());
    }
    Ok(())
}

fn is_bpf_linker(command: &mut Command) -> bool {
    command.arg("--version").output().is_ok_and(|output| {
        output.status.success()
            && output
                .stdout
                .ends_with(format!(" {BPF_LINKER}\n").as_bytes())
    })
}

/// Copies a file if the content differs, so that its time says when it last changed: the agent
/// is built again only then.
fn replace(from: &Path, to: &Path) -> Result<()> {
    let new = fs::read(from).with_context(|| format!("cannot read {}", from.display()))?;
    if fs::read(to).is_ok_and(|old| old == new) {
        return Ok(());
    }
    let draft = to.with_extension("new");
    fs::write(&draft, new).with_context(|| format!("cannot write {}", draft.display()))?;
    fs::rename(&draft, to).with_context(|| format!("cannot write {}", to.display()))
}
