//! What an application asks for, and what becomes of its actions.
//!
//! Invariants (names as in ARCHITECTURE.md): *ledger first*, *grant before reply*, *errors deny*.

use std::rc::Rc;
use std::time::Duration;

use sentinel_authority::Log;
use sentinel_engine::{ActionRequest, Event, Fact, ScopeId};
use sentinel_proto::app::{
    Answer, Begin, DenialList, Denials, End, Ended, MAX_TAGS, PendingApproval, RefusalCode, Reply, Request,
    RequestId, Totals, Welcome,
};
use sentinel_proto::{ActionId, ApprovalId, Decision, Denial, Reason, SessionId, VERSION};

use super::Driver;
use super::identity::Identity;
use super::sessions::Session;
use crate::clock::Clock;
use crate::connection::Connection;
use crate::enforcer::{Enforcer, EnforcerError};
use crate::intake::Lane;
use crate::peer::Sender;
use crate::server::MOST_OF_A_SESSION;

/// What one session may have written about it since the agent's start, so that none fills the ledger for all: an eighth of its quota. Ends are
/// written all the same.
pub(super) const MOST_LEDGER_BYTES: u64 = 1 << 30;

/// An action that was let start and has not ended.
#[derive(Clone, Copy, Debug)]
pub(super) struct InFlight {
    pub(super) session: SessionId,
    scope: ScopeId,
    /// The connection and the process that began it: when either is gone, so is the action.
    connection: u64,
    pid: u32,
    marked_at: Duration,
}

impl<L: Log, E: Enforcer, C: Clock> Driver<L, E, C> {
    /// Handles an application's message that was written after `since`.
    pub(super) fn on_application(
        &mut self,
        connection: &Rc<Connection>,
        sender: Sender,
        since: Duration,
        request: Request,
    ) {
        // What was refused before this is seen against the actions that were in flight then.
        self.drain_records();
        let number = request_number(&request);
        if let Request::End(end) = &request
            && self.may_end_unseen(connection, sender, end.action_id)
        {
            let Request::End(end) = request else { return };
            return self.end(connection, end);
        }
        let identity = match self.application(connection, sender, since) {
            Ok(identity) => identity,
            Err(cause) => {
                tracing::info!(pid = sender.pid, uid = sender.uid, %cause, "an application is refused");
                return connection.refuse(number, RefusalCode::Identity, cause);
            }
        };
        match request {
            Request::Hello(_) => self.welcome(connection, identity),
            Request::Begin(begin) => {
                let answer = self.begin(connection, identity, begin);
                connection.send(&Reply::Decision(Box::new(answer)));
            }
            Request::End(end) => {
                // Of another session, it is as unknown as one that never was.
                let is_own =
                    self.actions.get(&end.action_id).is_some_and(|own| own.session == identity.session);
                let interrupted = self.authority.state().interrupted(end.action_id);
                if is_own || interrupted.is_some_and(|own| own.session == identity.session) {
                    self.end(connection, end);
                } else if let Some(request) = end.request {
                    connection.send(&Reply::Ended(Ended { request, settled: false }));
                }
            }
            Request::AwaitApproval(of) => self.await_approval(connection, of, identity.session),
            Request::CancelApproval(of) => self.cancel_approval(connection, of, identity.session),
            Request::Denials(Denials { request, within_ms }) => {
                let since = self.clock.now().elapsed.saturating_sub(Duration::from_millis(within_ms));
                let denials = self.denials.recent(identity.pid, since);
                connection.send(&Reply::Denials(DenialList { request, denials }));
            }
            Request::Totals(ask) => self.totals(connection, ask.request, identity.session),
            Request::ResetRun(ask) => match self.step(Event::RunReset { session: identity.session }) {
                Ok(step) => {
                    self.shut(&step.effects);
                    self.totals(connection, ask.request, identity.session);
                }
                Err(error) => connection.refuse(Some(ask.request), RefusalCode::Failed, error.to_string()),
            },
        }
    }

    fn welcome(&mut self, connection: &Rc<Connection>, identity: Identity) {
        let Some(session) = self.sessions.get_mut(&identity.session) else { return };
        if session.connections >= MOST_OF_A_SESSION {
            let cause = format!("the session has {MOST_OF_A_SESSION} connections; close some, or share one");
            return connection.refuse(None, RefusalCode::Busy, cause);
        }
        session.connections = session.connections.saturating_add(1);
        connection.greet(Lane::Session(identity.session));
        connection.send(&Reply::Welcome(Welcome {
            version: VERSION,
            session: identity.session,
            session_name: session.shown.clone(),
            tier: self.enforcer.enforcement().tier.as_str().to_owned(),
        }));
    }

