//! GPUs, and what processes use of them, as the table for tools has them.

use crate::{
    api::{Gpu, ProcessGpu},
    gpu::facts::{DeviceFacts, GpuProcess, Identity},
};

/// What a GPU shows now. Of one that is cut into instances, it is all of them together.
pub(super) fn describe(device: &DeviceFacts) -> Gpu {
    let identity = &device.identity;
    let fast = device.fast.as_ref();
    let memory = fast.and_then(|fast| fast.memory);
    let watts = |milliwatts: u32| f64::from(milliwatts) / 1e3;
    let limit = device
        .slow
        .as_ref()
        .and_then(|it| it.power_limit_milliwatts);
    Gpu {
        gpu: identity.index,
        uuid: identity.uuid.clone(),
        name: identity.name.clone().unwrap_or_default(),
        up: device.up,
        utilization_percent: fast.and_then(|it| it.utilization_percent).map(f64::from),
        memory_used_bytes: memory.map(|memory| memory.used),
        memory_total_bytes: memory.map(|memory| memory.total),
        temperature_celsius: fast.and_then(|fast| {
            let mut sensors = fast.temperatures_celsius.iter();
            let of_chip = sensors.find(|(sensor, _)| *sensor == "gpu");
            of_chip.map(|(_, celsius)| f64::from(*celsius))
        }),
        fan_speed_percent: fast.and_then(|fast| {
            let first = fast.fan_speeds_percent.first();
            first.map(|(_, percent)| f64::from(*percent))
        }),
        power_watts: fast.and_then(|it| it.power_milliwatts).map(watts),
        power_limit_watts: limit.map(watts),
        clock_sm_mhz: fast.and_then(|it| it.clock_sm_mhz).map(f64::from),
        // A driver that knows reasons has all of them in the list, those that do not hold as well.
        throttle_reasons: fast
            .map(|it| it.throttle_reasons.iter())
            .filter(|reasons| reasons.len() > 0)
            .map(|reasons| {
                let now = reasons.filter(|(_, holds)| *holds);
                now.map(|(reason, _)| (*reason).to_owned()).collect()
            }),
    }
}

/// What a process uses of a GPU; of its memory, that in all instances.
pub(in crate::page) fn describe_process(gpu: &Identity, process: &GpuProcess) -> ProcessGpu {
    let memory = process.memory.iter().map(|(_, bytes)| *bytes);
    ProcessGpu {
        gpu: gpu.index,
        uuid: gpu.uuid.clone(),
        memory_used_bytes: memory.reduce(u64::saturating_add),
        utilization_sm_percent: process.utilization.map(|it| it.sm_percent),
        utilization_memory_percent: process.utilization.map(|it| it.memory_percent),
        energy_joules_total: process.energy_microjoules.map(crate::page::joules),
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::fixtures::{full, identity, worker},
        *,
    };
    use crate::api::Snapshot;

    #[test]
    fn all_that_is_known_is_there() {
        let gpu = describe(&full());
        assert_eq!((gpu.gpu, gpu.uuid.as_str(), gpu.up), (0, "GPU-0", true));
        assert_eq!(gpu.name, "NVIDIA \"H100\"");
        assert_eq!(gpu.utilization_percent, Some(65.0));
        assert_eq!(gpu.memory_used_bytes, Some(1_048_576_000));
        assert_eq!(gpu.memory_total_bytes, Some(85_899_345_920));
        assert_eq!(gpu.temperature_celsius, Some(41.0));
        assert_eq!(
            (gpu.power_watts, gpu.power_limit_watts),
            (Some(123.456), Some(700.0))
        );
        assert_eq!(gpu.clock_sm_mhz, Some(1980.0));
        assert_eq!(gpu.throttle_reasons, Some(vec!["sw_power_cap".to_owned()]));
    }

    #[test]
    fn what_is_not_known_is_absent() {
        let gpu = describe(&DeviceFacts::default());
        let snapshot = Snapshot {
            gpus: vec![gpu],
            ..Snapshot::default()
        };
        let text = serde_json::to_string(&snapshot.gpus).expect("JSON");
        assert_eq!(text, r#"[{"gpu":0,"uuid":"","up":false}]"#);
    }

    #[test]
    fn memory_of_instances_adds_up() {
        let mut process = worker();
        assert_eq!(
            describe_process(&identity(1), &process).memory_used_bytes,
            Some(5000)
        );
        process.memory = vec![(Some(1), 7), (Some(2), 8)];
        let used = describe_process(&identity(1), &process);
        assert_eq!((used.gpu, used.memory_used_bytes), (1, Some(15)));
        assert_eq!(used.energy_joules_total, Some(234.567_89));
        process.memory = Vec::new();
        assert_eq!(
            describe_process(&identity(1), &process).memory_used_bytes,
            None
        );
    }
}
