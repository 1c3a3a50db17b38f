//! Something for a GPU to do.

use std::{
    io::{BufRead as _, BufReader},
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};

use crate::{bench::exporter::end, step};

/// How long a load may take to begin: libraries of that size take their time.
const PATIENCE: Duration = Duration::from_mins(2);

/// A program that loads the first GPU until it is ended, or the one who started it is gone.
const TORCH: &str = "
import os, torch
parent = os.getppid()
a = torch.randn(4096, 4096, device='cuda', dtype=torch.float16)
b = torch.randn(4096, 4096, device='cuda', dtype=torch.float16)
first = True
while os.getppid() == parent:
    for _ in range(20):
        c = a @ b
    torch.cuda.synchronize()
    if first:
        print('ready', flush=True)
        first = False
";

const CUPY: &str = "
import os, cupy
parent = os.getppid()
a = cupy.random.rand(4096, 4096, dtype=cupy.float32)
b = cupy.random.rand(4096, 4096, dtype=cupy.float32)
first = True
while os.getppid() == parent:
    for _ in range(5):
        c = a @ b
    cupy.cuda.Stream.null.synchronize()
    if first:
        print('ready', flush=True)
        first = False
";

/// Libraries that can load a GPU: how to find out that they work, and what to do with them.
const LIBRARIES: [(&str, &str, &str); 2] = [
    (
        "PyTorch",
        "import sys, torch; sys.exit(not torch.cuda.is_available())",
        TORCH,
    ),
    (
        "CuPy",
        "import sys, cupy; sys.exit(cupy.cuda.runtime.getDeviceCount() == 0)",
        CUPY,
    ),
];

/// Which load is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    Auto,
    None,
    Command(String),
}

impl From<&str> for Wanted {
    fn from(text: &str) -> Self {
        match text {
            "auto" => Self::Auto,
            "none" => Self::None,
            command => Self::Command(command.to_owned()),
        }
    }
}

/// A load that runs; ended when dropped.
pub(super) struct Load {
    child: Child,
    name: String,
}

impl Load {
    /// Starts it, if there is one, and waits until it is at work.
    pub(super) fn start(wanted: &Wanted) -> Result<Option<Self>> {
        match wanted {
            Wanted::None => Ok(None),
            Wanted::Command(command) => {
                step::announce(&format!("Starting the load: {command}"));
                let mut shell = Command::new("sh");
                // The program itself, so that it is what is ended.
                shell.args(["-c", &format!("exec {command}")]);
                let mut load = Self::spawn(shell.stdout(Stdio::null()), command)?;
                thread::sleep(Duration::from_secs(2));
                load.check()?;
                Ok(Some(load))
            }
            Wanted::Auto => Self::find(),
        }
    }

    fn find() -> Result<Option<Self>> {
        for (name, probe, program) in LIBRARIES {
            let mut python = Command::new("python3");
            python.args(["-c", probe]).stdin(Stdio::null());
            let status = python.stdout(Stdio::null()).stderr(Stdio::null()).status();
            if !status.is_ok_and(|status| status.success()) {
                continue;
            }
            step::announce(&format!("Starting a load: products of matrices by {name}"));
            let mut python = Command::new("python3");
            python.args(["-c", program]).stdout(Stdio::piped());
            let mut load = Self::spawn(&mut python, name)?;
            load.wait_until_ready()?;
            return Ok(Some(load));
        }
        step::announce(
            "Going on without a load: python3 has neither PyTorch nor CuPy with a GPU here \
             (--load COMMAND names another)",
        );
        Ok(None)
    }

    fn spawn(command: &mut Command, name: &str) -> Result<Self> {
        let child = command.stdin(Stdio::null()).spawn();
        Ok(Self {
            child: child.with_context(|| format!("cannot start the load ({name})"))?,
            name: name.to_owned(),
        })
    }

    fn wait_until_ready(&mut self) -> Result<()> {
        let output = self.child.stdout.take().context("no pipe")?;
        let (tell, told) = mpsc::channel();
        thread::spawn(move || {
            let mut line = String::new();
            let read = BufReader::new(output).read_line(&mut line);
            // Nobody listens if it took too long.
            tell.send(read.is_ok() && line.trim() == "ready").ok();
        });
        if !told.recv_timeout(PATIENCE).unwrap_or(false) {
            bail!("the load ({}) does not begin", self.name);
        }
        Ok(())
    }

    /// That it still runs.
    pub(super) fn check(&mut self) -> Result<()> {
        if let Some(status) = self.child.try_wait()? {
            bail!("the load ({}) ended early ({status})", self.name);
        }
        Ok(())
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}
