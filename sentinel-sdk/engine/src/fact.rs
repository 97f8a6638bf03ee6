//! What has happened, and what follows from it outside.

use std::time::Duration;

use chrono::NaiveDate;
use sentinel_proto::{
    ActionId, ActionName, Annotations, ApprovalId, Denial, Money, Outcome, Payload, SessionId, SessionName,
    Tag,
};
use serde::{Deserialize, Serialize};

use crate::{Closing, GrantSet, ScopeId, Wish};

/// Something that happened: one ledger line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fact {
    /// The agent came up.
    AgentStarted {
        /// Its version.
        version: String,
        /// What this host enforces.
        tier: String,
    },
    /// The agent went down in good order.
    AgentStopped,
    /// A session began, or went on under its name.
    SessionStarted {
        /// Which.
        session: SessionId,
        /// The name under which its totals outlive it.
        name: Option<SessionName>,
        /// Its policy's name.
        policy: String,
        /// The SHA-256 of its policy's text.
        policy_sha256: String,
        /// What is run; of a very long command its beginning.
        command: Vec<String>,
        /// As which uid.
        uid: u32,
        /// What this host enforces for it.
        tier: String,
    },
    /// A session ended.
    SessionEnded {
        /// Which.
        session: SessionId,
        /// Why.
        ending: SessionEnding,
    },
    /// A new run began.
    RunReset {
        /// Whose.
        session: SessionId,
        /// Its number, from 1.
        run: u64,
    },
    /// A session counts anew: what it had spent and started is forgotten, but for what is in flight.
    SessionReset {
        /// Which.
        session: SessionId,
        /// Whose uid.
        operator: u32,
    },
    /// Something that an application told of.
    ActionRecorded(Box<Recorded>),
    /// An action was let start: its cost is reserved.
    ActionStarted {
        /// Which.
        action_id: ActionId,
        /// In which session.
        session: SessionId,
        /// In which run.
        run: u64,
        /// For which scope.
        scope: ScopeId,
        /// Its name.
        action: ActionName,
        /// What is reserved.
        reserved: Money,
        /// The policy's tags and the application's.
        tags: Vec<Tag>,
        /// What it opens.
        grants: GrantSet,
        /// After so many seconds it expires.
        max_seconds: u64,
        /// To which day's budget it counts; none where there is none.
        day: Option<NaiveDate>,
        /// The approval that it uses.
        approval: Option<ApprovalId>,
        /// What it was called with.
        inputs: Payload,
        /// The digest of that before secrets were taken out of it; none where there were none. See [`inputs_digest`].
        inputs_sha256: Option<String>,
        /// What else the application says.
        annotations: Option<Box<Annotations>>,
        /// The sender's pid.
        pid: u32,
    },
    /// An action broke a rule and goes on, as the policy isn't strict. Its start, or the next rule that it broke, follows.
    ActionWarned {
        /// Which.
        action_id: ActionId,
        /// In which session.
        session: SessionId,
        /// In which run.
        run: u64,
        /// Its name.
        action: ActionName,
        /// What is reserved.
        cost: Money,
        /// The rule that it broke.
        denial: Denial,
        /// The sender's pid.
        pid: u32,
    },
    /// An action was not let start. Nothing is charged.
    ActionDenied {
        /// Which.
        action_id: ActionId,
        /// In which session.
        session: SessionId,
        /// In which run.
        run: u64,
        /// Its name.
        action: ActionName,
        /// What it would have cost.
        cost: Money,
        /// The policy's tags and the application's.
        tags: Vec<Tag>,
        /// Why.
        denial: Denial,
        /// What it was called with.
        inputs: Payload,
        /// What else the application says.
        annotations: Option<Box<Annotations>>,
        /// The sender's pid.
        pid: u32,
    },
    /// An action ended, in whichever way: what it cost is charged, the rest of its reservation given back.
    ActionEnded {
        /// Which.
        action_id: ActionId,
        /// In which session.
        session: SessionId,
        /// In which run it had started.
        run: u64,
        /// For which scope it was.
        scope: ScopeId,
        /// What it had open.
        grants: GrantSet,
        /// Its name.
        action: ActionName,
        /// Its tags.
        tags: Vec<Tag>,
        /// How it ended. [`Outcome::Aborted`] is charged nothing.
        outcome: Outcome,
        /// What is charged.
        charged: Money,
        /// How much of that exceeds the reservation.
        overrun: Money,
        /// How long it ran.
        duration: Duration,
        /// What came out; for an abort the cause.
        outputs: Payload,
        /// What else the application says.
        annotations: Option<Box<Annotations>>,
    },
    /// An application has said how an action ended that had been interrupted: what it cost takes the place of what it was charged.
    ActionCorrected {
        /// Which.
        action_id: ActionId,
        /// In which session.
        session: SessionId,
        /// In which run it had started.
        run: u64,
        /// Its name.
        action: ActionName,
        /// Its tags.
        tags: Vec<Tag>,
        /// How it ended.
        outcome: Outcome,
        /// What it was charged when it was interrupted.
        before: Money,
        /// What is charged now.
        charged: Money,
        /// How much of that exceeds the reservation.
        overrun: Money,
        /// How long it ran.
        duration: Duration,
        /// What came out.
        outputs: Payload,
        /// What else the application says.
        annotations: Option<Box<Annotations>>,
    },
    /// An action in flight opens other doors than before: its session's policy has changed.
    ActionRegranted {
        /// Which.
        action_id: ActionId,
        /// In which session.
        session: SessionId,
        /// For which scope.
        scope: ScopeId,
        /// Its name.
        action: ActionName,
        /// What it opens now. Empty where the new policy doesn't let it run.
        grants: GrantSet,
    },
    /// An action needs a human's word.
    ApprovalRequested {
        /// What the human is asked.
        wish: Box<Wish>,
    },
    /// A human said yes.
    ApprovalGiven {
        /// Which.
        approval_id: ApprovalId,
        /// In which session.
        session: SessionId,
        /// Of which action.
        action: ActionName,
        /// The operator's uid.
        operator: u32,
        /// What the operator noted.
        note: Option<String>,
        /// How often the action may start.
        uses: u64,
        /// For how long from now.
        seconds: u64,
        /// What its starts may cost together.
        up_to: Option<Money>,
    },
    /// An approval came to its end without being used up.
    ApprovalClosed {
        /// Which.
        approval_id: ApprovalId,
        /// In which session.
        session: SessionId,
        /// Of which action.
        action: ActionName,
        /// How.
        closing: Closing,
    },
    /// An operator paused a session: its processes are frozen, its doors shut.
    SessionPaused {
        /// Which.
        session: SessionId,
        /// The operator's uid.
        operator: u32,
    },
    /// An operator let a paused session go on.
    SessionResumed {
        /// Which.
        session: SessionId,
        /// The operator's uid.
        operator: u32,
    },
    /// An operator orders a session, or all, to be killed. Their ends follow.
    KillOrdered {
        /// Which; none: all.
        session: Option<SessionId>,
        /// The operator's uid.
        operator: u32,
    },
    /// The policies were read anew, and are in force.
    PoliciesReloaded {
        /// The operator's uid; none: the agent was told by a signal.
        operator: Option<u32>,
        /// The names of those that changed, came or went.
        changed: Vec<String>,
    },
    /// A living session has another version of its policy.
    PolicyChanged {
        /// Which.
        session: SessionId,
        /// The policy's name.
        policy: String,
        /// The SHA-256 of its text.
        policy_sha256: String,
        /// How many versions the session has had.
        generation: u64,
    },
    /// Lines are missing before this one, or can't be read: what was spent by then is unknown.
    Gap {
        /// The number of the last line that is known to have been written.
        after: u64,
    },
    /// The kernel refused something.
    KernelDenied {
        /// In which session.
        session: SessionId,
        /// What.
        attempt: Box<Attempt>,
        /// How often since the last such fact for the same thing.
        count: u64,
    },
    /// Whether this host enforces was tried anew, with another outcome than before.
    Examined {
        /// What it didn't do that it has to; none: it does everything again.
        failure: Option<String>,
    },
    /// Kernel records were lost.
    RecordsDropped {
        /// How many.
        count: u64,
    },
}

