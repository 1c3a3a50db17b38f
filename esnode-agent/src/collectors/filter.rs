//! Which devices are shown.

use regex::Regex;

/// Shows devices by their names.
#[derive(Clone, Debug, Default)]
pub struct DeviceFilter {
    exclude: Option<Regex>,
    include: Option<Regex>,
}

impl DeviceFilter {
    /// Shows those that `include` matches, or else all but those that `exclude` matches, or else all
    /// but those that `default` matches. An empty expression is none.
    #[must_use]
    pub fn new(exclude: Option<&Regex>, include: Option<&Regex>, default: &str) -> Self {
        let given =
            |regex: Option<&Regex>| regex.filter(|regex| !regex.as_str().is_empty()).cloned();
        let by_default = exclude.is_none() && given(include).is_none();
        Self {
            exclude: if by_default {
                Regex::new(default).ok()
            } else {
                given(exclude)
            },
            include: given(include),
        }
    }

    /// Whether the device is shown.
    #[must_use]
    pub fn shows(&self, device: &str) -> bool {
        let matches = |regex: &Option<Regex>| regex.as_ref().map(|regex| regex.is_match(device));
        matches(&self.include).unwrap_or(true) && !matches(&self.exclude).unwrap_or(false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(exclude: Option<&str>, include: Option<&str>) -> Vec<&'static str> {
        let regex = |text: &str| Regex::new(text).expect("valid");
        let (exclude, include) = (exclude.map(regex), include.map(regex));
        let filter = DeviceFilter::new(exclude.as_ref(), include.as_ref(), "^b");
        let mut devices = vec!["aa", "ab", "b"];
        devices.retain(|device| filter.shows(device));
        devices
    }

    #[test]
    fn what_is_given_replaces_the_default() {
        assert_eq!(shown(None, None), ["aa", "ab"]);
        assert_eq!(shown(Some("^a"), None), ["b"]);
        assert_eq!(shown(None, Some("b")), ["ab", "b"]);
    }

    #[test]
    fn an_empty_expression_is_none() {
        assert_eq!(shown(Some(""), None), ["aa", "ab", "b"]);
        assert_eq!(shown(None, Some("")), ["aa", "ab"]);
        assert_eq!(shown(Some(""), Some("")), ["aa", "ab", "b"]);
    }
}
