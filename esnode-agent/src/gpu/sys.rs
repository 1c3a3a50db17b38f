//! Calls of NVML that nvml-wrapper does not have, or not as they are needed: fields with a scope,
//! samples of processes on newer parts, memory on older drivers, throttle reasons by their new
//! name. The only unsafe code of the GPU collector.
#![expect(
    unsafe_code,
    reason = "functions of a C library that is loaded at run time"
)]

use super::counter::{Reading, Width};
use nvml_wrapper::{
    Device, FieldIdScheme, Nvml,
    error::{NvmlError, nvml_try},
};
use nvml_wrapper_sys::bindings::{
    nvmlDevice_t, nvmlFieldValue_t, nvmlMemory_t, nvmlProcessUtilizationInfo_v1_t,
    nvmlProcessUtilizationSample_t, nvmlProcessesUtilizationInfo_v1_t,
    nvmlReturn_enum_NVML_ERROR_INSUFFICIENT_SIZE as INSUFFICIENT_SIZE, nvmlReturn_t, nvmlValue_t,
    nvmlValueType_enum_NVML_VALUE_TYPE_SIGNED_INT as SIGNED_INT,
    nvmlValueType_enum_NVML_VALUE_TYPE_SIGNED_LONG_LONG as SIGNED_LONG_LONG,
    nvmlValueType_enum_NVML_VALUE_TYPE_UNSIGNED_INT as UNSIGNED_INT,
    nvmlValueType_enum_NVML_VALUE_TYPE_UNSIGNED_LONG as UNSIGNED_LONG,
    nvmlValueType_enum_NVML_VALUE_TYPE_UNSIGNED_LONG_LONG as UNSIGNED_LONG_LONG,
};
use std::ptr;

/// A field of `nvmlDeviceGetFieldValues`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Field {
    /// `NVML_FI_DEV_…`, as numbered before driver 580.82.
    pub id: u32,
    /// Link or other part of the device; 0 where there are none.
    pub scope: u32,
}

/// One sample of one process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ProcessSample {
    /// Process id, as the driver knows it.
    pub pid: u32,
    /// When it was taken, in microseconds since 1970.
    pub microseconds: u64,
    /// Percent: multiprocessors, memory, encoder, decoder.
    pub percent: [u32; 4],
}

/// Which function has samples of processes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum ProcessSamples {
    /// `nvmlDeviceGetProcessUtilization`.
    #[default]
    Plain,
    /// `nvmlDeviceGetProcessesUtilizationInfo`, which newer parts need.
    Info,
}

fn handle(device: &Device<'_>) -> nvmlDevice_t {
    // SAFETY: the handle is only passed to functions of the library that gave it.
    unsafe { device.handle() }
}

/// What tells a device from others of the same library.
#[must_use]
pub(super) fn identity(device: &Device<'_>) -> usize {
    handle(device).addr()
}

fn symbol<F>(symbol: &Result<F, libloading::Error>) -> Result<&F, NvmlError> {
    symbol
        .as_ref()
        .map_err(|error| NvmlError::FailedToLoadSymbol(error.to_string()))
}

/// Ids of the GPU instance and the compute instance that a MIG device is.
///
/// # Errors
/// If a call fails, or the library does not have it.
pub(super) fn mig_instances(device: &Device<'_>) -> Result<(u32, u32), NvmlError> {
    let lib = device.nvml().lib();
    let gpu_instance = symbol(&lib.nvmlDeviceGetGpuInstanceId)?;
    let compute_instance = symbol(&lib.nvmlDeviceGetComputeInstanceId)?;
    let (mut gpu, mut compute) = (0, 0);
    // SAFETY: the function writes the number that it is given.
    nvml_try(unsafe { gpu_instance(handle(device), &raw mut gpu) })?;
    // SAFETY: as above.
    nvml_try(unsafe { compute_instance(handle(device), &raw mut compute) })?;
    Ok((gpu, compute))
}

