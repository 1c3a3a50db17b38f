//! What the agents ask of a cluster, against what they need and must not have.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use anyhow::{Context as _, Result, ensure};
use serde_norway::Value;

use super::{BUILT, objects};
use crate::Case;
use crate::check::ensure_eq;
use crate::compose::opik::repository;

pub(super) fn cases() -> Vec<Case> {
    vec![
        Case::new("compose::kubernetes::asks_for_no_more", no_more),
        Case::new("compose::kubernetes::selectors_select", selectors),
        Case::new("compose::kubernetes::parts_of_overlays", parts),
    ]
}

/// A value below others, by their keys and indices.
fn at<'a>(value: &'a Value, path: &str) -> Result<&'a Value> {
    let mut place = value;
    for step in path.split('/') {
        let next = match step.parse::<usize>() {
            Ok(index) => place.get(index),
            Err(_) => place.get(step),
        };
        place = next.with_context(|| format!("{path}: there is no {step}"))?;
    }
    Ok(place)
}

fn text<'a>(value: &'a Value, path: &str) -> Result<&'a str> {
    at(value, path)?.as_str().with_context(|| path.to_owned())
}

fn list(value: &Value, path: &str) -> Result<BTreeSet<String>> {
    Ok(serde_norway::from_value(at(value, path)?.clone())?)
}

fn map(value: &Value, path: &str) -> Result<BTreeMap<String, String>> {
    Ok(serde_norway::from_value(at(value, path)?.clone())?)
}

fn of_kind<'a>(objects: &'a [Value], kind: &str) -> Vec<&'a Value> {
    let is = |object: &&Value| object.get("kind").and_then(Value::as_str) == Some(kind);
    objects.iter().filter(is).collect()
}

/// Everywhere: no rights in the cluster, nothing privileged, no filesystem of the host but its sysfs,
/// and that read-only; the capabilities are those of the compose file with the fewest.
fn no_more() -> Result<()> {
    let compose = repository()?.join("docker/compose.least-privilege.yaml");
    let compose: Value = serde_norway::from_str(&fs::read_to_string(compose)?)?;
    let named = list(&compose, "services/esnode-core/cap_add")?;
    for folder in BUILT {
        let objects = objects(folder)?;
        for object in &objects {
            let kind = text(object, "kind")?;
            let api = text(object, "apiVersion")?;
            ensure!(!api.starts_with("rbac"), "{folder} has a {kind}");
        }
        let sets = of_kind(&objects, "DaemonSet");
        ensure_eq!(
            sets.len(),
            1 + usize::from(folder.ends_with("mixed")),
            "{folder}"
        );
        for set in sets {
            let pod = at(set, "spec/template/spec")?;
            let is = |path: &str, expected: bool| -> Result<()> {
                ensure_eq!(at(pod, path)?.as_bool(), Some(expected), "{folder}: {path}");
                Ok(())
            };
            let administers = folder.ends_with("sys-admin");
            is("hostPID", true)?;
            is("automountServiceAccountToken", false)?;
            is("containers/0/securityContext/privileged", false)?;
            is("containers/0/securityContext/readOnlyRootFilesystem", true)?;
            is(
                "containers/0/securityContext/allowPrivilegeEscalation",
                administers,
            )?;
            ensure!(pod.get("hostNetwork").is_none(), "{folder}: hostNetwork");
            let capabilities = list(pod, "containers/0/securityContext/capabilities/add")?;
            let mut expected = named.clone();
            if administers {
                expected.retain(|name| name != "BPF" && name != "PERFMON");
                expected.insert("SYS_ADMIN".to_owned());
            }
            ensure_eq!(capabilities, expected, "{folder}: capabilities");
            let dropped = list(pod, "containers/0/securityContext/capabilities/drop")?;
            ensure_eq!(
                dropped,
                BTreeSet::from(["ALL".to_owned()]),
                "{folder}: dropped"
            );

            let volumes = at(pod, "volumes")?.as_sequence().context("volumes")?;
            ensure_eq!(volumes.len(), 1, "{folder}: volumes");
            ensure_eq!(
                text(pod, "volumes/0/hostPath/path")?,
                "/sys",
                "{folder}: path"
            );
            let mounts = at(pod, "containers/0/volumeMounts")?;
            ensure_eq!(
                mounts.as_sequence().map(Vec::len),
                Some(1),
                "{folder}: mounts"
            );
            is("containers/0/volumeMounts/0/readOnly", true)?;
            ensure_eq!(
                text(pod, "containers/0/volumeMounts/0/mountPath")?,
                environment(pod, "ESNODE_SYSFS")?,
                "{folder}: sysfs"
            );
            let image = text(pod, "containers/0/image")?;
            let (_, tag) = image.rsplit_once(':').context("a tag")?;
            ensure_eq!(tag, env!("CARGO_PKG_VERSION"), "{folder}: image");
            for probe in ["readinessProbe", "livenessProbe"] {
                let path = format!("containers/0/{probe}/httpGet");
                ensure_eq!(text(pod, &format!("{path}/path"))?, "/healthz", "{probe}");
                ensure_eq!(text(pod, &format!("{path}/port"))?, "metrics", "{probe}");
            }
            ensure_eq!(
                text(pod, "containers/0/ports/0/name")?,
                "metrics",
                "{folder}: port"
            );
        }
    }
    Ok(())
}

