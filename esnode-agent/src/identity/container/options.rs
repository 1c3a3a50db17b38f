//! Where to look for what containers are called.

use std::{
    fmt, fs,
    path::{Path, PathBuf},
    str::FromStr,
};
use thiserror::Error;

/// The port on which a kubelet answers without TLS, where its `--read-only-port` is on.
const READ_ONLY_PORT: u16 = 10_255;

/// Where to look. Nothing of it has to exist.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// The root of the host, below which the files are: `/`, `/proc/1/root`, or where a container
    /// mounts the host's. Symbolic links are followed within it.
    pub host_root: PathBuf,
    /// The socket of Docker, as this process sees it; none to leave it alone.
    pub docker_socket: Option<PathBuf>,
    /// The socket of Podman, as this process sees it; none to leave it alone.
    pub podman_socket: Option<PathBuf>,
    /// What Docker has as `data-root`, on the host.
    pub docker_data: PathBuf,
    /// What containerds have as `state`, on the host.
    pub containerd_states: Vec<PathBuf>,
    /// What CRI-O and Podman have as `runroot` and `graphroot`, on the host.
    pub container_storages: Vec<PathBuf>,
    /// What the kubelet has as `--root-dir`, on the host.
    pub kubelet_root: PathBuf,
    /// The folder of `pods` and `containers`, where the kubelet has logs written, on the host.
    pub logs: PathBuf,
    /// The kubelet's API; none to leave it alone.
    pub kubelet_url: Option<KubeletUrl>,
}

impl Options {
    /// The usual places below a root. The kubelet's API is not asked unless it is named.
    #[must_use]
    pub fn below(host_root: impl Into<PathBuf>) -> Self {
        let host_root = host_root.into();
        let paths = |paths: &[&str]| paths.iter().map(PathBuf::from).collect();
        Self {
            docker_socket: Some(host_root.join("run/docker.sock")),
            podman_socket: Some(host_root.join("run/podman/podman.sock")),
            host_root,
            docker_data: "/var/lib/docker".into(),
            // By itself, of k3s and rke2, of k0s, of MicroK8s.
            containerd_states: paths(&[
                "/run/containerd",
                "/run/k3s/containerd",
                "/run/k0s/containerd",
                "/var/snap/microk8s/common/run/containerd",
            ]),
            container_storages: paths(&["/run/containers/storage", "/var/lib/containers/storage"]),
            kubelet_root: "/var/lib/kubelet".into(),
            logs: "/var/log".into(),
            kubelet_url: None,
        }
    }
}

impl Default for Options {
    /// Below the root of process 1, if it may be looked at: the host's, where an agent in a
    /// container sees the host's processes. Else below `/`.
    fn default() -> Self {
        let first = Path::new("/proc/1/root");
        let readable = fs::read_dir(first).is_ok();
        Self::below(if readable { first } else { Path::new("/") })
    }
}

/// Where the kubelet answers, without TLS: `http://HOST[:PORT]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KubeletUrl {
    /// `HOST:PORT`.
    pub(super) address: String,
}

/// Why a text is no [`KubeletUrl`].
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum KubeletUrlError {
    /// `https://`.
    #[error(
        "https:// is not spoken: give http://127.0.0.1:10255 with the kubelet's readOnlyPort on, or \
         leave it out, as names of pods are also read from its folders"
    )]
    Https,
    /// Another scheme, or none.
    #[error("expected http://HOST:PORT")]
    Scheme,
    /// No host, or one with what belongs to none.
    #[error("expected a host, such as in http://127.0.0.1:10255")]
    Host,
    /// No number from 1 to 65535 behind the colon.
    #[error("expected a port from 1 to 65535")]
    Port,
    /// More than host and port.
    #[error("expected no path: /pods is asked for")]
    Path,
}

impl FromStr for KubeletUrl {
    type Err = KubeletUrlError;

    fn from_str(text: &str) -> Result<Self, KubeletUrlError> {
        let (scheme, rest) = text.split_once("://").ok_or(KubeletUrlError::Scheme)?;
        match scheme.to_ascii_lowercase().as_str() {
            "http" => {}
            "https" => return Err(KubeletUrlError::Https),
            _ => return Err(KubeletUrlError::Scheme),
        }
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        if !matches!(path, "" | "pods" | "pods/") {
            return Err(KubeletUrlError::Path);
        }
        // The colons of an IPv6 address stand in brackets.
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !port.contains(']') => {
                let port = port.parse().ok().filter(|port| *port > 0);
                (host, port.ok_or(KubeletUrlError::Port)?)
            }
            _ => (authority, READ_ONLY_PORT),
        };
        let bare = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
        let colons = bare.is_none() && host.contains(':');
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | ':' | '%');
        let bare = bare.unwrap_or(host);
        if bare.is_empty() || colons || !bare.chars().all(allowed) {
            return Err(KubeletUrlError::Host);
        }
        Ok(Self {
            address: format!("{host}:{port}"),
        })
    }
}

impl fmt::Display for KubeletUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}", self.address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_urls_of_the_kubelet() {
        for (text, url) in [
            ("http://127.0.0.1:10255", "http://127.0.0.1:10255"),
            ("http://node-1.local/", "http://node-1.local:10255"),
            ("HTTP://[::1]:80/pods", "http://[::1]:80"),
            ("http://[fe80::1%eth0]", "http://[fe80::1%eth0]:10255"),
        ] {
            let parsed = text.parse().map(|url: KubeletUrl| url.to_string());
            assert_eq!(parsed, Ok(url.to_owned()));
        }
        for (text, error) in [
            ("https://127.0.0.1:10250", KubeletUrlError::Https),
            ("127.0.0.1:10255", KubeletUrlError::Scheme),
            ("unix:///run/x.sock", KubeletUrlError::Scheme),
            ("http://", KubeletUrlError::Host),
            ("http://:10255", KubeletUrlError::Host),
            ("http://me@host", KubeletUrlError::Host),
            ("http://::1:80", KubeletUrlError::Host),
            ("http://host:", KubeletUrlError::Port),
            ("http://host:0", KubeletUrlError::Port),
            ("http://host:65536", KubeletUrlError::Port),
            ("http://host/metrics", KubeletUrlError::Path),
        ] {
            assert_eq!(text.parse::<KubeletUrl>(), Err(error), "{text}");
        }
    }
}
