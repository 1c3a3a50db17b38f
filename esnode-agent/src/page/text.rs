//! The Prometheus text format 0.0.4, from OpenMetrics text.
//!
//! prometheus-client writes OpenMetrics. Readers that did not ask for it (`curl`, `promtool
//! check metrics`, older scrapers) expect the older format, in which a counter's family is
//! called what its samples are called and there is no end mark.

/// Content type of OpenMetrics text.
pub const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Content type of the text format 0.0.4.
pub const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Rewrites a page of OpenMetrics text, as prometheus-client writes it, to the text format.
#[must_use]
pub fn from_open_metrics(page: &str) -> String {
    let mut text = String::with_capacity(page.len() + 4096);
    let mut help = None;
    for line in page.lines() {
        if line == "# EOF" || line.starts_with("# UNIT ") {
            continue;
        }
        if line.starts_with("# HELP ") {
            // Held back: the type on the next line decides on the name.
            help = Some(line);
        } else if line.starts_with("# TYPE ") {
            let counter = line.ends_with(" counter");
            let line = match line.strip_suffix(" unknown") {
                Some(named) => &format!("{named} untyped"),
                None => line,
            };
            for comment in help.take().into_iter().chain([line]) {
                write_comment(&mut text, comment, counter);
            }
        } else {
            text.push_str(line);
            text.push('\n');
        }
    }
    text
}

/// Copies `# WORD name rest`, with the name of a counter as its samples have it.
fn write_comment(text: &mut String, comment: &str, counter: bool) {
    let mut parts = comment.splitn(4, ' ');
    for part in parts.by_ref().take(3) {
        text.push_str(part);
        text.push(' ');
    }
    if counter {
        text.pop();
        text.push_str("_total ");
    }
    text.push_str(parts.next().unwrap_or_default());
    text.push('\n');
}

/// Whether a client that sent this `Accept` header prefers OpenMetrics 1.0.0 over plain text.
///
/// Media ranges with their quality as in RFC 9110; a range that is not understood is passed
/// over. Without a preference it is plain text, which every reader understands.
#[must_use]
pub fn prefers_open_metrics(accept: &str) -> bool {
    let (mut open_metrics, mut plain) = (0.0_f32, 0.0_f32);
    for range in accept.split(',') {
        let mut parts = range.split(';').map(str::trim);
        let kind = parts.next().unwrap_or_default();
        let (mut quality, mut version) = (1.0, None);
        for parameter in parts {
            match parameter.split_once('=') {
                Some(("q", value)) => quality = value.trim().parse().unwrap_or(0.0),
                Some(("version", value)) => version = Some(value.trim()),
                _ => {}
            }
        }
        match (kind.to_ascii_lowercase().as_str(), version) {
            ("application/openmetrics-text", None | Some("1.0.0" | "0.0.1")) => {
                open_metrics = open_metrics.max(quality);
            }
            ("text/plain", None | Some("0.0.4")) | ("text/*" | "*/*", _) => {
                plain = plain.max(quality);
            }
            _ => {}
        }
    }
    open_metrics > 0.0 && open_metrics >= plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_called_what_their_samples_are() {
        let page = "# HELP a_bytes Bytes of a.\n# TYPE a_bytes counter\na_bytes_total{x=\"y\"} 5\n\
            # HELP b Help with # and words\n# TYPE b gauge\n# UNIT b x\nb 1\n\
            # HELP c Of c\n# TYPE c unknown\nc 1\n# EOF\n";
        assert_eq!(
            from_open_metrics(page),
            "# HELP a_bytes_total Bytes of a.\n# TYPE a_bytes_total counter\n\
             a_bytes_total{x=\"y\"} 5\n# HELP b Help with # and words\n# TYPE b gauge\nb 1\n\
             # HELP c Of c\n# TYPE c untyped\nc 1\n"
        );
    }

    #[test]
    fn open_metrics_for_those_who_ask() {
        // As Prometheus 2 and 3 send it.
        assert!(prefers_open_metrics(
            "application/openmetrics-text;version=1.0.0,application/openmetrics-text;\
             version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
        ));
        assert!(prefers_open_metrics(
            "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,\
             text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
        ));
        assert!(prefers_open_metrics("application/openmetrics-text"));
        for plain in [
            "",
            "*/*",
            "text/plain",
            "text/html,application/xhtml+xml,*/*;q=0.8",
            "application/openmetrics-text;q=0",
            "application/openmetrics-text;version=9.9",
            "application/openmetrics-text;q=0.1,text/plain",
            "application/openmetrics-text;q=many",
        ] {
            assert!(!prefers_open_metrics(plain), "{plain:?}");
        }
    }
}
