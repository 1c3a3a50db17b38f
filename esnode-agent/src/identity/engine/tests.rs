//! All trees of `trees/*.toml`: every process of every tree comes out as the tree says, or as no engine's.

use super::*;
use proptest::{collection::vec, prelude::*};
use serde::Deserialize;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::LazyLock,
};

mod rule_files;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Trees {
    tree: Vec<Tree>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Tree {
    name: String,
    process: Vec<Process>,
}

/// A process; `is` is empty where it works for no engine.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Process {
    pid: u32,
    parent: u32,
    comm: String,
    argv: Line,
    #[serde(default)]
    env: BTreeMap<String, String>,
    #[serde(default)]
    gpu: bool,
    #[serde(default)]
    maps: String,
    #[serde(default)]
    is: String,
}

/// A command line, cut at blanks where it is one string.
#[derive(Deserialize)]
#[serde(untagged)]
enum Line {
    Text(String),
    Arguments(Vec<String>),
}

impl Line {
    /// As `/proc/PID/cmdline` has it; titles keep the room that they were written over.
    fn cmdline(&self) -> Vec<u8> {
        let (mut line, title) = match self {
            Self::Text(text) => (text.replace(' ', "\0"), !text.contains(' ')),
            Self::Arguments(arguments) => (arguments.join("\0"), arguments.len() == 1),
        };
        line.push_str(if title { "\0\0\0\0\0\0\0" } else { "\0" });
        line.into_bytes()
    }
}

/// A tree, with what the engines read from each command line.
struct Census<'a> {
    tree: &'a Tree,
    own: BTreeMap<u32, Own>,
}

impl<'a> Census<'a> {
    fn of(engines: &Engines, tree: &'a Tree) -> Self {
        let own = tree
            .process
            .iter()
            .filter_map(|process| {
                let argv = arguments(&process.argv.cmdline());
                Some((process.pid, engines.own(&process.comm, &argv)?))
            })
            .collect();
        Self { tree, own }
    }

    fn process(&self, pid: u32) -> Option<&Process> {
        self.tree.process.iter().find(|process| process.pid == pid)
    }
}

impl Family for Census<'_> {
    fn parent(&self, pid: u32) -> Option<u32> {
        self.process(pid)
            .map(|process| process.parent)
            .filter(|parent| *parent != 0)
    }

    fn own(&self, pid: u32) -> Option<&Own> {
        self.own.get(&pid)
    }

    fn environment(&self, pid: u32, name: &str) -> Option<String> {
        self.process(pid)?.env.get(name).cloned()
    }

    fn holds_gpu(&self, pid: u32) -> bool {
        self.process(pid).is_some_and(|process| process.gpu)
    }

    fn maps(&self, pid: u32, library: &str) -> bool {
        self.process(pid)
            .is_some_and(|process| process.maps.contains(library))
    }
}

/// A worker as trees write it: `vllm worker rank=TP1 model=M server=1`.
fn written(worker: Option<&Worker>) -> String {
    let Some(worker) = worker else {
        return String::new();
    };
    let mut text = format!("{} {}", worker.engine, worker.role);
    let named = [("rank", &worker.rank), ("model", &worker.model)];
    for (name, value) in named {
        if let Some(value) = value {
            text.extend([" ", name, "=", value]);
        }
    }
    if let Some(server) = worker.server {
        text.extend([" server=", &server.to_string()]);
    }
    text
}

/// What is wrong with a tree, one line per process.
fn faults(engines: &Engines, tree: &Tree) -> Vec<String> {
    let census = Census::of(engines, tree);
    tree.process
        .iter()
        .filter_map(|process| {
            let found = written(engines.resolve(process.pid, &census).as_ref());
            (found != process.is).then(|| {
                format!(
                    "{}, pid {}: {:?}, not {:?}",
                    tree.name, process.pid, found, process.is
                )
            })
        })
        .collect()
}

fn trees() -> Vec<Tree> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/identity/engine/trees");
    let mut trees = Vec::new();
    for file in std::fs::read_dir(&folder).unwrap() {
        let path = file.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        let parsed: Trees =
            toml::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        trees.extend(parsed.tree);
    }
    trees
}

