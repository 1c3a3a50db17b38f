//! Inference engines, by command line and ancestry.
