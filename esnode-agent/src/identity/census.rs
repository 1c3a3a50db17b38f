//! Who all processes are, remembered from one pass to the next.
//!
//! A command line is read once, and again when the process takes another name, executes another
//! program, or after a minute: titles change. A control group is read once, however many processes are in it.

mod family;
#[cfg(test)]
mod tests;

use super::{
    Identity,
    container::{Cgroup, Complaint, Details, Directory},
    engine::{Engines, Own},
    files::Files,
};
use crate::{
    grouping::process_exporter::{Config, Subject},
    process::{
        Key, Process, escape, label,
        select::{SelectSubject, Selector},
        selection::Claim,
    },
};
use esnode_ebpf::Name;
use rustc_hash::{FxHashMap, FxHashSet};
use std::{
    cell::RefCell,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};
use tracing::info;

/// A command line is read again after so long.
const AGE: Duration = Duration::from_mins(1);

/// What there is to know, and by what rules.
#[derive(Debug)]
pub struct Rules {
    /// Of inference engines.
    pub engines: Engines,
    /// Of `--group-config`.
    pub groups: Option<Arc<Config>>,
    /// Of `--select`.
    pub select: Selector,
}

/// Who all processes are.
#[derive(Debug)]
pub struct Census {
    files: Files,
    rules: Rules,
    /// What containers are called; nowhere if nobody is to look.
    directory: Option<Directory>,
    boot_time_seconds: Option<f64>,
    people: FxHashMap<Key, Person>,
    by_pid: FxHashMap<u32, Key>,
    on_gpu: FxHashSet<Key>,
    pass: u64,
}

/// What is remembered of a process.
#[derive(Debug)]
struct Person {
    parent: u32,
    name: Name,
    memory: u64,
    read: Instant,
    /// Whether its command line could be read.
    told: bool,
    own: Option<Own>,
    /// Number of the control group that it was in.
    number: Option<u64>,
    /// By its own command line, not by its ancestors.
    rule: Option<Arc<str>>,
    /// By all but the container.
    wanted: bool,
    identity: Identity,
    /// Variables that were asked for, and libraries.
    asked: RefCell<FxHashMap<String, Option<String>>>,
    pass: u64,
}

impl Census {
    /// Nobody yet; files are below `procfs`.
    #[must_use]
    pub fn new(
        procfs: &Path,
        rules: Rules,
        directory: Option<Directory>,
        boot_time_seconds: Option<f64>,
    ) -> Self {
        Self {
            files: Files::new(procfs),
            rules,
            directory,
            boot_time_seconds,
            people: FxHashMap::default(),
            by_pid: FxHashMap::default(),
            on_gpu: FxHashSet::default(),
            pass: 0,
        }
    }

    /// Finds out who these are, all that there are. `on_gpu` are those of them that hold a GPU.
    pub fn look(&mut self, processes: &[Process], on_gpu: &FxHashSet<Key>) {
        self.pass += 1;
        self.on_gpu.clone_from(on_gpu);
        let now = Instant::now();
        let new: Vec<_> = processes
            .iter()
            .filter(|process| self.meet(process, now))
            .collect();
        // Kernel threads have none.
        let users = new.iter().filter(|process| !process.kernel);
        let pids: Vec<_> = users.map(|process| process.key.pid).collect();
        let mut lines = self.files.arguments(&pids).into_iter();
        for process in new {
            let line = if process.kernel {
                Some(Vec::new())
            } else {
                lines.next().flatten()
            };
            self.take_in(process, line, now);
        }
        let pass = self.pass;
        self.people.retain(|_, person| person.pass == pass);
        self.by_pid = self.people.keys().map(|key| (key.pid, *key)).collect();
        self.resolve(processes);
        let complaint = self.directory.as_ref().and_then(Directory::complaint);
        if let Some(Complaint { source, reason }) = complaint {
            info!("no names of containers from {source}: {reason}");
        }
    }

    /// Who that is; of the unknown, nothing.
    #[must_use]
    fn of(&self, key: Key) -> Identity {
        let person = self.people.get(&key);
        person.map(|it| it.identity.clone()).unwrap_or_default()
    }

    /// Who that is, with what the container is called.
    #[must_use]
    pub fn described(&self, key: Key) -> Identity {
        let mut identity = self.of(key);
        identity.details = self.details(&identity);
        identity
    }

    fn details(&self, identity: &Identity) -> Option<Arc<Details>> {
        let container = identity.container()?;
        let pod = identity.cgroup.as_deref()?.pod_uid.as_deref();
        self.directory.as_ref()?.lookup(container, pod)
    }

    /// Who that is, as far as it is known.
    #[must_use]
    pub fn get(&self, key: Key) -> Option<&Identity> {
        self.people.get(&key).map(|person| &person.identity)
    }

