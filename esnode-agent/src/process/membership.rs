//! Which group each process is in, and what the groups are called.
//!
//! Hooks and ledgers know a group by a [`Name`]: the command name, the number of a control group, or
//! a number that is given out here for a text. The texts are what the page shows.

#[cfg(test)]
mod tests;

use super::{Process, label, named::OTHER};
use crate::{grouping::process_exporter::Config, identity::Identity};
use clap::ValueEnum;
use esnode_ebpf::Name;
use rustc_hash::{FxHashMap, FxHashSet};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

/// By what processes are put together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum GroupBy {
    /// Their command name.
    #[default]
    Command,
    /// The container that they run in.
    Container,
    /// The inference engine and model that they work for; all others by command name.
    Engine,
    /// The rules of --group-config.
    Rules,
}

/// Processes outside of containers.
pub const HOST: &str = "host";

/// What is left of containers that are no more, and of those that nobody ever saw alive.
pub const GONE: &str = "gone";

/// Numbers of the groups that are always there.
const HOST_NUMBER: u64 = 0;
const GONE_NUMBER: u64 = 1;
const OTHER_NUMBER: u64 = 2;
const FIRST_NUMBER: u64 = 3;

/// So long a container without processes has series of its own, unless told otherwise.
const LINGERS: Duration = Duration::from_mins(2);

/// And so many passes at least, as its last numbers are to be seen.
const LINGERS_PASSES: u32 = 2;

/// Characters of a container's id that tell it apart, as container engines print it.
const SHORT_ID: usize = 12;

/// Knows the groups by name and by text.
#[derive(Debug)]
pub struct Membership {
    by: GroupBy,
    config: Option<Arc<Config>>,
    /// Whether the rules have a name for every command, whatever it is.
    every_comm: bool,
    /// Texts of groups that are not called by the command name.
    texts: FxHashMap<Name, Arc<str>>,
    numbers: FxHashMap<Arc<str>, Name>,
    /// As many as hooks and ledgers have room for.
    limit: usize,
    next: u64,
    /// So long a container without processes has series of its own.
    lingers: Duration,
    /// Since when groups have had no processes, and for how many passes.
    idle: FxHashMap<Name, (Instant, u32)>,
}

/// Containers that are no more, for those who keep accounts.
#[derive(Debug, Default)]
pub struct Retired {
    /// Groups, and those in which what they had counts from now on.
    pub folded: Vec<(Name, Name)>,
    /// Texts.
    pub texts: Vec<Arc<str>>,
}

impl Membership {
    /// Groups by `by`, with the rules of `config` if those are it; at most `limit` at a time.
    #[must_use]
    pub fn new(by: GroupBy, config: Option<Arc<Config>>, limit: usize) -> Self {
        // A name that nothing has.
        let named = config.as_ref().and_then(|it| it.name_by_comm("\0"));
        let mut new = Self {
            by,
            config,
            every_comm: named.is_some(),
            texts: FxHashMap::default(),
            numbers: FxHashMap::default(),
            limit,
            next: FIRST_NUMBER,
            lingers: LINGERS,
            idle: FxHashMap::default(),
        };
        for (number, text) in [
            (HOST_NUMBER, HOST),
            (GONE_NUMBER, GONE),
            (OTHER_NUMBER, OTHER),
        ] {
            new.know(Name::of_number(number), text.into());
        }
        new
    }

    /// Keeps the series of containers without processes for so long, instead of two minutes.
    pub fn keep_for(&mut self, lingers: Duration) {
        self.lingers = lingers;
    }

    /// By what processes are put together.
    #[must_use]
    pub fn by(&self) -> GroupBy {
        self.by
    }

    /// The name of what is outside of containers.
    #[must_use]
    pub fn host() -> Name {
        Name::of_number(HOST_NUMBER)
    }

    /// The name of what is left of containers that are no more.
    #[must_use]
    pub fn gone() -> Name {
        Name::of_number(GONE_NUMBER)
    }

    /// The group that a process belongs into.
    pub fn of(&mut self, process: &Process, identity: &Identity) -> Name {
        let by_command = process.name.group(process.kernel);
        match self.by {
            GroupBy::Command => by_command,
            GroupBy::Container => {
                let text = container_text(identity);
                self.number(text)
            }
            GroupBy::Engine => match &identity.worker {
                Some(worker) => {
                    let engine = &worker.engine;
                    let text = match &worker.model {
                        Some(model) => format!("{engine}/{model}").into(),
                        None => Arc::clone(engine),
                    };
                    self.number(text)
                }
                None => by_command,
            },
            GroupBy::Rules => match &identity.rule {
                // Hooks see to new names, also of children that nobody sees.
                Some(text) if self.names_by_comm(process, text) => by_command,
                Some(text) => self.number(Arc::clone(text)),
                // By the command name alone, a kernel thread may seem to have one.
                None if self.name_by_comm(process).is_some() => Name::of_number(OTHER_NUMBER),
                // Also in `other`; but children that nobody sees may be named by their own names.
                None => by_command,
            },
        }
    }

