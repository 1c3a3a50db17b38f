//! MIG: GPUs that are cut into parts.

use std::ffi::c_uint;

use crate::abi::{Answer, Code, Handle, Out};
use crate::call::device_functions;
use crate::script::{Device, Mig};

/// Parts into which today's GPUs can be cut.
const MAX_PARTS: usize = 7;

device_functions! {
    nvmlDeviceGetMigMode(current: Out<c_uint>, pending: Out<c_uint>) |call| {
        slots(call.gpu()?)?;
        current.set(1)?;
        pending.set(1)
    };

    nvmlDeviceGetMaxMigDeviceCount(count: Out<c_uint>) |call| {
        let slots = slots(call.gpu()?)?.len().max(MAX_PARTS);
        count.give(c_uint::try_from(slots).ok())
    };

    nvmlDeviceGetMigDeviceHandleByIndex(slot: c_uint, mig: Out<Handle>) |call| {
        let slot = usize::try_from(slot).unwrap_or(usize::MAX);
        match slots(call.gpu()?)?.get(slot) {
            Some(Some(_)) => mig.set(Handle::mig(call.index, slot)),
            _ => Err(Code::NOT_FOUND),
        }
    };

    nvmlDeviceIsMigDeviceHandle(is_mig: Out<c_uint>) |call| {
        is_mig.set(c_uint::from(call.mig()?.is_some()))
    };

    nvmlDeviceGetGpuInstanceId(id: Out<c_uint>) |call| {
        id.set(call.mig()?.ok_or(Code::INVALID_ARGUMENT)?.gpu_instance)
    };

    nvmlDeviceGetComputeInstanceId(id: Out<c_uint>) |call| {
        id.set(call.mig()?.ok_or(Code::INVALID_ARGUMENT)?.compute_instance)
    };

    nvmlDeviceGetDeviceHandleFromMigDeviceHandle(device: Out<Handle>) |call| {
        call.mig()?.ok_or(Code::INVALID_ARGUMENT)?;
        device.set(Handle::gpu(call.index))
    };
}

/// Slots for MIG devices, where MIG is on.
fn slots(gpu: &Device) -> Answer<&[Option<Mig>]> {
    gpu.mig.as_deref().ok_or(Code::NOT_SUPPORTED)
}
