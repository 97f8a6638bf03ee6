//! One process's share in the authority of a folder.

use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};
use sentinel_authority::{Limits, Member, NewPolicy, SharedAuthority, SharedError, SharedTurn, Step};
use sentinel_engine::{ActionRequest, Event, Fact, Now, Operator, Policy, ScopeId};
use sentinel_proto::app::{Answer, Begin, End, MAX_TAGS, PendingApproval, Reply, RequestId, Totals};
use sentinel_proto::{
    ActionId, ActionName, Annotations, ApprovalId, Decision, Denial, Money, Outcome, Payload, Reason,
    SessionId, SessionName, Tag,
};
use uuid::Uuid;

use super::EmbeddedPolicy;
use super::ids::Ids;
use crate::pool::own_pid;

/// What stands in the ledger for what this mode enforces.
const TIER: &str = "advisory";
/// The name of the policy that nobody has written.
const UNCONFIGURED: &str = "unconfigured";
/// The name of the policy that nobody can read, and what stands for its digest.
const FAILED: &str = "failed";
/// Processes that died are looked for so often.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How large a part of the ledger becomes: so large that the disk is rarely waited for, and so small that a process starts on it within a moment.
const LIMITS: Limits = Limits { segment_bytes: 2 << 20, ..Limits::DEFAULT };
/// Closed approvals that are remembered.
const MOST_CLOSED: usize = 64;

/// What one action has cost and how often it was started.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ActionStats {
    /// How often.
    pub count: u64,
    /// What it cost, reservations included.
    pub cost: Money,
}

/// What a session has spent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// By the session.
    pub session: Money,
    /// By its run.
    pub run: Money,
    /// By each action, over all runs.
    pub actions: BTreeMap<ActionName, ActionStats>,
}

/// A line about something that was done elsewhere.
#[derive(Clone, Debug)]
pub struct Record {
    /// The action's name.
    pub action: ActionName,
    /// What it is said to have cost. Nothing is charged for it.
    pub cost: Money,
    /// How it ended.
    pub outcome: Outcome,
    /// Its tags.
    pub tags: Vec<Tag>,
    /// How long it took.
    pub duration: Duration,
    /// What it was called with.
    pub inputs: Payload,
    /// What came out.
    pub outputs: Payload,
    /// What else is to be recorded.
    pub annotations: Option<Box<Annotations>>,
}

/// A process's share.
#[derive(Debug)]
pub(super) struct Share {
    shared: SharedAuthority,
    member: Member,
    ids: Ids,
    session: SessionId,
    name: SessionName,
    /// The policy that is in force here, and its text's digest.
    policy: Arc<Policy>,
    sha256: Option<String>,
    /// Why nobody knows what the policy says: then nothing may start, whatever is in force.
    failed: Option<String>,
    looked_at: Duration,
    /// Somebody else had the turn for as long as it was waited for.
    waited_in_vain: bool,
    /// Approvals that came to their end in this process, the last ones.
    closed: VecDeque<(ApprovalId, Denial)>,
}

fn now() -> Now {
    let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let boot = clock_gettime(ClockId::Boottime);
    Now {
        wall_micros: u64::try_from(wall.as_micros()).unwrap_or(u64::MAX),
        elapsed: Duration::new(
            u64::try_from(boot.tv_sec).unwrap_or(0),
            u32::try_from(boot.tv_nsec).unwrap_or(0),
        ),
    }
}

/// A turn that could not be taken.
fn untaken(error: &SharedError, waited_in_vain: &mut bool) -> Denial {
    *waited_in_vain |= matches!(error, SharedError::Busy(_));
    unavailable(error)
}

pub(super) fn unavailable(error: impl std::fmt::Display) -> Denial {
    Denial { reason: Reason::LedgerUnavailable { cause: error.to_string() }, rule: None }
}

pub(super) fn invalid(cause: impl Into<String>) -> Denial {
    Denial { reason: Reason::InvalidRequest { cause: cause.into() }, rule: None }
}

pub(super) fn denied(request: RequestId, denial: Denial) -> Answer {
    Answer {
        request,
        decision: Decision::Deny,
        action_id: None,
        acknowledge_end: false,
        max_seconds: None,
        denial: Some(denial),
        approval: None,
    }
}

impl Share {
    /// Joins those that share this ledger.
    pub(super) fn join(
        ledger: &Path,
        name: &SessionName,
        patience: Option<Duration>,
    ) -> Result<Self, SharedError> {
        let (number, _) = Uuid::new_v4().as_u64_pair();
        let member = Member::new(number);
        let shared = SharedAuthority::join_within(ledger, LIMITS, member, patience, now())?;
        Ok(Self {
            shared,
            member,
            ids: Ids::default(),
            session: SessionId(0),
            name: name.clone(),
            policy: Arc::new(Policy::empty()),
            sha256: None,
            failed: None,
            looked_at: Duration::ZERO,
            waited_in_vain: false,
            closed: VecDeque::new(),
        })
    }

