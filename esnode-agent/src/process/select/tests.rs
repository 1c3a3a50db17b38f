//! What rules mean, and what is no rule.

use super::{SelectError, SelectField, SelectRule, SelectSubject, Selector};

fn rule(text: &str) -> SelectRule {
    text.parse()
        .unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn selector(rules: &[&str]) -> Selector {
    let rules: Vec<_> = rules.iter().map(|text| rule(text)).collect();
    Selector::new(&rules).expect("small")
}

const VLLM: SelectSubject<'static> = SelectSubject {
    comm: "VLLM::EngineCor",
    cmdline: Some("VLLM::EngineCore --port 8000"),
    cgroup: Some("/system.slice/docker-0a1b2c3d.scope"),
    user: Some("serve"),
    user_id: Some(1000),
    container: Some("vllm-1"),
    container_id: Some("0a1b2c3d"),
    engine: Some("vllm"),
    model: Some("meta-llama/Llama-3.1-8B"),
};

#[test]
fn without_a_field_it_is_the_command_name() {
    for text in [
        "^vllm",
        "a.b=c",
        "=",
        "A=b",
        "[a]=b",
        "comm=^vllm",
        "comm=a=b",
    ] {
        assert_eq!(rule(text).field(), SelectField::Comm, "{text}");
    }
    assert_eq!(rule("a.b=c").expression(), "a.b=c");
    assert_eq!(rule("comm=a=b").expression(), "a=b");
    assert!(selector(&["^VLLM::"]).matches(&VLLM));
    assert!(!selector(&["8000"]).matches(&VLLM));
}

#[test]
fn every_field_is_looked_at() {
    for text in [
        "cmdline=--port 80..$",
        "cgroup=^/system.slice/docker",
        "user=serve",
        "user=ser.*",
        "user=root|serve",
        "user=1000",
        "container=vllm",
        "container=^vllm-1$",
        "container=0A1b",
        "engine=^vllm$",
        "model=Llama",
    ] {
        assert!(selector(&[text]).matches(&VLLM), "{text}");
        // Nothing is known of this one but its name.
        let unknown = SelectSubject {
            comm: VLLM.comm,
            ..SelectSubject::default()
        };
        assert!(!selector(&[text]).matches(&unknown), "{text}");
    }
    for text in [
        "cmdline=^--port",
        "cgroup=^docker",
        "user=serv",
        "user=100",
        "user=x|serv",
        "container=1b2c",
        "container=0a1",
        "container=0a1b.",
        "engine=sglang",
        "model=^Llama",
    ] {
        assert!(!selector(&[text]).matches(&VLLM), "{text}");
    }
}

#[test]
fn one_rule_is_enough_and_without_rules_nothing_matches() {
    assert!(selector(&["nobody", "user=nobody", "model=3.1"]).matches(&VLLM));
    assert!(selector(&[]).is_empty() && !selector(&[]).matches(&VLLM));
    assert!(!selector(&["engine=a"]).is_empty());
}

#[test]
fn only_what_a_rule_looks_at_is_needed() {
    let needs = |text: &str| {
        let selector = selector(&[text]);
        [
            selector.needs_cmdline(),
            selector.needs_cgroup(),
            selector.needs_user(),
            selector.needs_container(),
            selector.needs_engine(),
        ]
    };
    assert_eq!(needs("a"), [false; 5]);
    assert_eq!(needs("cmdline=a"), [true, false, false, false, false]);
    assert_eq!(needs("cgroup=a"), [false, true, false, false, false]);
    assert_eq!(needs("user=a"), [false, false, true, false, false]);
    assert_eq!(needs("container=a"), [false, false, false, true, false]);
    assert_eq!(needs("engine=a"), [false, false, false, false, true]);
    assert_eq!(needs("model=a"), [false, false, false, false, true]);
}

#[test]
fn what_is_no_rule_says_what_is_expected() {
    let error = |text: &str| text.parse::<SelectRule>().expect_err(text);
    assert_eq!(error(""), SelectError::Empty);
    assert_eq!(error("user="), SelectError::Empty);
    assert_eq!(error("pid=7"), SelectError::Field("pid".to_owned()));
    assert_eq!(
        error("container_id=7"),
        SelectError::Field("container_id".to_owned())
    );
    let text = error("cmd=a").to_string();
    assert!(
        text.contains("comm, cmdline, cgroup, user, container, engine or model"),
        "{text}"
    );
    assert_eq!(error("a(").to_string(), "error: unclosed group");
    assert_eq!(error("cmdline=a(").to_string(), "error: unclosed group");
}
