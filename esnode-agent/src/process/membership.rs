//! Which group each process is in, and what the groups are called.
//!
//! Hooks and ledgers know a group by a [`Name`]: the command name, the number of a control group, or
//! a number that is given out here for a text. The texts are what the page shows.

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

    /// Gives up containers, and control groups of the host, that have had no processes for a while.
    pub fn retire(&mut self, processes: &[Process], now: Instant) -> Retired {
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
            if idle.1 > LINGERS_PASSES && now.saturating_duration_since(idle.0) >= self.lingers {
                let into = if of_host { HOST_NUMBER } else { GONE_NUMBER };
                retired.folded.push((*name, Name::of_number(into)));
                if !of_host && !retired.texts.contains(text) {
                    retired.texts.push(Arc::clone(text));
                }
            }
        }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        identity::{container::cgroup, engine::Worker},
        process::{Key, ledger::KernelLedger},
    };
    use std::path::Path;

    const ID: &str = "1f2e3d4c5b6a79880716253443526170a1b2c3d4e5f60718293a4b5c6d7e8f90";
    const SHORT: &str = "1f2e3d4c5b6a";

    fn command(text: &str) -> Name {
        let mut bytes = [0; 16];
        bytes[..text.len()].copy_from_slice(text.as_bytes());
        Name::from_bytes(bytes)
    }

    fn process(pid: u32, group: Name) -> Process {
        Process {
            key: Key {
                pid,
                start_nanoseconds: 1,
            },
            name: command("python3"),
            group,
            ..Process::default()
        }
    }

    fn in_container(path: &str) -> Identity {
        Identity {
            cgroup: cgroup::parse(&format!("0::{path}\n")).map(Arc::new),
            ..Identity::default()
        }
    }

    fn by(by: GroupBy) -> Membership {
        Membership::new(by, None, 8)
    }

    #[test]
    fn engines_and_models_have_a_group_each() {
        let worker = |model: Option<&str>| Identity {
            worker: Some(Arc::new(Worker {
                engine: "vllm".into(),
                role: "worker".into(),
                rank: None,
                model: model.map(Arc::from),
                server: None,
            })),
            ..Identity::default()
        };
        let mut membership = by(GroupBy::Engine);
        let one = process(1, command("python3"));
        let group = membership.of(&one, &worker(Some("org/model")));
        assert_eq!(&*membership.text(group), "vllm/org/model");
        assert_eq!(membership.of(&one, &worker(Some("org/model"))), group);
        let unknown = membership.of(&one, &worker(None));
        assert_eq!(&*membership.text(unknown), "vllm");
        let other = membership.of(&one, &Identity::default());
        assert_eq!((other, &*membership.text(other)), (one.name, "python3"));
    }

    #[test]
    fn rules_name_what_they_match_and_the_rest_is_other() {
        let text = "process_names:\n- name: shells\n  comm: [bash]\n";
        let config = Config::parse(Path::new("f"), text).expect("valid");
        let mut membership = Membership::new(GroupBy::Rules, Some(Arc::new(config)), 8);
        let named = Identity {
            rule: Some("shells".into()),
            ..Identity::default()
        };
        let one = process(1, command("bash"));
        let group = membership.of(&one, &named);
        assert_eq!(&*membership.text(group), "shells");
        let rest = membership.of(&one, &Identity::default());
        assert_eq!(&*membership.text(rest), OTHER);
        // Of those that ended unseen, the command name is known.
        assert_eq!(&*membership.text(command("bash")), "shells");
        assert_eq!(&*membership.text(command("dash")), OTHER);
    }

    #[test]
    fn groups_beyond_the_limit_are_other() {
        let mut membership = by(GroupBy::Container);
        let one = process(1, command("a"));
        let groups: Vec<_> = (0..9_u8)
            .map(|number| {
                let id = format!("{number:02x}").repeat(32);
                membership.of(&one, &in_container(&format!("/docker/{id}")))
            })
            .collect();
        // Three are always there.
        let texts = groups.iter().map(|group| membership.text(*group));
        let other = texts.filter(|text| &**text == OTHER).count();
        assert_eq!(other, 9 - (8 - 3));
    }

    #[test]
    fn a_container_without_processes_is_gone_after_a_while() {
        let mut membership = by(GroupBy::Container);
        let (outer, inner, host) = (Name::of_cgroup(7), Name::of_cgroup(8), Name::of_cgroup(1));
        let path = format!("/docker/{ID}");
        assert_eq!(&*membership.text(outer), GONE);
        assert!(membership.learn(&process(1, outer), &in_container(&path)));
        assert!(!membership.learn(&process(1, outer), &in_container(&path)));
        assert!(membership.learn(&process(2, inner), &in_container(&(path + "/init.scope"))));
        assert!(membership.learn(&process(3, host), &in_container("/user.slice")));
        for name in [outer, inner] {
            assert_eq!(&*membership.text(name), SHORT);
        }
        assert_eq!(&*membership.text(host), HOST);

        let begin = Instant::now();
        let after = |seconds| begin + Duration::from_secs(seconds);
        // As long as one of its control groups has a process, it lives.
        for second in [0, 100, 200, 300] {
            let retired = membership.retire(&[process(2, inner), process(3, host)], after(second));
            assert!(retired.folded.is_empty());
        }
        let only_host = [process(3, host)];
        for second in [301, 302, 303] {
            assert!(
                membership
                    .retire(&only_host, after(second))
                    .folded
                    .is_empty()
            );
        }
        let mut retired = membership.retire(&only_host, after(423));
        retired.folded.sort_unstable();
        let gone = Membership::gone();
        assert_eq!(retired.folded, [(outer, gone), (inner, gone)]);
        assert_eq!(retired.texts, [Arc::from(SHORT)]);
        assert_eq!(&*membership.text(outer), GONE);
        // What is left of the host's control groups stays with the host.
        for second in [430, 500, 600] {
            membership.retire(&[], after(second));
        }
        assert_eq!(&*membership.text(Name::of_number(HOST_NUMBER)), HOST);
        assert_eq!(membership.texts.len(), 3);
        assert!(membership.idle.is_empty());
    }

    #[test]
    fn the_last_numbers_are_shown_however_rarely_someone_looks() {
        let mut membership = by(GroupBy::Container);
        let name = Name::of_cgroup(7);
        let identity = in_container(&format!("/docker/{ID}"));
        membership.learn(&process(1, name), &identity);
        let begin = Instant::now();
        membership.retire(&[process(1, name)], begin);
        for hours in 1..=2 {
            let retired = membership.retire(&[], begin + Duration::from_hours(hours));
            assert!(retired.folded.is_empty());
        }
        let retired = membership.retire(&[], begin + Duration::from_hours(3));
        assert_eq!(retired.folded.len(), 1);
    }

    #[test]
    fn what_was_taken_for_gone_stays_there() {
        // As the collector does it when it learns whose a control group is.
        let name = Name::of_cgroup(7);
        let mut ledger = KernelLedger::default();
        let group = |cpu_nanoseconds| {
            let mut group = crate::process::Group::of(name);
            group.usage.cpu_nanoseconds = cpu_nanoseconds;
            group
        };
        ledger.complete(&mut vec![group(5)], &[]);
        ledger.leave_past(name, Membership::gone());
        let mut groups = vec![group(8)];
        ledger.complete(&mut groups, &[]);
        groups.sort_by_key(|group| group.usage.cpu_nanoseconds);
        let sums = groups.iter().map(|it| (it.name, it.usage.cpu_nanoseconds));
        let sums: Vec<_> = sums.collect();
        assert_eq!(sums, [(name, 3), (Membership::gone(), 5)]);
    }
}
