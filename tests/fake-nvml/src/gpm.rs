//! What the chip samples of itself (GPM): the numbers of the script, once two samples were taken.

use std::collections::BTreeMap;
use std::ffi::c_uint;
use std::ptr;
use std::sync::{Arc, Mutex};

use nvml_wrapper_sys::bindings as nvml;

use crate::abi::{Answer, Code, Handle, Out, check_version};
use crate::call::{self, Call, device_functions, system_functions};
use crate::calls::Function;
use crate::state::lock;

/// An `nvmlGpmSample_t`: a number, no pointer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(transparent)]
struct SampleId(usize);

/// A sample that was taken.
#[derive(Clone)]
struct Taken {
    index: usize,
    /// GPU instance, if it's not of the whole GPU.
    instance: Option<u32>,
    metrics: Arc<BTreeMap<u32, f64>>,
}

/// Samples by id, taken or only allocated.
struct Samples {
    last: usize,
    samples: BTreeMap<SampleId, Option<Taken>>,
}

static SAMPLES: Mutex<Samples> = Mutex::new(Samples {
    last: 0,
    samples: BTreeMap::new(),
});

/// Frees all samples.
pub(crate) fn forget() {
    lock(&SAMPLES).samples.clear();
}

system_functions! {
    nvmlGpmSampleAlloc(sample: Out<SampleId>) |_version| {
        let mut samples = lock(&SAMPLES);
        samples.last += 1;
        let id = SampleId(samples.last);
        samples.samples.insert(id, None);
        sample.set(id)
    };

    nvmlGpmSampleFree(sample: SampleId) |_version| {
        let freed = lock(&SAMPLES).samples.remove(&sample);
        freed.map(drop).ok_or(Code::INVALID_ARGUMENT)
    };
}

device_functions! {
    nvmlGpmQueryDeviceSupport(support: Out<nvml::nvmlGpmSupport_t>) |call| {
        let version = support.get()?.version;
        check_version(version, nvml::NVML_GPM_SUPPORT_VERSION)?;
        support.set(nvml::nvmlGpmSupport_t {
            version,
            isSupportedDevice: c_uint::from(call.gpu()?.gpm.is_some()),
        })
    };

    nvmlGpmSampleGet(sample: SampleId) |call| take(call, None, sample);

    nvmlGpmMigSampleGet(instance: c_uint, sample: SampleId) |call| {
        take(call, Some(instance), sample)
    };
}

/// Is a call on the device that the samples are of.
#[unsafe(no_mangle)]
extern "C" fn nvmlGpmMetricsGet(request: Out<nvml::nvmlGpmMetricsGet_t>) -> nvml::nvmlReturn_t {
    let function = Function::nvmlGpmMetricsGet;
    match compare(request) {
        Ok((index, metrics)) => {
            let device = Handle::gpu(index);
            call::on_device(function, device, |_call| answer(request, &metrics))
        }
        Err(code) => call::on_system(function, |_version| Err(code)),
    }
}

fn take(call: &Call, instance: Option<u32>, sample: SampleId) -> Answer {
    call.gpu()?;
    let metrics = call.gpm(instance)?.ok_or(Code::NOT_SUPPORTED)?;
    let mut samples = lock(&SAMPLES);
    let place = samples.samples.get_mut(&sample);
    *place.ok_or(Code::INVALID_ARGUMENT)? = Some(Taken {
        index: call.index,
        instance,
        metrics: Arc::new(metrics.clone()),
    });
    Ok(())
}

/// The device that two samples are of, and what the second says.
fn compare(request: Out<nvml::nvmlGpmMetricsGet_t>) -> Answer<(usize, Arc<BTreeMap<u32, f64>>)> {
    let request = request.get()?;
    check_version(request.version, nvml::NVML_GPM_METRICS_GET_VERSION)?;
    let samples = lock(&SAMPLES);
    let taken = |sample: nvml::nvmlGpmSample_t| {
        let taken = samples.samples.get(&SampleId(sample.addr()));
        taken.cloned().flatten().ok_or(Code::INVALID_ARGUMENT)
    };
    let (first, second) = (taken(request.sample1)?, taken(request.sample2)?);
    let of = |taken: &Taken| (taken.index, taken.instance);
    if ptr::eq(request.sample1, request.sample2) || of(&first) != of(&second) {
        return Err(Code::INVALID_ARGUMENT);
    }
    Ok((second.index, second.metrics))
}

/// Writes the metrics that are asked for.
fn answer(request: Out<nvml::nvmlGpmMetricsGet_t>, metrics: &BTreeMap<u32, f64>) -> Answer {
    let mut value = request.get()?;
    let wanted = usize::try_from(value.numMetrics).unwrap_or(usize::MAX);
    if wanted > value.metrics.len() {
        return Err(Code::INVALID_ARGUMENT);
    }
    for metric in value.metrics.iter_mut().take(wanted) {
        let known = metrics.get(&metric.metricId);
        metric.nvmlReturn = known
            .map_or(Code::NOT_SUPPORTED, |_| Code::SUCCESS)
            .number();
        metric.value = known.copied().unwrap_or_default();
        metric.metricInfo = nvml::nvmlGpmMetric_t__bindgen_ty_1 {
            shortName: ptr::null_mut(),
            longName: ptr::null_mut(),
            unit: ptr::null_mut(),
        };
    }
    request.set(value)
}
