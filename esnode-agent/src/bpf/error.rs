//! What can go wrong with BPF, in words.

use super::{hooks, layout::LayoutError, probes::ProbeError};
use crate::ladder::Signal;
use aya::{maps::MapError, programs::ProgramError};
use caps::{CapSet, Capability};
use std::io;
use thiserror::Error;

/// `ENOTSUPP` of `include/linux/errno.h`, which leaks out of bpf(2).
const ENOTSUPP: i32 = 524;

/// Why BPF is not used.
#[derive(Debug, Error)]
pub enum BpfError {
    /// The binary was built by plain `cargo build`.
    #[error("this binary was built without BPF objects: build it with `cargo xtask build`")]
    NotEmbedded,
    /// The kernel does not describe its types, or not readably.
    #[error("cannot read the kernel's BTF at {path} (CONFIG_DEBUG_INFO_BTF): {source}")]
    NoBtf {
        /// Where it should be.
        path: String,
        /// The system's answer.
        source: io::Error,
    },
    /// A field could not be found.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// A map or the object could not be created; without CAP_BPF, CAP_PERFMON or CAP_SYS_ADMIN
    /// the kernel refuses the first map.
    #[error("cannot load the BPF object: {}", load_error(.0))]
    Load(#[from] aya::EbpfError),
    /// The user wants none.
    #[error("BPF is off (--no-bpf)")]
    Off,
    /// It was asked for to do without.
    #[error("{hook} is not to be used (--without, --refuse-hook)")]
    Unwanted {
        /// The rung or the hook.
        hook: String,
    },
    /// The agent is in a PID namespace of its own.
    #[error(
        "this is not the host's PID namespace, so hooks and process table would not speak of the \
         same processes"
    )]
    OtherPidNamespace,
    /// A map could not be made as large as it has to be.
    #[error("cannot create the BPF map {map} with {capacity} entries: {source}")]
    NoMap {
        /// Its name.
        map: &'static str,
        /// Entries that were asked for.
        capacity: u32,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A rung hangs on another.
    #[error("it needs {needed}, which is refused")]
    Needs {
        /// The signal that has to be measured by BPF as well.
        needed: Signal,
    },
    /// A field that only one rung needs is missing.
    #[error("this kernel's BTF has no {field}")]
    NoField {
        /// Struct and field.
        field: String,
    },
    /// A tracepoint to hang on does not exist.
    #[error("this kernel has no tracepoint {tracepoint}{}", since(tracepoint))]
    NoTracepoint {
        /// Its name.
        tracepoint: &'static str,
    },
    /// A function to hang on does not exist.
    #[error("this kernel's BTF has no function {function}: it is part of a module, or left out")]
    NoFunction {
        /// Its name.
        function: &'static str,
    },
    /// A function to hang on is not the one that the programs know.
    #[error("this kernel's {function} has {arguments} arguments and not {expected}")]
    OtherFunction {
        /// Its name.
        function: &'static str,
        /// As the programs know it.
        expected: u32,
        /// As the kernel has it.
        arguments: u32,
    },
    /// A probe could not be made.
    #[error("cannot probe {function}: {source}")]
    Probe {
        /// The function.
        function: String,
        /// What was refused.
        source: ProbeError,
    },
    /// A program was refused.
    #[error("cannot {action} the BPF program {program}: {}", verdict(.source))]
    Program {
        /// Its name.
        program: String,
        /// `load` or `attach`.
        action: &'static str,
        /// The kernel's answer.
        source: Box<ProgramError>,
    },
    /// A map could not be opened or written.
    #[error("cannot use the BPF map {map}: {source}")]
    Map {
        /// Its name.
        map: &'static str,
        /// The kernel's answer.
        source: Box<MapError>,
    },
    /// A map could not be read, or the iterator failed.
    #[error("cannot read {what}: {source}")]
    Read {
        /// Map or iterator.
        what: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
    /// Records do not fit the contract.
    #[error("the task iterator wrote something else than agreed, at byte {at} of {len}")]
    Record {
        /// Where decoding stopped.
        at: usize,
        /// Bytes read in this pass.
        len: usize,
    },
}

/// Which map is the first to be created is up to chance, so a refusal of all does not name it.
fn load_error(error: &aya::EbpfError) -> String {
    match error {
        aya::EbpfError::MapError(MapError::CreateError { io_error, .. }) => {
            format!("the kernel refuses to create maps: {io_error}")
        }
        other => error_chain(other),
    }
}

fn error_chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

fn since(tracepoint: &str) -> String {
    hooks::since(tracepoint).map_or_else(String::new, |version| format!(" (Linux {version} has)"))
}

/// A verifier's log runs over pages of its steps and ends in statistics; the line before these
/// says what was wrong.
fn verdict(error: &ProgramError) -> String {
    match error {
        ProgramError::LoadError {
            io_error,
            verifier_log,
        } => {
            let log = verifier_log.to_string();
            match verifier_verdict(&log) {
                Some(verdict) => format!("{io_error}; the verifier says: {verdict}"),
                None => io_error.to_string(),
            }
        }
        other => error_chain(other),
    }
}

/// Whether it was the verifier that refused a program.
fn has_verdict(error: &ProgramError) -> bool {
    matches!(error, ProgramError::LoadError { verifier_log, .. }
        if verifier_verdict(&verifier_log.to_string()).is_some())
}

/// Whether all users are who they are on the host (user_namespaces(7)).
fn in_host_user_namespace() -> bool {
    std::fs::read_to_string("/proc/self/uid_map").map_or(true, |map| {
        map.split_ascii_whitespace().eq(["0", "0", "4294967295"])
    })
}

/// The capabilities that BPF takes and the agent does not have.
fn missing_rights() -> Vec<Capability> {
    let lacks = |capability: &Capability| {
        !caps::has_cap(None, CapSet::Effective, *capability).unwrap_or(false)
    };
    let all = Capability::CAP_SYS_ADMIN;
    if !lacks(&all) {
        return Vec::new();
    }
    let needed = [
        Capability::CAP_BPF,
        Capability::CAP_PERFMON,
        Capability::CAP_SYS_PTRACE,
    ];
    needed.into_iter().filter(lacks).collect()
}

fn rights_remedy(missing: &[Capability]) -> String {
    if !in_host_user_namespace() {
        return "leave the user namespace, in which these rights count for nothing (for a \
                container, --userns=host)"
            .to_owned();
    }
    if missing.is_empty() {
        return "none here: the kernel refuses it whatever the rights (lockdown, or a kernel \
                without it), or the container's seccomp profile does"
            .to_owned();
    }
    let missing: Vec<_> = missing.iter().map(ToString::to_string).collect();
    format!(
        "run as root, or add what is missing: {} (before Linux 5.8, and for kprobes, \
         CAP_SYS_ADMIN)",
        missing.join(", ")
    )
}

fn verifier_verdict(log: &str) -> Option<&str> {
    const STATISTICS: [&str; 3] = ["processed ", "verification time", "stack depth"];
    log.lines()
        .map(str::trim)
        .rfind(|line| !line.is_empty() && !STATISTICS.iter().any(|start| line.starts_with(start)))
}

/// A map that the object should have and has not.
pub(super) fn no_such_map(name: &str) -> MapError {
    MapError::InvalidName {
        name: name.to_owned(),
    }
}

/// An error of one map.
pub(super) fn map_error(map: &'static str, source: MapError) -> BpfError {
    BpfError::Map {
        map,
        source: Box::new(source),
    }
}

impl BpfError {
    /// The system's answer, where it is one.
    fn errno(&self) -> Option<i32> {
        let source: &(dyn std::error::Error + 'static) = match self {
            Self::NoBtf { source, .. } | Self::NoMap { source, .. } | Self::Read { source, .. } => {
                source
            }
            Self::Load(source) => source,
            Self::Program { source, .. } => source.as_ref(),
            Self::Map { source, .. } => source.as_ref(),
            Self::Probe { source, .. } => source,
            _ => return None,
        };
        std::iter::successors(Some(source), |error| error.source()).find_map(|error| {
            let answer = match error.downcast_ref() {
                Some(
                    ProgramError::LoadError { io_error, .. } | ProgramError::IOError(io_error),
                ) => io_error,
                Some(ProgramError::SyscallError(error)) => &error.io_error,
                _ => error.downcast_ref::<io::Error>()?,
            };
            answer.raw_os_error()
        })
    }

    /// What to do about it, in a sentence.
    #[must_use]
    pub fn remedy(&self) -> String {
        match self {
            Self::NotEmbedded => "build the agent with `cargo xtask build`",
            Self::NoBtf { .. } | Self::Layout(_) | Self::NoField { .. } => {
                "use a kernel with CONFIG_DEBUG_INFO_BTF=y, and in a container mount /sys read-only"
            }
            Self::Off | Self::Unwanted { .. } => "leave the flag out",
            Self::OtherPidNamespace => "start the container with --pid=host",
            Self::NoMap { .. } => {
                "ask for fewer entries (--bpf-threads, --bpf-processes, --bpf-groups, \
                 --bpf-sockets), or give the container more memory"
            }
            Self::Needs { .. } => "see there",
            Self::NoTracepoint { .. } | Self::NoFunction { .. } | Self::OtherFunction { .. } => {
                "none: this kernel does not have it"
            }
            Self::Probe {
                source: ProbeError::Refused { source, .. },
                ..
            } if source.kind() == io::ErrorKind::PermissionDenied => {
                "run as root, whom alone tracefs lets write, or add CAP_DAC_OVERRIDE"
            }
            Self::Probe {
                source: ProbeError::Refused { source, .. },
                ..
            } if source.kind() == io::ErrorKind::NotFound => {
                "use a kernel with CONFIG_KPROBE_EVENTS=y and CONFIG_BPF_EVENTS=y"
            }
            Self::Probe {
                source: ProbeError::NoTracefs(source),
                ..
            } if source.kind() == io::ErrorKind::PermissionDenied => {
                "add CAP_SYS_ADMIN, which mounting tracefs takes"
            }
            Self::Probe { .. } if self.errno() == Some(libc::ENODEV) => {
                "use a kernel with CONFIG_KPROBES=y and CONFIG_FTRACE=y"
            }
            Self::Program { source, .. } if has_verdict(source) => {
                "report it, with the version of the kernel: its verifier refuses the program"
            }
            Self::Load(_) | Self::Program { .. } | Self::Probe { .. } => match self.errno() {
                Some(libc::EPERM | libc::EACCES) => return rights_remedy(&missing_rights()),
                Some(libc::ENOENT | libc::EINVAL | libc::ENOTSUP | ENOTSUPP) => {
                    "none: this kernel does not have it"
                }
                _ => "report it, with the log of --log-level debug",
            },
            Self::Map { .. } | Self::Read { .. } | Self::Record { .. } => {
                "report it, with the log of --log-level debug"
            }
        }
        .to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_verifiers_verdict_stands_before_its_statistics() {
        let log = "0: R1=ctx() R10=fp0\n; comment\n1: (79) r1 = *(u64 *)(r1 +8)\n\
                   invalid bpf_context access off=8 size=8\n\
                   processed 1 insns (limit 1000000) max_states_per_insn 0\n\n";
        assert_eq!(
            verifier_verdict(log),
            Some("invalid bpf_context access off=8 size=8")
        );
        assert_eq!(verifier_verdict(" \n"), None);
    }

    #[test]
    fn what_to_do_follows_from_the_systems_answer() {
        let refused = |number| BpfError::Program {
            program: "tasks".to_owned(),
            action: "load",
            source: Box::new(ProgramError::IOError(io::Error::from_raw_os_error(number))),
        };
        assert!(rights_remedy(&[Capability::CAP_BPF]).contains("missing: CAP_BPF ("));
        assert!(rights_remedy(&[]).contains("whatever the rights"));
        assert_ne!(
            refused(libc::EPERM).remedy(),
            refused(libc::EINVAL).remedy()
        );
        assert!(refused(libc::EINVAL).remedy().contains("does not have it"));
    }
}
