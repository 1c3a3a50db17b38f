//! What Compose makes of the files, in both of its generations.

use crate::Case;

pub(crate) fn cases() -> Vec<Case> {
    Vec::new()
}
