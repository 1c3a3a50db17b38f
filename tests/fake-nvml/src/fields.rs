//! Field values: what the driver tells by number.

use std::ffi::{c_int, c_uint};

use nvml_wrapper_sys::bindings as nvml;
use nvml_wrapper_sys::bindings::field_id;

use crate::abi::{Answer, Code, Out};
use crate::call::device_functions;
use crate::script::{Device, FieldKey, FieldValue, NvLink};
use crate::state::wall_micros;

/// The scope that means all links together.
const ALL_LINKS: c_uint = c_uint::MAX;

device_functions! {
    nvmlDeviceGetFieldValues(count: c_int, values: Out<nvml::nvmlFieldValue_t>) |call| {
        let count = usize::try_from(count).map_err(|_| Code::INVALID_ARGUMENT)?;
        if count == 0 {
            return Err(Code::INVALID_ARGUMENT);
        }
        let gpu = call.gpu()?;
        let now = i64::try_from(wall_micros()).unwrap_or(0);
        values.update(count, |value| {
            value.timestamp = now;
            value.latencyUsec = 0;
            let key = FieldKey {
                id: value.fieldId,
                scope: value.scopeId,
            };
            put(field(gpu, key), value);
        })
    };

    nvmlDeviceGetRemappedRows(
        corrected: Out<c_uint>, uncorrected: Out<c_uint>, pending: Out<c_uint>, failed: Out<c_uint>
    ) |call| {
        let gpu = call.gpu()?;
        corrected.set(rows(gpu, field_id::NVML_FI_DEV_REMAPPED_COR)?)?;
        uncorrected.set(rows(gpu, field_id::NVML_FI_DEV_REMAPPED_UNC)?)?;
        pending.set(rows(gpu, field_id::NVML_FI_DEV_REMAPPED_PENDING)?)?;
        failed.set(rows(gpu, field_id::NVML_FI_DEV_REMAPPED_FAILURE)?)
    };
}

/// The value of a field: as scripted, or of the scripted links.
fn field(gpu: &Device, key: FieldKey) -> FieldValue {
    let scripted = gpu.fields.get(&key).copied();
    let of_links = || link_kibibytes(gpu, key).map(FieldValue::U64);
    scripted
        .or_else(of_links)
        .unwrap_or(FieldValue::Error(Code::NOT_SUPPORTED))
}

/// What links have carried, for the fields of their throughput. The driver counts KiB.
fn link_kibibytes(gpu: &Device, key: FieldKey) -> Option<u64> {
    let bytes = |link: &NvLink| match key.id {
        field_id::NVML_FI_DEV_NVLINK_THROUGHPUT_DATA_TX => link.tx_bytes,
        field_id::NVML_FI_DEV_NVLINK_THROUGHPUT_DATA_RX => link.rx_bytes,
        _ => None,
    };
    let total = if key.scope == ALL_LINKS {
        let known: Vec<u64> = gpu.nvlinks.iter().filter_map(bytes).collect();
        (!known.is_empty()).then(|| known.iter().sum::<u64>())
    } else {
        let link = gpu.nvlinks.get(usize::try_from(key.scope).ok()?);
        link.and_then(bytes)
    };
    total.map(|bytes| bytes / 1024)
}

/// A number of rows.
fn rows(gpu: &Device, id: u32) -> Answer<c_uint> {
    match field(gpu, FieldKey { id, scope: 0 }) {
        FieldValue::U32(rows) => Ok(rows),
        FieldValue::U64(rows) => c_uint::try_from(rows).map_err(|_| Code::UNKNOWN),
        FieldValue::I64(_) | FieldValue::F64(_) => Err(Code::UNKNOWN),
        FieldValue::Error(code) => Err(code),
    }
}

/// Puts a value, or why there is none, in its place.
fn put(value: FieldValue, place: &mut nvml::nvmlFieldValue_t) {
    place.nvmlReturn = Code::SUCCESS.number();
    // All of it first: the shorter values are followed by nothing.
    place.value = nvml::nvmlValue_t { ullVal: 0 };
    match value {
        FieldValue::U32(number) => {
            place.valueType = nvml::nvmlValueType_enum_NVML_VALUE_TYPE_UNSIGNED_INT;
            place.value.uiVal = number;
        }
        FieldValue::U64(number) => {
            place.valueType = nvml::nvmlValueType_enum_NVML_VALUE_TYPE_UNSIGNED_LONG_LONG;
            place.value.ullVal = number;
        }
        FieldValue::I64(number) => {
            place.valueType = nvml::nvmlValueType_enum_NVML_VALUE_TYPE_SIGNED_LONG_LONG;
            place.value.sllVal = number;
        }
        FieldValue::F64(number) => {
            place.valueType = nvml::nvmlValueType_enum_NVML_VALUE_TYPE_DOUBLE;
            place.value.dVal = number;
        }
        FieldValue::Error(code) => place.nvmlReturn = code.number(),
    }
}
