//! A strict reader of the metrics page: whatever the format doesn't allow is an error.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result, bail, ensure};

/// Which of the two text formats a page is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `application/openmetrics-text`: ends in `# EOF`, names counters without `_total` in `TYPE`.
    OpenMetrics,
    /// `text/plain; version=0.0.4`.
    Text,
}

/// The labels of a sample.
pub type Labels = BTreeMap<String, String>;

/// One line with a value.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// With its suffix (`_total`, `_bucket`).
    pub name: String,
    /// Label names and unescaped values.
    pub labels: Labels,
    /// The value.
    pub value: f64,
}

/// A family: its descriptors, and its samples.
#[derive(Clone, Debug)]
pub struct Family {
    /// As in its `TYPE` line.
    pub name: String,
    /// `counter`, `gauge`, `info`, `histogram` and so on.
    pub kind: String,
    /// What is counted.
    pub help: String,
    /// In the order of the page.
    pub samples: Vec<Sample>,
}

/// A page that was read and found valid.
#[derive(Clone, Debug)]
pub struct Page {
    /// In the order of the page.
    pub families: Vec<Family>,
}

impl Page {
    /// Reads a page.
    pub fn parse(text: &str, format: Format) -> Result<Self> {
        let body = match format {
            Format::OpenMetrics => text
                .strip_suffix("# EOF\n")
                .context("no # EOF at the end")?,
            Format::Text => text,
        };
        ensure!(
            body.is_empty() || body.ends_with('\n'),
            "the last line has no end"
        );
        let mut families: Vec<Family> = Vec::new();
        let mut help: Option<(String, String)> = None;
        for (number, line) in body.lines().enumerate() {
            let place = || format!("line {}: {line}", number + 1);
            if let Some(rest) = line.strip_prefix("# HELP ") {
                let (name, text) = rest.split_once(' ').with_context(place)?;
                ensure!(help.is_none(), "two HELP lines in a row, {}", place());
                help = Some((name.to_owned(), text.to_owned()));
            } else if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').with_context(place)?;
                let (described, text) = help
                    .take()
                    .with_context(|| format!("TYPE without HELP, {}", place()))?;
                ensure!(described == name, "HELP is of {described}, {}", place());
                ensure!(!text.trim().is_empty(), "HELP says nothing, {}", place());
                families.push(Family {
                    name: name.into(),
                    kind: kind.into(),
                    help: text,
                    samples: vec![],
                });
            } else if let Some(rest) = line.strip_prefix("# UNIT ") {
                let family = families.last().with_context(place)?;
                let (name, unit) = rest.split_once(' ').with_context(place)?;
                ensure!(
                    family.name == name && name.ends_with(&format!("_{unit}")),
                    "{}",
                    place()
                );
            } else {
                ensure!(
                    !line.starts_with('#') && !line.is_empty(),
                    "not a sample, {}",
                    place()
                );
                let sample = Sample::parse(line).with_context(place)?;
                let family = families.last_mut().with_context(place)?;
                family.check(&sample, format).with_context(place)?;
                family.samples.push(sample);
            }
        }
        ensure!(help.is_none(), "HELP without TYPE at the end");
        let page = Self { families };
        page.check_unique()?;
        Ok(page)
    }

    /// Fails where a family or a series is on the page twice.
    fn check_unique(&self) -> Result<()> {
        let mut names = BTreeSet::new();
        for family in &self.families {
            ensure!(
                names.insert(family.name.as_str()),
                "the family {} is twice on the page",
                family.name
            );
            let mut series = BTreeSet::new();
            for sample in &family.samples {
                ensure!(
                    series.insert((&sample.name, &sample.labels)),
                    "twice on the page: {sample:?}"
                );
            }
        }
        Ok(())
    }

    /// Every sample on the page.
    pub fn samples(&self) -> impl Iterator<Item = &Sample> {
        self.families.iter().flat_map(|family| &family.samples)
    }

    /// The samples of this name (`_total` included) that have these labels among theirs.
    #[must_use]
    pub fn select(&self, name: &str, labels: &[(&str, &str)]) -> Vec<&Sample> {
        self.samples()
            .filter(|sample| sample.name == name && sample.has(labels))
            .collect()
    }

    /// The sum over the selected samples; `None` where there are none.
    #[must_use]
    pub fn value(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        self.select(name, labels)
            .into_iter()
            .map(|sample| sample.value)
            .reduce(|sum, value| sum + value)
    }

    /// As [`Page::value`], for a sum that must be a whole number.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "checked to be a whole number below 2^53"
    )]
    pub fn count(&self, name: &str, labels: &[(&str, &str)]) -> Result<Option<u64>> {
        let Some(value) = self.value(name, labels) else {
            return Ok(None);
        };
        let exact = value.fract() == 0.0 && (0.0..9_007_199_254_740_992.0).contains(&value);
        ensure!(exact, "{name} {labels:?} isn't a whole number: {value}");
        Ok(Some(value as u64))
    }

    /// The values that a label has in the samples of this name that have these labels among theirs.
    #[must_use]
    pub fn label_values(&self, name: &str, labels: &[(&str, &str)], label: &str) -> BTreeSet<&str> {
        let samples = self.select(name, labels).into_iter();
        samples
            .filter_map(|sample| sample.labels.get(label))
            .map(String::as_str)
            .collect()
    }

    /// Fails where a counter whose name starts with `prefix` fell or vanished since `earlier`.
    pub fn check_monotonic(&self, earlier: &Self, prefix: &str) -> Result<()> {
        let now: BTreeMap<_, _> = self
            .samples()
            .map(|sample| ((&sample.name, &sample.labels), sample.value))
            .collect();
        for before in earlier.samples() {
            if !before.name.starts_with(prefix) || !before.name.ends_with("_total") {
                continue;
            }
            let Some(&value) = now.get(&(&before.name, &before.labels)) else {
                bail!("vanished: {before:?}");
            };
            ensure!(value >= before.value, "fell to {value}: {before:?}");
        }
        Ok(())
    }
}

