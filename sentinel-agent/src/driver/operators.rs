//! What an operator asks for.

use std::os::fd::OwnedFd;
use std::rc::Rc;

use sentinel_authority::Log;
use sentinel_proto::admin::{Reply, Request, SessionStatus, Status, Welcome};
use sentinel_proto::app::{RefusalCode, RequestId};
use sentinel_proto::{Money, SessionId, VERSION};

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
        }
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
            exhausted: state.is_exhausted(id, &session.rules),
            allowed: totals.map_or(0, |totals| totals.counters.allowed),
            denied: totals.map_or(0, |totals| totals.counters.denied),
            kernel_denials: self.denials.total(id),
        }
    }
}

fn request_number(request: &Request) -> Option<RequestId> {
    match request {
        Request::Hello(_) => None,
        Request::StartSession(start) => Some(start.request),
        Request::Status(ask) => Some(ask.request),
    }
}
