//! Running nvidia-smi.

use std::{
    io,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};

use super::{
    answer::{self, Gpu, PmonRow, ProcessRow},
    fields::FIELDS,
};

/// nvidia-smi, and the fields that this version of it knows.
pub(super) struct Smi {
    program: PathBuf,
    /// The name under which it is known here, and its own.
    fields: Vec<(&'static str, &'static str)>,
    /// Fields that it does not know.
    pub(super) unknown: Vec<&'static str>,
    /// What `pmon` said instead of an answer.
    pub(super) no_pmon: Option<String>,
}

/// Everything that nvidia-smi says at about one time.
#[derive(Clone, Debug)]
pub(super) struct Snapshot {
    /// The middle of the call that asked for the GPUs' readings.
    pub(super) at: Instant,
    pub(super) gpus: Vec<Gpu>,
    pub(super) processes: Vec<ProcessRow>,
    pub(super) pmon: Vec<PmonRow>,
}

impl Smi {
    /// Finds out which fields it knows, and that there are GPUs.
    pub(super) fn open(program: &Path) -> Result<Self> {
        let mut smi = Self {
            program: program.to_owned(),
            fields: FIELDS.iter().map(|(name, ..)| (*name, *name)).collect(),
            unknown: Vec::new(),
            no_pmon: None,
        };
        let gpus = smi.gpus()?;
        ensure!(!gpus.is_empty(), "nvidia-smi lists no GPU");
        Ok(smi)
    }

    /// Asks for everything.
    pub(super) fn snapshot(&mut self) -> Result<Snapshot> {
        let begun = Instant::now();
        let gpus = self.gpus()?;
        let half: Duration = begun.elapsed() / 2;
        Ok(Snapshot {
            at: begun + half,
            gpus,
            processes: self.processes()?,
            pmon: self.pmon()?,
        })
    }

    fn gpus(&mut self) -> Result<Vec<Gpu>> {
        loop {
            let own: Vec<&str> = self.fields.iter().map(|(_, own)| *own).collect();
            let query = format!("--query-gpu={}", own.join(","));
            let (success, text) = self.ask(&[&query, "--format=csv,noheader,nounits"])?;
            if let Some(refused) = answer::refused_field(&text) {
                self.forget(refused)?;
            } else if success {
                let names: Vec<&'static str> = self.fields.iter().map(|(name, _)| *name).collect();
                return answer::gpus(&names, &text);
            } else {
                bail!("nvidia-smi fails: {}", answer::first_line(&text));
            }
        }
    }

    /// Takes the older name of a field, or does without.
    fn forget(&mut self, refused: &str) -> Result<()> {
        let mut fields = self.fields.iter();
        let place = fields.position(|(_, own)| *own == refused);
        let place = place.with_context(|| format!("nvidia-smi refuses {refused}, unasked"))?;
        let (name, _) = self.fields.remove(place);
        ensure!(name != "index", "nvidia-smi does not know the field index");
        let older = FIELDS.iter().find(|(known, ..)| *known == name);
        match older.and_then(|(_, older)| *older) {
            Some(older) if older != refused => self.fields.insert(place, (name, older)),
            _ => self.unknown.push(name),
        }
        Ok(())
    }

    fn processes(&self) -> Result<Vec<ProcessRow>> {
        let (success, text) = self.ask(&[
            "--query-compute-apps=gpu_uuid,pid,used_memory",
            "--format=csv,noheader,nounits",
        ])?;
        ensure!(
            success,
            "nvidia-smi --query-compute-apps fails: {}",
            answer::first_line(&text)
        );
        Ok(answer::processes(&text))
    }

    fn pmon(&mut self) -> Result<Vec<PmonRow>> {
        if self.no_pmon.is_some() {
            return Ok(Vec::new());
        }
        let (success, text) = self.ask(&["pmon", "-c", "1", "-s", "um"])?;
        if !success {
            self.no_pmon = Some(answer::first_line(&text).to_owned());
            return Ok(Vec::new());
        }
        Ok(answer::pmon(&text))
    }

    /// Whether it succeeds, and what it prints.
    fn ask(&self, arguments: &[&str]) -> Result<(bool, String)> {
        let mut command = Command::new(&self.program);
        command
            .args(arguments)
            .env("LC_ALL", "C")
            .stdin(Stdio::null());
        let output = command.output().map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => anyhow::anyhow!(
                "there is no {}: is the NVIDIA driver installed?",
                self.program.display()
            ),
            _ => {
                anyhow::Error::new(error).context(format!("cannot run {}", self.program.display()))
            }
        })?;
        let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
        if !output.status.success() {
            text.push_str(&String::from_utf8_lossy(&output.stderr));
        }
        Ok((output.status.success(), text))
    }
}
