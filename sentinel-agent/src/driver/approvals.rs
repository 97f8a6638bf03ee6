//! What a human has to say about: who waits for it, and who says it.
//!
//! Invariant: only an operator approves, and whoever waits is told once, whatever the word is.

use std::collections::{HashMap, VecDeque};
use std::rc::Rc;

use sentinel_authority::Log;
use sentinel_engine::{Approval, Event, Fact, Grant, Operator, Wish};
use sentinel_proto::admin::{self, ApprovalStatus, Approve, Reject};
use sentinel_proto::app::{ApprovalAnswer, OfApproval, RefusalCode, Reply, RequestId};
use sentinel_proto::{ApprovalId, Denial, Reason, SessionId};

use super::Driver;
use crate::clock::Clock;
use crate::connection::Connection;
use crate::enforcer::Enforcer;
use crate::peer::Sender;

/// Closed approvals that are remembered for who asks late.
const MOST_CLOSED: usize = 1_024;
/// Those who wait on one connection.
const MOST_WAITING: usize = 128;
/// The longest note, in characters.
const LONGEST_NOTE: usize = 1_000;

/// Who waits for which approval, and how the last ones ended.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    waiters: HashMap<ApprovalId, Vec<(Rc<Connection>, RequestId)>>,
    closed: VecDeque<(ApprovalId, SessionId, Denial)>,
}

impl Waiting {
    /// Tells those who wait, if this fact is what they wait for.
    pub(super) fn tell(&mut self, fact: &Fact) {
        let (approval, denial) = match fact {
            Fact::ApprovalGiven { approval_id, .. } => (*approval_id, None),
            Fact::ApprovalClosed { approval_id, session, closing, .. } => {
                let denial = Denial { reason: closing.reason(), rule: None };
                self.closed.push_back((*approval_id, *session, denial.clone()));
                if self.closed.len() > MOST_CLOSED {
                    self.closed.pop_front();
                }
                (*approval_id, Some(denial))
            }
            _ => return,
        };
        for (connection, request) in self.waiters.remove(&approval).unwrap_or_default() {
            send(&connection, request, approval, denial.clone());
        }
    }

    /// Forgets who waited on a connection that is over.
    pub(super) fn forget(&mut self, connection: u64) {
        self.waiters.retain(|_, waiters| {
            waiters.retain(|(of, _)| of.id != connection);
            !waiters.is_empty()
        });
    }

    fn add(&mut self, connection: &Rc<Connection>, of: OfApproval) -> Result<(), String> {
        let all = self.waiters.values().flatten();
        if all.filter(|(waiter, _)| waiter.id == connection.id).count() >= MOST_WAITING {
            return Err(format!("{MOST_WAITING} wait on this connection already; open another"));
        }
        self.waiters.entry(of.approval).or_default().push((Rc::clone(connection), of.request));
        Ok(())
    }

    fn closed(&self, approval: ApprovalId, session: SessionId) -> Option<&Denial> {
        let found = self.closed.iter().rev().find(|(id, of, _)| *id == approval && *of == session);
        found.map(|(_, _, denial)| denial)
    }
}

fn send(connection: &Connection, request: RequestId, approval: ApprovalId, denial: Option<Denial>) {
    let approved = denial.is_none();
    connection.send(&Reply::Approval(Box::new(ApprovalAnswer { request, approval, approved, denial })));
}

impl<L: Log, E: Enforcer, C: Clock> Driver<L, E, C> {
    /// Answers when a human has spoken, or it is too late.
    pub(super) fn await_approval(&mut self, connection: &Rc<Connection>, of: OfApproval, session: SessionId) {
        let known = self.authority.state().approval(of.approval);
        match known.filter(|approval| approval.wish.session == session) {
            Some(approval) if approval.permit.is_some() => send(connection, of.request, of.approval, None),
            Some(_) => {
                if let Err(cause) = self.waiting.add(connection, of) {
                    connection.refuse(Some(of.request), RefusalCode::Busy, cause);
                }
            }
            None => match self.waiting.closed(of.approval, session) {
                Some(denial) => send(connection, of.request, of.approval, Some(denial.clone())),
                None => connection.refuse(Some(of.request), RefusalCode::NotFound, unknown(of.approval)),
            },
        }
    }

