//! `sentinel approvals`: what waits for a human's word, and the human's word.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::process::ExitCode;

use sentinel_proto::admin::{ApprovalStatus, Approve, Reject, Reply, Request};
use sentinel_proto::app::Ask;
use sentinel_proto::{ApprovalId, Money};

use super::conversation::{AgentArguments, AskError, ask, order, out_of_turn};
use super::terminal::visible;

/// No approval has this id.
const EXIT_UNKNOWN: u8 = 66;

/// `sentinel approvals …`.
#[derive(Debug, clap::Args)]
pub struct ApprovalsArguments {
    #[command(subcommand)]
    command: Option<ApprovalsCommand>,
    #[command(flatten)]
    agent: AgentArguments,
}

#[derive(Debug, clap::Subcommand)]
enum ApprovalsCommand {
    /// Lists what waits, and what was approved and can still be used (the default)
    List {
        /// As JSON, whole
        #[arg(long)]
        json: bool,
    },
    /// Shows all that an approval would be bound to
    Show {
        /// Its id, or the beginning of it
        id: String,
    },
    /// Lets the action start: that action with those arguments, once unless said otherwise
    Approve {
        /// Its id, or the beginning of it
        id: String,
        /// How often it may start
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
        uses: Option<u64>,
        /// For how many seconds from now [default: the policy's timeout_seconds]
        #[arg(long = "for", value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=31_536_000))]
        seconds: Option<u64>,
        /// What all its starts may cost together, in dollars
        #[arg(long, value_name = "USD", value_parser = Money::from_decimal)]
        up_to: Option<Money>,
        /// A note for the ledger
        #[arg(long, value_name = "TEXT")]
        note: Option<String>,
    },
    /// Keeps the action from starting, or takes an approval back that is not used up
    Deny {
        /// Its id, or the beginning of it
        id: String,
        /// A note for the ledger and the application
        #[arg(long, value_name = "TEXT")]
        note: Option<String>,
    },
}

/// Carries the command out.
#[must_use]
pub fn approvals(arguments: &ApprovalsArguments) -> ExitCode {
    let runtime = &arguments.agent.runtime;
    let all = match list(arguments) {
        Ok(Some(all)) => all,
        Ok(None) => return out_of_turn(),
        Err(error) => return error.tell(),
    };
    match &arguments.command {
        None | Some(ApprovalsCommand::List { json: false }) => print(&listed(&all)),
        Some(ApprovalsCommand::List { json: true }) => match serde_json::to_string_pretty(&all) {
            Ok(json) => print(&format!("{json}\n")),
            Err(_unwritable) => out_of_turn(),
        },
        Some(ApprovalsCommand::Show { id }) => one(&all, id).map_or_else(unknown, |one| print(&shown(one))),
        Some(ApprovalsCommand::Approve { id, uses, seconds, up_to, note }) => {
            one(&all, id).map_or_else(unknown, |one| {
                let approve = Approve {
                    request: 1,
                    approval: one.approval,
                    uses: *uses,
                    seconds: *seconds,
                    up_to_usd: *up_to,
                    note: note.clone(),
                };
                order(runtime, &Request::Approve(approve))
            })
        }
        Some(ApprovalsCommand::Deny { id, note }) => one(&all, id).map_or_else(unknown, |one| {
            let reject = Reject { request: 1, approval: one.approval, note: note.clone() };
            order(runtime, &Request::Reject(reject))
        }),
    }
}

fn list(arguments: &ApprovalsArguments) -> Result<Option<Vec<ApprovalStatus>>, AskError> {
    match ask(&arguments.agent.runtime, &Request::Approvals(Ask { request: 1 }))? {
        Reply::Approvals(list) => Ok(Some(list.approvals)),
        _ => Ok(None),
    }
}

fn print(text: &str) -> ExitCode {
    let _closed = io::stdout().write_all(text.as_bytes());
    ExitCode::SUCCESS
}

fn unknown(cause: String) -> ExitCode {
    let _closed = writeln!(io::stderr(), "sentinel: {}", visible(&cause));
    ExitCode::from(EXIT_UNKNOWN)
}

/// The one approval whose id begins so. Never one of several: a human means one.
fn one<'all>(all: &'all [ApprovalStatus], beginning: &str) -> Result<&'all ApprovalStatus, String> {
    let begins =
        |id: ApprovalId| !beginning.is_empty() && id.to_string().starts_with(&beginning.to_lowercase());
    let mut found = all.iter().filter(|one| begins(one.approval));
    match (found.next(), found.next()) {
        (Some(one), None) => Ok(one),
        (None, _) => Err(format!("no approval `{beginning}` waits; see `sentinel approvals`")),
        (Some(_), Some(_)) => Err(format!("several ids begin with `{beginning}`; write more of it")),
    }
}

