//! A history of two sessions, and the authority that it is played against.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use sentinel_authority::{Authority, Log};
use sentinel_engine::{
    ActionRequest, ActionRule, Allowlist, Approvals, Attempt, DayLimit, Event, Fact, Grant, Limit, Now,
    Operator, Policy, RateLimit, ScopeId, SessionEnding,
};
use sentinel_proto::{ActionId, ActionName, ApprovalId, Money, Outcome, Payload, SessionId, SessionName};
use uuid::Uuid;

pub(crate) const ACTIONS: [&str; 5] = ["cheap", "dear", "limited", "denied", "unlisted"];
pub(crate) const SESSIONS: [u32; 2] = [1, 2];

pub(crate) fn name(index: usize) -> ActionName {
    ActionName::new(ACTIONS[index]).unwrap()
}

pub(crate) fn cents(cents: u64) -> Money {
    Money::from_nanos(cents * 10_000_000).unwrap()
}

pub(crate) fn policy() -> Policy {
    let limit = |amount| Limit { amount: cents(amount), line: 1 };
    let mut policy = Policy::empty();
    policy.budgets.session = Some(limit(300));
    policy.budgets.run = Some(limit(120));
    policy.budgets.actions.insert(name(1), limit(90));
    policy.budgets.day = Some(DayLimit { limit: limit(400), timezone: "Asia/Tokyo".parse().unwrap() });
    policy.approvals = Some(Approvals {
        actions: BTreeMap::from([(name(2), 5)]),
        tags: BTreeMap::new(),
        risk_levels: Vec::new(),
        from_cost: Some(limit(52)),
        approvers: None,
        timeout: Duration::from_secs(30),
        line: 5,
    });
    policy.denied.insert(name(3), 2);
    policy.allowed = Some(Allowlist { names: (0..4).map(|index| (name(index), 3)).collect(), line: 3 });
    policy.rates.insert(name(2), RateLimit { max_count: 3, window: Duration::from_secs(10), line: 4 });
    let dear = ActionRule { cost_floor: cents(10), grant: Some(1), max_seconds: 20, ..ActionRule::default() };
    policy.actions.insert(name(1), dear);
    policy.grants.push(Grant::default());
    policy
}

/// A step of a history, before it has ids.
#[derive(Clone, Debug)]
pub(crate) enum Move {
    Begin { session: usize, action: usize, cents: u64 },
    End { which: prop::sample::Index, outcome: usize, cents: Option<u64> },
    Abort { which: prop::sample::Index },
    Abandon { which: prop::sample::Index },
    Reset { session: usize },
    Restart { session: usize },
    Tick,
    Denial { session: usize },
    AgentRestart { adopts: bool },
    Approve { which: prop::sample::Index, uses: u64, cents: Option<u64> },
    Reject { which: prop::sample::Index },
    Pause { session: usize, resume: bool },
    ChangePolicy { session: usize },
    Unknown,
}

pub(crate) fn moves() -> impl Strategy<Value = Vec<(Move, u64)>> {
    let one = prop_oneof![
        12 => (0..2_usize, 0..5_usize, 0..60_u64).prop_map(|(session, action, cents)| Move::Begin { session, action, cents }),
        8 => (any::<prop::sample::Index>(), 0..4_usize, prop::option::of(0..90_u64))
            .prop_map(|(which, outcome, cents)| Move::End { which, outcome, cents }),
        1 => any::<prop::sample::Index>().prop_map(|which| Move::Abort { which }),
        1 => any::<prop::sample::Index>().prop_map(|which| Move::Abandon { which }),
        1 => (0..2_usize).prop_map(|session| Move::Reset { session }),
        1 => (0..2_usize).prop_map(|session| Move::Restart { session }),
        2 => Just(Move::Tick),
        1 => (0..2_usize).prop_map(|session| Move::Denial { session }),
        1 => any::<bool>().prop_map(|adopts| Move::AgentRestart { adopts }),
        4 => (any::<prop::sample::Index>(), 0..4_u64, prop::option::of(0..90_u64))
            .prop_map(|(which, uses, cents)| Move::Approve { which, uses, cents }),
        1 => any::<prop::sample::Index>().prop_map(|which| Move::Reject { which }),
        2 => (0..2_usize, any::<bool>()).prop_map(|(session, resume)| Move::Pause { session, resume }),
        1 => (0..2_usize).prop_map(|session| Move::ChangePolicy { session }),
        1 => Just(Move::Unknown),
    ];
    prop::collection::vec((one, 0..5_000_u64), 1..60)
}

