//! Whether an action may start: deny list, allow list, hours, quotas and counts, rate, budgets, a human's word, in this order.
//!
//! Invariant (check all, then charge all): nothing is reserved, no rate slot and no approval is taken, unless every check passes.

use chrono::NaiveDate;
use sentinel_proto::app::MAX_TAGS;
use sentinel_proto::{ActionName, BudgetScope, Denial, Money, Reason, RulePlace, Tag};

use crate::approval::{Bound, MAX_APPROVALS, Standing, Wish};
use crate::budget::Total;
use crate::rate::Starts;
use crate::state::Session;
use crate::{ActionRequest, ActionRule, Approvals, CountLimit, Fact, GrantSet, Limit, Now, Policy, State};

/// Actions of one session in flight at once.
pub const MAX_IN_FLIGHT: u64 = 1024;
/// Distinct action names that a session may use.
pub const MAX_ACTION_NAMES: u64 = 10_000;

/// A denial names no more of the allowed actions than this: it goes over the wire and into the ledger each time.
const MOST_NAMES_TOLD: usize = 100;

/// The least that an action is charged.
pub(crate) fn floor(rule: Option<&ActionRule>) -> Money {
    rule.map_or(Money::ZERO, |rule| rule.cost_floor)
}

/// A request with what the policy says of its action.
pub(crate) struct Asked<'a> {
    request: &'a ActionRequest,
    rule: Option<&'a ActionRule>,
    cost: Money,
    tags: Vec<Tag>,
    grants: GrantSet,
}

impl<'a> Asked<'a> {
    pub(crate) fn new(policy: Option<&'a Policy>, request: &'a ActionRequest) -> Self {
        let rule = policy.and_then(|policy| policy.actions.get(&request.action));
        Self {
            request,
            rule,
            cost: request.cost.max(floor(rule)),
            tags: all_tags(rule, &request.tags),
            grants: grants(rule),
        }
    }

    pub(crate) fn cost(&self) -> Money {
        self.cost
    }

    pub(crate) fn bound(&self) -> Bound<'_> {
        Bound {
            action: &self.request.action,
            cost: self.cost,
            tags: &self.tags,
            // What the policy says stands in the policy, to which an approval is bound anyway.
            risk: self.request.risk.as_ref(),
            grants: self.grants,
            inputs: &self.request.inputs,
        }
    }
}

/// What an action with this rule opens.
pub(crate) fn grants(rule: Option<&ActionRule>) -> GrantSet {
    rule.and_then(|rule| rule.grant).map_or(GrantSet::EMPTY, GrantSet::of)
}

/// What became of the checks.
enum Verdict {
    Start {
        /// Rules that it breaks under a policy that isn't strict.
        warnings: Vec<Denial>,
        approval: Option<sentinel_proto::ApprovalId>,
    },
    Ask(RulePlace, String),
    /// It waits for a human's word already.
    Wait,
    Deny(Denial),
}

