//! Groups by the configuration file of process-exporter.
