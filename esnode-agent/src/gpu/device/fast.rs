//! What is read in every interval.

use super::{
    CounterName, CounterReadings, GpuDevice, activity,
    counters::{COUNTER_FIELDS, nvlink_fields},
    memory,
};
use crate::gpu::{
    ask::Lost,
    counter::Width,
    facts::Fast,
    sys::{self, Field},
};
use nvml_wrapper::{
    enum_wrappers::device::{Clock, TemperatureSensor},
    sys_exports::field_id::NVML_FI_DEV_MEMORY_TEMP,
};

/// Reasons by their bits (`nvmlClocksEventReason…`).
pub(super) const THROTTLE_REASONS: [(u64, &str); 9] = [
    (0x001, "gpu_idle"),
    (0x002, "applications_clocks_setting"),
    (0x004, "sw_power_cap"),
    (0x008, "hw_slowdown"),
    (0x010, "sync_boost"),
    (0x020, "sw_thermal_slowdown"),
    (0x040, "hw_thermal_slowdown"),
    (0x080, "hw_power_brake_slowdown"),
    (0x100, "display_clock_setting"),
];

impl GpuDevice<'_> {
    /// What is read in every interval.
    ///
    /// # Errors
    /// If the device is gone.
    pub(in crate::gpu) fn fast(&mut self) -> Result<(Fast, CounterReadings), Lost> {
        let (device, asker) = (&self.device, &mut self.asker);
        let utilization = asker.ask("utilization", || device.utilization_rates())?;
        let encoder = asker.ask("encoder_utilization", || device.encoder_utilization())?;
        let decoder = asker.ask("decoder_utilization", || device.decoder_utilization())?;
        let mut temperatures = Vec::new();
        let sensor = TemperatureSensor::Gpu;
        if let Some(celsius) = asker.ask("temperature", || device.temperature(sensor))? {
            temperatures.push(("gpu", celsius));
        }
        let mut fans = Vec::new();
        for fan in 0..self.fans {
            if let Some(percent) = asker.ask("fan_speed", || device.fan_speed(fan))? {
                fans.push((fan, percent));
            }
        }
        let power = asker.ask("power", || device.power_usage())?;
        let mut clock =
            |kind: Clock, family: &'static str| asker.ask(family, || device.clock_info(kind));
        let clock_sm_mhz = clock(Clock::SM, "clock_sm")?;
        let clock_memory_mhz = clock(Clock::Memory, "clock_memory")?;
        let clock_graphics_mhz = clock(Clock::Graphics, "clock_graphics")?;
        let clock_video_mhz = clock(Clock::Video, "clock_video")?;
        let state = asker.ask("performance_state", || device.performance_state())?;
        let throttle = asker.ask("throttle_reason", || sys::throttle_reasons(device))?;
        let (memory_celsius, counters) = self.fields()?;
        temperatures.extend(memory_celsius.map(|celsius| ("memory", celsius)));
        let fast = Fast {
            utilization_percent: utilization.as_ref().map(|percent| percent.gpu),
            memory_utilization_percent: utilization.map(|percent| percent.memory),
            encoder_utilization_percent: encoder.map(|encoder| encoder.utilization),
            decoder_utilization_percent: decoder.map(|decoder| decoder.utilization),
            memory: memory(&self.device, &mut self.asker)?,
            temperatures_celsius: temperatures,
            fan_speeds_percent: fans,
            power_milliwatts: power,
            clock_sm_mhz,
            clock_memory_mhz,
            clock_graphics_mhz,
            clock_video_mhz,
            performance_state: state.map(|state| state.as_c()).filter(|state| *state < 16),
            throttle_reasons: throttle
                .map_or_else(Vec::new, |active| reasons(self.throttle_reasons, active)),
            // Under MIG there are samples of instances only.
            activity: activity::since(&self.device, &mut self.asker, &mut self.gpm, || {
                self.device.gpm_sample()
            })?,
        };
        Ok((fast, counters))
    }

    /// Temperature of the memory, and counters that the device keeps as fields.
    fn fields(&mut self) -> Result<(Option<u32>, CounterReadings), Lost> {
        let links = self.nvlinks.iter().flat_map(|link| nvlink_fields(*link));
        let counters: Vec<_> = COUNTER_FIELDS.into_iter().chain(links).collect();
        let scope = |name: CounterName| match name {
            CounterName::NvlinkRx(link) | CounterName::NvlinkTx(link) => link,
            _ => 0,
        };
        let mut fields: Vec<_> = counters
            .iter()
            .map(|(id, _, name)| Field {
                id: *id,
                scope: scope(*name),
            })
            .collect();
        fields.push(Field {
            id: NVML_FI_DEV_MEMORY_TEMP,
            scope: 0,
        });
        let device = &self.device;
        let values = self
            .asker
            .ask("fields", || sys::field_values(device, &fields))?;
        let mut values = values.unwrap_or_default();
        let memory_celsius = values.pop().and_then(Result::ok);
        let mut readings: CounterReadings = Vec::new();
        for ((_, unit, name), value) in counters.into_iter().zip(values) {
            let Ok(mut reading) = value else { continue };
            // Both count for themselves: who began an account goes on with it.
            let known = *self.units.entry(name).or_insert(unit) == unit;
            if known && !readings.iter().any(|(other, _)| *other == name) {
                reading.unit = unit;
                // By nvml.h they can wrap, whatever their type is.
                if matches!(name, CounterName::PcieRx | CounterName::PcieTx) {
                    reading.width = Width::Bits32;
                }
                readings.push((name, reading));
            }
        }
        // Devices without a sensor say 0.
        let celsius = memory_celsius
            .map(|reading| reading.value)
            .filter(|value| *value > 0);
        Ok((
            celsius.and_then(|value| u32::try_from(value).ok()),
            readings,
        ))
    }
}

/// Every known reason and whether it is active; bits without a name are one reason together.
fn reasons(known: u64, active: u64) -> Vec<(&'static str, bool)> {
    let named = THROTTLE_REASONS.iter().fold(0, |bits, (bit, _)| bits | bit);
    let mut reasons: Vec<_> = THROTTLE_REASONS
        .into_iter()
        .filter(|(bit, _)| (known | active) & bit != 0)
        .map(|(bit, name)| (name, active & bit != 0))
        .collect();
    if (known | active) & !named != 0 {
        reasons.push(("other", active & !named != 0));
    }
    reasons
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_known_reason_has_a_series() {
        assert_eq!(
            reasons(0x05, 0x04),
            [("gpu_idle", false), ("sw_power_cap", true)]
        );
        // One that the driver did not announce, and one that we have no name for.
        assert_eq!(reasons(0, 0x08), [("hw_slowdown", true)]);
        assert_eq!(reasons(0x1000, 0), [("other", false)]);
    }
}
