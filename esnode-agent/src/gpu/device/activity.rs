//! What the chip samples of itself, from Hopper on (GPU performance monitoring).

use crate::gpu::{
    ask::{Asker, Lost},
    facts::Activity,
};
use nvml_wrapper::{
    Device, GpmSample, Nvml, enums::gpm::GpmMetricId, error::NvmlError, gpm::gpm_metrics_get,
};

/// How it is asked for.
pub(super) const FAMILY: &str = "activity";

/// Metrics of GPU performance monitoring, in the order of [`activity`].
const ACTIVITY: [GpmMetricId; 9] = [
    GpmMetricId::SmUtil,
    GpmMetricId::SmOccupancy,
    GpmMetricId::AnyTensorUtil,
    GpmMetricId::DramBwUtil,
    GpmMetricId::Fp16Util,
    GpmMetricId::Fp32Util,
    GpmMetricId::Fp64Util,
    GpmMetricId::IntegerUtil,
    GpmMetricId::GraphicsUtil,
];

/// What the chip has sampled of a device, or of a part of it, since the sample that is `kept`. That
/// one makes room for what `take` gives.
pub(super) fn since<'nvml>(
    device: &Device<'nvml>,
    asker: &mut Asker,
    kept: &mut Option<GpmSample<'nvml>>,
    take: impl FnOnce() -> Result<GpmSample<'nvml>, NvmlError>,
) -> Result<Activity, Lost> {
    // Who gave a sample before is able to.
    let able = kept.is_some();
    let sample = asker.ask(FAMILY, || {
        if able || device.gpm_support()? {
            take()
        } else {
            Err(NvmlError::NotSupported)
        }
    })?;
    let before = std::mem::replace(kept, sample);
    let (Some(before), Some(now)) = (&before, &*kept) else {
        return Ok(Activity::default());
    };
    let measured = asker.ask(FAMILY, || activity(device.nvml(), before, now))?;
    Ok(measured.unwrap_or_default())
}

fn activity(
    nvml: &Nvml,
    before: &GpmSample<'_>,
    now: &GpmSample<'_>,
) -> Result<Activity, NvmlError> {
    let metrics = gpm_metrics_get(nvml, before, now, &ACTIVITY)?;
    let mut percents = metrics.into_iter().map(|metric| {
        let value = metric.ok()?.value;
        // What could not be computed is no number.
        (0.0..=100.0).contains(&value).then_some(value)
    });
    let mut next = || percents.next().flatten();
    Ok(Activity {
        sm_active_percent: next(),
        sm_occupancy_percent: next(),
        tensor_active_percent: next(),
        dram_active_percent: next(),
        fp16_active_percent: next(),
        fp32_active_percent: next(),
        fp64_active_percent: next(),
        int_active_percent: next(),
        graphics_active_percent: next(),
    })
}
