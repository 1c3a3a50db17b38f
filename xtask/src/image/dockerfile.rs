//! `docker/Dockerfile`, without the stage that builds.

use std::{fs, path::Path};

use anyhow::{Context as _, Result};

use crate::workspace::Workspace;

const PATH: &str = "docker/Dockerfile";

/// The first line of the stage that is the image.
const LAST_STAGE: &str = "\nFROM scratch\n";

/// Where that stage takes its files from.
const FROM_BUILD: &str = "--from=build ";
const OF_BUILD: &str = " /image /\n";

/// Writes one that makes the same image from a context that holds its files.
pub(super) fn write(workspace: &Workspace, to: &Path) -> Result<()> {
    let path = workspace.root.join(PATH);
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {PATH}"))?;
    let stage = last_stage(&text).with_context(|| {
        format!("{PATH} has no last stage `FROM scratch` that copies /image from `build` once")
    })?;
    fs::write(to, stage).with_context(|| format!("cannot write {}", to.display()))
}

fn last_stage(text: &str) -> Option<String> {
    let (_, stage) = text.rsplit_once(LAST_STAGE)?;
    let (before, after) = stage.split_once(FROM_BUILD)?;
    let (flags, rest) = after.split_once(OF_BUILD)?;
    let whole = !flags.contains('\n') && !rest.contains("--from=");
    whole.then(|| format!("FROM scratch\n{before}{flags} . /\n{rest}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_come_from_the_context_and_the_rest_stays() {
        let text = "FROM rust AS build\nRUN make\n\nFROM scratch\nLABEL a=b\n\
                    COPY --from=build --chown=1:1 /image /\nENTRYPOINT [\"/x\"]\n";
        assert_eq!(
            last_stage(text).as_deref(),
            Some("FROM scratch\nLABEL a=b\nCOPY --chown=1:1 . /\nENTRYPOINT [\"/x\"]\n")
        );
    }

    #[test]
    fn another_shape_is_refused() {
        for text in [
            "FROM scratch AS build\n",
            "FROM a AS build\n\nFROM scratch\nCOPY --from=other /image /\n",
            "FROM a AS build\n\nFROM scratch\nCOPY --from=build /image /\nCOPY --from=build /b /\n",
        ] {
            assert_eq!(last_stage(text), None, "{text}");
        }
    }

    #[test]
    fn the_one_here_has_that_shape() {
        let text = include_str!("../../../docker/Dockerfile");
        let stage = last_stage(text).expect("a last stage");
        assert!(stage.contains("COPY --chown=65532:65532 . /\n"), "{stage}");
        let version = concat!("\nARG VERSION=", env!("CARGO_PKG_VERSION"), "\n");
        assert!(stage.contains(version), "{version:?} is not in {stage}");
    }
}
