//! The image, and the service that runs it under a real Docker.

use crate::Case;

pub(crate) fn cases() -> Vec<Case> {
    Vec::new()
}
