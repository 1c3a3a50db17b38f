//! Flags on who processes are and how they are put together.

use super::values::duration;
use crate::{
    identity::container::{self, KubeletUrl},
    process::membership::GroupBy,
};
use clap::{Args, builder::FalseyValueParser};
use std::{path::PathBuf, time::Duration};

/// Flags on who processes are and how they are put together.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Identity")]
pub struct IdentityFlags {
    /// Put processes together by this; --group-config alone means rules
    #[arg(long, env = "ESNODE_GROUP_BY", value_name = "WHAT")]
    group_by: Option<GroupBy>,

    /// Rules for groups: a configuration file of process-exporter
    #[arg(long, env = "ESNODE_GROUP_CONFIG", value_name = "FILE")]
    pub group_config: Option<PathBuf>,

    /// Rules for inference engines, in TOML, before those that the agent brings
    #[arg(long, env = "ESNODE_ENGINE_RULES", value_name = "FILE")]
    pub engine_rules: Option<PathBuf>,

    /// Do not look for what containers and pods are called, in the files and at the sockets of
    /// container engines
    #[arg(long, env = "ESNODE_NO_CONTAINER_NAMES", value_parser = FalseyValueParser::new())]
    pub no_container_names: bool,

    /// Where the host's root is, for the files of container engines and the kubelet: otherwise that
    /// of process 1
    #[arg(long, env = "ESNODE_HOST_ROOT", value_name = "DIRECTORY")]
    host_root: Option<PathBuf>,

    /// Socket of Docker; otherwise run/docker.sock below the host's root
    #[arg(long, env = "ESNODE_DOCKER_SOCKET", value_name = "SOCKET")]
    docker_socket: Option<PathBuf>,

    /// Socket of Podman; otherwise run/podman/podman.sock below the host's root
    #[arg(long, env = "ESNODE_PODMAN_SOCKET", value_name = "SOCKET")]
    podman_socket: Option<PathBuf>,

    /// Docker's data-root on the host; otherwise /var/lib/docker
    #[arg(long, env = "ESNODE_DOCKER_DATA", value_name = "DIRECTORY")]
    docker_data: Option<PathBuf>,

    /// Ask the kubelet for pods at its read-only port, such as http://127.0.0.1:10255
    #[arg(long, env = "ESNODE_KUBELET_URL", value_name = "URL")]
    kubelet_url: Option<KubeletUrl>,

    /// So long a container without processes has series of its own: 2m otherwise; for tests
    #[arg(long, env = "ESNODE_CONTAINER_LINGER", value_name = "DURATION", hide = true,
        value_parser = duration)]
    pub container_linger: Option<Duration>,
}

impl IdentityFlags {
    /// Where to look for what containers are called; `None` if not at all.
    #[must_use]
    pub fn container_sources(&self) -> Option<container::Options> {
        if self.no_container_names {
            return None;
        }
        let mut options = match &self.host_root {
            Some(root) => container::Options::below(root),
            None => container::Options::default(),
        };
        if let Some(socket) = &self.docker_socket {
            options.docker_socket = Some(socket.clone());
        }
        if let Some(socket) = &self.podman_socket {
            options.podman_socket = Some(socket.clone());
        }
        if let Some(folder) = &self.docker_data {
            options.docker_data.clone_from(folder);
        }
        options.kubelet_url.clone_from(&self.kubelet_url);
        Some(options)
    }

    /// By what processes are put together.
    ///
    /// # Errors
    /// If that and the file of rules contradict each other; says what to do.
    pub fn group_by(&self) -> Result<GroupBy, &'static str> {
        match (self.group_by, &self.group_config) {
            (None, None) => Ok(GroupBy::Command),
            (None | Some(GroupBy::Rules), Some(_)) => Ok(GroupBy::Rules),
            (Some(GroupBy::Rules), None) => {
                Err("--group-by rules takes --group-config FILE, which has them")
            }
            (Some(_), Some(_)) => Err(
                "--group-config FILE is for --group-by rules alone: leave out the one or the other",
            ),
            (Some(by), None) => Ok(by),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::tests::parse;

    #[test]
    fn a_file_of_rules_says_that_there_are_rules() {
        let by = |arguments: &[&str]| parse(arguments).expect("valid").identity.group_by();
        assert_eq!(by(&[]), Ok(GroupBy::Command));
        assert_eq!(by(&["--group-config", "f"]), Ok(GroupBy::Rules));
        assert_eq!(by(&["--group-by", "container"]), Ok(GroupBy::Container));
        let both = ["--group-by", "rules", "--group-config", "f"];
        assert_eq!(by(&both), Ok(GroupBy::Rules));
        let error = by(&["--group-by", "rules"]).expect_err("no rules");
        assert!(error.contains("--group-config FILE"), "{error}");
        let error = by(&["--group-by", "engine", "--group-config", "f"]);
        assert!(error.expect_err("two ways").contains("leave out"));
    }
}
