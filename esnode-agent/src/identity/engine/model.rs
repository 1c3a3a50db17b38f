//! Which model a command line asks for, and how its name is shortened.

use super::rules::{Model, Rule};
use regex::Regex;
use std::sync::Arc;

/// The longest name that is kept, in bytes: a label is no place for more.
const LONGEST: usize = 256;

/// How many digits of an Ollama blob are kept: as many as `ollama ls` shows.
const DIGEST_DIGITS: usize = 12;

/// The model that arguments name, by a rule's flags, its pattern or its position, in this order.
pub(super) fn named(rule: &Rule, arguments: &[String], switches: &[String]) -> Option<Arc<str>> {
    let model = &rule.model;
    flag(arguments, &model.flags)
        .or_else(|| matched(arguments, model.argument.as_ref()))
        .or_else(|| positional(arguments, model, switches))
        .and_then(shorten)
}

/// The value of the last of these flags, `--flag VALUE` or `--flag=VALUE`, as argparse and llama.cpp take the
/// last one. Underscores count as dashes (vLLM and click take both).
pub(super) fn flag<'a>(arguments: &'a [String], flags: &[String]) -> Option<&'a str> {
    let mut found = None;
    let mut rest = arguments.iter().peekable();
    while let Some(argument) = rest.next() {
        let (name, value) = match argument.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (argument.as_str(), None),
        };
        if !flags.iter().any(|flag| same_flag(flag, name)) {
            continue;
        }
        let value = value.or_else(|| {
            rest.peek()
                .map(|next| next.as_str())
                .filter(|next| !is_option(next))
        });
        found = value.filter(|value| !value.is_empty()).or(found);
    }
    found
}

/// Whether an argument is this flag.
pub(super) fn same_flag(flag: &str, name: &str) -> bool {
    let dashed = |byte: u8| if byte == b'_' { b'-' } else { byte };
    name.starts_with('-') && flag.bytes().map(dashed).eq(name.bytes().map(dashed))
}

fn is_option(argument: &str) -> bool {
    argument.len() > 1 && argument.starts_with('-')
}

/// What the pattern's group `model` finds in the first argument that it matches.
fn matched<'a>(arguments: &'a [String], pattern: Option<&Regex>) -> Option<&'a str> {
    let pattern = pattern?;
    arguments
        .iter()
        .find_map(|argument| Some(pattern.captures(argument)?.name("model")?.as_str()))
}

/// The n-th argument that is no option and no option's value.
///
/// An option takes the argument behind it, unless it holds its value (`--port=1`, `-O3`) or is one of the known
/// switches, which take none.
fn positional<'a>(arguments: &'a [String], model: &Model, switches: &[String]) -> Option<&'a str> {
    let mut left = model.position?;
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        if is_option(argument) {
            let next = rest.as_slice().first();
            if !holds_value(argument, switches) && !next.is_some_and(|next| is_option(next)) {
                rest.next();
            }
            continue;
        }
        left = left.checked_sub(1)?;
        if left == 0 {
            return Some(argument);
        }
    }
    None
}

/// Whether an option needs nothing behind it.
fn holds_value(option: &str, switches: &[String]) -> bool {
    let attached =
        !option.starts_with("--") && option.ends_with(|last: char| last.is_ascii_digit());
    attached
        || option == "--"
        || option.contains('=')
        || switches.iter().any(|switch| is_switch(switch, option))
}

/// Whether an option is this switch; a switch that ends in `*` stands for all that begin so.
fn is_switch(switch: &str, option: &str) -> bool {
    match switch.strip_suffix('*') {
        Some(stem) => option
            .get(..stem.len())
            .is_some_and(|start| same_flag(stem, start)),
        None => same_flag(switch, option),
    }
}