    /// Notes the container of a process that hooks have put into the group of its control group.
    /// True if that group had no text before.
    pub fn learn(&mut self, process: &Process, identity: &Identity) -> bool {
        if process.group.cgroup().is_none() || self.texts.contains_key(&process.group) {
            return false;
        }
        self.texts.insert(process.group, container_text(identity));
        true
    }

    /// What a group is called on the page.
    #[must_use]
    pub fn text(&self, name: Name) -> Arc<str> {
        if let Some(text) = self.texts.get(&name) {
            return Arc::clone(text);
        }
        match self.by {
            // A process that ended unseen; what else has no text is of the past.
            GroupBy::Container => GONE.into(),
            GroupBy::Rules if name.is_command() => {
                let named = self.config.as_ref();
                let named = named.and_then(|config| config.name_by_comm(&label(name)));
                named.unwrap_or_else(|| OTHER.to_owned()).into()
            }
            _ if name.is_command() => label(name).into(),
            _ => OTHER.into(),
        }
    }

    /// Remembers what the group of a process is called whose account was opened before that was
    /// known.
    pub fn call(&mut self, name: Name, like: Name) {
        if !self.texts.contains_key(&name) {
            let text = self.text(like);
            self.texts.insert(name, text);
        }
    }

    /// Gives up containers, and control groups of the host, that have had no processes for a while;
    /// of those that are `known` to have an account also such as nobody ever saw alive. What
    /// `is_other` has no label of its own counts on where it is shown.
    pub fn retire(
        &mut self,
        processes: &[Process],
        known: &[Name],
        now: Instant,
        is_other: impl Fn(&str) -> bool,
    ) -> Retired {
        let mut retired = Retired::default();
        if self.by != GroupBy::Container {
            return retired;
        }
        let names: FxHashSet<_> = processes.iter().map(|process| process.group).collect();
        let texts: FxHashSet<_> = names.iter().map(|name| self.text(*name)).collect();
        for (name, text) in self.texts.iter().filter(|(name, _)| !is_fixed(**name)) {
            let of_host = &**text == HOST;
            let idle = self.idle.entry(*name).or_insert((now, 0));
            if names.contains(name) || (!of_host && texts.contains(text)) {
                *idle = (now, 0);
                continue;
            }
            idle.1 += 1;
            if idle.1 <= LINGERS_PASSES || now.saturating_duration_since(idle.0) < self.lingers {
                continue;
            }
            let into = match &**text {
                HOST => HOST_NUMBER,
                text if is_other(text) => OTHER_NUMBER,
                _ => GONE_NUMBER,
            };
            retired.folded.push((*name, Name::of_number(into)));
            if !of_host && !retired.texts.contains(text) {
                retired.texts.push(Arc::clone(text));
            }
        }
        // They are part of what is gone already.
        let unseen = known.iter().filter(|name| {
            name.cgroup().is_some() && !names.contains(name) && !self.texts.contains_key(name)
        });
        let unseen = unseen.map(|name| (*name, Self::gone()));
        retired.folded.extend(unseen);
        for (name, _) in &retired.folded {
            self.idle.remove(name);
            self.texts.remove(name);
        }
        for text in &retired.texts {
            self.numbers.remove(text);
        }
        retired
    }

    /// Whether the command name of a process tells its group, by rules that leave no other process
    /// without one. Where some do, children of this one may be in its group for lack of their own.
    fn names_by_comm(&self, process: &Process, text: &str) -> bool {
        self.every_comm && self.name_by_comm(process).as_deref() == Some(text)
    }

    fn name_by_comm(&self, process: &Process) -> Option<String> {
        self.config.as_ref()?.name_by_comm(&label(process.name))
    }

    fn number(&mut self, text: Arc<str>) -> Name {
        if let Some(name) = self.numbers.get(&text) {
            return *name;
        }
        if self.numbers.len() >= self.limit {
            return Name::of_number(OTHER_NUMBER);
        }
        let name = Name::of_number(self.next);
        self.next += 1;
        self.know(name, text);
        name
    }

    fn know(&mut self, name: Name, text: Arc<str>) {
        self.texts.insert(name, Arc::clone(&text));
        self.numbers.insert(text, name);
    }
}

/// Whether a group is there for good.
fn is_fixed(name: Name) -> bool {
    (0..FIRST_NUMBER).any(|number| name == Name::of_number(number))
}

/// The text for the container of a process.
fn container_text(identity: &Identity) -> Arc<str> {
    match identity.container() {
        Some(container) => container
            .id
            .chars()
            .take(SHORT_ID)
            .collect::<String>()
            .into(),
        None => HOST.into(),
    }
}
