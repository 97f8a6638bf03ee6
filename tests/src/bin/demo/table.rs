//! The table: what was tried, expected, happened, who stopped it, and where the ledger tells it.

use std::fmt::Write as _;

/// One attempt.
#[derive(Debug)]
pub(crate) struct Row {
    /// What was tried, in words for a newcomer.
    pub(crate) tried: String,
    /// What should happen.
    pub(crate) expected: String,
    /// What did happen.
    pub(crate) happened: String,
    /// Who stopped it: SDK, agent or kernel; nobody where it was let pass.
    pub(crate) stopped_by: &'static str,
    /// The ledger's line that tells it, by its sequence number.
    pub(crate) ledger_line: Option<u64>,
}

impl Row {
    /// Whether what should happen did.
    pub(crate) fn is_right(&self) -> bool {
        self.expected == self.happened
    }
}

/// Attempts under a heading each.
#[derive(Debug, Default)]
pub(crate) struct Table {
    scenes: Vec<(String, Vec<Row>)>,
}

impl Table {
    pub(crate) fn add(&mut self, scene: &str, rows: Vec<Row>) {
        self.scenes.push((scene.to_owned(), rows));
    }

    /// Attempts that came out otherwise than expected.
    pub(crate) fn wrong(&self) -> usize {
        self.scenes.iter().flat_map(|(_, rows)| rows).filter(|row| !row.is_right()).count()
    }

    pub(crate) fn rows(&self) -> usize {
        self.scenes.iter().map(|(_, rows)| rows.len()).sum()
    }

    pub(crate) fn render(&self) -> String {
        let width = |text: fn(&Row) -> &str, least: usize| {
            let rows = self.scenes.iter().flat_map(|(_, rows)| rows);
            rows.map(|row| text(row).chars().count()).max().unwrap_or(0).max(least)
        };
        let tried = width(|row| &row.tried, 5);
        let expected = width(|row| &row.expected, 8);
        let happened = width(|row| &row.happened, 8);
        let mut text = String::new();
        let mut line = |cells: [&str; 6]| {
            let [first, second, third, fourth, fifth, last] = cells;
            // Writing to a string can't fail.
            let _ = writeln!(
                text,
                "  {first:<tried$}  {second:<expected$}  {third:<happened$}  {fourth:<10}  {fifth:>6}  {last}"
            );
        };
        line(["tried", "expected", "happened", "stopped by", "ledger", ""]);
        for (scene, rows) in &self.scenes {
            line(["", "", "", "", "", ""]);
            line([&scene.to_uppercase(), "", "", "", "", ""]);
            for row in rows {
                let ledger = row.ledger_line.map_or_else(|| "-".to_owned(), |seq| format!("#{seq}"));
                let mark = if row.is_right() { "" } else { "← DIFFERS" };
                line([&row.tried, &row.expected, &row.happened, row.stopped_by, &ledger, mark]);
            }
        }
        text.lines().map(|line| format!("{}\n", line.trim_end())).collect()
    }
}