    /// Does something in this process's turn, if nobody else has it and nothing has to be waited for first.
    pub(super) fn at_once<T>(
        &mut self,
        policy: &EmbeddedPolicy,
        turn: impl FnOnce(&mut Self) -> T,
    ) -> Option<T> {
        let is_free = self.follows(policy) && self.shared.reserve_turn(now());
        is_free.then(|| {
            let done = turn(self);
            self.shared.give_back();
            done
        })
    }

    /// Waits for a turn at most so long from now on; none: as long as it takes. Whether one was waited for in vain, so that nothing has happened.
    pub(super) fn set_patience(&mut self, patience: Option<Duration>) -> bool {
        self.shared.set_patience(patience);
        std::mem::take(&mut self.waited_in_vain)
    }

    /// Whether its session is over, which happens where somebody has taken its ledger away: it is to begin anew.
    pub(super) fn forget_if_over(&mut self, reply: &Reply) -> bool {
        let is_over = matches!(reply, Reply::Decision(answer)
            if answer.denial.as_ref().is_some_and(|denial| denial.reason == Reason::SessionEnded));
        if is_over {
            self.sha256 = None;
        }
        is_over
    }

    /// Whether this policy is in force.
    fn follows(&self, policy: &EmbeddedPolicy) -> bool {
        let sha256 = match policy {
            EmbeddedPolicy::Failed(cause) => return self.failed.as_ref() == Some(cause),
            EmbeddedPolicy::Unconfigured => "",
            EmbeddedPolicy::Configured { sha256, .. } => sha256,
        };
        self.failed.is_none() && self.sha256.as_deref() == Some(sha256)
    }

    /// Decides by this policy from now on.
    pub(super) fn follow(&mut self, policy: &EmbeddedPolicy) -> Result<(), Denial> {
        if self.follows(policy) {
            return Ok(());
        }
        let (rules, name, sha256) = match policy {
            EmbeddedPolicy::Failed(_) => (Arc::new(Policy::empty()), FAILED, FAILED),
            EmbeddedPolicy::Unconfigured => (Arc::new(Policy::empty()), UNCONFIGURED, ""),
            EmbeddedPolicy::Configured { policy, name, sha256 } => {
                (Arc::clone(policy), name.as_str(), sha256.as_str())
            }
        };
        let now = now();
        let turn = self.shared.take_turn(now);
        let mut turn = turn.map_err(|error| untaken(&error, &mut self.waited_in_vain))?;
        let authority = &mut *turn.authority;
        let known = authority.state().session_named(&self.name);
        self.session = known.unwrap_or_else(|| authority.state().next_session());
        if !authority.state().is_alive(self.session) {
            let start = Event::SessionStart {
                session: self.session,
                name: Some(self.name.clone()),
                policy: name.to_owned(),
                policy_sha256: sha256.to_owned(),
                command: std::env::args_os().map(|word| word.to_string_lossy().into_owned()).collect(),
                uid: rustix::process::getuid().as_raw(),
                tier: TIER.to_owned(),
            };
            authority.bind(self.session, Arc::clone(&rules));
            authority.advise(start, now).map_err(unavailable)?;
        } else if authority.state().policy_of(self.session) != Some((name, sha256)) {
            let changed = NewPolicy {
                session: self.session,
                name: name.to_owned(),
                sha256: sha256.to_owned(),
                policy: Arc::clone(&rules),
            };
            authority.reload(None, vec![name.to_owned()], vec![changed], now).map_err(unavailable)?;
        }
        authority.bind(self.session, Arc::clone(&rules));
        // A run ends with the last of its processes.
        let was_spent =
            authority.state().totals(self.session).is_some_and(|totals| totals.run != Money::ZERO);
        if self.sha256.is_none() && was_spent && turn.is_alone().map_err(unavailable)? {
            abandon_the_dead(&mut turn, self.session, self.member, now)?;
            turn.authority.advise(Event::RunReset { session: self.session }, now).map_err(unavailable)?;
        }
        drop(turn);
        (self.policy, self.sha256) = (rules, Some(sha256.to_owned()));
        self.failed = match policy {
            EmbeddedPolicy::Failed(cause) => Some(cause.clone()),
            EmbeddedPolicy::Unconfigured | EmbeddedPolicy::Configured { .. } => None,
        };
        Ok(())
    }

