//! Links to dashboards lead somewhere, with variables that are there.

use super::{
    board::{Board, list, text, texts},
    findings::Findings,
};

/// How a link to a dashboard begins.
const PATH: &str = "/d/";

pub(super) fn check(boards: &[Board], findings: &mut Findings) {
    for board in boards {
        let mut all = Vec::new();
        texts(&board.json, "", &mut all);
        for (pointer, link) in all {
            for complaint in complaints(link, boards) {
                findings.add(&board.file, format!("{complaint} (at {pointer})"));
            }
        }
        for link in list(&board.json, "/links") {
            if text(link, "/type") == Some("dashboards") {
                check_tags(board, link, boards, findings);
            }
        }
    }
}

/// What is wrong with the links to dashboards in a text.
pub(super) fn complaints(text: &str, boards: &[Board]) -> Vec<String> {
    let mut complaints = Vec::new();
    for (place, _) in text.match_indices(PATH) {
        let link = text.get(place + PATH.len()..).unwrap_or_default();
        // In a text, a link ends at what Markdown and HTML end it with.
        let link = link
            .split([' ', ')', '"', '\'', '>'])
            .next()
            .unwrap_or_default();
        let uid = link.split(['/', '?']).next().unwrap_or_default();
        let Some(board) = boards.iter().find(|board| board.uid() == uid) else {
            complaints.push(format!(
                "the link leads to \"{uid}\", which is no dashboard's uid"
            ));
            continue;
        };
        for parameter in link.split(['?', '&']).skip(1) {
            let name = parameter.split('=').next().unwrap_or_default();
            let Some(name) = name.strip_prefix("var-") else {
                continue;
            };
            if board.variable(name).is_none() {
                complaints.push(format!(
                    "the link to \"{uid}\" sets `{name}`, which is no variable there"
                ));
            }
        }
    }
    complaints
}

/// A list of dashboards by tag that has none in it.
fn check_tags(board: &Board, link: &serde_json::Value, boards: &[Board], findings: &mut Findings) {
    let wanted: Vec<_> = list(link, "/tags").collect();
    let found = boards.iter().any(|board| {
        let tags: Vec<_> = list(&board.json, "/tags").collect();
        wanted.iter().all(|tag| tags.contains(tag))
    });
    if !found {
        let title = text(link, "/title").unwrap_or("?");
        findings.add(
            &board.file,
            format!("link \"{title}\": no dashboard has its tags"),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Result;

    #[test]
    fn links_that_lead_nowhere_are_told() -> Result<()> {
        let boards = [
            Board::parse(
                "one.json",
                r#"{"uid": "one", "tags": ["a"],
                    "links": [{"type": "dashboards", "title": "More", "tags": ["b"]}],
                    "panels": [{"description": "[x](/d/two?var-pid=1&var-x=2) and /d/three/x"}]}"#,
            )?,
            Board::parse(
                "two.json",
                r#"{"uid": "two", "templating": {"list": [{"name": "pid"}]}}"#,
            )?,
        ];
        let mut findings = Findings::default();
        check(&boards, &mut findings);
        findings.check(&[
            "one.json: the link to \"two\" sets `x`, which is no variable there \
             (at /panels/0/description)",
            "one.json: the link leads to \"three\", which is no dashboard's uid \
             (at /panels/0/description)",
            "one.json: link \"More\": no dashboard has its tags",
        ]);
        Ok(())
    }
}
