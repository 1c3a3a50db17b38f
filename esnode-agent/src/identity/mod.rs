//! Who a process is: the inference engine that it works for, and the container that it runs in.
//!
//! `engine` tells engines by command lines, `container` containers by control groups; `census` reads
//! what they need of every process, once, and remembers it.

pub mod census;
pub mod container;
pub mod engine;
mod files;
mod reader;
mod users;

use container::{Cgroup, ContainerRef, Details};
use engine::Worker;
use std::sync::Arc;

/// Who a process is. What is not known is absent.
#[derive(Clone, Debug, Default)]
pub struct Identity {
    /// What it does for an inference engine.
    pub worker: Option<Arc<Worker>>,
    /// Its control group.
    pub cgroup: Option<Arc<Cgroup>>,
    /// The group that it is in by the rules of --group-config.
    pub rule: Option<Arc<str>>,
    /// Whether a rule of --select names it.
    pub wanted: bool,
    /// What its container is called, as far as that was found out.
    pub details: Option<Arc<Details>>,
    /// The name of its user, or else the number.
    pub user: Option<Arc<str>>,
}

impl Identity {
    /// The container that it runs in.
    #[must_use]
    pub fn container(&self) -> Option<&ContainerRef> {
        self.cgroup.as_deref()?.container.as_ref()
    }

    /// What the container is called: in a pod as Kubernetes does, else as its runtime does.
    #[must_use]
    pub fn container_name(&self) -> Option<&str> {
        let details = self.details.as_deref()?;
        let in_pod = details.kubernetes_container.as_deref();
        in_pod.or(details.name.as_deref())
    }

    /// The image that the container was made from; empty is unknown.
    #[must_use]
    pub fn image(&self) -> &str {
        let details = self.details.as_deref();
        let image = details.and_then(|details| details.image.as_deref());
        image.unwrap_or_default()
    }

    /// Engine, role and model; empty is none, or unknown.
    #[must_use]
    pub fn work(&self) -> [&str; 3] {
        let Some(worker) = self.worker.as_deref() else {
            return [""; 3];
        };
        let model = worker.model.as_deref().unwrap_or_default();
        [&worker.engine, &worker.role, model]
    }

    /// Which of several workers it is; empty is the only one, or unknown.
    #[must_use]
    pub fn rank(&self) -> &str {
        let worker = self.worker.as_deref();
        let rank = worker.and_then(|worker| worker.rank.as_deref());
        rank.unwrap_or_default()
    }

    /// Id and name of the container, name and namespace of the pod; empty is none, or unknown.
    #[must_use]
    pub fn place(&self) -> [&str; 4] {
        let id = self.container().map(|container| &*container.id);
        let details = self.details.as_deref();
        let pod = details.and_then(|details| details.pod.as_deref());
        let namespace = details.and_then(|details| details.namespace.as_deref());
        let name = self.container_name();
        [id, name, pod, namespace].map(Option::unwrap_or_default)
    }
}
