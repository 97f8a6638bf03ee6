//! Which lines of a ledger are asked for.

use std::io;
use std::ops::ControlFlow;
use std::path::Path;

use chrono::{DateTime, Utc};
use sentinel_proto::Outcome;
use serde::Deserialize as _;
use serde::de::IntoDeserializer as _;

use super::parts::{Line, each_line};
use super::{LedgerCommandError, times};

/// Outcomes of what was kept from happening, or let pass with a warning.
const INTERVENTIONS: [&str; 3] = ["blocked", "warned", "rejected"];
/// What the kernel did with what it didn't let pass.
const FATES: [&str; 2] = ["refused", "killed"];

/// What a line has to be.
#[derive(Clone, Debug, Default, clap::Args)]
pub(super) struct Filter {
    /// Of this session
    #[arg(long, value_name = "NAME")]
    session: Option<String>,
    /// Of this run of its session
    #[arg(long, value_name = "N")]
    run: Option<u64>,
    /// About this action
    #[arg(long, value_name = "NAME")]
    action: Option<String>,
    /// With this outcome; more than once: with any of them
    #[arg(long, value_name = "WORD", value_parser = outcome)]
    outcome: Vec<Outcome>,
    /// Of this kind, such as `action` or `kernel`; more than once: of any of them
    #[arg(long, value_name = "KIND")]
    kind: Vec<String>,
    /// Not before this: `2025-01-15T10:30:00Z`, or `30m`, `2h`, `7d` ago
    #[arg(long, value_name = "TIME", value_parser = times::moment)]
    since: Option<DateTime<Utc>>,
    /// Not after this
    #[arg(long, value_name = "TIME", value_parser = times::moment)]
    until: Option<DateTime<Utc>>,
    /// Only what was blocked, rejected, refused or killed, or let pass with a warning
    #[arg(long)]
    interventions: bool,
    /// No more than the first so many
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,
}

/// An outcome's word.
fn outcome(word: &str) -> Result<Outcome, String> {
    Outcome::deserialize(word.into_deserializer()).map_err(|error: serde::de::value::Error| {
        error.to_string().replace("unknown variant", "no outcome is called")
    })
}

/// What was seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) matching: u64,
    pub(super) damaged: u64,
}

