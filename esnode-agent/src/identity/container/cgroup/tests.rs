use super::*;
use proptest::prelude::*;

/// Ids, as A to D in the tables.
const IDS: [(&str, &str); 4] = [
    (
        "{A}",
        "4cc818a75eb691c5efb9c943b0c3a26ec8e0a05acb60bef4717315e65d671774",
    ),
    (
        "{B}",
        "c46bafd57b2ef55a23c1319893c8aa5bfca24872bd95258700a51059941fb69e",
    ),
    ("{k}", "5cf82fwiumld3vcs5d5l5pzyv"),
    ("{m}", "9a3f0c1b2d4e5f60718293a4b5c6d7e8"),
];
const UID: &str = "12fdc709-933e-41d0-917f-cd84de9afa94";

fn fill(text: &str) -> String {
    let uids = text
        .replace("{uid}", UID)
        .replace("{u_i_d}", &UID.replace('-', "_"));
    IDS.iter()
        .fold(uids, |text, (mark, id)| text.replace(mark, id))
}

/// Parses the path as that of version 2, and as one of version 1.
#[track_caller]
fn told(path: &str) -> (Option<ContainerRef>, Option<String>) {
    let path = fill(path);
    let v2 = parse(&format!("0::{path}\n")).expect("a line");
    assert_eq!(v2.path, path);
    let v1 = parse(&format!("7:memory:{path}\n6:cpu,cpuacct:{path}\n")).expect("a line");
    assert_eq!(v1, v2);
    (v2.container, v2.pod_uid)
}

#[track_caller]
fn check(runtime: Runtime, paths: &[(&str, &str)], pod_uid: Option<&str>) {
    for (path, id) in paths {
        let id = fill(id);
        let wanted = (Some(ContainerRef { runtime, id }), pod_uid.map(fill));
        assert_eq!(told(path), wanted, "{path}");
    }
}

#[test]
fn docker() {
    let paths = [
        ("/docker/{A}", "{A}"),
        ("/system.slice/docker-{A}.scope", "{A}"),
        (
            "/user.slice/user-1000.slice/user@1000.service/user.slice/docker-{A}.scope",
            "{A}",
        ),
        (
            "/user.slice/user-1000.slice/user@1000.service/docker/{A}",
            "{A}",
        ),
        ("/batch.slice/docker-{A}.scope", "{A}"),
        ("/system.slice/docker-{A}.scope/init.scope", "{A}"),
        (
            "/system.slice/docker-{A}.scope/system.slice/sshd.service",
            "{A}",
        ),
        ("/docker/{A}/init", "{A}"),
        ("/docker/{A}/docker/{B}", "{B}"),
        (
            "/system.slice/docker-{A}.scope/system.slice/docker-{B}.scope",
            "{B}",
        ),
        (
            "/docker/{A}/system.slice/docker-{B}.scope/init.scope",
            "{B}",
        ),
        ("/docker/{A}/system.slice/containerd.service", "{A}"),
        ("/../../docker/{A}", "{A}"),
        ("/../docker-{A}.scope", "{A}"),
        ("/../../system.slice/docker-{A}.scope", "{A}"),
        ("/ecs/0f57dbf8-4d4b-4a5c-9cf5-6f2d1b3c0d11/{A}", "{A}"),
        ("/ecs/{m}/{A}", "{A}"),
        ("/ecstasks.slice/ecstasks-{m}.slice/docker-{A}.scope", "{A}"),
        (
            "/system.slice/docker.service/system.slice:docker:{A}",
            "{A}",
        ),
        ("/system.slice/docker-{A}.scope (deleted)", "{A}"),
        ("/lxc.payload.web/docker/{A}", "{A}"),
    ];
    for (path, id) in paths {
        let cgroup = parse(&fill(&format!("0::{path}"))).expect("a line");
        assert!(!cgroup.path.ends_with("(deleted)"));
        let wanted = ContainerRef {
            runtime: Runtime::Docker,
            id: fill(id),
        };
        assert_eq!(cgroup.container, Some(wanted), "{path}");
        assert_eq!(cgroup.pod_uid, None);
    }
}

