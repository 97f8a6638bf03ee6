//! `sentinel status`: what a running agent does and holds.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::process::ExitCode;

use sentinel_proto::admin::{Reply, Request, SessionStatus, Status};
use sentinel_proto::app::Ask;

use super::conversation::{AgentArguments, ask, out_of_turn};
use super::terminal::visible;

/// What `sentinel status` is called with.
#[derive(Debug, clap::Args)]
pub struct StatusArguments {
    /// As JSON, whole
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    agent: AgentArguments,
}

/// Prints the status.
#[must_use]
pub fn status(arguments: &StatusArguments) -> ExitCode {
    let status = match ask(&arguments.agent.runtime, &Request::Status(Ask { request: 1 })) {
        Ok(Reply::Status(status)) => status,
        Ok(_) => return out_of_turn(),
        Err(error) => return error.tell(),
    };
    let text = if arguments.json {
        match serde_json::to_string_pretty(&status) {
            Ok(json) => format!("{json}\n"),
            Err(_unwritable) => return out_of_turn(),
        }
    } else {
        rendered(&status)
    };
    let _closed = io::stdout().write_all(text.as_bytes());
    ExitCode::SUCCESS
}

fn rendered(status: &Status) -> String {
    let mut text = format!(
        "agent     {} (pid {}), tier `{}`{}\nledger    {} ({} lines)\npolicies  {}\n",
        visible(&status.version),
        status.pid,
        visible(&status.tier),
        if status.proven { ", proven by live denials" } else { ", NOT proven" },
        visible(&status.ledger.display().to_string()),
        status.ledger_seq,
        visible(&status.policies.join(", ")),
    );
    if status.dropped_records > 0 {
        let _infallible =
            writeln!(text, "lost      {} reports of the kernel side (still refused)", status.dropped_records);
    }
    if status.sessions.is_empty() {
        text.push_str("sessions  none\n");
    }
    for session in &status.sessions {
        text.push_str(&rendered_session(session));
    }
    text
}

fn rendered_session(session: &SessionStatus) -> String {
    let limit = session.limit_usd.map_or_else(String::new, |limit| format!(" of {limit}"));
    format!(
        "session   {} (`{}`), policy `{}`: {} processes, {} actions in flight\n          \
         spent {}{limit} USD{}; {} allowed, {} denied, {} refused by the kernel\n",
        session.session,
        visible(&session.name),
        visible(&session.policy),
        session.processes,
        session.in_flight,
        session.spent_usd,
        match (session.exhausted, session.paused) {
            (false, false) => "",
            (true, false) => ", EXHAUSTED",
            (false, true) => ", PAUSED",
            (true, true) => ", EXHAUSTED, PAUSED",
        },
        session.allowed,
        session.denied,
        session.kernel_denials,
    )
}

#[cfg(test)]
mod tests {
    use sentinel_proto::{Money, SessionId};

    use super::*;

    fn some_status() -> Status {
        Status {
            request: 1,
            version: "0.1.0".to_owned(),
            tier: "kill".to_owned(),
            proven: true,
            pid: 12,
            ledger: "/var/lib/agent-sentinel/ledger.jsonl".into(),
            ledger_seq: 40,
            dropped_records: 0,
            policies: vec!["web".to_owned()],
            sessions: Vec::new(),
        }
    }

    #[test]
    fn an_idle_agent_says_that_it_has_no_sessions() {
        assert_eq!(
            rendered(&some_status()),
            "agent     0.1.0 (pid 12), tier `kill`, proven by live denials\n\
             ledger    /var/lib/agent-sentinel/ledger.jsonl (40 lines)\n\
             policies  web\n\
             sessions  none\n"
        );
    }

    #[test]
    fn a_session_is_told_with_what_it_spent_and_an_unproven_agent_says_so() {
        let session = SessionStatus {
            session: SessionId(3),
            name: "daily".to_owned(),
            policy: "web".to_owned(),
            processes: 2,
            in_flight: 1,
            spent_usd: Money::from_decimal("0.3").unwrap(),
            limit_usd: Some(Money::from_decimal("0.3").unwrap()),
            exhausted: true,
            paused: true,
            generation: 2,
            allowed: 3,
            denied: 1,
            kernel_denials: 4,
        };
        let text =
            rendered(&Status { proven: false, sessions: vec![session], dropped_records: 2, ..some_status() });
        for part in [
            "NOT proven",
            "lost      2",
            "session   3 (`daily`)",
            "spent 0.3 of 0.3 USD, EXHAUSTED, PAUSED",
            "4 refused",
        ] {
            assert!(text.contains(part), "`{part}` is missing in:\n{text}");
        }
    }
}
