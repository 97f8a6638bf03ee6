//! What holds in every history.

use std::collections::BTreeMap;

use proptest::prelude::*;
use sentinel_engine::{Effect, Event, Fact, GrantSet, Now, Policy, ScopeId, State, decide, effects};
use sentinel_proto::{ActionId, ActionName, Money, Outcome, SessionId};

use crate::moves::{Move, Player, SESSIONS, begins, cents, histories, policies};
use crate::world::Rules;

/// Counts along with the engine, from the facts alone and in the plainest way.
#[derive(Default)]
struct Books {
    started: BTreeMap<ActionId, (SessionId, u64, ActionName, Money)>,
    session: BTreeMap<SessionId, Money>,
    run: BTreeMap<(SessionId, u64), Money>,
    action: BTreeMap<(SessionId, ActionName), Money>,
    overruns: BTreeMap<SessionId, Money>,
    /// What was interrupted: on which day it counts.
    interrupted: BTreeMap<ActionId, Option<String>>,
    day: BTreeMap<ActionId, String>,
    /// What was reserved for a day, or charged more or less than that by the same day's actions.
    days: BTreeMap<String, (Money, Money)>,
}

impl Books {
    fn write(&mut self, fact: &Fact) {
        match fact {
            Fact::ActionStarted { action_id, session, run, action, reserved, day, .. } => {
                if let Some(day) = day {
                    self.day.insert(*action_id, day.to_string());
                    add(&mut self.days.entry(day.to_string()).or_default().0, *reserved);
                }
                let entry = (*session, *run, action.clone(), *reserved);
                assert!(self.started.insert(*action_id, entry).is_none(), "an action starts once");
            }
            Fact::ActionEnded { action_id, session, run, action, charged, overrun, outcome, .. } => {
                let (.., reserved) =
                    self.started.remove(action_id).expect("what ends has started, and ends once");
                assert_eq!(*overrun, charged.saturating_sub(reserved));
                assert!(*outcome != Outcome::Aborted || *charged == Money::ZERO);
                let day = self.day.remove(action_id);
                if *outcome == Outcome::Interrupted {
                    self.interrupted.insert(*action_id, day.clone());
                }
                if let Some(day) = day {
                    let (total, overruns) = self.days.entry(day).or_default();
                    *total = total.saturating_sub(reserved).saturating_add(*charged);
                    add(overruns, *overrun);
                }
                add(self.session.entry(*session).or_default(), *charged);
                add(self.run.entry((*session, *run)).or_default(), *charged);
                add(self.action.entry((*session, action.clone())).or_default(), *charged);
                add(self.overruns.entry(*session).or_default(), *overrun);
            }
            Fact::ActionCorrected { action_id, session, run, action, before, charged, overrun, .. } => {
                let day = self.interrupted.remove(action_id).expect("what is corrected was interrupted");
                assert_eq!(*overrun, charged.saturating_sub(*before));
                let correct = |total: &mut Money| {
                    assert!(*total >= *before);
                    *total = total.saturating_sub(*before).saturating_add(*charged);
                };
                if let Some(day) = day {
                    let (total, overruns) = self.days.entry(day).or_default();
                    correct(total);
                    add(overruns, *overrun);
                }
                correct(self.session.entry(*session).or_default());
                correct(self.run.entry((*session, *run)).or_default());
                correct(self.action.entry((*session, action.clone())).or_default());
                add(self.overruns.entry(*session).or_default(), *overrun);
            }
            // A session without a name leaves nothing behind.
            Fact::SessionEnded { session, .. } if *session != SESSIONS[0] => {
                self.session.remove(session);
                self.overruns.remove(session);
                self.run.retain(|(of, _), _| of != session);
                self.action.retain(|(of, _), _| of != session);
            }
            Fact::SessionReset { session, .. } => {
                self.session.remove(session);
                self.action.retain(|(of, _), _| of != session);
            }
            Fact::ActionRecorded(_)
            | Fact::SessionEnded { .. }
            | Fact::AgentStarted { .. }
            | Fact::AgentStopped
            | Fact::SessionStarted { .. }
            | Fact::RunReset { .. }
            | Fact::ActionDenied { .. }
            | Fact::ActionWarned { .. }
            | Fact::ActionRegranted { .. }
            | Fact::ApprovalRequested { .. }
            | Fact::ApprovalGiven { .. }
            | Fact::ApprovalClosed { .. }
            | Fact::SessionPaused { .. }
            | Fact::SessionResumed { .. }
            | Fact::KillOrdered { .. }
            | Fact::PoliciesReloaded { .. }
            | Fact::PolicyChanged { .. }
            | Fact::Gap { .. }
            | Fact::KernelDenied { .. }
            | Fact::Examined { .. }
            | Fact::RecordsDropped { .. } => {}
        }
    }

