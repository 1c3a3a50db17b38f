//! What every function does first: it counts the call, finds the script that holds, and does to
//! the call what the script says, before it answers.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use nvml_wrapper_sys::bindings::nvmlReturn_t;

use crate::abi::{Answer, Code, Handle};
use crate::calls::{self, Function};
use crate::script::{Device, Memory, Mig, Rule};
use crate::state::{self, Version};
use crate::{events, gpm};

/// How often the library was initialised, less how often it was shut down.
static INITIALIZED: AtomicUsize = AtomicUsize::new(0);

/// Exports functions on a device: `name(arguments after the device) |call| answer`.
macro_rules! device_functions {
    ($($(#[$doc:meta])* $name:ident($($argument:ident: $type:ty),*) |$call:ident| $answer:expr;)*) => {$(
        $(#[$doc])*
        #[unsafe(no_mangle)]
        extern "C" fn $name(
            device: $crate::abi::Handle,
            $($argument: $type),*
        ) -> nvml_wrapper_sys::bindings::nvmlReturn_t {
            $crate::call::on_device($crate::calls::Function::$name, device, |$call| $answer)
        }
    )*};
}

/// Exports functions without a device: `name(arguments) |version of the script| answer`.
macro_rules! system_functions {
    ($($(#[$doc:meta])* $name:ident($($argument:ident: $type:ty),*) |$version:ident| $answer:expr;)*) => {$(
        $(#[$doc])*
        #[unsafe(no_mangle)]
        extern "C" fn $name($($argument: $type),*) -> nvml_wrapper_sys::bindings::nvmlReturn_t {
            $crate::call::on_system($crate::calls::Function::$name, |$version| $answer)
        }
    )*};
}

pub(crate) use {device_functions, system_functions};

/// A call on a device that is there.
pub(crate) struct Call {
    pub(crate) version: Arc<Version>,
    /// Index of the GPU.
    pub(crate) index: usize,
    /// Where the handle names a MIG device.
    slot: Option<usize>,
}

impl Call {
    /// The GPU, or the one that a MIG device is part of.
    pub(crate) fn parent(&self) -> Answer<&Device> {
        let device = self.version.script.devices.get(self.index);
        device.ok_or(Code::GPU_IS_LOST)
    }

    /// The GPU; fails on a MIG device, which knows little of itself.
    pub(crate) fn gpu(&self) -> Answer<&Device> {
        match self.slot {
            None => self.parent(),
            Some(_) => Err(Code::NOT_SUPPORTED),
        }
    }

    /// The MIG device, if it is one.
    pub(crate) fn mig(&self) -> Answer<Option<&Mig>> {
        let Some(slot) = self.slot else {
            return Ok(None);
        };
        let mig = self
            .parent()?
            .mig
            .as_ref()
            .and_then(|slots| slots.get(slot));
        mig.and_then(Option::as_ref)
            .map(Some)
            .ok_or(Code::NOT_FOUND)
    }

    /// Memory of the GPU, or of the MIG device.
    pub(crate) fn memory(&self) -> Answer<Option<Memory>> {
        Ok(match self.mig()? {
            Some(mig) => mig.memory,
            None => self.parent()?.memory,
        })
    }

    /// GPM metrics of the GPU, or of the MIG devices of a GPU instance.
    pub(crate) fn gpm(&self, instance: Option<u32>) -> Answer<Option<&BTreeMap<u32, f64>>> {
        let Some(instance) = instance else {
            return Ok(self.parent()?.gpm.as_ref());
        };
        let slots = self.parent()?.mig.as_ref().ok_or(Code::NOT_SUPPORTED)?;
        let mut instances = slots.iter().flatten();
        let mig = instances.find(|mig| mig.gpu_instance == instance);
        Ok(mig.ok_or(Code::INVALID_ARGUMENT)?.gpm.as_ref())
    }
}

/// Ends a call.
fn end(answer: Answer) -> nvmlReturn_t {
    answer.err().unwrap_or(Code::SUCCESS).number()
}

/// Does what a rule says. No lock is held here, by anyone on this thread.
fn obey(rule: Option<Rule>) -> Answer {
    let Some(rule) = rule else {
        return Ok(());
    };
    thread::sleep(rule.hang());
    rule.error.unwrap_or_default().check()
}

/// A call without a device, of a library that need not be initialised.
fn on_library(function: Function, answer: impl FnOnce(&Arc<Version>) -> Answer) -> nvmlReturn_t {
    calls::record(function);
    let version = state::newest();
    let rule = version.rule(&version.script.calls, None, function);
    end(obey(rule).and_then(|()| answer(&version)))
}

/// A call without a device.
pub(crate) fn on_system(
    function: Function,
    answer: impl FnOnce(&Arc<Version>) -> Answer,
) -> nvmlReturn_t {
    on_library(function, |version| {
        need_initialized()?;
        version.script.system.check()?;
        answer(version)
    })
}

/// A call on a device.
pub(crate) fn on_device(
    function: Function,
    handle: Handle,
    answer: impl FnOnce(&Call) -> Answer,
) -> nvmlReturn_t {
    calls::record(function);
    end(call(function, handle).and_then(|call| answer(&call)))
}

/// Begins a call on a device.
fn call(function: Function, handle: Handle) -> Answer<Call> {
    need_initialized()?;
    let (index, slot) = handle.parts()?;
    let version = state::view(index)?;
    let script = &version.script;
    let device = script.devices.get(index);
    let own = device.map(|device| &device.calls);
    let own = own.filter(|rules| rules.contains_key(&function));
    let rule = version.rule(own.unwrap_or(&script.calls), Some(index), function);
    let ruled = obey(rule);
    script.system.check()?;
    let device = device.ok_or(Code::GPU_IS_LOST)?;
    device.status.check()?;
    if device.absent {
        return Err(Code::GPU_IS_LOST);
    }
    ruled?;
    Ok(Call {
        version,
        index,
        slot,
    })
}

/// Finds a handle: obeys the device's own rule for the function.
pub(crate) fn reach(version: &Version, index: usize, function: Function) -> Answer<&Device> {
    let device = version.script.devices.get(index);
    let device = device.ok_or(Code::INVALID_ARGUMENT)?;
    obey(version.rule(&device.calls, Some(index), function))?;
    Ok(device)
}

/// `nvmlInit…`, once counted.
pub(crate) fn initialize(function: Function) -> nvmlReturn_t {
    on_library(function, |version| {
        thread::sleep(Duration::from_millis(version.script.init_hang_ms));
        version.script.init.check()?;
        calls::publish();
        INITIALIZED.fetch_add(1, Ordering::Relaxed);
        Ok(())
    })
}

/// `nvmlShutdown`: what was allocated goes with the last of those who initialised the library.
pub(crate) fn shut_down(function: Function) -> nvmlReturn_t {
    let one_less = |count: usize| count.checked_sub(1);
    let end = on_library(function, |_| {
        let before = INITIALIZED.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less);
        if before.map_err(|_| Code::UNINITIALIZED)? == 1 {
            events::forget();
            gpm::forget();
        }
        Ok(())
    });
    calls::write();
    end
}

fn need_initialized() -> Answer {
    if INITIALIZED.load(Ordering::Relaxed) > 0 {
        Ok(())
    } else {
        Err(Code::UNINITIALIZED)
    }
}
