//! Inference engines, by command line and ancestry.
//!
//! [`Engines::own`] reads a command line once, when it is new; [`Engines::resolve`] joins what it said with the
//! process's ancestors, its environment and its GPU. The rules are data, `rules.toml`; a file of the user's in
//! the same format comes before them.
//!
//! # A file of rules
//!
//! A list of `[[rule]]`, the first that fits wins. All keys but `name`, `engine` and `role` may be left out.
//!
//! | key | what it says |
//! | --- | --- |
//! | `name` | what errors call the rule |
//! | `engine`, `role` | what the process is |
//! | **what runs**, one of them is enough: | |
//! | `program` | base names of the program, or of the script that Python runs (`python3 /usr/local/bin/vllm`) |
//! | `script` | ends of the path of the script that Python runs, whole parts of it |
//! | `module` | modules that Python runs (`python -m …`) |
//! | `code` | pattern for the text that Python runs (`python -c …`) |
//! | `python` | true: whatever Python runs |
//! | `title` | pattern for a title that the process gave itself: the first string of its command line, or `comm` where that has it whole; its groups `rank`, `model`, `prefix` and `role` are kept |
//! | `comm` | pattern for `comm`, which has 15 bytes of a title; the same groups |
//! | **how it runs**, all of them (not asked of titles): | |
//! | `path` | pattern for the path of the program or script |
//! | `subcommand` | one of these comes first among the arguments; words apart by blanks |
//! | `flags` | one of these is among the arguments |
//! | `argument` | pattern that fits one of the arguments |
//! | **where it runs**, all of them: | |
//! | `under` | engines, one of which an ancestor works for |
//! | `alone` | true: not below another engine, which would claim the process |
//! | `environment` | variables and their values in the process or its parent; `*` is any value, `{prefix}` the title's group |
//! | `gpu` | true: it holds a GPU |
//! | `maps` | part of the name of a library that it has mapped |
//! | **what follows**: | |
//! | `roles` | from the title's group `role` to roles; `role` holds for others |
//! | `server` | true: the workers below it belong to it, and take their model from it |
//! | `adopts` | false: what it starts is not the engine's, only what a rule recognises |
//! | `model` | `{ flags, argument, position, environment }`: where the model stands, in this order; `position` counts arguments that are no options, from 1, behind the subcommand; `argument` is a pattern with a group `model` |
//! | `rank` | `{ flags, environment }`: where the rank stands, if not in the title |
//!
//! Before the rules may stand `launchers`, programs that start whatever they are told to (shells), and `switches`,
//! options that take no value (a `*` at the end stands for all that begin so).
//!
//! # What is left out
//!
//! A wrapper (`sh -c "vllm serve …"`, `tini`, `docker run`, `nsys profile`) is not the server, its child is: only
//! the program that a process runs counts, never text among its arguments. The model is what the user asked to
//! serve, not the name it is served under: two servers of the same weights agree on it. No file is read: a
//! model that stands in a configuration file is unknown.

mod command;
mod model;
mod own;
mod resolve;
mod rules;
#[cfg(test)]
mod tests;

pub use command::arguments;
pub use own::Own;
pub use rules::RulesError;

use rules::{BUILT_IN, File};
use std::{path::Path, sync::Arc};

/// The rules, ready for use.
#[derive(Debug)]
pub struct Engines {
    file: File,
}

/// What is known of processes beside their command lines; the caller's census answers.
pub trait Family {
    /// The parent; `None` at the top or where unknown.
    fn parent(&self, pid: u32) -> Option<u32>;

    /// What [`Engines::own`] said of a process.
    fn own(&self, pid: u32) -> Option<&Own>;

    /// A variable of a process's environment, from `/proc/PID/environ`; `None` where it is not set or may not be
    /// read. Asked only where a rule needs it.
    fn environment(&self, pid: u32, name: &str) -> Option<String>;

    /// Whether a process holds a GPU.
    fn holds_gpu(&self, pid: u32) -> bool;

    /// Whether a process has a library mapped whose file name holds this text, from `/proc/PID/maps`; false where
    /// that is unknown. Asked only of Python that holds a GPU and of what rules of the user ask for.
    fn maps(&self, _pid: u32, _library: &str) -> bool {
        false
    }
}

/// A process that works for an engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Worker {
    /// The engine: `vllm`, `sglang`, `ollama` …
    pub engine: Arc<str>,
    /// Its part in it: `server`, `worker`, `scheduler` …; `child` for what an engine started and no rule knows.
    pub role: Arc<str>,
    /// Which of several: `TP1`, `DP0_PP1_TP3`, or a number.
    pub rank: Option<Arc<str>>,
    /// The model that it serves, as far as command lines and environment say.
    pub model: Option<Arc<str>>,
    /// The PID of the process at the engine's head, its own for that one; `None` once that is gone.
    pub server: Option<u32>,
}

impl Worker {
    /// Whether an engine started it, and no rule knows it.
    #[must_use]
    pub fn is_child(&self) -> bool {
        &*self.role == resolve::CHILD
    }
}

impl Engines {
    /// The rules that the agent brings.
    ///
    /// # Panics
    /// If they are no rules, which a test rules out.
    #[must_use]
    pub fn built_in() -> Self {
        let file = File::parse(Path::new("rules.toml"), BUILT_IN, &[])
            .expect("the tests read the rules that are built in");
        Self { file }
    }

    /// A user's rules, and after them those that the agent brings.
    ///
    /// # Errors
    /// If `text`, read from `path`, is not a file of rules: the error names the path, the line or rule, and what
    /// was expected.
    pub fn with_user_rules(path: &Path, text: &str) -> Result<Self, RulesError> {
        let Self { file: built_in } = Self::built_in();
        let known: Vec<Arc<str>> = built_in
            .rule
            .iter()
            .map(|rule| rule.engine.clone())
            .collect();
        let mut file = File::parse(path, text, &known)?;
        file.launchers.extend(built_in.launchers);
        file.switches.extend(built_in.switches);
        file.rule.extend(built_in.rule);
        Ok(Self { file })
    }

    /// What a process's own command line says: `comm` from `/proc/PID/comm` and the [`arguments`] of its
    /// command line. Pure; to be kept as long as they stay the same.
    #[must_use]
    pub fn own(&self, comm: &str, argv: &[String]) -> Option<Own> {
        own::read(&self.file, comm, argv)
    }

    /// What a process is, with what its family knows of it; `None` if it works for no engine.
    #[must_use]
    pub fn resolve(&self, pid: u32, family: &dyn Family) -> Option<Worker> {
        resolve::resolve(&self.file, pid, family)
    }
}
