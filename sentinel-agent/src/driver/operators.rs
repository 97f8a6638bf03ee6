//! What an operator asks for.

use std::os::fd::OwnedFd;
use std::rc::Rc;

use sentinel_authority::Log;
use sentinel_engine::{Event, SessionEnding};
use sentinel_proto::admin::{ApprovalList, Done, Examined, Reply, Request, SessionStatus, Status, Welcome};
use sentinel_proto::app::{RefusalCode, RequestId};
use sentinel_proto::{Money, SessionId, SessionName, VERSION};

use super::Driver;
use super::sessions::Session;
use crate::clock::Clock;
use crate::connection::Connection;
use crate::enforcer::Enforcer;
use crate::intake::Lane;
use crate::peer::Sender;

impl<L: Log, E: Enforcer, C: Clock> Driver<L, E, C> {
    /// Handles an operator's message.
    pub(super) fn on_operator(
        &mut self,
        connection: &Rc<Connection>,
        sender: Sender,
        request: Request,
        descriptor: Option<OwnedFd>,
    ) {
        if let Err(cause) = self.operator(connection, sender) {
            tracing::warn!(pid = sender.pid, uid = sender.uid, %cause, "an operator is refused");
            return connection.refuse(request_number(&request), RefusalCode::Identity, cause);
        }
        match request {
            Request::Hello(_) => {
                connection.greet(Lane::Host);
                connection.send(&Reply::Welcome(Welcome { version: VERSION }));
            }
            Request::StartSession(start) => self.start_session(connection, sender, *start, descriptor),
            Request::Status(ask) => connection.send(&Reply::Status(Box::new(self.status(ask.request)))),
            Request::Examine(ask) => match self.examine() {
                Ok(examination) => {
                    connection
                        .send(&Reply::Examination(Box::new(Examined { request: ask.request, examination })));
                }
                Err(cause) => connection.refuse(Some(ask.request), RefusalCode::Failed, cause),
            },
            Request::Approvals(ask) => {
                let approvals = self.approval_list();
                connection.send(&Reply::Approvals(ApprovalList { request: ask.request, approvals }));
            }
            Request::Approve(approve) => {
                let request = approve.request;
                let done = self.approve(connection, sender, approve);
                answer(connection, request, done);
            }
            Request::Reject(reject) => {
                let request = reject.request;
                let done = self.reject(connection, sender, reject);
                answer(connection, request, done);
            }
            Request::Pause(of) => answer(connection, of.request, self.pause(&of.session, sender.uid)),
            Request::Resume(of) => answer(connection, of.request, self.resume(&of.session, sender.uid)),
            Request::Kill(of) => answer(connection, of.request, self.kill(&of.session, sender.uid)),
            Request::ResetSession(of) => {
                answer(connection, of.request, self.reset_session(&of.session, sender.uid));
            }
            Request::Attach(attach) => {
                answer(connection, attach.request, self.attach(connection, attach.session));
            }
            Request::StopAll(ask) => answer(connection, ask.request, self.stop_all(sender.uid)),
            Request::Reload(ask) => self.reload(Some((Rc::clone(connection), ask.request, sender.uid))),
        }
    }

    /// A living session by its name or number.
    fn session_called(&self, name: &str) -> Result<SessionId, Refusal> {
        let by_number = name.parse().ok().map(SessionId);
        let found =
            self.sessions.iter().find(|(id, session)| session.shown == name || Some(**id) == by_number);
        found.map(|(id, _)| *id).ok_or_else(|| {
            (RefusalCode::NotFound, format!("no session `{name}` is running; see `sentinel status`"))
        })
    }

    fn ordered(&mut self, event: Event) -> Result<sentinel_authority::Step, Refusal> {
        self.step(event).map_err(|error| (RefusalCode::Failed, error.to_string()))
    }

    fn pause(&mut self, name: &str, operator: u32) -> Result<String, Refusal> {
        let session = self.session_called(name)?;
        let step = self.ordered(Event::Pause { session, operator })?;
        if step.facts.is_empty() {
            return Err((RefusalCode::Failed, format!("session `{name}` is paused already, or ending")));
        }
        // The doors shut even where the processes can't be frozen.
        let frozen = self.freeze(session, true);
        self.shut(&step.effects);
        frozen.map_err(|error| {
            (RefusalCode::Failed, format!("its doors are shut, but its processes run on: {error}"))
        })?;
        Ok(format!("session `{name}` is paused: its processes are frozen, its doors shut"))
    }

    fn resume(&mut self, name: &str, operator: u32) -> Result<String, Refusal> {
        let session = self.session_called(name)?;
        let step = self.ordered(Event::Resume { session, operator })?;
        if step.facts.is_empty() {
            return Err((RefusalCode::Failed, format!("session `{name}` is not paused")));
        }
        self.shut(&step.effects);
        let thawed = self.freeze(session, false);
        thawed.map_err(|error| (RefusalCode::Failed, format!("its processes stay frozen: {error}")))?;
        Ok(format!("session `{name}` goes on"))
    }