fn listed(all: &[ApprovalStatus]) -> String {
    if all.is_empty() {
        return "nothing waits for an approval\n".to_owned();
    }
    let mut text = String::new();
    for one in all {
        let state = one.uses_left.map_or_else(|| "waits".to_owned(), |uses| format!("approved, {uses} left"));
        let _infallible = writeln!(
            text,
            "{}  {} of `{}`, {} USD, {state}, {} s to go",
            one.approval,
            visible(one.action.as_str()),
            visible(&one.session_name),
            one.cost_usd,
            one.expires_in_seconds,
        );
    }
    text.push_str("\nlook at one with `sentinel approvals show ID`, then `approve ID` or `deny ID`\n");
    text
}

fn shown(one: &ApprovalStatus) -> String {
    let none = |text: String| if text.is_empty() { "none".to_owned() } else { text };
    let tags: Vec<&str> = one.tags.iter().map(sentinel_proto::Tag::as_str).collect();
    let rows = [
        ("approval", one.approval.to_string()),
        ("session", format!("{} (`{}`), process {}", one.session, one.session_name, one.pid)),
        ("action", one.action.to_string()),
        ("cost", format!("{} USD", one.cost_usd)),
        ("tags", none(tags.join(", "))),
        ("risk", none(one.risk_level.as_ref().map(ToString::to_string).unwrap_or_default())),
        ("doors", none(one.doors.join(", "))),
        ("inputs", one.inputs.as_json().to_owned()),
        ("asked by", one.rule.to_string()),
        ("digest", one.digest.clone()),
        ("expires", format!("in {} s", one.expires_in_seconds)),
        ("state", one.uses_left.map_or_else(|| "waits".to_owned(), |uses| format!("approved, {uses} left"))),
    ];
    let mut text = String::new();
    for (name, value) in rows {
        let _infallible = writeln!(text, "{name:<9} {}", visible(&value));
    }
    text.push_str(
        "\nan approval is for exactly this, and opens these doors while the action runs; what goes through them nobody sees\n",
    );
    text
}

#[cfg(test)]
mod tests {
    use sentinel_proto::{ActionName, Payload, RulePlace, SessionId};

    use super::*;

    fn some(id: u128) -> ApprovalStatus {
        ApprovalStatus {
            approval: ApprovalId(uuid::Uuid::from_u128(id)),
            session: SessionId(3),
            session_name: "daily".to_owned(),
            action: ActionName::new("send_money").unwrap(),
            cost_usd: Money::from_decimal("0.5").unwrap(),
            tags: Vec::new(),
            risk_level: None,
            inputs: Payload::of("to \u{1b}[2Jbob").unwrap(),
            doors: vec!["192.0.2.1:443/tcp".to_owned()],
            rule: RulePlace { rule: "approvals.actions".to_owned(), line: 4 },
            pid: 77,
            digest: "ab".repeat(32),
            expires_in_seconds: 299,
            uses_left: None,
        }
    }

    #[test]
    fn an_id_can_be_shortened_as_long_as_it_stands_for_one() {
        let all = [some(0x1200 << 112), some(0x1300 << 112)];
        assert_eq!(one(&all, "12").unwrap().approval, all[0].approval);
        assert!(one(&all, "1").unwrap_err().contains("several"));
        assert!(one(&all, "4").unwrap_err().contains("no approval"));
        assert!(one(&all, "").is_err());
    }

    #[test]
    fn a_human_is_shown_all_that_the_approval_is_bound_to_and_no_escape_of_the_application() {
        let text = shown(&some(7));
        for part in
            ["send_money", "0.5 USD", "192.0.2.1:443/tcp", "approvals.actions", "line 4", "bob", "daily"]
        {
            assert!(text.contains(part), "`{part}` is missing in:\n{text}");
        }
        assert!(!text.contains('\u{1b}'));
    }

    #[test]
    fn the_list_says_so_when_nothing_waits() {
        assert_eq!(listed(&[]), "nothing waits for an approval\n");
        assert!(listed(&[some(7)]).contains("send_money of `daily`, 0.5 USD, waits, 299 s to go"));
    }
}
