//! What an application and the agent say to each other on `agent.sock`.
//!
//! Who the application is, the agent learns from the kernel with every message; nothing in a message says so.

use serde::{Deserialize, Serialize};

use crate::{
    ActionId, ActionName, Annotations, ApprovalId, Decision, Denial, Money, Outcome, Payload, RiskLevel,
    SessionId, Tag,
};

/// A number that a client gives a request, and finds again in the answer. Answers come in any order.
pub type RequestId = u64;

/// The most tags on an action.
pub const MAX_TAGS: usize = 32;

/// From the application to the agent. The first is `hello`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// Opens the conversation; answered by [`Reply::Welcome`] or [`Reply::Refused`].
    Hello(Hello),
    /// May this action run? Answered by [`Reply::Decision`].
    Begin(Begin),
    /// It has ended; answered by [`Reply::Ended`] if it carries a request number.
    End(End),
    /// Waits for a human's word on an action that is [pending](Decision::Pending); answered by [`Reply::Approval`] as soon as there is one, at
    /// the latest when the approval expires. Then the same [`Begin`] is asked again.
    AwaitApproval(OfApproval),
    /// The action is no longer wanted; answered by [`Reply::Approval`].
    CancelApproval(OfApproval),
    /// What the kernel refused to this process lately; answered by [`Reply::Denials`].
    Denials(Denials),
    /// What was spent and is left; answered by [`Reply::Totals`].
    Totals(Ask),
    /// Begins a new run of the session, with a fresh run budget; answered by [`Reply::Totals`].
    ResetRun(Ask),
}

/// The first message of a connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hello {
    /// [`crate::VERSION`].
    pub version: u32,
    /// The client's name and version, for the agent's log: at most 64 characters are kept.
    pub client: String,
}

/// Asks for an action to start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Begin {
    /// The number of this request.
    pub request: RequestId,
    /// The action's name.
    pub action: ActionName,
    /// What it is expected to cost. The policy may charge more, never less.
    #[serde(default)]
    pub cost_usd: Money,
    /// At most [`MAX_TAGS`].
    #[serde(default)]
    pub tags: Vec<Tag>,
    /// How risky the application takes it to be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub risk_level: Option<RiskLevel>,
    /// What it is called with; recorded, not decided on.
    #[serde(default)]
    pub inputs: Payload,
    /// Whether the application itself wants a human's word first, whatever the policy says.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub needs_approval: bool,
    /// What else is to be recorded of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub annotations: Option<Box<Annotations>>,
}

/// Says that an action has ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct End {
    /// The number of this request, where an answer is wanted. Wanted where `acknowledge_end` was true: the doors
    /// are shut when the answer comes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<RequestId>,
    /// Which action.
    pub action_id: ActionId,
    /// How it ended: one of the [reportable](Outcome::is_reportable) outcomes.
    pub outcome: Outcome,
    /// What it really cost, if that is known better now. Never charged below the policy's floor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost_usd: Option<Money>,
    /// What came out; recorded, not decided on.
    #[serde(default)]
    pub outputs: Payload,
    /// What else is to be recorded of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub annotations: Option<Box<Annotations>>,
}

/// A request about an approval of the sender's session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OfApproval {
    /// The number of this request.
    pub request: RequestId,
    /// Which approval.
    pub approval: ApprovalId,
}

/// Asks what the kernel refused to this process lately.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Denials {
    /// The number of this request.
    pub request: RequestId,
    /// Only what was refused in the last so many milliseconds.
    pub within_ms: u64,
}

/// A request of a number alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ask {
    /// The number of this request.
    pub request: RequestId,
}

/// From the agent to the application.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// The conversation may begin.
    Welcome(Welcome),
    /// The answer to [`Request::Begin`].
    Decision(Box<Answer>),
    /// The answer to [`Request::AwaitApproval`] and [`Request::CancelApproval`].
    Approval(Box<ApprovalAnswer>),
    /// The action is settled, and its doors are shut.
    Ended(Ended),
    /// The answer to [`Request::Denials`], newest last.
    Denials(DenialList),
    /// The answer to [`Request::Totals`] and [`Request::ResetRun`].
    Totals(Totals),
    /// The message could not be taken. Without a request number the connection is closed after it.
    Refused(Refused),
}

/// The agent's first message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Welcome {
    /// [`crate::VERSION`].
    pub version: u32,
    /// The session that the sender belongs to.
    pub session: SessionId,
    /// The session's name.
    pub session_name: String,
    /// What this host enforces: `lsm`, `kill` or `none`.
    pub tier: String,
}

/// The answer to a [`Begin`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// The request's number.
    pub request: RequestId,
    /// The decision. Anything but `allow` means that the body must not run.
    pub decision: Decision,
    /// The action's id, where it may run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub action_id: Option<ActionId>,
    /// Whether its [`End`] must carry a request number, and be waited for: it had doors open.
    #[serde(default)]
    pub acknowledge_end: bool,
    /// After so many seconds its doors close and it counts as expired.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_seconds: Option<u64>,
    /// Why not, where it may not run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub denial: Option<Denial>,
    /// What to wait for, where the decision is `pending`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approval: Option<PendingApproval>,
}

/// What a pending action waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PendingApproval {
    /// Which approval.
    pub id: ApprovalId,
    /// It expires in so many milliseconds.
    pub expires_in_ms: u64,
}

/// What became of an approval.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApprovalAnswer {
    /// The request's number.
    pub request: RequestId,
    /// Which approval.
    pub approval: ApprovalId,
    /// Whether a human approved: then the same [`Begin`] is let start, if every other rule still lets it.
    pub approved: bool,
    /// Why not, where not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub denial: Option<Denial>,
}

/// The answer to an [`End`] that carries a request number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    /// The request's number.
    pub request: RequestId,
    /// Whether this end settled the action. False where it was unknown, or had ended before: a no-op.
    pub settled: bool,
}

/// What the kernel refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DenialList {
    /// The request's number.
    pub request: RequestId,
    /// Newest last.
    pub denials: Vec<KernelDenial>,
}

/// One thing that the kernel refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KernelDenial {
    /// How `sentinel why` finds it.
    pub id: String,
    /// What was tried, in words: `connect to 192.0.2.1:443 (tcp)`.
    pub attempt: String,
    /// What happened to it: `refused` or `killed`.
    pub fate: String,
    /// The policy text that would allow it; none where nothing would.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub would_allow: Option<String>,
}

/// What was spent and is left.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// The request's number.
    pub request: RequestId,
    /// Spent by the session, reservations included.
    pub session_usd: Money,
    /// Spent by the run, reservations included.
    pub run_usd: Money,
    /// The session's limit; none where it has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_limit_usd: Option<Money>,
    /// The run's limit; none where it has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_limit_usd: Option<Money>,
}

/// A message that could not be taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// The request's number, if it had one that could be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<RequestId>,
    /// For programs: what kind of refusal it is.
    pub code: RefusalCode,
    /// What is wrong and what would be right.
    pub message: String,
}

/// Why a message could not be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RefusalCode {
    /// Another version of the protocol.
    Version,
    /// No message of this protocol, or not at this point of the conversation.
    Malformed,
    /// The sender is in no session (on `agent.sock`), or is in one or has no right (on `admin.sock`).
    Identity,
    /// Too many connections, or too many requests at once.
    Busy,
    /// No such policy, session or thing.
    NotFound,
    /// The agent could not do it.
    Failed,
}
