//! A shell around the engine that writes nothing and opens nothing: facts are kept in memory, time goes on by hand.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use sentinel_engine::{
    ActionRequest, ActionRule, Allowlist, Approvals, Approver, CountLimit, DayLimit, Effect, Event, Fact,
    Grant, Hours, Limit, Now, Opening, Operator, Policy, RateLimit, ScopeId, SessionEnding, SessionTotals,
    Span, State, decide, effects,
};
use sentinel_proto::{
    ActionId, ActionName, ApprovalId, Denial, Money, Outcome, Payload, Reason, RiskLevel, SessionId,
    SessionName, Tag,
};
use uuid::Uuid;

/// The session that is there from the beginning.
pub(crate) const SESSION: SessionId = SessionId(1);
/// The scope of its process.
pub(crate) const SCOPE: ScopeId = ScopeId(11);

pub(crate) fn name(text: &str) -> ActionName {
    ActionName::new(text).unwrap()
}

pub(crate) fn usd(text: &str) -> Money {
    Money::from_decimal(text).unwrap()
}

pub(crate) fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn limit(amount: &str, line: u32) -> Option<Limit> {
    Some(Limit { amount: usd(amount), line })
}

/// A policy, written as tests read it.
#[derive(Clone, Debug)]
pub(crate) struct Rules(pub(crate) Policy);

impl Rules {
    pub(crate) fn none() -> Self {
        Self(Policy::empty())
    }

    pub(crate) fn session_budget(mut self, amount: &str) -> Self {
        self.0.budgets.session = limit(amount, 1);
        self
    }

    pub(crate) fn run_budget(mut self, amount: &str) -> Self {
        self.0.budgets.run = limit(amount, 2);
        self
    }

    pub(crate) fn action_budget(mut self, action: &str, amount: &str) -> Self {
        self.0.budgets.actions.extend(limit(amount, 3).map(|limit| (name(action), limit)));
        self
    }

    pub(crate) fn denied(mut self, action: &str) -> Self {
        self.0.denied.insert(name(action), 4);
        self
    }

    pub(crate) fn allowed(mut self, actions: &[&str]) -> Self {
        let names = actions.iter().map(|action| (name(action), 5)).collect();
        self.0.allowed = Some(Allowlist { names, line: 5 });
        self
    }

    pub(crate) fn rate(mut self, action: &str, max_count: u64, window: Duration) -> Self {
        self.0.rates.insert(name(action), RateLimit { max_count, window, line: 6 });
        self
    }

    pub(crate) fn floor(mut self, action: &str, amount: &str) -> Self {
        self.rule(action).cost_floor = usd(amount);
        self
    }

    /// Doors that the action opens: the grant of this index.
    pub(crate) fn grant(mut self, action: &str, index: usize) -> Self {
        self.rule(action).grant = Some(index);
        let count = self.0.grants.len().max(index + 1);
        self.0.grants.resize(count, Grant::default());
        self
    }

    pub(crate) fn max_seconds(mut self, action: &str, seconds: u64) -> Self {
        self.rule(action).max_seconds = seconds;
        self
    }

    pub(crate) fn day_budget(mut self, amount: &str, timezone: &str) -> Self {
        self.0.budgets.day =
            limit(amount, 7).map(|limit| DayLimit { limit, timezone: timezone.parse().unwrap() });
        self
    }

    pub(crate) fn max_calls(mut self, action: &str, most: u64) -> Self {
        self.rule(action).limits.calls = Some(CountLimit { most, line: 8 });
        self
    }

    pub(crate) fn max_concurrent(mut self, action: &str, most: u64) -> Self {
        self.rule(action).limits.concurrent = Some(CountLimit { most, line: 9 });
        self
    }

    pub(crate) fn max_calls_in_all(mut self, most: u64) -> Self {
        self.0.limits.calls = Some(CountLimit { most, line: 10 });
        self
    }

    pub(crate) fn max_concurrent_in_all(mut self, most: u64) -> Self {
        self.0.limits.concurrent = Some(CountLimit { most, line: 11 });
        self
    }

    /// On each day, from one minute to another, in UTC.
    pub(crate) fn hours(mut self, from: u16, to: u16) -> Self {
        let span = Span { days: [true; 7], from, to, text: format!("{from}-{to}") };
        self.0.hours = Some(Hours { timezone: sentinel_engine::TimeZone::UTC, spans: vec![span], line: 12 });
        self
    }

    pub(crate) fn lax(mut self) -> Self {
        self.0.strict = false;
        self
    }

    /// Every action needs a human's word, until a criterion is set.
    pub(crate) fn approvals(mut self) -> Self {
        self.0.approvals = Some(Approvals {
            actions: BTreeMap::new(),
            tags: BTreeMap::new(),
            risk_levels: Vec::new(),
            from_cost: None,
            approvers: None,
            timeout: seconds(300),
            line: 13,
        });
        self
    }

