//! `cargo xtask image`: the container image, around an agent that is built here.

mod dockerfile;
mod root;

use std::{
    path::{Path, PathBuf},
    process::{ExitCode, Stdio},
};

use anyhow::{Context as _, Result};

use crate::{
    apt::remove,
    build, build_ebpf,
    processor::{Processor, ensure_standard_library, link_by_rust, linker_variable},
    step,
    workspace::Workspace,
};

/// The image that the Compose files name, where nobody says otherwise.
const NAME: &str = concat!("ghcr.io/esnode/esnode-core:", env!("CARGO_PKG_VERSION"));

/// Make the container image from an agent that is built here.
///
/// Takes a Docker daemon, and pulls nothing: the image has the agent, and of the C library of this
/// machine the files that it and NVIDIA's NVML are linked to. `docker build -f docker/Dockerfile .`
/// makes the same with no more than Docker, where a registry can be reached.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The processor that the image is for [default: that of this machine]
    ///
    /// For another one than this machine's it takes a cross compiler, such as Debian's
    /// gcc-aarch64-linux-gnu, or --static.
    #[arg(long, value_enum)]
    arch: Option<Processor>,
    /// Nothing but a static agent, for hosts without GPUs: it can't load NVML
    #[arg(long = "static")]
    is_static: bool,
    /// What the image is called
    #[arg(long, value_name = "NAME", default_value = NAME)]
    tag: String,
    /// Leave what the image holds in this new folder, and make no image
    #[arg(long, value_name = "FOLDER", conflicts_with = "tag")]
    root: Option<PathBuf>,
}

/// What docker is handed: the files that the image holds, and what to make of them.
pub(crate) struct Context {
    /// A folder with both.
    pub(crate) folder: PathBuf,
}

impl Context {
    /// `FOLDER/root`.
    fn root(&self) -> PathBuf {
        self.folder.join("root")
    }

    /// `FOLDER/Dockerfile`.
    fn dockerfile(&self) -> PathBuf {
        self.folder.join("Dockerfile")
    }
}

pub(crate) fn main(args: &Args) -> Result<ExitCode> {
    let workspace = Workspace::locate()?;
    let processor = match args.arch {
        Some(processor) => processor,
        None => Processor::own()?,
    };
    if let Some(root) = &args.root {
        make_root(&workspace, processor, args.is_static, root)?;
        step::announce(&format!("Left the image's files in {}", root.display()));
        return Ok(ExitCode::SUCCESS);
    }
    let context = prepare_for(&workspace, processor, args.is_static)?;
    build_image(&workspace, processor, &args.tag, &context)?;
    step::announce(&format!("Made the image {}", args.tag));
    Ok(ExitCode::SUCCESS)
}

/// Leaves what docker makes the image from, for this machine, below `target/`.
pub(crate) fn prepare(workspace: &Workspace) -> Result<Context> {
    prepare_for(workspace, Processor::own()?, false)
}

fn prepare_for(workspace: &Workspace, processor: Processor, is_static: bool) -> Result<Context> {
    let kind = if is_static { "static" } else { "gnu" };
    let folder = format!("image/{}-{kind}", processor.debian());
    let context = Context {
        folder: workspace.target.join(folder),
    };
    remove(&context.root())?;
    make_root(workspace, processor, is_static, &context.root())?;
    dockerfile::write(workspace, &context.dockerfile())?;
    Ok(context)
}

/// Builds the agent, and puts it into a new folder with what it needs.
fn make_root(
    workspace: &Workspace,
    processor: Processor,
    is_static: bool,
    root: &Path,
) -> Result<()> {
    let agent = agent(workspace, processor, is_static)?;
    let library = (!is_static)
        .then(|| cross_compiler(processor))
        .transpose()?;
    root::write(workspace, processor, &agent, library.as_deref(), root)
}

/// Builds the agent as it's released.
fn agent(workspace: &Workspace, processor: Processor, is_static: bool) -> Result<PathBuf> {
    if !is_static && processor == Processor::own()? {
        return Ok(build::with_ebpf(workspace)?.agent);
    }
    let target = if is_static {
        processor.static_target()
    } else {
        processor.gnu_target()
    };
    ensure_standard_library(workspace, &target)?;
    let object = build_ebpf::build_for(workspace, processor.arch())?;
    let mut cargo = workspace.cargo_locked("build");
    cargo
        .args(["--release", "--package=esnode-agent", "--bin=esnode-core"])
        .args(["--target", &target])
        .env("ESNODE_BPF_OBJECT", object);
    if is_static {
        link_by_rust(&mut cargo, &target);
    } else {
        cargo.env(linker_variable(&target), cross_compiler(processor)?);
    }
    step::run(&format!("Building the agent for {target}"), &mut cargo)?;
    Ok(workspace.target.join(target).join("release/esnode-core"))
}

/// What links programs for this processor, and knows where its C library is.
fn cross_compiler(processor: Processor) -> Result<String> {
    if processor == Processor::own()? {
        return Ok("cc".to_owned());
    }
    Ok(format!("{}-gcc", processor.multiarch()))
}

fn build_image(
    workspace: &Workspace,
    processor: Processor,
    tag: &str,
    context: &Context,
) -> Result<()> {
    let mut docker = workspace.program("docker");
    docker
        .args(["build", "--tag", tag])
        .arg("--file")
        .arg(context.dockerfile())
        .args(["--build-arg", &format!("REVISION={}", revision(workspace)?)]);
    if processor != Processor::own()? {
        docker.arg(format!("--platform=linux/{}", processor.debian()));
    }
    docker.arg(context.root());
    step::run("Making the image", &mut docker).context(
        "docker made no image; `--root FOLDER` leaves what it would hold, for another builder",
    )
}

/// The commit that is checked out; empty outside of a git work tree.
fn revision(workspace: &Workspace) -> Result<String> {
    let mut git = workspace.program("git");
    git.args(["rev-parse", "HEAD"]).stderr(Stdio::null());
    let output = git.output().context("cannot run git")?;
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(if output.status.success() {
        text.trim().to_owned()
    } else {
        String::new()
    })
}