    fn reserved(&self, which: impl Fn(&SessionId, &u64, &ActionName) -> bool) -> Money {
        let in_flight = self.started.values().filter(|(session, run, action, _)| which(session, run, action));
        in_flight.fold(Money::ZERO, |sum, (.., reserved)| sum.saturating_add(*reserved))
    }

    /// Compares with the engine's totals, and these with the budgets.
    fn check(&self, state: &State, policy: &Policy) {
        if let Some(limit) = policy.budgets.day {
            for (total, overruns) in self.days.values() {
                assert!(
                    *total <= limit.limit.amount.saturating_add(*overruns),
                    "{total} in a day of {limit:?}"
                );
            }
        }
        for session in SESSIONS {
            let Some(totals) = state.totals(session) else { continue };
            let of = |spent: Option<&Money>| spent.copied().unwrap_or_default();
            let session_total =
                of(self.session.get(&session)).saturating_add(self.reserved(|of, _, _| *of == session));
            let run = totals.run_number;
            let run_total = of(self.run.get(&(session, run)))
                .saturating_add(self.reserved(|of, in_run, _| *of == session && *in_run == run));
            assert_eq!((totals.session, totals.run), (session_total, run_total));

            let overruns = of(self.overruns.get(&session));
            let within = |total: Money, limit: Option<Money>| {
                assert!(
                    limit.is_none_or(|limit| total <= limit.saturating_add(overruns)),
                    "{total} of {limit:?}"
                );
            };
            within(totals.session, policy.budgets.session.map(|limit| limit.amount));
            within(totals.run, policy.budgets.run.map(|limit| limit.amount));
            for (action, limit) in &policy.budgets.actions {
                let reserved = self.reserved(|of, _, in_flight| *of == session && in_flight == action);
                let spent = of(self.action.get(&(session, action.clone())));
                within(spent.saturating_add(reserved), Some(limit.amount));
            }
        }
    }
}

fn add(sum: &mut Money, amount: Money) {
    *sum = sum.saturating_add(amount);
}

/// Policies that allow less than this one: each with one rule more, or one allowing rule less.
fn stricter(rules: &Rules, action: &ActionName) -> Vec<Rules> {
    let mut all = Vec::new();
    let mut with = |change: &dyn Fn(&mut Policy)| {
        let mut rules = rules.clone();
        change(&mut rules.0);
        all.push(rules);
    };
    with(&|policy| {
        policy.denied.insert(action.clone(), 1);
    });
    with(&|policy| {
        if let Some(allowed) = &mut policy.allowed {
            allowed.names.remove(action);
        }
    });
    with(&|policy| policy.allowed = Some(sentinel_engine::Allowlist { names: BTreeMap::new(), line: 1 }));
    with(&|policy| {
        // Where a human approved another cost, that is another action.
        if policy.approvals.is_none() {
            policy.actions.entry(action.clone()).or_default().cost_floor = cents(60);
        }
    });
    with(&|policy| policy.actions.entry(action.clone()).or_default().grant = None);
    with(&|policy| {
        policy.hours = Some(sentinel_engine::Hours {
            timezone: sentinel_engine::TimeZone::UTC,
            spans: Vec::new(),
            line: 1,
        })
    });
    with(&|policy| policy.limits.calls = Some(sentinel_engine::CountLimit { most: 0, line: 1 }));
    with(&|policy| {
        if let Some(day) = &mut policy.budgets.day {
            day.limit.amount = day.limit.amount.saturating_sub(cents(20));
        }
    });
    with(&|policy| {
        let limit =
            policy.budgets.session.get_or_insert(sentinel_engine::Limit { amount: Money::MAX, line: 1 });
        limit.amount = limit.amount.saturating_sub(cents(20));
    });
    with(&|policy| {
        let limit =
            policy.budgets.run.get_or_insert_with(|| sentinel_engine::Limit { amount: cents(50), line: 1 });
        limit.amount = limit.amount.min(cents(50));
    });
    with(&|policy| {
        if let Some(rate) = policy.rates.get_mut(action) {
            rate.max_count = rate.max_count.saturating_sub(1);
        }
    });
    with(&|policy| {
        if let Some(rate) = policy.rates.get_mut(action) {
            rate.window *= 2;
        }
    });
    all
}