    /// Withdraws a wish of the sender's own session.
    pub(super) fn cancel_approval(&mut self, connection: &Connection, of: OfApproval, session: SessionId) {
        match self.step(Event::CancelApproval { approval_id: of.approval, session }) {
            Ok(step) if step.facts.is_empty() => {
                connection.refuse(Some(of.request), RefusalCode::NotFound, unknown(of.approval));
            }
            Ok(_) => {
                let cause = "it was cancelled by who asked for it".to_owned();
                let denial = Denial { reason: Reason::ApprovalCancelled { cause }, rule: None };
                send(connection, of.request, of.approval, Some(denial));
            }
            Err(error) => connection.refuse(Some(of.request), RefusalCode::Failed, error.to_string()),
        }
    }

    /// What waits for a human's word, and what can be used.
    pub(super) fn approval_list(&self) -> Vec<ApprovalStatus> {
        let mut all: Vec<&Approval> = self.authority.state().approvals().collect();
        all.sort_by_key(|approval| (approval.deadline, approval.wish.approval_id));
        all.into_iter().map(|approval| self.approval_status(approval)).collect()
    }

    /// Says at the session's terminal that an action waits.
    pub(super) fn tell_launcher(&self, wish: &Wish) {
        let launcher = self.sessions.get(&wish.session).and_then(|session| session.launcher.as_ref());
        let known = self.authority.state().approval(wish.approval_id);
        if let Some((launcher, approval)) = launcher.zip(known) {
            launcher.send(&admin::Reply::Waits(Box::new(self.approval_status(approval))));
        }
    }

    fn approval_status(&self, approval: &Approval) -> ApprovalStatus {
        let wish = &approval.wish;
        let now = self.clock.now().elapsed;
        let rules = self.sessions.get(&wish.session).map(|session| &session.rules);
        let grants = rules.map(|rules| rules.grants.as_slice()).unwrap_or_default();
        let opened = grants.iter().enumerate().filter(|(index, _)| {
            let bit = sentinel_engine::GrantSet::of(*index);
            *index > 0 && wish.grants.0 & bit.0 != 0
        });
        ApprovalStatus {
            approval: wish.approval_id,
            session: wish.session,
            session_name: self.shown(wish.session),
            action: wish.action.clone(),
            cost_usd: wish.cost,
            tags: wish.tags.clone(),
            risk_level: wish.risk.clone(),
            inputs: wish.inputs.clone(),
            doors: opened.flat_map(|(_, grant)| doors_of(grant)).collect(),
            rule: wish.rule.clone(),
            pid: wish.pid,
            digest: wish.digest.clone(),
            expires_in_seconds: approval.deadline.saturating_sub(now).as_secs(),
            uses_left: approval.permit.as_ref().map(|permit| permit.uses_left),
        }
    }

    /// A session's name as operators see it.
    pub(super) fn shown(&self, session: SessionId) -> String {
        let name = self.sessions.get(&session).map(|session| session.shown.clone());
        let name = name.or_else(|| self.authority.state().name_of(session).map(ToString::to_string));
        name.unwrap_or_else(|| format!("s{session}"))
    }

    /// An operator says yes.
    ///
    /// # Errors
    /// Why that is not taken.
    pub(super) fn approve(
        &mut self,
        connection: &Connection,
        sender: Sender,
        approve: Approve,
    ) -> Result<String, (RefusalCode, String)> {
        let note = checked(approve.note)?;
        let id = approve.approval;
        let Some(approval) = self.authority.state().approval(id) else {
            return Err((RefusalCode::NotFound, unknown(id)));
        };
        let (session, action) = (approval.wish.session, approval.wish.action.clone());
        if approval.permit.is_some() {
            return Err((RefusalCode::Failed, format!("approval {id} was given already")));
        }
        let operator = operator(connection, sender);
        let event = Event::Approve {
            approval_id: id,
            operator: operator.clone(),
            note,
            uses: approve.uses,
            seconds: approve.seconds,
            up_to: approve.up_to_usd,
        };
        let step = self.step(event).map_err(|error| (RefusalCode::Failed, error.to_string()))?;
        if step.facts.is_empty() {
            let rules = self.sessions.get(&session).and_then(|session| session.rules.approvals.as_ref());
            let may = rules.is_none_or(|rules| rules.may_be_given_by(&operator));
            return Err(if may {
                (RefusalCode::NotFound, unknown(id))
            } else {
                let cause = format!("uid {} is none of those whom `approvals.approvers` names", operator.uid);
                (RefusalCode::Identity, cause)
            });
        }
        Ok(format!("`{action}` of session `{}` may start", self.shown(session)))
    }

