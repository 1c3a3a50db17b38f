//! `docker/opik/install.sh`: what it does to Opik's start scripts, and to those that it can't change.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context as _, Result, ensure};
use esnode_tests::fixture;

use super::{checkout, repository};
use crate::Case;
use crate::check::ensure_eq;

const SCRIPTS: [&str; 2] = ["opik.sh", "opik.ps1"];

/// The lines that it looks for, each of which must be there once: by script, the function that it is
/// in, if it matters, and the line.
const ANCHORS: [(&str, &str); 14] = [
    ("opik.sh", "generate_uuid() {"),
    ("opik.sh", "  echo \"$cmd --verify\""),
    ("opik.sh", "get_start_cmd() {"),
    ("opik.sh", "get_docker_compose_cmd() {"),
    ("opik.sh", "  echo \"  --help          This text\""),
    ("opik.sh", "if [[ \"$*\" == *\"--build\"* ]]; then"),
    ("opik.sh", "case \"$1\" in"),
    ("opik.ps1", "function Get-Containers {"),
    ("opik.ps1", "    return $containers"),
    ("opik.ps1", "    return $dockerArgs"),
    ("opik.ps1", "    return \"$cmd --verify\""),
    ("opik.ps1", "    return $cmd"),
    ("opik.ps1", "    Write-Host '  --help            This text'"),
    ("opik.ps1", "if ($options -contains '--build') {"),
];

pub(super) fn cases() -> Vec<Case> {
    vec![
        Case::new("compose::opik::install::and_back_again", and_back),
        Case::new("compose::opik::install::line_ends", line_ends),
        Case::new("compose::opik::install::unexpected_lines", unexpected),
        Case::new("compose::opik::install::unexpected_folders", folders),
        Case::new("compose::opik::install::another_place", another_place),
        Case::new("compose::opik::install::windows_script", windows),
    ]
}

/// Runs the script that is in this folder's `docker/opik`.
fn run_from(repository: &Path, arguments: &[&str]) -> Result<Output> {
    let script = repository.join("docker/opik/install.sh");
    let output = Command::new("bash").arg(script).args(arguments).output();
    output.context("bash")
}

fn run(checkout: &Path, more: &[&str]) -> Result<Output> {
    let checkout = checkout.to_str().context("a path in UTF-8")?;
    run_from(&repository()?, &[&[checkout], more].concat())
}

/// Runs it, and says what it prints.
pub(super) fn succeed(checkout: &Path, more: &[&str]) -> Result<String> {
    let output = run(checkout, more)?;
    let error = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{}: {error}", output.status);
    ensure!(error.is_empty(), "{error}");
    Ok(String::from_utf8(output.stdout)?)
}

/// Fails unless it refuses, leaves everything as it was, and says this.
fn refused(checkout: &Path, said: &[&str]) -> Result<()> {
    let before = contents(checkout)?;
    let output = run(checkout, &[])?;
    let error = String::from_utf8(output.stderr)?;
    ensure_eq!(output.status.code(), Some(1), "exit code, {error}");
    for part in said {
        ensure!(error.contains(part), "not {part:?}, but {error}");
    }
    ensure!(contents(checkout)? == before, "something was changed");
    Ok(())
}

/// Names, modes and bytes of the files at the top of a folder.
fn contents(folder: &Path) -> Result<Vec<(String, u32, Vec<u8>)>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let data = entry.metadata()?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let bytes = data.is_file().then(|| fs::read(entry.path()));
        files.push((
            name,
            data.permissions().mode(),
            bytes.transpose()?.unwrap_or_default(),
        ));
    }
    files.sort();
    Ok(files)
}

