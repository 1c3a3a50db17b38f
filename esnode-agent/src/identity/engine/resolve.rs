//! What a process is, from its own command line, its ancestors, its environment and its GPU.

use super::{
    Family, Worker,
    own::Candidate,
    rules::{File, Rule},
};
use std::sync::Arc;

/// How many ancestors are looked at, itself included. Deeper is no engine's family but a loop or an attack.
const DEEPEST: usize = 64;

/// The role of what an engine started and no rule knows.
pub(super) const CHILD: &str = "child";

/// The role of rules for servers, and what it becomes below another server of the same engine.
const SERVER: &str = "server";
const WORKER: &str = "worker";

/// An ancestor that is an engine's.
struct Above {
    worker: Worker,
    /// Whether it is the one that the others belong to.
    heads: bool,
    /// Whether what it starts is the engine's too.
    adopts: bool,
}

/// What is known above a process, the nearest last.
#[derive(Default)]
struct Ancestors {
    recognised: Vec<Above>,
    /// A launcher stands between the nearest of them and the process.
    cut: bool,
}

/// What this process is.
pub(super) fn resolve(file: &File, pid: u32, family: &dyn Family) -> Option<Worker> {
    let mut line = vec![pid];
    let mut youngest = pid;
    while let Some(parent) = family.parent(youngest) {
        if line.len() == DEEPEST || line.contains(&parent) {
            break;
        }
        line.push(parent);
        youngest = parent;
    }
    let mut ancestors = Ancestors::default();
    while let Some(member) = line.pop() {
        let found = recognise(file, member, family, &ancestors).or_else(|| ancestors.adopted());
        if line.is_empty() {
            return found.map(|above| above.worker);
        }
        if let Some(above) = found {
            ancestors.cut = !above.adopts;
            ancestors.recognised.push(above);
        }
        ancestors.cut |= family.own(member).is_some_and(|own| own.launcher);
    }
    None
}

impl Ancestors {
    /// The nearest ancestor, if what is below it is its engine's.
    fn claims(&self) -> Option<&Above> {
        self.recognised.last().filter(|_| !self.cut)
    }

    /// The nearest ancestor's place for a process that no rule knows.
    fn adopted(&self) -> Option<Above> {
        let nearest = self.claims()?;
        Some(Above {
            worker: Worker {
                role: Arc::from(CHILD),
                rank: None,
                ..nearest.worker.clone()
            },
            heads: false,
            adopts: true,
        })
    }

    /// The ancestors of this engine, the nearest first.
    fn of<'a>(&'a self, engine: &'a str) -> impl Iterator<Item = &'a Above> {
        self.recognised
            .iter()
            .rev()
            .filter(move |above| *above.worker.engine == *engine)
    }
}

/// The first rule whose conditions all hold.
fn recognise(file: &File, pid: u32, family: &dyn Family, ancestors: &Ancestors) -> Option<Above> {
    let own = family.own(pid)?;
    own.candidates.iter().find_map(|candidate| {
        let rule = file.rule.get(candidate.rule)?;
        holds(rule, candidate, pid, family, ancestors)
            .then(|| place(rule, candidate, pid, family, ancestors))
    })
}

/// Whether what a rule asks for beyond the command line holds, the cheapest question first.
fn holds(
    rule: &Rule,
    candidate: &Candidate,
    pid: u32,
    family: &dyn Family,
    ancestors: &Ancestors,
) -> bool {
    let under = rule.under.is_empty()
        || rule
            .under
            .iter()
            .any(|engine| ancestors.of(engine).next().is_some());
    let theirs = ancestors.claims().filter(|_| rule.alone);
    under
        && theirs.is_none_or(|above| above.worker.engine == rule.engine)
        && (!rule.gpu || family.holds_gpu(pid))
        && rule.environment.iter().all(|(name, value)| {
            inherited(pid, name, family).is_some_and(|found| match value.as_str() {
                "*" => true,
                "{prefix}" => candidate.prefix.as_deref() == Some(&*found),
                value => found == value,
            })
        })
        && rule
            .maps
            .as_ref()
            .is_none_or(|library| family.maps(pid, library))
}

/// A variable of a process, or of its parent: setproctitle writes long titles over the environment.
fn inherited(pid: u32, name: &str, family: &dyn Family) -> Option<String> {
    family
        .environment(pid, name)
        .or_else(|| family.environment(family.parent(pid)?, name))
}

/// The process in its rule's role, with what only its engine's other processes know.
fn place(
    rule: &Rule,
    candidate: &Candidate,
    pid: u32,
    family: &dyn Family,
    ancestors: &Ancestors,
) -> Above {
    let named = |names: &[String]| {
        names
            .iter()
            .find_map(|name| family.environment(pid, name))
            .filter(|value| !value.is_empty())
    };
    let head = ancestors.of(&rule.engine).find(|above| above.heads);
    let heads = rule.server && head.is_none();
    // A server below its own server is a copy that it forked (vLLM without setproctitle), or one that it
    // starts for each model (llama-server as router).
    let copy = head.is_some() && *rule.role == *SERVER;
    let model = candidate
        .model
        .clone()
        .or_else(|| named(&rule.model.environment).and_then(|name| super::model::shorten(&name)))
        .or_else(|| {
            ancestors
                .of(&rule.engine)
                .find_map(|above| above.worker.model.clone())
        });
    let part = candidate.role.clone().unwrap_or_else(|| rule.role.clone());
    let rank = candidate
        .rank
        .clone()
        .or_else(|| named(&rule.rank.environment).map(Arc::from));
    Above {
        worker: Worker {
            engine: rule.engine.clone(),
            role: if copy { Arc::from(WORKER) } else { part },
            rank,
            model,
            server: if heads {
                Some(pid)
            } else {
                head.and_then(|above| above.worker.server)
            },
        },
        heads,
        adopts: rule.adopts,
    }
}