/// Shortens a model's name to what people call it.
///
/// - a snapshot in Hugging Face's cache, `…/models--org--name/snapshots/…`: `org/name`;
/// - a blob of Ollama, `…/blobs/sha256-<hex>`: `sha256-` and 12 digits;
/// - a GGUF file: its file name; a web address: its last part, without query;
/// - anything else stays, without a slash at its end.
pub(super) fn shorten(name: &str) -> Option<Arc<str>> {
    let name = name.trim().trim_end_matches('/');
    let short = hugging_face(name)
        .or_else(|| blob(name))
        .or_else(|| file(name).map(str::to_owned))
        .unwrap_or_else(|| name.to_owned());
    let cut = short.floor_char_boundary(LONGEST.min(short.len()));
    let (short, _) = short.split_at(cut);
    (!short.is_empty()).then(|| Arc::from(short))
}

/// `repo_folder_name` of huggingface_hub: `models--`, and the name with `--` for each slash.
fn hugging_face(path: &str) -> Option<String> {
    let folder = path
        .split('/')
        .find_map(|part| part.strip_prefix("models--"))?;
    Some(folder.replacen("--", "/", 1)).filter(|name| !name.is_empty())
}

/// `blobs/sha256-…`, or `sha256:…` of older Ollamas.
fn blob(path: &str) -> Option<String> {
    let (_, digest) = path.rsplit_once("blobs/sha256")?;
    let digits = digest.strip_prefix(['-', ':'])?;
    let hex = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    hex.then(|| format!("sha256-{}", digits.get(..DIGEST_DIGITS).unwrap_or(digits)))
}

/// The file name of a GGUF file, or the last part of a web address.
fn file(path: &str) -> Option<&str> {
    let web = path.starts_with("http://") || path.starts_with("https://");
    let path = if web {
        path.split(['?', '#']).next()?
    } else {
        path
    };
    let name = path.rsplit('/').next()?;
    let gguf = name.len() > 5 && name.to_ascii_lowercase().ends_with(".gguf");
    (web || gguf)
        .then_some(name)
        .filter(|name| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn short(name: &str) -> String {
        shorten(name)
            .map(|name| name.to_string())
            .unwrap_or_default()
    }

    fn argv(line: &str) -> Vec<String> {
        line.split(' ').map(str::to_owned).collect()
    }

    #[test]
    fn caches_and_files_become_names() {
        assert_eq!(
            short(
                "/root/.cache/huggingface/hub/models--meta-llama--Llama-3.1-8B/snapshots/0e9e39f2/"
            ),
            "meta-llama/Llama-3.1-8B"
        );
        assert_eq!(short("/hub/models--gpt2/snapshots/1"), "gpt2");
        assert_eq!(short("/hub/models--a--b--c/snapshots/1"), "a/b--c");
        assert_eq!(
            short(
                "/m/blobs/sha256-90a618fe6ff21b09ca968df959104eb650658b0bef0faef785c18c2795d993e3"
            ),
            "sha256-90a618fe6ff2"
        );
        assert_eq!(
            short("/m/blobs/sha256:90a618fe6ff21b09"),
            "sha256-90a618fe6ff2"
        );
        assert_eq!(short("/blobs/sha256-fb66"), "sha256-fb66");
        assert_eq!(short("/srv/Mistral.Q4_K_M.GGUF"), "Mistral.Q4_K_M.GGUF");
        assert_eq!(short("https://u:p@host/a/b.bin?token=x"), "b.bin");
        assert_eq!(short("/models/Qwen/"), "/models/Qwen");
        assert_eq!(short("meta-llama/Llama-3.1-8B"), "meta-llama/Llama-3.1-8B");
    }

    #[test]
    fn nothing_is_no_model() {
        assert!(shorten("").is_none());
        assert!(shorten(" / ").is_none());
    }

    #[test]
    fn long_names_are_cut_between_characters() {
        assert!(short(&"é".repeat(300)).len() <= LONGEST);
    }

    #[test]
    fn the_last_flag_counts() {
        let flags = ["--model-id".to_owned()];
        assert_eq!(flag(&argv("--model-id a --model_id=b"), &flags), Some("b"));
        assert_eq!(flag(&argv("--model-id --port 1"), &flags), None);
        assert_eq!(flag(&argv("x --model-ids a"), &flags), None);
    }
}
