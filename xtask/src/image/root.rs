//! What the image holds.
//!
//! NVML comes from the host, by NVIDIA's container runtime, and is linked to the GNU C library: an
//! agent that is to load it needs the dynamic linker and the same library beside it. They are the
//! ones that the agent was linked to.

use std::{
    fs::{self, Permissions},
    os::unix::fs::{PermissionsExt as _, symlink},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail, ensure};

use crate::{processor::Processor, step, workspace::Workspace};

/// What the agent is linked to, and what NVML is: libdl, libpthread and librt have been parts of
/// libc since version 2.34, and are empty since then.
const LIBRARIES: [&str; 6] = [
    "libc.so.6",
    "libdl.so.2",
    "libgcc_s.so.1",
    "libm.so.6",
    "libpthread.so.0",
    "librt.so.1",
];

const LICENCES: [&str; 2] = ["LICENSE-APACHE", "LICENSE-MIT"];

/// Writes it to a new folder; `compiler` says where the C library is, if it comes along.
pub(super) fn write(
    workspace: &Workspace,
    processor: Processor,
    agent: &Path,
    compiler: Option<&str>,
    root: &Path,
) -> Result<()> {
    if let Some(parent) = root.parent() {
        make_folder(parent)?;
    }
    fs::create_dir(root)
        .with_context(|| format!("cannot make {}, which must not exist", root.display()))?;
    copy(agent, &root.join("usr/bin/esnode-core"), 0o555)?;
    for licence in LICENCES {
        let to = root.join("usr/share/licenses/esnode-core").join(licence);
        copy(&workspace.root.join(licence), &to, 0o444)?;
    }
    // Where the Compose files mount what the agent reads.
    make_folder(&root.join("host/sys"))?;
    match compiler {
        Some(compiler) => write_library(processor, compiler, root),
        None => Ok(()),
    }
}

/// Whatever folder the linker of the distribution at hand looks into, and NVIDIA's runtime mounts
/// libraries to, it's the same: `/lib`, `/lib64`, `/usr/lib64`, or one that names the processor.
fn write_library(processor: Processor, compiler: &str, root: &Path) -> Result<()> {
    let folder = root.join("usr/lib").join(processor.multiarch());
    make_folder(&folder)?;
    for (link, to) in [
        ("lib", "usr/lib"),
        ("lib64", "usr/lib64"),
        ("usr/lib64", &format!("lib/{}", processor.multiarch())),
    ] {
        let place = root.join(link);
        symlink(to, &place).with_context(|| format!("cannot make {}", place.display()))?;
    }
    for library in LIBRARIES {
        let from = locate(compiler, library)?;
        copy(&from, &folder.join(library), 0o555)?;
    }
    let (linker, place) = match processor {
        Processor::X86_64 => ("ld-linux-x86-64.so.2", folder.join("ld-linux-x86-64.so.2")),
        Processor::Arm64 => (
            "ld-linux-aarch64.so.1",
            root.join("usr/lib/ld-linux-aarch64.so.1"),
        ),
    };
    copy(&locate(compiler, linker)?, &place, 0o555)?;
    // NVIDIA's runtime writes the cache of the dynamic linker there.
    make_folder(&root.join("etc"))
}

/// Where the compiler has a file that programs are linked to.
fn locate(compiler: &str, library: &str) -> Result<PathBuf> {
    let mut command = Command::new(compiler);
    command.arg(format!("-print-file-name={library}"));
    let found = step::capture(&mut command).with_context(|| {
        format!(
            "the image takes the C library of {compiler}: install it (on Debian for arm64: \
             gcc-aarch64-linux-gnu), or use --static"
        )
    })?;
    // What it doesn't have, it names as it was asked for.
    let path = Path::new(&found);
    if !path.is_absolute() {
        bail!("{compiler} has no {library}: is its C library the one of GNU?");
    }
    fs::canonicalize(path).with_context(|| format!("cannot find {found}"))
}

fn copy(from: &Path, to: &Path, mode: u32) -> Result<()> {
    if let Some(folder) = to.parent() {
        make_folder(folder)?;
    }
    fs::copy(from, to)
        .with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))?;
    ensure!(to.is_file(), "{} is no file", from.display());
    fs::set_permissions(to, Permissions::from_mode(mode))
        .with_context(|| format!("cannot set the mode of {}", to.display()))
}

fn make_folder(folder: &Path) -> Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))
}