/// Installed twice and taken out twice: the second time changes nothing, and in the end every byte is
/// what it was.
fn and_back() -> Result<()> {
    let checkout = checkout()?;
    let before = contents(&checkout)?;
    let said = succeed(&checkout, &[])?;
    ensure!(said.contains("opik.sh opik.ps1"), "{said}");
    let installed = contents(&checkout)?;
    for ((old, mode, bytes), (new, new_mode, new_bytes)) in before.iter().zip(&installed) {
        ensure_eq!(new, old, "files");
        ensure_eq!(new_mode, mode, "mode of {old}");
        let changed = SCRIPTS.contains(&old.as_str());
        ensure_eq!(new_bytes != bytes, changed, "whether {old} changed");
    }
    let said = succeed(&checkout, &[])?;
    ensure!(
        said.contains("Nothing to do") && said.contains("has it already"),
        "{said}"
    );
    ensure!(
        contents(&checkout)? == installed,
        "the second time changed something"
    );

    succeed(&checkout, &["--uninstall"])?;
    ensure!(contents(&checkout)? == before, "not what it was");
    let said = succeed(&checkout, &["--uninstall"])?;
    ensure!(
        said.contains("Nothing to do") && said.contains("does not have it"),
        "{said}"
    );
    ensure!(contents(&checkout)? == before, "not what it was");
    Ok(())
}

/// Lines that end as on Windows have such lines put among them, and a last line without an end stays
/// without.
fn line_ends() -> Result<()> {
    let checkout = checkout()?;
    let path = checkout.join("opik.ps1");
    let text = fs::read_to_string(&path)?.replace('\n', "\r\n");
    fs::write(&path, text.trim_end())?;
    let script = checkout.join("opik.sh");
    fs::write(&script, fs::read_to_string(&script)?.trim_end())?;
    let before = contents(&checkout)?;
    succeed(&checkout, &[])?;
    let text = fs::read_to_string(&path)?;
    let bare = text.replace("\r\n", "");
    ensure!(
        text.contains("infra-metrics") && !bare.contains('\n'),
        "{text}"
    );
    for name in SCRIPTS {
        let text = fs::read_to_string(checkout.join(name))?;
        ensure!(!text.ends_with('\n'), "{name} has got a last end of line");
    }
    succeed(&checkout, &["--uninstall"])?;
    ensure!(contents(&checkout)? == before, "not what it was");
    Ok(())
}

/// Where a line that it needs is missing, or there twice, neither script is touched.
fn unexpected() -> Result<()> {
    for (name, line) in ANCHORS {
        let checkout = checkout()?;
        let path = checkout.join(name);
        let text = fs::read_to_string(&path)?;
        let once = format!("\n{line}\n");
        ensure_eq!(text.matches(&once).count(), 1, "{line} in {name}");
        fs::write(&path, text.replace(&once, "\n# something else\n"))?;
        let shown = line
            .trim_end_matches("This text'")
            .trim_end_matches("This text\"");
        let shown = shown.trim().trim_end_matches(" {").trim_end();
        refused(
            &checkout,
            &[
                name,
                "has no line",
                shown,
                "Nothing was changed",
                "opik.compose.yaml",
            ],
        )
        .with_context(|| format!("{name} without {line}"))?;
        // Twice in the function that it's looked for in. The heads of functions are no such lines.
        if !line.ends_with("() {") || line.starts_with("generate") {
            fs::write(&path, text.replace(&once, &format!("\n{line}\n{line}\n")))?;
            refused(&checkout, &[name, "more than one line", shown])
                .with_context(|| format!("{name} with {line} twice"))?;
        }
    }
    let checkout = checkout()?;
    let path = checkout.join("opik.sh");
    let text = fs::read_to_string(&path)?;
    fs::write(&path, format!("# >>> esnode infra-metrics\n{text}"))?;
    refused(&checkout, &["a marker of esnode without its counterpart"])
}

