use super::*;
use crate::identity::container::fixture::{Folder, ID, UID};

mod daemons;

const SHORT: Patience = Patience {
    answer: Duration::from_millis(200),
    back_off: [Duration::ZERO; 3],
    pods: Duration::ZERO,
};

fn question(id: &str) -> Question {
    let container = ContainerRef {
        runtime: Runtime::Unknown,
        id: id.to_owned(),
    };
    let pod_uid = Some(UID.to_owned());
    Question { container, pod_uid }
}

/// Asks once, of files below the folder.
async fn ask(folder: &Folder, source: Source, id: &str) -> Result<Option<Details>, Error> {
    let mut sources = Sources::new(Options::below(folder.path()), SHORT);
    sources.ask(source, &question(id)).await
}

fn details(name: &str, image: &str, pod: &str, namespace: &str, container: &str) -> Details {
    let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    Details {
        name: some(name),
        image: some(image),
        pod: some(pod),
        namespace: some(namespace),
        kubernetes_container: some(container),
    }
}

#[tokio::test]
async fn nothing_is_there() {
    let folder = Folder::new();
    for source in sources(Runtime::Unknown, true) {
        assert_eq!(ask(&folder, source, ID).await.expect("absent"), None);
    }
}

#[tokio::test]
async fn ids_that_are_none_lead_nowhere() {
    let folder = Folder::new();
    folder.write(
        "run/containerd/io.containerd.runtime.v2.task/a/config.json",
        "{}",
    );
    for id in ["..", ".", "", "../a", "a/b", "a?b", "a b"] {
        let found = ask(&folder, Source::ContainerdState, id).await;
        assert_eq!(found.expect("absent"), None, "{id}");
    }
}

const DOCKER: &str = r#"{"ID":"…","Name":"/web-1","Driver":"overlay2","Config":{"Image":"nginx:1.27",
    "Labels":{"com.docker.compose.service":"web"},"Env":["A=b"]}}"#;

#[tokio::test]
async fn docker_s_files() {
    let folder = Folder::new();
    let file = format!("var/lib/docker/containers/{ID}/config.v2.json");
    folder.write(&file, DOCKER);
    let found = ask(&folder, Source::DockerState, ID).await.expect("read");
    assert_eq!(found, Some(details("web-1", "nginx:1.27", "", "", "")));
    // By cri-dockerd.
    folder.write(
        &file,
        r#"{"Name":"/k8s_app_web-0_prod_x_0","Config":{"Image":"sha256:1","Labels":{
        "io.kubernetes.container.name":"app","io.kubernetes.pod.name":"web-0",
        "io.kubernetes.pod.namespace":"prod"}}}"#,
    );
    let found = ask(&folder, Source::DockerState, ID).await.expect("read");
    let wanted = details("k8s_app_web-0_prod_x_0", "sha256:1", "web-0", "prod", "app");
    assert_eq!(found, Some(wanted));
    for broken in [
        "",
        "{",
        "[]",
        r#"{"Name":1,"Config":{}}"#,
        r#"{"Name":"/a"}"#,
    ] {
        folder.write(&file, broken);
        let error = ask(&folder, Source::DockerState, ID)
            .await
            .expect_err(broken);
        assert!(error.to_string().contains("config.v2.json: "), "{error}");
    }
    folder.write(&file, &" ".repeat(LONGEST_FILE + 1));
    let error = ask(&folder, Source::DockerState, ID)
        .await
        .expect_err("long");
    assert!(matches!(error, Error::TooLong { .. }), "{error}");
}

#[tokio::test]
async fn names_that_would_garble_a_terminal_are_none() {
    let folder = Folder::new();
    let file = format!("var/lib/docker/containers/{ID}/config.v2.json");
    folder.write(
        &file,
        r#"{"Name":"/\u001b[31m","Config":{"Image":"","Labels":null}}"#,
    );
    let found = ask(&folder, Source::DockerState, ID).await.expect("read");
    assert_eq!(found, Some(Details::default()));
}

