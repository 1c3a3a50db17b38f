//! containerd, by the bundles that it makes for runc.
//!
//! Its socket is not asked. It speaks gRPC, which takes an implementation of HTTP/2 and of its
//! messages, and what that would add to the files is the image of containers that ctr and nerdctl
//! started: Kubernetes has pod, namespace, container and image noted in the bundle.

use super::LONGEST_FILE;
use crate::identity::container::{Details, Error, host::Host};
use serde::Deserialize;
use std::{collections::HashMap, path::PathBuf};

/// Folders of its runtimes: since containerd 1.2, and before.
const RUNTIMES: [&str; 2] = [
    "io.containerd.runtime.v2.task",
    "io.containerd.runtime.v1.linux",
];

/// An OCI runtime specification, of which only the annotations matter.
#[derive(Deserialize)]
pub(super) struct Spec {
    annotations: Option<HashMap<String, String>>,
}

impl Spec {
    pub(super) fn details(self) -> Details {
        Details::of_notes(self.annotations.unwrap_or_default())
    }
}

/// Reads `STATE/RUNTIME/NAMESPACE/ID/config.json`, whatever the namespace: `k8s.io`, `default`,
/// `moby`, or any other.
pub(super) fn read(host: &Host, states: &[PathBuf], id: &str) -> Result<Option<Details>, Error> {
    let folders = states.iter();
    for folder in folders.flat_map(|state| RUNTIMES.map(|runtime| state.join(runtime))) {
        for namespace in host.names(&folder)?.unwrap_or_default() {
            let path = folder.join(namespace).join(id).join("config.json");
            if let Some(spec) = host.json::<Spec>(&path, LONGEST_FILE)? {
                return Ok(Some(named(spec.details(), id)));
            }
        }
    }
    Ok(None)
}

/// What ctr(8) starts has its name for an id.
fn named(mut details: Details, id: &str) -> Details {
    let is_digest = id.len() == 64 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    if details.name.is_none() && !is_digest {
        details.name = Some(id.to_owned());
    }
    details
}
