//! How much each session may ask.
//!
//! Invariant: what one session uses up is its own, and what is remembered of all of them is bounded. When a limit can't be counted, it
//! counts as hit.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher as _, RandomState};
use std::rc::Rc;
use std::time::{Duration, Instant};

use sentinel_proto::{HostName, SessionId};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{Limit, Ticket};

/// Questions a second in the long run: far more than any client asks that keeps its answers.
const RATE: u64 = 500;
/// Questions at once: what starts with a burst of lookups isn't a flood yet.
const BURST: u64 = 1000;
/// So many times as many datagrams are read of a session at all: what is beyond that is dropped before it costs anything.
const READ_TIMES: u64 = 2;
/// Questions that are with an upstream at a time.
const MOST_IN_FLIGHT: usize = 32;
/// Questions that are with an upstream or wait for that.
const MOST_ADMITTED: usize = 256;
/// Names that only a wildcard lists and that are new, in a window: each carries some bytes of the session's choice to its zone's servers.
const MOST_NEW_NAMES: u32 = 60;
/// How many of these names are known again.
const MOST_KNOWN_NAMES: usize = 1024;
/// The window of the new names, and of telling.
const WINDOW: Duration = Duration::from_secs(60);
/// Sessions that are counted at a time.
const MOST_SESSIONS: usize = 4096;
/// A session that hasn't asked for so long is forgotten: its bucket is full again, and its window over.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(300);

const NANOS_A_SECOND: u64 = 1_000_000_000;

/// The accounts of all sessions.
#[derive(Debug, Default)]
pub(super) struct Limits {
    accounts: RefCell<Accounts>,
    names: RandomState,
}

#[derive(Debug, Default)]
struct Accounts {
    of: HashMap<SessionId, Account>,
    told_of_all: Option<Instant>,
}

#[derive(Debug)]
struct Account {
    seen: Instant,
    bucket: Bucket,
    arrivals: Bucket,
    in_flight: Rc<InFlight>,
    window: Instant,
    new_names: u32,
    known_names: HashSet<u64>,
    told: Vec<(Limit, Instant)>,
}

#[derive(Debug)]
struct InFlight {
    admitted: std::sync::Arc<Semaphore>,
    upstream: Semaphore,
}

/// A limit that was hit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Hit {
    pub(super) limit: Limit,
    /// Whether it is for the first time in a window.
    pub(super) is_news: bool,
}

/// A question's place among those of its session, until it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    in_flight: Rc<InFlight>,
    _admitted: OwnedSemaphorePermit,
}

impl Place {
    /// Waits until the session's questions leave room for another one upstream. It does until the permit is dropped.
    pub(super) async fn turn(&self) -> Option<tokio::sync::SemaphorePermit<'_>> {
        // Nobody closes the semaphore; without a turn there is no question.
        self.in_flight.upstream.acquire().await.ok()
    }
}

impl Limits {
    /// Counts a datagram of a session, whatever is in it.
    ///
    /// # Errors
    /// It is too much.
    pub(super) fn arrive(&self, session: SessionId, now: Instant) -> Result<(), Hit> {
        let mut accounts = self.accounts.borrow_mut();
        let account = accounts.of(session, now)?;
        if account.arrivals.take(now) { Ok(()) } else { Err(account.hit(Limit::Rate, now)) }
    }

    /// Counts a question.
    ///
    /// # Errors
    /// It is too much.
    pub(super) fn enter(&self, ticket: &Ticket, name: &HostName, now: Instant) -> Result<Place, Hit> {
        let mut accounts = self.accounts.borrow_mut();
        let account = accounts.of(ticket.session, now)?;
        if !account.bucket.take(now) {
            return Err(account.hit(Limit::Rate, now));
        }
        if ticket.is_wildcard && !account.knows(self.names.hash_one(name), now) {
            return Err(account.hit(Limit::NewNames, now));
        }
        match std::sync::Arc::clone(&account.in_flight.admitted).try_acquire_owned() {
            Ok(admitted) => Ok(Place { in_flight: Rc::clone(&account.in_flight), _admitted: admitted }),
            Err(_full) => Err(account.hit(Limit::InFlight, now)),
        }
    }

    /// A limit that everybody shares was hit.
    pub(super) fn total(&self, now: Instant) -> Hit {
        self.accounts.borrow_mut().total(now)
    }

    /// Forgets who hasn't asked for long.
    pub(super) fn sweep(&self, now: Instant) {
        self.accounts.borrow_mut().of.retain(|_, account| !account.is_forgotten(now));
    }
}