    /// An operator says no, or takes a yes back.
    ///
    /// # Errors
    /// Why that is not taken.
    pub(super) fn reject(
        &mut self,
        connection: &Connection,
        sender: Sender,
        reject: Reject,
    ) -> Result<String, (RefusalCode, String)> {
        let (note, id) = (checked(reject.note)?, reject.approval);
        let event = Event::Reject { approval_id: id, operator: operator(connection, sender), note };
        let step = self.step(event).map_err(|error| (RefusalCode::Failed, error.to_string()))?;
        match step.facts.first() {
            Some(Fact::ApprovalClosed { session, action, .. }) => {
                Ok(format!("`{action}` of session `{}` may not start", self.shown(*session)))
            }
            _ => Err((RefusalCode::NotFound, unknown(id))),
        }
    }
}

fn unknown(approval: ApprovalId) -> String {
    format!("no approval {approval} waits: it is used, over, or never was; see `sentinel approvals`")
}

fn checked(note: Option<String>) -> Result<Option<String>, (RefusalCode, String)> {
    match &note {
        Some(text) if text.chars().count() > LONGEST_NOTE => {
            Err((RefusalCode::Malformed, format!("a note has at most {LONGEST_NOTE} characters")))
        }
        _ => Ok(note),
    }
}

/// Who an operator is, by the names of this host. One that can't be looked up has none, and so stands for nobody who is named.
fn operator(connection: &Connection, sender: Sender) -> Operator {
    let user = nix::unistd::User::from_uid(nix::unistd::Uid::from_raw(sender.uid));
    let own = if sender == connection.opener.sender { connection.opener.groups.as_slice() } else { &[] };
    let groups = own.iter().copied().chain([sender.gid]);
    let name = |gid| nix::unistd::Group::from_gid(nix::unistd::Gid::from_raw(gid)).ok().flatten();
    Operator {
        uid: sender.uid,
        user: user.ok().flatten().map(|user| user.name),
        groups: groups.filter_map(name).map(|group| group.name).collect(),
    }
}

/// A grant's doors as the policy names them.
fn doors_of(grant: &Grant) -> impl Iterator<Item = String> {
    let network = grant.network.iter().map(sentinel_policy::network_entry);
    let names = grant.names.iter().map(|rule| {
        let private = if rule.allow_private { ", also where that is a private address" } else { "" };
        format!("{}{private}", sentinel_policy::name_entry(rule))
    });
    let listen =
        grant.listen.iter().map(|rule| format!("listen at {}", sentinel_policy::network_entry(rule)));
    network.chain(names).chain(listen).chain(grant.exec.iter().map(|rule| rule.path.display().to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_approves_sees_every_door_names_among_them() {
        let text = "enforcement: {network: {allow: ['192.0.2.1:443', 'api.example.com:443', {host: '*.internal.example:*', allow_private: true}], listen: ['127.0.0.1:80']}, exec: {allow: [/bin/true]}}";
        let policy = sentinel_policy::parse(text).unwrap().policy;
        assert_eq!(
            doors_of(&policy.grants[0]).collect::<Vec<_>>(),
            [
                "192.0.2.1:443/tcp",
                "api.example.com:443/tcp",
                "*.internal.example:*/tcp, also where that is a private address",
                "listen at 127.0.0.1:80/tcp",
                "/bin/true"
            ]
        );
    }
}
