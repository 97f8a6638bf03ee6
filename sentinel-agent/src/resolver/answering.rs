//! The way of a question: read, admitted by the gate, counted, asked upstream, filtered, its doors opened, replied to.
//!
//! Invariant: each step is taken only after the one before it, and whatever fails on the way is a reply without records and, where an
//! operator should know, an event.

use std::rc::Rc;
use std::time::Instant;

use hickory_proto::op::ResponseCode;
use sentinel_proto::SessionId;

use super::addresses::is_allowed;
use super::limits::{Hit, Limits};
use super::message::{Body, Query, Room, Unreadable};
use super::upstream::{Found, Upstream};
use super::{About, Admission, Answer, Asker, Event, Gate, Kind, Question, Refusal, Ticket, Transport};

/// All that answers.
#[derive(Debug)]
pub(super) struct Answering<G> {
    gate: Rc<G>,
    upstream: Upstream,
    limits: Limits,
}

/// What goes back.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) bytes: Vec<u8>,
    /// The asker's session, where the gate has told it.
    pub(super) session: Option<SessionId>,
}

impl<G: Gate> Answering<G> {
    pub(super) fn new(gate: Rc<G>, upstream: Upstream) -> Self {
        Self { gate, upstream, limits: Limits::default() }
    }

    /// Whether a datagram is read at all: one of a session that sends too many isn't.
    pub(super) fn is_read(&self, asker: Asker) -> bool {
        let Some(session) = self.gate.session_of(asker) else { return true };
        let counted = self.limits.arrive(session, Instant::now());
        if let Err(hit) = counted {
            self.tell_of(hit, About { asker: Some(asker), ..About::default() });
        }
        counted.is_ok()
    }

    /// The reply to a message, if it wants one.
    pub(super) async fn reply(&self, asker: Asker, message: &[u8]) -> Option<Reply> {
        let query = match Query::read(message) {
            Ok(query) => query,
            Err(Unreadable::Silence) => return None,
            Err(Unreadable::Reply(bytes)) => return Some(Reply { bytes, session: None }),
        };
        let room = match asker.protocol {
            Transport::Udp => Room::Datagram,
            Transport::Tcp => Room::Stream,
        };
        let (body, session) = self.body(asker, &query).await;
        Some(Reply { bytes: query.reply(&body, room), session })
    }

    async fn body(&self, asker: Asker, query: &Query) -> (Body, Option<SessionId>) {
        let name = match query.name() {
            Ok(name) => name,
            Err(shown) => {
                self.gate.tell(About { asker: Some(asker), ..About::default() }, Event::NoHostName(shown));
                return (Body::Code(ResponseCode::Refused), None);
            }
        };
        let question = Question { name, kind: query.kind() };
        let ticket = match self.gate.ask(asker, &question).await {
            Admission::Admitted(ticket) => ticket,
            Admission::Refused(refusal) => return (refused(&refusal), None),
        };
        let about = About { asker: Some(asker), name: Some(&question.name), ticket: Some(&ticket) };
        let body = self.admitted(about, &ticket, &question).await;
        (body, Some(ticket.session))
    }

    async fn admitted(&self, about: About<'_>, ticket: &Ticket, question: &Question) -> Body {
        let place = match self.limits.enter(ticket, &question.name, Instant::now()) {
            Ok(place) => place,
            Err(hit) => {
                self.tell_of(hit, about);
                return refused(&Refusal::Limited);
            }
        };
        // The answer to any other kind could carry anything, and the question too.
        if let Kind::Other(_) = question.kind {
            return Body::Code(ResponseCode::NoError);
        }
        let found = {
            let Some(_turn) = place.turn().await else { return refused(&Refusal::Limited) };
            self.upstream.look_up(question).await
        };
        match found {
            Ok(Found::Addresses(answers)) => self.opened(about, ticket, question, answers).await,
            Ok(Found::Bindings(bindings)) => Body::Bindings(bindings),
            Ok(Found::Nothing) => Body::Code(ResponseCode::NoError),
            Ok(Found::NoName) => Body::Code(ResponseCode::NXDomain),
            Err(cause) => {
                self.gate.tell(about, Event::UpstreamFailed(cause));
                Body::Code(ResponseCode::ServFail)
            }
        }
    }

    /// The addresses that the name may have, once their doors are open.
    async fn opened(
        &self,
        about: About<'_>,
        ticket: &Ticket,
        question: &Question,
        answers: Vec<Answer>,
    ) -> Body {
        let (allowed, refused_ones): (Vec<_>, Vec<_>) =
            answers.into_iter().partition(|answer| is_allowed(answer.address, ticket.allow_private));
        if allowed.is_empty() {
            let addresses = refused_ones.into_iter().map(|answer| answer.address).collect();
            self.gate.tell(about, Event::Rebinding(addresses));
            return Body::Code(ResponseCode::ServFail);
        }
        match self.gate.open(ticket, question, allowed).await {
            Ok(opened) if opened.is_empty() => Body::Code(ResponseCode::ServFail),
            Ok(opened) => Body::Addresses(opened),
            Err(refusal) => refused(&refusal),
        }
    }

    /// A limit that everybody shares was hit.
    pub(super) fn tell_of_overload(&self) {
        self.tell_of(self.limits.total(Instant::now()), About::default());
    }

    fn tell_of(&self, hit: Hit, about: About<'_>) {
        if hit.is_news {
            self.gate.tell(about, Event::Limited(hit.limit));
        }
    }

    /// Forgets what is no longer needed. To be called now and then.
    pub(super) fn sweep(&self) {
        self.limits.sweep(Instant::now());
    }
}

fn refused(refusal: &Refusal) -> Body {
    Body::Code(match refusal {
        Refusal::Unlisted => ResponseCode::NXDomain,
        Refusal::Closed | Refusal::NotInSession => ResponseCode::Refused,
        Refusal::Limited | Refusal::Unavailable(_) => ResponseCode::ServFail,
    })
}