#[test]
fn every_tree_comes_out_as_it_says() {
    let engines = Engines::built_in();
    let faults: Vec<String> = trees()
        .iter()
        .flat_map(|tree| faults(&engines, tree))
        .collect();
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

#[test]
fn trees_are_many_and_whole() {
    let trees = trees();
    let names: BTreeSet<&str> = trees.iter().map(|tree| tree.name.as_str()).collect();
    assert_eq!(names.len(), trees.len(), "two trees of one name");
    let look_alikes = trees
        .iter()
        .filter(|tree| tree.process.iter().all(|process| process.is.is_empty()));
    assert!(look_alikes.count() >= 15);
    assert!(trees.len() >= 50, "only {}", trees.len());
    for tree in &trees {
        let pids: BTreeSet<u32> = tree.process.iter().map(|process| process.pid).collect();
        assert_eq!(pids.len(), tree.process.len(), "{}: a PID twice", tree.name);
        for process in &tree.process {
            assert!(
                process.comm.len() <= 15,
                "{}: comm {}",
                tree.name,
                process.comm
            );
            let parent = process.parent;
            assert!(
                parent <= 1 || pids.contains(&parent),
                "{}: no {parent}",
                tree.name
            );
        }
    }
}

fn process(pid: u32, parent: u32, argv: &str) -> Process {
    Process {
        pid,
        parent,
        comm: String::new(),
        argv: Line::Text(argv.to_owned()),
        env: BTreeMap::new(),
        gpu: false,
        maps: String::new(),
        is: String::new(),
    }
}

/// What the first process of a tree is.
fn first(engines: &Engines, process: Vec<Process>) -> String {
    let tree = Tree {
        name: String::new(),
        process,
    };
    let pid = tree.process.first().map_or(0, |process| process.pid);
    written(engines.resolve(pid, &Census::of(engines, &tree)).as_ref())
}

#[test]
fn a_loop_of_parents_ends() {
    let engines = Engines::built_in();
    let tree = vec![
        process(1, 2, "cc1 x.c"),
        process(2, 3, "vllm serve M"),
        process(3, 1, "cat x"),
    ];
    assert_eq!(first(&engines, tree), "vllm child model=M server=2");
    assert_eq!(
        first(&engines, vec![process(1, 1, "vllm serve M")]),
        "vllm server model=M server=1"
    );
}

#[test]
fn ancestors_beyond_sight_do_not_count() {
    let engines = Engines::built_in();
    let chain = |depth: u32| {
        let mut tree: Vec<Process> = (1..depth)
            .map(|pid| process(pid, pid + 1, "cc1 x.c"))
            .collect();
        tree.push(process(depth, 0, "vllm serve M"));
        first(&engines, tree)
    };
    assert_eq!(chain(64), "vllm child model=M server=64");
    assert_eq!(chain(65), "");
    assert_eq!(chain(10_000), "");
}

/// Words that rules look for, and anything else.
fn word() -> impl Strategy<Value = String> {
    let known = [
        "python3",
        "-m",
        "-c",
        "-",
        "--",
        "-X",
        "vllm",
        "serve",
        "sh",
        "--model",
        "--model=",
        "=",
        "-O3",
        "multiprocessing.spawn",
        "VLLM::Worker_TP0",
        "ray::IDLE",
        "llama-server",
        "x.gguf",
        "é",
        "",
    ];
    prop_oneof![
        proptest::sample::select(known.to_vec()).prop_map(str::to_owned),
        ".{0,24}".prop_map(|text| text),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// No command line and no family makes it panic or hang, and a process is only ever its own or an ancestor's.
    #[test]
    fn any_command_line_is_read(
        lines in vec((vec(word(), 0..6), word(), 0_u32..6, any::<bool>()), 1..6),
    ) {
        static ENGINES: LazyLock<Engines> = LazyLock::new(Engines::built_in);
        let engines = &*ENGINES;
        let process = lines
            .into_iter()
            .zip(1_u32..)
            .map(|((argv, comm, parent, gpu), pid)| Process {
                pid,
                parent,
                comm,
                argv: Line::Arguments(argv),
                env: BTreeMap::new(),
                gpu,
                maps: String::new(),
                is: String::new(),
            })
            .collect();
        let tree = Tree { name: String::new(), process };
        let census = Census::of(engines, &tree);
        for process in &tree.process {
            if let Some(worker) = engines.resolve(process.pid, &census) {
                prop_assert!(worker.server.is_none_or(|server| census.process(server).is_some()));
                prop_assert!(!worker.engine.is_empty() && !worker.role.is_empty());
            }
        }
    }

    /// Arguments survive being written to `cmdline`, but for what reads as padding.
    #[test]
    fn any_bytes_are_arguments(bytes in vec(any::<u8>(), 0..64)) {
        let argv = arguments(&bytes);
        prop_assert!(argv.last().is_none_or(|last| !last.is_empty()) || argv.len() == 1);
    }
}
