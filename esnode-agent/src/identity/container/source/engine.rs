//! Docker, and Podman in its guise: by the API, and by Docker's own files.

use super::{LONGEST_FILE, Patience, gate::Gate};
use crate::{
    http_client::{HttpError, Peer, get},
    identity::container::{Details, Error, details::readable, host::Host},
};
use hyper::StatusCode;
use serde::Deserialize;
use std::{
    collections::HashMap,
    io,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// A daemon with the API of Docker on a socket.
#[derive(Debug)]
pub(super) struct Engine {
    socket: PathBuf,
    patience: Duration,
    gate: Gate,
}

impl Engine {
    pub(super) fn new(socket: PathBuf, patience: Patience) -> Self {
        Self {
            socket,
            patience: patience.answer,
            gate: Gate::new(patience.back_off),
        }
    }

    /// Asks for `/containers/ID/json`, which all versions of the API have, so that none is named.
    pub(super) async fn ask(&mut self, id: &str) -> Result<Option<Details>, Error> {
        if !self.gate.is_open(Instant::now()) {
            return Ok(None);
        }
        let peer = Peer::Unix(self.socket.clone());
        let path = format!("/containers/{id}/json");
        match get(&peer, &path, self.patience, LONGEST_FILE).await {
            Ok(body) => {
                self.gate.worked();
                let place = || format!("{}, {path}", self.socket.display());
                parse(&body, place).map(Some)
            }
            // Not one of its containers.
            Err(HttpError::Status(StatusCode::NOT_FOUND)) => {
                self.gate.worked();
                Ok(Some(Details::default()))
            }
            Err(HttpError::Connect(error)) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => {
                self.gate.failed(Instant::now());
                let daemon = self.socket.display().to_string();
                Err(Error::Ask { daemon, source })
            }
        }
    }
}

/// Reads `DATA/containers/ID/config.v2.json`, which has the members that the API gives out.
pub(super) fn read_state(host: &Host, data: &Path, id: &str) -> Result<Option<Details>, Error> {
    let path = data.join("containers").join(id).join("config.v2.json");
    let Some(bytes) = host.read(&path, LONGEST_FILE)? else {
        return Ok(None);
    };
    let place = || host.place(&path).display().to_string();
    parse(&bytes, place).map(Some)
}

fn parse(json: &[u8], place: impl Fn() -> String) -> Result<Details, Error> {
    let container: Container = serde_json::from_slice(json).map_err(|source| Error::Json {
        place: place(),
        source,
    })?;
    let name = container.name.map(|name| match name.strip_prefix('/') {
        Some(bare) => bare.to_owned(),
        None => name,
    });
    let mut details = Details {
        name: readable(name),
        image: readable(container.config.image),
        ..Details::default()
    };
    details.fill(Details::of_notes(
        container.config.labels.unwrap_or_default(),
    ));
    Ok(details)
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Container {
    name: Option<String>,
    config: Config,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Config {
    image: Option<String>,
    labels: Option<HashMap<String, String>>,
}