    /// This process's turn, with everything ended that is over. See [`SharedAuthority::take_turn_to_end`].
    fn turn(&mut self, begins_nothing: bool) -> Result<(SharedTurn<'_>, Now), Denial> {
        let now = self.shared.reserved_at().unwrap_or_else(now);
        let is_time = now.elapsed >= self.looked_at.saturating_add(LOOK_EVERY);
        let (session, member) = (self.session, self.member);
        let turn =
            if begins_nothing { self.shared.take_turn_to_end(now) } else { self.shared.take_turn(now) };
        let mut turn = turn.map_err(|error| untaken(&error, &mut self.waited_in_vain))?;
        if turn.authority.state().next_deadline().is_some_and(|deadline| deadline <= now.elapsed) {
            let step = turn.authority.advise(Event::Tick, now).map_err(unavailable)?;
            note(&mut self.closed, &step);
        }
        if is_time {
            abandon_the_dead(&mut turn, session, member, now)?;
            self.looked_at = now.elapsed;
        }
        Ok((turn, now))
    }

    fn step(&mut self, event: Event) -> Result<Step, Denial> {
        let step = {
            let (turn, now) = self.turn(matches!(event, Event::End { .. }))?;
            turn.authority.advise(event, now).map_err(unavailable)?
        };
        note(&mut self.closed, &step);
        Ok(step)
    }

    /// Lets an action start, or not.
    pub(super) fn begin(&mut self, begin: Begin) -> Result<Answer, Denial> {
        let request = begin.request;
        if begin.tags.len() > MAX_TAGS {
            return Err(invalid(format!("{} tags; at most {MAX_TAGS} are allowed", begin.tags.len())));
        }
        let action_id = ActionId(self.ids.make()?);
        let asked = Box::new(ActionRequest {
            action_id,
            session: self.session,
            scope: ScopeId(self.member.number()),
            action: begin.action,
            cost: begin.cost_usd,
            tags: begin.tags,
            risk: begin.risk_level,
            needs_approval: begin.needs_approval,
            approval_id: ApprovalId(self.ids.make()?),
            inputs: begin.inputs,
            annotations: begin.annotations,
            pid: own_pid(),
        });
        let denial = self.failed.clone().map(invalid);
        let (turn, now) = self.turn(false)?;
        if let Some(denial) = denial {
            // Where it can't be recorded it may not start either.
            let refused = Event::Refuse { request: asked, denial: denial.clone() };
            turn.authority.advise(refused, now).map_err(unavailable)?;
            return Err(denial);
        }
        if turn.authority.is_nearly_full() {
            return Err(unavailable("what is left of its quota is for what runs"));
        }
        if let Some(approval) = turn.authority.waits_for(&asked, now) {
            return Ok(pending(&turn, request, approval, now));
        }
        let step = turn.authority.advise(Event::Begin(asked), now).map_err(unavailable)?;
        for fact in step.facts {
            match fact {
                Fact::ActionDenied { denial, .. } => return Err(denial),
                Fact::ApprovalRequested { wish } => {
                    return Ok(pending(&turn, request, wish.approval_id, now));
                }
                Fact::ActionStarted { action_id: id, max_seconds, .. } if id == action_id => {
                    return Ok(Answer {
                        request,
                        decision: Decision::Allow,
                        action_id: Some(action_id),
                        acknowledge_end: false,
                        max_seconds: Some(max_seconds),
                        denial: None,
                        approval: None,
                    });
                }
                _ => {}
            }
        }
        Err(invalid("the authority came to no decision"))
    }

    /// Settles an action; whether it was in flight.
    pub(super) fn end(&mut self, end: End) -> Result<bool, Denial> {
        let End { action_id, outcome, cost_usd, outputs, annotations, .. } = end;
        let session = self.session;
        let step =
            self.step(Event::End { action_id, session, outcome, cost: cost_usd, outputs, annotations })?;
        Ok(step
            .facts
            .iter()
            .any(|fact| matches!(fact, Fact::ActionEnded { action_id: ended, .. } if *ended == action_id)))
    }

    /// Takes an action back that never ran.
    pub(super) fn abort(&mut self, action_id: ActionId, cause: &str) -> Result<(), Denial> {
        self.step(Event::Abort { action_id, cause: cause.to_owned() }).map(drop)
    }

    /// What a human has said, if one has.
    pub(super) fn word_on(&mut self, approval: ApprovalId) -> Result<Option<Result<(), Denial>>, Denial> {
        let known = {
            let (turn, _now) = self.turn(false)?;
            turn.authority.state().approval(approval).map(|approval| approval.permit.is_some())
        };
        Ok(match known {
            Some(true) => Some(Ok(())),
            Some(false) => None,
            None => {
                let closed = self.closed.iter().rev().find(|(id, _)| *id == approval);
                Some(Err(closed.map_or_else(no_longer_there, |(_, denial)| denial.clone())))
            }
        })
    }

    pub(super) fn cancel(&mut self, approval_id: ApprovalId) -> Result<(), Denial> {
        let session = self.session;
        self.step(Event::CancelApproval { approval_id, session }).map(drop)
    }