/// The value of a variable of a pod's only container.
fn environment<'a>(pod: &'a Value, name: &str) -> Result<&'a str> {
    let variables = at(pod, "containers/0/env")?.as_sequence().context("env")?;
    let is = |variable: &&Value| variable.get("name").and_then(Value::as_str) == Some(name);
    text(variables.iter().find(is).context(name.to_owned())?, "value")
}

/// Whatever selects pods selects those of the DaemonSets, and no two of these each other's.
fn selectors() -> Result<()> {
    for folder in BUILT {
        let objects = objects(folder)?;
        let sets = of_kind(&objects, "DaemonSet");
        let labels: Vec<_> = sets
            .iter()
            .map(|set| map(set, "spec/template/metadata/labels"))
            .collect::<Result<_>>()?;
        let selects = |selector: &BTreeMap<String, String>, labels: &BTreeMap<String, String>| {
            selector
                .iter()
                .all(|(name, value)| labels.get(name) == Some(value))
        };
        for (number, set) in sets.iter().enumerate() {
            let selector = map(set, "spec/selector/matchLabels")?;
            for (other, labels) in labels.iter().enumerate() {
                let name = text(set, "metadata/name")?;
                ensure_eq!(
                    selects(&selector, labels),
                    number == other,
                    "{folder}: {name}"
                );
            }
        }
        for service in of_kind(&objects, "Service") {
            let selector = map(service, "spec/selector")?;
            ensure!(
                labels.iter().all(|labels| selects(&selector, labels)),
                "{folder}"
            );
        }
        for monitor in of_kind(&objects, "PodMonitor") {
            let selector = map(monitor, "spec/selector/matchLabels")?;
            let labels = labels.first().context("labels")?;
            ensure!(selects(&selector, labels), "{folder}: {selector:?}");
            let job = text(monitor, "spec/jobLabel")?;
            ensure_eq!(
                labels.get(job).map(String::as_str),
                Some("esnode-core"),
                "job"
            );
            let namespace = text(monitor, "metadata/namespace")?;
            ensure_eq!(
                namespace,
                text(sets.first().context("a set")?, "metadata/namespace")?,
                "namespace"
            );
            let port = text(monitor, "spec/podMetricsEndpoints/0/port")?;
            ensure_eq!(port, "metrics", "port");
        }
    }
    Ok(())
}

/// What each overlay is there for is in it.
fn parts() -> Result<()> {
    let pods = |folder: &str| -> Result<Vec<Value>> {
        let objects = objects(folder)?;
        let sets = of_kind(&objects, "DaemonSet").into_iter();
        sets.map(|set| Ok(at(set, "spec/template/spec")?.clone()))
            .collect()
    };
    for folder in BUILT {
        let with_runtime = |pod: &&Value| pod.get("runtimeClassName").is_some();
        let count = pods(folder)?.iter().filter(with_runtime).count();
        let expected = usize::from(["overlays/nvidia", "overlays/mixed"].contains(&folder));
        ensure_eq!(count, expected, "{folder}: runtime classes");
    }
    // Where the runtime is, by one; where it isn't, by the other.
    let present = "nvidia.com/gpu.present";
    let mixed = pods("overlays/mixed")?;
    let (gpu, other): (Vec<_>, Vec<_>) = mixed
        .iter()
        .partition(|pod| pod.get("runtimeClassName").is_some());
    let (gpu, other) = (
        gpu.first().context("GPUs")?,
        other.first().context("others")?,
    );
    let node = map(gpu, "nodeSelector")?;
    ensure_eq!(
        node.get(present).map(String::as_str),
        Some("true"),
        "nodes with GPUs"
    );
    let rule = at(
        other,
        "affinity/nodeAffinity/requiredDuringSchedulingIgnoredDuringExecution/nodeSelectorTerms/0/matchExpressions/0",
    )?;
    ensure_eq!(text(rule, "key")?, present, "other nodes");
    ensure_eq!(text(rule, "operator")?, "NotIn", "other nodes");

    let kubelet = pods("overlays/kubelet")?;
    let kubelet = kubelet.first().context("a pod")?;
    let url = environment(kubelet, "ESNODE_KUBELET_URL")?;
    ensure_eq!(url, "http://$(NODE_IP):10255", "kubelet");
    // Kubernetes replaces what stands before in the list only.
    let names = at(kubelet, "containers/0/env")?
        .as_sequence()
        .context("env")?;
    let place = |name: &str| {
        names
            .iter()
            .position(|it| it.get("name").and_then(Value::as_str) == Some(name))
    };
    ensure!(
        place("NODE_IP") < place("ESNODE_KUBELET_URL"),
        "order of variables"
    );
    Ok(())
}
