//! The sources that are asked, and do not always answer.

use super::*;
use crate::identity::container::fixture::{Behaviour, Daemon, answers};

#[tokio::test]
async fn docker_s_socket() {
    let folder = Folder::new();
    let socket = folder.path().join("run/docker.sock");
    let daemon = Daemon::on_socket(&socket, answers(DOCKER));
    let mut sources = Sources::new(Options::below(folder.path()), SHORT);
    let question = question(ID);
    let found = sources
        .ask(Source::Docker, &question)
        .await
        .expect("answer");
    assert_eq!(found, Some(details("web-1", "nginx:1.27", "", "", "")));
    let line = format!("GET /containers/{ID}/json HTTP/1.1");
    assert_eq!(daemon.asked(), [line]);
    let missing = r#"{"message":"No such container"}"#.to_owned();
    daemon.behave(Behaviour::Answers("404 Not Found", missing));
    let found = sources
        .ask(Source::Docker, &question)
        .await
        .expect("answer");
    assert_eq!(found, Some(Details::default()));
    for (behaviour, text) in [
        (answers("<html>"), "expected value at line 1"),
        (Behaviour::Answers("500 Oops", String::new()), "500"),
        (Behaviour::Writes("garbage\r\n\r\n"), "no valid answer"),
        (
            Behaviour::Writes("HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{\"Name\":"),
            "cannot read the answer",
        ),
        (Behaviour::Writes(""), "no valid answer"),
        (
            answers(" ".repeat(LONGEST_FILE + 1)),
            "cannot read the answer",
        ),
        (Behaviour::Hangs, "no answer within 200ms"),
    ] {
        daemon.behave(behaviour);
        let error = sources
            .ask(Source::Docker, &question)
            .await
            .expect_err(text);
        assert!(error.to_string().contains(text), "{error}");
        assert!(error.to_string().contains("docker.sock"), "{error}");
    }
    daemon.behave(answers(DOCKER));
    assert!(sources.ask(Source::Docker, &question).await.is_ok());
}

#[tokio::test]
async fn a_daemon_that_fails_is_left_alone_for_a_while() {
    let folder = Folder::new();
    let socket = folder.path().join("run/podman/podman.sock");
    let daemon = Daemon::on_socket(&socket, Behaviour::Writes(""));
    let patience = Patience {
        back_off: [50, 100, 200].map(Duration::from_millis),
        ..SHORT
    };
    let mut sources = Sources::new(Options::below(folder.path()), patience);
    let question = question(ID);
    assert!(sources.ask(Source::Podman, &question).await.is_err());
    daemon.behave(answers(DOCKER));
    assert_eq!(
        sources.ask(Source::Podman, &question).await.expect("alone"),
        None
    );
    assert_eq!(daemon.asked().len(), 1);
    tokio::time::sleep(Duration::from_millis(60)).await;
    assert!(
        sources
            .ask(Source::Podman, &question)
            .await
            .expect("answer")
            .is_some()
    );
}

fn pods() -> String {
    let items = format!(
        r#"[{{"metadata":{{"name":"web-0","namespace":"prod","uid":"{UID}"}},"spec":{{}},"status":
        {{"phase":"Running","containerStatuses":[{{"name":"app","image":"docker.io/library/x:1",
        "containerID":"containerd://{ID}"}},{{"name":"late","image":"y"}}],
        "initContainerStatuses":[{{"name":"init","image":"sha256:1","containerID":"cri-o://aa"}}]}}}},
        {{"metadata":{{"name":"etcd-n1","namespace":"kube-system","uid":"other",
        "annotations":{{"kubernetes.io/config.hash":"5e6f"}}}}}}]"#
    );
    format!(r#"{{"kind":"PodList","apiVersion":"v1","metadata":{{}},"items":{items}}}"#)
}

#[tokio::test]
async fn the_kubelet() {
    let (daemon, port) = Daemon::on_port(answers(pods()));
    let mut options = Options::below("/nowhere");
    let url = format!("http://127.0.0.1:{port}");
    options.kubelet_url = Some(url.parse().expect("URL"));
    let patience = Patience {
        pods: Duration::from_mins(1),
        ..SHORT
    };
    let mut sources = Sources::new(options.clone(), patience);
    let mut question = question(ID);
    let mut ask = async |id: &str, uid: &str| {
        question.container.id = id.to_owned();
        question.pod_uid = Some(uid.to_owned());
        let told = sources.ask(Source::Kubelet, &question).await;
        told.expect("answer").expect("known")
    };
    let image = "docker.io/library/x:1";
    assert_eq!(
        ask(ID, UID).await,
        details("", image, "web-0", "prod", "app")
    );
    assert_eq!(
        ask("aa", UID).await,
        details("", "", "web-0", "prod", "init")
    );
    // A sandbox, a static pod, a pod of another node.
    assert_eq!(ask("bb", UID).await, details("", "", "web-0", "prod", ""));
    let wanted = details("", "", "etcd-n1", "kube-system", "");
    assert_eq!(ask("bb", "5e6f").await, wanted);
    assert_eq!(ask("bb", "cc").await, Details::default());
    assert_eq!(daemon.asked(), ["GET /pods HTTP/1.1"]);
    let mut sources = Sources::new(options, SHORT);
    for body in ["{}", r#"{"items":null}"#] {
        daemon.behave(answers(body));
        let told = sources.ask(Source::Kubelet, &question).await;
        assert_eq!(told.expect("answer"), Some(Details::default()));
    }
    daemon.behave(answers("{"));
    let error = sources.ask(Source::Kubelet, &question).await;
    let error = error.expect_err("half").to_string();
    assert!(error.starts_with(&format!("{url}/pods: EOF")), "{error}");
}
