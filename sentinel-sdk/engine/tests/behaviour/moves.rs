//! Random policies and random histories under them.

use proptest::prelude::*;
use proptest::sample::Index;
use sentinel_engine::{ActionRequest, Event, ScopeId, SessionEnding};
use sentinel_proto::{ActionId, ApprovalId, Money, Outcome, Payload, SessionId};
use uuid::Uuid;

use crate::world::{Rules, World, name, root, seconds};

pub(crate) const ACTIONS: [&str; 3] = ["cheap", "dear", "other"];
/// The first has a name; the second is new each time.
pub(crate) const SESSIONS: [SessionId; 2] = [SessionId(2), SessionId(3)];

const OUTCOMES: [Outcome; 4] = [Outcome::Success, Outcome::Error, Outcome::Panicked, Outcome::Cancelled];

/// A step of a history, before it has ids.
#[derive(Clone, Debug)]
pub(crate) enum Move {
    Begin { session: usize, action: usize, scope: u64, cents: u64 },
    End { which: Index, outcome: usize, cents: Option<u64> },
    Abort { which: Index },
    Abandon { which: Index },
    Reset { session: usize },
    Anew { session: usize },
    Restart { session: usize },
    Tick,
    AgentRestart { adopts: bool },
    Approve { which: Index, uses: u64, cents: Option<u64> },
    Reject { which: Index },
    Pause { session: usize },
    Resume { session: usize },
    ChangePolicy { session: usize },
    Wait { milliseconds: u64 },
    ClockBack { milliseconds: u64 },
}

pub(crate) fn cents(cents: u64) -> Money {
    Money::from_nanos(cents * 10_000_000).unwrap()
}

fn dollars(cents: u64) -> String {
    self::cents(cents).to_string()
}

pub(crate) fn begins() -> impl Strategy<Value = Move> {
    (0..2_usize, 0..3_usize, 1..4_u64, 0..60_u64).prop_map(|(session, action, scope, cents)| Move::Begin {
        session,
        action,
        scope,
        cents,
    })
}

pub(crate) fn histories() -> impl Strategy<Value = Vec<Move>> {
    let index = any::<Index>;
    let step = prop_oneof![
        12 => begins(),
        8 => (index(), 0..4_usize, prop::option::of(0..90_u64))
            .prop_map(|(which, outcome, cents)| Move::End { which, outcome, cents }),
        1 => index().prop_map(|which| Move::Abort { which }),
        1 => index().prop_map(|which| Move::Abandon { which }),
        1 => (0..2_usize).prop_map(|session| Move::Reset { session }),
        1 => (0..2_usize).prop_map(|session| Move::Anew { session }),
        1 => (0..2_usize).prop_map(|session| Move::Restart { session }),
        2 => Just(Move::Tick),
        1 => any::<bool>().prop_map(|adopts| Move::AgentRestart { adopts }),
        3 => (index(), 0..4_u64, prop::option::of(0..90_u64))
            .prop_map(|(which, uses, cents)| Move::Approve { which, uses, cents }),
        1 => index().prop_map(|which| Move::Reject { which }),
        1 => (0..2_usize).prop_map(|session| Move::Pause { session }),
        1 => (0..2_usize).prop_map(|session| Move::Resume { session }),
        1 => (0..2_usize).prop_map(|session| Move::ChangePolicy { session }),
        6 => (0..8_000_u64).prop_map(|milliseconds| Move::Wait { milliseconds }),
        1 => (0..8_000_u64).prop_map(|milliseconds| Move::ClockBack { milliseconds }),
    ];
    prop::collection::vec(step, 1..50)
}

/// Policies with each rule there or not.
pub(crate) fn policies() -> impl Strategy<Value = Rules> {
    let amount = || prop::option::of(0..200_u64);
    let names = || prop::collection::btree_set(0..3_usize, 0..3);
    let budgets = (amount(), amount(), prop::collection::btree_map(0..3_usize, 0..100_u64, 0..3));
    let lists = (names(), prop::option::weighted(0.3, prop::collection::btree_set(0..3_usize, 0..4)));
    let rates = prop::collection::btree_map(0..3_usize, (0..4_u64, 1..20_u64), 0..3);
    let costs = prop::collection::btree_map(0..3_usize, (0..20_u64, 1..30_u64), 0..3);
    let counts = (amount(), prop::option::weighted(0.2, 0..20_u64), prop::option::weighted(0.2, 0..4_u64));
    let asked = prop::option::weighted(0.4, (names(), prop::option::of(0..60_u64)));
    let more = (counts, asked);
    (budgets, lists, rates, costs, names(), more).prop_map(|(budgets, lists, rates, costs, granted, more)| {
        let mut rules = Rules::none();
        if let Some(amount) = budgets.0 {
            rules = rules.session_budget(&dollars(amount));
        }
        if let Some(amount) = budgets.1 {
            rules = rules.run_budget(&dollars(amount));
        }
        for (action, amount) in budgets.2 {
            rules = rules.action_budget(ACTIONS[action], &dollars(amount));
        }
        // Rarely more than one action is denied, or nothing much would ever happen.
        if let Some(action) = lists.0.first() {
            rules = rules.denied(ACTIONS[*action]);
        }
        if let Some(allowed) = lists.1 {
            let allowed: Vec<&str> = allowed.into_iter().map(|action| ACTIONS[action]).collect();
            rules = rules.allowed(&allowed);
        }
        for (action, (max_count, window)) in rates {
            rules = rules.rate(ACTIONS[action], max_count, seconds(window));
        }
        for (action, (floor, max_seconds)) in costs {
            rules = rules.floor(ACTIONS[action], &dollars(floor)).max_seconds(ACTIONS[action], max_seconds);
        }
        for action in granted {
            rules = rules.grant(ACTIONS[action], action + 1);
        }
        let ((day, calls, concurrent), asked) = more;
        if let Some(amount) = day {
            rules = rules.day_budget(&dollars(amount), "Europe/Berlin");
        }
        if let Some(most) = calls {
            rules = rules.max_calls_in_all(most).max_calls(ACTIONS[0], most / 2);
        }
        if let Some(most) = concurrent {
            rules = rules.max_concurrent_in_all(most).max_concurrent(ACTIONS[1], most / 2);
        }
        if let Some((actions, cents)) = asked {
            rules = rules.approvals().approve_action("never");
            for action in actions {
                rules = rules.approve_action(ACTIONS[action]);
            }
            if let Some(amount) = cents {
                rules = rules.approve_from(&dollars(amount));
            }
        }
        rules
    })
}