impl Family {
    /// Fails where a sample doesn't belong to this family or breaks its type.
    fn check(&self, sample: &Sample, format: Format) -> Result<()> {
        let suffix = sample
            .name
            .strip_prefix(&self.name)
            .context("a sample of another family")?;
        let suffixes: &[&str] = match (self.kind.as_str(), format) {
            ("counter", Format::OpenMetrics) => &["_total"],
            ("counter", Format::Text) => {
                ensure!(self.name.ends_with("_total"), "a counter without _total");
                &[""]
            }
            ("gauge" | "unknown" | "untyped", _) | ("stateset", Format::OpenMetrics) => &[""],
            ("info", Format::OpenMetrics) => &["_info"],
            ("histogram", _) => &["_bucket", "_sum", "_count"],
            (kind, _) => bail!("a type that the format doesn't have: {kind}"),
        };
        ensure!(
            suffixes.contains(&suffix),
            "{} has no sample {}",
            self.kind,
            sample.name
        );
        if matches!(self.kind.as_str(), "counter" | "histogram" | "info") {
            ensure!(
                sample.value.is_finite() && sample.value >= 0.0,
                "a {} of {}",
                self.kind,
                sample.value
            );
        }
        Ok(())
    }
}

impl Sample {
    /// Whether these labels are among its own.
    #[must_use]
    pub fn has(&self, labels: &[(&str, &str)]) -> bool {
        labels
            .iter()
            .all(|&(key, value)| self.labels.get(key).is_some_and(|text| text == value))
    }