    /// Who these are, with what is only of interest for a few: the names of their users and
    /// containers.
    pub fn identify(&mut self, processes: &[Process]) -> Vec<Identity> {
        let described = processes.iter().map(|process| {
            let mut identity = self.described(process.key);
            identity.user = self.user(process.key.pid).map(|(name, _)| name);
            identity
        });
        described.collect()
    }

    /// What brings a process onto the page, but for GPUs.
    #[must_use]
    pub fn claim(&self, key: Key) -> Claim {
        let Some(person) = self.people.get(&key) else {
            return Claim::Busy;
        };
        match &person.identity.worker {
            Some(worker) if worker.is_child() => Claim::Child,
            Some(_) => Claim::Worker,
            None if person.identity.wanted => Claim::Wanted,
            None => Claim::Busy,
        }
    }

    fn person(&self, pid: u32) -> Option<(Key, &Person)> {
        let key = self.by_pid.get(&pid)?;
        Some((*key, self.people.get(key)?))
    }

    /// Notes a process. True if its command line has to be read.
    fn meet(&mut self, process: &Process, now: Instant) -> bool {
        let Some(person) = self.people.get(&process.key) else {
            return true;
        };
        // Without a number, nothing tells that it has gone to another one.
        let stayed = person.number.is_some() && person.number == process.cgroup;
        let cgroup = if stayed {
            person.identity.cgroup.clone()
        } else {
            self.cgroup(process)
        };
        let Some(person) = self.people.get_mut(&process.key) else {
            return true;
        };
        person.pass = self.pass;
        person.parent = process.parent;
        person.number = process.cgroup;
        person.identity.cgroup = cgroup;
        let same = person.name == process.name && person.memory == process.memory;
        !same || !person.told || now.saturating_duration_since(person.read) >= AGE
    }

    /// The control group of a process, by its own file.
    ///
    /// What is read there counts for nobody else with the same number: a process can move between
    /// being counted and being read, as the first of each container does, and who is in one group by
    /// the number's hierarchy may be in different ones by another of version 1.
    fn cgroup(&self, process: &Process) -> Option<Arc<Cgroup>> {
        if process.kernel {
            return None;
        }
        self.files.cgroup(process.key.pid).map(Arc::new)
    }

    /// Takes in what a process says of itself, as far as it could be read.
    fn take_in(&mut self, process: &Process, line: Option<Vec<String>>, now: Instant) {
        let pid = process.key.pid;
        let comm = label(process.name);
        let told = line.is_some();
        let argv = line.unwrap_or_default();
        let before = self.people.remove(&process.key);
        let cgroup = match &before {
            Some(before) => before.identity.cgroup.clone(),
            None => self.cgroup(process),
        };
        let rule = self.rule(process, &comm, &argv);
        let user = self.rules.select.needs_user().then(|| self.user(pid));
        let (user, user_id) = user.flatten().unzip();
        let cmdline = self.rules.select.needs_cmdline().then(|| argv.join(" "));
        let wanted = self.rules.select.matches(&SelectSubject {
            comm: &comm,
            cmdline: cmdline.as_deref().filter(|_| !process.kernel),
            cgroup: cgroup.as_deref().map(|cgroup| &*cgroup.path),
            user: user.as_deref(),
            user_id,
            ..SelectSubject::default()
        });
        // What it was found to be stays known while its family changes, until it is another program.
        let same = before.filter(|before| match process.memory {
            0 => before.name == process.name,
            memory => before.memory == memory,
        });
        let before = same.map(|before| before.identity).unwrap_or_default();
        let person = Person {
            parent: process.parent,
            name: process.name,
            memory: process.memory,
            read: now,
            told,
            own: self.rules.engines.own(&comm, &argv),
            number: process.cgroup,
            rule: rule.clone(),
            wanted,
            identity: Identity {
                worker: before.worker,
                cgroup,
                rule: rule.or(before.rule),
                wanted,
                ..Identity::default()
            },
            asked: RefCell::default(),
            pass: self.pass,
        };
        self.people.insert(process.key, person);
    }

    /// The group of a process by the rules for groups.
    fn rule(&self, process: &Process, comm: &str, argv: &[String]) -> Option<Arc<str>> {
        let pid = process.key.pid;
        let name = self.rules.groups.as_ref()?.name(&Subject {
            pid,
            comm,
            argv,
            user: &|| self.user(pid).map(|(name, _)| name.to_string()),
            start_seconds: self
                .boot_time_seconds
                .map(|boot| process.key.start_time_seconds(boot)),
            cgroups: &|| self.files.cgroup_paths(pid),
            cwd: &|| self.files.working_directory(pid),
        });
        name.map(|name| escape(&name).into())
    }

    /// The user of a process: the name, or else the number, and the number.
    fn user(&self, pid: u32) -> Option<(Arc<str>, u32)> {
        let number = self.files.user(pid)?;
        let name = self.files.name(number);
        Some((name.unwrap_or_else(|| number.to_string().into()), number))
    }
}