/// Reads fields, each of which may be refused on its own.
///
/// # Errors
/// If the whole call fails, or the library does not have it.
pub(super) fn field_values(
    device: &Device<'_>,
    fields: &[Field],
) -> Result<Vec<Result<Reading, NvmlError>>, NvmlError> {
    let nvml = device.nvml();
    let call = symbol(&nvml.lib().nvmlDeviceGetFieldValues)?;
    let mut values: Vec<_> = fields
        .iter()
        .map(|field| nvmlFieldValue_t {
            fieldId: renumbered(nvml, field.id),
            scopeId: field.scope,
            timestamp: 0,
            latencyUsec: 0,
            valueType: 0,
            nvmlReturn: 0,
            value: nvmlValue_t { ullVal: 0 },
        })
        .collect();
    let count = i32::try_from(values.len()).map_err(|_| NvmlError::InvalidArg)?;
    // SAFETY: `values` has room for `count` of what the function fills in.
    let answer = unsafe { call(handle(device), count, values.as_mut_ptr()) };
    nvml_try(answer)?;
    Ok(values.iter().map(reading).collect())
}

/// Drivers from 580.82 on have moved these fields.
fn renumbered(nvml: &Nvml, id: u32) -> u32 {
    match (nvml.field_id_scheme(), id) {
        (FieldIdScheme::V13Update1, 251..=253) => id + 18,
        _ => id,
    }
}

fn reading(value: &nvmlFieldValue_t) -> Result<Reading, NvmlError> {
    nvml_try(value.nvmlReturn)?;
    // SAFETY: every member is a plain number, for which all bits are valid, and this is the
    // largest; the function wrote the one that the type names, over zeros.
    let bits = unsafe { value.value.ullVal };
    // SAFETY: as above.
    let low = unsafe { value.value.uiVal };
    let (value, width) = match value.valueType {
        UNSIGNED_INT => (low.into(), Width::Bits32),
        UNSIGNED_LONG | UNSIGNED_LONG_LONG => (bits, Width::Bits64),
        SIGNED_INT => (not_negative(low.cast_signed().into())?, Width::Bits32),
        SIGNED_LONG_LONG => (not_negative(bits.cast_signed())?, Width::Bits64),
        other => return Err(NvmlError::UnexpectedVariant(other)),
    };
    Ok(Reading {
        value,
        width,
        unit: 1,
    })
}

/// A number that can't be below zero, of a type that could.
fn not_negative(value: i64) -> Result<u64, NvmlError> {
    u64::try_from(value).map_err(|_| NvmlError::NoData)
}

/// The samples of processes that are newer than `after` (microseconds since 1970). None is no
/// error.
///
/// # Errors
/// If the call fails, or the library does not have it.
pub(super) fn process_samples(
    device: &Device<'_>,
    by: ProcessSamples,
    after: u64,
) -> Result<Vec<ProcessSample>, NvmlError> {
    /// Both functions have structures of their own, with the same members.
    macro_rules! taken {
        ($samples:expr) => {
            $samples.map(|samples| {
                let samples = samples.into_iter();
                let taken = samples.map(|sample| ProcessSample {
                    pid: sample.pid,
                    microseconds: sample.timeStamp,
                    percent: [
                        sample.smUtil,
                        sample.memUtil,
                        sample.encUtil,
                        sample.decUtil,
                    ],
                });
                taken.collect()
            })
        };
    }
    let samples = match by {
        ProcessSamples::Plain => taken!(plain_samples(device, after)),
        ProcessSamples::Info => taken!(info_samples(device, after)),
    };
    match samples {
        // Nothing new.
        Err(NvmlError::NotFound) => Ok(Vec::new()),
        other => other,
    }
}

/// Calls with room for more and more entries until they fit. `call` gives the function's answer
/// and the count that it wrote.
fn with_room<T: Clone>(
    empty: T,
    mut call: impl FnMut(&mut Vec<T>) -> (nvmlReturn_t, u32),
) -> Result<Vec<T>, NvmlError> {
    const TRIES: u32 = 4;
    let mut entries = vec![empty.clone(); 64];
    for _ in 0..TRIES {
        let (answer, count) = call(&mut entries);
        let count = count as usize;
        if answer == INSUFFICIENT_SIZE {
            // Others may come between two calls.
            entries.resize(count.max(entries.len()) + 64, empty.clone());
            continue;
        }
        nvml_try(answer)?;
        entries.truncate(count);
        return Ok(entries);
    }
    Err(NvmlError::InsufficientSize(None))
}

