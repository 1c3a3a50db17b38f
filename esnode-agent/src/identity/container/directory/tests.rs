use super::*;
use crate::identity::container::{
    Source,
    fixture::{Behaviour, Daemon, Folder, ID, UID, answers},
};
use std::{fs, path::PathBuf};

const NAMED: &str = r#"{"Name":"/web-1","Config":{"Image":"nginx:1.27","Labels":{}}}"#;

fn start(folder: &Folder) -> Directory {
    let ms = Duration::from_millis;
    let timing = Timing {
        back_off: [ms(20); 4],
        ..Timing::default()
    };
    let patience = Patience {
        answer: ms(300),
        back_off: [ms(20); 3],
        pods: ms(20),
    };
    Directory::start_with(Options::below(folder.path()), timing, patience).expect("thread")
}

fn container(runtime: Runtime, id: &str) -> ContainerRef {
    let id = id.to_owned();
    ContainerRef { runtime, id }
}

/// Looks up until that is known which is waited for.
#[track_caller]
fn wait<T>(mut known: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    let mut pace = Pace::default();
    loop {
        if let Some(found) = pace.time(&mut known) {
            pace.check();
            return found;
        }
        assert!(begun.elapsed() < Duration::from_secs(30), "nobody knows");
        thread::sleep(Duration::from_millis(2));
    }
}

/// That lookups wait for nothing. A busy machine holds up a few of many, whatever they do; if they
/// waited for a daemon or for room in the queue, nearly all would be slow.
#[derive(Default)]
struct Pace {
    lookups: usize,
    slow: Vec<Duration>,
}

impl Pace {
    fn time<T>(&mut self, look_up: impl FnOnce() -> T) -> T {
        let begun = Instant::now();
        let found = look_up();
        let took = begun.elapsed();
        self.lookups += 1;
        if took > Duration::from_millis(50) {
            self.slow.push(took);
        }
        found
    }

    #[track_caller]
    fn check(&self) {
        let most = 3 + self.lookups / 1000;
        assert!(self.slow.len() <= most, "slow lookups: {:?}", self.slow);
    }
}

fn socket(folder: &Folder) -> PathBuf {
    folder.path().join("run/docker.sock")
}

#[test]
fn a_name_comes_in_the_background() {
    let folder = Folder::new();
    let directory = start(&folder);
    let daemon = Daemon::on_socket(&socket(&folder), answers(NAMED));
    let docker = container(Runtime::Docker, ID);
    assert_eq!(directory.lookup(&docker, None), None);
    let details = wait(|| directory.lookup(&docker, None));
    assert_eq!(details.name.as_deref(), Some("web-1"));
    assert_eq!(details.image.as_deref(), Some("nginx:1.27"));
    // Nothing is left to ask for.
    thread::sleep(Duration::from_millis(100));
    assert_eq!(directory.lookup(&docker, None), Some(details));
    assert_eq!(daemon.asked().len(), 1);
    assert_eq!(
        (directory.complaint(), directory.last_error()),
        (None, None)
    );
}

#[test]
fn a_daemon_that_hangs_costs_nothing_but_its_names() {
    let folder = Folder::new();
    let daemon = Daemon::on_socket(&socket(&folder), Behaviour::Hangs);
    let state = "run/containerd/io.containerd.runtime.v2.task/k8s.io";
    folder.write(
        &format!("{state}/{ID}/config.json"),
        r#"{"annotations":{"nerdctl/name":"other"}}"#,
    );
    let directory = start(&folder);
    let docker = container(Runtime::Docker, ID);
    assert_eq!(directory.lookup(&docker, None), None);
    // Others are named meanwhile.
    let containerd = container(Runtime::Containerd, ID);
    let details = wait(|| directory.lookup(&containerd, None));
    assert_eq!(details.name.as_deref(), Some("other"));
    let complaint = wait(|| directory.complaint());
    assert_eq!(complaint.source, Source::Docker);
    assert!(
        complaint.reason.contains("no answer within"),
        "{complaint:?}"
    );
    // It goes on hanging, which is no news.
    let before = daemon.asked().len();
    wait(|| {
        let _ = directory.lookup(&docker, None);
        (daemon.asked().len() > before + 1).then_some(())
    });
    assert_eq!(directory.complaint(), None);
    // Started anew, it is asked again.
    fs::remove_file(socket(&folder)).expect("socket");
    Daemon::on_socket(&socket(&folder), answers(NAMED));
    let details = wait(|| directory.lookup(&docker, None));
    assert_eq!(details.name.as_deref(), Some("web-1"));
    assert!(directory.last_error().is_some());
}

