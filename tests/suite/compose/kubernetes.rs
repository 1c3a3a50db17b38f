//! The manifests for Kubernetes, against its schemas.

use crate::Case;

pub(crate) fn cases() -> Vec<Case> {
    Vec::new()
}
