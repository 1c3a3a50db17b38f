//! The critical error that came last.

use crate::gpu::facts::DeviceFacts;

/// Errors that servers meet, by NVIDIA's documentation of XIDs.
const TEXTS: [(u64, &str); 16] = [
    (13, "Graphics engine exception"),
    (31, "Page fault of the GPU's memory"),
    (43, "Channel of a program was stopped"),
    (45, "Channels were cleaned up after an earlier error"),
    (48, "Double bit ECC error"),
    (61, "Internal microcontroller breakpoint or warning"),
    (62, "Internal microcontroller halt"),
    (63, "Page retired or row remapped"),
    (64, "Retiring a page or remapping a row failed"),
    (74, "NVLink error"),
    (79, "GPU has fallen off the bus"),
    (92, "Many single bit ECC errors"),
    (94, "Contained memory error"),
    (95, "Uncontained memory error"),
    (119, "GPU system processor did not answer in time"),
    (120, "GPU system processor error"),
];

/// Code of the last error, if there was one.
pub(super) fn last(device: &DeviceFacts) -> Option<u64> {
    let (code, _) = device.xids.iter().max_by_key(|(_, xid)| xid.last)?;
    Some(*code)
}

/// What an error means.
pub(super) fn text(code: u64) -> &'static str {
    let known = TEXTS.iter().find(|(known, _)| *known == code);
    known.map_or("See NVIDIA's catalogue of XIDs", |(_, text)| text)
}
