//! Who may know what a container is called, and in which order they are asked.

mod containerd;
mod engine;
mod gate;
mod kubelet;
mod pod_folders;
mod storage;

use super::{ContainerRef, Details, Error, Options, Runtime, host::Host};
use engine::Engine;
use kubelet::Kubelet;
use std::{fmt, path::PathBuf, time::Duration};

/// How long a file of JSON may be, in bytes. A spec has some tens of thousands.
const LONGEST_FILE: usize = 4 << 20;

/// Somebody who may know what a container is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// Docker's API.
    Docker,
    /// What Docker keeps of each container in files.
    DockerState,
    /// The bundles of containerd.
    ContainerdState,
    /// Podman's API, which is Docker's.
    Podman,
    /// The files of the library containers/storage, which CRI-O and Podman use.
    ContainerStorage,
    /// The kubelet's API.
    Kubelet,
    /// The folders that the kubelet makes for pods and for their logs.
    PodFolders,
}

impl Source {
    /// If it is a daemon that is asked, and no file.
    pub(super) fn is_daemon(self) -> bool {
        matches!(self, Self::Docker | Self::Podman | Self::Kubelet)
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Docker => "Docker's socket",
            Self::DockerState => "Docker's files",
            Self::ContainerdState => "containerd's files",
            Self::Podman => "Podman's socket",
            Self::ContainerStorage => "the container storage",
            Self::Kubelet => "the kubelet",
            Self::PodFolders => "the folders of pods",
        })
    }
}

/// What is asked for.
#[derive(Clone, Debug)]
pub(super) struct Question {
    pub(super) container: ContainerRef,
    pub(super) pod_uid: Option<String>,
}

impl Question {
    /// Who may know, in the order to ask.
    pub(super) fn sources(&self) -> impl Iterator<Item = Source> + use<> {
        sources(self.container.runtime, self.pod_uid.is_some())
    }

    /// The id, if it is fit for paths, which it is if [`super::cgroup::parse`] made it.
    fn id(&self) -> Option<&str> {
        let id = self.container.id.as_str();
        let fit = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        (!id.starts_with('.') && !id.is_empty() && id.chars().all(fit)).then_some(id)
    }
}

/// Who may know of such containers, in the order to ask.
pub(super) fn sources(runtime: Runtime, in_pod: bool) -> impl Iterator<Item = Source> + use<> {
    use Source::{ContainerStorage, ContainerdState, Docker, DockerState, Podman};
    let by_runtime: &[Source] = match runtime {
        Runtime::Docker => &[Docker, DockerState],
        // The cgroupfs driver of Kubernetes does not tell cri-dockerd from containerd.
        Runtime::Containerd if in_pod => &[ContainerdState, Docker, DockerState],
        Runtime::Containerd => &[ContainerdState],
        Runtime::CriO => &[ContainerStorage],
        Runtime::Podman => &[Podman, ContainerStorage],
        Runtime::Unknown => &[
            Docker,
            DockerState,
            ContainerdState,
            Podman,
            ContainerStorage,
        ],
        // The id is the name; a build step has none.
        Runtime::Nspawn | Runtime::Lxc | Runtime::Buildkit => &[],
    };
    let of_pod: &[Source] = if in_pod {
        &[Source::Kubelet, Source::PodFolders]
    } else {
        &[]
    };
    by_runtime.iter().chain(of_pod).copied()
}

/// How patient to be with daemons.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// With one answer.
    pub(super) answer: Duration,
    /// How long a daemon that failed is left alone, after one failure, two, and so on.
    pub(super) back_off: [Duration; 3],
    /// How old the kubelet's list of pods may be for a container that it does not have.
    pub(super) pods: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            answer: Duration::from_secs(2),
            back_off: [1, 5, 30].map(Duration::from_secs),
            pods: Duration::from_secs(10),
        }
    }
}

/// All sources, with what they remember.
#[derive(Debug)]
pub(super) struct Sources {
    host: Host,
    docker: Option<Engine>,
    podman: Option<Engine>,
    kubelet: Option<Kubelet>,
    docker_data: PathBuf,
    containerd_states: Vec<PathBuf>,
    container_storages: Vec<PathBuf>,
    kubelet_root: PathBuf,
    logs: PathBuf,
}

impl Sources {
    pub(super) fn new(options: Options, patience: Patience) -> Self {
        let engine = |socket: Option<_>| socket.map(|socket| Engine::new(socket, patience));
        Self {
            host: Host::new(options.host_root),
            docker: engine(options.docker_socket),
            podman: engine(options.podman_socket),
            kubelet: options.kubelet_url.map(|url| Kubelet::new(url, patience)),
            docker_data: options.docker_data,
            containerd_states: options.containerd_states,
            container_storages: options.container_storages,
            kubelet_root: options.kubelet_root,
            logs: options.logs,
        }
    }

    /// Asks one source; nothing if it is not there, or is left alone for now. An answer may be
    /// empty.
    ///
    /// # Errors
    /// If it is there, but tells nothing that makes sense.
    pub(super) async fn ask(
        &mut self,
        source: Source,
        question: &Question,
    ) -> Result<Option<Details>, Error> {
        let Some(id) = question.id() else {
            return Ok(None);
        };
        let host = &self.host;
        match source {
            Source::Docker => asked(self.docker.as_mut(), id).await,
            Source::Podman => asked(self.podman.as_mut(), id).await,
            Source::DockerState => engine::read_state(host, &self.docker_data, id),
            Source::ContainerdState => containerd::read(host, &self.containerd_states, id),
            Source::ContainerStorage => storage::read(host, &self.container_storages, id),
            Source::Kubelet => match &mut self.kubelet {
                Some(kubelet) => kubelet.ask(id, question.pod_uid.as_deref()).await,
                None => Ok(None),
            },
            Source::PodFolders => match &question.pod_uid {
                Some(uid) => pod_folders::read(host, &self.logs, &self.kubelet_root, id, uid),
                None => Ok(None),
            },
        }
    }
}

async fn asked(engine: Option<&mut Engine>, id: &str) -> Result<Option<Details>, Error> {
    match engine {
        Some(engine) => engine.ask(id).await,
        None => Ok(None),
    }
}

#[cfg(test)]
mod tests;
