//! What the page says of the node, next to node_exporter on the same kernel at the same time.
//!
//! It's `ESNODE_NODE_EXPORTER`, or what Debian or the project itself call it, in `PATH`.

mod bounds;
mod exporter;
mod hosts;
mod mapping;
mod names;
mod readme;
mod report;
mod run;
mod table;

use crate::Case;

pub(crate) fn cases() -> Vec<Case> {
    vec![
        // Others would move gauges while they're compared.
        Case::alone("parity::own_names_have_equal_values", mapping::check),
        Case::alone("parity::names_of_node_exporter", names::check),
        Case::new("parity::names_on_hosts_that_are_folders", hosts::check),
        Case::new("parity::readme_lists_what_is_missing", readme::check),
    ]
}
