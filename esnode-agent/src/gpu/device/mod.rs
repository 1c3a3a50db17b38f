//! One device, asked for everything it can tell.

mod activity;
mod counters;
mod fast;
mod mig;
mod slow;

pub(super) use counters::{CounterName, CounterReadings};
pub(super) use mig::mig_uuids;

use super::{
    ask::{Asker, Lost, Told},
    facts::{Identity, Memory},
    filter::Filter,
    library::{Meaning, meaning},
    sys::{self, ProcessSample, ProcessSamples},
};
use mig::Mig;
use nvml_wrapper::{
    Device, GpmSample, enums::device::UsedGpuMemory, error::NvmlError,
    struct_wrappers::device::ProcessInfo,
};
use rustc_hash::FxHashMap;
use std::sync::Arc;

/// A process in the driver's list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Listed {
    /// Process id, as the driver knows it.
    pub pid: u32,
    /// Memory in bytes.
    pub memory: Option<u64>,
    /// GPU instance, under MIG.
    pub gpu_instance: Option<u32>,
}

impl From<ProcessInfo> for Listed {
    fn from(process: ProcessInfo) -> Self {
        Self {
            pid: process.pid,
            memory: match process.used_gpu_memory {
                UsedGpuMemory::Used(bytes) => Some(bytes),
                UsedGpuMemory::Unavailable => None,
            },
            gpu_instance: process.gpu_instance_id,
        }
    }
}

/// A device of an open library, with what is kept from one sample to the next.
pub(super) struct GpuDevice<'nvml> {
    device: Device<'nvml>,
    identity: Arc<Identity>,
    filter: Filter,
    asker: Asker,
    fans: u32,
    throttle_reasons: u64,
    nvlinks: Vec<u32>,
    /// In which unit a counter is read, where there are several.
    units: FxHashMap<CounterName, u64>,
    samples_by: ProcessSamples,
    gpm: Option<GpmSample<'nvml>>,
    mig: Vec<Mig<'nvml>>,
    /// Whether MIG devices may have come or gone.
    mig_changed: bool,
}

impl<'nvml> GpuDevice<'nvml> {
    /// Of a handle that the library gave. `filter` says which of its MIG devices are wanted.
    #[must_use]
    pub(super) fn new(
        device: Device<'nvml>,
        identity: Arc<Identity>,
        filter: Filter,
        told: Told,
    ) -> Self {
        Self {
            device,
            asker: Asker::new(Arc::clone(&identity), told),
            identity,
            filter,
            fans: 0,
            throttle_reasons: 0,
            nvlinks: Vec::new(),
            units: FxHashMap::default(),
            samples_by: ProcessSamples::default(),
            gpm: None,
            mig: Vec::new(),
            mig_changed: false,
        }
    }

    /// Who it is. What it does not tell stays unknown.
    ///
    /// # Errors
    /// If it does not even tell its UUID.
    pub(super) fn identity(device: &Device<'_>, index: u32) -> Result<Identity, NvmlError> {
        let architecture = device.architecture().ok();
        Ok(Identity {
            index,
            uuid: device.uuid()?,
            name: device.name().ok(),
            pci_bus_id: device.pci_info().ok().map(|info| info.bus_id),
            vbios: device.vbios_version().ok(),
            architecture: architecture.map(|architecture| architecture.to_string()),
            minor: device.minor_number().ok(),
        })
    }

    /// Energy in millijoules since the driver was loaded.
    ///
    /// # Errors
    /// If the device is gone.
    pub(super) fn energy_millijoules(&mut self) -> Result<Option<u64>, Lost> {
        let device = &self.device;
        self.asker
            .ask("energy", || device.total_energy_consumption())
    }

    /// Whether energy is read at all.
    #[must_use]
    pub(super) fn has_energy(&self) -> bool {
        self.asker.asks_for("energy")
    }

    /// Processes with a compute context, clients of the multi-process service (MPS) among them.
    /// `None` without a list.
    ///
    /// # Errors
    /// If the device is gone.
    pub(super) fn processes(&mut self) -> Result<Option<Vec<Listed>>, Lost> {
        let (device, asker) = (&self.device, &mut self.asker);
        let list = asker.ask("processes", || match device.running_compute_processes() {
            Err(NvmlError::FailedToLoadSymbol(_)) => device.running_compute_processes_v2(),
            list => list,
        })?;
        let Some(list) = list else { return Ok(None) };
        let clients = asker.ask("mps_processes", || device.mps_running_compute_processes())?;
        let mut listed: Vec<_> = list.into_iter().map(Listed::from).collect();
        for client in clients.into_iter().flatten().map(Listed::from) {
            let is_same = |other: &Listed| {
                (other.pid, other.gpu_instance) == (client.pid, client.gpu_instance)
            };
            if !listed.iter().any(is_same) {
                listed.push(client);
            }
        }
        Ok(Some(listed))
    }

    /// The driver's samples of processes that are newer than `after`. `None` without an answer.
    ///
    /// # Errors
    /// If the device is gone.
    pub(super) fn process_samples(
        &mut self,
        after: u64,
    ) -> Result<Option<Vec<ProcessSample>>, Lost> {
        const FAMILY: &str = "process_utilization";
        if !self.asker.asks_for(FAMILY) {
            return Ok(None);
        }
        let mut samples = sys::process_samples(&self.device, self.samples_by, after);
        let refused = |samples: &Result<_, NvmlError>| {
            let error = samples.as_ref().err();
            error.is_some_and(|error| meaning(error) == Meaning::Unsupported)
        };
        if refused(&samples) && self.samples_by == ProcessSamples::Plain {
            let info = sys::process_samples(&self.device, ProcessSamples::Info, after);
            if !refused(&info) {
                self.samples_by = ProcessSamples::Info;
                samples = info;
            }
        }
        self.asker.take(FAMILY, samples)
    }

    /// Whether samples of processes are read at all.
    #[must_use]
    pub(super) fn samples_processes(&self) -> bool {
        self.asker.asks_for("process_utilization")
    }

    /// Whether the chip samples itself.
    #[must_use]
    pub(super) fn samples_activity(&self) -> bool {
        self.asker.asks_for(activity::FAMILY)
    }

    /// Whether it is cut into MIG devices.
    #[must_use]
    pub(super) fn has_mig(&self) -> bool {
        !self.mig.is_empty()
    }

    /// Ends a sample; gives how many questions were answered.
    pub(super) fn end_pass(&mut self) -> u32 {
        self.asker.end_pass()
    }
}

fn memory(device: &Device<'_>, asker: &mut Asker) -> Result<Option<Memory>, Lost> {
    asker.ask("memory", || match device.memory_info() {
        Ok(info) => Ok(Memory {
            total: info.total,
            used: info.used,
            free: info.free,
            reserved: Some(info.reserved),
        }),
        Err(NvmlError::FailedToLoadSymbol(_) | NvmlError::FunctionNotFound) => {
            let (total, used, free) = sys::memory_before_510(device)?;
            Ok(Memory {
                total,
                used,
                free,
                reserved: None,
            })
        }
        Err(error) => Err(error),
    })
}
