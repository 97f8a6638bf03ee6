//! What the kernel refused, as it is told: the first of a kind at once, its repeats as counts.
//!
//! Invariant: nothing is dropped without being counted, and no session can make this grow: kinds beyond
//! [`MOST_KINDS`] are counted as one, processes beyond [`MOST_PROCESSES`] push the oldest out.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::Duration;

use sentinel_engine::Attempt;
use sentinel_proto::SessionId;
use sentinel_proto::app::KernelDenial;

/// Kinds of denials that a session has told apart.
pub const MOST_KINDS: usize = 512;
/// Processes whose recent denials are kept.
pub const MOST_PROCESSES: usize = 256;
/// Recent denials that are kept of a process.
pub const MOST_RECENT: usize = 16;
/// How often repeats are written.
pub const REPEATS_EVERY: Duration = Duration::from_secs(10);

/// What makes two denials the same.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Kind {
    operation: String,
    target: String,
    verdict: String,
    /// Without its note. What would allow it in an action allows nothing elsewhere: that is told anew.
    would_allow: String,
}

/// A kind of denials, and what has come since it was last told.
#[derive(Debug)]
struct Told {
    /// The latest.
    attempt: Attempt,
    /// How many have not been told.
    untold: u64,
    /// How `sentinel why` finds the first.
    id: String,
}

/// The denials of one session.
#[derive(Debug, Default)]
struct OfSession {
    kinds: BTreeMap<Kind, Told>,
    total: u64,
}

/// Repeats of one kind, to be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Repeats {
    /// In which session.
    pub session: SessionId,
    /// The latest of them.
    pub attempt: Attempt,
    /// How many there were.
    pub count: u64,
}

/// All denials that are not only in the ledger.
#[derive(Debug, Default)]
pub struct Denials {
    sessions: HashMap<SessionId, OfSession>,
    recent: HashMap<u32, VecDeque<(Duration, KernelDenial)>>,
    /// The processes in `recent`, longest known first.
    processes: VecDeque<u32>,
    told_at: Duration,
}

impl Denials {
    /// None so far, at that time.
    #[must_use]
    pub fn new(now: Duration) -> Self {
        Self { told_at: now, ..Self::default() }
    }

    /// Counts a denial. The first of its kind comes back: it is to be told now, and [`Denials::told`] be called then.
    /// One that finds no room is told and counted as the kind `other`.
    #[must_use]
    pub fn count(&mut self, session: SessionId, attempt: Attempt) -> Option<Attempt> {
        let of_session = self.sessions.entry(session).or_default();
        of_session.total = of_session.total.saturating_add(1);
        if let Some(told) = of_session.kinds.get_mut(&Kind::of(&attempt)) {
            told.untold = told.untold.saturating_add(1);
            told.attempt = attempt;
            return None;
        }
        let is_full = of_session.kinds.len() >= MOST_KINDS;
        let attempt = if is_full { other(attempt) } else { attempt };
        if let Some(told) = of_session.kinds.get_mut(&Kind::of(&attempt)) {
            told.untold = told.untold.saturating_add(1);
            return None;
        }
        let told = Told { attempt: attempt.clone(), untold: 0, id: String::new() };
        of_session.kinds.insert(Kind::of(&attempt), told);
        Some(attempt)
    }

    /// Remembers how `sentinel why` finds the first of a kind.
    pub fn told(&mut self, session: SessionId, attempt: &Attempt, id: &str) {
        let kinds = self.sessions.get_mut(&session).map(|of_session| &mut of_session.kinds);
        if let Some(told) = kinds.and_then(|kinds| kinds.get_mut(&Kind::of(attempt))) {
            id.clone_into(&mut told.id);
        }
    }

    /// Takes back that the first of a kind was told, for it could not be: the next one is the first again.
    pub fn not_told(&mut self, session: SessionId, attempt: &Attempt) {
        if let Some(of_session) = self.sessions.get_mut(&session) {
            of_session.kinds.remove(&Kind::of(attempt));
        }
    }

    /// Remembers a denial for the process that met it.
    pub fn remember(&mut self, pid: u32, at: Duration, session: SessionId, attempt: &Attempt) {
        let kinds = self.sessions.get(&session).map(|of_session| &of_session.kinds);
        let told = kinds.and_then(|kinds| {
            kinds.get(&Kind::of(attempt)).or_else(|| kinds.get(&Kind::of(&other(attempt.clone()))))
        });
        let denial = as_denial(attempt, told.map(|told| told.id.clone()).unwrap_or_default());
        if !self.recent.contains_key(&pid) {
            while self.processes.len() >= MOST_PROCESSES {
                let Some(oldest) = self.processes.pop_front() else { break };
                self.recent.remove(&oldest);
            }
            self.processes.push_back(pid);
        }
        let recent = self.recent.entry(pid).or_default();
        if recent.len() >= MOST_RECENT {
            recent.pop_front();
        }
        recent.push_back((at, denial));
    }