/// What is no checkout of Opik is left alone.
fn folders() -> Result<()> {
    let empty = checkout()?;
    fs::remove_dir_all(empty.join("deployment"))?;
    refused(&empty, &["is no checkout of Opik"])?;
    for name in SCRIPTS {
        let missing = checkout()?;
        fs::remove_file(missing.join(name))?;
        refused(&missing, &["is no checkout of Opik", name])?;
        let linked = checkout()?;
        fs::rename(linked.join(name), linked.join("elsewhere"))?;
        symlink("elsewhere", linked.join(name))?;
        refused(&linked, &["is a symbolic link"])?;
    }
    for arguments in [&[][..], &["a", "b"], &["a", "--force"]] {
        let output = run_from(&repository()?, arguments)?;
        ensure_eq!(output.status.code(), Some(2), "exit code of {arguments:?}");
    }
    Ok(())
}

/// Where esnode has moved to, installing again changes the scripts, and they go back all the same; a
/// place whose name they can't hold is refused.
fn another_place() -> Result<()> {
    let checkout = checkout()?;
    let before = contents(&checkout)?;
    succeed(&checkout, &[])?;
    let opik = checkout.to_str().context("a path in UTF-8")?;
    let copy = |name: &str| -> Result<PathBuf> {
        let folder = checkout.join("deployment").join(name);
        fixture::copy(
            &repository()?.join("docker/opik"),
            &folder.join("docker/opik"),
        )?;
        Ok(folder)
    };
    let moved = copy("moved")?;
    let output = run_from(&moved, &[opik])?;
    ensure!(output.status.success(), "{output:?}");
    for name in SCRIPTS {
        let text = fs::read_to_string(checkout.join(name))?;
        let place = moved.to_str().context("a path in UTF-8")?;
        ensure_eq!(text.matches(place).count(), 1, "places in {name}");
    }
    let output = run_from(&moved, &[opik, "--uninstall"])?;
    ensure!(output.status.success(), "{output:?}");
    ensure!(contents(&checkout)? == before, "not what it was");

    let output = run_from(&copy("with space")?, &[opik])?;
    let error = String::from_utf8(output.stderr)?;
    ensure!(
        output.status.code() == Some(1) && error.contains("spaces"),
        "{error}"
    );
    ensure!(contents(&checkout)? == before, "something was changed");
    Ok(())
}

/// What the scripts call ours.
pub(super) const CONTAINERS: [&str; 3] =
    ["opik-esnode-core-1", "opik-prometheus-1", "opik-grafana-1"];

/// There may be no PowerShell here: its script has, where they belong, the lines that decide, and as
/// many brackets that open as that close.
fn windows() -> Result<()> {
    let checkout = checkout()?;
    succeed(&checkout, &[])?;
    let text = fs::read_to_string(checkout.join("opik.ps1"))?;
    for (function, line) in [
        ("Get-Containers", "$containers += $INFRA_METRICS_CONTAINERS"),
        (
            "Get-DockerComposeCommand",
            "$dockerArgs += \"-f\", $INFRA_METRICS_COMPOSE, \"--profile\", \"infra-metrics\"",
        ),
        ("Get-StartCommand", "$cmd += \" --infra-metrics\""),
        ("Get-VerifyCommand", "$cmd += \" --infra-metrics\""),
        ("Show-Usage", "'  --infra-metrics "),
    ] {
        let (_, body) = text
            .split_once(&format!("function {function} {{\n"))
            .context(function)?;
        let (body, _) = body.split_once("\n}\n").context(function)?;
        ensure!(body.contains(line), "{function} has no {line}");
        let returned = body.find("    return ").unwrap_or(body.len());
        ensure!(
            body.find(line) < Some(returned),
            "{function} returns before"
        );
    }
    let count = |character: char| text.matches(character).count();
    for (open, close) in [('{', '}'), ('(', ')'), ('[', ']')] {
        ensure_eq!(count(open), count(close), "{open} and {close}");
    }
    for container in CONTAINERS {
        ensure!(
            text.contains(&format!("    \"{container}\"")),
            "{container}"
        );
    }
    Ok(())
}
