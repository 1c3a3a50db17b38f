//! A running Prometheus, asked by its HTTP interface.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;
use ureq::{Agent, http::Response};

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_mins(1);

/// The longest answer that is read.
const ANSWER_BYTES: u64 = 256 << 20;

pub(super) struct Prometheus {
    url: String,
    agent: Agent,
}

/// How much data a query gave.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Data {
    pub(super) series: usize,
    /// Of them, those that have a number: a quotient of two zeros is none.
    pub(super) with_numbers: usize,
}

impl Prometheus {
    pub(super) fn new(url: &str) -> Result<Self> {
        if url.starts_with("https:") {
            bail!("{url}: https is not spoken here: name its plain port, or one that is forwarded");
        }
        let config = Agent::config_builder()
            .timeout_global(Some(PATIENCE))
            // Prometheus says in the body what is wrong.
            .http_status_as_error(false)
            .build();
        Ok(Self {
            url: url.trim_end_matches('/').to_owned(),
            agent: config.into(),
        })
    }

    /// What a query gives now.
    pub(super) fn query(&self, expr: &str) -> Result<Data> {
        let data = self.post("query", &[("query", expr)])?;
        data_of(&data)
    }

    /// What a query gives over the last seconds.
    pub(super) fn query_range(&self, expr: &str, seconds: u64, step: u64) -> Result<Data> {
        let end = now()?;
        let start = format!("{}", end.saturating_sub(seconds));
        let (end, step) = (end.to_string(), step.to_string());
        let parameters = [
            ("query", expr),
            ("start", &start),
            ("end", &end),
            ("step", &step),
        ];
        data_of(&self.post("query_range", &parameters)?)
    }

    /// The values of a label, in series that a selector fits and that were there in the last
    /// seconds.
    pub(super) fn label_values(
        &self,
        label: &str,
        selector: Option<&str>,
        seconds: u64,
    ) -> Result<Vec<String>> {
        let end = now()?;
        let mut request = self
            .agent
            .get(format!("{}/api/v1/label/{label}/values", self.url))
            .query("start", end.saturating_sub(seconds).to_string())
            .query("end", end.to_string());
        if let Some(selector) = selector {
            request = request.query("match[]", selector);
        }
        let data = self.answer(request.call())?;
        serde_json::from_value(data).context("no list of values")
    }

    fn post(&self, path: &str, parameters: &[(&str, &str)]) -> Result<Value> {
        let request = self.agent.post(format!("{}/api/v1/{path}", self.url));
        self.answer(request.send_form(parameters.iter().copied()))
    }

    /// The data of an answer.
    fn answer(&self, response: Result<Response<ureq::Body>, ureq::Error>) -> Result<Value> {
        let mut response = response.with_context(|| {
            format!(
                "{}: Prometheus does not answer: is it running there?",
                self.url
            )
        })?;
        let status = response.status();
        let body = response.body_mut().with_config().limit(ANSWER_BYTES);
        let text = body.read_to_string().context("cannot read the answer")?;
        let answer: Value = serde_json::from_str(&text)
            .with_context(|| format!("{}: {status}, and no answer of Prometheus", self.url))?;
        if answer.get("status").and_then(Value::as_str) != Some("success") {
            let error = answer.get("error").and_then(Value::as_str);
            bail!(
                "Prometheus refuses ({status}): {}",
                error.unwrap_or("it does not say why")
            );
        }
        answer
            .get("data")
            .cloned()
            .context("an answer without data")
    }
}

fn now() -> Result<u64> {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    Ok(now.context("the clock is before 1970")?.as_secs())
}

fn data_of(data: &Value) -> Result<Data> {
    let result = data.get("result").context("an answer without a result")?;
    if ["scalar", "string"].contains(&data.get("resultType").and_then(Value::as_str).unwrap_or(""))
    {
        return Ok(Data {
            series: 1,
            with_numbers: 1,
        });
    }
    let series = result.as_array().context("a result that is no list")?;
    let with_numbers = series.iter().filter(|series| has_number(series)).count();
    Ok(Data {
        series: series.len(),
        with_numbers,
    })
}

/// Whether a series has a point that can be drawn.
fn has_number(series: &Value) -> bool {
    let one = series.get("value").into_iter();
    let many = series.get("values").and_then(Value::as_array);
    let mut points = one.chain(many.into_iter().flatten());
    // Native histograms have other keys, and no such point is without a number.
    series.get("histogram").is_some()
        || series.get("histograms").is_some()
        || points.any(|point| {
            point
                .get(1)
                .and_then(Value::as_str)
                .is_some_and(|it| it != "NaN")
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn series_without_numbers_are_no_data() -> Result<()> {
        let vector = json!({"resultType": "vector", "result": [
            {"metric": {}, "value": [1, "NaN"]}, {"metric": {}, "value": [1, "2"]}]});
        let matrix = json!({"resultType": "matrix", "result": [
            {"metric": {}, "values": [[1, "NaN"], [2, "NaN"]]}]});
        for (data, series, with_numbers) in [(vector, 2, 1), (matrix, 1, 0)] {
            let expected = Data {
                series,
                with_numbers,
            };
            assert_eq!(data_of(&data)?, expected);
        }
        Ok(())
    }
}
