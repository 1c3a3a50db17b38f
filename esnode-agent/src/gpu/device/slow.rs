//! What is read now and then.

use super::{CounterName, CounterReadings, GpuDevice, fast::THROTTLE_REASONS};
use crate::gpu::{
    ask::Lost,
    counter::{Reading, Width},
    facts::{Limits, Slow},
    sys::{self, Field},
};
use nvml_wrapper::{
    enum_wrappers::{
        device::{Clock, EccCounter, MemoryError},
        nv_link::ErrorCounter,
    },
    error::NvmlError,
    sys_exports::field_id::{
        NVML_FI_DEV_REMAPPED_COR, NVML_FI_DEV_REMAPPED_FAILURE, NVML_FI_DEV_REMAPPED_PENDING,
        NVML_FI_DEV_REMAPPED_UNC, NVML_FI_DEV_RETIRED_DBE, NVML_FI_DEV_RETIRED_SBE,
    },
};

/// NVLinks that a device can have (`NVML_NVLINK_MAX_LINKS`).
const MAX_NVLINKS: u32 = 18;

/// Clocks: how they are asked for, and their names on the page.
const CLOCKS: [(Clock, &str, &str); 4] = [
    (Clock::SM, "clock_max_sm", "sm"),
    (Clock::Memory, "clock_max_memory", "memory"),
    (Clock::Graphics, "clock_max_graphics", "graphics"),
    (Clock::Video, "clock_max_video", "video"),
];

/// Memory errors: how they are asked for, and kind and scope on the page.
const ECC: [(MemoryError, EccCounter, &str, &str, &str); 4] = {
    use {EccCounter as C, MemoryError as E};
    [
        (
            E::Corrected,
            C::Volatile,
            "ecc_corrected_volatile",
            "corrected",
            "volatile",
        ),
        (
            E::Corrected,
            C::Aggregate,
            "ecc_corrected_aggregate",
            "corrected",
            "aggregate",
        ),
        (
            E::Uncorrected,
            C::Volatile,
            "ecc_uncorrected_volatile",
            "uncorrected",
            "volatile",
        ),
        (
            E::Uncorrected,
            C::Aggregate,
            "ecc_uncorrected_aggregate",
            "uncorrected",
            "aggregate",
        ),
    ]
};

/// Errors of NVLinks: how they are asked for, and their kind on the page.
const NVLINK_ERRORS: [(ErrorCounter, &str, &str); 3] = [
    (ErrorCounter::DlReplay, "nvlink_errors_replay", "replay"),
    (
        ErrorCounter::DlRecovery,
        "nvlink_errors_recovery",
        "recovery",
    ),
    (ErrorCounter::DlCrcFlit, "nvlink_errors_crc", "crc"),
];