#[test]
fn build_steps() {
    let paths = [
        ("/docker/buildkit/{k}", "{k}"),
        ("/buildkit/{k}", "{k}"),
        ("/system.slice/docker-{k}.scope", "{k}"),
        ("/docker/{A}/buildkit/{k}", "{k}"),
    ];
    check(Runtime::Buildkit, &paths, None);
}

#[test]
fn containerd() {
    let paths = [
        ("/default/{A}", "{A}"),
        ("/default/redis-1", "redis-1"),
        ("/k8s.io/{A}", "{A}"),
        ("/system.slice/nerdctl-{A}.scope", "{A}"),
        (
            "/user.slice/user-1000.slice/user@1000.service/user.slice/nerdctl-{A}.scope",
            "{A}",
        ),
        ("/system.slice/cri-containerd-{A}.scope", "{A}"),
        ("/system.slice/containerd-{A}.scope", "{A}"),
        ("/../../default/{A}", "{A}"),
        ("/../../default/redis-1", "redis-1"),
        ("/system.slice/containerd.service/default/{A}", "{A}"),
    ];
    check(Runtime::Containerd, &paths, None);
}

#[test]
fn kubernetes_with_containerd() {
    let paths = [
        ("/kubepods/pod{uid}/{A}", "{A}"),
        ("/kubepods/burstable/pod{uid}/{A}", "{A}"),
        ("/kubepods/besteffort/pod{uid}/{A}", "{A}"),
        ("/kubepods/besteffort/pod{uid}/{A}/init.scope", "{A}"),
        (
            "/kubepods.slice/kubepods-pod{u_i_d}.slice/cri-containerd-{A}.scope",
            "{A}",
        ),
        (
            "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{u_i_d}.slice/cri-containerd-{A}.scope",
            "{A}",
        ),
        (
            "/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod{u_i_d}.slice/cri-containerd-{A}.scope/system.slice/sshd.service",
            "{A}",
        ),
        (
            "/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-burstable.slice/kubelet-kubepods-burstable-pod{u_i_d}.slice/cri-containerd-{A}.scope",
            "{A}",
        ),
        (
            "/system.slice/docker-{B}.scope/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-besteffort.slice/kubelet-kubepods-besteffort-pod{u_i_d}.slice/cri-containerd-{A}.scope",
            "{A}",
        ),
        (
            "/docker/{B}/kubelet/kubepods/besteffort/pod{uid}/{A}",
            "{A}",
        ),
        (
            "/system.slice/containerd.service/kubepods-pod{u_i_d}.slice:cri-containerd:{A}",
            "{A}",
        ),
        (
            "/kubepods-besteffort-pod{u_i_d}.slice:cri-containerd:{A}",
            "{A}",
        ),
        ("/../../../burstable/pod{uid}/{A}", "{A}"),
        (
            "/../../kubepods-burstable-pod{u_i_d}.slice/cri-containerd-{A}.scope",
            "{A}",
        ),
        ("/../pod{uid}/{A}", "{A}"),
        ("/mycluster/kubepods/burstable/pod{uid}/{A}", "{A}"),
    ];
    check(Runtime::Containerd, &paths, Some("{uid}"));
    // A static pod: the kubelet's API server, for one.
    let paths = [
        ("/kubepods/burstable/pod{m}/{A}", "{A}"),
        (
            "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{m}.slice/cri-containerd-{A}.scope",
            "{A}",
        ),
    ];
    check(Runtime::Containerd, &paths, Some("{m}"));
}

#[test]
fn kubernetes_with_docker() {
    let paths = [
        (
            "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{u_i_d}.slice/docker-{A}.scope",
            "{A}",
        ),
        // Docker in a pod.
        ("/kubepods/burstable/pod{uid}/{B}/docker/{A}", "{A}"),
    ];
    check(Runtime::Docker, &paths, Some("{uid}"));
}

