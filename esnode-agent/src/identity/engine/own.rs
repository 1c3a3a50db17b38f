//! What a process's own command line says, before anything is known of its ancestors.

use super::{
    command::{Command, Runs, base_name},
    model,
    rules::{File, Rule},
};
use std::sync::Arc;

/// The longest `comm` that the kernel keeps, in bytes: `TASK_COMM_LEN` less its NUL.
const COMM_LEN: usize = 15;

/// What a command line says of its process: the rules that may apply, the first of them first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Own {
    pub(super) candidates: Box<[Candidate]>,
    /// It starts whatever it is told to: a shell.
    pub(super) launcher: bool,
}

/// A rule whose part about the command line holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Candidate {
    /// Its place among the rules.
    pub(super) rule: usize,
    /// Its title's groups; the role in the rule's words.
    pub(super) role: Option<Arc<str>>,
    pub(super) prefix: Option<Arc<str>>,
    pub(super) rank: Option<Arc<str>>,
    /// By title, flag or position.
    pub(super) model: Option<Arc<str>>,
}

impl Own {
    /// Whether a rule may fit; else it is known only that the process launches others.
    #[must_use]
    pub fn may_match(&self) -> bool {
        !self.candidates.is_empty()
    }
}

/// Reads a command line by the rules; `None` where they say nothing of it.
pub(super) fn read(file: &File, comm: &str, argv: &[String]) -> Option<Own> {
    let command = Command::of(argv);
    let candidates: Box<[Candidate]> = file
        .rule
        .iter()
        .enumerate()
        .filter_map(|(index, rule)| {
            let called = command
                .as_ref()
                .and_then(|command| called(rule, command, &file.switches));
            let mut candidate = match (titled(rule, comm, argv), called) {
                // A name in `comm` beside a whole command line.
                (Some(titled), Some(called)) => Candidate {
                    rank: titled.rank.or(called.rank),
                    model: titled.model.or(called.model),
                    ..titled
                },
                (titled, called) => titled.or(called)?,
            };
            candidate.rule = index;
            Some(candidate)
        })
        .collect();
    let program = argv.first().map_or(comm, |program| base_name(program));
    let launcher = file.launchers.iter().any(|name| name == program);
    (launcher || !candidates.is_empty()).then_some(Own {
        candidates,
        launcher,
    })
}

/// By the title that the process gave itself: the first string of its command line, written over the arguments,
/// or at least `comm`, which has 15 bytes of it.
fn titled(rule: &Rule, comm: &str, argv: &[String]) -> Option<Candidate> {
    let title = argv.first().map(String::as_str);
    let whole = (comm.len() < COMM_LEN).then_some(comm);
    let by_title = rule.title.as_ref().and_then(|pattern| {
        [title, whole]
            .into_iter()
            .flatten()
            .find_map(|text| pattern.captures(text))
    });
    let captures = by_title.or_else(|| rule.comm.as_ref()?.captures(comm))?;
    let group = |name| {
        let text = captures.name(name)?.as_str();
        (!text.is_empty()).then_some(text)
    };
    Some(Candidate {
        role: group("role").and_then(|name| Some(Arc::from(rule.roles.get(name)?.as_str()))),
        prefix: group("prefix").map(Arc::from),
        rank: group("rank").map(Arc::from),
        model: group("model").and_then(model::shorten),
        ..Candidate::default()
    })
}

/// By what the command line runs.
fn called(rule: &Rule, command: &Command<'_>, switches: &[String]) -> Option<Candidate> {
    if !runs(rule, command) {
        return None;
    }
    if let Some(pattern) = &rule.path {
        let (Runs::Program(path) | Runs::Script(path)) = command.runs else {
            return None;
        };
        if !pattern.is_match(path) {
            return None;
        }
    }
    let arguments = after_subcommand(rule, command.arguments)?;
    let flagged = rule.flags.is_empty()
        || arguments.iter().any(|argument| {
            let name = argument
                .split_once('=')
                .map_or(argument.as_str(), |(name, _)| name);
            rule.flags.iter().any(|flag| model::same_flag(flag, name))
        });
    let argued = rule
        .argument
        .as_ref()
        .is_none_or(|pattern| arguments.iter().any(|argument| pattern.is_match(argument)));
    (flagged && argued).then(|| Candidate {
        model: model::named(rule, arguments, switches),
        rank: model::flag(arguments, &rule.rank.flags).map(Arc::from),
        ..Candidate::default()
    })
}

/// Whether the command line runs one of the things that the rule is about.
fn runs(rule: &Rule, command: &Command<'_>) -> bool {
    let named = command
        .name()
        .is_some_and(|name| rule.program.iter().any(|program| program == name));
    named
        || match command.runs {
            Runs::Program(_) => false,
            Runs::Script(path) => rule.python || rule.script.iter().any(|end| ends_in(path, end)),
            Runs::Module(module) => rule.python || rule.module.iter().any(|name| name == module),
            Runs::Code(code) => {
                rule.python
                    || rule
                        .code
                        .as_ref()
                        .is_some_and(|pattern| pattern.is_match(code))
            }
        }
}

/// Whether a path ends in these whole parts.
fn ends_in(path: &str, end: &str) -> bool {
    path.strip_suffix(end)
        .is_some_and(|start| start.is_empty() || start.ends_with('/'))
}

/// The arguments behind one of the rule's subcommands, whose words come first.
fn after_subcommand<'a>(rule: &Rule, arguments: &'a [String]) -> Option<&'a [String]> {
    if rule.subcommand.is_empty() {
        return Some(arguments);
    }
    rule.subcommand.iter().find_map(|subcommand| {
        subcommand
            .split_whitespace()
            .try_fold(arguments, |rest, word| {
                let (first, rest) = rest.split_first()?;
                (first == word).then_some(rest)
            })
    })
}
