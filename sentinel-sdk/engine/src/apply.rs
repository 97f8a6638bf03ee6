//! Folds a fact into the state. Total: a fact about what is unknown changes nothing.

use std::time::Duration;

use sentinel_proto::Outcome;

use crate::budget::Total;
use crate::state::{ActionTotal, InFlight, Session};
use crate::{Fact, Now, State};

impl State {
    /// Folds one fact, which happened at that time.
    pub fn apply(&mut self, fact: &Fact, at: Now) {
        match fact {
            Fact::AgentStarted { .. } | Fact::AgentStopped | Fact::RecordsDropped { .. } => {}
            Fact::SessionStarted { session, name, .. } => {
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
            }
            Fact::SessionEnded { session, .. } => {
                let Some(entry) = self.sessions.get_mut(session) else { return };
                entry.alive = false;
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
            Fact::ActionEnded { .. } => self.end(fact),
            Fact::KernelDenied { session, count, .. } => {
                let Some(entry) = self.sessions.get_mut(session) else { return };
                entry.counters.kernel_denials = entry.counters.kernel_denials.saturating_add(*count);
            }
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
        let slot = of_action.starts.add(at.elapsed);
        entry.in_flight = entry.in_flight.saturating_add(1);
        entry.counters.allowed = entry.counters.allowed.saturating_add(1);
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
            },
        );
    }

    fn end(&mut self, fact: &Fact) {
        let Fact::ActionEnded { action_id, outcome, charged, .. } = fact else { return };
        let Some(ended) = self.actions.remove(action_id) else { return };
        let Some(entry) = self.sessions.get_mut(&ended.session) else { return };
        entry.session_total.settle(ended.reserved, *charged);
        if entry.run == ended.run {
            entry.run_total.settle(ended.reserved, *charged);
        }
        entry.in_flight = entry.in_flight.saturating_sub(1);
        let Some(of_action) = entry.actions.get_mut(&ended.action) else { return };
        of_action.total.settle(ended.reserved, *charged);
        if *outcome == Outcome::Aborted {
            of_action.count = of_action.count.saturating_sub(1);
            of_action.starts.remove(ended.slot);
            if *of_action == ActionTotal::default() {
                entry.actions.remove(&ended.action);
            }
            entry.counters.allowed = entry.counters.allowed.saturating_sub(1);
        }
    }
}
