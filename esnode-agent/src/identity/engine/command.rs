//! What a command line runs: a program of its own, or a script, module or code under Python.

/// Splits the bytes of `/proc/PID/cmdline` into arguments.
///
/// Arguments end in NUL (man 5 proc_pid_cmdline). A title that setproctitle wrote over them is one string,
/// and what is left of the old room is filled with NULs or blanks, so both are cut off at the end; an empty
/// last argument is lost with them. Bytes that are not UTF-8 become U+FFFD. A kernel thread or zombie gives
/// no arguments.
#[must_use]
pub fn arguments(cmdline: &[u8]) -> Vec<String> {
    let end = cmdline
        .iter()
        .rposition(|byte| *byte != 0)
        .map_or(0, |last| last + 1);
    let (text, _) = cmdline.split_at(end);
    if text.is_empty() {
        return Vec::new();
    }
    let mut argv: Vec<String> = text
        .split(|byte| *byte == 0)
        .map(|argument| String::from_utf8_lossy(argument).into_owned())
        .collect();
    if let [title] = argv.as_mut_slice() {
        title.truncate(title.trim_end().len());
    }
    argv
}

/// A command line, read the way that its program reads it.
pub(super) struct Command<'a> {
    /// What runs.
    pub(super) runs: Runs<'a>,
    /// The arguments after it.
    pub(super) arguments: &'a [String],
}

