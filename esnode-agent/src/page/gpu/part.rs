//! What one set of labels stands for.

use crate::gpu::facts::{Activity, Counters, DeviceFacts, Fast, Identity, Memory, MigDevice, Slow};
use prometheus_client::encoding::{
    CounterValueEncoder, EncodeCounterValue, EncodeGaugeValue, EncodeLabel, EncodeLabelSet,
    GaugeValueEncoder, LabelSetEncoder,
};
use std::fmt;

/// A GPU, or a GPU instance that MIG cut from it.
pub(in crate::page) struct Part<'a> {
    /// The GPU.
    pub(in crate::page) identity: &'a Identity,
    /// The instance. Compute instances in it share its memory and all else that is here.
    pub(in crate::page) mig: Option<&'a MigDevice>,
    /// Everything that is known of the GPU alone, not of an instance.
    pub(in crate::page) device: Option<&'a DeviceFacts>,
    /// Memory.
    pub(in crate::page) memory: Option<&'a Memory>,
    /// What the chip samples.
    pub(in crate::page) activity: Option<&'a Activity>,
    /// Processes in the driver's list.
    pub(in crate::page) processes: Option<u64>,
}

impl<'a> Part<'a> {
    fn gpu(device: &'a DeviceFacts) -> Self {
        let fast = device.fast.as_ref();
        let listed = device.processes.iter().filter(|process| process.listed);
        Self {
            identity: &device.identity,
            mig: None,
            device: Some(device),
            memory: fast.and_then(|fast| fast.memory.as_ref()),
            activity: fast.map(|fast| &fast.activity),
            // Where the driver has no list, both are unknown.
            processes: fast
                .and(device.unknown_processes)
                .map(|unknown| unknown + listed.count() as u64),
        }
    }

    fn instance(device: &'a DeviceFacts, mig: &'a MigDevice) -> Self {
        Self {
            identity: &device.identity,
            mig: Some(mig),
            device: None,
            memory: mig.memory.as_ref(),
            activity: Some(&mig.activity),
            processes: mig.processes,
        }
    }

    pub(in crate::page) fn fast(&self) -> Option<&'a Fast> {
        self.device?.fast.as_ref()
    }

    pub(in crate::page) fn slow(&self) -> Option<&'a Slow> {
        self.device?.slow.as_ref()
    }

    pub(in crate::page) fn counters(&self) -> Option<&'a Counters> {
        self.device?.counters.as_ref()
    }

    pub(super) fn labels(&self) -> Labels<'a> {
        Labels {
            identity: self.identity,
            mig: self.mig,
        }
    }
}

/// All GPUs, each followed by its instances while there are readings of it.
pub(in crate::page) fn parts(devices: &[DeviceFacts]) -> impl Iterator<Item = Part<'_>> {
    devices.iter().flat_map(|device| {
        let known = device.mig.iter().filter(|_| device.fast.is_some());
        let first_of_instance = known.enumerate().filter(|(place, mig)| {
            let mut before = device.mig.iter().take(*place);
            !before.any(|before| before.gpu_instance == mig.gpu_instance)
        });
        [Part::gpu(device)]
            .into_iter()
            .chain(first_of_instance.map(|(_, mig)| Part::instance(device, mig)))
    })
}

/// The labels that each series of a GPU begins with.
#[derive(Clone, Copy)]
pub(super) struct Labels<'a> {
    identity: &'a Identity,
    mig: Option<&'a MigDevice>,
}

impl<'a> Labels<'a> {
    pub(super) fn of(device: &'a DeviceFacts) -> Self {
        Self::gpu(&device.identity)
    }

    pub(super) fn gpu(identity: &'a Identity) -> Self {
        Self {
            identity,
            mig: None,
        }
    }

    pub(super) fn at(self, mig: &'a MigDevice) -> Self {
        Self {
            mig: Some(mig),
            ..self
        }
    }
}

impl EncodeLabelSet for Labels<'_> {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> fmt::Result {
        ("gpu", self.identity.index).encode(encoder.encode_label())?;
        ("uuid", self.identity.uuid.as_str()).encode(encoder.encode_label())?;
        let Some(mig) = self.mig else {
            return Ok(());
        };
        ("mig", mig.gpu_instance).encode(encoder.encode_label())?;
        ("profile", mig.profile.as_str()).encode(encoder.encode_label())
    }
}

/// A number; a whole one is written without a point.
#[derive(Clone, Copy)]
pub(in crate::page) enum Value {
    Whole(u64),
    Real(f64),
}

impl Value {
    /// Joules of microjoules. Exact below 2^53: 700 W for 149 days.
    #[expect(clippy::cast_precision_loss, reason = "six of its digits are shown")]
    pub(super) fn joules(microjoules: u64) -> Self {
        Self::Real(microjoules as f64 / 1e6)
    }

    #[expect(
        clippy::cast_precision_loss,
        reason = "nanoseconds of a century are below 2^62"
    )]
    pub(super) fn seconds(nanoseconds: u64) -> Self {
        Self::Real(nanoseconds as f64 / 1e9)
    }

    /// Units of thousandths.
    pub(in crate::page) fn of_thousandths(thousandths: u32) -> Self {
        Self::Real(f64::from(thousandths) / 1e3)
    }
}

impl From<u32> for Value {
    fn from(value: u32) -> Self {
        Self::Whole(value.into())
    }
}

impl From<u64> for Value {
    fn from(value: u64) -> Self {
        Self::Whole(value)
    }
}

impl From<bool> for Value {
    fn from(value: bool) -> Self {
        Self::Whole(value.into())
    }
}

impl From<f64> for Value {
    fn from(value: f64) -> Self {
        Self::Real(value)
    }
}

impl EncodeGaugeValue for Value {
    fn encode(&self, encoder: &mut GaugeValueEncoder<'_>) -> fmt::Result {
        match self {
            Self::Whole(value) => EncodeGaugeValue::encode(value, encoder),
            Self::Real(value) => EncodeGaugeValue::encode(value, encoder),
        }
    }
}

impl EncodeCounterValue for Value {
    fn encode(&self, encoder: &mut CounterValueEncoder<'_>) -> fmt::Result {
        match self {
            Self::Whole(value) => EncodeCounterValue::encode(value, encoder),
            Self::Real(value) => EncodeCounterValue::encode(value, encoder),
        }
    }
}
