//! The one table of hooks, and attaching to them part by part.

use super::error::BpfError;
use aya::{
    Btf, Ebpf,
    programs::{BtfTracePoint, Program, ProgramError},
};
use esnode_ebpf::programs;

/// What stops working without a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// What ended processes used, and what others used before an exec.
    Ended,
    /// Network bytes, which also need [`Part::Ended`].
    Network,
}

/// A hook and the programs for it.
pub(super) struct Hook {
    /// The program that counts.
    pub(super) program: &'static str,
    /// One that does nothing, to compare with.
    empty: &'static str,
    tracepoint: &'static str,
    /// The hook as the page names it.
    attach: &'static str,
    part: Part,
}

/// In this order. Freed before exit: an entry that the exit of a task makes is taken away when
/// the task is freed, which must not be missed.
pub(super) const HOOKS: [Hook; 6] = [
    Hook {
        program: programs::TASK_NEWTASK,
        empty: "empty_newtask",
        tracepoint: "task_newtask",
        attach: "tp_btf/task_newtask",
        part: Part::Ended,
    },
    Hook {
        program: programs::TASK_RENAME,
        empty: "empty_rename",
        tracepoint: "task_rename",
        attach: "tp_btf/task_rename",
        part: Part::Ended,
    },
    Hook {
        program: programs::SCHED_PROCESS_FREE,
        empty: "empty_free",
        tracepoint: "sched_process_free",
        attach: "tp_btf/sched_process_free",
        part: Part::Ended,
    },
    Hook {
        program: programs::SCHED_PROCESS_EXIT,
        empty: "empty_exit",
        tracepoint: "sched_process_exit",
        attach: "tp_btf/sched_process_exit",
        part: Part::Ended,
    },
    Hook {
        program: programs::SOCK_SEND_LENGTH,
        empty: "empty_send_length",
        tracepoint: "sock_send_length",
        attach: "tp_btf/sock_send_length",
        part: Part::Network,
    },
    Hook {
        program: programs::SOCK_RECV_LENGTH,
        empty: "empty_recv_length",
        tracepoint: "sock_recv_length",
        attach: "tp_btf/sock_recv_length",
        part: Part::Network,
    },
];

/// A program and what it is attached to.
pub(super) type Attached = (&'static str, &'static str);

impl Part {
    /// The hooks that it needs.
    pub(super) fn hooks(self) -> impl Iterator<Item = &'static Hook> {
        HOOKS.iter().filter(move |hook| hook.part == self)
    }

    /// Attaches all its hooks. If one is refused, the others are taken away again: half of them
    /// would publish numbers that only look right.
    pub(super) fn attach(self, ebpf: &mut Ebpf, btf: &Btf) -> Result<Vec<Attached>, BpfError> {
        let attached: Result<_, _> = self
            .hooks()
            .map(|hook| attach(ebpf, hook.program, hook, btf))
            .collect();
        if attached.is_err() {
            for hook in self.hooks() {
                if let Some(Program::BtfTracePoint(program)) = ebpf.program_mut(hook.program) {
                    // Unloading detaches; it fails only for a program that isn't loaded.
                    let _ = program.unload();
                }
            }
        }
        attached
    }
}

/// Attaches the empty programs to all hooks.
pub(super) fn attach_empty(ebpf: &mut Ebpf, btf: &Btf) -> Result<Vec<Attached>, BpfError> {
    HOOKS
        .iter()
        .map(|hook| attach(ebpf, hook.empty, hook, btf))
        .collect()
}

fn attach(
    ebpf: &mut Ebpf,
    name: &'static str,
    hook: &Hook,
    btf: &Btf,
) -> Result<Attached, BpfError> {
    let failed = |action| {
        move |source| BpfError::Program {
            program: name,
            action,
            source: Box::new(source),
        }
    };
    let program = program::<BtfTracePoint>(ebpf, name)?;
    program.load(hook.tracepoint, btf).map_err(failed("load"))?;
    program.attach().map_err(failed("attach"))?;
    Ok((name, hook.attach))
}

/// Finds a program of the object, as what it is.
pub(super) fn program<'a, T>(ebpf: &'a mut Ebpf, name: &'static str) -> Result<&'a mut T, BpfError>
where
    &'a mut T: TryFrom<&'a mut Program, Error = ProgramError>,
{
    let failed = |source| BpfError::Program {
        program: name,
        action: "find",
        source,
    };
    ebpf.program_mut(name)
        .ok_or_else(|| failed(Box::new(ProgramError::NotLoaded)))?
        .try_into()
        .map_err(|error| failed(Box::new(error)))
}