/// Plays a history, and looks at the authority after each step.
pub(crate) struct Play<L: Log> {
    pub(crate) authority: Authority<L>,
    pub(crate) policy: Arc<Policy>,
    pub(crate) now: Now,
    pub(crate) started: Vec<ActionId>,
    pub(crate) facts: Vec<Fact>,
    pub(crate) overruns: BTreeMap<SessionId, Money>,
}

impl<L: Log> Play<L> {
    pub(crate) fn new(log: L) -> Self {
        let now = Now { wall_micros: 1_700_000_000_000_000, elapsed: Duration::from_secs(1_000) };
        let mut play = Self {
            authority: Authority::with(log),
            policy: Arc::new(policy()),
            now,
            started: Vec::new(),
            facts: Vec::new(),
            overruns: BTreeMap::new(),
        };
        for session in SESSIONS {
            play.start(session);
        }
        play
    }

    pub(crate) fn start(&mut self, session: u32) {
        self.authority.bind(SessionId(session), Arc::clone(&self.policy));
        // The first has a name, and so goes on; the second is new each time.
        let name = (session == 1).then(|| SessionName::new("daily").unwrap());
        self.step(Event::SessionStart {
            session: SessionId(session),
            name,
            policy: "test".to_owned(),
            policy_sha256: "00".to_owned(),
            command: vec!["agent".to_owned(), "a \"quoted\"\n word".to_owned()],
            uid: 1000,
            tier: "kill".to_owned(),
        });
    }

