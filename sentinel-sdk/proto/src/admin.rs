//! What an operator's `sentinel` and the agent say to each other on `admin.sock`.
//!
//! A sender inside a session is refused here whatever its uid is; one outside needs uid 0 or the group.

use serde::{Deserialize, Serialize};

use crate::app::{KernelDenial, Refused, RequestId};
use crate::examination::Examination;
use crate::{ActionName, ApprovalId, Money, Payload, RiskLevel, RulePlace, SessionId, SessionName, Tag};

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
    /// Tries anew what this host enforces; answered by [`Reply::Examination`].
    Examine(crate::app::Ask),
    /// What waits for a human's word, and what was approved and not used yet; answered by [`Reply::Approvals`].
    Approvals(crate::app::Ask),
    /// Lets an action start; answered by [`Reply::Done`].
    Approve(Approve),
    /// Keeps an action from starting; answered by [`Reply::Done`].
    Reject(Reject),
    /// Freezes a session's processes and shuts its doors; answered by [`Reply::Done`].
    Pause(OfSession),
    /// Lets a paused session go on; answered by [`Reply::Done`].
    Resume(OfSession),
    /// Kills a session's processes and ends it; answered by [`Reply::Done`].
    Kill(OfSession),
    /// Gives a session its budgets back, but for the day's, which is not its own. One that has a name may be over. Answered by [`Reply::Done`].
    ResetSession(OfSession),
    /// A launcher is back at its session, after the agent was started anew: the session ends with this connection. Answered by [`Reply::Done`].
    Attach(Attach),
    /// Kills all sessions; answered by [`Reply::Done`].
    StopAll(crate::app::Ask),
    /// Reads the policies anew: all of them are valid and take effect, or nothing changes. Answered by [`Reply::Done`].
    Reload(crate::app::Ask),
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

/// A request about one session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OfSession {
    /// The number of this request.
    pub request: RequestId,
    /// Its name as `sentinel status` shows it, or its number.
    pub session: String,
}

/// A launcher is back at its session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Attach {
    /// The number of this request.
    pub request: RequestId,
    /// Its session.
    pub session: SessionId,
}

/// Lets an action start, once or as often as said.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Approve {
    /// The number of this request.
    pub request: RequestId,
    /// Which approval.
    pub approval: ApprovalId,
    /// How often that very action, with those very arguments, may start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uses: Option<u64>,
    /// For how many seconds from now; none: as long as the policy's `timeout_seconds`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds: Option<u64>,
    /// What all its uses may cost together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub up_to_usd: Option<Money>,
    /// For the ledger.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// Keeps an action from starting.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reject {
    /// The number of this request.
    pub request: RequestId,
    /// Which approval.
    pub approval: ApprovalId,
    /// For the ledger and the application.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
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
    /// An action of the session of this connection waits for a human; sent without being asked for.
    Waits(Box<ApprovalStatus>),
    /// The answer to [`Request::Status`].
    Status(Box<Status>),
    /// The answer to [`Request::Examine`].
    Examination(Box<Examined>),
    /// The answer to [`Request::Approvals`], oldest first.
    Approvals(ApprovalList),
    /// It is done, and in the ledger.
    Done(Done),
    /// The message could not be taken, or its wish not be met.
    Refused(Refused),
}

/// The agent's first message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Welcome {
    /// [`crate::VERSION`].
    pub version: u32,
}

/// It is done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {
    /// The request's number.
    pub request: RequestId,
    /// What was done, in words.
    pub message: String,
}

/// What waits for a human's word, and what was approved and not used yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApprovalList {
    /// The request's number.
    pub request: RequestId,
    /// Oldest first.
    pub approvals: Vec<ApprovalStatus>,
}

/// One approval.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApprovalStatus {
    /// Which.
    pub approval: ApprovalId,
    /// The session.
    pub session: SessionId,
    /// Its name.
    pub session_name: String,
    /// The action.
    pub action: ActionName,
    /// What it is going to cost.
    pub cost_usd: Money,
    /// The policy's tags and the application's.
    pub tags: Vec<Tag>,
    /// How risky it is said to be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub risk_level: Option<RiskLevel>,
    /// What it is called with, without secrets.
    pub inputs: Payload,
    /// The doors that it opens, as the policy names them.
    pub doors: Vec<String>,
    /// The rule that wants a human's word.
    pub rule: RulePlace,
    /// The process that asks.
    pub pid: u32,
    /// SHA-256 of all that the approval is bound to.
    pub digest: String,
    /// It expires in so many seconds.
    pub expires_in_seconds: u64,
    /// How often it may still start, where it is approved; none: it is pending.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uses_left: Option<u64>,
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

/// What a host was found to enforce.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Examined {
    /// The request's number.
    pub request: RequestId,
    /// What was found.
    pub examination: Examination,
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
    /// Whether an operator has paused it.
    #[serde(default)]
    pub paused: bool,
    /// Which version of its policy holds, from 1.
    #[serde(default)]
    pub generation: u64,
    /// Decisions that allowed, and that denied.
    pub allowed: u64,
    /// See `allowed`.
    pub denied: u64,
    /// What the kernel refused.
    pub kernel_denials: u64,
}