#[test]
fn crio() {
    let paths = [
        (
            "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{u_i_d}.slice/crio-{A}.scope",
            "{A}",
        ),
        (
            "/kubepods.slice/kubepods-pod{u_i_d}.slice/crio-{A}.scope/container",
            "{A}",
        ),
        ("/kubepods/besteffort/pod{uid}/crio-{A}", "{A}"),
        ("/kubepods-besteffort-pod{u_i_d}.slice:crio:{A}", "{A}"),
    ];
    check(Runtime::CriO, &paths, Some("{uid}"));
    let paths = [
        ("/system.slice/crio-{A}.scope", "{A}"),
        ("/crio-{A}", "{A}"),
    ];
    check(Runtime::CriO, &paths, None);
}

#[test]
fn podman() {
    let paths = [
        ("/machine.slice/libpod-{A}.scope", "{A}"),
        ("/machine.slice/libpod-{A}.scope/container", "{A}"),
        (
            "/machine.slice/libpod-{A}.scope/container/init.scope",
            "{A}",
        ),
        (
            "/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-{A}.scope/container",
            "{A}",
        ),
        (
            "/user.slice/user-1000.slice/user@1000.service/user.slice/user-libpod_pod_{B}.slice/libpod-{A}.scope",
            "{A}",
        ),
        (
            "/machine.slice/machine-libpod_pod_{B}.slice/libpod-{A}.scope/container",
            "{A}",
        ),
        ("/libpod_parent/libpod-{A}", "{A}"),
        ("/libpod_parent/{A}", "{A}"),
        ("/libpod_parent/libpod-{A}/system.slice/x.service", "{A}"),
        ("/system.slice/web.service/libpod-payload-{A}", "{A}"),
        ("/../libpod-{A}.scope", "{A}"),
    ];
    check(Runtime::Podman, &paths, None);
}

#[test]
fn nspawn_and_lxc() {
    let paths = [
        ("/machine.slice/machine-web.scope", "web"),
        ("/machine.slice/machine-web.scope/payload", "web"),
        (
            r"/machine.slice/machine-my\x2dweb.scope/payload/init.scope",
            "my-web",
        ),
        ("/machine.slice/systemd-nspawn@web.service/payload", "web"),
        (
            "/machine.slice/systemd-nspawn@web.service/payload/system.slice/nginx.service",
            "web",
        ),
        (
            "/machine.slice/systemd-nspawn@my-web.service/init.scope",
            "my-web",
        ),
        (
            r"/system.slice/system-systemd\x2dnspawn.slice/systemd-nspawn@web.service/payload",
            "web",
        ),
        (r"/machine.slice/machine-b\xc3\xbcro.scope/payload", "büro"),
        // Not libvirt's: no number.
        (r"/machine.slice/machine-qemu\x2dtest.scope", "qemu-test"),
    ];
    check(Runtime::Nspawn, &paths, None);
    let paths = [
        ("/lxc/101/ns/init.scope", "101"),
        ("/lxc.payload/web/system.slice/cron.service", "web"),
        ("/lxc.payload.web_1/init.scope", "web_1"),
    ];
    check(Runtime::Lxc, &paths, None);
}

#[test]
fn somebody_s() {
    let paths = [
        ("/../{A}", "{A}"),
        ("/../{A}/init.scope", "{A}"),
        ("/actions_job/{A}", "{A}"),
        ("/../../actions_job/{A}", "{A}"),
        ("/prod/{A}", "{A}"),
    ];
    check(Runtime::Unknown, &paths, None);
}

