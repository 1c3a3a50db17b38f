//! What a container is called.

use std::collections::HashMap;

/// Names longer than this, in bytes, are none: they go to labels.
const LONGEST: usize = 1024;

/// What is known of a container by name. What nobody told is absent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Details {
    /// Its name as its runtime has it, such as `web-1`; by CRI, where only Kubernetes gives names,
    /// the same as `kubernetes_container`.
    pub name: Option<String>,
    /// The image as whoever started it wrote it, such as `nginx:1.27`.
    pub image: Option<String>,
    /// The name of its pod.
    pub pod: Option<String>,
    /// The namespace of its pod.
    pub namespace: Option<String>,
    /// Its name in the specification of its pod; a pod's sandbox has none.
    pub kubernetes_container: Option<String>,
}

impl Details {
    /// Takes from `other` what is unknown here.
    pub(super) fn fill(&mut self, other: Self) {
        let pairs = [
            (&mut self.name, other.name),
            (&mut self.image, other.image),
            (&mut self.pod, other.pod),
            (&mut self.namespace, other.namespace),
            (&mut self.kubernetes_container, other.kubernetes_container),
        ];
        for (mine, other) in pairs {
            if mine.is_none() {
                *mine = other;
            }
        }
    }

    /// If nothing is left to ask for.
    pub(super) fn is_complete(&self, in_pod: bool) -> bool {
        let pod = || {
            let of_pod = [&self.pod, &self.namespace, &self.kubernetes_container];
            of_pod.into_iter().all(Option::is_some)
        };
        self.name.is_some() && self.image.is_some() && (!in_pod || pod())
    }

    /// What Kubernetes and its runtimes note beside a container: the labels that the kubelet has
    /// Docker and CRI-O keep (its `pkg/kubelet/types/labels.go`), and the annotations of containerd
    /// (`pkg/cri/annotations`), CRI-O (`pkg/annotations/internal`) and nerdctl (`pkg/labels`).
    pub(super) fn of_notes(mut notes: HashMap<String, String>) -> Self {
        let mut first = |keys: &[&str]| {
            let mut known = keys.iter().filter_map(|key| readable(notes.remove(*key)));
            known.next()
        };
        let container = first(&[
            "io.kubernetes.cri.container-name",
            "io.kubernetes.container.name",
        ]);
        Self {
            name: first(&["nerdctl/name"]),
            image: first(&[
                "io.kubernetes.cri.image-name",
                "io.kubernetes.cri-o.ImageName",
            ]),
            pod: first(&["io.kubernetes.cri.sandbox-name", "io.kubernetes.pod.name"]),
            namespace: first(&[
                "io.kubernetes.cri.sandbox-namespace",
                "io.kubernetes.pod.namespace",
            ]),
            // What Docker and CRI-O call the sandbox of a pod.
            kubernetes_container: container.filter(|name| name != "POD"),
        }
    }
}

/// The name, if it is one: neither empty, nor overlong, nor with what would garble a terminal.
pub(super) fn readable(name: Option<String>) -> Option<String> {
    name.filter(|name| {
        !name.is_empty() && name.len() <= LONGEST && !name.contains(char::is_control)
    })
}
