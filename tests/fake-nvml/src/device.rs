//! Who a device is, and its readings.

use std::ffi::{c_char, c_uint, c_ulonglong};

use nvml_wrapper_sys::bindings as nvml;

use crate::abi::{Answer, Code, Out, array, check_version, struct_version};
use crate::call::{Call, device_functions};
use crate::script::{Clocks, Device, PciBusId};

/// Of encoder and decoder, in µs.
const SAMPLING_PERIOD: c_uint = 167_000;

device_functions! {
    nvmlDeviceGetUUID(uuid: Out<c_char>, length: c_uint) |call| {
        let mig = call.mig()?.map(|mig| &mig.uuid);
        uuid.text(length, mig.unwrap_or(&call.parent()?.uuid))
    };

    nvmlDeviceGetName(name: Out<c_char>, length: c_uint) |call| {
        let known = match call.mig()? {
            Some(mig) => &mig.name,
            None => &call.parent()?.name,
        };
        name.text(length, known.as_deref().ok_or(Code::NOT_SUPPORTED)?)
    };

    nvmlDeviceGetIndex(index: Out<c_uint>) |call| {
        call.gpu()?;
        index.give(c_uint::try_from(call.index).ok())
    };

    nvmlDeviceGetMinorNumber(minor: Out<c_uint>) |call| minor.give(call.gpu()?.minor);

    nvmlDeviceGetPciInfo_v3(info: Out<nvml::nvmlPciInfo_t>) |call| {
        info.give(call.parent()?.pci_bus_id.as_ref().map(pci_info))
    };

    nvmlDeviceGetVbiosVersion(version: Out<c_char>, length: c_uint) |call| {
        let vbios = call.gpu()?.vbios.as_deref();
        version.text(length, vbios.ok_or(Code::NOT_SUPPORTED)?)
    };

    nvmlDeviceGetArchitecture(architecture: Out<c_uint>) |call| {
        architecture.give(call.gpu()?.architecture)
    };

    nvmlDeviceGetTotalEnergyConsumption(energy: Out<c_ulonglong>) |call| energy.give(energy_of(call)?);

    nvmlDeviceGetUtilizationRates(rates: Out<nvml::nvmlUtilization_t>) |call| {
        rates.give(call.gpu()?.utilization.map(|rates| nvml::nvmlUtilization_t {
            gpu: rates.gpu,
            memory: rates.memory,
        }))
    };

    nvmlDeviceGetEncoderUtilization(percent: Out<c_uint>, period: Out<c_uint>) |call| {
        percent.give(call.gpu()?.encoder)?;
        period.set(SAMPLING_PERIOD)
    };

    nvmlDeviceGetDecoderUtilization(percent: Out<c_uint>, period: Out<c_uint>) |call| {
        percent.give(call.gpu()?.decoder)?;
        period.set(SAMPLING_PERIOD)
    };

    /// Used memory has what is reserved in it, as the first version has no place of its own for it.
    nvmlDeviceGetMemoryInfo(memory: Out<nvml::nvmlMemory_t>) |call| {
        memory.give(call.memory()?.map(|memory| nvml::nvmlMemory_t {
            total: memory.total,
            free: memory.free,
            used: memory.used + memory.reserved,
        }))
    };

    nvmlDeviceGetMemoryInfo_v2(memory: Out<nvml::nvmlMemory_v2_t>) |call| {
        let version = memory.get()?.version;
        check_version(version, struct_version::<nvml::nvmlMemory_v2_t>(2))?;
        memory.give(call.memory()?.map(|memory| nvml::nvmlMemory_v2_t {
            version,
            total: memory.total,
            reserved: memory.reserved,
            free: memory.free,
            used: memory.used,
        }))
    };

    nvmlDeviceGetBAR1MemoryInfo(memory: Out<nvml::nvmlBAR1Memory_t>) |call| {
        memory.give(call.gpu()?.bar1.map(|bar1| nvml::nvmlBAR1Memory_t {
            bar1Total: bar1.total,
            bar1Free: bar1.free,
            bar1Used: bar1.used,
        }))
    };

    nvmlDeviceGetTemperature(sensor: c_uint, celsius: Out<c_uint>) |call| {
        check_sensor(sensor)?;
        celsius.give(call.gpu()?.temperature)
    };

    nvmlDeviceGetTemperatureV(reading: Out<nvml::nvmlTemperature_t>) |call| {
        let mut value = reading.get()?;
        check_version(value.version, struct_version::<nvml::nvmlTemperature_v1_t>(1))?;
        check_sensor(value.sensorType)?;
        let celsius = call.gpu()?.temperature.ok_or(Code::NOT_SUPPORTED)?;
        value.temperature = celsius.cast_signed();
        reading.set(value)
    };

    nvmlDeviceGetNumFans(count: Out<c_uint>) |call| {
        count.give(c_uint::try_from(fans(call.gpu()?)?.len()).ok())
    };

    nvmlDeviceGetFanSpeed(percent: Out<c_uint>) |call| {
        percent.give(fans(call.gpu()?)?.first().copied())
    };

    nvmlDeviceGetFanSpeed_v2(fan: c_uint, percent: Out<c_uint>) |call| {
        let fan = usize::try_from(fan).unwrap_or(usize::MAX);
        let speed = fans(call.gpu()?)?.get(fan);
        percent.set(*speed.ok_or(Code::INVALID_ARGUMENT)?)
    };

    nvmlDeviceGetPowerUsage(milliwatts: Out<c_uint>) |call| {
        milliwatts.give(call.gpu()?.power_milliwatts)
    };

    nvmlDeviceGetEnforcedPowerLimit(milliwatts: Out<c_uint>) |call| {
        milliwatts.give(call.gpu()?.power_limit_milliwatts)
    };

    nvmlDeviceGetPowerManagementLimit(milliwatts: Out<c_uint>) |call| {
        milliwatts.give(call.gpu()?.power_limit_milliwatts)
    };

    nvmlDeviceGetClockInfo(clock: c_uint, mhz: Out<c_uint>) |call| {
        mhz.give(choose(call.gpu()?.clocks, clock)?)
    };

    nvmlDeviceGetMaxClockInfo(clock: c_uint, mhz: Out<c_uint>) |call| {
        mhz.give(choose(call.gpu()?.clocks_max, clock)?)
    };

    nvmlDeviceGetPerformanceState(state: Out<nvml::nvmlPstates_t>) |call| {
        state.give(call.gpu()?.performance_state)
    };

    nvmlDeviceGetCurrentClocksThrottleReasons(reasons: Out<c_ulonglong>) |call| {
        reasons.give(call.gpu()?.throttle)
    };

    nvmlDeviceGetCurrentClocksEventReasons(reasons: Out<c_ulonglong>) |call| {
        reasons.give(call.gpu()?.throttle)
    };

    nvmlDeviceGetSupportedClocksThrottleReasons(reasons: Out<c_ulonglong>) |call| {
        reasons.give(call.gpu()?.throttle_supported)
    };

    nvmlDeviceGetSupportedClocksEventReasons(reasons: Out<c_ulonglong>) |call| {
        reasons.give(call.gpu()?.throttle_supported)
    };

    nvmlDeviceGetTotalEccErrors(kind: c_uint, counter: c_uint, count: Out<c_ulonglong>) |call| {
        let ecc = call.gpu()?.ecc;
        count.give(match (kind, counter) {
            (0, 0) => ecc.corrected_volatile,
            (1, 0) => ecc.uncorrected_volatile,
            (0, 1) => ecc.corrected_aggregate,
            (1, 1) => ecc.uncorrected_aggregate,
            _ => return Err(Code::INVALID_ARGUMENT),
        })
    };

    nvmlDeviceGetMemoryErrorCounter(
        _kind: c_uint, _counter: c_uint, _location: c_uint, _count: Out<c_ulonglong>
    ) |_call| Err(Code::NOT_SUPPORTED);

    nvmlDeviceGetRetiredPages_v2(
        _cause: c_uint, _count: Out<c_uint>, _addresses: Out<c_ulonglong>, _times: Out<c_ulonglong>
    ) |_call| Err(Code::NOT_SUPPORTED);
}