impl Accounts {
    /// The account of a session, who asks now.
    fn of(&mut self, session: SessionId, now: Instant) -> Result<&mut Account, Hit> {
        if !self.of.contains_key(&session) && self.of.len() >= MOST_SESSIONS {
            self.of.retain(|_, account| !account.is_forgotten(now));
            if self.of.len() >= MOST_SESSIONS {
                return Err(self.total(now));
            }
        }
        let account = self.of.entry(session).or_insert_with(|| Account::new(now));
        account.seen = now;
        Ok(account)
    }

    fn total(&mut self, now: Instant) -> Hit {
        let is_news = self.told_of_all.is_none_or(|told| now.saturating_duration_since(told) >= WINDOW);
        if is_news {
            self.told_of_all = Some(now);
        }
        Hit { limit: Limit::Total, is_news }
    }
}

impl Account {
    fn new(now: Instant) -> Self {
        let in_flight = InFlight {
            admitted: std::sync::Arc::new(Semaphore::new(MOST_ADMITTED)),
            upstream: Semaphore::new(MOST_IN_FLIGHT),
        };
        Self {
            seen: now,
            bucket: Bucket::full(1, now),
            arrivals: Bucket::full(READ_TIMES, now),
            in_flight: Rc::new(in_flight),
            window: now,
            new_names: 0,
            known_names: HashSet::new(),
            told: Vec::new(),
        }
    }

    /// Whether the name is known, or may become so.
    fn knows(&mut self, name: u64, now: Instant) -> bool {
        if self.known_names.contains(&name) {
            return true;
        }
        if now.saturating_duration_since(self.window) >= WINDOW {
            self.window = now;
            self.new_names = 0;
        }
        if self.new_names >= MOST_NEW_NAMES {
            return false;
        }
        self.new_names = self.new_names.saturating_add(1);
        if self.known_names.len() >= MOST_KNOWN_NAMES {
            self.known_names.clear();
        }
        self.known_names.insert(name);
        true
    }

    fn hit(&mut self, limit: Limit, now: Instant) -> Hit {
        self.told.retain(|(_, told)| now.saturating_duration_since(*told) < WINDOW);
        let is_news = !self.told.iter().any(|(known, _)| *known == limit);
        if is_news {
            self.told.push((limit, now));
        }
        Hit { limit, is_news }
    }

    fn is_forgotten(&self, now: Instant) -> bool {
        let is_idle = self.in_flight.admitted.available_permits() == MOST_ADMITTED;
        is_idle && now.saturating_duration_since(self.seen) >= FORGOTTEN_AFTER
    }
}

/// A token bucket, in nanoseconds of credit.
#[derive(Debug)]
struct Bucket {
    credit: u64,
    /// How many times as fast as a session's questions it fills.
    times: u64,
    counted: Instant,
}

impl Bucket {
    const A_QUESTION: u64 = NANOS_A_SECOND / RATE;
    const FULL: u64 = Self::A_QUESTION * BURST;

    const fn full(times: u64, now: Instant) -> Self {
        Self { credit: Self::FULL.saturating_mul(times), times, counted: now }
    }