    fn begin(&mut self, connection: &Connection, identity: Identity, begin: Begin) -> Answer {
        let request = begin.request;
        if begin.tags.len() > MAX_TAGS {
            let cause = format!("{} tags; at most {MAX_TAGS} are allowed", begin.tags.len());
            return denied(request, Denial { reason: Reason::InvalidRequest { cause }, rule: None });
        }
        if self.authority.log().bytes_of(identity.session) > MOST_LEDGER_BYTES {
            let reason = Reason::QuotaExceeded { quota: "ledger bytes".to_owned(), limit: MOST_LEDGER_BYTES };
            return denied(request, Denial { reason, rule: None });
        }
        if self.authority.is_nearly_full() {
            let cause = "what is left of its quota is for what runs".to_owned();
            return denied(request, Denial { reason: Reason::LedgerUnavailable { cause }, rule: None });
        }
        let ids = self.ids.make().and_then(|action_id| Ok((action_id, ApprovalId(self.ids.make()?.0))));
        let (action_id, approval_id) = match ids {
            Ok(ids) => ids,
            Err(error) => {
                let cause = format!("no id for the action: {error}");
                return denied(request, Denial { reason: Reason::EnforcementFailed { cause }, rule: None });
            }
        };
        let scope = match self.scope_of(connection, identity) {
            Ok(scope) => scope,
            Err(cause) => {
                return denied(request, Denial { reason: Reason::EnforcementFailed { cause }, rule: None });
            }
        };
        let asked = Box::new(ActionRequest {
            action_id,
            session: identity.session,
            scope,
            action: begin.action,
            cost: begin.cost_usd,
            tags: begin.tags,
            risk: begin.risk_level,
            needs_approval: begin.needs_approval,
            approval_id,
            inputs: begin.inputs,
            annotations: begin.annotations,
            pid: identity.pid,
        });
        // What waits for a human already is no news: then there is no fact.
        let waits_for = self.authority.waits_for(&asked, self.clock.now());
        if let Some(approval) = waits_for {
            return self.pending(request, approval);
        }
        let step = match self.step(Event::Begin(asked)) {
            Ok(step) => step,
            Err(error) => {
                let reason = Reason::LedgerUnavailable { cause: error.to_string() };
                return denied(request, Denial { reason, rule: None });
            }
        };
        let mut started = None;
        for fact in step.facts {
            match fact {
                Fact::ActionDenied { denial, .. } => {
                    self.shut(&step.effects);
                    return denied(request, denial);
                }
                Fact::ApprovalRequested { wish } => {
                    self.tell_launcher(&wish);
                    return self.pending(request, wish.approval_id);
                }
                Fact::ActionStarted { action_id: id, grants, max_seconds, .. } if id == action_id => {
                    started = Some((grants, max_seconds));
                }
                _ => {}
            }
        }
        let Some((grants, max_seconds)) = started else {
            let cause = "the agent came to no decision".to_owned();
            return denied(request, Denial { reason: Reason::InvalidRequest { cause }, rule: None });
        };
        if let Err(error) = self.place_scope(identity, scope).and_then(|()| self.perform(&step.effects)) {
            return denied(request, self.abort(action_id, identity.session, scope, &error));
        }
        let Identity { pid, session, marked_at } = identity;
        self.actions
            .insert(action_id, InFlight { session, scope, connection: connection.id, pid, marked_at });
        Answer {
            request,
            decision: Decision::Allow,
            action_id: Some(action_id),
            acknowledge_end: !grants.is_empty(),
            max_seconds: Some(max_seconds),
            denial: None,
            approval: None,
        }
    }