#[test]
fn of_the_host() {
    let paths = [
        "/",
        "/init.scope",
        "/../../..",
        "/system.slice/docker.service",
        "/system.slice/containerd.service",
        "/system.slice/crio.service",
        "/system.slice/docker.socket",
        "/system.slice/docker-{A}.scope.d",
        "/system.slice/docker-4cc818a75eb6.scope",
        "/user.slice/user-1000.slice/session-3.scope",
        "/user.slice/user-1000.slice/user@1000.service/app.slice/app-gnome-x-1.scope",
        "/user.slice/user-1000.slice/user@1000.service/user.slice/podman-pause-1f2e.scope",
        "/user.slice/user-1000.slice/user@1000.service/{A}",
        "/system.slice/{A}",
        "/system.slice/build.service/cache/{A}",
        "/{A}",
        "/docker",
        "/docker/buildkit",
        "/default",
        "/default/..",
        "/machine.slice/libpod-conmon-{A}.scope",
        "/libpod_parent/conmon",
        "/libpod_parent/libpod-conmon-{A}",
        "/system.slice/crio-conmon-{A}.scope",
        "/machine.slice/systemd-nspawn@web.service/supervisor",
        "/machine.slice/machine-web.scope/supervisor",
        r"/machine.slice/machine-qemu\x2d1\x2dvps3458844.scope/libvirt/emulator",
        r"/machine.slice/machine-bad\x2.scope",
        r"/machine.slice/machine-bad\x1b.scope",
        r"/machine.slice/machine-bad\xff.scope",
        "/machine.slice/machine-.scope",
        "/lxc.monitor.web",
        "/lxc.monitor/101",
        "/kubepods.slice",
        "/kubepods/burstable",
        "/kubepods.slice/kubepods-burstable.slice",
        "/kubepods/burstable/podium/{m}",
        "/system.slice/gitpod-pod{u_i_d}.slice",
    ];
    for path in paths {
        assert_eq!(told(path), (None, None), "{path}");
    }
}

#[test]
fn in_a_pod_but_in_no_container() {
    let paths = [
        "/kubepods/besteffort/pod{uid}",
        "/kubepods/besteffort/pod{uid}/crio-conmon-{A}",
        "/kubepods.slice/kubepods-pod{u_i_d}.slice/crio-conmon-{A}.scope",
        "/docker/{B}/kubelet/kubepods/besteffort/pod{uid}",
    ];
    for path in paths {
        assert_eq!(told(path), (None, Some(UID.to_owned())), "{path}");
    }
}

#[test]
fn takes_the_line_that_knows_most() {
    let text = "12:pids:/\n3:cpu,cpuacct:/system.slice/docker.service\n\
        2:memory:/docker/{A}\n1:name=systemd:/docker/{A}/init.scope\n0::/system.slice/x.service\n";
    let cgroup = parse(&fill(text)).expect("a line");
    assert_eq!(cgroup.path, fill("/docker/{A}/init.scope"));
    let text =
        "12:pids:/user.slice\n1:name=systemd:/user.slice/user-0.slice/session-1.scope\n0::/\n";
    let cgroup = parse(text).expect("a line");
    assert_eq!(cgroup.path, "/user.slice/user-0.slice/session-1.scope");
    assert_eq!(cgroup.container, None);
    let text = "5:memory:/a\n0::/b\n";
    assert_eq!(parse(text).expect("a line").path, "/b");
    let text = "5:devices:/kubepods/pod{uid}\n0::/b\n4:freezer:/default/{A}\n";
    let cgroup = parse(&fill(text)).expect("a line");
    assert_eq!(cgroup.path, fill("/default/{A}"));
}

#[test]
fn passes_by_what_is_no_line() {
    for text in ["", "\n", "0:", "0::", "x::/", "0::relative", "::/", "1:2"] {
        assert_eq!(parse(text), None, "{text:?}");
    }
    assert_eq!(parse("nonsense\n0::/a\n").expect("a line").path, "/a");
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(text in ".{0,300}") {
        let _ = parse(&text);
        let _ = parse(&format!("0::/{text}"));
    }

    #[test]
    fn nor_do_pieces(pieces in proptest::collection::vec(prop_oneof![
        "[a-f0-9]{64}", "[a-z0-9]{25}", "(docker|crio|libpod|machine|cri-containerd|kubepods)-?",
        "(\\.scope|\\.slice|\\.service|:|/|/\\.\\./|\\\\x|\\\\x2d|é|_|pod|@|\\PC)",
    ], 0..12)) {
        let path = format!("/{}", pieces.concat());
        if let Some(cgroup) = parse(&format!("0::{path}")) {
            let id = cgroup.container.map(|container| container.id).unwrap_or_default();
            prop_assert!(!id.contains('/') && id != "..");
        }
    }
}
