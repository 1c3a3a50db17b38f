//! Processes on a device, and how much of it they use.

use std::ffi::{c_uint, c_ulonglong};

use nvml_wrapper_sys::bindings as nvml;

use crate::abi::{Answer, Code, Out, check_version, struct_version};
use crate::call::{Call, device_functions};
use crate::queue::Sample;
use crate::script::Process;
use crate::state;

/// An instance that a process isn't in.
const NO_INSTANCE: c_uint = c_uint::MAX;

/// `NVML_VALUE_NOT_AVAILABLE` in a number without a sign: all ones.
const NOT_AVAILABLE: c_ulonglong = c_ulonglong::MAX;

/// `nvmlProcessesUtilizationInfo_v1_t`.
#[derive(Clone, Copy)]
#[repr(C)]
struct UtilizationInfo {
    version: c_uint,
    count: c_uint,
    last_seen: c_ulonglong,
    samples: Out<nvml::nvmlProcessUtilizationInfo_v1_t>,
}

const _: () = assert!(
    size_of::<UtilizationInfo>() == size_of::<nvml::nvmlProcessesUtilizationInfo_v1_t>(),
    "as in nvml.h"
);

device_functions! {
    nvmlDeviceGetComputeRunningProcesses_v3(
        count: Out<c_uint>, infos: Out<nvml::nvmlProcessInfo_t>
    ) |call| {
        let instance = call.mig()?.map(|mig| (mig.gpu_instance, mig.compute_instance));
        let of_instance = |process: &&Process| {
            let own = process.gpu_instance.zip(process.compute_instance.or(Some(0)));
            instance.is_none() || own == instance
        };
        let processes = call.parent()?.processes.as_deref().ok_or(Code::NOT_SUPPORTED)?;
        let found: Vec<_> = processes.iter().filter(of_instance).map(info).collect();
        let (needed, filled) = infos.fill(count.get()?, &found);
        count.set(needed)?;
        filled
    };

    nvmlDeviceGetGraphicsRunningProcesses_v3(
        count: Out<c_uint>, _infos: Out<nvml::nvmlProcessInfo_t>
    ) |_call| count.set(0);

    nvmlDeviceGetMPSComputeRunningProcesses_v3(
        count: Out<c_uint>, _infos: Out<nvml::nvmlProcessInfo_t>
    ) |_call| count.set(0);

    nvmlDeviceGetProcessUtilization(
        samples: Out<nvml::nvmlProcessUtilizationSample_t>, count: Out<c_uint>,
        last_seen: c_ulonglong
    ) |call| {
        let capacity = if samples.is_null() { 0 } else { count.get()? };
        let (needed, found) = find(call, last_seen, capacity)?;
        count.set(needed)?;
        let found: Vec<_> = found?.iter().map(sample).collect();
        samples.fill(capacity, &found).1
    };

    nvmlDeviceGetProcessesUtilizationInfo(info: Out<UtilizationInfo>) |call| {
        let mut value = info.get()?;
        let version = struct_version::<nvml::nvmlProcessesUtilizationInfo_v1_t>(1);
        check_version(value.version, version)?;
        let capacity = if value.samples.is_null() { 0 } else { value.count };
        let (needed, found) = find(call, value.last_seen, capacity)?;
        value.count = needed;
        info.set(value)?;
        let found: Vec<_> = found?.iter().map(long_sample).collect();
        value.samples.fill(capacity, &found).1
    };
}

/// How many samples are newer than this, and the samples themselves if there is room for them.
fn find(call: &Call, last_seen: u64, capacity: c_uint) -> Answer<(c_uint, Answer<Vec<Sample>>)> {
    let gpu = call.gpu()?;
    if gpu.mig.is_some() || gpu.processes.is_none() && gpu.samples.is_empty() {
        return Err(Code::NOT_SUPPORTED);
    }
    let fixed = gpu.samples.iter().filter_map(|sample| {
        let age = sample.age_ms.saturating_mul(1000);
        Some(Sample {
            at: call.version.loaded_micros.checked_add_signed(-age)?,
            pid: sample.pid,
            utilization: sample.utilization(),
        })
    });
    let mut found: Vec<_> = fixed.filter(|sample| sample.at > last_seen).collect();
    let now = state::wall_micros();
    let memory = state::memory(call.index)?;
    let total = found.len() + memory.queue.count(last_seen, now);
    let needed = c_uint::try_from(total).map_err(|_| Code::UNKNOWN)?;
    if needed == 0 {
        return Err(Code::NOT_FOUND);
    }
    if capacity < needed {
        return Ok((needed, Err(Code::INSUFFICIENT_SIZE)));
    }
    found.extend(memory.queue.samples(last_seen, now));
    Ok((needed, Ok(found)))
}

fn info(process: &Process) -> nvml::nvmlProcessInfo_t {
    nvml::nvmlProcessInfo_t {
        pid: process.pid,
        usedGpuMemory: process.memory.unwrap_or(NOT_AVAILABLE),
        gpuInstanceId: process.gpu_instance.unwrap_or(NO_INSTANCE),
        computeInstanceId: process.compute_instance.unwrap_or(NO_INSTANCE),
    }
}

fn sample(sample: &Sample) -> nvml::nvmlProcessUtilizationSample_t {
    nvml::nvmlProcessUtilizationSample_t {
        pid: sample.pid,
        timeStamp: sample.at,
        smUtil: sample.utilization.sm,
        memUtil: sample.utilization.mem,
        encUtil: sample.utilization.enc,
        decUtil: sample.utilization.dec,
    }
}

fn long_sample(sample: &Sample) -> nvml::nvmlProcessUtilizationInfo_v1_t {
    nvml::nvmlProcessUtilizationInfo_v1_t {
        timeStamp: sample.at,
        pid: sample.pid,
        smUtil: sample.utilization.sm,
        memUtil: sample.utilization.mem,
        encUtil: sample.utilization.enc,
        decUtil: sample.utilization.dec,
        jpgUtil: 0,
        ofaUtil: 0,
    }
}
