//! Every query of every dashboard, on a real Prometheus that scrapes real agents.

use crate::Case;

pub(crate) fn cases() -> Vec<Case> {
    Vec::new()
}
