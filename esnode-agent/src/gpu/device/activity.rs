//! What the chip samples of itself, from Hopper on (GPU performance monitoring).

use super::GpuDevice;
use crate::gpu::{ask::Lost, facts::Activity};
use nvml_wrapper::{
    GpmSample, Nvml, enums::gpm::GpmMetricId, error::NvmlError, gpm::gpm_metrics_get,
};

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

impl GpuDevice<'_> {
    /// What the chip has sampled since the last call.
    pub(super) fn activity(&mut self) -> Result<Activity, Lost> {
        const FAMILY: &str = "activity";
        let (device, asker) = (&self.device, &mut self.asker);
        let sample = asker.ask(FAMILY, || match device.gpm_support() {
            Ok(false) => Err(NvmlError::NotSupported),
            // Under MIG there are samples of instances only.
            Ok(true) => device.gpm_sample(),
            Err(error) => Err(error),
        })?;
        let before = std::mem::replace(&mut self.gpm, sample);
        match (&before, &self.gpm) {
            (Some(before), Some(now)) => {
                let activity = || activity(device.nvml(), before, now);
                Ok(asker.ask(FAMILY, activity)?.unwrap_or_default())
            }
            _ => Ok(Activity::default()),
        }
    }
}

pub(super) fn activity(
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