#[tokio::test]
async fn containerd_s_files() {
    let state = "io.containerd.runtime.v2.task";
    let folder = Folder::new();
    folder.write("run/containerd/io.containerd.runtime.v2.task/default/x", "");
    folder.write(
        &format!("run/k3s/containerd/{state}/k8s.io/{ID}/config.json"),
        r#"{"ociVersion":"1.1.0","annotations":{"io.kubernetes.cri.container-name":"app",
        "io.kubernetes.cri.container-type":"container","io.kubernetes.cri.image-name":"docker.io/x:1",
        "io.kubernetes.cri.sandbox-name":"web-0","io.kubernetes.cri.sandbox-namespace":"prod"}}"#,
    );
    let found = ask(&folder, Source::ContainerdState, ID)
        .await
        .expect("read");
    assert_eq!(
        found,
        Some(details("", "docker.io/x:1", "web-0", "prod", "app"))
    );
    let folder = Folder::new();
    folder.write(
        &format!("run/containerd/{state}/tenant-7/{ID}/config.json"),
        r#"{"annotations":{"nerdctl/name":"web","nerdctl/hostname":"4cc8"}}"#,
    );
    let found = ask(&folder, Source::ContainerdState, ID)
        .await
        .expect("read");
    assert_eq!(found, Some(details("web", "", "", "", "")));
    // By ctr, which annotates nothing.
    folder.write(
        &format!("run/containerd/{state}/default/redis-1/config.json"),
        r#"{"process":{}}"#,
    );
    let found = ask(&folder, Source::ContainerdState, "redis-1").await;
    assert_eq!(
        found.expect("read"),
        Some(details("redis-1", "", "", "", ""))
    );
    // By Docker.
    folder.write(
        &format!("run/containerd/io.containerd.runtime.v1.linux/moby/{UID}/config.json"),
        "nonsense",
    );
    let error = ask(&folder, Source::ContainerdState, UID).await;
    assert!(matches!(error, Err(Error::Json { .. })), "{error:?}");
}

#[tokio::test]
async fn the_files_of_crio() {
    let folder = Folder::new();
    folder.write(
        &format!("run/containers/storage/overlay-containers/{ID}/userdata/config.json"),
        r#"{"annotations":{"io.kubernetes.container.name":"app","io.kubernetes.pod.name":"web-0",
        "io.kubernetes.pod.namespace":"prod","io.kubernetes.cri-o.ImageName":"quay.io/x:1",
        "io.kubernetes.cri-o.Labels":"{}"}}"#,
    );
    let found = ask(&folder, Source::ContainerStorage, ID)
        .await
        .expect("read");
    assert_eq!(
        found,
        Some(details("", "quay.io/x:1", "web-0", "prod", "app"))
    );
    // The sandbox.
    folder.write(
        &format!("run/containers/storage/overlay-containers/{UID}/userdata/config.json"),
        r#"{"annotations":{"io.kubernetes.container.name":"POD","io.kubernetes.pod.name":"web-0",
        "io.kubernetes.pod.namespace":"prod"}}"#,
    );
    let found = ask(&folder, Source::ContainerStorage, UID)
        .await
        .expect("read");
    assert_eq!(found, Some(details("", "", "web-0", "prod", "")));
}

#[tokio::test]
async fn the_files_of_podman() {
    let folder = Folder::new();
    let other = r#"{"id":"aa","names":["other"],"image":"bb","metadata":"{}","flags":{}}"#;
    let mine = format!(
        r#"{{"id":"{ID}","names":["web"],"image":"d7af","layer":"67b0",
        "metadata":"{{\"image-name\":\"docker.io/library/nginx:1\",\"name\":\"web\"}}"}}"#
    );
    let storage = "var/lib/containers/storage/overlay-containers";
    folder.write(&format!("{storage}/containers.json"), &format!("[{other}]"));
    let none = ask(&folder, Source::ContainerStorage, ID).await;
    assert_eq!(none.expect("read"), None);
    let wanted = Some(details("web", "docker.io/library/nginx:1", "", "", ""));
    // As of `podman run --rm`, and of another driver.
    let lists = [
        "overlay-containers/volatile-containers.json",
        "vfs-containers/containers.json",
    ];
    for list in lists {
        let folder = Folder::new();
        let list = format!("var/lib/containers/storage/{list}");
        folder.write(&list, &format!("[{other},{mine}]"));
        let found = ask(&folder, Source::ContainerStorage, ID).await;
        assert_eq!(found.expect("read"), wanted);
    }
    let broken = format!(r#"[{{"id":"{ID}","metadata":"{{"}}]"#);
    folder.write(&format!("{storage}/containers.json"), &broken);
    let error = ask(&folder, Source::ContainerStorage, ID)
        .await
        .expect_err("half");
    assert!(
        error
            .to_string()
            .contains("containers.json, metadata of 4cc8"),
        "{error}"
    );
}