impl Filter {
    /// Shows the lines that match.
    ///
    /// # Errors
    /// The ledger can't be read, or a line can't be shown.
    pub(super) fn each(
        &self,
        path: &Path,
        mut show: impl FnMut(&Line<'_>) -> io::Result<()>,
    ) -> Result<Seen, LedgerCommandError> {
        let mut matching: u64 = 0;
        let damaged = each_line(path, |line| {
            if !self.matches(line) {
                return Ok(ControlFlow::Continue(()));
            }
            show(line)?;
            matching = matching.saturating_add(1);
            let is_enough = self.limit.is_some_and(|limit| matching >= limit);
            Ok(if is_enough { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
        })?;
        Ok(Seen { matching, damaged })
    }

    fn matches(&self, line: &Line<'_>) -> bool {
        let is = |key: &str, wanted: &Option<String>| {
            wanted.as_deref().is_none_or(|wanted| line.string(key) == wanted)
        };
        let outcome = line.string("outcome");
        is("session", &self.session)
            && is("action", &self.action)
            && self.run.is_none_or(|run| line.number("run") == Some(run))
            && (self.outcome.is_empty() || self.outcome.iter().any(|wanted| wanted.as_str() == outcome))
            && (self.kind.is_empty() || self.kind.iter().any(|wanted| wanted == line.string("kind")))
            && (!self.interventions || is_intervention(line))
            && self.is_in_time(line)
    }

    fn is_in_time(&self, line: &Line<'_>) -> bool {
        if self.since.is_none() && self.until.is_none() {
            return true;
        }
        DateTime::parse_from_rfc3339(line.string("timestamp")).is_ok_and(|at| {
            self.since.is_none_or(|since| at >= since) && self.until.is_none_or(|until| at <= until)
        })
    }
}

fn is_intervention(line: &Line<'_>) -> bool {
    match line.string("kind") {
        "kernel" => FATES.contains(&line.string("fate")),
        // An action may have the same name.
        "session" => line.string("action") == "kill.ordered",
        _ => INTERVENTIONS.contains(&line.string("outcome")),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::super::parts::tests::Folder;
    use super::*;

    #[derive(clap::Parser)]
    struct Arguments {
        #[command(flatten)]
        filter: Filter,
    }

    const LEDGER: &str = concat!(
        r#"{"timestamp":"2025-01-15T10:00:00.000000Z","action":"agent.started","outcome":"recorded","kind":"agent","session":null,"run":null,"seq":1}"#,
        "\n",
        r#"{"timestamp":"2025-01-15T10:01:00.000000Z","action":"fetch","outcome":"started","kind":"action","session":"s1","run":1,"seq":2}"#,
        "\n",
        r#"{"timestamp":"2025-01-15T10:02:00.000000Z","action":"fetch","outcome":"success","kind":"action","session":"s1","run":1,"seq":3}"#,
        "\n",
        r#"{"timestamp":"2025-01-15T10:03:00.000000Z","action":"drop","outcome":"blocked","kind":"action","session":"daily","run":2,"seq":4}"#,
        "\n",
        r#"{"timestamp":"2025-01-15T10:04:00.000000Z","action":"kernel.connect","outcome":"recorded","kind":"kernel","fate":"refused","session":"s1","seq":5}"#,
        "\n",
        r#"{"timestamp":"2025-01-15T10:05:00.000000Z","action":"kernel.exec","outcome":"recorded","kind":"kernel","fate":"recorded","session":"s1","seq":6}"#,
        "\n",
        r#"{"timestamp":"2025-01-15T10:06:00.000000Z","action":"kernel.exec","outcome":"recorded","kind":"kernel","fate":"killed","session":"s1","seq":7}"#,
        "\n",
        r#"{"timestamp":"2025-01-15T10:07:00.000000Z","action":"fetch","outcome":"warned","kind":"action","session":"s1","run":1,"seq":8}"#,
        "\n",
        r#"{"timestamp":"2025-01-15T10:08:00.000000Z","action":"kill.ordered","outcome":"recorded","kind":"session","session":"s1","seq":9}"#,
        "\n",
        r#"{"timestamp":"2025-01-15T10:09:00.000000Z","action":"kill.ordered","outcome":"success","kind":"action","session":"s1","run":1,"seq":10}"#,
        "\n",
    );

    fn seqs(arguments: &[&str]) -> Vec<u64> {
        let folder = Folder::new(&format!("filter{}", arguments.concat().len())).with(None, LEDGER);
        let arguments = Arguments::try_parse_from([&["test"], arguments].concat()).unwrap();
        let mut seqs = Vec::new();
        let seen = arguments.filter.each(&folder.ledger(), |line| {
            seqs.extend(line.number("seq"));
            Ok(())
        });
        assert_eq!(seen.unwrap(), Seen { matching: seqs.len() as u64, damaged: 0 });
        seqs
    }

    #[test]
    fn a_filter_lets_all_lines_pass_that_are_as_asked_for() {
        for (arguments, expected) in [
            (&[][..], &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10][..]),
            (&["--session", "daily"], &[4]),
            (&["--session", "s"], &[]),
            (&["--run", "2"], &[4]),
            (&["--action", "fetch"], &[2, 3, 8]),
            (&["--outcome", "blocked", "--outcome", "success"], &[3, 4, 10]),
            (&["--kind", "kernel", "--kind", "agent"], &[1, 5, 6, 7]),
            (&["--since", "2025-01-15T10:07:00Z"], &[8, 9, 10]),
            (&["--until", "2025-01-15T12:01:00.5+02:00"], &[1, 2]),
            (&["--since", "1h"], &[]),
            (&["--interventions"], &[4, 5, 7, 8, 9]),
            (&["--limit", "2"], &[1, 2]),
            (&["--session", "s1", "--interventions", "--limit", "1"], &[5]),
        ] {
            assert_eq!(seqs(arguments), expected, "{arguments:?}");
        }
    }

    #[test]
    fn what_no_line_can_be_is_an_error_that_tells_what_it_can_be() {
        let refused = |arguments: &[&str]| {
            let parsed = Arguments::try_parse_from([&["test"], arguments].concat());
            parsed.err().map(|error| error.to_string()).unwrap_or_default()
        };
        let unknown = refused(&["--outcome", "denied"]);
        assert!(unknown.contains("no outcome is called `denied`"), "{unknown}");
        assert!(unknown.contains("`blocked`") && unknown.contains("`success`"), "{unknown}");
        assert!(refused(&["--since", "yesterday"]).contains("`30m`"));
        assert!(refused(&["--limit", "0"]).contains("--limit"));
    }
}
