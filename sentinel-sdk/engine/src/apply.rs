//! Folds a fact into the state. Total: a fact about what is unknown changes nothing.

use std::collections::BTreeMap;
use std::time::Duration;

use chrono::NaiveDate;
use sentinel_proto::{ActionId, ApprovalId, Money, Outcome};

use crate::budget::Total;
use crate::rate::Starts;
use crate::state::{ActionTotal, InFlight, Session};
use crate::{Approval, Fact, MAX_IN_FLIGHT, Now, Permit, State};

/// A day's total is kept until so many days have one: a reservation of yesterday is settled there.
const DAYS_KEPT: usize = 2;

/// Changes what the sessions of a policy have spent on a day. Days on which they have spent nothing are not kept.
fn change_day(
    days: &mut BTreeMap<String, BTreeMap<NaiveDate, Total>>,
    policy: &str,
    day: NaiveDate,
    change: impl FnOnce(&mut Total),
) {
    let of_policy = days.entry(policy.to_owned()).or_default();
    let total = of_policy.entry(day).or_default();
    change(total);
    if *total == Total::default() {
        of_policy.remove(&day);
    }
    while of_policy.len() > DAYS_KEPT {
        of_policy.pop_first();
    }
    if of_policy.is_empty() {
        days.remove(policy);
    }
}

impl State {
    /// Folds one fact, which happened at that time.
    pub fn apply(&mut self, fact: &Fact, at: Now) {
        match fact {
            Fact::AgentStarted { .. } => self.interrupted.retain(|_, action| at.elapsed < action.deadline),
            Fact::AgentStopped
            | Fact::Examined { .. }
            | Fact::RecordsDropped { .. }
            | Fact::KillOrdered { .. }
            | Fact::PoliciesReloaded { .. }
            | Fact::Gap { .. }
            | Fact::ActionWarned { .. }
            | Fact::ActionRecorded(_) => {}
            Fact::SessionReset { session, .. } => self.reset(*session),
            Fact::SessionStarted { session, name, policy, policy_sha256, uid, .. } => {
                self.last_session = self.last_session.max(session.0);
                if let Some(name) = name {
                    self.names.insert(name.clone(), *session);
                }
                let entry =
                    self.sessions.entry(*session).or_insert_with(|| Session { run: 1, ..Session::default() });
                if name.is_some() {
                    entry.name.clone_from(name);
                }
                entry.alive = true;
                entry.paused = false;
                if entry.policy_sha256 != *policy_sha256 {
                    entry.generation = entry.generation.saturating_add(1);
                }
                entry.policy.clone_from(policy);
                entry.policy_sha256.clone_from(policy_sha256);
                entry.uid = *uid;
            }
            Fact::SessionEnded { session, .. } => {
                self.interrupted.retain(|_, action| action.session != *session);
                let Some(entry) = self.sessions.get_mut(session) else { return };
                entry.alive = false;
                entry.paused = false;
                if entry.name.is_none() {
                    self.sessions.remove(session);
                }
            }
            Fact::RunReset { session, run } => {
                let Some(entry) = self.sessions.get_mut(session) else { return };
                entry.run = *run;
                entry.run_total = Total::default();
            }
            Fact::ActionStarted { .. } => self.start(fact, at),
            Fact::ActionDenied { session, .. } => {
                let Some(entry) = self.sessions.get_mut(session) else { return };
                entry.counters.denied = entry.counters.denied.saturating_add(1);
            }
            Fact::ActionEnded { .. } => self.end(fact, at),
            Fact::ActionCorrected { action_id, charged, .. } => self.correct(*action_id, *charged),
            Fact::ActionRegranted { action_id, grants, .. } => {
                let Some(action) = self.actions.get_mut(action_id) else { return };
                action.grants = *grants;
            }
            Fact::ApprovalRequested { wish } => {
                let deadline = at.elapsed.saturating_add(Duration::from_secs(wish.timeout_seconds));
                let approval = Approval { wish: (**wish).clone(), deadline, permit: None };
                self.approvals.entry(wish.approval_id).or_insert(approval);
            }
            Fact::ApprovalGiven { approval_id, uses, seconds, up_to, .. } => {
                let Some(approval) = self.approvals.get_mut(approval_id) else { return };
                approval.permit = Some(Permit { uses_left: *uses, left: *up_to });
                approval.deadline = at.elapsed.saturating_add(Duration::from_secs(*seconds));
            }
            Fact::ApprovalClosed { approval_id, .. } => {
                self.approvals.remove(approval_id);
            }
            Fact::SessionPaused { session, .. } => self.pause(*session, true),
            Fact::SessionResumed { session, .. } => self.pause(*session, false),
            Fact::PolicyChanged { session, policy, policy_sha256, generation } => {
                let Some(entry) = self.sessions.get_mut(session) else { return };
                entry.policy.clone_from(policy);
                entry.policy_sha256.clone_from(policy_sha256);
                entry.generation = *generation;
            }
            Fact::KernelDenied { session, count, .. } => {
                let Some(entry) = self.sessions.get_mut(session) else { return };
                entry.counters.kernel_denials = entry.counters.kernel_denials.saturating_add(*count);
            }
        }
    }

    /// Forgets what was spent and started. What is in flight stays reserved, and counts when it is settled.
    fn reset(&mut self, session: sentinel_proto::SessionId) {
        let Some(entry) = self.sessions.get_mut(&session) else { return };
        entry.run = entry.run.saturating_add(1);
        entry.session_total.spent = Money::ZERO;
        entry.run_total = Total::default();
        for of_action in entry.actions.values_mut() {
            of_action.total.spent = Money::ZERO;
            of_action.count = of_action.in_flight;
            of_action.starts = Starts::default();
        }
        entry.actions.retain(|_, of_action| of_action.in_flight > 0);
        self.interrupted.retain(|_, action| action.session != session);
    }

