//! A container in which the workload runs.

use std::path::{Path, PathBuf};
use std::process::{self, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context as _, Result};

use super::Docker;
use crate::workload::{self, Workload};

/// Names of the image.
pub(super) const IMAGES: [&str; 2] = ["esnode-test/web:1", "esnode-test/db:2"];

/// Command names under which the workload is in the image.
pub(super) const NAMES: [&str; 2] = ["box-main", "box-exec"];

/// Digits of an id that tell it apart.
const SHORT: usize = 12;

/// A container; removed when dropped.
pub struct Container {
    docker: Arc<Docker>,
    /// Its name, which no other has.
    pub name: String,
    /// All 64 digits of its id.
    pub id: String,
    /// Its image, as it was asked for.
    pub image: &'static str,
}

impl Container {
    /// The command name of the first process, and that of those that come in later.
    pub const MAIN: &str = NAMES[0];
    /// See [`Container::MAIN`].
    pub const EXEC: &str = NAMES[1];
    /// Where the folder of this run is in it.
    pub const DATA: &str = "/data";

    /// Makes a container that will run the workload with these arguments, from the first or second
    /// name of the image.
    pub fn create(docker: &Arc<Docker>, stem: &str, image: usize, words: &[&str]) -> Result<Self> {
        let folder = data()?;
        let volume = format!("{}:{}", folder.display(), Self::DATA);
        let main = format!("/{}", Self::MAIN);
        let flags = ["--interactive", "--network", "none", "--volume", &volume];
        let words: Vec<_> = [&main, "--hold"].iter().chain(words).copied().collect();
        Self::of(docker, stem, image, &flags, &words)
    }

    /// Makes a container of this command line, with these flags for its client.
    pub fn of(
        docker: &Arc<Docker>,
        stem: &str,
        image: usize,
        flags: &[&str],
        words: &[&str],
    ) -> Result<Self> {
        let image = *IMAGES.get(image).context("no such image")?;
        Self::of_image(docker, stem, image, flags, words)
    }

    /// Makes a container of an image that was built.
    pub fn of_image(
        docker: &Arc<Docker>,
        stem: &str,
        image: &'static str,
        flags: &[&str],
        words: &[&str],
    ) -> Result<Self> {
        let name = format!("{stem}-{}-{}", process::id(), count());
        let start = ["create", "--name", &name];
        let line: Vec<_> = start
            .iter()
            .chain(flags)
            .chain([&image])
            .chain(words)
            .copied()
            .collect();
        let id = docker.ask(&line)?;
        Ok(Self {
            docker: Arc::clone(docker),
            name,
            id,
            image,
        })
    }

    /// The command that starts it, and is its input and output.
    #[must_use]
    pub fn start(&self) -> Command {
        let words = ["start", "--attach", "--interactive", &self.id];
        let mut command = self.docker.client(&words);
        command.stdout(Stdio::null()).stderr(Stdio::piped());
        command
    }

    /// Starts it, and waits until its workload is done, which then stays.
    pub fn run(&self) -> Result<Workload> {
        let mut workload = Workload::launch(self.start())?;
        workload.wait_for("done")?;
        Ok(workload)
    }

    /// Runs a workload beside the first process until it's done; it stays.
    pub fn exec(&self, words: &[&str]) -> Result<Workload> {
        let program = format!("/{}", Self::EXEC);
        let start = ["exec", "--interactive", &self.id, &program, "--hold"];
        let line: Vec<_> = start.iter().chain(words).copied().collect();
        let mut workload = Workload::launch(self.docker.client(&line))?;
        workload.wait_for("done")?;
        Ok(workload)
    }

    /// The process id of the first process, as the host has it.
    pub fn pid(&self) -> Result<String> {
        self.docker
            .ask(&["inspect", "--format", "{{.State.Pid}}", &self.id])
    }

    /// What its group is called.
    #[must_use]
    pub fn group(&self) -> &str {
        self.id.get(..SHORT).unwrap_or(&self.id)
    }

    /// Removes it, which ends what runs in it.
    pub fn remove(&self) -> Result<()> {
        self.docker.ask(&["rm", "--force", &self.id])?;
        Ok(())
    }

    /// A file that no other test has, as a container sees it.
    #[must_use]
    pub fn file() -> String {
        format!("{}/docker-{}.data", Self::DATA, count())
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        // Fails only when it's gone.
        let _ = self.remove();
    }
}

/// A number that isn't given out again.
fn count() -> usize {
    static COUNT: AtomicUsize = AtomicUsize::new(1);
    COUNT.fetch_add(1, Ordering::Relaxed)
}

/// The folder of this run on the host's disk.
fn data() -> Result<PathBuf> {
    let folder: &Path = workload::directory()?;
    folder.canonicalize().context("the folder of this run")
}
