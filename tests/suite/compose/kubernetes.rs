//! The Kustomize base, and what goes on top of it, against the schemas of the API.
//!
//! Takes `kubectl` and Python's packages `kubernetes-validate` and
//! `cloudcoil-models-prometheus-operator`, installed or in the folder `python` that
//! `cargo xtask tools` makes.

mod demands;

use std::collections::BTreeSet;
use std::fs;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use esnode_tests::{skip, tools};
use serde::Deserialize as _;
use serde_norway::{Deserializer, Value};

use super::opik::repository;
use crate::Case;
use crate::check::ensure_eq;

/// What is built, by its folder in `docker/kubernetes`.
const BUILT: [&str; 6] = [
    "base",
    "overlays/kubelet",
    "overlays/mixed",
    "overlays/nvidia",
    "overlays/prometheus-operator",
    "overlays/sys-admin",
];

/// The first version that has all fields that are used, and the newest with a schema.
const VERSIONS: [&str; 2] = ["1.30", "1.37"];

const VALIDATE: &str = include_str!("kubernetes/validate.py");

pub(crate) fn cases() -> Vec<Case> {
    let mut cases: Vec<Case> = BUILT
        .into_iter()
        .map(|folder| {
            let name = format!("compose::kubernetes::schema::{folder}");
            Case::new(name, move || schema(folder))
        })
        .collect();
    cases.extend([
        Case::new("compose::kubernetes::every_folder_is_tried", every_folder),
        Case::new("compose::kubernetes::faults_are_refused", faults),
        Case::new("compose::kubernetes::rules_as_an_object", rules),
    ]);
    cases.extend(demands::cases());
    cases
}

/// Where packages of Python were put for the tests.
fn python() -> Option<PathBuf> {
    tools::folder().map(|tools| tools.join("python"))
}

/// The YAML that Kustomize makes of a folder.
fn build(folder: &str) -> Result<String> {
    let mut command = Command::new(tools::find("kubectl")?);
    command.arg("kustomize");
    command.arg(repository()?.join("docker/kubernetes").join(folder));
    let output = command.output()?;
    let error = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{folder}: {error}");
    ensure!(error.is_empty(), "{folder}: {error}");
    Ok(String::from_utf8(output.stdout)?)
}

/// The objects of a folder.
fn objects(folder: &str) -> Result<Vec<Value>> {
    Deserializer::from_str(&build(folder)?)
        .map(|document| Ok(Value::deserialize(document)?))
        .collect()
}

/// What the schemas refuse of these objects, a line for each.
fn validate(yaml: &str) -> Result<String> {
    let mut command = Command::new("python3");
    command.args(["-c", VALIDATE]).args(VERSIONS);
    if let Some(modules) = python() {
        command.env("PYTHONPATH", modules);
    }
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let Ok(mut child) = command.spawn() else {
        skip!("needs python3");
    };
    let mut stdin = child.stdin.take().context("a pipe")?;
    // One that has ended for want of a module doesn't read it.
    let written = stdin.write_all(yaml.as_bytes());
    drop(stdin);
    let output = child.wait_with_output()?;
    let error = String::from_utf8_lossy(&output.stderr);
    if let Some((_, module)) = error.split_once("ModuleNotFoundError: ") {
        skip!(
            "needs Python's schemas, in {:?}: {}",
            python(),
            module.trim_end()
        );
    }
    written?;
    let refused = String::from_utf8(output.stdout)?;
    ensure!(
        matches!(output.status.code(), Some(0 | 1)) && error.is_empty(),
        "{}: {refused}{error}",
        output.status
    );
    ensure_eq!(output.status.success(), refused.is_empty(), "{refused}");
    Ok(refused)
}

fn schema(folder: &str) -> Result<()> {
    let refused = validate(&build(folder)?)?;
    ensure!(refused.is_empty(), "{refused}");
    Ok(())
}

/// No overlay lies there that nothing tries, and no component that no overlay has.
fn every_folder() -> Result<()> {
    let root = repository()?.join("docker/kubernetes");
    let names = |folder: &str| -> Result<BTreeSet<String>> {
        let entries = fs::read_dir(root.join(folder))?;
        entries
            .map(|entry| Ok(format!("{folder}/{}", entry?.file_name().to_string_lossy())))
            .collect()
    };
    let overlays = names("overlays")?;
    let tried: BTreeSet<_> = BUILT.iter().skip(1).map(ToString::to_string).collect();
    ensure_eq!(overlays, tried, "overlays");
    let mut used = String::new();
    for overlay in &overlays {
        used += &fs::read_to_string(root.join(overlay).join("kustomization.yaml"))?;
    }
    for component in names("components")? {
        ensure!(used.contains(&component), "no overlay has {component}");
    }
    Ok(())
}

/// A field that is misspelled, of the wrong type, or missing is found in each kind of object.
fn faults() -> Result<()> {
    let yaml = build("overlays/prometheus-operator")?;
    let objects: Vec<&str> = yaml.split("\n---\n").collect();
    let (mut faulty, mut expected) = (Vec::new(), Vec::new());
    for (sound, fault, kind) in [
        ("hostPID: true", "hostPid: true", "DaemonSet"),
        (
            "recursiveReadOnly: IfPossible",
            "recursiveReadOnly: [1]",
            "DaemonSet",
        ),
        (
            "readOnlyRootFilesystem: true",
            "readOnlyRootFilesystem: often",
            "DaemonSet",
        ),
        (
            "  selector:\n    matchLabels:",
            "  selectors:\n    matchLabels:",
            "DaemonSet",
        ),
        ("clusterIP: None", "clusterIp: None", "Service"),
        ("value: 1000000", "value: many", "PriorityClass"),
        (
            "automountServiceAccountToken: false\nkind",
            "automount: false\nkind",
            "ServiceAccount",
        ),
        ("podMetricsEndpoints:", "podMetricsEndpoint:", "PodMonitor"),
        ("scrapeTimeout: 10s", "scrapeTimeout: soon", "PodMonitor"),
        ("sourceLabels:", "sourceLabel:", "PodMonitor"),
    ] {
        let object = objects.iter().find(|object| object.contains(sound));
        let object = object.with_context(|| format!("there is no {sound}"))?;
        faulty.push(object.replace(sound, fault));
        expected.push(kind);
    }
    let refused = validate(&faulty.join("\n---\n"))?;
    let kinds: Vec<&str> = refused
        .lines()
        .filter_map(|line| line.split(' ').next())
        .collect();
    ensure_eq!(kinds, expected, "{refused}");
    Ok(())
}

/// The alerts become an object of Prometheus Operator as the README says.
fn rules() -> Result<()> {
    for name in ["recording", "alerts"] {
        let path = format!("docker/prometheus/rules/{name}.yml");
        let path = repository()?.join(path);
        let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        let indented = format!("  {}", text.trim_end().replace('\n', "\n  "));
        let refused = validate(&format!(
            "apiVersion: monitoring.coreos.com/v1\nkind: PrometheusRule\n\
             metadata: {{name: esnode-{name}, namespace: esnode}}\nspec:\n{indented}"
        ))?;
        ensure!(refused.is_empty(), "{name}: {refused}");
    }
    Ok(())
}
