//! The files beside those of Opik, tried on a folder that stands in for its checkout (`tests/opik`).

mod files;
mod install;
mod script;
mod stack;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context as _, Result};
use esnode_tests::{fixture, skip, workload};

use crate::Case;

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = files::cases();
    cases.extend(install::cases());
    cases.extend(script::cases());
    cases
}

/// Where the files of Opik's stack are in its checkout.
const FOLDER: &str = "deployment/docker-compose";

/// The folder of this repository. Skips where it isn't, as in a virtual machine.
pub(super) fn repository() -> Result<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    if !folder.join("docker/opik").is_dir() {
        skip!("needs the repository at {}", folder.display());
    }
    folder.canonicalize().context("the repository")
}

/// A checkout of Opik that a test may change.
fn checkout() -> Result<PathBuf> {
    static LAST: AtomicUsize = AtomicUsize::new(0);
    let number = LAST.fetch_add(1, Ordering::Relaxed);
    let original = repository()?.join("tests/opik");
    let copy = workload::directory()?.join(format!("opik-{number}"));
    fixture::copy(&original, &copy)?;
    let script = "opik.sh";
    let mode = fs::metadata(original.join(script))?.permissions();
    fs::set_permissions(copy.join(script), mode)?;
    Ok(copy)
}
