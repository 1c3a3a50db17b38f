//! The table.

use std::collections::BTreeMap;

use super::{
    compare::{Compared, Verdict, shown},
    page::Page,
};

/// What was compared, in the order in which it came up, over all rounds.
#[derive(Default)]
pub(super) struct Report {
    lines: Vec<Line>,
    places: BTreeMap<(String, String), usize>,
}

/// One series.
struct Line {
    /// The last comparison, or the last that was wrong.
    shown: Compared,
    rounds: usize,
    wrong: usize,
}

impl Line {
    /// A reading may be caught between two others once in a while: what is out more often than
    /// not is wrong.
    fn is_wrong(&self) -> bool {
        self.wrong * 2 > self.rounds
    }

    fn difference(&self) -> String {
        match self.shown.verdict {
            Verdict::Differs(by) if by.is_finite() => shown(Some(by)),
            Verdict::Differs(_) => "another".to_owned(),
            Verdict::Same => "-".to_owned(),
            Verdict::Absent => "we lack it".to_owned(),
            Verdict::Invented => "we invent it".to_owned(),
            Verdict::Neither => "both lack it".to_owned(),
            Verdict::Unclear => "not compared".to_owned(),
        }
    }

    fn verdict(&self) -> String {
        if self.is_wrong() {
            format!("WRONG in {} of {}", self.wrong, self.rounds)
        } else if self.wrong > 0 {
            format!("ok, but in {} of {}", self.wrong, self.rounds)
        } else if self.shown.verdict == Verdict::Unclear {
            "?".to_owned()
        } else {
            "ok".to_owned()
        }
    }
}

impl Report {
    /// Adds comparisons to those of the same series.
    pub(super) fn extend(&mut self, compared: impl IntoIterator<Item = Compared>) {
        for compared in compared {
            self.add(compared);
        }
    }

    fn add(&mut self, compared: Compared) {
        let is_wrong = compared.verdict.is_wrong();
        let key = (compared.series.clone(), compared.gpu.clone());
        let lines = &mut self.lines;
        let place = *self.places.entry(key).or_insert(lines.len());
        if let Some(line) = lines.get_mut(place) {
            line.rounds += 1;
            line.wrong += usize::from(is_wrong);
            if is_wrong || !line.shown.verdict.is_wrong() {
                line.shown = compared;
            }
        } else {
            lines.push(Line {
                shown: compared,
                rounds: 1,
                wrong: usize::from(is_wrong),
            });
        }
    }

    /// The table, and below it what could not be compared.
    pub(super) fn table(&self, page: &Page) -> Vec<String> {
        let head = [
            "family",
            "gpu",
            "ours",
            "nvidia-smi, before..after",
            "out by",
            "verdict",
        ];
        let mut rows = vec![head.map(str::to_owned)];
        rows.extend(self.lines.iter().map(|line| {
            let Compared {
                series,
                gpu,
                ours,
                theirs,
                ..
            } = &line.shown;
            let [series, gpu, ours, theirs] = [series, gpu, ours, theirs].map(Clone::clone);
            [series, gpu, ours, theirs, line.difference(), line.verdict()]
        }));
        let widths = rows.iter().fold([0; 6], |mut widths, row| {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = cell.chars().count().max(*width);
            }
            widths
        });
        let mut table: Vec<String> = rows
            .iter()
            .map(|row| {
                let cells = row.iter().zip(widths);
                let cells = cells.map(|(cell, width)| format!("{cell:<width$}"));
                cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
            })
            .collect();
        let compared = |family: &&str| {
            let mut lines = self.lines.iter();
            lines.any(|line| line.shown.series.split([' ', ',']).next() == Some(*family))
        };
        let rest = page
            .gpu_families()
            .into_iter()
            .filter(|family| !compared(family));
        let rest: Vec<&str> = rest.collect();
        if !rest.is_empty() {
            table.push(format!(
                "Not compared, as nvidia-smi has no field for it: {}",
                rest.join(" ")
            ));
        }
        table
    }

    /// Series that are wrong.
    pub(super) fn wrong(&self) -> Vec<String> {
        let wrong = self.lines.iter().filter(|line| line.is_wrong());
        wrong
            .map(|line| format!("{} of GPU {}", line.shown.series, line.shown.gpu))
            .collect()
    }

    /// How many series were compared with an answer.
    pub(super) fn compared(&self) -> usize {
        let lines = self.lines.iter();
        lines
            .filter(|line| line.shown.verdict != Verdict::Unclear)
            .count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compared(series: &str, verdict: Verdict) -> Compared {
        Compared {
            series: series.to_owned(),
            gpu: "0".to_owned(),
            ours: "1".to_owned(),
            theirs: "2..3".to_owned(),
            verdict,
        }
    }

    #[test]
    fn out_more_often_than_not_is_wrong() {
        let mut report = Report::default();
        for (now_and_then, always) in [(true, true), (false, true), (false, true)] {
            let verdict = |out| {
                if out {
                    Verdict::Differs(1.5)
                } else {
                    Verdict::Same
                }
            };
            report.add(compared("esnode_gpu_power_watts", verdict(now_and_then)));
            report.add(compared("esnode_gpu_info name", verdict(always)));
        }
        assert_eq!(report.wrong(), ["esnode_gpu_info name of GPU 0"]);
        assert_eq!(report.compared(), 2);
        let page = Page::parse("esnode_gpu_info{} 1\nesnode_gpu_bar1_used_bytes{} 1\n").unwrap();
        let table = report.table(&page);
        assert_eq!(table.len(), 4);
        assert!(table[1].ends_with("ok, but in 1 of 3"), "{}", table[1]);
        assert!(table[2].ends_with("WRONG in 3 of 3"), "{}", table[2]);
        assert!(
            table[3].ends_with(": esnode_gpu_bar1_used_bytes"),
            "{}",
            table[3]
        );
    }
}
