//! How dcgm-exporter names a GPU.

use crate::gpu::facts::{Identity, MigDevice};
use prometheus_client::encoding::{EncodeLabel, EncodeLabelSet, LabelSetEncoder};
use std::fmt;

/// The labels of dcgm-exporter, in its order.
#[derive(Clone, Copy)]
pub(super) struct Labels<'a> {
    pub(super) identity: &'a Identity,
    pub(super) mig: Option<&'a MigDevice>,
    pub(super) hostname: &'a str,
    pub(super) version: Option<&'a str>,
}

impl EncodeLabelSet for Labels<'_> {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> fmt::Result {
        let Identity {
            index,
            uuid,
            name,
            pci_bus_id,
            ..
        } = self.identity;
        let bus = pci_bus_id.as_deref().unwrap_or_default();
        let model = name.as_deref().unwrap_or_default();
        ("gpu", *index).encode(encoder.encode_label())?;
        ("UUID", uuid.as_str()).encode(encoder.encode_label())?;
        ("pci_bus_id", bus).encode(encoder.encode_label())?;
        // The index there too, not the minor number of the device file.
        ("device", format!("nvidia{index}")).encode(encoder.encode_label())?;
        ("modelName", model).encode(encoder.encode_label())?;
        if let Some(mig) = self.mig {
            ("GPU_I_PROFILE", mig.profile.as_str()).encode(encoder.encode_label())?;
            ("GPU_I_ID", mig.gpu_instance).encode(encoder.encode_label())?;
        }
        if !self.hostname.is_empty() {
            ("Hostname", self.hostname).encode(encoder.encode_label())?;
        }
        self.version.map_or(Ok(()), |version| {
            ("DCGM_FI_DRIVER_VERSION", version).encode(encoder.encode_label())
        })
    }
}
