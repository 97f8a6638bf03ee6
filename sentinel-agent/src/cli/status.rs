//! `sentinel status`: what a running agent does and holds.

use std::fmt::Write as _;
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use sentinel_proto::admin::{Reply, Request, SessionStatus, Status};
use sentinel_proto::app::{Ask, Hello};
use sentinel_proto::{FrameError, FrameReader, VERSION, encode_frame};

use super::terminal::visible;

/// How long the agent may take to answer.
const ANSWER_TIME: Duration = Duration::from_secs(10);

/// What `sentinel status` is called with.
#[derive(Debug, clap::Args)]
pub struct StatusArguments {
    /// Where the agent has its sockets.
    #[arg(long, value_name = "DIR", default_value = crate::cli::private_agent::RUNTIME)]
    pub runtime: PathBuf,
}

/// Why there is no status.
#[derive(Debug, thiserror::Error)]
enum StatusError {
    #[error("no agent answers at `{}`: {source}; start `sentinel-agent`, or name another folder with --runtime", socket.display())]
    NoAgent { socket: PathBuf, source: io::Error },
    #[error("`{}` is for root and the group `sentinel`; use sudo, or join the group", socket.display())]
    Forbidden { socket: PathBuf },
    #[error("the conversation with the agent broke: {0}")]
    Conversation(#[from] io::Error),
    #[error("the agent says what this version doesn't understand: {0}")]
    Frame(#[from] FrameError),
    #[error("the agent refused: {0}")]
    Refused(String),
}

/// Prints the status. Exit status 69: no agent; 77: not allowed.
#[must_use]
pub fn status(arguments: &StatusArguments) -> ExitCode {
    match ask(&arguments.runtime) {
        Ok(status) => {
            let _closed = io::stdout().write_all(rendered(&status).as_bytes());
            ExitCode::SUCCESS
        }
        Err(error) => {
            let _closed = writeln!(io::stderr(), "sentinel: {}", visible(&error.to_string()));
            ExitCode::from(match error {
                StatusError::Forbidden { .. } | StatusError::Refused(_) => 77,
                StatusError::NoAgent { .. } | StatusError::Conversation(_) | StatusError::Frame(_) => 69,
            })
        }
    }
}

fn ask(runtime: &Path) -> Result<Status, StatusError> {
    let socket = runtime.join("admin.sock");
    let mut stream = UnixStream::connect(&socket).map_err(|source| match source.kind() {
        ErrorKind::PermissionDenied => StatusError::Forbidden { socket },
        _ => StatusError::NoAgent { socket, source },
    })?;
    stream.set_read_timeout(Some(ANSWER_TIME))?;
    let hello =
        Hello { version: VERSION, client: concat!("sentinel ", env!("CARGO_PKG_VERSION")).to_owned() };
    let mut frames = encode_frame(&Request::Hello(hello))?;
    frames.extend(encode_frame(&Request::Status(Ask { request: 1 }))?);
    stream.write_all(&frames)?;
    let (mut reader, mut buffer) = (FrameReader::new(), [0; 4096]);
    loop {
        match reader.next_message()? {
            Some(Reply::Status(status)) => return Ok(*status),
            Some(Reply::Refused(refused)) => return Err(StatusError::Refused(refused.message)),
            Some(Reply::Welcome(_) | Reply::SessionStarted(_) | Reply::Notice(_)) => continue,
            None => {}
        }
        match stream.read(&mut buffer) {
            Ok(0) => return Err(io::Error::from(ErrorKind::UnexpectedEof).into()),
            Ok(count) => reader.push(buffer.get(..count).unwrap_or_default()),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
    }
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
        if session.exhausted { ", EXHAUSTED" } else { "" },
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
            "spent 0.3 of 0.3 USD, EXHAUSTED",
            "4 refused",
        ] {
            assert!(text.contains(part), "`{part}` is missing in:\n{text}");
        }
    }
}
