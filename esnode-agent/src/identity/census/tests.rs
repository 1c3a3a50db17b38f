use super::*;
use crate::process::select::SelectRule;
use esnode_ebpf::NAME_LEN;
use std::{fs, path::PathBuf};

const SHELL: &[&str] = &["/bin/bash"];
const SERVER: &[&str] = &["python3", "/usr/local/bin/vllm", "serve", "org/model"];
const WORKER: &[&str] = &["VLLM::Worker_TP1"];
const CONTAINER: &str = "1f2e3d4c5b6a79880716253443526170a1b2c3d4e5f60718293a4b5c6d7e8f90";

/// A folder that stands for `/proc`, and the processes in it.
struct Host {
    root: PathBuf,
    processes: Vec<Process>,
}

impl Host {
    fn new(name: &str) -> Self {
        let root =
            std::env::temp_dir().join(format!("esnode-census-{name}-{}", std::process::id()));
        Self {
            root,
            processes: Vec::new(),
        }
    }

    fn add(&mut self, pid: u32, parent: u32, argv: &[&str]) {
        self.write(pid, argv);
        self.processes.push(Process {
            key: Key {
                pid,
                start_nanoseconds: 7,
            },
            parent,
            name: comm(argv),
            memory: u64::from(pid),
            ..Process::default()
        });
    }

    fn write(&self, pid: u32, argv: &[&str]) {
        let folder = self.root.join(pid.to_string());
        fs::create_dir_all(&folder).expect("folder");
        fs::write(folder.join("cmdline"), argv.join("\0") + "\0").expect("file");
        fs::write(folder.join("cgroup"), format!("0::/docker/{CONTAINER}\n")).expect("file");
    }

    fn process(&mut self, pid: u32) -> &mut Process {
        let found = self.processes.iter_mut().find(|it| it.key.pid == pid);
        found.expect("there")
    }

    fn remove(&mut self, pid: u32) {
        self.processes.retain(|it| it.key.pid != pid);
        fs::remove_dir_all(self.root.join(pid.to_string())).expect("removed");
    }

    fn census(&self, select: &[&str], groups: Option<&str>) -> Census {
        let select: Vec<SelectRule> = select.iter().map(|it| it.parse().expect("rule")).collect();
        let groups = groups.map(|text| {
            Arc::new(Config::parse(Path::new("config.yaml"), text).expect("configuration"))
        });
        let rules = Rules {
            engines: Engines::built_in(),
            groups,
            select: Selector::new(&select).expect("small"),
        };
        Census::new(&self.root, rules, None, None)
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.root);
    }
}

fn comm(argv: &[&str]) -> Name {
    let base = argv[0].rsplit('/').next().expect("a name");
    let mut bytes = [0; NAME_LEN];
    for (to, from) in bytes.iter_mut().zip(base.bytes()).take(NAME_LEN - 1) {
        *to = from;
    }
    Name::from_bytes(bytes)
}

fn look(census: &mut Census, host: &Host) {
    census.look(&host.processes, &FxHashSet::default());
}

fn of(census: &Census, pid: u32) -> Identity {
    census.of(Key {
        pid,
        start_nanoseconds: 7,
    })
}

fn work(census: &Census, pid: u32) -> (String, Option<u32>) {
    let identity = of(census, pid);
    let server = identity.worker.as_ref().and_then(|worker| worker.server);
    (identity.work().join(" ").trim().to_owned(), server)
}

