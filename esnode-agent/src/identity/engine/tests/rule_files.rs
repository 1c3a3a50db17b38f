//! Files of rules that users write: what they do, and what is said of wrong ones.

use super::{Engines, File, first, process};
use crate::identity::engine::rules::BUILT_IN;
use std::path::Path;

const OURS: &str = r#"
launchers = ["runit"]

[[rule]]
name = "ours"
engine = "ours"
role = "server"
server = true
program = ["our-server", "vllm"]
subcommand = ["serve"]
model = { flags = ["--weights"], position = 1 }

[[rule]]
name = "our workers"
engine = "ours"
role = "worker"
title = '^our-worker-(?<rank>\d+)$'
under = ["ours", "vllm"]
"#;

fn engines(text: &str) -> Engines {
    Engines::with_user_rules(Path::new("ours.toml"), text).unwrap()
}

fn error(text: &str) -> String {
    Engines::with_user_rules(Path::new("ours.toml"), text)
        .unwrap_err()
        .to_string()
}

#[test]
fn the_rules_that_are_built_in_are_rules() {
    if let Err(error) = File::parse(Path::new("rules.toml"), BUILT_IN, &[]) {
        panic!("{error}");
    }
}

#[test]
fn a_users_rules_come_first_and_the_others_stay() {
    let engines = engines(OURS);
    let one = |line: &str| first(&engines, vec![process(7, 0, line)]);
    assert_eq!(
        one("/opt/our-server serve --weights w"),
        "ours server model=w server=7"
    );
    assert_eq!(
        one("python3 /usr/bin/vllm serve M"),
        "ours server model=M server=7"
    );
    assert_eq!(
        one("vllm run-batch --model M"),
        "vllm batch model=M server=7"
    );
    assert_eq!(one("ollama serve"), "ollama server server=7");
    assert_eq!(one("our-worker-3"), "");
    let family = vec![
        process(8, 7, "our-worker-3"),
        process(7, 0, "our-server serve --weights w"),
    ];
    assert_eq!(
        first(&engines, family),
        "ours worker rank=3 model=w server=7"
    );
}

#[test]
fn a_users_launchers_adopt_nothing() {
    let family = |launcher| {
        vec![
            process(9, 8, "date"),
            process(8, 7, launcher),
            process(7, 0, "our-server serve --weights w"),
        ]
    };
    assert_eq!(first(&engines(OURS), family("runit x")), "");
    assert_eq!(first(&engines(OURS), family("sh x")), "");
    assert_eq!(
        first(&engines(OURS), family("make x")),
        "ours child model=w server=7"
    );
}

#[test]
fn an_empty_file_leaves_the_rules_as_they_are() {
    assert_eq!(
        first(&engines(""), vec![process(1, 0, "vllm serve M")]),
        "vllm server model=M server=1"
    );
}

#[test]
fn unknown_keys_are_errors_with_line_and_rule() {
    let text = "[[rule]]\nname = \"a\"\nengine = \"e\"\nrole = \"r\"\nprogram = [\"p\"]\n\n[[rule]]\nname = \"b\"\nengine = \"e\"\nrole = \"r\"\nprogramme = [\"p\"]\n";
    let error = error(text);
    assert!(
        error.starts_with("ours.toml, line 11, rule 2: unknown field `programme`"),
        "{error}"
    );
}

#[test]
fn text_that_is_no_toml_is_an_error_with_its_line() {
    let error = error("launchers = []\nrule = [\n");
    assert!(error.starts_with("ours.toml, line 2: "), "{error}");
}

#[test]
fn missing_keys_and_bad_patterns_are_errors() {
    let missing = error("[[rule]]\nname = \"a\"\nrole = \"r\"\nprogram = [\"p\"]\n");
    assert!(
        missing.contains("rule 1: missing field `engine`"),
        "{missing}"
    );
    let second = error(&format!("{OURS}\n[[rule]]\nname = \"a\"\nengine = \"e\"\n"));
    assert!(second.contains("rule 3: missing field `role`"), "{second}");
    let pattern = error("[[rule]]\nname = \"a\"\nengine = \"e\"\nrole = \"r\"\ntitle = '('\n");
    assert!(
        pattern.contains("line 5, rule 1: expected a regular expression"),
        "{pattern}"
    );
    let empty = error("[[rule]]\nname = \"a\"\nengine = \" \"\nrole = \"r\"\n");
    assert!(empty.contains("line 3, rule 1: expected a name"), "{empty}");
}

#[test]
fn rules_that_make_no_sense_are_named() {
    let rule = |keys: &str| {
        error(&format!(
            "[[rule]]\nname = \"a\"\nengine = \"e\"\nrole = \"r\"\n{keys}\n"
        ))
    };
    for (keys, expected) in [
        (
            "gpu = true",
            "one of program, script, module, python, code, title, comm",
        ),
        (
            "program = [\"\"]",
            "names that are not empty in program, script and module",
        ),
        (
            "program = [\"/usr/bin/p\"]",
            "base names in `program`, not the path \"/usr/bin/p\"; `path` takes a pattern for paths",
        ),
        (
            "program = [\"p\"]\nflags = [\"x\"]",
            "flags that begin with a dash, not \"x\"",
        ),
        (
            "program = [\"p\"]\nmodel = { position = 0 }",
            "`model.position` to count from 1",
        ),
        (
            "program = [\"p\"]\nmodel = { argument = 'x' }",
            "a group `(?<model>…)` in `model.argument`",
        ),
        (
            "program = [\"p\"]\nunder = [\"vlm\"]",
            "`under` to name engines that some rule gives, not \"vlm\"",
        ),
        (
            "title = 'x'\nroles = { A = \"b\" }",
            "a group `(?<role>…)` in `title` or `comm`, which `roles` refers to",
        ),
        (
            "title = 'x'\nenvironment = { A = \"{prefix}\" }",
            "a group `(?<prefix>…)` in `title`, which `environment` refers to",
        ),
    ] {
        assert_eq!(
            rule(keys),
            format!("ours.toml, rule 1 (a): expected {expected}")
        );
    }
}

#[test]
fn two_rules_of_one_name_are_an_error() {
    let rule = "[[rule]]\nname = \"a\"\nengine = \"e\"\nrole = \"r\"\nprogram = [\"p\"]\n";
    assert_eq!(
        error(&rule.repeat(2)),
        "ours.toml, rule 2 (a): expected a name that no earlier rule has"
    );
}
