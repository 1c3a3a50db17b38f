//! PCIe and NVLink.

use std::ffi::{c_uint, c_ulonglong};

use nvml_wrapper_sys::bindings as nvml;

use crate::abi::{Answer, Code, Out};
use crate::call::device_functions;
use crate::script::{Device, NvLink};

/// `NVML_NVLINK_MAX_LINKS`.
const MAX_LINKS: c_uint = 18;

device_functions! {
    nvmlDeviceGetCurrPcieLinkGeneration(generation: Out<c_uint>) |call| {
        generation.give(call.gpu()?.pcie.generation)
    };

    nvmlDeviceGetMaxPcieLinkGeneration(generation: Out<c_uint>) |call| {
        generation.give(call.gpu()?.pcie.generation_max)
    };

    nvmlDeviceGetCurrPcieLinkWidth(width: Out<c_uint>) |call| width.give(call.gpu()?.pcie.width);

    nvmlDeviceGetMaxPcieLinkWidth(width: Out<c_uint>) |call| {
        width.give(call.gpu()?.pcie.width_max)
    };

    nvmlDeviceGetPcieReplayCounter(count: Out<c_uint>) |call| {
        count.give(call.gpu()?.pcie.replays)
    };

    /// On a real GPU, this one takes 20 ms; here it's enough that it was called.
    nvmlDeviceGetPcieThroughput(_counter: c_uint, kilobytes: Out<c_uint>) |call| {
        call.gpu()?;
        kilobytes.set(0)
    };

    nvmlDeviceGetNvLinkState(link: c_uint, active: Out<c_uint>) |call| {
        active.give(link_of(call.gpu()?, link)?.up.map(c_uint::from))
    };

    nvmlDeviceGetNvLinkErrorCounter(link: c_uint, counter: c_uint, count: Out<c_ulonglong>) |call| {
        let link = link_of(call.gpu()?, link)?;
        count.give(match counter {
            nvml::nvmlNvLinkErrorCounter_enum_NVML_NVLINK_ERROR_DL_REPLAY => link.replay,
            nvml::nvmlNvLinkErrorCounter_enum_NVML_NVLINK_ERROR_DL_RECOVERY => link.recovery,
            nvml::nvmlNvLinkErrorCounter_enum_NVML_NVLINK_ERROR_DL_CRC_FLIT => link.crc,
            _ => None,
        })
    };
}

/// A link; those that a device might have and has not aren't supported.
fn link_of(gpu: &Device, link: c_uint) -> Answer<NvLink> {
    if link >= MAX_LINKS {
        return Err(Code::INVALID_ARGUMENT);
    }
    let index = usize::try_from(link).unwrap_or(usize::MAX);
    gpu.nvlinks.get(index).copied().ok_or(Code::NOT_SUPPORTED)
}
