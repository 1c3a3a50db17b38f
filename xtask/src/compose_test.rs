//! `cargo xtask compose-test`: what is below `docker/`, tried as users will use it.

use std::process::ExitCode;

use anyhow::Result;

use crate::{test, tools, workspace::Workspace};

/// Try the image, the Compose files, Prometheus' rules, and every query of every dashboard.
///
/// Brings what that takes as `cargo xtask tools` does. The image is built and its service runs under
/// a Docker daemon of the tests' own, in a temporary folder; both generations of Compose read every
/// combination of files and profiles; a Prometheus scrapes agents under load, and has to answer
/// every query. These tests are part of `cargo xtask test` too, where their programs are there.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Run only tests whose names contain this
    #[arg(default_value = "compose::")]
    filter: String,
}

pub(crate) fn main(args: &Args) -> Result<ExitCode> {
    let workspace = Workspace::locate()?;
    tools::bring(&workspace)?;
    test::black_box(&workspace, &args.filter)
}