    fn asks(&mut self) -> &mut Approvals {
        self.0.approvals.as_mut().unwrap()
    }

    pub(crate) fn approve_action(mut self, action: &str) -> Self {
        self.asks().actions.insert(name(action), 14);
        self
    }

    pub(crate) fn approve_tag(mut self, tag: &str) -> Self {
        self.asks().tags.insert(Tag::new(tag).unwrap(), 15);
        self
    }

    pub(crate) fn approve_risk(mut self, level: &str) -> Self {
        self.asks().risk_levels.push((RiskLevel::new(level).unwrap(), 16));
        self
    }

    pub(crate) fn approve_from(mut self, amount: &str) -> Self {
        self.asks().from_cost = limit(amount, 17);
        self
    }

    pub(crate) fn approvers(mut self, approvers: &[Approver]) -> Self {
        self.asks().approvers = Some(approvers.to_vec());
        self
    }

    pub(crate) fn risk(mut self, action: &str, level: &str) -> Self {
        self.rule(action).risk = Some(RiskLevel::new(level).unwrap());
        self
    }

    fn rule(&mut self, action: &str) -> &mut ActionRule {
        self.0.actions.entry(name(action)).or_default()
    }
}

/// The engine, what it decided so far, and the clock.
#[derive(Clone, Debug)]
pub(crate) struct World {
    pub(crate) policies: BTreeMap<SessionId, Arc<Policy>>,
    pub(crate) state: State,
    pub(crate) now: Now,
    pub(crate) facts: Vec<(Fact, Now)>,
    /// What the last event has led to outside.
    pub(crate) ordered: Vec<Effect>,
    /// What was taken out of `ordered`: since when its doors are open.
    pub(crate) openings: Vec<Opening>,
    next_action: u128,
}

impl World {
    /// A world with one living session under this policy.
    pub(crate) fn new(rules: &Rules) -> Self {
        let mut world = Self {
            policies: BTreeMap::new(),
            state: State::new(),
            now: Now { wall_micros: 1_700_000_000_000_000, elapsed: seconds(1_000) },
            facts: Vec::new(),
            ordered: Vec::new(),
            openings: Vec::new(),
            next_action: 1,
        };
        world.start_session(SESSION, None, rules);
        world
    }

    pub(crate) fn start_session(
        &mut self,
        session: SessionId,
        name: Option<&str>,
        rules: &Rules,
    ) -> Vec<Fact> {
        let name = name.map(|name| SessionName::new(name).unwrap());
        let known = name.as_ref().and_then(|name| self.state.session_named(name));
        self.policies.insert(known.unwrap_or(session), Arc::new(rules.0.clone()));
        self.step(Event::SessionStart {
            session,
            name,
            policy: "test".to_owned(),
            policy_sha256: "00".to_owned(),
            command: vec!["agent".to_owned()],
            uid: 1000,
            tier: "kill".to_owned(),
        })
    }

    pub(crate) fn end_session(&mut self, session: SessionId) -> Vec<Fact> {
        self.step(Event::SessionEnd { session, ending: SessionEnding::Exited })
    }

    /// Decides, keeps, applies, orders: as the authority does.
    pub(crate) fn step(&mut self, event: Event) -> Vec<Fact> {
        let policy = event.session(&self.state).and_then(|session| self.policies.get(&session));
        let facts = decide(policy.map(Arc::as_ref), &self.state, &event, self.now);
        for fact in &facts {
            self.state.apply(fact, self.now);
            self.facts.push((fact.clone(), self.now));
        }
        self.ordered = effects(&self.state, &self.policies, &facts, self.now);
        self.openings.clear();
        for effect in &mut self.ordered {
            if let Effect::SetDoors { openings, .. } = effect {
                self.openings.append(openings);
            }
        }
        facts
    }

    pub(crate) fn wait(&mut self, duration: Duration) {
        self.now.elapsed += duration;
        self.now.wall_micros += u64::try_from(duration.as_micros()).unwrap();
    }

    pub(crate) fn request(&mut self, action: &str, cost: &str) -> ActionRequest {
        let action_id = ActionId(Uuid::from_u128(self.next_action));
        self.next_action += 1;
        ActionRequest {
            action_id,
            session: SESSION,
            scope: SCOPE,
            action: name(action),
            cost: usd(cost),
            tags: Vec::new(),
            risk: None,
            needs_approval: false,
            approval_id: ApprovalId(Uuid::from_u128(self.next_action << 64)),
            inputs: Payload::null(),
            annotations: None,
            pid: 42,
        }
    }

    /// Asks for an action to start.
    pub(crate) fn ask(&mut self, request: ActionRequest) -> Result<ActionId, Denial> {
        match &self.step(Event::Begin(Box::new(request)))[..] {
            [Fact::ActionWarned { .. }, .., Fact::ActionStarted { action_id, .. }]
            | [Fact::ActionStarted { action_id, .. }] => Ok(*action_id),
            [Fact::ActionDenied { denial, .. }] => Err(denial.clone()),
            facts => panic!("a begin is decided by one fact, not by {facts:?}"),
        }
    }

