//! Hosts that are folders: `tests/fixtures/HOST` has `proc` and `sys` as a kernel writes them.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use crate::skip;

/// The folder of all hosts. Skips where it isn't, as in a virtual machine.
pub fn folder() -> Result<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures");
    if !folder.is_dir() {
        skip!("needs {}", folder.display());
    }
    Ok(folder)
}

/// Copies a folder with its links as they are.
pub fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from).with_context(|| from.display().to_string())? {
        let entry = entry?;
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        let kind = entry.file_type()?;
        if kind.is_dir() {
            copy(&from, &to)?;
        } else if kind.is_symlink() {
            symlink(fs::read_link(&from)?, to)?;
        } else {
            fs::write(to, fs::read(&from)?)?;
        }
    }
    Ok(())
}