fn is_allowed(rules: &Rules, state: &State, event: &Event, now: Now) -> bool {
    matches!(decide(Some(&rules.0), state, event, now)[..], [Fact::ActionStarted { .. }])
}

/// A world after a history, and one more request there.
fn scenes() -> impl Strategy<Value = (Player, Event)> {
    (policies(), histories(), begins()).prop_map(|(rules, history, last)| {
        let mut player = Player::new(&rules);
        history.iter().for_each(|step| player.play(step));
        let Move::Begin { session, action, scope, cents } = last else { unreachable!("begins only begin") };
        let request = player.request(session, action, scope, cents);
        (player, Event::Begin(Box::new(request)))
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(10_000))]

    #[test]
    fn what_is_spent_and_reserved_exceeds_a_budget_only_by_recorded_overruns(
        rules in policies(), history in histories(),
    ) {
        let mut player = Player::new(&rules);
        let (mut books, mut written) = (Books::default(), 0);
        for step in &history {
            player.play(step);
            player.world.facts[written..].iter().for_each(|(fact, _)| books.write(fact));
            written = player.world.facts.len();
            books.check(&player.world.state, &rules.0);
        }
    }

    #[test]
    fn a_denial_changes_nothing_but_its_counter((mut player, event) in scenes()) {
        let before = player.world.clone();
        let Event::Begin(request) = &event else { unreachable!("a scene ends with a begin") };
        let session = request.session;
        if let [fact @ Fact::ActionDenied { .. }] = &player.world.step(event.clone())[..] {
            let after = &player.world;
            let mut totals = after.state.totals(session).unwrap();
            totals.counters.denied -= 1;
            prop_assert_eq!(Some(totals), before.state.totals(session));
            prop_assert_eq!(&after.ordered, &[], "nothing is opened or shut");
            // Whatever is decided afterwards is decided as if nobody had asked.
            for action in ["cheap", "dear", "other"] {
                let mut next = player.world.request(action, "0.1");
                next.session = session;
                let next = Event::Begin(Box::new(next));
                let policy = Some(&player.rules.0);
                let now = player.world.now;
                prop_assert_eq!(
                    decide(policy, &player.world.state, &next, now),
                    decide(policy, &before.state, &next, now),
                    "after {:?}", fact
                );
            }
        }
    }

    #[test]
    fn an_action_that_never_ran_leaves_the_state_as_it_was((mut player, event) in scenes()) {
        let before = player.world.state.clone();
        if let [Fact::ActionStarted { action_id, .. }] = player.world.step(event)[..] {
            prop_assert_ne!(&player.world.state, &before);
            player.world.abort(action_id);
            prop_assert_eq!(&player.world.state, &before);
        }
    }

    #[test]
    fn a_stricter_policy_never_allows_more((player, event) in scenes()) {
        let Event::Begin(request) = &event else { unreachable!("a scene ends with a begin") };
        let (state, now) = (&player.world.state, player.world.now);
        let allowed = is_allowed(&player.rules, state, &event, now);
        for stricter in stricter(&player.rules, &request.action) {
            prop_assert!(allowed || !is_allowed(&stricter, state, &event, now), "{:?}", stricter);
        }
    }

    #[test]
    fn a_dearer_call_is_never_allowed_where_a_cheaper_one_is_not((player, event) in scenes()) {
        let Event::Begin(request) = &event else { unreachable!("a scene ends with a begin") };
        let mut dearer = request.clone();
        dearer.cost = dearer.cost.saturating_add(cents(10));
        let (state, now) = (&player.world.state, player.world.now);
        let allowed = is_allowed(&player.rules, state, &event, now);
        // What a human approved is the dearer call and no other.
        let is_approved = player.rules.0.approvals.is_some();
        prop_assert!(allowed || is_approved || !is_allowed(&player.rules, state, &Event::Begin(dearer), now));
    }

    #[test]
    fn a_clock_that_goes_backwards_never_allows_more((player, event) in scenes(), back in 0..60_000_u64) {
        let (state, now) = (&player.world.state, player.world.now);
        let back = std::time::Duration::from_millis(back);
        let earlier = Now {
            elapsed: now.elapsed.saturating_sub(back),
            // The wall clock farther still: to an earlier day.
            wall_micros: now.wall_micros.saturating_sub(u64::try_from(back.as_micros()).unwrap() * 10_000),
        };
        // What a human gave for a time is measured by a clock that never goes back; all else holds by any.
        let is_timeless = player.rules.0.approvals.is_none();
        let allowed = is_allowed(&player.rules, state, &event, now);
        prop_assert!(allowed || !is_timeless || !is_allowed(&player.rules, state, &event, earlier));
    }

    #[test]
    fn the_same_question_has_the_same_answer((player, event) in scenes()) {
        let (state, now) = (&player.world.state, player.world.now);
        let answer = decide(Some(&player.rules.0), state, &event, now);
        prop_assert_eq!(decide(Some(&player.rules.0), state, &event, now), answer.clone());
        prop_assert!(answer.len() <= 1, "a begin has one answer, or waits for one");
        if player.rules.0.budgets.day.is_none() {
            let later_by_the_wall = Now { wall_micros: now.wall_micros + 86_400_000_000, ..now };
            prop_assert_eq!(decide(Some(&player.rules.0), state, &event, later_by_the_wall), answer);
        }
    }

    #[test]
    fn the_fold_of_the_facts_is_the_live_state(rules in policies(), history in histories()) {
        let mut player = Player::new(&rules);
        history.iter().for_each(|step| player.play(step));
        let mut folded = State::new();
        for (fact, at) in &player.world.facts {
            folded.apply(fact, *at);
        }
        prop_assert_eq!(folded, player.world.state);
    }

    #[test]
    fn facts_in_any_order_and_number_are_folded_without_harm(
        rules in policies(), history in histories(), order in prop::collection::vec(any::<prop::sample::Index>(), 1..100),
    ) {
        let mut player = Player::new(&rules);
        history.iter().for_each(|step| player.play(step));
        let facts = &player.world.facts;
        let mut folded = State::new();
        for index in order {
            let (fact, at) = &facts[index.index(facts.len())];
            folded.apply(fact, *at);
        }
        let _orders = effects(&folded, &player.world.policies, &[], player.world.now);
    }

    #[test]
    fn the_doors_that_were_ordered_are_those_of_the_actions_in_flight(
        rules in policies(), history in histories(),
    ) {
        let mut player = Player::new(&rules);
        let mut open: BTreeMap<ScopeId, GrantSet> = BTreeMap::new();
        let mut baseline: BTreeMap<SessionId, bool> = BTreeMap::new();
        let mut frozen: BTreeMap<SessionId, bool> = BTreeMap::new();
        for step in &history {
            player.world.ordered.clear();
            let known = player.world.facts.len();
            player.play(step);
            let facts: Vec<Fact> = player.world.facts[known..].iter().map(|(fact, _)| fact.clone()).collect();
            for fact in &facts {
                if let Fact::SessionEnded { session, .. } = fact {
                    frozen.remove(session);
                    baseline.remove(session);
                }
            }
            for effect in effects(&player.world.state, &player.world.policies, &facts, player.world.now) {
                match effect {
                    Effect::SetDoors { scope, open: doors, .. } => { open.insert(scope, doors); }
                    Effect::SetBaselineNetwork { session, open } => { baseline.insert(session, open); }
                    Effect::SetFrozen { session, frozen: is_frozen } => { frozen.insert(session, is_frozen); }
                }
            }
            let state = &player.world.state;
            for (scope, doors) in &open {
                let in_flight = state.actions_of_scope(*scope).filter(|(_, one)| !state.is_paused(one.session));
                let expected = in_flight.fold(GrantSet::EMPTY, |all, (_, one)| all.union(one.grants));
                prop_assert_eq!(*doors, expected);
            }
            for (session, is_open) in baseline.iter().filter(|(session, _)| state.is_alive(**session)) {
                let is_shut = state.is_exhausted(*session, &rules.0, player.world.now) || state.is_paused(*session);
                prop_assert_eq!(*is_open, !is_shut);
            }
            for (session, is_frozen) in frozen.iter().filter(|(session, _)| state.is_alive(**session)) {
                prop_assert_eq!(*is_frozen, state.is_paused(*session));
            }
            let deadlines = SESSIONS.iter().flat_map(|session| (1..4).map(|scope| ScopeId(u64::from(session.0) * 10 + scope)));
            let earliest = deadlines.flat_map(|scope| state.actions_of_scope(scope)).map(|(_, action)| action.deadline).min();
            let earliest_approval = state.approvals().map(|approval| approval.deadline).min();
            prop_assert_eq!(state.next_deadline(), earliest.into_iter().chain(earliest_approval).min());
        }
    }
}
