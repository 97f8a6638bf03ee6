//! `sentinel policy explain FILE ACTION`: what would become of an action in a fresh session, and by which line.
//!
//! Invariant: the engine decides, here as in the agent. This module only asks it and tells the answer.

mod course;
mod terms;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use chrono::{DateTime, SecondsFormat};
use clap::Args;
use sentinel_engine::{Now, Policy, Wish};
use sentinel_policy::{Problem, parse_bytes};
use sentinel_proto::{ActionName, Denial, Money, RiskLevel, RulePlace, Tag};

use super::words::approvers;
use super::{EXIT_PROBLEMS, Said, of_file};
use course::course;
use terms::terms;

/// The action would be denied.
const EXIT_DENIED: u8 = 3;
/// A human would have to approve the action first.
const EXIT_PENDING: u8 = 4;

/// What `sentinel policy explain` is called with.
#[derive(Debug, Args)]
pub struct ExplainArguments {
    /// The policy.
    file: PathBuf,
    /// The action's name.
    #[arg(value_parser = |text: &str| ActionName::new(text))]
    action: ActionName,
    /// What the application says it costs.
    #[arg(long, value_name = "USD", default_value = "0", value_parser = Money::from_decimal)]
    cost: Money,
    /// A tag that the application gives it; may be there several times.
    #[arg(long = "tag", value_name = "TAG", value_parser = |text: &str| Tag::new(text))]
    tags: Vec<Tag>,
    /// How risky the application says it is.
    #[arg(long, value_name = "LEVEL", value_parser = |text: &str| RiskLevel::new(text))]
    risk: Option<RiskLevel>,
    /// When it would start, such as 2026-11-23T09:00:00+01:00; now, where it is absent.
    #[arg(long, value_name = "TIME", value_parser = moment)]
    at: Option<u64>,
}

/// Explains what would become of an action: 0 where it may start, 3 where it is denied, 4 where it needs an approval; 1 and all
/// problems where the file is no policy, or 66.
#[must_use]
pub fn explain(arguments: &ExplainArguments) -> ExitCode {
    let at = arguments.at.unwrap_or_else(|| {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
    });
    of_file(&arguments.file, |name, bytes| explained(name, bytes, arguments, at)).tell()
}

/// Microseconds since 1970.
fn moment(text: &str) -> Result<u64, String> {
    let moment = DateTime::parse_from_rfc3339(text).ok();
    moment.and_then(|moment| u64::try_from(moment.timestamp_micros()).ok()).ok_or_else(|| {
        "it is no moment since 1970; write it with its distance from UTC, such as `2026-11-23T09:00:00Z` or `2026-11-23T09:00:00+01:00`".to_owned()
    })
}

fn explained(name: &str, bytes: &[u8], arguments: &ExplainArguments, at: u64) -> Said {
    let text = String::from_utf8_lossy(bytes);
    let policy = match parse_bytes(bytes) {
        Ok(parsed) => parsed.policy,
        Err(problems) => {
            return Said { status: EXIT_PROBLEMS, out: String::new(), err: problems.render(name, &text) };
        }
    };
    let course = course(&policy, arguments, Now { wall_micros: at, elapsed: Duration::ZERO });
    let source = Source { name, text: &text, arguments, policy: &policy };
    let when = i64::try_from(at).ok().and_then(DateTime::from_timestamp_micros);
    let when = when
        .map_or_else(|| "an unknown time".to_owned(), |when| when.to_rfc3339_opts(SecondsFormat::Secs, true));
    let (status, verdict) = match (&course.denial, &course.wish, course.warnings.is_empty()) {
        (Some(denial), _, _) => (EXIT_DENIED, format!("denied{}", by(denial.rule.as_ref()))),
        (None, Some(wish), _) => {
            let by = by(Some(&wish.rule));
            (EXIT_PENDING, format!("needs an approval{by} from {}", source.approvers()))
        }
        (None, None, false) => (0, "allowed, and recorded as `warned`".to_owned()),
        (None, None, true) => (0, "allowed".to_owned()),
    };
    let mut out = format!("`{}` in a fresh session at {when}: {verdict}\n\n", arguments.action);
    if let Some(denial) = &course.denial {
        out.push_str(&source.remark("denied", denial));
    }
    if let Some(wish) = &course.wish {
        out.push_str(&source.remark_on(wish));
    }
    for warning in &course.warnings {
        out.push_str(&source.remark("warned", warning));
    }
    out.push_str(&terms(&policy, &arguments.action, course.cost));
    Said { status, out, err: String::new() }
}

fn by(rule: Option<&RulePlace>) -> String {
    rule.map(|RulePlace { rule, line }| format!(" by `{rule}` (line {line})")).unwrap_or_default()
}

/// The policy's text, to point into.
struct Source<'a> {
    name: &'a str,
    text: &'a str,
    arguments: &'a ExplainArguments,
    policy: &'a Policy,
}

impl Source<'_> {
    fn approvers(&self) -> String {
        self.policy.approvals.as_ref().map(approvers).unwrap_or_default()
    }

    /// A denial or warning under its line, if a line is the cause.
    fn remark(&self, severity: &str, denial: &Denial) -> String {
        let Denial { reason, rule } = denial;
        match rule {
            Some(rule) => self.at(rule, severity, reason.to_string(), reason.way_out()),
            None => format!("{severity}: {reason}; {}\n\n", reason.way_out()),
        }
    }

    fn remark_on(&self, wish: &Wish) -> String {
        let message = format!("`{}` wants a human's word", wish.rule.rule);
        let way_out = format!(
            "from {}, within {} s; without it the action is denied",
            self.approvers(),
            wish.timeout_seconds
        );
        self.at(&wish.rule, "approval", message, way_out)
    }

    fn at(&self, rule: &RulePlace, severity: &str, message: String, way_out: String) -> String {
        let ExplainArguments { action, tags, risk, .. } = self.arguments;
        let of_action = self.policy.actions.get(action);
        let mut words: Vec<&str> = Vec::new();
        match rule.rule.as_str() {
            "approvals.tags" => {
                words.extend(of_action.into_iter().flat_map(|rule| &rule.tags).map(Tag::as_str));
                words.extend(tags.iter().map(Tag::as_str));
            }
            "approvals.risk_levels" => {
                let of_policy = of_action.and_then(|rule| rule.risk.as_ref());
                words.extend(of_policy.into_iter().chain(risk).map(RiskLevel::as_str));
            }
            "denied_actions" | "approvals.actions" => words.push(action.as_str()),
            path => {
                let of_action = path.strip_suffix(action.as_str()).filter(|rest| rest.ends_with('.'));
                words.extend(of_action.map(|_| action.as_str()));
            }
        }
        words.extend(rule.rule.rsplit('.').next());
        Problem::remark(self.text, rule, &words, message, way_out).render(severity, self.name, self.text)
    }
}

#[cfg(test)]
mod tests;
