//! What the kernel side reports, and the heartbeat that it waits for.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use sentinel_authority::Log;
use sentinel_engine::{Attempt, Event, ScopeId};
use sentinel_proto::SessionId;
use sentinel_proto::admin::{Notice, Reply};

use super::Driver;
use super::actions::MOST_LEDGER_BYTES;
use super::sessions::Session;
use crate::clock::Clock;
use crate::denials::{Repeats, as_denial};
use crate::enforcer::records::{self, Circumstances};
use crate::enforcer::{Enforcer, KernelRecord};

/// How often the heartbeat is written, and everything looked after that has no event.
pub(super) const BEAT_EVERY: Duration = Duration::from_secs(1);

/// Processes of a session whose working folder a relative path is looked for in.
const MOST_FOLDERS: usize = 16;

/// Records that are taken at once.
const MOST_RECORDS: usize = 256;

impl<L: Log, E: Enforcer, C: Clock> Driver<L, E, C> {
    /// Does what is due by now: heartbeat, expiries, repeats of denials, lost records, sessions that are over.
    pub(super) fn tick(&mut self) {
        let now = self.clock.now().elapsed;
        if self.expires_at.is_some_and(|expires_at| expires_at <= now) {
            match self.step(Event::Tick) {
                Ok(step) => self.shut(&step.effects),
                // The kernel side shuts expired doors by itself.
                Err(_reported) => {}
            }
            self.expires_at = self.authority.state().next_deadline();
        }
        self.rotate(false);
        if now < self.beats_at {
            return;
        }
        self.beats_at = now.saturating_add(BEAT_EVERY);
        if let Err(error) = self.enforcer.beat(now) {
            tracing::error!(%error, "the heartbeat was not written; doors shut within seconds");
        }
        self.drain_records();
        self.tell_dropped();
        if let Err(error) = self.enforcer.sweep_names() {
            tracing::error!(%error, "an address that hosts share may be open longer than one of them says");
        }
        for repeats in self.denials.due(now) {
            self.tell_repeats(repeats);
        }
        self.end_exited();
        self.bind_cgroups();
        self.end_strays();
        self.examine_if_due();
        self.rotate(self.authority.log().was_moved());
        let baselines: Vec<_> = self.authority.baselines(self.clock.now()).collect();
        self.shut(&baselines);
    }

    /// Begins a new part of the ledger when the old one is large enough, or somebody has moved it away.
    fn rotate(&mut self, is_due: bool) {
        let now = self.clock.now();
        match self.authority.rotate_if(is_due, now) {
            Ok(true) => {
                tracing::info!(seq = self.authority.last_seq(), "a new part of the ledger has begun");
                self.unsynced_since.get_or_insert_with(tokio::time::Instant::now);
            }
            Ok(false) => {}
            Err(error) => {
                tracing::error!(%error, "no new part of the ledger could be begun; the old one goes on")
            }
        }
    }

    /// Takes what the hooks have reported.
    pub(super) fn drain_records(&mut self) {
        loop {
            let mut taken = std::mem::take(&mut self.records);
            taken.clear();
            self.enforcer.drain_records(&mut taken, MOST_RECORDS);
            for record in &taken {
                self.on_record(record);
            }
            let is_drained = taken.len() < MOST_RECORDS;
            self.records = taken;
            if is_drained {
                return;
            }
        }
    }

    fn on_record(&mut self, record: &KernelRecord) {
        let id = SessionId(record.session);
        let Some(session) = self.sessions.get(&id) else {
            tracing::warn!(session = %id, pid = record.tgid, "the kernel side reports on a session that is none");
            return;
        };
        let mut around = self.circumstances(id, session, &record.scopes);
        if records::is_relative(record) {
            around.folders = working_folders(session);
        }
        around.hosts = self.enforcer.names_of(id, records::address(record));
        let attempt = records::describe(record, &around);
        self.count_attempt(id, record.tgid, Duration::from_nanos(record.at), attempt);
    }

