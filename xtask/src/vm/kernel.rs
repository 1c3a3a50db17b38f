//! Kernels of Debian: brought by apt, kept under `target/vm`.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};

use super::{matrix::Kernel, modules};
use crate::{
    apt::{Apt, list, remove},
    workspace::Workspace,
};

/// A kernel that can be booted.
pub(super) struct Files {
    /// Its release, as `uname -r` says it.
    pub(super) release: String,
    pub(super) image: PathBuf,
    /// The modules that a virtual machine needs, in the order in which they load.
    pub(super) modules: Vec<PathBuf>,
}

/// Brings a kernel, unless it is there.
pub(super) fn fetch(workspace: &Workspace, kernel: Kernel) -> Result<Files> {
    let folder = workspace.target.join("vm/kernels").join(kernel.name());
    if !folder.exists() {
        let draft = folder.with_extension("new");
        remove(&draft)?;
        let apt = Apt::new(workspace, kernel.suite(), kernel.processor())?;
        fetch_into(&apt, kernel, &draft).with_context(|| {
            format!(
                "the kernel {} of Debian {} is not there",
                kernel.name(),
                kernel.suite()
            )
        })?;
        fs::rename(&draft, &folder).with_context(|| format!("cannot make {}", folder.display()))?;
    }
    let release = folder.join("release");
    let mut modules: Vec<_> = list(&folder.join("modules"))?;
    modules.sort();
    Ok(Files {
        release: fs::read_to_string(&release)
            .with_context(|| format!("cannot read {}", release.display()))?,
        image: folder.join("vmlinuz"),
        modules,
    })
}

/// Downloads the packages, unpacks them, and keeps what a virtual machine needs.
fn fetch_into(apt: &Apt, kernel: Kernel, draft: &Path) -> Result<()> {
    fs::create_dir_all(draft)?;
    apt.update()?;
    let metapackage = format!("linux-image-{}", kernel.processor().debian());
    let mut image = apt.depends(&metapackage)?;
    image.retain(|name| name.starts_with("linux-image-"));
    let image = image
        .pop()
        .with_context(|| format!("{metapackage} names no kernel"))?;
    // Newer kernels come in parts.
    let mut parts = apt.depends(&image)?;
    parts.retain(|name| name.starts_with("linux-binary-") || name.starts_with("linux-modules-"));
    if parts.is_empty() {
        parts.push(image);
    }
    let root = draft.join("root");
    apt.unpack(&parts, &root)?;
    let tree = find_modules(&root)?;
    let release = tree.file_name().context("no release")?.to_string_lossy();
    let images = [
        tree.join("vmlinuz"),
        root.join(format!("boot/vmlinuz-{release}")),
    ];
    let image = images.iter().find(|path| path.exists());
    fs::copy(
        image.context("no vmlinuz in the package")?,
        draft.join("vmlinuz"),
    )?;
    modules::collect(&tree, &draft.join("modules"))?;
    fs::write(draft.join("release"), release.as_bytes())?;
    remove(&root)
}

/// The one folder of modules below `lib/modules`, which newer packages have in `usr`.
fn find_modules(root: &Path) -> Result<PathBuf> {
    for folder in ["lib/modules", "usr/lib/modules"] {
        if let Some(first) = list(&root.join(folder)).unwrap_or_default().pop() {
            return Ok(first);
        }
    }
    bail!("no lib/modules in the package")
}