#[tokio::test]
async fn folders_of_logs() {
    let folder = Folder::new();
    folder.write(&format!("var/log/pods/prod_web-0_{UID}/app/0.log"), "");
    folder.write("var/log/pods/prod_other_1/app/0.log", "");
    // One container, and nothing that tells it from the sandbox.
    let found = ask(&folder, Source::PodFolders, ID).await.expect("read");
    assert_eq!(found, Some(details("", "", "web-0", "prod", "app")));
    folder.write(&format!("var/log/pods/prod_web-0_{UID}/init/0.log"), "");
    let found = ask(&folder, Source::PodFolders, ID).await.expect("read");
    assert_eq!(found, Some(details("", "", "web-0", "prod", "")));
    // With links, each container is known, and the sandbox has none.
    folder.write(
        &format!("var/log/containers/web-0_prod_my-app-{ID}.log"),
        "",
    );
    let found = ask(&folder, Source::PodFolders, ID).await.expect("read");
    assert_eq!(found, Some(details("", "", "web-0", "prod", "my-app")));
    let sandbox = ID.replace('4', "5");
    std::fs::remove_dir_all(
        folder
            .path()
            .join(format!("var/log/pods/prod_web-0_{UID}/init")),
    )
    .expect("folder");
    let found = ask(&folder, Source::PodFolders, &sandbox).await;
    assert_eq!(
        found.expect("read"),
        Some(details("", "", "web-0", "prod", ""))
    );
}

#[tokio::test]
async fn folders_of_the_kubelet() {
    let folder = Folder::new();
    let pod = format!("var/lib/kubelet/pods/{UID}");
    folder.write(&format!("{pod}/containers/app/1f2e3d4c"), "");
    folder.write(
        &format!("{pod}/etc-hosts"),
        "# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost\n\
        fe00::0\tip6-localnet\nfe00::1\tip6-allnodes\nfe00::2\tip6-allrouters\n\
        10.244.0.5\tweb-0.sub.prod.svc.cluster.local\tweb-0\n\n# Entries added by HostAliases.\n\
        10.1.2.3\tfoo\n",
    );
    folder.write(
        &format!("{pod}/volumes/kubernetes.io~secret/mine/namespace"),
        "wrong",
    );
    let found = ask(&folder, Source::PodFolders, ID).await.expect("read");
    assert_eq!(found, Some(details("", "", "web-0", "", "app")));
    let volume = "volumes/kubernetes.io~projected/kube-api-access-x7x8x/namespace";
    folder.write(&format!("{pod}/{volume}"), "prod");
    let found = ask(&folder, Source::PodFolders, ID).await.expect("read");
    assert_eq!(found, Some(details("", "", "web-0", "prod", "app")));
    // In the node's network, and with a name that is perhaps cut.
    for hosts in [
        "# Kubernetes-managed hosts file (host network).\n127.0.0.1\tlocalhost\n10.0.0.9\tnode\n",
        &format!(
            "# Kubernetes-managed hosts file.\n10.244.0.5\t{}\n",
            "a".repeat(63)
        ),
        "# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n",
        "",
    ] {
        folder.write(&format!("{pod}/etc-hosts"), hosts);
        let found = ask(&folder, Source::PodFolders, ID).await.expect("read");
        assert_eq!(found, Some(details("", "", "", "prod", "app")), "{hosts}");
    }
}