#[test]
fn a_worker_keeps_its_model_when_the_server_is_gone() {
    let mut host = Host::new("orphan");
    host.add(10, 1, SERVER);
    host.add(11, 10, WORKER);
    host.add(12, 11, &["nvcc", "--version"]);
    host.add(13, 1, SHELL);
    let mut census = host.census(&[], None);
    look(&mut census, &host);
    assert_eq!(
        work(&census, 10),
        ("vllm server org/model".into(), Some(10))
    );
    assert_eq!(
        work(&census, 11),
        ("vllm worker org/model".into(), Some(10))
    );
    assert_eq!(of(&census, 11).rank(), "TP1");
    assert_eq!(work(&census, 12), ("vllm child org/model".into(), Some(10)));
    assert_eq!(work(&census, 13), (String::new(), None));
    let key = |pid| {
        host.processes
            .iter()
            .find(|it| it.key.pid == pid)
            .expect("there")
            .key
    };
    assert_eq!(census.claim(key(11)), Claim::Worker);
    assert_eq!(census.claim(key(12)), Claim::Child);
    assert_eq!(census.claim(key(13)), Claim::Busy);

    host.remove(10);
    host.process(11).parent = 1;
    look(&mut census, &host);
    assert_eq!(work(&census, 11), ("vllm worker org/model".into(), None));
    assert_eq!(work(&census, 12).0, "vllm child org/model");
    assert!(of(&census, 10).worker.is_none());
}

#[test]
fn another_program_is_somebody_else() {
    let mut host = Host::new("exec");
    host.add(10, 1, SHELL);
    let mut census = host.census(&[], None);
    look(&mut census, &host);
    assert_eq!(work(&census, 10).0, "");
    // The same name as before, but an exec.
    host.write(10, SERVER);
    look(&mut census, &host);
    assert_eq!(
        work(&census, 10).0,
        "",
        "nothing tells that there is anything new"
    );
    host.process(10).memory = 99;
    look(&mut census, &host);
    assert_eq!(work(&census, 10).0, "vllm server org/model");
    // And back.
    host.write(10, SHELL);
    host.process(10).memory = 100;
    look(&mut census, &host);
    assert_eq!(work(&census, 10).0, "");
}

#[test]
fn a_title_is_read_when_the_name_changes() {
    let mut host = Host::new("title");
    host.add(10, 1, SERVER);
    let spawn = [
        "python3",
        "-c",
        "from multiprocessing.spawn import spawn_main; spawn_main()",
    ];
    host.add(11, 10, &spawn);
    let mut census = host.census(&[], None);
    look(&mut census, &host);
    assert_eq!(work(&census, 11).0, "vllm worker org/model");
    host.write(11, &["VLLM::EngineCore"]);
    host.process(11).name = comm(&["VLLM::EngineCore"]);
    look(&mut census, &host);
    assert_eq!(work(&census, 11).0, "vllm engine-core org/model");
}

#[test]
fn a_control_group_is_read_again_when_its_number_changes() {
    let mut host = Host::new("cgroup");
    host.add(10, 1, SHELL);
    host.process(10).cgroup = Some(5);
    let mut census = host.census(&[], None);
    look(&mut census, &host);
    assert_eq!(of(&census, 10).place()[0], CONTAINER);
    fs::write(host.root.join("10/cgroup"), "0::/user.slice\n").expect("file");
    look(&mut census, &host);
    assert_eq!(of(&census, 10).place()[0], CONTAINER);
    host.process(10).cgroup = Some(6);
    look(&mut census, &host);
    assert_eq!(of(&census, 10).container(), None);
    host.remove(10);
    look(&mut census, &host);
    assert!(census.people.is_empty());
}

/// The first process of a container begins on the host: what the kernel said of it is older than
/// what its files say, and must not make a container of the host's group.
#[test]
fn who_moves_while_being_looked_at_takes_nobody_along() {
    let mut host = Host::new("moving");
    host.add(10, 1, SHELL);
    host.process(10).cgroup = Some(1);
    let mut census = host.census(&[], None);
    look(&mut census, &host);
    assert_eq!(of(&census, 10).place()[0], CONTAINER);
    host.process(10).cgroup = Some(5);
    for pid in [11, 12] {
        host.add(pid, 1, SHELL);
        host.process(pid).cgroup = Some(1);
        fs::write(host.root.join(format!("{pid}/cgroup")), "0::/\n").expect("file");
        look(&mut census, &host);
        assert_eq!(of(&census, 10).place()[0], CONTAINER);
        assert_eq!(of(&census, pid).container(), None, "{pid}");
    }
}