    /// Counts what a process of a session was refused, and tells the first of its kind.
    pub(super) fn count_attempt(&mut self, session: SessionId, pid: u32, at: Duration, attempt: Attempt) {
        if let Some(first) = self.denials.count(session, attempt.clone()) {
            self.tell_first(session, first);
        }
        self.denials.remember(pid, at, session, &attempt);
    }

    /// What a refusal is seen against: the actions in flight are those for whoever met it, for what was reported is taken
    /// before what an application says next.
    pub(super) fn circumstances<'a>(
        &'a self,
        id: SessionId,
        session: &'a Session,
        scopes: &[u64],
    ) -> Circumstances<'a> {
        let state = self.authority.state();
        let mut in_flight = Vec::new();
        for scope in scopes.iter().take_while(|scope| **scope != 0) {
            let of_scope = state.actions_of_scope(ScopeId(*scope)).filter(|(_, action)| action.session == id);
            let mut of_scope: Vec<_> =
                of_scope.map(|(_, action)| (action.started, action.action.as_str())).collect();
            of_scope.sort_by_key(|(started, _)| std::cmp::Reverse(*started));
            for (_, action) in of_scope {
                if !in_flight.contains(&action) {
                    in_flight.push(action);
                }
            }
        }
        Circumstances {
            policy: &session.rules,
            in_flight,
            user: state.uid_of(id).and_then(|uid| session.user(uid)),
            folders: Vec::new(),
            hosts: Vec::new(),
        }
    }

    /// The first of a kind: into the ledger, and to the launcher's terminal.
    fn tell_first(&mut self, session: SessionId, attempt: Attempt) {
        let event = Event::KernelDenied { session, attempt: Box::new(attempt.clone()), count: 1 };
        if self.authority.log().bytes_of(session) > MOST_LEDGER_BYTES {
            // It is refused all the same.
            return;
        }
        let Ok(step) = self.step(event) else {
            return self.denials.not_told(session, &attempt);
        };
        let id = step.ids.first().map(ToString::to_string).unwrap_or_default();
        self.denials.told(session, &attempt, &id);
        if let Some(launcher) = self.sessions.get(&session).and_then(|session| session.launcher.as_ref()) {
            let notice = Notice {
                process: attempt.process.clone(),
                pid: attempt.pid,
                denial: as_denial(&attempt, id),
            };
            launcher.send(&Reply::Notice(Box::new(notice)));
        }
    }

    fn tell_repeats(&mut self, repeats: Repeats) {
        let Repeats { session, attempt, count } = repeats.clone();
        if self.step(Event::KernelDenied { session, attempt: Box::new(attempt), count }).is_err() {
            self.denials.put_back(&repeats);
        }
    }

    /// Tells what has not been told of a session that ends.
    pub(super) fn tell_last_repeats(&mut self, session: SessionId) {
        for repeats in self.denials.end(session) {
            self.tell_repeats(repeats);
        }
    }

    fn tell_dropped(&mut self) {
        match self.enforcer.dropped_records() {
            Ok(dropped) if dropped > self.dropped => {
                let count = dropped.saturating_sub(self.dropped);
                if self.step(Event::RecordsDropped { count }).is_ok() {
                    self.dropped = dropped;
                }
            }
            Ok(_) => {}
            Err(error) => tracing::error!(%error, "the counters of lost records can't be read"),
        }
    }
}

/// Where the processes of a session work, as far as that can be seen.
fn working_folders(session: &Session) -> Vec<PathBuf> {
    let pids = session.cgroup.processes().unwrap_or_default();
    let folders =
        pids.iter().take(MOST_FOLDERS).filter_map(|pid| std::fs::read_link(format!("/proc/{pid}/cwd")).ok());
    let folders: BTreeSet<PathBuf> = folders.collect();
    folders.into_iter().collect()
}