#[test]
fn each_kind_of_failure_makes_one_complaint() {
    let folder = Folder::new();
    let daemon = Daemon::on_socket(&socket(&folder), answers("{"));
    let directory = start(&folder);
    let look_up = |from: usize, to: usize| {
        for number in from..to {
            let docker = container(Runtime::Docker, &format!("{number:064x}"));
            wait(|| {
                let _ = directory.lookup(&docker, None);
                (daemon.asked().len() > number).then_some(())
            });
        }
    };
    look_up(0, 5);
    let complaint = wait(|| directory.complaint());
    assert!(complaint.reason.contains("EOF"), "{complaint:?}");
    look_up(5, 8);
    assert_eq!(directory.complaint(), None);
    daemon.behave(Behaviour::Answers("500 Oops", String::new()));
    let docker = container(Runtime::Docker, ID);
    let complaint = wait(|| {
        let _ = directory.lookup(&docker, None);
        directory.complaint()
    });
    assert!(complaint.reason.contains("500"), "{complaint:?}");
    // It works, and fails again: that is news.
    daemon.behave(answers(NAMED));
    wait(|| directory.lookup(&docker, None));
    daemon.behave(Behaviour::Answers("500 Oops", String::new()));
    let other = container(Runtime::Docker, UID);
    let complaint = wait(|| {
        let _ = directory.lookup(&other, None);
        directory.complaint()
    });
    assert!(complaint.reason.contains("500"), "{complaint:?}");
}

#[test]
fn sources_complete_each_other() {
    let folder = Folder::new();
    let bundle = "run/containerd/io.containerd.runtime.v2.task/k8s.io";
    folder.write(
        &format!("{bundle}/{ID}/config.json"),
        r#"{"annotations":{"io.kubernetes.cri.image-name":"x:1"}}"#,
    );
    folder.write(&format!("var/log/containers/web-0_prod_app-{ID}.log"), "");
    let directory = start(&folder);
    let containerd = container(Runtime::Containerd, ID);
    let details = wait(|| directory.lookup(&containerd, Some(UID)));
    let some = |text: &str| Some(text.to_owned());
    let wanted = Details {
        name: some("app"),
        image: some("x:1"),
        pod: some("web-0"),
        namespace: some("prod"),
        kubernetes_container: some("app"),
    };
    assert_eq!(*details, wanted);
}

#[test]
fn who_cannot_add_anything_is_not_asked() {
    let folder = Folder::new();
    let daemon = Daemon::on_socket(&socket(&folder), answers(NAMED));
    let bundle = "run/containerd/io.containerd.runtime.v2.task/k8s.io";
    folder.write(
        &format!("{bundle}/{ID}/config.json"),
        r#"{"annotations":{"io.kubernetes.cri.image-name":"x:1",
        "io.kubernetes.cri.container-name":"app","io.kubernetes.cri.sandbox-name":"web-0",
        "io.kubernetes.cri.sandbox-namespace":"prod"}}"#,
    );
    let directory = start(&folder);
    let containerd = container(Runtime::Containerd, ID);
    let details = wait(|| directory.lookup(&containerd, Some(UID)));
    assert_eq!(details.name.as_deref(), Some("app"));
    assert!(daemon.asked().is_empty());
}

#[test]
fn machines_are_called_by_their_ids() {
    let directory = start(&Folder::new());
    for runtime in [Runtime::Nspawn, Runtime::Lxc] {
        let details = directory.lookup(&container(runtime, "web"), None);
        assert_eq!(details.expect("known").name.as_deref(), Some("web"));
    }
    let step = container(Runtime::Buildkit, "5cf82fwiumld3vcs5d5l5pzyv");
    assert_eq!(directory.lookup(&step, None), None);
}

#[test]
fn churn_keeps_it_small_and_quick() {
    let folder = Folder::new();
    let _daemon = Daemon::on_socket(&socket(&folder), Behaviour::Hangs);
    let directory = start(&folder);
    let mut pace = Pace::default();
    for number in 0..100_000 {
        let docker = container(Runtime::Docker, &format!("{number:064x}"));
        let known = pace.time(|| directory.lookup(&docker, None));
        assert_eq!(known, None);
    }
    pace.check();
    assert!(lock(&directory.shared.cache).len() <= 4096);
}

#[test]
fn the_thread_ends_with_it() {
    let folder = Folder::new();
    let daemon = Daemon::on_socket(&socket(&folder), Behaviour::Hangs);
    let directory = start(&folder);
    for number in 0..QUEUE {
        let _ = directory.lookup(&container(Runtime::Docker, &format!("{number:064x}")), None);
    }
    wait(|| (!daemon.asked().is_empty()).then_some(()));
    let thread = Arc::downgrade(&directory.shared);
    let begun = Instant::now();
    drop(directory);
    assert!(begun.elapsed() < Duration::from_millis(50));
    wait(|| (thread.strong_count() == 0).then_some(()));
}