#[test]
fn without_numbers_a_move_is_seen_at_the_next_look() {
    let mut host = Host::new("moves");
    host.add(10, 1, SHELL);
    fs::write(host.root.join("10/cgroup"), "0::/user.slice\n").expect("file");
    let mut census = host.census(&[], None);
    look(&mut census, &host);
    assert_eq!(of(&census, 10).container(), None);
    let odd = [format!("0::/docker/{CONTAINER}/x").as_bytes(), b"\xff\n"].concat();
    fs::write(host.root.join("10/cgroup"), odd).expect("file");
    look(&mut census, &host);
    assert_eq!(of(&census, 10).place()[0], CONTAINER);
}

#[test]
fn what_a_process_says_of_itself_is_text_without_controls() {
    let mut host = Host::new("controls");
    host.add(10, 1, &["vllm", "serve", "org/\x1b[31mmodel\n\u{202e}"]);
    let mut census = host.census(&[], None);
    look(&mut census, &host);
    assert_eq!(of(&census, 10).work()[2], r"org/\x1b[31mmodel\x0a\u{202e}");
}

#[test]
fn children_are_in_the_group_of_the_nearest_that_a_rule_names() {
    let mut host = Host::new("rules");
    let prog = ["/usr/bin/prog", "--name", "a"];
    host.add(10, 1, &prog);
    host.add(11, 10, SHELL);
    host.add(12, 11, &["sleep", "1"]);
    host.add(13, 1, SHELL);
    let config = "process_names:\n- name: \"{{.Comm}}-{{.Matches.N}}\"\n  exe: [prog]\n  \
                  cmdline: ['--name (?P<N>\\w+)']\n";
    let mut census = host.census(&[], Some(config));
    look(&mut census, &host);
    let rule = |census: &Census, pid| of(census, pid).rule.map(|rule| rule.to_string());
    for pid in [10, 11, 12] {
        assert_eq!(rule(&census, pid).as_deref(), Some("prog-a"), "{pid}");
    }
    assert_eq!(rule(&census, 13), None);
    // Whoever was in it stays when the others are gone.
    host.remove(10);
    host.process(11).parent = 1;
    look(&mut census, &host);
    assert_eq!(rule(&census, 12).as_deref(), Some("prog-a"));
}

#[test]
fn selection_by_what_processes_say_and_by_what_is_found_out() {
    let mut host = Host::new("select");
    host.add(10, 1, SERVER);
    host.add(11, 1, &["sleep", "--seconds", "60"]);
    host.add(12, 1, SHELL);
    for (rule, expected) in [
        ("sleep", vec![11]),
        ("cmdline=--seconds 6", vec![11]),
        ("engine=vllm", vec![10]),
        ("model=^org/", vec![10]),
        ("container=1f2e3d4c", vec![10, 11, 12]),
        ("cgroup=^/docker/", vec![10, 11, 12]),
        ("user=no such user", Vec::new()),
    ] {
        let mut census = host.census(&[rule], None);
        look(&mut census, &host);
        let wanted = [10, 11, 12]
            .into_iter()
            .filter(|pid| of(&census, *pid).wanted);
        assert_eq!(wanted.collect::<Vec<_>>(), expected, "{rule}");
    }
    let me = rustix::process::geteuid().as_raw();
    let mut census = host.census(&[&format!("user={me}")], None);
    look(&mut census, &host);
    assert!(of(&census, 12).wanted);
}

#[test]
fn what_could_not_be_read_is_read_later() {
    let mut host = Host::new("later");
    host.add(10, 1, SERVER);
    fs::remove_file(host.root.join("10/cmdline")).expect("removed");
    let mut census = host.census(&[], None);
    look(&mut census, &host);
    assert_eq!(work(&census, 10).0, "");
    host.write(10, SERVER);
    look(&mut census, &host);
    assert_eq!(work(&census, 10).0, "vllm server org/model");
}
