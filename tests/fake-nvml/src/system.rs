//! The library itself, the driver, and the way to devices.

use std::ffi::{c_char, c_int, c_uint};

use nvml_wrapper_sys::bindings::nvmlReturn_t;

use crate::abi::{Answer, Code, Handle, Out, Text};
use crate::call::{self, system_functions};
use crate::calls::{self, Function};
use crate::state::Version;

#[unsafe(no_mangle)]
extern "C" fn nvmlInit_v2() -> nvmlReturn_t {
    call::initialize(Function::nvmlInit_v2)
}

/// The flags say what to do about hosts without devices and such; no script is one of them.
#[unsafe(no_mangle)]
extern "C" fn nvmlInitWithFlags(_flags: c_uint) -> nvmlReturn_t {
    call::initialize(Function::nvmlInitWithFlags)
}

#[unsafe(no_mangle)]
extern "C" fn nvmlShutdown() -> nvmlReturn_t {
    call::shut_down(Function::nvmlShutdown)
}

#[unsafe(no_mangle)]
extern "C" fn nvmlErrorString(code: nvmlReturn_t) -> *const c_char {
    calls::record(Function::nvmlErrorString);
    Code::text(code).as_ptr()
}

system_functions! {
    nvmlSystemGetDriverVersion(text: Out<c_char>, length: c_uint) |version| {
        text.text(length, driver_version(version)?)
    };

    /// The library is of the same release as the driver, with CUDA's major version before it.
    nvmlSystemGetNVMLVersion(text: Out<c_char>, length: c_uint) |version| {
        let cuda = version.script.cuda_version.unwrap_or(12_000) / 1000;
        text.text(length, &format!("{cuda}.{}", driver_version(version)?))
    };

    nvmlSystemGetCudaDriverVersion(number: Out<c_int>) |version| {
        number.give(version.script.cuda_version)
    };

    nvmlSystemGetCudaDriverVersion_v2(number: Out<c_int>) |version| {
        number.give(version.script.cuda_version)
    };

    nvmlDeviceGetCount_v2(count: Out<c_uint>) |version| {
        count.give(c_uint::try_from(version.script.devices.len()).ok())
    };

    nvmlDeviceGetHandleByIndex_v2(index: c_uint, device: Out<Handle>) |version| {
        let index = usize::try_from(index).unwrap_or(usize::MAX);
        let gpu = call::reach(version, index, Function::nvmlDeviceGetHandleByIndex_v2)?;
        if gpu.absent {
            return Err(Code::GPU_IS_LOST);
        }
        device.set(Handle::gpu(index))
    };

    nvmlDeviceGetHandleByUUID(uuid: Text, device: Out<Handle>) |version| {
        device.set(by_uuid(version, uuid.get()?)?)
    };
}

fn driver_version(version: &Version) -> Answer<&str> {
    let driver = version.script.driver_version.as_deref();
    driver.ok_or(Code::NOT_SUPPORTED)
}

/// The GPU or MIG device with this UUID.
fn by_uuid(version: &Version, uuid: &str) -> Answer<Handle> {
    for (index, gpu) in version.script.devices.iter().enumerate() {
        let slots = gpu.mig.iter().flatten();
        let is =
            |slot: &Option<crate::script::Mig>| slot.as_ref().is_some_and(|mig| mig.uuid == uuid);
        let slot = slots.into_iter().position(is);
        if gpu.absent || (gpu.uuid != uuid && slot.is_none()) {
            continue;
        }
        call::reach(version, index, Function::nvmlDeviceGetHandleByUUID)?;
        return Ok(slot.map_or(Handle::gpu(index), |slot| Handle::mig(index, slot)));
    }
    Err(Code::NOT_FOUND)
}