/// Lets an action start, or not, or asks a human. Without a policy or a living session it may not start.
pub(crate) fn begin(policy: Option<&Policy>, state: &State, request: &ActionRequest, now: Now) -> Vec<Fact> {
    let asked = Asked::new(policy, request);
    let session = state.sessions.get(&request.session).filter(|session| session.alive);
    let run = session.map_or(0, |session| session.run);
    let verdict = match (policy, session) {
        (Some(_), Some(_)) if state.in_flight(request.action_id).is_some() => {
            Verdict::Deny(invalid(format!("the action id {} is in use", request.action_id)))
        }
        (Some(policy), Some(session)) => Check { policy, state, session, asked: &asked, now }.verdict(),
        (None, _) | (_, None) => Verdict::Deny(Denial { reason: Reason::SessionEnded, rule: None }),
    };
    let Asked { cost, tags, rule, grants, .. } = asked;
    let &ActionRequest { action_id, session, scope, pid, approval_id, .. } = request;
    // Each that is not needed is made in vain: names are shared, and texts taken once.
    let ActionRequest { action, inputs, annotations, risk, .. } = request;
    let (action, inputs, annotations) = (action.clone(), inputs.clone(), annotations.clone());
    match verdict {
        Verdict::Start { warnings, approval } => {
            let day = policy.and_then(|policy| day_of(policy, state, session, now));
            let warned = warnings.into_iter().map(|denial| Fact::ActionWarned {
                action_id,
                session,
                run,
                action: action.clone(),
                cost,
                denial,
                pid,
            });
            let mut facts: Vec<Fact> = warned.collect();
            facts.push(Fact::ActionStarted {
                action_id,
                session,
                run,
                scope,
                action: action.clone(),
                reserved: cost,
                tags,
                grants,
                max_seconds: rule.map_or_else(|| ActionRule::default().max_seconds, |rule| rule.max_seconds),
                day,
                approval,
                inputs,
                inputs_sha256: None,
                annotations,
                pid,
            });
            facts
        }
        Verdict::Ask(place, digest) => {
            let rules = policy.and_then(|policy| policy.approvals.as_ref());
            let timeout = rules.map_or(Approvals::DEFAULT_TIMEOUT, |rules| rules.timeout);
            let risk = rule.and_then(|rule| rule.risk.clone()).or_else(|| risk.clone());
            vec![Fact::ApprovalRequested {
                wish: Box::new(Wish {
                    approval_id,
                    session,
                    run,
                    action,
                    cost,
                    tags,
                    risk,
                    grants,
                    digest,
                    timeout_seconds: timeout.as_secs(),
                    inputs,
                    pid,
                    rule: place,
                }),
            }]
        }
        Verdict::Wait => Vec::new(),
        Verdict::Deny(denial) => {
            vec![Fact::ActionDenied {
                action_id,
                session,
                run,
                action,
                cost,
                tags,
                denial,
                inputs,
                annotations,
                pid,
            }]
        }
    }
}

/// Keeps an action from starting, whatever the policy says.
pub(crate) fn refuse(state: &State, request: &ActionRequest, denial: &Denial) -> Fact {
    Fact::ActionDenied {
        action_id: request.action_id,
        session: request.session,
        run: state.run_of(request.session).unwrap_or(0),
        action: request.action.clone(),
        cost: request.cost,
        tags: all_tags(None, &request.tags),
        denial: denial.clone(),
        inputs: request.inputs.clone(),
        annotations: request.annotations.clone(),
        pid: request.pid,
    }
}

/// The policy's tags first, then the application's own.
fn all_tags(rule: Option<&ActionRule>, declared: &[Tag]) -> Vec<Tag> {
    let mut tags = rule.map(|rule| rule.tags.clone()).unwrap_or_default();
    for tag in declared {
        if !tags.contains(tag) {
            tags.push(tag.clone());
        }
    }
    tags
}

/// The day to which a start counts, if days do; never an earlier one than before, whatever the clock says.
fn day_of(policy: &Policy, state: &State, session: sentinel_proto::SessionId, now: Now) -> Option<NaiveDate> {
    let today = policy.budgets.day?.timezone.day(now)?;
    Some(state.day_of(session).map_or(today, |(latest, _)| latest.max(today)))
}

fn denied(reason: Reason, rule: String, line: u32) -> Denial {
    Denial { reason, rule: Some(RulePlace { rule, line }) }
}

/// How the rule about an action is called; made for a denial alone.
type RuleName = fn(&ActionName) -> String;

fn invalid(cause: String) -> Denial {
    Denial { reason: Reason::InvalidRequest { cause }, rule: None }
}

/// All that a request is checked against.
struct Check<'a> {
    policy: &'a Policy,
    state: &'a State,
    session: &'a Session,
    asked: &'a Asked<'a>,
    now: Now,
}

