//! Groups by the configuration file of process-exporter (ncabatoff/process-exporter): which
//! processes get which name. The file is taken as it is there, with its habits.
//!
//! The first rule that matches names the process. A rule has lists of `comm` (any of them), `exe`
//! (any of them, against `argv[0]`) and `cmdline` (regular expressions of Go, all of them, against
//! the arguments joined by spaces); all lists that are given have to match. Keys that are not known
//! are passed over. A process that no rule names takes the group of its nearest ancestor that has
//! one (`-children`, the default there); who reads the process table does that.

mod file;
mod go_regex;
mod template;
#[cfg(test)]
mod tests;

pub use file::ConfigError;

use go_regex::GoRegex;
use rustc_hash::{FxHashMap, FxHashSet};
use std::{collections::BTreeMap, path::Path};
use template::{Field, Template};

/// The rules of a file, in its order.
#[derive(Debug, Default)]
pub struct Config(Vec<Rule>);

/// What is known of a process that is to be named. What costs a read of its own is only asked for
/// by a rule that uses it.
pub struct Subject<'a> {
    /// Process id.
    pub pid: u32,
    /// Command name, at most 15 bytes.
    pub comm: &'a str,
    /// Arguments; none of kernel threads. Zeros at the end of `/proc/PID/cmdline` are no arguments.
    pub argv: &'a [String],
    /// Name of the effective user, or else the number.
    pub user: &'a dyn Fn() -> Option<String>,
    /// Start, in seconds since 1970.
    pub start_seconds: Option<f64>,
    /// Paths in `/proc/PID/cgroup`, in its order.
    pub cgroups: &'a dyn Fn() -> Option<Vec<String>>,
    /// Working directory.
    pub cwd: &'a dyn Fn() -> Option<String>,
}

/// Captures of a command line by the names of their groups; those without a name, the match as a
/// whole among them, share the empty one, and the last wins.
type Matches<'a> = BTreeMap<&'a str, &'a str>;

#[derive(Debug)]
struct Rule {
    comm: Option<FxHashSet<String>>,
    exe: Option<Executables>,
    cmdline: Option<Vec<GoRegex>>,
    name: Template,
}

/// Base names with the full path that is asked for, if one is. Of several with one base name, the
/// last holds.
#[derive(Debug)]
struct Executables(FxHashMap<String, Option<String>>);

impl Config {
    /// Parses a file. `path` is only for errors.
    ///
    /// # Errors
    /// With the line, what is wrong there: YAML, the form, a regular expression, or a name.
    pub fn parse(path: &Path, text: &str) -> Result<Self, ConfigError> {
        file::parse(path, text)
    }

    /// Whether there is no rule, so that no process gets a name.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The group of a process; `None` if no rule matches, or what its name takes is not known.
    #[must_use]
    pub fn name(&self, subject: &Subject<'_>) -> Option<String> {
        // Kernel threads have no command line.
        let cmdline = if self.needs_argv() {
            subject.argv.join(" ")
        } else {
            String::new()
        };
        for rule in &self.0 {
            if let Some(matches) = rule.matches(subject, &cmdline) {
                return rule.name.write(subject, &matches);
            }
        }
        None
    }

    /// The group of a process of which only the command name is known, if that decides it: whatever
    /// else such a process may have had, [`Config::name`] would have said the same. It is taken to
    /// have had some command line, as all but kernel threads do, so `.+` matches it.
    #[must_use]
    pub fn name_by_comm(&self, comm: &str) -> Option<String> {
        let mut candidate: Option<String> = None;
        for rule in &self.0 {
            let certain = match rule.matches_comm(comm) {
                Verdict::No => continue,
                Verdict::Perhaps => false,
                Verdict::Yes => true,
            };
            let name = rule.name_by_comm(comm)?;
            if candidate.as_ref().is_some_and(|other| *other != name) {
                return None;
            }
            if certain {
                return Some(name);
            }
            candidate = Some(name);
        }
        None
    }

    /// Whether a rule uses arguments.
    #[must_use]
    pub fn needs_argv(&self) -> bool {
        let matched = |rule: &Rule| rule.exe.is_some() || rule.cmdline.is_some();
        self.0.iter().any(matched) || self.uses(&Field::ExeBase) || self.uses(&Field::ExeFull)
    }

    /// Whether a rule uses the user.
    #[must_use]
    pub fn needs_user(&self) -> bool {
        self.uses(&Field::Username)
    }

    /// Whether a rule uses the start.
    #[must_use]
    pub fn needs_start(&self) -> bool {
        self.uses(&Field::StartTime)
    }

    /// Whether a rule uses cgroups.
    #[must_use]
    pub fn needs_cgroups(&self) -> bool {
        self.uses(&Field::Cgroups)
    }

    /// Whether a rule uses the working directory.
    #[must_use]
    pub fn needs_cwd(&self) -> bool {
        self.uses(&Field::Cwd)
    }

    fn uses(&self, field: &Field) -> bool {
        self.0.iter().any(|rule| rule.name.uses(field))
    }
}

/// What the command name alone says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Yes,
    No,
    Perhaps,
}

impl Rule {
    /// What it captures of the process, if it matches.
    fn matches<'a>(&'a self, subject: &Subject<'_>, cmdline: &'a str) -> Option<Matches<'a>> {
        let mut matches = Matches::new();
        let comm = self.comm.as_ref();
        if comm.is_some_and(|names| !names.contains(subject.comm)) {
            return None;
        }
        let exe = self.exe.as_ref();
        if exe.is_some_and(|exe| !exe.contains(subject.argv.first())) {
            return None;
        }
        for regex in self.cmdline.iter().flatten() {
            matches.extend(regex.captures(cmdline)?);
        }
        Some(matches)
    }

    fn matches_comm(&self, comm: &str) -> Verdict {
        let named = self.comm.as_ref();
        if named.is_some_and(|names| !names.contains(comm)) {
            return Verdict::No;
        }
        match &self.exe {
            Some(Executables(paths)) if paths.is_empty() => return Verdict::No,
            Some(_) => return Verdict::Perhaps,
            None => {}
        }
        let mut regexes = self.cmdline.iter().flatten();
        if regexes.all(GoRegex::matches_any_command) {
            Verdict::Yes
        } else {
            Verdict::Perhaps
        }
    }

    fn name_by_comm(&self, comm: &str) -> Option<String> {
        let captures = self.cmdline.as_ref().is_some_and(|it| !it.is_empty());
        self.name.write_by_comm(comm, captures)
    }
}

impl Executables {
    fn new(paths: Vec<String>) -> Self {
        let entry = |path: String| {
            if path.contains('/') {
                (base(&path).to_owned(), Some(path))
            } else {
                (path, None)
            }
        };
        Self(paths.into_iter().map(entry).collect())
    }

    fn contains(&self, first: Option<&String>) -> bool {
        let Some(first) = first else { return false };
        let wanted = self.0.get(base(first));
        wanted.is_some_and(|path| path.as_ref().is_none_or(|path| path == first))
    }
}

/// The last element of a path, as Go's `filepath.Base` has it: also of titles that hold a slash.
fn base(path: &str) -> &str {
    if path.is_empty() {
        return ".";
    }
    let trimmed = path.trim_end_matches('/');
    if trimmed.is_empty() {
        return "/";
    }
    trimmed.rsplit('/').next().unwrap_or(trimmed)
}