    /// What a process met since then, newest last.
    #[must_use]
    pub fn recent(&self, pid: u32, since: Duration) -> Vec<KernelDenial> {
        let recent = self.recent.get(&pid).into_iter().flatten();
        recent.filter(|(at, _)| *at >= since).map(|(_, denial)| denial.clone()).collect()
    }

    /// How many denials a session has met.
    #[must_use]
    pub fn total(&self, session: SessionId) -> u64 {
        self.sessions.get(&session).map_or(0, |of_session| of_session.total)
    }

    /// The repeats of all sessions, if it is time to tell them.
    #[must_use]
    pub fn due(&mut self, now: Duration) -> Vec<Repeats> {
        if now.saturating_sub(self.told_at) < REPEATS_EVERY {
            return Vec::new();
        }
        self.told_at = now;
        let mut due = Vec::new();
        for (session, of_session) in &mut self.sessions {
            take_repeats(*session, of_session, &mut due);
        }
        due
    }

    /// Puts repeats back that could not be told.
    pub fn put_back(&mut self, repeats: &Repeats) {
        let kinds = self.sessions.get_mut(&repeats.session).map(|of_session| &mut of_session.kinds);
        if let Some(told) = kinds.and_then(|kinds| kinds.get_mut(&Kind::of(&repeats.attempt))) {
            told.untold = told.untold.saturating_add(repeats.count);
        }
    }

    /// Forgets a session; its repeats come back, to be told now.
    #[must_use]
    pub fn end(&mut self, session: SessionId) -> Vec<Repeats> {
        let mut due = Vec::new();
        if let Some(mut of_session) = self.sessions.remove(&session) {
            take_repeats(session, &mut of_session, &mut due);
        }
        due
    }
}

impl Kind {
    fn of(attempt: &Attempt) -> Self {
        let Attempt { operation, target, verdict, would_allow, .. } = attempt;
        Self {
            operation: operation.clone(),
            target: target.clone(),
            verdict: verdict.clone(),
            would_allow: without_note(would_allow.as_deref()).to_owned(),
        }
    }
}

fn take_repeats(session: SessionId, of_session: &mut OfSession, due: &mut Vec<Repeats>) {
    for told in of_session.kinds.values_mut().filter(|told| told.untold > 0) {
        let count = std::mem::take(&mut told.untold);
        due.push(Repeats { session, attempt: told.attempt.clone(), count });
    }
}

/// What stands for all kinds that find no room.
fn other(attempt: Attempt) -> Attempt {
    Attempt {
        operation: "other".to_owned(),
        target: format!("more than {MOST_KINDS} different kinds"),
        verdict: "other".to_owned(),
        would_allow: None,
        ..attempt
    }
}

/// What would allow a denial, without what is noted behind it; nothing where nothing would.
#[must_use]
pub fn without_note(would_allow: Option<&str>) -> &str {
    would_allow.and_then(|text| text.split("  # ").next()).unwrap_or_default()
}

