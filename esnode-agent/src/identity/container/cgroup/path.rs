//! What one path of a control group tells.

use super::Runtime;
use std::borrow::Cow;

/// What was seen on the way down a path.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Seen<'a> {
    pub(super) container: Option<(Runtime, Cow<'a, str>)>,
    pub(super) pod_uid: Option<String>,
}

/// What stands before the id in the name of a scope, or of a folder where that is marked. Sources:
/// moby `daemon/oci_linux.go`, containerd `internal/cri/server/podsandbox`, nerdctl
/// `pkg/cmd/container`, cri-o `internal/config/cgmgr`, podman `libpod/container_internal_linux.go`.
const PREFIXES: [(&str, Runtime, Folder); 7] = [
    ("docker", Runtime::Docker, Folder::No),
    ("cri-containerd", Runtime::Containerd, Folder::No),
    ("nerdctl", Runtime::Containerd, Folder::No),
    ("containerd", Runtime::Containerd, Folder::No),
    ("crio", Runtime::CriO, Folder::Yes),
    ("libpod", Runtime::Podman, Folder::Yes),
    // `podman run --cgroups=split`, in the service that runs it.
    ("libpod-payload", Runtime::Podman, Folder::Yes),
];

/// If the prefix also marks folders that are no scope, which is so with the driver cgroupfs.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Folder {
    Yes,
    No,
}

/// Folders in which runtimes keep their containers with the driver cgroupfs.
const PARENTS: [(&str, Runtime); 4] = [
    ("docker", Runtime::Docker),
    ("libpod_parent", Runtime::Podman),
    // Namespaces of containerd.
    ("default", Runtime::Containerd),
    ("k8s.io", Runtime::Containerd),
];

/// Walks down a path. A container within a container hides the outer one, and so does a pod within
/// one, as kind makes them.
pub(super) fn read(path: &str) -> Seen<'_> {
    let mut seen = Seen::default();
    let mut parents = Parents::default();
    for name in path.split('/').filter(|name| !name.is_empty()) {
        // systemd puts this before names that the kernel might use for its files.
        let name = name.strip_prefix('_').unwrap_or(name);
        if let Some(uid) = pod(name) {
            seen = Seen {
                container: None,
                pod_uid: Some(uid),
            };
        }
        if let Some(container) = container(name, &parents) {
            // What a pod's container runs in turn is the pod's, too.
            seen.container = Some(container);
        } else if name == "supervisor" && parents.is_nspawn() {
            // systemd-nspawn itself, beside its `payload`.
            seen.container = None;
        }
        parents.push(name);
    }
    seen
}

/// The last two names that were walked through, the nearer first, and how many there were, without
/// the steps up out of a cgroup namespace.
#[derive(Default)]
struct Parents<'a> {
    near: &'a str,
    far: &'a str,
    depth: usize,
}

impl<'a> Parents<'a> {
    fn push(&mut self, name: &'a str) {
        self.far = std::mem::replace(&mut self.near, name);
        self.depth += usize::from(name != "..");
    }

    fn is_nspawn(&self) -> bool {
        machine(self.near).is_some()
    }
}

fn container<'a>(name: &'a str, parents: &Parents<'_>) -> Option<(Runtime, Cow<'a, str>)> {
    let borrowed = |(runtime, id): (Runtime, &'a str)| (runtime, Cow::Borrowed(id));
    in_unit(name)
        .or_else(|| in_folder(name, parents))
        .or_else(|| lxc(name, parents))
        .map(borrowed)
        .or_else(|| machine(name).map(|machine| (Runtime::Nspawn, machine)))
}

/// `docker-ID.scope`; `SLICE:docker:ID`, which is what runc makes of systemd's notation with the
/// driver cgroupfs; `crio-ID`.
fn in_unit(name: &str) -> Option<(Runtime, &str)> {
    let mut parts = name.rsplitn(3, ':');
    let (id, prefix) = (parts.next()?, parts.next());
    if let (Some(prefix), Some(_slice)) = (prefix, parts.next()) {
        let (_, runtime, _) = PREFIXES.iter().find(|(known, ..)| *known == prefix)?;
        return identified(*runtime, id);
    }
    let scope = name.strip_suffix(".scope");
    let (prefix, id) = scope.unwrap_or(name).rsplit_once('-')?;
    let (_, runtime, folder) = PREFIXES.iter().find(|(known, ..)| *known == prefix)?;
    let marked = scope.is_some() || *folder == Folder::Yes;
    marked.then(|| identified(*runtime, id)).flatten()
}

/// Docker runs build steps as it runs containers: they differ by what their ids look like.
fn identified(runtime: Runtime, id: &str) -> Option<(Runtime, &str)> {
    if is_id(id) {
        Some((runtime, id))
    } else if runtime == Runtime::Docker && is_buildkit_id(id) {
        Some((Runtime::Buildkit, id))
    } else {
        None
    }
}

/// An id in a folder that says whose it is.
fn in_folder<'a>(name: &'a str, parents: &Parents<'_>) -> Option<(Runtime, &'a str)> {
    if parents.near == "buildkit" && is_buildkit_id(name) {
        return Some((Runtime::Buildkit, name));
    }
    // ctr(8) takes any name; no unit of systemd is called so, and no other tool nests there.
    if (parents.near, parents.depth) == ("default", 1) && is_identifier(name) {
        return Some((Runtime::Containerd, name));
    }
    if !is_id(name) {
        return None;
    }
    if let Some((_, runtime)) = PARENTS.iter().find(|(parent, _)| *parent == parents.near) {
        return Some((*runtime, name));
    }
    if pod(parents.near).is_some() {
        return Some((Runtime::Containerd, name));
    }
    match parents {
        // Amazon's agent: `/ecs/TASK/ID`.
        Parents { far: "ecs", .. } => Some((Runtime::Docker, name)),
        // A sibling, seen from within a cgroup namespace.
        Parents { near: "..", .. } => Some((Runtime::Unknown, name)),
        // Any namespace of containerd, or what `docker run --cgroup-parent` names: GitHub's
        // runners have `/actions_job/ID`. A unit of systemd holds no such folders.
        Parents { near, depth: 1, .. } if !is_unit(near) => Some((Runtime::Unknown, name)),
        _ => None,
    }
}