impl Check<'_> {
    fn verdict(&self) -> Verdict {
        if let Err(denial) = self.always() {
            return Verdict::Deny(denial);
        }
        let mut warnings = Vec::new();
        let checks =
            [Self::allow_list, Self::hours, Self::calls, Self::concurrency, Self::rate, Self::budgets];
        for check in checks {
            match check(self) {
                Ok(()) => {}
                Err(denial) if self.policy.strict => return Verdict::Deny(denial),
                Err(denial) => warnings.push(denial),
            }
        }
        if let Err(denial) = self.largest_sum() {
            return Verdict::Deny(denial);
        }
        self.approval(warnings)
    }

    fn action(&self) -> &ActionName {
        &self.asked.request.action
    }

    /// What stops an action under any policy.
    fn always(&self) -> Result<(), Denial> {
        let tags = self.asked.request.tags.len();
        if tags > MAX_TAGS {
            return Err(invalid(format!("{tags} tags; at most {MAX_TAGS} are allowed")));
        }
        if let Some(line) = self.policy.denied.get(self.action()) {
            return Err(denied(Reason::DeniedAction, "denied_actions".to_owned(), *line));
        }
        if self.session.paused {
            return Err(Denial { reason: Reason::Paused, rule: None });
        }
        let exceeded = |quota: &str, limit| {
            Err(Denial { reason: Reason::QuotaExceeded { quota: quota.to_owned(), limit }, rule: None })
        };
        if self.session.in_flight >= MAX_IN_FLIGHT {
            return exceeded("actions in flight", MAX_IN_FLIGHT);
        }
        let names = u64::try_from(self.session.actions.len()).unwrap_or(u64::MAX);
        if names >= MAX_ACTION_NAMES && !self.session.actions.contains_key(self.action()) {
            return exceeded("distinct action names", MAX_ACTION_NAMES);
        }
        Ok(())
    }

    fn allow_list(&self) -> Result<(), Denial> {
        let Some(allowed) = &self.policy.allowed else { return Ok(()) };
        if allowed.names.contains_key(self.action()) {
            return Ok(());
        }
        let names = allowed.names.keys().take(MOST_NAMES_TOLD).cloned().collect();
        Err(denied(Reason::NotInAllowlist { allowed: names }, "allowed_actions".to_owned(), allowed.line))
    }

    fn hours(&self) -> Result<(), Denial> {
        let of_action = self.asked.rule.and_then(|rule| rule.hours.as_ref());
        let all: [(_, RuleName); 2] = [
            (self.policy.hours.as_ref(), |_| "hours".to_owned()),
            (of_action, |action| format!("actions.{action}.hours")),
        ];
        for (hours, rule) in all {
            if let Some(hours) = hours.filter(|hours| !hours.contain(self.now)) {
                let reason = Reason::OutsideHours { allowed: hours.to_string() };
                return Err(denied(reason, rule(self.action()), hours.line));
            }
        }
        Ok(())
    }

    fn calls(&self) -> Result<(), Denial> {
        let of_action = self.session.actions.get(self.action()).map_or(0, |of_action| of_action.count);
        let limits = self.asked.rule.map(|rule| rule.limits).unwrap_or_default();
        self.count(
            [
                (self.policy.limits.calls, self.session.counters.allowed, |_| "limits.max_calls".to_owned()),
                (limits.calls, of_action, |action| format!("actions.{action}.max_calls")),
            ],
            |limit| Reason::CallLimit { limit },
        )
    }

    fn concurrency(&self) -> Result<(), Denial> {
        let of_action = self.session.actions.get(self.action()).map_or(0, |of_action| of_action.in_flight);
        let limits = self.asked.rule.map(|rule| rule.limits).unwrap_or_default();
        self.count(
            [
                (self.policy.limits.concurrent, self.session.in_flight, |_| {
                    "limits.max_concurrent".to_owned()
                }),
                (limits.concurrent, of_action, |action| format!("actions.{action}.max_concurrent")),
            ],
            |limit| Reason::ConcurrencyLimit { limit },
        )
    }

    fn count(
        &self,
        counts: [(Option<CountLimit>, u64, RuleName); 2],
        reason: impl Fn(u64) -> Reason,
    ) -> Result<(), Denial> {
        for (limit, count, rule) in counts {
            if let Some(limit) = limit.filter(|limit| count >= limit.most) {
                return Err(denied(reason(limit.most), rule(self.action()), limit.line));
            }
        }
        Ok(())
    }

    fn rate(&self) -> Result<(), Denial> {
        let action = self.action();
        let Some(limit) = self.policy.rates.get(action) else { return Ok(()) };
        let never_started = Starts::default();
        let starts = self.session.actions.get(action).map_or(&never_started, |of_action| &of_action.starts);
        let elapsed = self.now.elapsed;
        if starts.within(limit.window, elapsed) < limit.max_count {
            return Ok(());
        }
        let wait = starts.wait(limit.max_count, limit.window, elapsed);
        let reason = Reason::RateLimited {
            max_count: limit.max_count,
            window_seconds: limit.window.as_secs(),
            // Rounded up, so that whoever waits so long is not refused again.
            retry_after_ms: wait
                .map(|wait| u64::try_from(wait.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)),
        };
        Err(denied(reason, format!("rate_limits.{action}"), limit.line))
    }

    fn budgets(&self) -> Result<(), Denial> {
        let Self { policy, session, .. } = self;
        let (action, budgets) = (self.action(), &policy.budgets);
        let of_action = session.actions.get(action).map(|of_action| of_action.total).unwrap_or_default();
        let day = budgets.day.map(|day| day.limit);
        let scopes: [(BudgetScope, Option<Limit>, Total, RuleName); 4] = [
            (BudgetScope::Session, budgets.session, session.session_total, |_| "budgets.session".to_owned()),
            (BudgetScope::Run, budgets.run, session.run_total, |_| "budgets.run".to_owned()),
            (BudgetScope::Day, day, self.day_total()?, |_| "budgets.day".to_owned()),
            (BudgetScope::Action, budgets.actions.get(action).copied(), of_action, |action| {
                format!("budgets.actions.{action}")
            }),
        ];
        for (budget, limit, total, rule) in scopes {
            let Some(limit) = limit else { continue };
            let would_be = total.with(self.asked.cost);
            if would_be.is_none_or(|sum| sum > limit.amount) {
                let spent = would_be.unwrap_or(Money::MAX);
                return Err(denied(
                    Reason::BudgetExceeded { budget, spent, limit: limit.amount },
                    rule(action),
                    limit.line,
                ));
            }
        }
        Ok(())
    }

    /// What was spent today by all sessions under this policy.
    fn day_total(&self) -> Result<Total, Denial> {
        let Some(day) = self.policy.budgets.day else { return Ok(Total::default()) };
        let Some(today) = day.timezone.day(self.now) else {
            return Err(invalid("which day it is can't be told".to_owned()));
        };
        let latest = self.state.day_of(self.asked.request.session);
        Ok(latest.filter(|(latest, _)| *latest >= today).map(|(_, total)| total).unwrap_or_default())
    }

    /// Without a limit there still is a largest sum: an overflow is too much.
    fn largest_sum(&self) -> Result<(), Denial> {
        let cost = self.asked.cost;
        if self.session.session_total.with(cost).is_none() || self.session.run_total.with(cost).is_none() {
            return Err(invalid(format!("the session's total would exceed {} dollars", Money::MAX)));
        }
        Ok(())
    }

    fn approval(&self, warnings: Vec<Denial>) -> Verdict {
        let Asked { request, rule, cost, tags, .. } = self.asked;
        let risks: Vec<_> =
            [rule.and_then(|rule| rule.risk.as_ref()), request.risk.as_ref()].into_iter().flatten().collect();
        let approvals = self.policy.approvals.as_ref();
        let by_policy =
            approvals.and_then(|approvals| approvals.rule_for(&request.action, *cost, tags, &risks));
        let by_itself = || RulePlace { rule: "needs_approval".to_owned(), line: 0 };
        let Some(place) = by_policy.or_else(|| request.needs_approval.then(by_itself)) else {
            return Verdict::Start { warnings, approval: None };
        };
        let digest = self.asked.bound().digest(self.session, request.session);
        match self.state.standing(request.session, &digest, *cost, self.now) {
            Standing::Approved(id) => Verdict::Start { warnings, approval: Some(id) },
            Standing::Waiting(_) => Verdict::Wait,
            Standing::Unasked if approvals.is_some_and(Approvals::has_no_approver) => {
                Verdict::Deny(Denial { reason: Reason::NoApprover, rule: Some(place) })
            }
            Standing::Unasked if self.state.approvals_of(request.session) >= MAX_APPROVALS => {
                let reason = Reason::QuotaExceeded { quota: "approvals".to_owned(), limit: MAX_APPROVALS };
                Verdict::Deny(Denial { reason, rule: Some(place) })
            }
            Standing::Unasked => Verdict::Ask(place, digest),
        }
    }
}
