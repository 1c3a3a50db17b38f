//! Kubernetes, by the folders that the kubelet makes for pods and for their logs.

use crate::identity::container::{Details, Error, details::readable, host::Host};
use std::path::Path;

/// How long `etc-hosts` and `namespace` may be, in bytes.
const LONGEST_TEXT: usize = 64 << 10;

/// The first line of a hosts file that is the pod's own, and no copy of the node's (the kubelet's
/// `pkg/kubelet/kubelet_pods.go`).
const OWN_HOSTS: &str = "# Kubernetes-managed hosts file.";

/// A host name of this length, in bytes, may be the start of a pod's name.
const CUT: usize = 63;

/// Reads what names of folders and files tell. The most exact comes first.
pub(super) fn read(
    host: &Host,
    logs: &Path,
    kubelet_root: &Path,
    id: &str,
    uid: &str,
) -> Result<Option<Details>, Error> {
    let links = host.names(&logs.join("containers"))?;
    let linked = links.as_ref().and_then(|links| of_links(links, id));
    if linked.is_some() {
        return Ok(linked);
    }
    let log_folder = log_folder(host, logs, uid)?;
    let pod_folder = kubelet_root.join("pods").join(uid);
    let containers = host.names(&pod_folder.join("containers"))?;
    if log_folder.is_none() && containers.is_none() {
        return Ok(None);
    }
    let mut details = Details::default();
    let mut logged = None;
    if let Some(name) = &log_folder {
        details.fill(of_log_folder(name).unwrap_or_default());
        logged = host.names(&logs.join("pods").join(name))?;
    }
    // Where containers have links, one without is the sandbox, or runs within a container.
    if links.is_none_or(|links| links.is_empty()) {
        details.kubernetes_container = containers.and_then(only).or_else(|| logged.and_then(only));
    }
    if details.pod.is_none() {
        let hosts = host.read(&pod_folder.join("etc-hosts"), LONGEST_TEXT)?;
        details.pod = hosts.and_then(|hosts| of_hosts(str::from_utf8(&hosts).ok()?));
    }
    if details.namespace.is_none() {
        details.namespace = namespace(host, &pod_folder.join("volumes"))?;
    }
    Ok(Some(details))
}

/// By `/var/log/containers/POD_NAMESPACE_CONTAINER-ID.log`: the names of Kubernetes have no
/// underscores. If the link's name would be longer than 255 bytes, its id is cut.
fn of_links(links: &[String], id: &str) -> Option<Details> {
    let named = |link: &String| {
        let name = link.strip_suffix(".log")?.strip_suffix(id)?;
        let mut parts = name.strip_suffix('-')?.splitn(3, '_').map(str::to_owned);
        Some(Details {
            pod: readable(parts.next()),
            namespace: readable(parts.next()),
            kubernetes_container: Some(readable(parts.next())?),
            ..Details::default()
        })
    };
    links.iter().find_map(named)
}

/// The name of `/var/log/pods/NAMESPACE_POD_UID`.
fn log_folder(host: &Host, logs: &Path, uid: &str) -> Result<Option<String>, Error> {
    let names = host.names(&logs.join("pods"))?.unwrap_or_default();
    let of_pod = |name: &String| {
        name.strip_suffix(uid)
            .is_some_and(|name| name.ends_with('_'))
    };
    Ok(names.into_iter().find(of_pod))
}

fn of_log_folder(name: &str) -> Option<Details> {
    let mut parts = name.splitn(3, '_').map(str::to_owned);
    let (namespace, pod) = (parts.next()?, parts.next()?);
    parts.next()?;
    Some(Details {
        pod: readable(Some(pod)),
        namespace: readable(Some(namespace)),
        ..Details::default()
    })
}

/// The container of a pod that has but one. The pod's sandbox, which does nothing, passes for it
/// where nothing else tells them apart.
fn only(containers: Vec<String>) -> Option<String> {
    let mut containers = containers.into_iter();
    let first = containers.next();
    readable(first.filter(|_| containers.next().is_none()))
}

/// The host name of a pod, which is the pod's own name unless its specification has another. A pod
/// in the network of the node has none.
fn of_hosts(hosts: &str) -> Option<String> {
    let mut lines = hosts.lines();
    lines.next().filter(|first| *first == OWN_HOSTS)?;
    // `IP NAME` or `IP FULL.NAME NAME`, behind the lines of the host itself, before aliases.
    let own = lines.take_while(|line| !line.starts_with("# Entries added by HostAliases"));
    let own = own.filter(|line| is_own(line));
    let name = own.last()?.split_ascii_whitespace().skip(1).last()?;
    (name.len() < CUT).then(|| readable(Some(name.to_owned())))?
}

/// If the line is not one of those that every hosts file has.
fn is_own(line: &str) -> bool {
    let usual = ["127.", "::1", "fe00::", "ff00::", "ff02::", "#"];
    !line.is_empty() && !usual.iter().any(|start| line.starts_with(start))
}

/// The namespace, as pods find it beside the token of their service account.
fn namespace(host: &Host, volumes: &Path) -> Result<Option<String>, Error> {
    // Since Kubernetes 1.21, and before. Other volumes may have a file of that name, too.
    let kinds = [
        ("kubernetes.io~projected", "kube-api-access-"),
        ("kubernetes.io~secret", "-token-"),
    ];
    for (kind, token) in kinds {
        let folder = volumes.join(kind);
        let volumes = host.names(&folder)?.unwrap_or_default();
        for volume in volumes.iter().filter(|volume| volume.contains(token)) {
            let path = folder.join(volume).join("namespace");
            let text = host.read(&path, LONGEST_TEXT)?;
            let text = text.and_then(|text| String::from_utf8(text).ok());
            if let Some(name) = readable(text.map(|text| text.trim_end().to_owned())) {
                return Ok(Some(name));
            }
        }
    }
    Ok(None)
}
