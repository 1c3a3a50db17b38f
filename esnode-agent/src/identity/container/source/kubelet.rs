//! The kubelet, by its list of pods.

use super::{Patience, gate::Gate};
use crate::{
    http_client::{Peer, get},
    identity::container::{Details, Error, KubeletUrl, details::readable},
};
use serde::Deserialize;
use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

/// How long the list may be, in bytes: a node has some hundred pods of some ten thousand each.
const LONGEST_LIST: usize = 32 << 20;

/// What the kubelet has as a static pod's uid where its own uid is the API server's.
const STATIC_UID: &str = "kubernetes.io/config.hash";

/// A kubelet that answers without TLS, and what it last said.
#[derive(Debug)]
pub(super) struct Kubelet {
    url: KubeletUrl,
    patience: Duration,
    gate: Gate,
    keep: Duration,
    read_at: Option<Instant>,
    pods: Pods,
}

/// What a list of pods tells.
#[derive(Debug, Default)]
struct Pods {
    by_container: HashMap<String, Details>,
    by_uid: HashMap<String, Details>,
}

impl Kubelet {
    pub(super) fn new(url: KubeletUrl, patience: Patience) -> Self {
        Self {
            url,
            patience: patience.answer,
            gate: Gate::new(patience.back_off),
            keep: patience.pods,
            read_at: None,
            pods: Pods::default(),
        }
    }

    /// Looks a container up, and asks anew if the list lacks it and is not fresh. Of a container
    /// that is not listed, a pod's sandbox or what runs within one, the pod is told.
    pub(super) async fn ask(
        &mut self,
        id: &str,
        uid: Option<&str>,
    ) -> Result<Option<Details>, Error> {
        let now = Instant::now();
        let fresh = self.read_at.is_some_and(|read| now - read < self.keep);
        if !fresh && !self.pods.by_container.contains_key(id) {
            if !self.gate.is_open(now) {
                return Ok(None);
            }
            self.refresh().await?;
        }
        let of_pod = || uid.and_then(|uid| self.pods.by_uid.get(uid));
        let known = self.pods.by_container.get(id).or_else(of_pod);
        Ok(Some(known.cloned().unwrap_or_default()))
    }

    async fn refresh(&mut self) -> Result<(), Error> {
        let peer = Peer::Tcp(self.url.address.clone());
        let body = get(&peer, "/pods", self.patience, LONGEST_LIST).await;
        let list = body
            .map_err(|source| Error::Ask {
                daemon: self.url.to_string(),
                source,
            })
            .and_then(|body| {
                serde_json::from_slice(&body).map_err(|source| Error::Json {
                    place: format!("{}/pods", self.url),
                    source,
                })
            });
        match list {
            Ok(list) => {
                self.gate.worked();
                self.read_at = Some(Instant::now());
                self.pods = Pods::of(list);
                Ok(())
            }
            Err(error) => {
                self.gate.failed(Instant::now());
                Err(error)
            }
        }
    }
}

impl Pods {
    fn of(list: List) -> Self {
        let mut pods = Self::default();
        for pod in list.items.unwrap_or_default() {
            let metadata = pod.metadata;
            let of_pod = Details {
                pod: readable(metadata.name),
                namespace: readable(metadata.namespace),
                ..Details::default()
            };
            let status = pod.status.unwrap_or_default();
            let kinds = [status.containers, status.init, status.ephemeral];
            for container in kinds.into_iter().flatten().flatten() {
                // `containerd://ID`; empty before the start.
                let id = container.id.unwrap_or_default();
                let Some((_, id)) = id.split_once("://") else {
                    continue;
                };
                let mut details = of_pod.clone();
                details.kubernetes_container = readable(container.name);
                // Of an image with several names, runtimes report the digest.
                let image = container
                    .image
                    .filter(|image| !image.starts_with("sha256:"));
                details.image = readable(image);
                pods.by_container.insert(id.to_owned(), details);
            }
            let hash = metadata.annotations.unwrap_or_default().remove(STATIC_UID);
            for uid in metadata.uid.into_iter().chain(hash) {
                pods.by_uid.insert(uid, of_pod.clone());
            }
        }
        pods
    }
}

/// `v1.PodList`. Go writes empty lists as null.
#[derive(Deserialize)]
struct List {
    items: Option<Vec<Pod>>,
}

#[derive(Deserialize)]
struct Pod {
    metadata: Metadata,
    status: Option<Status>,
}

#[derive(Deserialize)]
struct Metadata {
    name: Option<String>,
    namespace: Option<String>,
    uid: Option<String>,
    annotations: Option<HashMap<String, String>>,
}

#[derive(Default, Deserialize)]
struct Status {
    #[serde(rename = "containerStatuses")]
    containers: Option<Vec<Container>>,
    #[serde(rename = "initContainerStatuses")]
    init: Option<Vec<Container>>,
    #[serde(rename = "ephemeralContainerStatuses")]
    ephemeral: Option<Vec<Container>>,
}

#[derive(Deserialize)]
struct Container {
    name: Option<String>,
    image: Option<String>,
    #[serde(rename = "containerID")]
    id: Option<String>,
}
