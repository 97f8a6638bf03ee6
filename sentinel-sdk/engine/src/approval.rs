//! A human's word on single actions.
//!
//! Invariant: an approval is bound to everything that the human was shown, and to the policy of then: action, arguments, cost, tags, risk,
//! session, grants. Whatever differs by a byte needs a word of its own.

use std::time::Duration;

use sentinel_proto::{ActionName, ApprovalId, Money, Payload, Reason, RiskLevel, RulePlace, SessionId, Tag};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::canonical::canonical;
use crate::policy::{Approvals, Approver};
use crate::state::Session;
use crate::{ActionRequest, GrantSet, Now, Policy, State};

/// Approvals of one session that wait or were given.
pub const MAX_APPROVALS: u64 = 64;

impl Closing {
    /// Why an action may not start that has waited for it.
    #[must_use]
    pub fn reason(&self) -> Reason {
        match self {
            Self::Rejected { note, .. } => Reason::ApprovalRejected { note: note.clone() },
            Self::Expired { timeout_seconds } => {
                Reason::ApprovalExpired { timeout_seconds: *timeout_seconds }
            }
            Self::Cancelled { message } => Reason::ApprovalCancelled { cause: message.clone() },
        }
    }
}

/// What a human is asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wish {
    /// Which approval.
    pub approval_id: ApprovalId,
    /// Whose action.
    pub session: SessionId,
    /// In which run it was asked.
    pub run: u64,
    /// Its name.
    pub action: ActionName,
    /// What it is going to reserve.
    pub cost: Money,
    /// The policy's tags and the application's.
    pub tags: Vec<Tag>,
    /// How risky it is said to be.
    pub risk: Option<RiskLevel>,
    /// What it opens.
    pub grants: GrantSet,
    /// SHA-256, in hex, of all that it is bound to.
    pub digest: String,
    /// After so many seconds it expires.
    pub timeout_seconds: u64,
    /// What it is called with.
    pub inputs: Payload,
    /// The sender's pid.
    pub pid: u32,
    /// The rule that wants a human's word.
    pub rule: RulePlace,
}

/// An approval that waits or was given.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Approval {
    /// What was asked.
    pub wish: Wish,
    /// When it expires, on the clock of [`Now::elapsed`].
    pub deadline: Duration,
    /// What was given; none: it waits.
    pub permit: Option<Permit>,
}

/// What a human gave.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Permit {
    /// How often the action may still start.
    pub uses_left: u64,
    /// What its starts may still cost; none: whatever they do.
    pub left: Option<Money>,
}

/// How an approval came to its end without being used up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "cause", rename_all = "snake_case")]
pub enum Closing {
    /// A human said no.
    Rejected {
        /// The operator's uid.
        operator: u32,
        /// What the operator noted.
        note: Option<String>,
    },
    /// No human spoke in time, or what was given was not used in time.
    Expired {
        /// How long there was.
        timeout_seconds: u64,
    },
    /// It is wanted or valid no longer.
    Cancelled {
        /// Why.
        message: String,
    },
}

/// Who wants to approve: a uid, and the names that stand for it on this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operator {
    /// The uid.
    pub uid: u32,
    /// Its user's name, where there is one.
    pub user: Option<String>,
    /// The names of its groups.
    pub groups: Vec<String>,
}

impl Approval {
    /// Whether an action of this cost may start by it now.
    fn permits(&self, cost: Money, now: Now) -> bool {
        let in_time = now.elapsed < self.deadline;
        self.permit.as_ref().is_some_and(|permit| {
            in_time && permit.uses_left > 0 && permit.left.is_none_or(|left| cost <= left)
        })
    }
}

impl Approvals {
    /// How long an approval waits where the policy says nothing.
    pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(300);

    /// Whether the policy wants what nobody may give.
    pub(crate) fn has_no_approver(&self) -> bool {
        self.approvers.as_ref().is_some_and(Vec::is_empty)
    }

    /// Whether this operator may approve.
    #[must_use]
    pub fn may_be_given_by(&self, operator: &Operator) -> bool {
        self.approvers.as_ref().is_none_or(|approvers| {
            approvers.iter().any(|approver| match approver {
                Approver::User(name) => operator.user.as_ref() == Some(name),
                Approver::Group(name) => operator.groups.contains(name),
            })
        })
    }