/// What an application told of without asking.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recorded {
    /// The id of its line.
    pub action_id: ActionId,
    /// In which session.
    pub session: SessionId,
    /// The action's name.
    pub action: ActionName,
    /// What it is said to have cost. It is charged to no budget.
    pub cost: Money,
    /// How it is said to have ended.
    pub outcome: Outcome,
    /// Its tags.
    pub tags: Vec<Tag>,
    /// How long it is said to have taken.
    pub duration: Duration,
    /// What it is said to have been called with.
    pub inputs: Payload,
    /// The digest of that before secrets were taken out of it; none where there were none. See [`inputs_digest`].
    pub inputs_sha256: Option<String>,
    /// What is said to have come out.
    pub outputs: Payload,
    /// What else is said.
    pub annotations: Option<Box<Annotations>>,
}

/// Why a session ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "cause", rename_all = "snake_case")]
pub enum SessionEnding {
    /// Its command ended, and every process of it is gone.
    Exited,
    /// Its launcher went away; its processes were killed.
    LauncherGone,
    /// The agent went down; its processes were killed.
    AgentStopped,
    /// The agent had died: the session was found, and its processes were killed.
    FoundOrphaned,
    /// An operator killed it.
    Killed,
    /// It could not be started.
    StartFailed {
        /// What the system said.
        message: String,
    },
}

/// Something that the kernel refused, in words and numbers that a person can follow.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Attempt {
    /// `connect`, `sendmsg`, `socket`, `bind`, `egress`, `inbound`, `exec`, `fork`.
    pub operation: String,
    /// To what: `192.0.2.1:443/tcp`, `/usr/bin/curl`, `family 2 type 3 protocol 1`.
    pub target: String,
    /// Why: the verdict's name, such as `no_rule`, `door_closed`, `heartbeat_stale`, `no_storage`, `header`, `poisoned`.
    pub verdict: String,
    /// `refused`, `killed`, or `recorded` where the policy only audits.
    pub fate: String,
    /// The process's name, printable characters only.
    pub process: String,
    /// Its pid.
    pub pid: u32,
    /// The policy text that would allow it; none where nothing would.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub would_allow: Option<String>,
}

/// What one action in flight opens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opening {
    /// Its grants.
    pub grants: GrantSet,
    /// When it began.
    pub since: Duration,
}

/// An order to the outside world.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// A scope's open doors are exactly these, until then. Empty: none.
    SetDoors {
        /// The session of the scope.
        session: SessionId,
        /// Which scope.
        scope: ScopeId,
        /// What is open in it now, all its actions together.
        open: GrantSet,
        /// When they close by themselves, on the clock of [`crate::Now::elapsed`].
        until: Duration,
        /// What each of the actions opens, and when it began, on the same clock.
        openings: Vec<Opening>,
    },
    /// Whether a session's baseline network is open.
    SetBaselineNetwork {
        /// Which session.
        session: SessionId,
        /// Open or closed.
        open: bool,
    },
    /// Whether a session's processes are frozen.
    SetFrozen {
        /// Which session.
        session: SessionId,
        /// Frozen or not.
        frozen: bool,
    },
}
