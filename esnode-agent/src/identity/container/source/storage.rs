//! CRI-O and Podman, by the files of the library containers/storage that both use.

use super::{LONGEST_FILE, containerd::Spec};
use crate::identity::container::{Details, Error, details::readable, host::Host};
use serde::Deserialize;
use std::path::{Path, PathBuf};

/// How long an index may be, in bytes: it has some thousand for each container.
const LONGEST_INDEX: usize = 16 << 20;

/// Lists of containers, and of those that end with the host, such as of `podman run --rm`.
const INDICES: [&str; 2] = ["containers.json", "volatile-containers.json"];

/// Reads `STORAGE/DRIVER-containers/ID/userdata/config.json`, in which CRI-O annotates the pod, and
/// the lists beside it, which have the names that Podman gives. The driver mostly is `overlay`.
pub(super) fn read(host: &Host, storages: &[PathBuf], id: &str) -> Result<Option<Details>, Error> {
    let mut found: Option<Details> = None;
    let mut add = |details| found.get_or_insert_default().fill(details);
    let folders = folders(host, storages)?;
    for folder in &folders {
        let path = folder.join(id).join("userdata/config.json");
        if let Some(spec) = host.json::<Spec>(&path, LONGEST_FILE)? {
            add(spec.details());
        }
    }
    for path in folders
        .iter()
        .flat_map(|folder| INDICES.map(|index| folder.join(index)))
    {
        let listed = host.json::<Vec<Listed>>(&path, LONGEST_INDEX)?;
        if let Some(listed) = listed.into_iter().flatten().find(|listed| listed.id == id) {
            add(listed.details(&host.place(&path))?);
        }
    }
    Ok(found)
}

fn folders(host: &Host, storages: &[PathBuf]) -> Result<Vec<PathBuf>, Error> {
    let mut folders = Vec::new();
    for storage in storages {
        let mut names = host.names(storage)?.unwrap_or_default();
        names.retain(|name| name.ends_with("-containers"));
        folders.extend(names.iter().map(|name| storage.join(name)));
    }
    Ok(folders)
}

/// An entry of a list.
#[derive(Deserialize)]
struct Listed {
    id: String,
    names: Option<Vec<String>>,
    /// JSON in a string: containers/storage does not look into it.
    metadata: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Metadata {
    image_name: Option<String>,
}

impl Listed {
    fn details(self, index: &Path) -> Result<Details, Error> {
        let metadata = self.metadata.filter(|metadata| !metadata.is_empty());
        let metadata = metadata.map(|metadata| serde_json::from_str::<Metadata>(&metadata));
        let metadata = metadata.transpose().map_err(|source| Error::Json {
            place: format!("{}, metadata of {}", index.display(), self.id),
            source,
        })?;
        Ok(Details {
            name: readable(self.names.unwrap_or_default().into_iter().next()),
            image: readable(metadata.unwrap_or_default().image_name),
            ..Details::default()
        })
    }
}
