//! What comes in from outside, for the engine to decide on.

use sentinel_proto::{
    ActionId, ActionName, Annotations, ApprovalId, Denial, Money, Outcome, Payload, RiskLevel, SessionId,
    SessionName, Tag,
};

use crate::{Attempt, Operator, Recorded, ScopeId, SessionEnding};

/// Something that happened outside, or that somebody asks for. Ids come with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The agent is up. Actions that were in flight when its predecessor went are interrupted.
    AgentStarted {
        /// Its version.
        version: String,
        /// What this host enforces.
        tier: String,
        /// Sessions whose processes and rules were found as they were: they live on. All others are over.
        adopted: Vec<SessionId>,
    },
    /// Lines are missing from the ledger.
    Gap {
        /// The number of the last line that is known to have been written.
        after: u64,
    },
    /// The agent goes down in good order.
    AgentStopped,
    /// A session is to begin. One with a known name goes on with that name's totals, under the id of then.
    SessionStart {
        /// The id that it gets if its name is new.
        session: SessionId,
        /// The name under which totals outlive it.
        name: Option<SessionName>,
        /// The policy's name and the SHA-256 of its text.
        policy: String,
        /// See `policy`.
        policy_sha256: String,
        /// What is run.
        command: Vec<String>,
        /// As which uid.
        uid: u32,
        /// What this host enforces for it.
        tier: String,
    },
    /// A session is over. Its actions in flight are abandoned.
    SessionEnd {
        /// Which.
        session: SessionId,
        /// Why.
        ending: SessionEnding,
    },
    /// A new run of a session begins.
    RunReset {
        /// Which.
        session: SessionId,
    },
    /// A session begins to count anew, under the same name.
    SessionReset {
        /// Which.
        session: SessionId,
        /// Whose uid.
        operator: u32,
    },
    /// An application tells of something that it did without asking. Decides nothing, charges nothing.
    Record(Box<Recorded>),
    /// An application asks for an action to start.
    Begin(Box<ActionRequest>),
    /// The same, where it is clear already that it may not, and why: as where nobody knows what the policy says.
    Refuse {
        /// What is asked for.
        request: Box<ActionRequest>,
        /// Why it may not start.
        denial: Denial,
    },
    /// An application says that its action has ended. Of an unknown, ended or foreign action: no facts. Of one that was interrupted it corrects
    /// outcome and cost, once, until that action would have expired.
    End {
        /// Which.
        action_id: ActionId,
        /// The session that the sender is in: it ends its own session's actions only.
        session: SessionId,
        /// How.
        outcome: Outcome,
        /// What it really cost, if known.
        cost: Option<Money>,
        /// What came out.
        outputs: Payload,
        /// What else is to be recorded.
        annotations: Option<Box<Annotations>>,
    },
    /// An action was let start, but its doors could not be opened: it never ran.
    Abort {
        /// Which.
        action_id: ActionId,
        /// What the system said.
        cause: String,
    },
    /// The process or the connection behind actions is gone.
    Abandon {
        /// Which actions.
        action_ids: Vec<ActionId>,
    },
    /// Time has passed: actions beyond their `max_seconds` expire.
    Tick,
    /// An operator says yes.
    Approve {
        /// To which wish.
        approval_id: ApprovalId,
        /// Who. One who may not changes nothing: see [`crate::Approvals::may_be_given_by`].
        operator: Operator,
        /// For the record.
        note: Option<String>,
        /// How often the action may start; none: once.
        uses: Option<u64>,
        /// For how long; none: as long as the wish could wait.
        seconds: Option<u64>,
        /// What its starts may cost together.
        up_to: Option<Money>,
    },
    /// An operator says no.
    Reject {
        /// To which wish.
        approval_id: ApprovalId,
        /// Who.
        operator: Operator,
        /// For the record and the application.
        note: Option<String>,
    },
    /// An application no longer wants an approval of its session.
    CancelApproval {
        /// Which.
        approval_id: ApprovalId,
        /// The session that the sender is in.
        session: SessionId,
    },
    /// An operator pauses a session.
    Pause {
        /// Which.
        session: SessionId,
        /// The operator's uid.
        operator: u32,
    },
    /// An operator lets a session go on.
    Resume {
        /// Which.
        session: SessionId,
        /// The operator's uid.
        operator: u32,
    },
    /// An operator orders a session, or all, to be killed.
    Kill {
        /// Which; none: all.
        session: Option<SessionId>,
        /// The operator's uid.
        operator: u32,
    },
    /// The policies were read anew.
    PoliciesReloaded {
        /// The operator's uid; none: the agent was told by a signal.
        operator: Option<u32>,
        /// The names of those that changed, came or went.
        changed: Vec<String>,
    },
    /// A session gets another version of its policy: to be decided on with the new one.
    PolicyChange {
        /// Which.
        session: SessionId,
        /// The policy's name.
        policy: String,
        /// The SHA-256 of its text.
        policy_sha256: String,
    },
    /// The kernel refused something, so many times since the last such event for the same thing.
    KernelDenied {
        /// In which session.
        session: SessionId,
        /// What.
        attempt: Box<Attempt>,
        /// How often.
        count: u64,
    },
    /// Whether this host enforces was tried anew, with another outcome than before.
    Examined {
        /// What it didn't do that it has to; none: it does everything again.
        failure: Option<String>,
    },
    /// Kernel records were lost.
    RecordsDropped {
        /// How many since the last such event.
        count: u64,
    },
}

/// Asks for an action to start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ActionRequest {
    /// The id that it gets.
    pub action_id: ActionId,
    /// The session that the sender is in.
    pub session: SessionId,
    /// The scope that its doors open for.
    pub scope: ScopeId,
    /// Its name.
    pub action: ActionName,
    /// What the application says it costs.
    pub cost: Money,
    /// The application's tags.
    pub tags: Vec<Tag>,
    /// How risky the application takes it to be.
    pub risk: Option<RiskLevel>,
    /// Whether the application wants a human's word first, whatever the policy says.
    pub needs_approval: bool,
    /// The id that its approval gets, if it needs one.
    pub approval_id: ApprovalId,
    /// What it is called with.
    pub inputs: Payload,
    /// What else is to be recorded.
    pub annotations: Option<Box<Annotations>>,
    /// The sender's pid, for the record.
    pub pid: u32,
}