/// `/lxc.payload.NAME` (from LXC 4), `/lxc.payload/NAME`, `/lxc/NAME`. What LXC runs for itself is
/// in `lxc.monitor.NAME`.
fn lxc<'a>(name: &'a str, parents: &Parents<'_>) -> Option<(Runtime, &'a str)> {
    let payload = name.strip_prefix("lxc.payload.");
    let beside = || matches!(parents.near, "lxc" | "lxc.payload").then_some(name);
    let name = payload.or_else(beside)?;
    let printable = !name.is_empty() && !name.contains(char::is_control);
    printable.then_some((Runtime::Lxc, name))
}

/// The name of a machine of systemd-nspawn: `machine-NAME.scope`, which systemd-machined makes, or
/// `systemd-nspawn@NAME.service`. Virtual machines of libvirt have such scopes, too.
fn machine(unit: &str) -> Option<Cow<'_, str>> {
    let scope = unit.strip_prefix("machine-");
    let scope = scope.and_then(|rest| rest.strip_suffix(".scope"));
    let service = || {
        let instance = unit.strip_prefix("systemd-nspawn@");
        instance.and_then(|rest| rest.strip_suffix(".service"))
    };
    let name = unescape(scope.or_else(service)?)?;
    // libvirt names them by driver, number and domain: `qemu-1-web`, `lxc-4711-web`.
    let foreign = ["qemu-", "lxc-", "libvirt-"].iter().any(|driver| {
        let rest = name.strip_prefix(driver);
        rest.is_some_and(|rest| rest.starts_with(|first: char| first.is_ascii_digit()))
    });
    (!foreign && !name.is_empty()).then_some(name)
}

/// Undoes `\xNN` of systemd-escape(1); nothing if what results is no text.
fn unescape(name: &str) -> Option<Cow<'_, str>> {
    if !name.contains('\\') {
        return Some(Cow::Borrowed(name));
    }
    let mut bytes = Vec::with_capacity(name.len());
    let mut rest = name;
    while let Some((before, after)) = rest.split_once("\\x") {
        bytes.extend_from_slice(before.as_bytes());
        let (digits, behind) = after.split_at_checked(2)?;
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        rest = behind;
    }
    bytes.extend_from_slice(rest.as_bytes());
    let name = String::from_utf8(bytes).ok()?;
    // Names go to labels and to terminals.
    (!name.contains(char::is_control)).then_some(Cow::Owned(name))
}

/// The uid of a pod: `podUID` with the driver cgroupfs, `…kubepods-burstable-podUID.slice` with
/// dashes as underscores with the driver systemd, that perhaps with `:cri-containerd:ID` behind it.
/// The kubelet's `pkg/kubelet/cm/pod_container_manager_linux.go`.
fn pod(name: &str) -> Option<String> {
    if let Some(uid) = name.strip_prefix("pod") {
        return is_uid(uid).then(|| uid.replace('_', "-"));
    }
    let slice = name.split(':').next()?.strip_suffix(".slice")?;
    let (parents, uid) = slice.rsplit_once("-pod")?;
    let of_kubelet = parents.split('-').any(|parent| parent == "kubepods");
    (of_kubelet && is_uid(uid)).then(|| uid.replace('_', "-"))
}

/// A UUID, or the MD5 that the kubelet gives a static pod.
fn is_uid(text: &str) -> bool {
    let uuid = || {
        text.len() == 36
            && text.bytes().enumerate().all(|(at, byte)| match at {
                8 | 13 | 18 | 23 => matches!(byte, b'-' | b'_'),
                _ => byte.is_ascii_hexdigit(),
            })
    };
    let md5 = || text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    uuid() || md5()
}

fn is_unit(name: &str) -> bool {
    let kinds = [".slice", ".scope", ".service"];
    kinds.iter().any(|kind| name.ends_with(kind))
}

fn is_id(text: &str) -> bool {
    let hexadecimal = |byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    text.len() == 64 && text.bytes().all(hexadecimal)
}

/// What BuildKit's `identity.NewID` makes: 25 digits to the base 36.
fn is_buildkit_id(text: &str) -> bool {
    let digit = |byte: u8| byte.is_ascii_digit() || byte.is_ascii_lowercase();
    text.len() == 25 && text.bytes().all(digit)
}

/// What containerd takes as an id (its `pkg/identifiers`), which is also fit for a path: words of
/// letters and digits with single marks in between, at most 76 bytes.
fn is_identifier(text: &str) -> bool {
    let word = |word: &str| !word.is_empty() && word.bytes().all(|b| b.is_ascii_alphanumeric());
    text.len() <= 76 && text.split(['-', '_', '.']).all(word)
}
