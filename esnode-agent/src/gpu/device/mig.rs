//! The parts that MIG cuts a device into.

use super::{GpuDevice, Listed, activity, memory};
use crate::gpu::{
    ask::{Asker, Lost},
    facts::{Identity, MigDevice},
    sys,
};
use nvml_wrapper::{Device, GpmSample, error::NvmlError};

/// A MIG device, with what is kept of it.
pub(super) struct Mig<'nvml> {
    facts: MigDevice,
    device: Device<'nvml>,
    /// Its own: what one instance lacks, others may have.
    asker: Asker,
    gpm: Option<GpmSample<'nvml>>,
}

impl GpuDevice<'_> {
    /// Finds the MIG devices that there are now; one that stays keeps its last sample.
    pub(super) fn find_mig(&mut self) -> Result<(), Lost> {
        let (device, asker) = (&self.device, &mut self.asker);
        let mut kept = std::mem::take(&mut self.mig);
        let on = asker.ask("mig", || device.mig_mode())?;
        if on.is_none_or(|mode| mode.current == 0) {
            return Ok(());
        }
        let slots = asker.ask("mig", || device.mig_device_count())?.unwrap_or(0);
        for slot in 0..slots {
            let found = match device.mig_device_by_index(slot) {
                Err(NvmlError::NotFound | NvmlError::InvalidArg) => continue,
                found => asker.take("mig", found)?,
            };
            let Some(found) = found else { continue };
            let Some(facts) = asker.ask("mig", || mig_identity(&found))? else {
                continue;
            };
            let Identity { index, uuid, .. } = &*self.identity;
            if !self.filter.takes_mig(*index, uuid, slot, &facts.uuid) {
                continue;
            }
            let before = kept.iter().position(|mig| mig.facts.uuid == facts.uuid);
            self.mig.push(match before {
                Some(place) => kept.swap_remove(place),
                None => Mig {
                    asker: asker.of_part(&facts.uuid),
                    facts,
                    device: found,
                    gpm: None,
                },
            });
        }
        Ok(())
    }

    /// What MIG devices there are, and how full they are.
    ///
    /// # Errors
    /// If the device is gone.
    pub(in crate::gpu) fn mig(
        &mut self,
        processes: Option<&[Listed]>,
    ) -> Result<Vec<MigDevice>, Lost> {
        if std::mem::take(&mut self.mig_changed) {
            self.find_mig()?;
        }
        let mut facts = Vec::with_capacity(self.mig.len());
        for mig in &mut self.mig {
            let asker = &mut mig.asker;
            let instance = mig.facts.gpu_instance;
            let take = || self.device.gpm_mig_sample(instance);
            let activity = activity::since(&self.device, asker, &mut mig.gpm, take)?;
            let count = processes.map(|processes| {
                let here = |process: &&Listed| process.gpu_instance == Some(instance);
                processes.iter().filter(here).count() as u64
            });
            let memory = memory(&mig.device, asker)?;
            // One that ceases to answer may be gone.
            self.mig_changed |= asker.has_lost_some();
            asker.end_pass();
            facts.push(MigDevice {
                memory,
                processes: count,
                activity,
                ..mig.facts.clone()
            });
        }
        Ok(facts)
    }
}

/// Index and UUID of the MIG devices of a GPU; none where MIG is off.
#[must_use]
pub(in crate::gpu) fn mig_uuids(device: &Device<'_>) -> Vec<(u32, String)> {
    let slots = device.mig_device_count().unwrap_or(0);
    let uuid = |slot| device.mig_device_by_index(slot)?.uuid();
    // Slots may be empty.
    (0..slots)
        .filter_map(|slot| Some((slot, uuid(slot).ok()?)))
        .collect()
}

fn mig_identity(device: &Device<'_>) -> Result<MigDevice, NvmlError> {
    let name = device.name()?;
    // Such as `NVIDIA H100 80GB HBM3 MIG 1g.10gb`.
    let profile = name
        .rsplit_once("MIG ")
        .map_or(name.as_str(), |(_, profile)| profile);
    let (gpu_instance, compute_instance) = sys::mig_instances(device)?;
    Ok(MigDevice {
        gpu_instance,
        compute_instance,
        uuid: device.uuid()?,
        profile: profile.to_owned(),
        ..MigDevice::default()
    })
}
