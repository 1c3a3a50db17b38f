//! Workloads that look like something else, a server and its workers for one, and do what a test
//! tells them.

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

use crate::workload::{self, Workload};

/// A folder with programs of any name, which all are the workload.
#[derive(Debug)]
pub struct Programs(PathBuf);

impl Programs {
    /// An empty folder of this run.
    pub fn new(name: &str) -> Result<Self> {
        let folder = workload::directory()?.join(name);
        fs::create_dir(&folder).with_context(|| folder.display().to_string())?;
        Ok(Self(folder))
    }

    /// The program of this name.
    pub fn get(&self, name: &str) -> Result<PathBuf> {
        let path = self.0.join(name);
        if !path.exists() {
            workload::link(&path)?;
        }
        Ok(path)
    }

    /// A file in the folder.
    #[must_use]
    pub fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

/// A process and its children, all of which are told what to do.
pub struct Puppet {
    /// The first of them.
    pub root: Workload,
    folder: PathBuf,
    children: usize,
}

/// A child of a puppet, or a child of that.
#[derive(Debug)]
pub struct Child {
    /// Its process id.
    pub pid: u32,
    orders: File,
}

impl Puppet {
    /// Starts a program with this title for `argv[0]`.
    pub fn start(programs: &Programs, name: &str, title: &str, words: &[&str]) -> Result<Self> {
        let mut command = Command::new(programs.get(name)?);
        command.arg0(title).args(words);
        Self::launch(programs, command)
    }

    /// Starts what becomes a workload that takes orders.
    pub fn launch(programs: &Programs, command: Command) -> Result<Self> {
        Ok(Self {
            root: Workload::launch(command)?,
            folder: programs.0.clone(),
            children: 0,
        })
    }

    /// Lets the root make a child that is another program.
    pub fn spawn(&mut self, program: &Path, title: &str, words: &[&str]) -> Result<Child> {
        self.make(None, program, title, words)
    }

    /// Lets a child make one.
    pub fn spawn_from(
        &mut self,
        parent: &mut Child,
        program: &Path,
        title: &str,
        words: &[&str],
    ) -> Result<Child> {
        self.make(Some(parent), program, title, words)
    }

    fn make(
        &mut self,
        parent: Option<&mut Child>,
        program: &Path,
        title: &str,
        words: &[&str],
    ) -> Result<Child> {
        self.children += 1;
        let tag = format!("child-{}-{}", self.root.pid(), self.children);
        let fifo = self.folder.join(&tag);
        mkfifo(&fifo, Mode::S_IRWXU)?;
        let mut order = format!(
            "spawn {tag} {} {} {title}",
            fifo.display(),
            program.display()
        );
        for word in words {
            order.push(' ');
            order += word;
        }
        match parent {
            None => self.root.tell(&order)?,
            Some(parent) => writeln!(parent.orders, "{order}")?,
        }
        // Both wait for each other.
        let orders = OpenOptions::new().write(true).open(&fifo)?;
        self.root.wait_for("ok")?;
        let pid = u32::try_from(self.root.report.fact(&tag)?)?;
        Ok(Child { pid, orders })
    }

    /// Tells the root something, and waits until it has done that.
    pub fn order(&mut self, order: &str) -> Result<()> {
        self.root.order(order)
    }

    /// Tells a child something, and waits until it has done that. All say so at one place.
    pub fn order_child(&mut self, child: &mut Child, order: &str) -> Result<()> {
        writeln!(child.orders, "{order}")?;
        self.root.wait_for("ok")
    }
}
