//! `cargo xtask`: one command for each job that takes more than one step.
//!
//! Everything that is downloaded comes through rustup, cargo and apt, and everything that is built
//! stays under `target/`.
#![forbid(unsafe_code)]

mod apt;
mod bench;
mod build;
mod build_ebpf;
mod compose_test;
mod dashboards;
mod flood;
mod gpu_check;
mod image;
mod lint;
mod privilege;
mod processor;
mod run;
mod step;
mod tally;
mod test;
mod tools;
mod vm;
mod workspace;

use std::process::ExitCode;

use clap::Parser;

/// Build, run, test, lint and measure esnode-core.
///
/// Each command brings what it needs and does no step twice: the first `run` or `test` on a
/// fresh machine takes some minutes, the next one seconds. All results stay under `target/`.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", max_term_width = 100)]
enum Xtask {
    Build(build::Args),
    BuildEbpf(build_ebpf::Args),
    Run(run::Args),
    Image(image::Args),
    Test(test::Args),
    ComposeTest(compose_test::Args),
    Vm(vm::Args),
    Tools(tools::Args),
    Lint(lint::Args),
    Dashboards(dashboards::Args),
    Bench(bench::Args),
    Flood(flood::Args),
    GpuCheck(gpu_check::Args),
}

fn main() -> ExitCode {
    let done = match Xtask::parse() {
        Xtask::Build(args) => build::main(&args),
        Xtask::BuildEbpf(args) => build_ebpf::main(&args),
        Xtask::Run(args) => run::main(&args),
        Xtask::Image(args) => image::main(&args),
        Xtask::Test(args) => test::main(&args),
        Xtask::ComposeTest(args) => compose_test::main(&args),
        Xtask::Vm(args) => vm::main(&args),
        Xtask::Tools(args) => tools::main(&args),
        Xtask::Lint(args) => lint::main(&args),
        Xtask::Dashboards(args) => dashboards::main(&args),
        Xtask::Bench(args) => bench::main(&args),
        Xtask::Flood(args) => flood::main(&args),
        Xtask::GpuCheck(args) => gpu_check::main(&args),
    };
    done.unwrap_or_else(|error| {
        eprintln!("error: {error}");
        for cause in error.chain().skip(1) {
            eprintln!("  because: {cause}");
        }
        ExitCode::FAILURE
    })
}
