//! Programs of others that tests use: in `PATH`, or where `cargo xtask tools` has put them.

use std::env;
use std::ffi::OsString;
use std::path::PathBuf;

use anyhow::Result;

use crate::skip;

/// The variable that names the folder of `cargo xtask tools`.
pub const VARIABLE: &str = "ESNODE_TEST_TOOLS";

/// That folder.
#[must_use]
pub fn folder() -> Option<PathBuf> {
    env::var_os(VARIABLE).map(PathBuf::from)
}

/// The folders of programs, in the order in which they are looked through.
#[must_use]
pub fn path() -> Vec<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let mut folders: Vec<_> = env::split_paths(&path).collect();
    if let Some(tools) = folder() {
        folders.extend(["usr/sbin", "usr/bin", "sbin", "bin"].map(|folder| tools.join(folder)));
    }
    folders
}

/// A `PATH` with all of them.
pub fn search_path() -> Result<OsString> {
    Ok(env::join_paths(path())?)
}

/// Where this program is; without it, the test is skipped.
pub fn find(program: &str) -> Result<PathBuf> {
    let found = path().into_iter().map(|folder| folder.join(program));
    match found.into_iter().find(|file| file.is_file()) {
        Some(file) => Ok(file),
        None => skip!("needs {program}, in PATH or brought by `cargo xtask tools`"),
    }
}