    pub(crate) fn begin(&mut self, action: &str, cost: &str) -> Result<ActionId, Denial> {
        let request = self.request(action, cost);
        self.ask(request)
    }

    pub(crate) fn begin_in(&mut self, scope: ScopeId, action: &str) -> ActionId {
        let request = ActionRequest { scope, ..self.request(action, "0") };
        self.ask(request).unwrap()
    }

    pub(crate) fn end(&mut self, action_id: ActionId, outcome: Outcome, cost: Option<&str>) -> Vec<Fact> {
        let cost = cost.map(usd);
        self.step(Event::End {
            action_id,
            session: SESSION,
            outcome,
            cost,
            outputs: Payload::null(),
            annotations: None,
        })
    }

    /// An action that starts and at once succeeds.
    pub(crate) fn call(&mut self, action: &str, cost: &str) -> Result<(), Denial> {
        let action_id = self.begin(action, cost)?;
        self.end(action_id, Outcome::Success, None);
        Ok(())
    }

    pub(crate) fn abort(&mut self, action_id: ActionId) -> Vec<Fact> {
        self.step(Event::Abort { action_id, cause: "map `SCOPES` is full".to_owned() })
    }

    /// Asks for an action that needs a human's word.
    pub(crate) fn wish(&mut self, request: &ActionRequest) -> ApprovalId {
        match &self.step(Event::Begin(Box::new(request.clone())))[..] {
            [Fact::ApprovalRequested { wish }] => wish.approval_id,
            facts => panic!("no human is asked, but {facts:?}"),
        }
    }

    pub(crate) fn approve(&mut self, approval_id: ApprovalId) -> Vec<Fact> {
        self.step(approval(approval_id))
    }

    pub(crate) fn totals(&self) -> SessionTotals {
        self.state.totals(SESSION).unwrap()
    }

    /// Session and run total, reservations included.
    pub(crate) fn spent(&self) -> (String, String) {
        (self.totals().session.to_string(), self.totals().run.to_string())
    }
}

pub(crate) fn root() -> Operator {
    Operator { uid: 0, user: Some("root".to_owned()), groups: vec!["root".to_owned()] }
}

/// A human says yes, once.
pub(crate) fn approval(approval_id: ApprovalId) -> Event {
    Event::Approve { approval_id, operator: root(), note: None, uses: None, seconds: None, up_to: None }
}

/// Plays a script against a policy. Each line is an action with its cost, which starts and at once succeeds, or `reset`
/// or `wait SECONDS`; behind `=>` stands the answer: `allowed`, or the reason in short.
#[track_caller]
pub(crate) fn check(rules: &Rules, script: &str) {
    let mut world = World::new(rules);
    for line in script.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let (call, expected) = line.split_once("=>").unwrap_or((line, ""));
        let words: Vec<&str> = call.split_whitespace().collect();
        let answer = match words[..] {
            ["reset"] => {
                world.step(Event::RunReset { session: SESSION });
                String::new()
            }
            ["wait", time] => {
                world.wait(Duration::from_secs_f64(time.parse().unwrap()));
                String::new()
            }
            [action, cost] => match world.call(action, cost) {
                Ok(()) => "allowed".to_owned(),
                Err(denial) => in_short(&denial),
            },
            _ => panic!("`{line}` is no line of a script"),
        };
        assert_eq!(answer, expected.trim(), "after `{}`", call.trim());
    }
}

fn in_short(denial: &Denial) -> String {
    let rule = denial.rule.as_ref().map(|place| format!(" by {}", place.rule)).unwrap_or_default();
    let numbers = match &denial.reason {
        Reason::BudgetExceeded { spent, limit, .. } => format!(" {spent} > {limit}"),
        Reason::RateLimited { retry_after_ms: Some(wait), .. } => format!(" for {wait} ms"),
        Reason::RateLimited { retry_after_ms: None, .. } => " for ever".to_owned(),
        Reason::QuotaExceeded { quota, limit } => format!(" {limit} {quota}"),
        Reason::CallLimit { limit } | Reason::ConcurrencyLimit { limit } => format!(" {limit}"),
        Reason::OutsideHours { .. }
        | Reason::ApprovalRejected { .. }
        | Reason::ApprovalExpired { .. }
        | Reason::ApprovalCancelled { .. }
        | Reason::NoApprover
        | Reason::ApprovalNeeded
        | Reason::Paused
        | Reason::DeniedAction
        | Reason::NotInAllowlist { .. }
        | Reason::SessionEnded
        | Reason::LedgerUnavailable { .. }
        | Reason::EnforcementFailed { .. }
        | Reason::AgentUnavailable { .. }
        | Reason::InvalidRequest { .. } => String::new(),
    };
    format!("{}{numbers}{rule}", denial.reason.code())
}
