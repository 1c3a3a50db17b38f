//! Loading and attaching programs, hook by hook.

use super::{
    error::BpfError,
    hooks::{self, Function, Hook},
    layout::Resolved,
    probes::{Direction, Probes},
};
use aya::{
    Btf, Ebpf,
    programs::{BtfTracePoint, FExit, KProbe, Program, ProgramError},
};
use std::{io, os::fd::AsFd};
use tracing::debug;

/// A program, and what it hangs on, as the page names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Attached {
    pub(super) program: String,
    pub(super) attach: String,
}

/// Everything that is needed to attach.
pub(super) struct Attacher<'a> {
    pub(super) ebpf: &'a mut Ebpf,
    pub(super) btf: &'a Btf,
    pub(super) resolved: &'a Resolved,
    pub(super) probes: &'a mut Probes,
    /// Hooks that are to be refused, for tests.
    pub(super) refuse: &'a [String],
}

impl Attacher<'_> {
    /// Attaches all hooks of a rung. If one is refused, the others are taken away again: half of
    /// them would publish numbers that only look right.
    ///
    /// # Errors
    /// What the first was refused for.
    pub(super) fn attach_all(&mut self, hooks: &[Hook]) -> Result<Vec<Attached>, BpfError> {
        let mut attached = Vec::new();
        for hook in hooks {
            if let Err(error) = self.attach(*hook, &mut attached) {
                for Attached { program, .. } in attached {
                    self.unload(&program);
                }
                return Err(error);
            }
        }
        Ok(attached)
    }

    /// Attaches the empty program beside a tracepoint's own.
    pub(super) fn attach_empty(&mut self, tracepoint: &str) -> Result<Option<Attached>, BpfError> {
        let Some(empty) = hooks::empty_program(tracepoint) else {
            return Ok(None);
        };
        self.tracepoint(empty, tracepoint).map(Some)
    }

    fn attach(&mut self, hook: Hook, attached: &mut Vec<Attached>) -> Result<(), BpfError> {
        match hook {
            Hook::Tracepoint(name) => {
                self.check_wanted(name)?;
                if !self.resolved.has_tracepoint(name) {
                    return Err(BpfError::NoTracepoint { tracepoint: name });
                }
                attached.push(self.tracepoint(name, name)?);
            }
            Hook::FexitOfNumbers(function) => {
                let able = self.resolved.function_arguments(hooks::READS_NUMBERS);
                let hook = if able.is_some() {
                    Hook::Fexit(function)
                } else {
                    Hook::Probes(function)
                };
                self.attach(hook, attached)?;
            }
            Hook::Fexit(function) => {
                if self.exists(function)? {
                    attached.push(self.fexit(function.name)?);
                }
            }
            Hook::Probes(function) => {
                if self.exists(function)? {
                    // The return first: an entry whose return is not seen is one that was missed.
                    let (enter, leave) = probe_names(function.name);
                    attached.push(self.probe(&leave, function.name, Direction::Return)?);
                    attached.push(self.probe(&enter, function.name, Direction::Entry)?);
                }
            }
        }
        Ok(())
    }

    /// Whether the kernel has a function; an error where it must, or where it is not the one that
    /// the programs know.
    fn exists(&self, function: Function) -> Result<bool, BpfError> {
        let Function {
            name,
            arguments: expected,
            needed,
        } = function;
        self.check_wanted(name)?;
        match self.resolved.function_arguments(name) {
            Some(arguments) if arguments == expected => Ok(true),
            Some(arguments) => Err(BpfError::OtherFunction {
                function: name,
                expected,
                arguments,
            }),
            None if needed => Err(BpfError::NoFunction { function: name }),
            None => Ok(false),
        }
    }

    fn check_wanted(&self, hook: &str) -> Result<(), BpfError> {
        if self.refuse.iter().any(|refused| refused == hook) {
            let hook = hook.to_owned();
            return Err(BpfError::Unwanted { hook });
        }
        Ok(())
    }

    fn tracepoint(&mut self, name: &str, tracepoint: &str) -> Result<Attached, BpfError> {
        let program = program::<BtfTracePoint>(self.ebpf, name)?;
        program
            .load(tracepoint, self.btf)
            .map_err(failed(name, "load"))?;
        program.attach().map_err(failed(name, "attach"))?;
        Ok(note(self.ebpf, name, format!("tp_btf/{tracepoint}")))
    }

    fn fexit(&mut self, function: &str) -> Result<Attached, BpfError> {
        let program = program::<FExit>(self.ebpf, function)?;
        program
            .load(function, self.btf)
            .map_err(failed(function, "load"))?;
        program.attach().map_err(failed(function, "attach"))?;
        Ok(note(self.ebpf, function, format!("fexit/{function}")))
    }

    fn probe(
        &mut self,
        name: &str,
        function: &str,
        direction: Direction,
    ) -> Result<Attached, BpfError> {
        let program = program::<KProbe>(self.ebpf, name)?;
        program.load().map_err(failed(name, "load"))?;
        let fd = program.fd().map_err(failed(name, "find"))?;
        self.probes
            .attach(name, function, direction, fd.as_fd())
            .map_err(|source| BpfError::Probe {
                function: function.to_owned(),
                source,
            })?;
        Ok(note(self.ebpf, name, format!("{direction}/{function}")))
    }

    fn unload(&mut self, name: &str) {
        self.probes.detach(name);
        // Unloading detaches; it fails only for a program that isn't loaded.
        let _ = match self.ebpf.program_mut(name) {
            Some(Program::BtfTracePoint(program)) => program.unload(),
            Some(Program::FExit(program)) => program.unload(),
            Some(Program::KProbe(program)) => program.unload(),
            _ => Ok(()),
        };
    }
}

/// Says in the log what the verifier made of a program, and for the page what it hangs on.
pub(super) fn note(ebpf: &Ebpf, name: &str, attach: String) -> Attached {
    let info = ebpf.program(name).and_then(|program| program.info().ok());
    let verified = info.and_then(|info| info.verified_instruction_count());
    debug!(
        program = name,
        attach,
        verified_instructions = verified,
        "attached"
    );
    Attached {
        program: name.to_owned(),
        attach,
    }
}

/// The programs of the entry and of the return of a function.
fn probe_names(function: &str) -> (String, String) {
    (format!("enter_{function}"), format!("leave_{function}"))
}

pub(super) fn failed(
    program: &str,
    action: &'static str,
) -> impl FnOnce(ProgramError) -> BpfError + use<> {
    let program = program.to_owned();
    move |source| BpfError::Program {
        program,
        action,
        source: Box::new(source),
    }
}

/// Finds a program of the object, as what it is.
pub(super) fn program<'a, T>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut T, BpfError>
where
    &'a mut T: TryFrom<&'a mut Program, Error = ProgramError>,
{
    let missing = || ProgramError::IOError(io::Error::from(io::ErrorKind::NotFound));
    ebpf.program_mut(name)
        .ok_or_else(missing)
        .and_then(TryInto::try_into)
        .map_err(failed(name, "find"))
}