    fn kill(&mut self, name: &str, operator: u32) -> Result<String, Refusal> {
        let session = self.session_called(name)?;
        // Killed even where that can't be written.
        let written = self.ordered(Event::Kill { session: Some(session), operator });
        self.end_session(session, SessionEnding::Killed);
        written
            .map_err(|(code, error)| (code, format!("it is being killed, but not in the ledger: {error}")))?;
        Ok(format!("session `{name}` is killed"))
    }

    fn reset_session(&mut self, name: &str, operator: u32) -> Result<String, Refusal> {
        // What a named session has spent outlives it.
        let is_over = || self.authority.state().session_named(&SessionName::new(name).ok()?);
        let session = match self.session_called(name) {
            Ok(session) => session,
            Err((code, _)) => is_over().ok_or_else(|| {
                (code, format!("no session `{name}` is running or has spent anything; see `sentinel status`"))
            })?,
        };
        let spent = self.authority.state().totals(session).map_or(Money::ZERO, |totals| totals.session);
        let step = self.ordered(Event::SessionReset { session, operator })?;
        // The baseline network may open again.
        self.shut(&step.effects);
        let reserved = self.authority.state().totals(session).map_or(Money::ZERO, |totals| totals.session);
        Ok(budgets_back(name, spent, reserved))
    }

    fn stop_all(&mut self, operator: u32) -> Result<String, Refusal> {
        let written = self.ordered(Event::Kill { session: None, operator });
        let all: Vec<SessionId> = self.sessions.keys().copied().collect();
        for session in &all {
            self.end_session(*session, SessionEnding::Killed);
        }
        written.map_err(|(code, error)| {
            (code, format!("all are being killed, but not in the ledger: {error}"))
        })?;
        Ok(format!("{} sessions are killed", all.len()))
    }

    fn status(&self, request: RequestId) -> Status {
        let enforcement = self.enforcer.enforcement();
        Status {
            request,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            tier: enforcement.tier.as_str().to_owned(),
            proven: enforcement.proven,
            pid: std::process::id(),
            ledger: self.setting.ledger.clone(),
            ledger_seq: self.authority.last_seq(),
            dropped_records: self.enforcer.dropped_records().unwrap_or(self.dropped),
            policies: self.setting.policies.keys().cloned().collect(),
            sessions: self.sessions.iter().map(|(id, session)| self.status_of(*id, session)).collect(),
        }
    }

    fn status_of(&self, id: SessionId, session: &Session) -> SessionStatus {
        let state = self.authority.state();
        let totals = state.totals(id);
        SessionStatus {
            session: id,
            name: session.shown.clone(),
            policy: session.policy.clone(),
            processes: session
                .cgroup
                .processes()
                .map_or(0, |all| u64::try_from(all.len()).unwrap_or(u64::MAX)),
            in_flight: totals.map_or(0, |totals| totals.in_flight),
            spent_usd: totals.map_or(Money::ZERO, |totals| totals.session),
            limit_usd: session.rules.budgets.session.map(|limit| limit.amount),
            exhausted: state.is_exhausted(id, &session.rules, self.clock.now()),
            paused: state.is_paused(id),
            generation: state.generation_of(id),
            allowed: totals.map_or(0, |totals| totals.counters.allowed),
            denied: totals.map_or(0, |totals| totals.counters.denied),
            kernel_denials: self.denials.total(id),
        }
    }
}

/// What an operator is told of a session that begins anew; `spent` had what it reserves in it.
#[must_use]
pub(crate) fn budgets_back(name: &str, spent: Money, reserved: Money) -> String {
    let spent = spent.saturating_sub(reserved);
    let in_flight = match reserved {
        Money::ZERO => String::new(),
        reserved => format!("; {reserved} USD stay reserved by what is in flight"),
    };
    format!("session `{name}` has its budgets back: {spent} USD were spent{in_flight}")
}

/// Why an order is not carried out.
pub(super) type Refusal = (RefusalCode, String);

/// Tells what came of an order.
pub(super) fn answer(connection: &Connection, request: RequestId, done: Result<String, Refusal>) {
    match done {
        Ok(message) => connection.send(&Reply::Done(Done { request, message })),
        Err((code, cause)) => connection.refuse(Some(request), code, cause),
    }
}

fn request_number(request: &Request) -> Option<RequestId> {
    match request {
        Request::Hello(_) => None,
        Request::StartSession(start) => Some(start.request),
        Request::Status(ask)
        | Request::Examine(ask)
        | Request::Approvals(ask)
        | Request::StopAll(ask)
        | Request::Reload(ask) => Some(ask.request),
        Request::Attach(attach) => Some(attach.request),
        Request::Approve(approve) => Some(approve.request),
        Request::Reject(reject) => Some(reject.request),
        Request::Pause(of) | Request::Resume(of) | Request::Kill(of) | Request::ResetSession(of) => {
            Some(of.request)
        }
    }
}
