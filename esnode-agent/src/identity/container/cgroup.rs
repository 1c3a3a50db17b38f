//! Which container a process runs in, by `/proc/PID/cgroup` (cgroups(7)).
//!
//! No runtime says its name there. What tells a container is the shape of the path: a scope with
//! the prefix of a runtime and an id, or an id in a folder that one runtime uses. Ids are 64
//! hexadecimal digits nearly everywhere, so that a folder that merely looks like one is rare.

mod path;

use path::Seen;

/// What runs a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Runtime {
    /// Docker Engine.
    Docker,
    /// A build step of BuildKit, in Docker Engine or by itself.
    Buildkit,
    /// containerd: by Kubernetes, nerdctl or ctr. Also what Kubernetes runs with the cgroupfs
    /// driver, where the path does not tell containerd from cri-dockerd.
    Containerd,
    /// CRI-O.
    CriO,
    /// Podman.
    Podman,
    /// systemd-nspawn.
    Nspawn,
    /// LXC, and LXD and Incus, which use it.
    Lxc,
    /// A container, but the part of the path that tells whose is hidden by a cgroup namespace.
    Unknown,
}

impl Runtime {
    /// Its name in lower case, such as `cri-o`; empty if it is unknown.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Docker => "docker",
            Self::Buildkit => "buildkit",
            Self::Containerd => "containerd",
            Self::CriO => "cri-o",
            Self::Podman => "podman",
            Self::Nspawn => "systemd-nspawn",
            Self::Lxc => "lxc",
            Self::Unknown => "",
        }
    }
}

/// One container of this host.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ContainerRef {
    /// What runs it.
    pub runtime: Runtime,
    /// Its full id: 64 hexadecimal digits, where the runtime gives such ids; the name of the
    /// machine for systemd-nspawn, of the container for LXC and ctr.
    pub id: String,
}

/// The control group of a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cgroup {
    /// The path of the line that told the most, as the kernel wrote it.
    pub path: String,
    /// The innermost container; none for a process of the host.
    pub container: Option<ContainerRef>,
    /// The uid of the Kubernetes pod, with dashes where it has any: a static pod's has none.
    pub pod_uid: Option<String>,
}

/// Parses `/proc/PID/cgroup` of any version: one line for each hierarchy of version 1, the line
/// `0::PATH` of version 2, or both. Nothing if no line is one.
///
/// Runtimes and systemd do not enter all hierarchies, so the line counts that knows a container;
/// of those that know as much, version 2's is first, then the hierarchies that systemd, Docker and
/// the kubelet always enter.
#[must_use]
pub fn parse(text: &str) -> Option<Cgroup> {
    let mut best: Option<(Rank, &str, Seen<'_>)> = None;
    for line in text.lines() {
        let Some((standing, path)) = split(line) else {
            continue;
        };
        let seen = path::read(path);
        let told = (
            seen.container.is_some(),
            seen.pod_uid.is_some(),
            path != "/",
        );
        let rank = (told, standing);
        if best.as_ref().is_none_or(|(best, ..)| rank > *best) {
            best = Some((rank, path, seen));
        }
    }
    let (_, path, seen) = best?;
    let container = seen.container.map(|(runtime, id)| ContainerRef {
        runtime,
        id: id.into_owned(),
    });
    Some(Cgroup {
        path: path.to_owned(),
        container,
        pod_uid: seen.pod_uid,
    })
}

/// What a line tells (container, pod, any group at all), and how its hierarchy stands.
type Rank = ((bool, bool, bool), u8);

/// Splits `ID:CONTROLLERS:PATH` into the standing of the hierarchy and the path.
fn split(line: &str) -> Option<(u8, &str)> {
    let mut fields = line.splitn(3, ':');
    let (id, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
    id.parse::<u32>().ok()?;
    if !path.starts_with('/') {
        return None;
    }
    let standing = match controllers {
        "" => 3,
        "name=systemd" => 2,
        _ if controllers.split(',').any(|one| one == "memory") => 1,
        _ => 0,
    };
    // The kernel marks the group of a process that outlived it, such as a zombie.
    Some((standing, path.strip_suffix(" (deleted)").unwrap_or(path)))
}

#[cfg(test)]
mod tests;