    pub(crate) fn play(&mut self, step: &Move, milliseconds: u64) {
        self.now.elapsed += Duration::from_millis(milliseconds);
        self.now.wall_micros += milliseconds * 1_000;
        let pick = |which: &prop::sample::Index, started: &[ActionId]| {
            if started.is_empty() {
                ActionId(Uuid::from_u128(7))
            } else {
                started[which.index(started.len())]
            }
        };
        match step {
            Move::Begin { session, action, cents: amount } => {
                let action_id = ActionId(Uuid::new_v4());
                self.started.push(action_id);
                let session = SessionId(SESSIONS[*session]);
                self.step(Event::Begin(Box::new(ActionRequest {
                    action_id,
                    session,
                    scope: ScopeId(u64::from(session.0)),
                    action: name(*action),
                    cost: cents(*amount),
                    tags: Vec::new(),
                    risk: None,
                    needs_approval: false,
                    approval_id: ApprovalId(Uuid::new_v4()),
                    inputs: Payload::of(&["in", "ä\u{7f}\"\\"]).unwrap(),
                    annotations: None,
                    pid: 42,
                })));
            }
            Move::End { which, outcome, cents: amount } => {
                let action_id = pick(which, &self.started);
                let outcome =
                    [Outcome::Success, Outcome::Error, Outcome::Panicked, Outcome::Cancelled][*outcome];
                let session = self.authority.state().session_of(action_id).unwrap_or(SessionId(1));
                let cost = amount.map(cents);
                self.step(Event::End {
                    action_id,
                    session,
                    outcome,
                    cost,
                    outputs: Payload::null(),
                    annotations: None,
                });
            }
            Move::Abort { which } => {
                let action_id = pick(which, &self.started);
                self.step(Event::Abort { action_id, cause: "no room".to_owned() });
            }
            Move::Abandon { which } => {
                let action_ids = vec![pick(which, &self.started)];
                self.step(Event::Abandon { action_ids });
            }
            Move::Reset { session } => self.step(Event::RunReset { session: SessionId(SESSIONS[*session]) }),
            Move::Restart { session } => {
                let session = SESSIONS[*session];
                self.step(Event::SessionEnd { session: SessionId(session), ending: SessionEnding::Exited });
                self.start(session);
            }
            Move::Tick => self.step(Event::Tick),
            Move::Denial { session } => self.step(Event::KernelDenied {
                session: SessionId(SESSIONS[*session]),
                attempt: Box::new(Attempt {
                    operation: "connect".to_owned(),
                    target: "192.0.2.1:443/tcp".to_owned(),
                    verdict: "no_rule".to_owned(),
                    fate: "refused".to_owned(),
                    process: "curl".to_owned(),
                    pid: 7,
                    would_allow: None,
                }),
                count: 3,
            }),
            Move::AgentRestart { adopts } => {
                let adopted = if *adopts { SESSIONS.map(SessionId).to_vec() } else { Vec::new() };
                self.step(Event::AgentStarted {
                    version: "0.1.0".to_owned(),
                    tier: "kill".to_owned(),
                    adopted,
                });
                for session in SESSIONS {
                    self.start(session);
                }
            }
            Move::Approve { which, uses, cents: amount } => {
                let approval_id = self.pick_approval(which);
                let operator = Operator { uid: 1000, user: Some("alice".to_owned()), groups: Vec::new() };
                let (note, up_to) = (Some("\u{1b} fine".to_owned()), amount.map(cents));
                self.step(Event::Approve {
                    approval_id,
                    operator,
                    note,
                    uses: Some(*uses),
                    seconds: Some(20),
                    up_to,
                });
            }
            Move::Reject { which } => {
                let approval_id = self.pick_approval(which);
                let operator = Operator { uid: 1000, user: None, groups: Vec::new() };
                self.step(Event::Reject { approval_id, operator, note: None });
            }
            Move::Pause { session, resume } => {
                let session = SessionId(SESSIONS[*session]);
                self.step(if *resume {
                    Event::Resume { session, operator: 7 }
                } else {
                    Event::Pause { session, operator: 7 }
                });
            }
            Move::ChangePolicy { session } => self.step(Event::PolicyChange {
                session: SessionId(SESSIONS[*session]),
                policy: "test".to_owned(),
                policy_sha256: self.facts.len().to_string(),
            }),
            Move::Unknown => {
                let before = self.authority.state().clone();
                self.step(Event::End {
                    action_id: ActionId(Uuid::from_u128(99)),
                    session: SessionId(77),
                    outcome: Outcome::Success,
                    cost: None,
                    outputs: Payload::null(),
                    annotations: None,
                });
                assert_eq!(*self.authority.state(), before, "an unknown id changes nothing");
            }
        }
    }

    fn pick_approval(&self, which: &prop::sample::Index) -> ApprovalId {
        let state = self.authority.state();
        let ids: Vec<ApprovalId> = state.approvals().map(|approval| approval.wish.approval_id).collect();
        if ids.is_empty() { ApprovalId(Uuid::nil()) } else { ids[which.index(ids.len())] }
    }

    pub(crate) fn step(&mut self, event: Event) {
        let before = self.authority.state().clone();
        let Ok(step) = self.authority.step(event, self.now) else {
            assert_eq!(*self.authority.state(), before, "an append that fails changes nothing");
            return;
        };
        for fact in &step.facts {
            if let Fact::ActionEnded { session, overrun, .. }
            | Fact::ActionCorrected { session, overrun, .. } = fact
            {
                let sum = self.overruns.entry(*session).or_default();
                *sum = sum.saturating_add(*overrun);
            }
            if let Fact::SessionStarted { session: session @ SessionId(2), .. } = fact {
                self.overruns.remove(session);
            }
        }
        self.facts.extend(step.facts);
    }

    pub(crate) fn check(&self) {
        for session in SESSIONS.map(SessionId) {
            let Some(totals) = self.authority.state().totals(session) else { continue };
            let overruns = self.overruns.get(&session).copied().unwrap_or_default();
            assert!(totals.session <= cents(300).saturating_add(overruns), "{totals:?}, overruns {overruns}");
            assert!(totals.run <= cents(120).saturating_add(overruns), "{totals:?}, overruns {overruns}");
        }
    }
}