impl GpuDevice<'_> {
    /// What changes seldom. Also finds out what there is to be asked for in every interval.
    ///
    /// # Errors
    /// If the device is gone.
    pub(in crate::gpu) fn slow(&mut self) -> Result<(Slow, CounterReadings), Lost> {
        let (device, asker) = (&self.device, &mut self.asker);
        self.fans = asker.ask("fans", || device.num_fans())?.unwrap_or(0);
        let known = asker.ask("throttle_reasons_known", || {
            sys::known_throttle_reasons(device)
        })?;
        let all = THROTTLE_REASONS.iter().fold(0, |bits, (bit, _)| bits | bit);
        self.throttle_reasons = known.unwrap_or(all);
        let mut counters: CounterReadings = Vec::new();
        if let Some(replays) = asker.ask("pcie_replays", || device.pcie_replay_counter())? {
            counters.push((CounterName::PcieReplays, narrow(replays)));
        }
        for (error, counter, family, kind, scope) in ECC {
            let total = || device.total_ecc_errors(error, counter);
            if let Some(errors) = asker.ask(family, total)? {
                counters.push((CounterName::Ecc(kind, scope), Reading::wide(errors)));
            }
        }
        let mut clocks_max = Vec::new();
        for (clock, family, name) in CLOCKS {
            if let Some(mhz) = asker.ask(family, || device.max_clock_info(clock))? {
                clocks_max.push((name, mhz));
            }
        }
        let bar1 = asker.ask("bar1_memory", || device.bar1_memory_info())?;
        let slow = Slow {
            power_limit_milliwatts: asker.ask("power_limit", || device.enforced_power_limit())?,
            clocks_max_mhz: clocks_max,
            bar1: bar1.map(|bar1| (bar1.total, bar1.used)),
            pcie_generation: Limits {
                current: asker.ask("pcie_link_generation", || device.current_pcie_link_gen())?,
                max: asker.ask("pcie_link_generation_max", || device.max_pcie_link_gen())?,
            },
            pcie_width: Limits {
                current: asker.ask("pcie_link_width", || device.current_pcie_link_width())?,
                max: asker.ask("pcie_link_width_max", || device.max_pcie_link_width())?,
            },
            nvlinks_up: self.nvlinks(&mut counters)?,
            ..self.retired()?
        };
        self.find_mig()?;
        Ok((slow, counters))
    }

    /// State and errors of the links, as far as there are any.
    fn nvlinks(&mut self, counters: &mut CounterReadings) -> Result<Vec<(u32, bool)>, Lost> {
        let (device, asker) = (&self.device, &mut self.asker);
        let mut links = Vec::new();
        for number in 0..MAX_NVLINKS {
            let link = device.link_wrapper_for(number);
            let up = match link.is_active() {
                // The last one was the one before.
                Err(NvmlError::InvalidArg) => break,
                Err(NvmlError::NotSupported) if number > 0 => break,
                answer => asker.take("nvlink_up", answer)?,
            };
            let Some(up) = up else { break };
            links.push((number, up));
            if !up {
                continue;
            }
            for (counter, family, kind) in NVLINK_ERRORS {
                let errors = || link.error_counter(counter);
                if let Some(errors) = asker.ask(family, errors)? {
                    let name = CounterName::NvlinkErrors(number, kind);
                    counters.push((name, Reading::wide(errors)));
                }
            }
        }
        self.nvlinks = links
            .iter()
            .filter(|(_, up)| *up)
            .map(|(link, _)| *link)
            .collect();
        Ok(links)
    }

    /// Memory that was taken out of use.
    fn retired(&mut self) -> Result<Slow, Lost> {
        const FIELDS: [u32; 6] = [
            NVML_FI_DEV_RETIRED_SBE,
            NVML_FI_DEV_RETIRED_DBE,
            NVML_FI_DEV_REMAPPED_COR,
            NVML_FI_DEV_REMAPPED_UNC,
            NVML_FI_DEV_REMAPPED_PENDING,
            NVML_FI_DEV_REMAPPED_FAILURE,
        ];
        let fields = FIELDS.map(|id| Field { id, scope: 0 });
        let device = &self.device;
        let values = self
            .asker
            .ask("fields", || sys::field_values(device, &fields))?;
        let values = values.unwrap_or_default();
        let value = |field: u32| {
            let mut known = FIELDS.iter().zip(&values);
            let (_, value) = known.find(|(id, _)| **id == field)?;
            value.as_ref().ok().map(|reading| reading.value)
        };
        let causes = |causes: [(&'static str, u32); 2]| {
            let known = |(cause, field)| Some((cause, value(field)?));
            causes.into_iter().filter_map(known).collect()
        };
        Ok(Slow {
            retired_pages: causes([
                ("single_bit_ecc", NVML_FI_DEV_RETIRED_SBE),
                ("double_bit_ecc", NVML_FI_DEV_RETIRED_DBE),
            ]),
            remapped_rows: causes([
                ("corrected", NVML_FI_DEV_REMAPPED_COR),
                ("uncorrected", NVML_FI_DEV_REMAPPED_UNC),
            ]),
            row_remap_pending: value(NVML_FI_DEV_REMAPPED_PENDING).map(|value| value != 0),
            row_remap_failed: value(NVML_FI_DEV_REMAPPED_FAILURE).map(|value| value != 0),
            ..Slow::default()
        })
    }
}

fn narrow(value: u32) -> Reading {
    Reading {
        value: value.into(),
        width: Width::Bits32,
        unit: 1,
    }
}