    /// Reads `name{label="value",…} value`. Timestamps and exemplars aren't in the contract.
    fn parse(line: &str) -> Result<Self> {
        let end = line.find(['{', ' ']).context("no value")?;
        let (name, mut rest) = line.split_at(end);
        ensure!(is_name(name), "a bad name: {name}");
        let mut labels = Labels::new();
        if let Some(inside) = rest.strip_prefix('{') {
            rest = inside;
            while !rest.starts_with('}') {
                let (label, after) = rest.split_once("=\"").context("a label without a value")?;
                ensure!(
                    is_name(label) && !label.contains(':'),
                    "a bad label: {label}"
                );
                let (value, after) = unescape(after)?;
                ensure!(
                    labels.insert(label.into(), value).is_none(),
                    "the label {label} is there twice"
                );
                rest = after.strip_prefix(',').unwrap_or(after);
            }
            rest = rest.strip_prefix('}').unwrap_or(rest);
        }
        let value = rest
            .strip_prefix(' ')
            .context("no space before the value")?;
        ensure!(!value.contains(' '), "more than a value: {value}");
        let value = match value {
            "+Inf" => f64::INFINITY,
            "-Inf" => f64::NEG_INFINITY,
            other => other
                .parse()
                .with_context(|| format!("not a value: {other}"))?,
        };
        Ok(Self {
            name: name.into(),
            labels,
            value,
        })
    }
}

/// Reads a label's value up to its closing quote; gives it with what follows the quote.
fn unescape(text: &str) -> Result<(String, &str)> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((index, char)) = chars.next() {
        match char {
            '"' => return Ok((value, text.get(index + 1..).unwrap_or_default())),
            '\\' => match chars.next() {
                Some((_, 'n')) => value.push('\n'),
                Some((_, char @ ('\\' | '"'))) => value.push(char),
                other => bail!("an escape that the format doesn't have: {other:?}"),
            },
            char => value.push(char),
        }
    }
    bail!("a label's value has no end")
}

/// Whether the format allows this as a metric's name.
fn is_name(text: &str) -> bool {
    let letter = |char: char| char.is_ascii_alphabetic() || char == '_' || char == ':';
    text.starts_with(letter)
        && text
            .chars()
            .all(|char| letter(char) || char.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "# HELP a_bytes What.\n# TYPE a_bytes counter\n\
        a_bytes_total{g=\"x\",p=\"q\\\"\\\\\\n\"} 5\na_bytes_total{g=\"y\"} 7.0\n\
        # HELP b B.\n# TYPE b gauge\nb -1\n# EOF\n";

    #[test]
    fn reads_values_and_labels() {
        let page = Page::parse(GOOD, Format::OpenMetrics).expect("valid");
        assert_eq!(page.value("a_bytes_total", &[]), Some(12.0));
        assert_eq!(page.value("a_bytes_total", &[("p", "q\"\\\n")]), Some(5.0));
        assert_eq!(page.value("a_bytes_total", &[("g", "z")]), None);
        assert_eq!(
            page.count("a_bytes_total", &[("g", "y")]).expect("whole"),
            Some(7)
        );
    }

    #[test]
    fn refuses_what_the_format_does() {
        for (from, to) in [
            ("# EOF\n", ""),
            ("g=\"y\"", "g=\"x\",p=\"q\\\"\\\\\\n\""),
            ("7.0", "7.0 1234"),
            ("7.0", "-7"),
            ("# HELP b B.\n", ""),
            ("b -1", "c -1"),
            ("# TYPE b gauge", "# TYPE b counter"),
            ("a_bytes_total{g=\"y\"", "a_bytes{g=\"y\""),
            ("\\n", "\\t"),
        ] {
            let bad = GOOD.replace(from, to);
            assert_ne!(bad, GOOD);
            assert!(Page::parse(&bad, Format::OpenMetrics).is_err(), "{bad}");
        }
    }

    #[test]
    fn sees_a_fall_and_a_loss() {
        let page = |text: &str| Page::parse(text, Format::OpenMetrics).expect("valid");
        let before = page(GOOD);
        assert!(before.check_monotonic(&before, "a_").is_ok());
        assert!(
            page(&GOOD.replace("7.0", "6"))
                .check_monotonic(&before, "a_")
                .is_err()
        );
        assert!(
            page(&GOOD.replace("\"y\"", "\"z\""))
                .check_monotonic(&before, "a_")
                .is_err()
        );
    }
}