    fn take(&mut self, now: Instant) -> bool {
        let passed = now.saturating_duration_since(self.counted).as_nanos();
        self.counted = self.counted.max(now);
        let earned = u64::try_from(passed).unwrap_or(u64::MAX).saturating_mul(self.times);
        let credit = self.credit.saturating_add(earned).min(Self::FULL.saturating_mul(self.times));
        match credit.checked_sub(Self::A_QUESTION) {
            Some(rest) => {
                self.credit = rest;
                true
            }
            None => {
                self.credit = credit;
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ticket(session: u32, is_wildcard: bool) -> Ticket {
        Ticket { session: SessionId(session), allow_private: false, is_wildcard, pid: 1, scopes: [0; 4] }
    }

    fn name(index: usize) -> HostName {
        HostName::parse(&format!("n{index}.example")).unwrap()
    }

    fn after(start: Instant, seconds: u64) -> Instant {
        start.checked_add(Duration::from_secs(seconds)).unwrap()
    }

    #[test]
    fn a_session_asks_a_burst_at_once_and_then_at_its_rate() {
        let (limits, start) = (Limits::default(), Instant::now());
        let ask = |now| limits.enter(&ticket(1, false), &name(0), now).map(drop);
        assert_eq!((0..2000).filter(|_| ask(start).is_ok()).count(), 1000);
        assert_eq!(ask(start), Err(Hit { limit: Limit::Rate, is_news: false }));
        assert_eq!((0..2000).filter(|_| ask(after(start, 1)).is_ok()).count(), 500);
        assert!(limits.enter(&ticket(2, false), &name(0), start).is_ok());
    }

    #[test]
    fn of_a_session_twice_as_many_datagrams_are_read_and_no_more() {
        let (limits, start) = (Limits::default(), Instant::now());
        let read = |now| (0..5000).filter(|_| limits.arrive(SessionId(1), now).is_ok()).count();
        assert_eq!((read(start), read(after(start, 1))), (2000, 1000));
        assert!(limits.arrive(SessionId(2), start).is_ok());
    }

    #[test]
    fn a_limit_is_news_once_in_a_window() {
        let (limits, start) = (Limits::default(), Instant::now());
        let hit = |now| loop {
            if let Err(hit) = limits.enter(&ticket(1, false), &name(0), now) {
                return hit;
            }
        };
        assert!(hit(start).is_news);
        assert!(!hit(after(start, 59)).is_news);
        assert!(hit(after(start, 60)).is_news);
        assert!(limits.total(start).is_news && !limits.total(start).is_news);
        assert!(limits.total(after(start, 60)).is_news);
    }

    #[test]
    fn new_names_under_a_wildcard_are_counted_and_known_ones_are_free() {
        let (limits, start) = (Limits::default(), Instant::now());
        let ask =
            |index, now| limits.enter(&ticket(1, true), &name(index), now).map(drop).map_err(|hit| hit.limit);
        assert_eq!((0..100).filter(|index| ask(*index, start).is_ok()).count(), 60);
        assert_eq!(ask(60, start), Err(Limit::NewNames));
        assert_eq!(ask(0, start), Ok(()));
        assert_eq!(ask(60, after(start, 60)), Ok(()));
        // Names that the policy spells out carry nothing of the session's choice.
        assert!((0..100).all(|index| limits.enter(&ticket(2, false), &name(index), start).is_ok()));
    }

    #[test]
    fn a_sessions_unanswered_questions_are_bounded_and_leave_others_room() {
        let (limits, start) = (Limits::default(), Instant::now());
        let mut places: Vec<_> =
            (0..256).map(|_| limits.enter(&ticket(1, false), &name(0), start).unwrap()).collect();
        let hit = limits.enter(&ticket(1, false), &name(0), start).unwrap_err();
        assert_eq!(hit.limit, Limit::InFlight);
        assert!(limits.enter(&ticket(2, false), &name(0), start).is_ok());
        places.pop();
        assert!(limits.enter(&ticket(1, false), &name(0), start).is_ok());
    }

    #[tokio::test]
    async fn only_so_many_of_them_are_upstream_at_a_time() {
        let (limits, start) = (Limits::default(), Instant::now());
        let places: Vec<_> =
            (0..40).map(|_| limits.enter(&ticket(1, false), &name(0), start).unwrap()).collect();
        let mut turns = Vec::new();
        for place in places.iter().take(32) {
            turns.push(place.turn().await.unwrap());
        }
        let mut waiting = std::pin::pin!(places[32].turn());
        let poll = |future: std::pin::Pin<&mut _>| futures_poll(future);
        assert!(!poll(waiting.as_mut()));
        turns.pop();
        assert!(poll(waiting.as_mut()));
    }

    /// Whether the future is done.
    fn futures_poll<T>(future: std::pin::Pin<&mut impl Future<Output = T>>) -> bool {
        future.poll(&mut std::task::Context::from_waker(std::task::Waker::noop())).is_ready()
    }

    #[test]
    fn as_many_sessions_are_counted_as_there_is_room_for_and_idle_ones_make_room() {
        let (limits, start) = (Limits::default(), Instant::now());
        for session in 0..4096 {
            drop(limits.enter(&ticket(session, false), &name(0), start).unwrap());
        }
        let busy = limits.enter(&ticket(0, false), &name(0), start).unwrap();
        let hit = limits.enter(&ticket(9999, false), &name(0), start).unwrap_err();
        assert_eq!(hit, Hit { limit: Limit::Total, is_news: true });
        assert!(limits.enter(&ticket(9999, false), &name(0), after(start, 300)).is_ok());
        assert_eq!(limits.accounts.borrow().of.len(), 2);
        drop(busy);
        limits.sweep(after(start, 600));
        assert_eq!(limits.accounts.borrow().of.len(), 0);
    }
}
