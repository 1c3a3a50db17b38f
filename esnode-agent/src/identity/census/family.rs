//! What processes are by their families: children of an engine, in the group of an ancestor.

use super::{Census, Rules};
use crate::{
    identity::{
        Identity,
        engine::{Family, Own, Worker},
    },
    process::{Key, Process, escape, select::SelectSubject},
};
use rustc_hash::FxHashMap;
use std::{borrow::Cow, sync::Arc};

/// How many ancestors are looked at.
const DEEPEST: usize = 64;

impl Census {
    /// Joins processes with their families: whom they work for, and which group they are in.
    pub(super) fn resolve(&mut self, processes: &[Process]) {
        for (key, worker) in self.workers(processes) {
            if let Some(person) = self.people.get_mut(&key) {
                person.identity.worker = worker;
            }
        }
        if self.rules.groups.is_some() {
            let mut inherited = FxHashMap::default();
            for process in processes {
                self.inherit_rule(process.key.pid, &mut inherited, 0);
            }
            for (key, rule) in inherited {
                if let Some(person) = self.people.get_mut(&key) {
                    person.identity.rule = rule;
                }
            }
        }
        let select = &self.rules.select;
        if select.needs_engine() || select.needs_container() {
            for process in processes {
                let found = self.rules.select_wants(&self.described(process.key));
                if let Some(person) = self.people.get_mut(&process.key) {
                    person.identity.wanted = person.wanted || found;
                }
            }
        }
    }

    /// Those who may work for an engine, and for which one they do.
    fn workers(&self, processes: &[Process]) -> Vec<(Key, Option<Arc<Worker>>)> {
        let mut concerned = FxHashMap::default();
        let candidates = processes
            .iter()
            .filter(|process| self.is_concerned(process.key.pid, &mut concerned, 0));
        candidates
            .map(|process| {
                let before = self.people.get(&process.key);
                let before = before.and_then(|person| person.identity.worker.as_ref());
                let found = self.rules.engines.resolve(process.key.pid, self);
                (process.key, keep(before, found, self))
            })
            .collect()
    }

    /// Whether anything about a process, or about one of its ancestors, hints at an engine.
    fn is_concerned(&self, pid: u32, known: &mut FxHashMap<u32, bool>, depth: usize) -> bool {
        if let Some(known) = known.get(&pid) {
            return *known;
        }
        let Some((key, person)) = self.person(pid) else {
            return false;
        };
        let concerned = person.own.as_ref().is_some_and(Own::may_match)
            || person.identity.worker.is_some()
            || self.on_gpu.contains(&key)
            || (depth < DEEPEST && self.is_concerned(person.parent, known, depth + 1));
        known.insert(pid, concerned);
        concerned
    }

    /// The group of a process by the rules: its own, or that of the nearest ancestor.
    fn inherit_rule(
        &self,
        pid: u32,
        known: &mut FxHashMap<Key, Option<Arc<str>>>,
        depth: usize,
    ) -> Option<Arc<str>> {
        let (key, person) = self.person(pid)?;
        if let Some(known) = known.get(&key) {
            return known.clone();
        }
        let own = person.rule.clone();
        let inherited = || {
            let parent = (depth < DEEPEST).then_some(person.parent)?;
            self.inherit_rule(parent, known, depth + 1)
        };
        // What it inherited stays when the ancestor is gone.
        let rule = own
            .or_else(inherited)
            .or_else(|| person.identity.rule.clone());
        known.insert(key, rule.clone());
        rule
    }
}

impl Rules {
    /// Whether a rule of --select matches what was found out with the family's help.
    fn select_wants(&self, identity: &Identity) -> bool {
        let worker = identity.worker.as_deref();
        let container = identity.container();
        self.select.matches(&SelectSubject {
            container_id: container.map(|container| &*container.id),
            container: identity.container_name(),
            engine: worker.map(|worker| &*worker.engine),
            model: worker.and_then(|worker| worker.model.as_deref()),
            ..SelectSubject::default()
        })
    }
}

/// Without what a process put into its command line to look like something else.
fn clean(worker: Worker) -> Worker {
    let clean = |text: Arc<str>| match escape(&text) {
        Cow::Borrowed(_) => text,
        Cow::Owned(escaped) => escaped.into(),
    };
    Worker {
        engine: clean(worker.engine),
        role: clean(worker.role),
        rank: worker.rank.map(clean),
        model: worker.model.map(clean),
        server: worker.server,
    }
}

/// What a process is known to be, if its family can't tell any more.
fn keep(
    before: Option<&Arc<Worker>>,
    found: Option<Worker>,
    census: &Census,
) -> Option<Arc<Worker>> {
    let found = found.map(clean);
    let Some(before) = before else {
        return found.map(Arc::new);
    };
    let server = before.server.filter(|pid| census.by_pid.contains_key(pid));
    let mut worker = found.unwrap_or_else(|| Worker {
        server,
        ..Worker::clone(before)
    });
    if worker.model.is_none() && worker.engine == before.engine {
        worker.model.clone_from(&before.model);
    }
    if worker == **before {
        return Some(Arc::clone(before));
    }
    Some(Arc::new(worker))
}

impl Family for Census {
    fn parent(&self, pid: u32) -> Option<u32> {
        let (_, person) = self.person(pid)?;
        Some(person.parent).filter(|parent| *parent != 0)
    }

    fn own(&self, pid: u32) -> Option<&Own> {
        self.person(pid)?.1.own.as_ref()
    }

    fn environment(&self, pid: u32, name: &str) -> Option<String> {
        let (_, person) = self.person(pid)?;
        let mut asked = person.asked.borrow_mut();
        let answer = asked.entry(name.to_owned());
        let answer = answer.or_insert_with(|| self.files.environment(pid, name));
        answer.clone()
    }

    fn holds_gpu(&self, pid: u32) -> bool {
        let person = self.person(pid);
        person.is_some_and(|(key, _)| self.on_gpu.contains(&key))
    }

    fn maps(&self, pid: u32, library: &str) -> bool {
        let Some((_, person)) = self.person(pid) else {
            return false;
        };
        // No variable is called so.
        let mut asked = person.asked.borrow_mut();
        let answer = asked.entry(format!("={library}"));
        let answer = answer.or_insert_with(|| self.files.maps(pid, library).then(String::new));
        answer.is_some()
    }
}