/// In mJ: as scripted, plus what the scripted power has added since.
fn energy_of(call: &Call) -> Answer<Option<u64>> {
    let gpu = call.gpu()?;
    let millis = u64::try_from(call.version.age().as_millis()).unwrap_or(0);
    let added = gpu.energy_milliwatts * millis / 1000;
    Ok(gpu.energy_millijoules.map(|energy| energy + added))
}

fn check_sensor(sensor: c_uint) -> Answer {
    if sensor == nvml::nvmlTemperatureSensors_enum_NVML_TEMPERATURE_GPU {
        Ok(())
    } else {
        Err(Code::INVALID_ARGUMENT)
    }
}

fn fans(gpu: &Device) -> Answer<&[u32]> {
    gpu.fans.as_deref().ok_or(Code::NOT_SUPPORTED)
}

/// The clock with this number in `nvmlClockType_t`.
fn choose(clocks: Clocks, clock: c_uint) -> Answer<Option<u32>> {
    Ok(match clock {
        nvml::nvmlClockType_enum_NVML_CLOCK_GRAPHICS => clocks.graphics,
        nvml::nvmlClockType_enum_NVML_CLOCK_SM => clocks.sm,
        nvml::nvmlClockType_enum_NVML_CLOCK_MEM => clocks.memory,
        nvml::nvmlClockType_enum_NVML_CLOCK_VIDEO => clocks.video,
        _ => return Err(Code::INVALID_ARGUMENT),
    })
}

/// The identity is that of an H100, whatever the script calls the device.
fn pci_info(address: &PciBusId) -> nvml::nvmlPciInfo_t {
    let PciBusId {
        domain,
        bus,
        device,
        ..
    } = *address;
    nvml::nvmlPciInfo_t {
        busIdLegacy: array(&format!("{domain:04X}:{bus:02X}:{device:02X}.0")),
        domain,
        bus,
        device,
        pciDeviceId: 0x2330_10de,
        pciSubSystemId: 0x16c1_10de,
        busId: array(&address.text),
    }
}