    /// A human has to say.
    fn pending(&self, request: RequestId, approval: ApprovalId) -> Answer {
        let now = self.clock.now().elapsed;
        let deadline = self.authority.state().approval(approval).map_or(now, |approval| approval.deadline);
        let expires_in = deadline.saturating_sub(now).as_millis();
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

    /// Takes back an action that was let start but whose doors could not be opened.
    fn abort(
        &mut self,
        action_id: ActionId,
        session: SessionId,
        scope: ScopeId,
        error: &EnforcerError,
    ) -> Denial {
        tracing::error!(%session, %error, "doors could not be opened");
        let cause = error.to_string();
        match self.step(Event::Abort { action_id, cause: cause.clone() }) {
            Ok(step) => self.shut(&step.effects),
            // The refund can't be written, so there is none before it expires; what may be open is shut all the same.
            Err(_reported) => self.shut_scope(session, scope),
        }
        Denial { reason: Reason::EnforcementFailed { cause }, rule: None }
    }

    /// Whether an end can be taken without looking its sender up: it has the pid and the uid of the process that
    /// opened this connection and began the action on it. So a last word counts although its speaker is gone by now.
    fn may_end_unseen(&self, connection: &Connection, sender: Sender, action: ActionId) -> bool {
        sender == connection.opener.sender
            && self
                .actions
                .get(&action)
                .is_some_and(|own| own.connection == connection.id && own.pid == sender.pid)
    }

    /// Ends an action of the sender's own session.
    fn end(&mut self, connection: &Connection, end: End) {
        let End { request, action_id, outcome, cost_usd, outputs, annotations } = end;
        let refuse = |code, cause: String| match request {
            Some(_) => connection.refuse(request, code, cause),
            None => tracing::warn!(%action_id, %cause, "an end was not taken"),
        };
        if !outcome.is_reportable() {
            let cause = format!("`{}` is no outcome that an application can report", outcome.as_str());
            return refuse(RefusalCode::Malformed, cause);
        }
        let in_flight = self.actions.get(&action_id).map(|action| (action.session, action.scope));
        let interrupted =
            || Some(self.authority.state().interrupted(action_id)?).map(|own| (own.session, own.scope));
        let Some((session, scope)) = in_flight.or_else(interrupted) else {
            if let Some(request) = request {
                connection.send(&Reply::Ended(Ended { request, settled: false }));
            }
            return;
        };
        match self.step(Event::End { action_id, session, outcome, cost: cost_usd, outputs, annotations }) {
            Ok(step) => {
                self.shut(&step.effects);
                let settled = step.facts.iter().any(|fact| match fact {
                    Fact::ActionEnded { action_id: ended, .. }
                    | Fact::ActionCorrected { action_id: ended, .. } => *ended == action_id,
                    _ => false,
                });
                if let Some(request) = request {
                    connection.send(&Reply::Ended(Ended { request, settled }));
                }
            }
            Err(error) => {
                // It stays in flight until it expires; its doors don't.
                self.shut_scope(session, scope);
                refuse(RefusalCode::Failed, error.to_string());
            }
        }
    }

    /// The actions that a connection began are over with it.
    pub(super) fn on_closed(&mut self, connection: &Connection) {
        self.abandon(|action| action.connection == connection.id);
    }

    /// The actions that a process began are over with it.
    pub(super) fn on_process_gone(&mut self, pid: u32, marked_at: Duration) {
        if self.processes.get(&pid).is_some_and(|process| process.marked_at == marked_at) {
            self.processes.remove(&pid);
        }
        self.abandon(|action| action.pid == pid && action.marked_at == marked_at);
    }

    fn abandon(&mut self, is_over: impl Fn(&InFlight) -> bool) {
        let over: Vec<(ActionId, InFlight)> = self
            .actions
            .iter()
            .filter(|(_, action)| is_over(action))
            .map(|(id, action)| (*id, *action))
            .collect();
        if over.is_empty() {
            return;
        }
        self.drain_records();
        match self.step(Event::Abandon { action_ids: over.iter().map(|(id, _)| *id).collect() }) {
            Ok(step) => self.shut(&step.effects),
            Err(_reported) => {
                for (id, action) in over {
                    self.actions.remove(&id);
                    self.shut_scope(action.session, action.scope);
                }
            }
        }
    }

    fn totals(&self, connection: &Connection, request: RequestId, session: SessionId) {
        let known = self.authority.state().totals(session).zip(self.sessions.get(&session));
        let Some((totals, Session { rules, .. })) = known else {
            return connection.refuse(Some(request), RefusalCode::NotFound, format!("no session {session}"));
        };
        connection.send(&Reply::Totals(Totals {
            request,
            session_usd: totals.session,
            run_usd: totals.run,
            session_limit_usd: rules.budgets.session.map(|limit| limit.amount),
            run_limit_usd: rules.budgets.run.map(|limit| limit.amount),
        }));
    }
}

fn denied(request: RequestId, denial: Denial) -> Answer {
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

const fn request_number(request: &Request) -> Option<RequestId> {
    match request {
        Request::Hello(_) => None,
        Request::Begin(begin) => Some(begin.request),
        Request::End(end) => end.request,
        Request::AwaitApproval(of) | Request::CancelApproval(of) => Some(of.request),
        Request::Denials(denials) => Some(denials.request),
        Request::Totals(ask) | Request::ResetRun(ask) => Some(ask.request),
    }
}