/// What a command line runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Runs<'a> {
    /// A program of its own, by the path it was called by.
    Program(&'a str),
    /// A file that Python runs: `python /usr/local/bin/vllm`.
    Script(&'a str),
    /// A module that Python runs: `python -m vllm.entrypoints.openai.api_server`.
    Module(&'a str),
    /// Text that Python runs: `python -c …`.
    Code(&'a str),
}

impl<'a> Command<'a> {
    /// Reads a command line; `None` if it has no program.
    pub(super) fn of(argv: &'a [String]) -> Option<Self> {
        let (program, arguments) = argv.split_first()?;
        let own = Self {
            runs: Runs::Program(program),
            arguments,
        };
        if is_python(base_name(program)) {
            return Some(under_python(arguments).unwrap_or(own));
        }
        Some(own)
    }

    /// The base name of the program or script; nothing for modules and code.
    pub(super) fn name(&self) -> Option<&'a str> {
        match self.runs {
            Runs::Program(path) | Runs::Script(path) => Some(base_name(path)),
            Runs::Module(_) | Runs::Code(_) => None,
        }
    }
}

/// What Python runs, after its own options (`python --help`); `None` for an interactive one.
fn under_python(arguments: &[String]) -> Option<Command<'_>> {
    let mut rest = arguments;
    loop {
        let (first, after) = rest.split_first()?;
        let Some(letters) = first.strip_prefix('-') else {
            return Some(command(Runs::Script(first), after));
        };
        rest = if let Some(long) = letters.strip_prefix('-') {
            // The one long option whose value stands by itself.
            if long == "check-hash-based-pycs" {
                tail(after)
            } else {
                after
            }
        } else {
            match short(letters, after) {
                Short::Runs(command) => return Some(command),
                Short::Options(rest) => rest,
                Short::Input => return None,
            }
        };
    }
}

/// What a bundle of Python's short options comes to.
enum Short<'a> {
    /// It says what to run.
    Runs(Command<'a>),
    /// Options only; what follows them.
    Options(&'a [String]),
    /// The program comes from standard input.
    Input,
}

/// Reads one bundle such as `u`, `uB`, `Xfrozen_modules=off` or `um`.
fn short<'a>(letters: &'a str, after: &'a [String]) -> Short<'a> {
    if letters.is_empty() {
        return Short::Input;
    }
    for (at, letter) in letters.char_indices() {
        if !matches!(letter, 'c' | 'm' | 'W' | 'X') {
            continue;
        }
        let attached = letters.get(at + 1..).filter(|text| !text.is_empty());
        let (value, rest) = match (attached, after.split_first()) {
            (Some(value), _) => (value, after),
            (None, Some((value, rest))) => (value.as_str(), rest),
            (None, None) => return Short::Input,
        };
        return match letter {
            'c' => Short::Runs(command(Runs::Code(value), rest)),
            'm' => Short::Runs(command(Runs::Module(value), rest)),
            _ => Short::Options(rest),
        };
    }
    Short::Options(after)
}

fn command<'a>(runs: Runs<'a>, arguments: &'a [String]) -> Command<'a> {
    Command { runs, arguments }
}

fn tail(arguments: &[String]) -> &[String] {
    arguments.split_first().map_or(&[], |(_, rest)| rest)
}

/// The last part of a path; a login shell's leading dash is not part of its name.
pub(super) fn base_name(path: &str) -> &str {
    let name = path.rsplit('/').next().unwrap_or(path);
    name.strip_prefix('-').unwrap_or(name)
}

/// Whether a program is a Python: `python`, `python3.11`, `python3.13t`, `python3-dbg`, `pypy3`.
fn is_python(name: &str) -> bool {
    ["python", "pypy"].iter().any(|stem| {
        name.strip_prefix(stem).is_some_and(|version| {
            let version = version.trim_end_matches("-dbg");
            let version = version.strip_suffix(['t', 'd', 'm']).unwrap_or(version);
            version
                .bytes()
                .all(|byte| byte.is_ascii_digit() || byte == b'.')
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn argv(line: &str) -> Vec<String> {
        line.split(' ').map(str::to_owned).collect()
    }

    fn runs(line: &str) -> String {
        let argv = argv(line);
        Command::of(&argv).map_or_else(String::new, |command| {
            format!("{:?} {}", command.runs, command.arguments.join(" "))
        })
    }

    #[test]
    fn bytes_become_arguments() {
        assert_eq!(arguments(b"vllm\0serve\0M\0"), ["vllm", "serve", "M"]);
        assert_eq!(arguments(b"a\0\0b\0"), ["a", "", "b"]);
        assert_eq!(arguments(b"no end"), ["no end"]);
    }

    #[test]
    fn padding_of_titles_is_cut() {
        assert_eq!(arguments(b"VLLM::EngineCore\0\0\0\0"), ["VLLM::EngineCore"]);
        assert_eq!(arguments(b"ray::IDLE        \0"), ["ray::IDLE"]);
        assert!(arguments(b"\0\0\0").is_empty());
        assert!(arguments(b"").is_empty());
    }

    #[test]
    fn bytes_that_are_no_text_are_replaced() {
        assert_eq!(arguments(b"\xff\xfe\0x\0"), ["\u{fffd}\u{fffd}", "x"]);
    }

    #[test]
    fn python_options_are_passed_over() {
        assert_eq!(
            runs("python3.11 -u -X frozen_modules=off -m a.b --x"),
            "Module(\"a.b\") --x"
        );
        assert_eq!(runs("/opt/venv/bin/python -uBm a.b"), "Module(\"a.b\") ");
        assert_eq!(runs("python3 -Wignore -- s.py"), "Script(\"s.py\") ");
        assert_eq!(
            runs("python3-dbg /usr/bin/vllm serve M"),
            "Script(\"/usr/bin/vllm\") serve M"
        );
        assert_eq!(runs("pypy3 -c pass x"), "Code(\"pass\") x");
        assert_eq!(
            runs("python3 --check-hash-based-pycs never s.py"),
            "Script(\"s.py\") "
        );
    }

    #[test]
    fn python_that_runs_nothing_is_a_program() {
        assert_eq!(runs("python3"), "Program(\"python3\") ");
        assert_eq!(runs("python3 -"), "Program(\"python3\") -");
        assert_eq!(runs("python3 -m"), "Program(\"python3\") -m");
    }

    #[test]
    fn only_pythons_are_pythons() {
        assert_eq!(
            runs("python-launcher s.py"),
            "Program(\"python-launcher\") s.py"
        );
        assert_eq!(runs("-bash -c x"), "Program(\"-bash\") -c x");
        assert_eq!(base_name("-bash"), "bash");
    }
}
