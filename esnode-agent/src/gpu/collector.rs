//! The GPU collector: what was sampled last. It asks no driver.

use super::{
    board::Standing,
    facts::{DeviceFacts, GpuFacts, Identity},
    gpus::Gpus,
};
use crate::collectors::CollectError;
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};
use tracing::{info, warn};

/// How long a device has to be sampled before it counts as well again.
const WELL: Duration = Duration::from_secs(10);

/// The facts of a pass, for the collectors that come after this one: all of a page is from one
/// snapshot.
#[derive(Clone, Debug, Default)]
pub struct Shared(Arc<Mutex<Arc<GpuFacts>>>);

impl Shared {
    /// Those of the last pass.
    #[must_use]
    pub fn get(&self) -> Arc<GpuFacts> {
        Arc::clone(&self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn set(&self, facts: Arc<GpuFacts>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = facts;
    }
}

/// What the page says of GPUs.
#[derive(Clone, Debug)]
pub struct GpuSample {
    /// Facts.
    pub facts: Arc<GpuFacts>,
    /// Host name, if the page is to have the names of dcgm-exporter as well.
    pub dcgm_hostname: Option<Arc<str>>,
}

/// Gives out what the threads of [`Gpus`] sampled.
#[derive(Debug)]
pub struct GpuCollector {
    gpus: Gpus,
    shared: Shared,
    dcgm_hostname: Option<Arc<str>>,
    /// UUIDs of those that the log knows to hang, and since when they do not any more.
    hanging: HashMap<String, Option<Instant>>,
}

impl GpuCollector {
    /// Of these GPUs. With `dcgm_hostname`, families have their names of dcgm-exporter as well.
    #[must_use]
    pub fn new(gpus: Gpus, dcgm_hostname: Option<String>) -> Self {
        Self {
            gpus,
            shared: Shared::default(),
            dcgm_hostname: dcgm_hostname.map(Arc::from),
            hanging: HashMap::new(),
        }
    }

    /// Where others find the facts of each pass.
    #[must_use]
    pub fn shared(&self) -> Shared {
        self.shared.clone()
    }

    /// Why the driver can't be asked at the moment.
    #[must_use]
    pub fn complaint(&self) -> Option<String> {
        match self.gpus.board().standing() {
            Standing::Down(reason) => Some(reason),
            Standing::Opening => Some("NVML has not answered yet".to_owned()),
            Standing::Off(_) | Standing::Up => None,
        }
    }

    /// What is known now.
    ///
    /// # Errors
    /// [`CollectError::Off`] if there is no library.
    pub fn sample(&mut self) -> Result<GpuSample, CollectError> {
        if let Standing::Off(reason) = self.gpus.board().standing() {
            return Err(CollectError::Off(reason));
        }
        let facts = Arc::new(self.gpus.board().facts(Instant::now()));
        self.shared.set(Arc::clone(&facts));
        facts
            .devices
            .iter()
            .for_each(|device| self.log_change(device));
        Ok(GpuSample {
            facts,
            dcgm_hostname: self.dcgm_hostname.clone(),
        })
    }

    /// Tells when a device begins or ceases to hang; of one that does so again and again, once.
    fn log_change(&mut self, device: &DeviceFacts) {
        let Identity { index, uuid, .. } = &*device.identity;
        if device.hangs {
            let before = self.hanging.insert(uuid.clone(), None);
            if before.is_none() {
                let age = device.age.unwrap_or_default().as_secs_f64();
                warn!("GPU {index} hangs: no sample for {age:.1} s");
            }
        } else if let Some(well) = self.hanging.get_mut(uuid) {
            let well = *well.get_or_insert_with(Instant::now);
            if well.elapsed() >= WELL {
                self.hanging.remove(uuid);
                info!("GPU {index} does not hang any more");
            }
        }
    }
}