    pub(super) fn decide_approval(
        &mut self,
        approval_id: ApprovalId,
        approved: bool,
        note: Option<String>,
    ) -> Result<(), Denial> {
        let uid = rustix::process::getuid().as_raw();
        let operator = Operator { uid, user: None, groups: Vec::new() };
        let step = self.step(if approved {
            Event::Approve { approval_id, operator, note, uses: None, seconds: None, up_to: None }
        } else {
            Event::Reject { approval_id, operator, note }
        })?;
        if step.facts.is_empty() {
            return Err(invalid(format!(
                "no approval {approval_id} waits here for this user: it is used, over, never was, or `approvals.approvers` names somebody else"
            )));
        }
        Ok(())
    }

    pub(super) fn totals(&mut self, request: RequestId) -> Result<Totals, Denial> {
        let budgets = self.policy.budgets.clone();
        let session = self.session;
        let (turn, _now) = self.turn(false)?;
        let totals = turn.authority.state().totals(session).ok_or_else(ended)?;
        Ok(Totals {
            request,
            session_usd: totals.session,
            run_usd: totals.run,
            session_limit_usd: budgets.session.map(|limit| limit.amount),
            run_limit_usd: budgets.run.map(|limit| limit.amount),
        })
    }

    pub(super) fn reset_run(&mut self, request: RequestId) -> Result<Totals, Denial> {
        let session = self.session;
        self.step(Event::RunReset { session })?;
        self.totals(request)
    }

    pub(super) fn reset_session(&mut self) -> Result<(), Denial> {
        let (session, operator) = (self.session, rustix::process::getuid().as_raw());
        self.step(Event::SessionReset { session, operator }).map(drop)
    }

    pub(super) fn snapshot(&mut self) -> Result<Snapshot, Denial> {
        let session = self.session;
        let (turn, _now) = self.turn(false)?;
        let state = turn.authority.state();
        let totals = state.totals(session).ok_or_else(ended)?;
        let actions = state.action_totals(session);
        Ok(Snapshot {
            session: totals.session,
            run: totals.run,
            actions: actions.map(|(name, count, cost)| (name.clone(), ActionStats { count, cost })).collect(),
        })
    }

    pub(super) fn record(&mut self, record: Record) -> Result<ActionId, Denial> {
        let action_id = ActionId(self.ids.make()?);
        let session = self.session;
        let Record { action, cost, outcome, tags, duration, inputs, outputs, annotations } = record;
        self.step(Event::Record(Box::new(sentinel_engine::Recorded {
            action_id,
            session,
            action,
            cost,
            outcome,
            tags,
            duration,
            inputs,
            inputs_sha256: None,
            outputs,
            annotations,
        })))?;
        Ok(action_id)
    }
}

/// Remembers why approvals came to their end.
fn note(closed: &mut VecDeque<(ApprovalId, Denial)>, step: &Step) {
    for fact in &step.facts {
        if let Fact::ApprovalClosed { approval_id, closing, .. } = fact {
            closed.push_back((*approval_id, Denial { reason: closing.reason(), rule: None }));
            if closed.len() > MOST_CLOSED {
                closed.pop_front();
            }
        }
    }
}

fn no_longer_there() -> Denial {
    let cause = "it was rejected or withdrawn, has expired, or the policy has changed".to_owned();
    Denial { reason: Reason::ApprovalCancelled { cause }, rule: None }
}

fn ended() -> Denial {
    Denial { reason: Reason::SessionEnded, rule: None }
}

fn pending(turn: &SharedTurn<'_>, request: RequestId, approval: ApprovalId, now: Now) -> Answer {
    let deadline =
        turn.authority.state().approval(approval).map_or(now.elapsed, |approval| approval.deadline);
    let expires_in = deadline.saturating_sub(now.elapsed).as_millis();
    Answer {
        request,
        decision: Decision::Pending,
        action_id: None,
        acknowledge_end: false,
        max_seconds: None,
        denial: None,
        approval: Some(PendingApproval {
            id: approval,
            expires_in_ms: u64::try_from(expires_in).unwrap_or(u64::MAX),
        }),
    }
}

/// Ends the actions of processes that died: they are charged in full.
fn abandon_the_dead(
    turn: &mut SharedTurn<'_>,
    session: SessionId,
    own: Member,
    now: Now,
) -> Result<(), Denial> {
    let mut of_members: BTreeMap<ScopeId, Vec<ActionId>> = BTreeMap::new();
    for (id, action) in turn.authority.state().actions_of_session(session) {
        if action.scope != ScopeId(own.number()) {
            of_members.entry(action.scope).or_default().push(id);
        }
    }
    for (scope, action_ids) in of_members {
        if !turn.is_alive(Member::new(scope.0)).map_err(unavailable)? {
            turn.authority.advise(Event::Abandon { action_ids }, now).map_err(unavailable)?;
        }
    }
    Ok(())
}
