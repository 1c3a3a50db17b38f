//! Packages of any release of Debian, downloaded and unpacked: nothing is installed, and the
//! machine's own sources stay as they are.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};

use crate::{processor::Processor, step, workspace::Workspace};

/// Where packages come from if the machine's own sources do not say.
const ARCHIVE: &str = "http://deb.debian.org/debian/";

const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// Apt with a source, lists and a cache of its own.
pub(crate) struct Apt {
    folder: PathBuf,
    architecture: &'static str,
}

impl Apt {
    /// That of a release, for a processor.
    pub(crate) fn new(workspace: &Workspace, release: &str, processor: Processor) -> Result<Self> {
        ensure!(
            Path::new(KEYRING).exists(),
            "{KEYRING} is missing, by which packages are checked: it is in the package \
             `debian-archive-keyring`"
        );
        let architecture = processor.debian();
        let name = format!("{release}-{architecture}");
        let apt = Self {
            folder: workspace.target.join("apt").join(name),
            architecture,
        };
        for folder in ["lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(apt.folder.join(folder))?;
        }
        let source = format!("deb [signed-by={KEYRING}] {} {release} main\n", archive());
        fs::write(apt.folder.join("sources.list"), source)?;
        Ok(apt)
    }

    /// Reads what packages there are.
    pub(crate) fn update(&self) -> Result<()> {
        let mut update = self.command("apt-get");
        step::run("Reading lists of packages", update.args(["-q", "update"]))
    }

    /// The packages that a package depends on.
    pub(crate) fn depends(&self, package: &str) -> Result<Vec<String>> {
        let mut command = self.command("apt-cache");
        command.args(["depends", "--important", package]);
        let names = step::capture(&mut command)?;
        Ok(names
            .lines()
            .filter_map(|line| line.trim_start().strip_prefix("Depends: "))
            .map(str::to_owned)
            .collect())
    }

    /// The packages that a package depends on, and those that these depend on in turn.
    pub(crate) fn depends_in_turn(&self, package: &str) -> Result<Vec<String>> {
        let mut command = self.command("apt-cache");
        command.args(["depends", "--recurse", "--important", package]);
        let names = step::capture(&mut command)?;
        // Between them, indented, is how they depend on each other; virtual ones are in brackets.
        let names = names
            .lines()
            .filter(|line| !line.starts_with([' ', '|', '<']) && *line != package);
        Ok(names.map(str::to_owned).collect())
    }

    /// Downloads packages and unpacks them into one folder, over what is there.
    pub(crate) fn unpack(&self, packages: &[String], root: &Path) -> Result<()> {
        let folder = self.folder.join("packages");
        remove(&folder)?;
        fs::create_dir_all(&folder)?;
        let mut download = self.command("apt-get");
        download
            .args(["-q", "download"])
            .args(packages)
            .current_dir(&folder);
        let title = format!("Downloading {}", packages.join(", "));
        step::run(&title, &mut download)?;
        step::announce(&format!("Unpacking to {}", root.display()));
        for package in list(&folder)? {
            let mut unpack = Command::new("dpkg-deb");
            unpack.arg("--extract").arg(&package).arg(root);
            step::capture(&mut unpack)?;
        }
        remove(&folder)
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
            &format!("-oAPT::Architecture={}", self.architecture),
            &format!("-oAPT::Architectures={}", self.architecture),
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

/// What is in a folder.
pub(crate) fn list(folder: &Path) -> Result<Vec<PathBuf>> {
    fs::read_dir(folder)
        .and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect())
        .with_context(|| format!("cannot list {}", folder.display()))
}

/// Removes a folder, if it is there.
pub(crate) fn remove(folder: &Path) -> Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder)
            .with_context(|| format!("cannot remove {}", folder.display()))?;
    }
    Ok(())
}
