//! What an operator's `sentinel` and the agent say to each other on `admin.sock`.
//!
//! A sender inside a session is refused here whatever its uid is; one outside needs uid 0 or the group.

use serde::{Deserialize, Serialize};

use crate::app::{KernelDenial, Refused, RequestId};
use crate::{Money, SessionId, SessionName};

/// From the operator to the agent. The first is `hello`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// Opens the conversation; answered by [`Reply::Welcome`].
    Hello(crate::app::Hello),
    /// Starts a session for a process that waits to become CMD. Its pidfd comes with the message (SCM_RIGHTS).
    /// Answered by [`Reply::SessionStarted`]. The session ends with this connection.
    StartSession(Box<StartSession>),
    /// What the agent does and holds; answered by [`Reply::Status`].
    Status(crate::app::Ask),
}

/// Asks for a session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StartSession {
    /// The number of this request.
    pub request: RequestId,
    /// The policy, by the name that the administrator gave it.
    pub policy: String,
    /// A name under which totals outlive the command; none for a session that is new each time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<SessionName>,
    /// What is to be run, for the ledger.
    pub command: Vec<String>,
    /// CMD's file, absolute. Its image (for a script, its interpreter's) is allowed for the first exec.
    pub program: std::path::PathBuf,
    /// The uid that CMD will run as; none where the agent shall give it one of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
}

/// From the agent to the operator.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// The conversation may begin.
    Welcome(Welcome),
    /// The process is enrolled: it may harden itself and exec.
    SessionStarted(Box<SessionStarted>),
    /// A new kind of denial in the session of this connection; sent without being asked for.
    Notice(Box<Notice>),
    /// The answer to [`Request::Status`].
    Status(Box<Status>),
    /// The message could not be taken, or its wish not be met.
    Refused(Refused),
}

/// The agent's first message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Welcome {
    /// [`crate::VERSION`].
    pub version: u32,
}

/// What the launcher needs to know of its new session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionStarted {
    /// The request's number.
    pub request: RequestId,
    /// The session.
    pub session: SessionId,
    /// Its name, given or made.
    pub name: String,
    /// Its cgroup, for `cgroup.kill` should the agent die.
    pub cgroup: std::path::PathBuf,
    /// The uid and gid that CMD runs as where the request gave none.
    pub uid: u32,
    /// The socket for applications.
    pub agent_socket: std::path::PathBuf,
    /// What CMD must not see: folders that the launcher covers.
    pub mask: Vec<std::path::PathBuf>,
    /// What this host enforces: `lsm`, `kill` or `none`.
    pub tier: String,
    /// The ledger's file, for the messages that name it.
    pub ledger: std::path::PathBuf,
    /// Whether the policy only records what it would have refused.
    pub audit: bool,
    /// Unix sockets (`enforcement.unix.allow`) that CMD may see under folders that are covered.
    #[serde(default)]
    pub unix_allow: Vec<std::path::PathBuf>,
}

/// A new kind of denial.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notice {
    /// Which process: its name.
    pub process: String,
    /// Its pid.
    pub pid: u32,
    /// What was refused, and what would allow it.
    pub denial: KernelDenial,
}

/// What the agent does and holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The request's number.
    pub request: RequestId,
    /// The agent's version.
    pub version: String,
    /// What this host enforces: `lsm`, `kill` or `none`.
    pub tier: String,
    /// Whether a live denial proved it at start.
    pub proven: bool,
    /// The agent's pid.
    pub pid: u32,
    /// The ledger's file.
    pub ledger: std::path::PathBuf,
    /// The sequence number of its last line.
    pub ledger_seq: u64,
    /// Kernel records lost to a full ring buffer or a throttled session, since start.
    pub dropped_records: u64,
    /// Policies by name.
    pub policies: Vec<String>,
    /// Living sessions.
    pub sessions: Vec<SessionStatus>,
}

/// One living session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionStatus {
    /// The session.
    pub session: SessionId,
    /// Its name.
    pub name: String,
    /// Its policy's name.
    pub policy: String,
    /// Its processes.
    pub processes: u64,
    /// Its actions in flight.
    pub in_flight: u64,
    /// Spent, reservations included.
    pub spent_usd: Money,
    /// The session's limit; none where it has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit_usd: Option<Money>,
    /// Whether its baseline network is closed because a budget is spent.
    pub exhausted: bool,
    /// Decisions that allowed, and that denied.
    pub allowed: u64,
    /// See `allowed`.
    pub denied: u64,
    /// What the kernel refused.
    pub kernel_denials: u64,
}
