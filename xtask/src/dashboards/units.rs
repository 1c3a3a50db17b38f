//! Units of fields.

/// Ids of `@grafana/data` (`valueFormats/categories`) that suit what the agent exports. Grafana takes
/// any other text for one as well, and writes it behind the number: a slip shows nowhere else.
const IDS: [&str; 42] = [
    "Bps",
    "KBs",
    "MBs",
    "amp",
    "binBps",
    "binbps",
    "bits",
    "bool",
    "bool_on_off",
    "bool_yes_no",
    "bps",
    "bytes",
    "celsius",
    "cps",
    "dateTimeAsIso",
    "dateTimeAsSystem",
    "dateTimeFromNow",
    "decbytes",
    "dtdurations",
    "eps",
    "hertz",
    "iops",
    "joule",
    "kwatth",
    "locale",
    "mbytes",
    "ms",
    "none",
    "ns",
    "ops",
    "percent",
    "percentunit",
    "pps",
    "reqps",
    "rotmhz",
    "rotrpm",
    "s",
    "short",
    "string",
    "volt",
    "watt",
    "watth",
];

/// Beginnings of units of one's own.
const OWN: [&str; 4] = ["suffix:", "prefix:", "time:", "si:"];

pub(super) fn is_known(unit: &str) -> bool {
    IDS.contains(&unit) || OWN.iter().any(|own| unit.starts_with(own))
}
