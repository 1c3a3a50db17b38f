//! The agent's page, read back.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result};

/// One series.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Sample {
    name: String,
    labels: Vec<(String, String)>,
    value: String,
}

/// Names and values of some labels.
pub(super) type Labels<'a> = [(&'a str, &'a str)];

impl Sample {
    /// `name{label="value",…} value`.
    fn parse(line: &str) -> Option<Self> {
        let end = line.find(['{', ' '])?;
        let (name, mut rest) = line.split_at(end);
        let mut labels = Vec::new();
        if let Some(inner) = rest.strip_prefix('{') {
            rest = inner;
            while !rest.starts_with('}') {
                let (label, after) = rest.split_once("=\"")?;
                let (value, after) = quoted(after)?;
                labels.push((label.trim_start_matches(',').to_owned(), value));
                rest = after;
            }
            rest = rest.strip_prefix('}')?;
        }
        let value = rest.split_ascii_whitespace().next()?;
        Some(Self {
            name: name.to_owned(),
            labels,
            value: value.to_owned(),
        })
    }

    pub(super) fn label(&self, name: &str) -> Option<&str> {
        let label = self.labels.iter().find(|(label, _)| label == name);
        label.map(|(_, value)| value.as_str())
    }

    pub(super) fn number(&self) -> Option<f64> {
        self.value.parse().ok()
    }

    fn has(&self, labels: &Labels<'_>) -> bool {
        labels
            .iter()
            .all(|(name, value)| self.label(name) == Some(*value))
    }
}

/// A quoted text up to its end, and what comes after that.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((place, character)) = characters.next() {
        match character {
            '"' => return Some((value, text.get(place + 1..)?)),
            '\\' => match characters.next()?.1 {
                'n' => value.push('\n'),
                other => value.push(other),
            },
            other => value.push(other),
        }
    }
    None
}

/// All series of a scrape.
#[derive(Debug, Default)]
pub(super) struct Page(Vec<Sample>);

impl Page {
    /// Reads a page; what comes before it in an HTTP answer may be there as well.
    pub(super) fn parse(answer: &str) -> Result<Self> {
        let body = answer
            .split_once("\r\n\r\n")
            .map_or(answer, |(_, body)| body);
        let lines = body.lines();
        let samples = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
        let samples = samples.map(|line| {
            Sample::parse(line).with_context(|| format!("a line of the page is none: {line}"))
        });
        Ok(Self(samples.collect::<Result<_>>()?))
    }

    /// The series of a family that have these labels, and perhaps more.
    pub(super) fn select<'a>(
        &'a self,
        name: &'a str,
        labels: &'a Labels<'_>,
    ) -> impl Iterator<Item = &'a Sample> {
        let of_family = self.0.iter().filter(move |sample| sample.name == name);
        of_family.filter(move |sample| sample.has(labels))
    }

    /// The value of the first of them that is of no MIG instance.
    pub(super) fn number(&self, name: &str, labels: &Labels<'_>) -> Option<f64> {
        let mut samples = self.select(name, labels);
        samples
            .find(|sample| sample.label("mig").is_none())?
            .number()
    }

    /// Their sum; `None` if there are none.
    pub(super) fn sum(&self, name: &str, labels: &Labels<'_>) -> Option<f64> {
        let numbers: Vec<f64> = self
            .select(name, labels)
            .filter_map(Sample::number)
            .collect();
        (!numbers.is_empty()).then(|| numbers.iter().sum())
    }

    /// Names of families of GPUs.
    pub(super) fn gpu_families(&self) -> BTreeSet<&str> {
        let names = self.0.iter().map(|sample| sample.name.as_str());
        names
            .filter(|name| name.starts_with("esnode_gpu_"))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = concat!(
        "HTTP/1.1 200 OK\r\ncontent-length: 7\r\n\r\n# TYPE esnode_gpu_up gauge\n",
        "esnode_gpu_up{gpu=\"0\",uuid=\"GPU-0\"} 1\n",
        "esnode_gpu_memory_used_bytes{gpu=\"0\",uuid=\"GPU-0\",mig=\"1\",profile=\"1g\"} 7\n",
        "esnode_gpu_memory_used_bytes{gpu=\"0\",uuid=\"GPU-0\"} 5000\n",
        "esnode_group_gpu_energy_joules_total{group=\"a \\\"b\\\"},\\\\\\n\",gpu=\"0\"} 1.5\n",
        "process_cpu_seconds_total 0.25\n# EOF\n"
    );

    #[test]
    fn values_and_labels() {
        let page = Page::parse(PAGE).unwrap();
        assert_eq!(
            page.number("esnode_gpu_up", &[("uuid", "GPU-0")]),
            Some(1.0)
        );
        assert_eq!(page.number("esnode_gpu_up", &[("uuid", "GPU-1")]), None);
        assert_eq!(page.number("process_cpu_seconds_total", &[]), Some(0.25));
        let group = page
            .select("esnode_group_gpu_energy_joules_total", &[])
            .next();
        assert_eq!(group.unwrap().label("group"), Some("a \"b\"},\\\n"));
        assert_eq!(page.gpu_families().len(), 2);
    }

    #[test]
    fn the_whole_gpu_and_its_instances() {
        let page = Page::parse(PAGE).unwrap();
        let family = "esnode_gpu_memory_used_bytes";
        assert_eq!(page.number(family, &[("gpu", "0")]), Some(5000.0));
        assert_eq!(page.sum(family, &[("gpu", "0")]), Some(5007.0));
        assert_eq!(page.sum(family, &[("gpu", "1")]), None);
    }

    #[test]
    fn what_is_no_page() {
        Page::parse("esnode_gpu_up{gpu=\"0} 1\n").unwrap_err();
    }
}
