//! Kernels of Debian: brought by apt, kept under `target/vm`. Nothing is installed, and the
//! machine's own sources stay as they are.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail, ensure};

use super::{matrix::Kernel, modules};
use crate::{step, workspace::Workspace};

/// Where packages come from if the machine's own sources do not say.
const ARCHIVE: &str = "http://deb.debian.org/debian/";

const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

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
        fetch_into(&Apt::new(workspace, kernel)?, kernel, &draft).with_context(|| {
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
    let packages = draft.join("packages");
    fs::create_dir_all(&packages)?;
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
    let mut download = apt.command("apt-get");
    download
        .args(["-q", "download"])
        .args(&parts)
        .current_dir(&packages);
    step::run(&format!("Downloading {}", parts.join(", ")), &mut download)?;

    let root = draft.join("root");
    for package in list(&packages)? {
        let mut unpack = Command::new("dpkg-deb");
        unpack.arg("--extract").arg(&package).arg(&root);
        step::run("Unpacking", &mut unpack)?;
    }
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
    remove(&packages)?;
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

/// Apt with a source, lists and a cache of its own.
struct Apt {
    folder: PathBuf,
    machine: &'static str,
}

impl Apt {
    fn new(workspace: &Workspace, kernel: Kernel) -> Result<Self> {
        ensure!(
            Path::new(KEYRING).exists(),
            "{KEYRING} is missing, by which packages are checked: it is in the package \
             `debian-archive-keyring`"
        );
        let machine = kernel.processor().debian();
        let name = format!("{}-{machine}", kernel.suite());
        let apt = Self {
            folder: workspace.target.join("vm/apt").join(name),
            machine,
        };
        for folder in ["lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(apt.folder.join(folder))?;
        }
        let source = format!(
            "deb [signed-by={KEYRING}] {} {} main\n",
            archive(),
            kernel.suite()
        );
        fs::write(apt.folder.join("sources.list"), source)?;
        Ok(apt)
    }

    fn update(&self) -> Result<()> {
        let mut update = self.command("apt-get");
        step::run("Reading lists of packages", update.args(["-q", "update"]))
    }

    /// The packages that a package depends on.
    fn depends(&self, package: &str) -> Result<Vec<String>> {
        let mut command = self.command("apt-cache");
        command.args(["depends", "--important", package]);
        let names = step::capture(&mut command)?;
        Ok(names
            .lines()
            .filter_map(|line| line.trim_start().strip_prefix("Depends: "))
            .map(str::to_owned)
            .collect())
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        for (name, path) in [
            ("Dir::Etc::sourcelist", "sources.list"),
            ("Dir::State::lists", "lists"),
            ("Dir::Cache", "cache"),
        ] {
            let path = self.folder.join(path);
            command.arg(format!("-o{name}={}", path.display()));
        }
        command.args([
            "-oDir::Etc::sourceparts=/dev/null",
            "-oDir::State::status=/dev/null",
            "-oAPT::Sandbox::User=",
            "-oAcquire::Languages=none",
            "-oAcquire::IndexTargets::deb::DEP-11::DefaultEnabled=false",
            &format!("-oAPT::Architecture={}", self.machine),
            &format!("-oAPT::Architectures={}", self.machine),
        ]);
        command
    }
}

/// The archive that this machine takes packages of Debian from.
fn archive() -> String {
    let mut command = Command::new("apt-get");
    command.args(["indextargets", "--format", "$(REPO_URI)", "Label: Debian"]);
    let uris = step::capture(&mut command).unwrap_or_default();
    uris.lines().next().unwrap_or(ARCHIVE).to_owned()
}

fn list(folder: &Path) -> Result<Vec<PathBuf>> {
    fs::read_dir(folder)
        .and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect())
        .with_context(|| format!("cannot list {}", folder.display()))
}

fn remove(folder: &Path) -> Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder)
            .with_context(|| format!("cannot remove {}", folder.display()))?;
    }
    Ok(())
}
