//! Configuration files of process-exporter's README, tests and issues, and what they say there.

use super::{Config, ConfigError, Subject};
use std::path::Path;

fn parse(text: &str) -> Result<Config, ConfigError> {
    Config::parse(Path::new("process.yml"), text)
}

fn config(text: &str) -> Config {
    parse(text).unwrap_or_else(|error| panic!("{error}"))
}

/// The rest of a process is not for asking.
fn with<T>(comm: &str, argv: &[&str], ask: impl FnOnce(&mut Subject<'_>) -> T) -> T {
    let argv: Vec<_> = argv.iter().copied().map(str::to_owned).collect();
    ask(&mut Subject {
        pid: 23,
        comm,
        argv: &argv,
        user: &|| panic!("no rule uses the user"),
        start_seconds: None,
        cgroups: &|| panic!("no rule uses cgroups"),
        cwd: &|| panic!("no rule uses the directory"),
    })
}

fn name(config: &Config, comm: &str, argv: &[&str]) -> Option<String> {
    with(comm, argv, |subject| config.name(subject))
}

fn error(text: &str) -> String {
    parse(text).expect_err("not a valid file").to_string()
}

#[test]
fn the_default_of_the_packages_names_all_but_kernel_threads_by_command() {
    let config = config("process_names:\n  - name: \"{{.Comm}}\"\n    cmdline:\n    - '.+'\n");
    assert_eq!(
        name(&config, "sshd", &["sshd: root@pts/0"]).as_deref(),
        Some("sshd")
    );
    assert_eq!(name(&config, "kworker/0:1", &[]), None);
    assert!(config.needs_argv());
    assert_eq!(config.name_by_comm("sshd").as_deref(), Some("sshd"));
}

#[test]
fn executables_match_by_base_name_or_by_full_path() {
    let config = config(
        "process_names:\n  - exe: \n    - bash\n  - exe: \n    - sh\n  - exe: \n    - /bin/ksh\n",
    );
    let named = |first: &str| name(&config, "x", &[first]);
    assert_eq!(named("/bin/bash").as_deref(), Some("bash"));
    assert_eq!(named("sh").as_deref(), Some("sh"));
    assert_eq!(named("/bin/ksh").as_deref(), Some("ksh"));
    assert_eq!(named("/usr/bin/ksh"), None);
    assert_eq!(named("ksh"), None);
    assert_eq!(named("-bash"), None);
    assert_eq!(name(&config, "bash", &[]), None);
    assert_eq!(config.name_by_comm("bash"), None);
}

#[test]
fn of_executables_with_one_base_name_the_last_holds() {
    let any = config("process_names: [{exe: [/bin/sh, sh]}]");
    assert_eq!(name(&any, "sh", &["/opt/sh"]).as_deref(), Some("sh"));
    let one = config("process_names: [{exe: [sh, /bin/sh]}]");
    assert_eq!(name(&one, "sh", &["/opt/sh"]), None);
    assert_eq!(name(&one, "sh", &["/bin/sh"]).as_deref(), Some("sh"));
}

#[test]
fn a_title_with_a_slash_has_a_base_name() {
    let config = config("process_names: [{comm: [nginx]}]");
    let title = "nginx: master process /usr/sbin/nginx";
    assert_eq!(name(&config, "nginx", &[title]).as_deref(), Some("nginx"));
    assert_eq!(name(&config, "nginx", &["/usr//"]).as_deref(), Some("usr"));
    assert_eq!(name(&config, "nginx", &[""]).as_deref(), Some("."));
    assert_eq!(name(&config, "nginx", &["//"]).as_deref(), Some("/"));
    // Of a process without arguments it is the command name as it stands.
    assert_eq!(name(&config, "nginx", &[]).as_deref(), Some("nginx"));
}

#[test]
fn captures_are_part_of_the_name() {
    let config = config(
        r#"
process_names:
  - exe:
    - postmaster
    cmdline:
    - "-D\\s+.+?(?P<Path>[^/]+)(?:$|\\s)"
    name: "{{.ExeBase}}:{{.Matches.Path}}"
  - name: "{{.ExeFull}}:{{.Matches.Cfgfile}}"
    exe:
    - /usr/local/bin/process-exporter
    cmdline:
    - -config.path\s+(?P<Cfgfile>\S+)
  - exe: [prometheus]
    name: "{{.ExeFull}}:{{.PID}}"
"#,
    );
    let postgres = ["/usr/bin/postmaster", "-D", "/data/pg"];
    assert_eq!(
        name(&config, "postmaster", &postgres).as_deref(),
        Some("postmaster:pg")
    );
    let exporter = ["/usr/local/bin/process-exporter", "-config.path", "a.yml"];
    let named = name(&config, "process-exporte", &exporter);
    assert_eq!(
        named.as_deref(),
        Some("/usr/local/bin/process-exporter:a.yml")
    );
    assert_eq!(name(&config, "process-exporte", &exporter[..1]), None);
    let prometheus = name(&config, "prometheus", &["/opt/prometheus"]);
    assert_eq!(prometheus.as_deref(), Some("/opt/prometheus:23"));
}

#[test]
fn all_captures_are_written_as_go_prints_a_map() {
    let plain = config("process_names:\n  - name: '{{.Matches}}'\n    cmdline:\n    - 'nginx'\n");
    let nginx = ["/usr/sbin/nginx", "-g", "daemon off;"];
    assert_eq!(
        name(&plain, "nginx", &nginx).as_deref(),
        Some("map[:nginx]")
    );
    let named = config(
        "process_names: [{name: '{{.Matches}}', cmdline: ['-c (?P<Cfgfile>\\S+)', '(a)(?P<A>b)?$']}]",
    );
    let matched = name(&named, "x", &["x", "-c", "foo", "a"]);
    assert_eq!(matched.as_deref(), Some("map[:a A: Cfgfile:foo]"));
    let none = config("process_names: [{name: '{{.Matches}}{{.Matches.A}}', comm: [x]}]");
    assert_eq!(name(&none, "x", &[]).as_deref(), Some("map[]<no value>"));
    assert_eq!(none.name_by_comm("x").as_deref(), Some("map[]<no value>"));
}

#[test]
fn the_first_rule_wins_and_all_its_lists_have_to_match() {
    // The home machine of the README, and issue 198.
    let config = config(
        "process_names:\n  - comm:\n    - chromium-browse\n    - bash\n  - exe:\n    - /sbin/upstart\n    \
         cmdline:\n    - --user\n    name: upstart:-user\n  - {comm: [java], cmdline: [a, b], name: both}\n  \
         - {comm: [java], name: java}\n",
    );
    assert_eq!(name(&config, "bash", &["-bash"]).as_deref(), Some("-bash"));
    let upstart = ["/sbin/upstart", "--user"];
    assert_eq!(
        name(&config, "init", &upstart).as_deref(),
        Some("upstart:-user")
    );
    assert_eq!(name(&config, "init", &upstart[..1]), None);
    assert_eq!(name(&config, "java", &["b", "a"]).as_deref(), Some("both"));
    assert_eq!(name(&config, "java", &["b", "c"]).as_deref(), Some("java"));
}

#[test]
fn the_command_name_decides_only_where_nothing_else_could() {
    let config = config(
        "process_names:\n- {comm: [java], cmdline: [kafka], name: kafka}\n\
         - {comm: [java, sh], name: '{{.Comm}}!'}\n- {comm: [vi], cmdline: [x], name: 'vi!'}\n\
         - {comm: [vi, ex], name: '{{.Comm}}!'}\n- {comm: [su], name: '{{.Username}}'}\n\
         - {comm: [never], exe: []}\n- {exe: [a]}\n",
    );
    assert_eq!(config.name_by_comm("java"), None);
    assert_eq!(config.name_by_comm("sh").as_deref(), Some("sh!"));
    // Either way it is the same.
    assert_eq!(config.name_by_comm("vi").as_deref(), Some("vi!"));
    assert_eq!(config.name_by_comm("su"), None);
    assert_eq!(config.name_by_comm("never"), None);
}

#[test]
fn fields_come_from_the_process() {
    let config = config(
        "process_names:\n- {comm: [a], name: '{{.Username}} {{.Cgroups}} {{ .Cwd }} {{.StartTime}}'}\n",
    );
    assert!(config.needs_user() && config.needs_cgroups());
    assert!(config.needs_cwd() && config.needs_start() && !config.needs_argv());
    let named = |start| {
        with("a", &[], |subject| {
            subject.user = &|| Some("root".to_owned());
            subject.cgroups = &|| Some(vec!["/".to_owned(), "/a.slice".to_owned()]);
            subject.cwd = &|| Some("/srv".to_owned());
            subject.start_seconds = start;
            config.name(subject)
        })
    };
    let text = "root [/ /a.slice] /srv 2024-02-29 12:34:56.5 +0000 UTC";
    assert_eq!(named(Some(1_709_210_096.5)).as_deref(), Some(text));
    let text = "root [/ /a.slice] /srv 2100-03-01 00:00:00 +0000 UTC";
    assert_eq!(named(Some(4_107_542_400.0)).as_deref(), Some(text));
    assert_eq!(named(None), None);
}

#[test]
fn space_beside_the_braces_is_cut_off_as_go_does() {
    let named = |template: &str| {
        let text = format!("process_names: [{{comm: [a], name: {template:?}}}]");
        name(&config(&text), "a", &[])
    };
    assert_eq!(named("x {{- .Comm -}} y").as_deref(), Some("xay"));
    assert_eq!(named("x {{ .Comm }} y").as_deref(), Some("x a y"));
    assert_eq!(
        named("x {{/* why */ -}} y{{$.Comm}}").as_deref(),
        Some("x ya")
    );
    assert_eq!(named("a}}b{c").as_deref(), Some("a}}b{c"));
}

#[test]
fn other_actions_are_refused() {
    let refused = |template: &str| {
        error(&format!(
            "process_names:\n- comm: [a]\n  name: '{template}'\n"
        ))
    };
    let text = "process.yml, line 3: process_names[0].name: name \"{{.Com}}\": there is no field";
    assert!(
        refused("{{.Com}}").starts_with(text),
        "{}",
        refused("{{.Com}}")
    );
    for template in [
        "{{if .Comm}}a{{end}}",
        "{{.Comm | printf}}",
        "{{.}}",
        "{{}}",
        "{{-.Comm}}",
        "{{.Matches.}}",
    ] {
        assert!(
            refused(template).contains("cannot do `"),
            "{template}: {}",
            refused(template)
        );
    }
    assert!(refused("{{.Matches.A.B}}").contains("no field"));
    assert!(refused("{{.Comm").contains("without `}}`"));
}

#[test]
fn errors_name_the_line() {
    let text = "process_names:\n - comm:\n   - python\n   cmdline:\n   - *.arg1.*\n";
    assert!(
        error(text).starts_with("process.yml, line 5: "),
        "{}",
        error(text)
    );
    let text = "process_names:\n- comm: [a]\n- cmdline:\n  - b\n  - 'a(?=b)'\n";
    assert_eq!(
        error(text),
        "process.yml, line 5: process_names[1].cmdline[1]: regular expression \"a(?=b)\": \
         (?= has no meaning in Go"
    );
    let text = "process_names:\n- comm: [a]\n- name: b\n";
    let expected =
        "process.yml, line 3: process_names[1]: a rule without `comm`, `exe` or `cmdline`";
    assert!(error(text).starts_with(expected), "{}", error(text));
    let text = "process_names:\n- comm: bash\n";
    assert!(error(text).starts_with("process.yml, line 2: process_names[0].comm: "));
    assert!(error("process_names: 7").starts_with("process.yml, line 1: "));
    assert!(error("- a").contains("`process_names:` with a list of rules"));
}

#[test]
fn what_the_decoder_there_passes_over_is_passed_over() {
    for text in [
        "",
        "# nothing\n",
        "---\n",
        "process_names:\n",
        "other: {a: b}\n",
        "null",
    ] {
        assert!(config(text).is_empty(), "{text:?}");
    }
    let config = config(
        "other: &base {comm: [a], name: base}\nprocess_names:\n- comm: [no]\n  comm: [123, true, null]\n  \
         name:\n  unknown: [1]\n- <<: *base\n  name: merged\n---\nmore: of it\n",
    );
    for comm in ["123", "true", ""] {
        assert_eq!(name(&config, comm, &["/bin/x"]).as_deref(), Some("x"));
    }
    assert_eq!(name(&config, "no", &[]), None);
    assert_eq!(name(&config, "a", &[]).as_deref(), Some("merged"));
}

#[test]
fn empty_lists_match_nothing_or_everything() {
    let named = |rule: &str| name(&config(&format!("process_names: [{rule}]")), "a", &["a"]);
    assert_eq!(named("{comm: []}"), None);
    assert_eq!(named("{exe: []}"), None);
    assert_eq!(named("{cmdline: []}").as_deref(), Some("a"));
    assert_eq!(named("{cmdline: [null]}").as_deref(), Some("a"));
}
