//! Frequencies of all cores from one file, `/proc/cpuinfo` (x86; arch/x86/kernel/cpu/proc.c).

use crate::{
    collectors::{parse_optional, sysfs},
    error::{ParseError, ReadError, read_file},
};
use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// The file is dear: so often it is read at most.
const PERIOD: Duration = Duration::from_secs(10);

/// The file, and what it is good for.
pub(super) struct Cpuinfo {
    path: PathBuf,
    /// Whether it has frequencies.
    tells: bool,
    /// Whether those were measured, and not just what the hardware is sold for.
    measures: bool,
    /// Whether this kernel waits for busy cores.
    waits: bool,
    read: Option<Instant>,
}

impl Cpuinfo {
    /// Looks what the file below `procfs` is good for.
    pub(super) fn new(procfs: &Path) -> Self {
        let path = procfs.join("cpuinfo");
        // Its beginning has the first core.
        let text = sysfs::text(&path).unwrap_or_default();
        let release = read_file(&procfs.join("sys/kernel/osrelease")).unwrap_or_default();
        let mut flags = text
            .lines()
            .filter(|line| line.starts_with("flags"))
            .flat_map(str::split_ascii_whitespace);
        Self {
            path,
            tells: text.lines().any(|line| line.starts_with("cpu MHz")),
            measures: flags.any(|flag| flag == "aperfmperf"),
            waits: waits(&release),
            read: None,
        }
    }

    /// Whether frequencies are to be read here, on a host with cpufreq or without.
    pub(super) fn serves(&self, has_cpufreq: bool) -> bool {
        self.tells
            && if has_cpufreq {
                self.waits
            } else {
                self.measures
            }
    }

    /// Reads it the next time, however soon.
    pub(super) fn restart(&mut self) {
        self.read = None;
    }

    /// Cores with their frequencies in kHz; `None` if it was read just now.
    ///
    /// # Errors
    /// If the file can't be read or parsed.
    pub(super) fn read(&mut self) -> Result<Option<HashMap<u32, u64>>, ReadError> {
        if self.read.is_some_and(|read| read.elapsed() < PERIOD) {
            return Ok(None);
        }
        let frequencies = parse_optional(&self.path, parse)?.unwrap_or_default();
        self.read = Some(Instant::now());
        Ok(Some(frequencies))
    }
}

/// Cores with their frequencies in kHz.
fn parse(text: &str) -> Result<HashMap<u32, u64>, ParseError> {
    let mut frequencies = HashMap::new();
    let mut core = None;
    for (number, line) in (1..).zip(text.lines()) {
        let Some((name, value)) = line.split_once(':') else {
            continue;
        };
        let value = value.trim();
        match name.trim_end() {
            "processor" => {
                let value = value.parse().ok();
                let missing = || ParseError::new(number, "the number of a core");
                core = Some(value.ok_or_else(missing)?);
            }
            // "Unknown" where the kernel can't tell, from Linux 6.14 on.
            "cpu MHz" if value != "Unknown" => {
                let frequency = kilohertz(value);
                let missing = || ParseError::new(number, "MHz with three decimals");
                let frequency = frequency.ok_or_else(missing)?;
                frequencies.extend(core.filter(|_| frequency > 0).zip(Some(frequency)));
            }
            _ => {}
        }
    }
    Ok(frequencies)
}

/// Of a number such as `2245.780`, in MHz.
fn kilohertz(megahertz: &str) -> Option<u64> {
    let (whole, thousandths) = megahertz.split_once('.')?;
    if thousandths.len() != 3 {
        return None;
    }
    let whole: u64 = whole.parse().ok()?;
    whole
        .checked_mul(1000)?
        .checked_add(thousandths.parse().ok()?)
}

/// Whether this release of Linux waits for cores whose frequency is asked for: before 5.18.
fn waits(release: &str) -> bool {
    let mut numbers = release.split(|character: char| !character.is_ascii_digit());
    let mut next = || numbers.next().and_then(|number| number.parse::<u32>().ok());
    next().zip(next()).is_some_and(|version| version < (5, 18))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_where_it_breaks() {
        for (line, expected) in [
            ("processor : -1", "the number of a core"),
            ("processor :", "the number of a core"),
            ("cpu MHz : 2245", "MHz with three decimals"),
            ("cpu MHz : 2245.7", "MHz with three decimals"),
            ("cpu MHz : -1.000", "MHz with three decimals"),
            ("cpu MHz : 18446744073709551.616", "MHz with three decimals"),
            ("cpu MHz : nan", "MHz with three decimals"),
        ] {
            let error = ParseError::new(2, expected);
            assert_eq!(
                parse(&format!("processor : 0\n{line}\n")),
                Err(error),
                "{line}"
            );
        }
    }

    #[test]
    fn releases_that_wait() {
        for release in ["5.15.0-91-generic", "5.17", "4.18.0-513.el8.x86_64", "5.4"] {
            assert!(waits(release), "{release}");
        }
        for release in ["5.18.0", "6.1.0-28-amd64", "10.0", "", "next-20250101"] {
            assert!(!waits(release), "{release}");
        }
    }
}