/// Plays histories in a world.
#[derive(Clone, Debug)]
pub(crate) struct Player {
    pub(crate) world: World,
    pub(crate) rules: Rules,
    /// All that were asked for, so that ends also meet actions that never started or have ended.
    asked: Vec<ActionId>,
}

impl Player {
    pub(crate) fn new(rules: &Rules) -> Self {
        let mut player = Self { world: World::new(&Rules::none()), rules: rules.clone(), asked: Vec::new() };
        for session in SESSIONS {
            player.start(session);
        }
        player
    }

    fn start(&mut self, session: SessionId) {
        let name = (session == SESSIONS[0]).then_some("daily");
        self.world.start_session(session, name, &self.rules);
    }

    fn pick(&self, which: &Index) -> ActionId {
        if self.asked.is_empty() { ActionId(Uuid::nil()) } else { self.asked[which.index(self.asked.len())] }
    }

    fn pick_approval(&self, which: &Index) -> ApprovalId {
        let ids: Vec<ApprovalId> =
            self.world.state.approvals().map(|approval| approval.wish.approval_id).collect();
        if ids.is_empty() { ApprovalId(Uuid::nil()) } else { ids[which.index(ids.len())] }
    }

    /// The request of a [`Move::Begin`].
    pub(crate) fn request(
        &mut self,
        session: usize,
        action: usize,
        scope: u64,
        amount: u64,
    ) -> ActionRequest {
        let request = self.world.request(ACTIONS[action], "0");
        let session = SESSIONS[session];
        let scope = ScopeId(u64::from(session.0) * 10 + scope);
        let request = ActionRequest { session, scope, cost: cents(amount), ..request };
        assert_eq!(request.action, name(ACTIONS[action]));
        request
    }

    pub(crate) fn play(&mut self, step: &Move) {
        match step {
            Move::Begin { session, action, scope, cents } => {
                let request = self.request(*session, *action, *scope, *cents);
                self.asked.push(request.action_id);
                self.world.step(Event::Begin(Box::new(request)));
            }
            Move::End { which, outcome, cents: amount } => {
                let action_id = self.pick(which);
                let state = &self.world.state;
                let interrupted = || state.interrupted(action_id).map(|action| action.session);
                let session = state.session_of(action_id).or_else(interrupted).unwrap_or(SESSIONS[0]);
                let (outcome, cost) = (OUTCOMES[*outcome], amount.map(cents));
                self.world.step(Event::End {
                    action_id,
                    session,
                    outcome,
                    cost,
                    outputs: Payload::null(),
                    annotations: None,
                });
            }
            Move::Abort { which } => {
                self.world.abort(self.pick(which));
            }
            Move::Abandon { which } => {
                let action_ids = vec![self.pick(which)];
                self.world.step(Event::Abandon { action_ids });
            }
            Move::Reset { session } => {
                self.world.step(Event::RunReset { session: SESSIONS[*session] });
            }
            Move::Anew { session } => {
                self.world.step(Event::SessionReset { session: SESSIONS[*session], operator: 0 });
            }
            Move::Restart { session } => {
                let session = SESSIONS[*session];
                self.world.step(Event::SessionEnd { session, ending: SessionEnding::Exited });
                self.start(session);
            }
            Move::Tick => {
                self.world.step(Event::Tick);
            }
            Move::AgentRestart { adopts } => {
                let adopted = if *adopts { SESSIONS.to_vec() } else { Vec::new() };
                self.world.step(Event::AgentStarted { version: String::new(), tier: String::new(), adopted });
                for session in SESSIONS {
                    self.start(session);
                }
            }
            Move::Approve { which, uses, cents: amount } => {
                let event = Event::Approve {
                    approval_id: self.pick_approval(which),
                    operator: root(),
                    note: None,
                    uses: Some(*uses),
                    seconds: None,
                    up_to: amount.map(cents),
                };
                self.world.step(event);
            }
            Move::Reject { which } => {
                let approval_id = self.pick_approval(which);
                self.world.step(Event::Reject { approval_id, operator: root(), note: None });
            }
            Move::Pause { session } => {
                self.world.step(Event::Pause { session: SESSIONS[*session], operator: 0 });
            }
            Move::Resume { session } => {
                self.world.step(Event::Resume { session: SESSIONS[*session], operator: 0 });
            }
            Move::ChangePolicy { session } => {
                let policy_sha256 = self.asked.len().to_string();
                let session = SESSIONS[*session];
                self.world.step(Event::PolicyChange { session, policy: "test".to_owned(), policy_sha256 });
            }
            Move::Wait { milliseconds } => self.world.wait(std::time::Duration::from_millis(*milliseconds)),
            Move::ClockBack { milliseconds } => {
                let back = std::time::Duration::from_millis(*milliseconds);
                self.world.now.elapsed = self.world.now.elapsed.saturating_sub(back);
            }
        }
    }
}
