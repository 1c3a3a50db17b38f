//! `cargo xtask vm`: the suite on kernels of Debian, in virtual machines.

mod image;
mod kernel;
mod machine;
mod matrix;
mod modules;
pub(crate) mod programs;
mod report;
mod verdict;

use std::{fs, path::Path, process::ExitCode};

use anyhow::{Context as _, Result};
use clap::ValueEnum as _;

use self::{
    image::Image,
    machine::Parts,
    matrix::{Kernel, ROUNDS, Round},
    programs::Programs,
    report::Report,
    verdict::Console,
};
use crate::{processor::Processor, step, workspace::Workspace};

/// Run the tests on kernels of Debian, in virtual machines.
///
/// Each kernel boots under qemu with the suite as its first process, which runs itself once with
/// everything that the agent can use, and once for each lower rung, with the better ones
/// disabled. One line for each says which rungs the agent reached, how many tests passed, and
/// how many instructions the kernel's verifier walked. A panic, a silence of some minutes, a
/// refused program, another rung than expected and a wrong byte are failures.
///
/// Brings the kernels by apt and keeps what is needed of them under `target/vm/kernels`;
/// removing that folder has them brought anew. Nothing is installed. Needs qemu-system-x86,
/// qemu-system-arm for arm64, and e2fsprogs.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// A kernel; repeatable [default: all, or with --short the oldest and the newest]
    #[arg(long = "kernel", value_enum, value_name = "VERSION")]
    kernels: Vec<Kernel>,
    /// A round; repeatable [default: all]
    #[arg(long = "rung", value_name = "NAME", value_parser = ROUNDS.map(|round| round.name))]
    rungs: Vec<String>,
    /// Leave out tests that take long
    #[arg(long)]
    short: bool,
    /// Run only tests whose names contain this
    filter: Option<String>,
}

pub(crate) fn main(args: &Args) -> Result<ExitCode> {
    let workspace = Workspace::locate()?;
    let kernels = match (args.kernels.as_slice(), args.short) {
        ([], true) => &Kernel::SHORT,
        ([], false) => Kernel::value_variants(),
        (kernels, _) => kernels,
    };
    for &kernel in kernels {
        machine::ensure_qemu(kernel.processor())?;
    }
    let mut report = Report::default();
    let mut built: Vec<(Processor, Programs)> = Vec::new();
    for &kernel in kernels {
        let processor = kernel.processor();
        if !built.iter().any(|(other, _)| *other == processor) {
            built.push((processor, programs::build(&workspace, processor)?));
        }
        let programs = built.iter().find(|(other, _)| *other == processor);
        let (_, programs) = programs.context("no programs")?;
        try_kernel(&workspace, kernel, programs, args, &mut report)?;
    }
    step::announce("The kernels are done");
    let well = report.print(&workspace.target.join("vm"))?;
    Ok(ExitCode::from(u8::from(!well)))
}

fn try_kernel(
    workspace: &Workspace,
    kernel: Kernel,
    programs: &Programs,
    args: &Args,
    report: &mut Report,
) -> Result<()> {
    let files = kernel::fetch(workspace, kernel)?;
    let folder = workspace.target.join("vm/run").join(kernel.name());
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let mut rounds = kernel.rounds();
    rounds
        .retain(|round| args.rungs.is_empty() || args.rungs.iter().any(|name| name == round.name));
    let initrd = folder.join("initrd");
    write_image(&initrd, programs, &files, &rounds, args)?;

    step::announce(&format!("Booting {} ({})", kernel.name(), files.release));
    let parts = Parts {
        processor: kernel.processor(),
        kernel: &files.image,
        initrd: &initrd,
        folder: &folder,
    };
    let mut console = Console::default();
    let end = machine::run(&parts, |line| {
        if let Some(round) = console.hear(line) {
            step::announce(&round.line(kernel.name()));
        }
    })?;
    report.judge(kernel, &rounds, &console, &end);
    Ok(())
}

fn write_image(
    path: &Path,
    programs: &Programs,
    files: &kernel::Files,
    rounds: &[Round],
    args: &Args,
) -> Result<()> {
    let mut image = Image::new();
    image.program("init", &programs.suite)?;
    image.program("esnode-core", &programs.agent)?;
    image.program("esnode-workload", &programs.workload)?;
    image.files("modules", &files.modules)?;
    let plan: String = rounds
        .iter()
        .map(|round| line_of_plan(round, args))
        .collect();
    image.file("plan", plan.as_bytes());
    image.write(path)
}

/// A round as `tests/src/vm.rs` reads it.
fn line_of_plan(round: &Round, args: &Args) -> String {
    let mut words = vec![
        round.name.to_owned(),
        round.without.join(","),
        "--color=never".to_owned(),
    ];
    match &args.filter {
        Some(filter) => words.push(filter.clone()),
        None => words.extend(
            round
                .left_out(args.short)
                .iter()
                .map(|name| format!("--skip={name}")),
        ),
    }
    words.join("\t") + "\n"
}