fn plain_samples(
    device: &Device<'_>,
    after: u64,
) -> Result<Vec<nvmlProcessUtilizationSample_t>, NvmlError> {
    let call = symbol(&device.nvml().lib().nvmlDeviceGetProcessUtilization)?;
    let empty = nvmlProcessUtilizationSample_t {
        pid: 0,
        timeStamp: 0,
        smUtil: 0,
        memUtil: 0,
        encUtil: 0,
        decUtil: 0,
    };
    with_room(empty, |samples| {
        let mut count = u32::try_from(samples.len()).unwrap_or(u32::MAX);
        // SAFETY: `samples` has room for `count` of what the function writes.
        let answer = unsafe { call(handle(device), samples.as_mut_ptr(), &raw mut count, after) };
        (answer, count)
    })
}

fn info_samples(
    device: &Device<'_>,
    after: u64,
) -> Result<Vec<nvmlProcessUtilizationInfo_v1_t>, NvmlError> {
    let call = symbol(&device.nvml().lib().nvmlDeviceGetProcessesUtilizationInfo)?;
    let empty = nvmlProcessUtilizationInfo_v1_t {
        timeStamp: 0,
        pid: 0,
        smUtil: 0,
        memUtil: 0,
        encUtil: 0,
        decUtil: 0,
        jpgUtil: 0,
        ofaUtil: 0,
    };
    with_room(empty, |samples| {
        let mut request = nvmlProcessesUtilizationInfo_v1_t {
            version: version::<nvmlProcessesUtilizationInfo_v1_t>(1),
            processSamplesCount: u32::try_from(samples.len()).unwrap_or(u32::MAX),
            lastSeenTimeStamp: after,
            procUtilArray: samples.as_mut_ptr(),
        };
        // SAFETY: the array in `request` has room for as many entries as it says.
        let answer = unsafe { call(handle(device), &raw mut request) };
        (answer, request.processSamplesCount)
    })
}

/// `NVML_STRUCT_VERSION` of nvml.h.
fn version<T>(number: u32) -> u32 {
    u32::try_from(size_of::<T>()).unwrap_or(0) | (number << 24)
}

/// Total, used and free memory in bytes, as drivers before 510 tell it: what the driver set aside
/// is part of what is used.
///
/// # Errors
/// If the call fails, or the library does not have it.
pub(super) fn memory_before_510(device: &Device<'_>) -> Result<(u64, u64, u64), NvmlError> {
    let call = symbol(&device.nvml().lib().nvmlDeviceGetMemoryInfo)?;
    let mut memory = nvmlMemory_t {
        total: 0,
        free: 0,
        used: 0,
    };
    // SAFETY: the function fills in the structure that it is given.
    nvml_try(unsafe { call(handle(device), ptr::from_mut(&mut memory)) })?;
    Ok((memory.total, memory.used, memory.free))
}

/// The bits of the reasons for which clocks are held down now
/// (`nvmlDeviceGetCurrentClocksEventReasons`, or by its name before driver 535).
///
/// # Errors
/// If the call fails, or the library has neither.
pub(super) fn throttle_reasons(device: &Device<'_>) -> Result<u64, NvmlError> {
    let lib = device.nvml().lib();
    let call = symbol(&lib.nvmlDeviceGetCurrentClocksEventReasons)
        .or_else(|_| symbol(&lib.nvmlDeviceGetCurrentClocksThrottleReasons))?;
    let mut bits = 0;
    // SAFETY: the function writes the number that it is given.
    nvml_try(unsafe { call(handle(device), &raw mut bits) })?;
    Ok(bits)
}

/// The bits of all reasons that the driver knows for this device.
///
/// # Errors
/// If the call fails, or the library has neither.
pub(super) fn known_throttle_reasons(device: &Device<'_>) -> Result<u64, NvmlError> {
    let lib = device.nvml().lib();
    let call = symbol(&lib.nvmlDeviceGetSupportedClocksEventReasons)
        .or_else(|_| symbol(&lib.nvmlDeviceGetSupportedClocksThrottleReasons))?;
    let mut bits = 0;
    // SAFETY: the function writes the number that it is given.
    nvml_try(unsafe { call(handle(device), &raw mut bits) })?;
    Ok(bits)
}