    fn pause(&mut self, session: sentinel_proto::SessionId, paused: bool) {
        if let Some(entry) = self.sessions.get_mut(&session) {
            entry.paused = paused;
        }
    }

    fn start(&mut self, fact: &Fact, at: Now) {
        let Fact::ActionStarted {
            action_id,
            session,
            run,
            scope,
            action,
            reserved,
            tags,
            grants,
            max_seconds,
            day,
            approval,
            ..
        } = fact
        else {
            return;
        };
        let Some(entry) = self.sessions.get_mut(session) else { return };
        if self.actions.contains_key(action_id) {
            return;
        }
        entry.session_total.reserve(*reserved);
        if entry.run == *run {
            entry.run_total.reserve(*reserved);
        }
        let of_action = entry.actions.entry(action.clone()).or_default();
        of_action.total.reserve(*reserved);
        of_action.count = of_action.count.saturating_add(1);
        of_action.in_flight = of_action.in_flight.saturating_add(1);
        let slot = of_action.starts.add(at.elapsed);
        entry.in_flight = entry.in_flight.saturating_add(1);
        entry.counters.allowed = entry.counters.allowed.saturating_add(1);
        if let Some(day) = day {
            change_day(&mut self.days, &entry.policy, *day, |total| total.reserve(*reserved));
        }
        if let Some(permit) =
            approval.and_then(|id| self.approvals.get_mut(&id)).and_then(|approval| approval.permit.as_mut())
        {
            permit.uses_left = permit.uses_left.saturating_sub(1);
            permit.left = permit.left.map(|left| left.saturating_sub(*reserved));
        }
        self.actions.insert(
            *action_id,
            InFlight {
                session: *session,
                run: *run,
                scope: *scope,
                action: action.clone(),
                reserved: *reserved,
                tags: tags.clone(),
                grants: *grants,
                started: at.elapsed,
                slot,
                deadline: at.elapsed.saturating_add(Duration::from_secs(*max_seconds)),
                day: *day,
                approval: *approval,
            },
        );
    }

    fn end(&mut self, fact: &Fact, at: Now) {
        let Fact::ActionEnded { action_id, outcome, charged, .. } = fact else { return };
        let Some(ended) = self.actions.remove(action_id) else { return };
        let Some(entry) = self.sessions.get_mut(&ended.session) else { return };
        entry.session_total.settle(ended.reserved, *charged);
        if entry.run == ended.run {
            entry.run_total.settle(ended.reserved, *charged);
        }
        entry.in_flight = entry.in_flight.saturating_sub(1);
        if let Some(day) = ended.day {
            let settle = |total: &mut Total| total.settle(ended.reserved, *charged);
            change_day(&mut self.days, &entry.policy, day, settle);
        }
        let Some(of_action) = entry.actions.get_mut(&ended.action) else { return };
        of_action.total.settle(ended.reserved, *charged);
        of_action.in_flight = of_action.in_flight.saturating_sub(1);
        if *outcome == Outcome::Aborted {
            of_action.count = of_action.count.saturating_sub(1);
            of_action.starts.remove(ended.slot);
            if *of_action == ActionTotal::default() {
                entry.actions.remove(&ended.action);
            }
            entry.counters.allowed = entry.counters.allowed.saturating_sub(1);
        }
        if let Some(id) = ended.approval {
            self.end_approved(id, *outcome, ended.reserved, at);
        }
        if *outcome == Outcome::Interrupted {
            self.keep_interrupted(*action_id, ended);
        }
    }

    /// Keeps what its application may still correct: of one session no more than can be in flight.
    fn keep_interrupted(&mut self, action_id: ActionId, action: InFlight) {
        let known = self.interrupted.values().filter(|other| other.session == action.session).count();
        if u64::try_from(known).is_ok_and(|known| known < MAX_IN_FLIGHT) {
            self.interrupted.insert(action_id, action);
        }
    }

    fn correct(&mut self, action_id: ActionId, charged: Money) {
        let Some(action) = self.interrupted.remove(&action_id) else { return };
        let Some(entry) = self.sessions.get_mut(&action.session) else { return };
        entry.session_total.correct(action.reserved, charged);
        if entry.run == action.run {
            entry.run_total.correct(action.reserved, charged);
        }
        if let Some(day) = action.day {
            let correct = |total: &mut Total| total.correct(action.reserved, charged);
            change_day(&mut self.days, &entry.policy, day, correct);
        }
        if let Some(of_action) = entry.actions.get_mut(&action.action) {
            of_action.total.correct(action.reserved, charged);
        }
    }

    /// An action that never ran gives its approval back; the last one that did ends it.
    fn end_approved(&mut self, id: ApprovalId, outcome: Outcome, reserved: Money, at: Now) {
        let Some(approval) = self.approvals.get_mut(&id) else { return };
        let Some(permit) = approval.permit.as_mut() else { return };
        if outcome == Outcome::Aborted {
            permit.uses_left = permit.uses_left.saturating_add(1);
            permit.left = permit.left.map(|left| left.saturating_add(reserved));
        }
        let is_done = permit.uses_left == 0 || approval.deadline <= at.elapsed;
        if is_done && !self.actions.values().any(|action| action.approval == Some(id)) {
            self.approvals.remove(&id);
        }
    }
}