    /// The rule by which an action needs a human's word, if it does.
    pub(crate) fn rule_for(
        &self,
        action: &ActionName,
        cost: Money,
        tags: &[Tag],
        risks: &[&RiskLevel],
    ) -> Option<RulePlace> {
        let rule = |name: &str, line: u32| Some(RulePlace { rule: format!("approvals{name}"), line });
        if let Some(line) = self.actions.get(action) {
            return rule(".actions", *line);
        }
        if let Some(line) = tags.iter().find_map(|tag| self.tags.get(tag)) {
            return rule(".tags", *line);
        }
        let is_risky = |level: &RiskLevel| risks.iter().any(|risk| risk.is(level));
        if let Some((_, line)) = self.risk_levels.iter().find(|(level, _)| is_risky(level)) {
            return rule(".risk_levels", *line);
        }
        if let Some(limit) = self.from_cost.filter(|limit| cost >= limit.amount) {
            return rule(".above_usd", limit.line);
        }
        let has_criteria = !self.actions.is_empty()
            || !self.tags.is_empty()
            || !self.risk_levels.is_empty()
            || self.from_cost.is_some();
        if has_criteria { None } else { rule("", self.line) }
    }
}

/// What an action is, all rules applied: what an approval is bound to.
#[derive(Debug)]
pub(crate) struct Bound<'a> {
    pub(crate) action: &'a ActionName,
    pub(crate) cost: Money,
    pub(crate) tags: &'a [Tag],
    pub(crate) risk: Option<&'a RiskLevel>,
    pub(crate) grants: GrantSet,
    pub(crate) inputs: &'a Payload,
}

impl Bound<'_> {
    /// The digest of all of it, in this session and under its policy.
    pub(crate) fn digest(&self, session: &Session, id: SessionId) -> String {
        let mut hasher = Sha256::new();
        let mut part = |bytes: &[u8]| {
            // Each with its length before it: no two different lists of parts are the same bytes.
            hasher.update(u64::try_from(bytes.len()).unwrap_or(u64::MAX).to_le_bytes());
            hasher.update(bytes);
        };
        part(b"sentinel approval 1");
        part(&id.0.to_le_bytes());
        part(session.policy_sha256.as_bytes());
        part(self.action.as_str().as_bytes());
        part(&self.cost.nanos().to_le_bytes());
        part(self.risk.map_or("", RiskLevel::as_str).to_ascii_lowercase().as_bytes());
        part(&self.grants.0.to_le_bytes());
        part(&self.tags.len().to_le_bytes());
        for tag in self.tags {
            part(tag.as_str().as_bytes());
        }
        part(canonical(self.inputs.as_json()).as_bytes());
        hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// Where an action stands that needs a human's word.
pub(crate) enum Standing {
    /// It may start by this approval.
    Approved(ApprovalId),
    /// It waits for this one.
    Waiting(ApprovalId),
    /// It has not been asked for.
    Unasked,
}

impl State {
    /// An approval; none where it is unknown, used up or closed.
    #[must_use]
    pub fn approval(&self, id: ApprovalId) -> Option<&Approval> {
        self.approvals.get(&id)
    }

    /// All approvals that wait or were given and can be used.
    pub fn approvals(&self) -> impl Iterator<Item = &Approval> {
        self.approvals
            .values()
            .filter(|approval| approval.permit.as_ref().is_none_or(|permit| permit.uses_left > 0))
    }

    /// Which approval an action waits for that the policy lets start only by a human's word.
    #[must_use]
    pub fn waits_for(&self, policy: &Policy, request: &ActionRequest, now: Now) -> Option<ApprovalId> {
        let session = self.sessions.get(&request.session)?;
        let asked = crate::begin::Asked::new(Some(policy), request);
        let digest = asked.bound().digest(session, request.session);
        match self.standing(request.session, &digest, asked.cost(), now) {
            Standing::Waiting(id) => Some(id),
            Standing::Approved(_) | Standing::Unasked => None,
        }
    }

    pub(crate) fn standing(&self, session: SessionId, digest: &str, cost: Money, now: Now) -> Standing {
        let own = || {
            self.approvals
                .iter()
                .filter(|(_, approval)| approval.wish.session == session && approval.wish.digest == digest)
        };
        if let Some((id, _)) = own().find(|(_, approval)| approval.permits(cost, now)) {
            return Standing::Approved(*id);
        }
        let waiting =
            own().find(|(_, approval)| approval.permit.is_none() && now.elapsed < approval.deadline);
        waiting.map_or(Standing::Unasked, |(id, _)| Standing::Waiting(*id))
    }

    pub(crate) fn approvals_of(&self, session: SessionId) -> u64 {
        let count = self.approvals.values().filter(|approval| approval.wish.session == session).count();
        u64::try_from(count).unwrap_or(u64::MAX)
    }
}