/// A denial in the words of the wire.
#[must_use]
pub fn as_denial(attempt: &Attempt, id: String) -> KernelDenial {
    let Attempt { operation, target, fate, would_allow, .. } = attempt;
    let attempt = match operation.as_str() {
        "connect" => format!("connect to {target}"),
        "sendmsg" => format!("send to {target}"),
        "socket" => format!("create a socket of {target}"),
        operation => format!("{operation} {target}").trim_end().to_owned(),
    };
    KernelDenial { id, attempt, fate: fate.clone(), would_allow: would_allow.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SESSION: SessionId = SessionId(7);

    fn attempt(target: &str) -> Attempt {
        Attempt {
            operation: "connect".to_owned(),
            target: target.to_owned(),
            verdict: "no_rule".to_owned(),
            fate: "refused".to_owned(),
            process: "curl".to_owned(),
            pid: 10,
            would_allow: None,
        }
    }

    #[test]
    fn the_first_of_a_kind_is_told_at_once_and_repeats_are_told_as_a_count() {
        let mut denials = Denials::default();
        assert!(denials.count(SESSION, attempt("192.0.2.1:443/tcp")).is_some());
        for _ in 0..41 {
            assert!(denials.count(SESSION, attempt("192.0.2.1:443/tcp")).is_none());
        }
        assert!(
            denials.count(SESSION, attempt("192.0.2.2:443/tcp")).is_some(),
            "another target is another kind"
        );
        let due = denials.due(REPEATS_EVERY);
        assert_eq!(due, [Repeats { session: SESSION, attempt: attempt("192.0.2.1:443/tcp"), count: 41 }]);
        assert!(denials.due(REPEATS_EVERY * 2).is_empty(), "told once");
        assert_eq!(denials.total(SESSION), 43);
    }

    #[test]
    fn what_another_line_would_allow_is_another_kind_and_what_is_noted_behind_it_is_not() {
        let mut denials = Denials::default();
        let in_action = |note: &str| {
            let text =
                format!("actions:\n  fetch:\n    grants:\n      network:\n        - \"192.0.2.1:443\"{note}");
            Attempt { would_allow: Some(text), ..attempt("192.0.2.1:443/tcp") }
        };
        assert!(denials.count(SESSION, attempt("192.0.2.1:443/tcp")).is_some());
        assert!(denials.count(SESSION, in_action("")).is_some());
        assert!(
            denials.count(SESSION, in_action("  # or to another action that was in flight: `a`")).is_none()
        );
    }

    #[test]
    fn repeats_are_told_every_ten_seconds_and_when_the_session_ends() {
        let mut denials = Denials::default();
        let _first = denials.count(SESSION, attempt("a"));
        let _repeat = denials.count(SESSION, attempt("a"));
        assert!(denials.due(REPEATS_EVERY - Duration::from_millis(1)).is_empty(), "not yet");
        assert_eq!(denials.end(SESSION).first().map(|repeats| repeats.count), Some(1));
        assert!(denials.count(SESSION, attempt("a")).is_some(), "forgotten with the session");
    }

    #[test]
    fn kinds_without_end_are_counted_as_other() {
        let mut denials = Denials::default();
        let first =
            |denials: &mut Denials, number: usize| denials.count(SESSION, attempt(&number.to_string()));
        assert!((0..MOST_KINDS).all(|number| first(&mut denials, number).is_some()));
        assert_eq!(first(&mut denials, MOST_KINDS).unwrap().operation, "other");
        for number in MOST_KINDS + 1..MOST_KINDS * 3 {
            assert!(first(&mut denials, number).is_none());
        }
        let counted: u64 = denials.due(REPEATS_EVERY).iter().map(|repeats| repeats.count).sum();
        assert_eq!(counted, u64::try_from(MOST_KINDS * 2 - 1).unwrap(), "and none is lost");
    }

    #[test]
    fn what_could_not_be_told_is_told_later() {
        let mut denials = Denials::default();
        let first = denials.count(SESSION, attempt("a")).unwrap();
        denials.not_told(SESSION, &first);
        assert!(denials.count(SESSION, attempt("a")).is_some());
        let _repeat = denials.count(SESSION, attempt("a"));
        let due = denials.due(REPEATS_EVERY);
        denials.put_back(&due[0]);
        assert_eq!(denials.due(REPEATS_EVERY * 2), due);
    }

    #[test]
    fn a_process_is_told_its_own_recent_denials_newest_last_and_a_bounded_number() {
        let mut denials = Denials::default();
        for number in 0..20 {
            let attempt = attempt(&number.to_string());
            let first = denials.count(SESSION, attempt.clone()).unwrap();
            denials.told(SESSION, &first, &format!("id-{number}"));
            denials.remember(10, Duration::from_secs(number), SESSION, &attempt);
        }
        let recent = denials.recent(10, Duration::from_secs(18));
        let ids: Vec<&str> = recent.iter().map(|denial| denial.id.as_str()).collect();
        assert_eq!(ids, ["id-18", "id-19"]);
        assert_eq!(recent[1].attempt, "connect to 19");
        assert_eq!(denials.recent(10, Duration::ZERO).len(), MOST_RECENT);
        assert!(denials.recent(11, Duration::ZERO).is_empty());
        for pid in 100..=100 + u32::try_from(MOST_PROCESSES).unwrap() {
            denials.remember(pid, Duration::ZERO, SESSION, &attempt("a"));
        }
        assert!(denials.recent(10, Duration::ZERO).is_empty(), "the oldest made room");
    }
}
