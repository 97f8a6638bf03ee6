//! The [`Enforcer`] of this host's kernel: programs and maps that are pinned, and so outlive the agent.
//!
//! Invariant: a start adopts what an earlier agent left that meant the same by its maps, or ends it; a clean end leaves nothing; any other end leaves every hook
//! in place, and nothing that is leased open. What is adopted never was off.

#[cfg(test)]
mod for_tests;
mod start;

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::net::IpAddr;
use std::num::NonZeroU16;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use aya::maps::MapError;
use sentinel_ebpf_common::{GRANTS, OWNED_BY_AGENT, Protected, Resolver, Scope, Session, TaskMark};
use sentinel_engine::{GrantSet, Opening, Policy, ScopeId};
use sentinel_proto::examination::Examination;
use sentinel_proto::{HostName, SessionId};

use super::bound::{self, Bound};
use super::connections::Connections;
use super::hooks::Hooks;
use super::loaded::{Loaded, forget};
use super::maps::{Askers, EXISTING, Maps, Records};
use super::named::{Room, share};
use super::told::ToldAddress;
use super::{
    Enforcement, Enforcer, EnforcerError, FirstImage, KernelRecord, Mark, Places, identities, leftovers,
    mountinfo, netns, places, probe, records,
};
use crate::{clock, peer};

/// Enforces at the best tier of this host.
pub struct EbpfEnforcer {
    enforcement: Enforcement,
    places: Places,
    hooks: Hooks,
    maps: Maps,
    records: Records,
    sessions: BTreeMap<SessionId, Loaded>,
    /// How many doors by name all of these have.
    named_doors: usize,
    bound: BTreeMap<SessionId, Bound>,
    /// Reports that were taken out of the ring buffer before their turn.
    taken: VecDeque<KernelRecord>,
    connections: Connections,
    /// Keep the numbers of what is protected from being given to other files.
    own: Vec<OwnedFd>,
}

impl EbpfEnforcer {
    /// Tells the kernel side that sessions' cgroups stand at this level too. A level that was told once stays: an agent that takes others'
    /// sessions over learns theirs one by one.
    fn tell_level(&mut self, level: u32) -> Result<(), EnforcerError> {
        let told = &mut self.maps.session_levels;
        let known = told.map.get(&0, 0).map_err(told.refused())?;
        told.map.set(0, known | (1 << level), 0).map_err(told.refused())
    }

    /// Marks a process, and sees to it that it is still the one that was meant.
    fn put_mark(&mut self, tgid: u32, mark: TaskMark) -> Result<(), EnforcerError> {
        let gone = |cause| EnforcerError::Missing(format!("process {tgid} can't be looked at: {cause}"));
        let start = peer::started_at(tgid).map_err(gone)?;
        let mark = TaskMark { marked_at: nanoseconds(clock::since_boot()), ..mark };
        self.maps.tasks.put(&tgid, &mark, 0)?;
        // The pid may have gone to another process in between: that one must not keep the mark.
        match peer::started_at(tgid) {
            Ok(still) if still == start => {
                self.connections.note_process(SessionId(mark.session), tgid);
                Ok(())
            }
            Ok(_) => {
                self.maps.tasks.remove(&tgid)?;
                Err(no_mark(tgid))
            }
            Err(cause) => {
                self.maps.tasks.remove(&tgid)?;
                Err(gone(cause))
            }
        }
    }

    /// Puts reports back that were taken before their turn.
    pub(super) fn put_back(&mut self, records: Vec<KernelRecord>) {
        self.taken.extend(records);
    }

    /// Where its cgroups and pins are.
    #[must_use]
    pub fn places(&self) -> &Places {
        &self.places
    }

    /// Lets no session change what is at these paths or below, at tier `lsm`. A path with nothing at it is nothing to protect.
    ///
    /// # Errors
    /// The kernel side can't be told.
    pub fn keep_own(&mut self, paths: &[PathBuf]) -> Result<(), EnforcerError> {
        let mounts = mountinfo::mounts()?;
        for path in paths.iter().filter(|path| path.exists()) {
            let found = identities::identity(path, &mounts)
                .map_err(|cause| places::unavailable("protect", path, cause))?;
            let key = Protected { ino: found.ino, dev: found.dev, reserved: 0 };
            self.maps.protected.put(&key, &1, 0)?;
            self.own.push(found.held);
        }
        Ok(())
    }

    /// Lets all sessions connect to this socket, which is the agent's own.
    ///
    /// # Errors
    /// The kernel side can't be told.
    pub fn let_connect(&mut self, socket: &OwnedFd) -> Result<(), EnforcerError> {
        let owners = &mut self.maps.owners;
        owners.map.insert(socket, OWNED_BY_AGENT, 0).map_err(owners.refused())
    }

    /// Those who ask the resolver, as the kernel side notes them.
    ///
    /// # Errors
    /// The map can't be opened.
    pub fn askers(&self) -> Result<Askers, EnforcerError> {
        Askers::open(&self.places.pins)
    }

    /// How often the kernel left one of the programs out, since the start. Above 0, something forbidden may have run.
    ///
    /// # Errors
    /// The kernel doesn't say.
    pub fn missed_runs(&self) -> Result<u64, EnforcerError> {
        self.hooks.missed_runs()
    }

    /// Kills what is left in its sessions, and unloads and removes everything. To drop it instead leaves every hook.
    ///
    /// # Errors
    /// Something could not be ended or removed; what is left still denies.
    pub fn shutdown(self) -> Result<(), EnforcerError> {
        // The processes first, then pins and hooks: the latter go with `self`, after this.
        leftovers::remove(&self.places)
    }

    /// Has applications told whose connections no rule lets send any more. What the kernel side refuses doesn't depend on it.
    fn end_unruled(&mut self, session: SessionId) {
        let Some(loaded) = self.sessions.get(&session) else { return };
        let is_audited = loaded.value().flags & Session::AUDIT != 0;
        if is_audited {
            return;
        }
        let cgroups = self.bound.get(&session).map_or_else(|| vec![loaded.cgroup_id()], Bound::cgroups);
        let ended = cgroups
            .into_iter()
            .try_for_each(|cgroup| self.connections.end_unruled(&self.maps, session, loaded.value(), cgroup));
        if let Err(error) = ended {
            tracing::warn!(%session, %error, "connections that no rule lets send are left, and send nothing");
        }
    }

    /// Takes the right to a first exec, and with it the launcher's freedom, from a process: it is held as a command is.
    pub(super) fn end_launch(&mut self, tgid: u32) -> Result<(), EnforcerError> {
        self.update_mark(tgid, |mark| {
            mark.flags = 0;
            Ok(())
        })
    }

    fn update_mark(
        &mut self,
        tgid: u32,
        update: impl FnOnce(&mut TaskMark) -> Result<(), EnforcerError>,
    ) -> Result<(), EnforcerError> {
        let mut mark = self.valid_mark(tgid)?.ok_or_else(|| no_mark(tgid))?;
        update(&mut mark)?;
        // A process that has gone meanwhile took its mark along: none is made anew.
        self.maps.tasks.put(&tgid, &mark, EXISTING)
    }

    /// Changes what a session has in the maps, and counts its doors by name anew. The change is told how many of these it may have.
    fn change<T>(
        &mut self,
        session: SessionId,
        change: impl FnOnce(&mut Loaded, &mut Maps, &mut Connections, usize) -> Result<T, EnforcerError>,
    ) -> Result<T, EnforcerError> {
        let loaded = self.sessions.get_mut(&session).ok_or_else(|| no_session(session))?;
        let own = loaded.named_doors();
        let others = self.named_doors.saturating_sub(own);
        let changed = change(loaded, &mut self.maps, &mut self.connections, share(own, others));
        self.named_doors = others.saturating_add(loaded.named_doors());
        changed
    }

    fn loaded(&self, session: SessionId) -> Result<&Loaded, EnforcerError> {
        self.sessions.get(&session).ok_or_else(|| no_session(session))
    }

    /// The mark, if it is that of the process that has this pid now.
    fn valid_mark(&self, tgid: u32) -> Result<Option<TaskMark>, EnforcerError> {
        let Some(mark) = self.maps.tasks.find(&tgid)? else { return Ok(None) };
        let start = peer::started_at(tgid)
            .map_err(|cause| EnforcerError::Missing(format!("process {tgid} can't be looked at: {cause}")))?;
        Ok((Duration::from_nanos(mark.marked_at) >= start && mark.session != 0).then_some(mark))
    }
}

impl Enforcer for EbpfEnforcer {
    fn enforcement(&self) -> &Enforcement {
        &self.enforcement
    }

    fn start_session(
        &mut self,
        session: SessionId,
        cgroup_id: u64,
        policy: &Policy,
        user: u32,
    ) -> Result<(), EnforcerError> {
        if session.0 == 0 || self.sessions.contains_key(&session) {
            return Err(EnforcerError::Missing(format!("{session} is not the number of a new session")));
        }
        let loaded = Loaded::load(&mut self.maps, session, cgroup_id, policy, user)?;
        self.sessions.insert(session, loaded);
        Ok(())
    }

    fn sessions(&self) -> Result<Vec<SessionId>, EnforcerError> {
        Ok(self.maps.sessions.keys(|_| true)?.into_iter().map(SessionId).collect())
    }

    fn cgroup_of(&self, session: SessionId) -> Result<Option<u64>, EnforcerError> {
        Ok(self.maps.cgroups.keys_where(|of| *of == session.0)?.first().copied())
    }

    fn adopt_session(
        &mut self,
        session: SessionId,
        cgroup_id: u64,
        is_same_policy: bool,
    ) -> Result<(), EnforcerError> {
        let loaded = Loaded::adopt(&self.maps, session, cgroup_id, is_same_policy)?;
        self.named_doors = self.named_doors.saturating_add(loaded.named_doors());
        self.sessions.insert(session, loaded);
        Ok(())
    }

    fn bind_cgroup(&mut self, session: SessionId, cgroup: &Path) -> Result<(), EnforcerError> {
        if !self.sessions.contains_key(&session) {
            return Err(no_session(session));
        }
        let bound = Bound::take(&self.places, session, cgroup)?;
        self.tell_level(bound.level)?;
        self.bound.insert(session, bound);
        Ok(())
    }

    fn enrol(&mut self, session: SessionId, tgid: u32, first: FirstImage) -> Result<(), EnforcerError> {
        if !self.sessions.contains_key(&session) {
            return Err(no_session(session));
        }
        let known = if first.generation.is_some() { TaskMark::FIRST_GENERATION_KNOWN } else { 0 };
        let mark = TaskMark {
            session: session.0,
            flags: TaskMark::FIRST_EXEC | known,
            first_dev: first.dev,
            first_generation: first.generation.unwrap_or(0),
            first_ino: first.ino,
            ..TaskMark::default()
        };
        self.put_mark(tgid, mark)
    }

    fn enrol_running(&mut self, session: SessionId, tgid: u32) -> Result<(), EnforcerError> {
        if !self.sessions.contains_key(&session) {
            return Err(no_session(session));
        }
        self.put_mark(tgid, TaskMark { session: session.0, ..TaskMark::default() })
    }

    fn marks(&self) -> Result<Vec<(u32, Mark)>, EnforcerError> {
        let mut marks = Vec::new();
        for tgid in self.maps.tasks.keys(|_| true)? {
            marks.extend(self.maps.tasks.find(&tgid)?.map(|mark| (tgid, told(&mark))));
        }
        Ok(marks)
    }

    fn mark(&self, tgid: u32) -> Result<Option<Mark>, EnforcerError> {
        Ok(self.valid_mark(tgid)?.map(|mark| told(&mark)))
    }

    fn forget_ended(&mut self, tgid: u32) -> Result<(), EnforcerError> {
        self.maps.tasks.remove(&tgid)
    }

    fn put_scope_in_front(&mut self, tgid: u32, scope: ScopeId) -> Result<(), EnforcerError> {
        self.update_mark(tgid, |mark| {
            // Until its first exec the kernel side may be changing the mark too; and nothing that could ask has run.
            if mark.flags & TaskMark::FIRST_EXEC != 0 {
                return Err(EnforcerError::Missing(format!("process {tgid} is not a session's command yet")));
            }
            mark.scopes.rotate_right(1);
            mark.scopes[0] = scope.0;
            Ok(())
        })
    }

    fn set_doors(
        &mut self,
        session: SessionId,
        scope: ScopeId,
        open: GrantSet,
        until: Duration,
        openings: &[Opening],
    ) -> Result<(), EnforcerError> {
        let loaded = self.sessions.get(&session);
        let (generation, keep_alive) =
            loaded.map_or((0, 0), |loaded| (loaded.generation(), loaded.keep_alive()));
        let mut value = Scope { session: session.0, generation, ..Scope::default() };
        if open.is_empty() {
            self.maps.scopes.remove(&scope.0)?;
        } else {
            self.loaded(session)?;
            value.open = open.0;
            value.expires_at = nanoseconds(until);
            value.since = since(openings, keep_alive);
            self.maps.scopes.put(&scope.0, &value, 0)?;
        }
        // Only now: until then a connection could be made anew.
        if let Err(error) = self.connections.doors_changed(&mut self.maps, scope.0, value, keep_alive) {
            tracing::warn!(%session, %error, "connections behind doors that are shut are left, and send nothing");
        }
        Ok(())
    }

    fn set_baseline_network(&mut self, session: SessionId, open: bool) -> Result<(), EnforcerError> {
        let loaded = self.sessions.get_mut(&session).ok_or_else(|| no_session(session))?;
        let was_open = loaded.value().flags & Session::BASELINE_NETWORK != 0;
        loaded.set_baseline_network(&mut self.maps, open)?;
        if was_open && !open {
            self.end_unruled(session);
        }
        Ok(())
    }

    fn prepare_rules(&mut self, session: SessionId, policy: &Policy, user: u32) -> Result<(), EnforcerError> {
        self.change(session, |loaded, maps, _, share| loaded.prepare(maps, policy, user, share))
    }

    fn commit_rules(&mut self, session: SessionId) -> Result<(), EnforcerError> {
        self.change(session, |loaded, maps, _, _| loaded.commit(maps))?;
        self.end_unruled(session);
        Ok(())
    }

    fn discard_rules(&mut self, session: SessionId) -> Result<(), EnforcerError> {
        self.change(session, |loaded, maps, _, _| loaded.discard(maps))
    }

    fn stop_session(&mut self, session: SessionId) -> Result<(), EnforcerError> {
        drop(self.bound.remove(&session));
        bound::release(&self.places, session)?;
        self.connections.forget(&mut self.maps, session)?;
        let Some(loaded) = self.sessions.get(&session) else { return forget(&mut self.maps, session) };
        loaded.unload(&mut self.maps)?;
        self.named_doors = self.named_doors.saturating_sub(loaded.named_doors());
        self.sessions.remove(&session);
        Ok(())
    }

    fn let_resolve(&mut self, port: Option<NonZeroU16>) -> Result<(), EnforcerError> {
        let netns = netns::own().map_err(|cause| {
            EnforcerError::Missing(format!("the agent's network namespace has no number: {cause}"))
        })?;
        let port = port.map_or(0, |port| u32::from(port.get()));
        let resolver = &mut self.maps.resolver;
        resolver.map.set(0, Resolver { netns, port, reserved: 0 }, 0).map_err(resolver.refused())
    }

    fn open_name(
        &mut self,
        session: SessionId,
        name: &HostName,
        addresses: &[ToldAddress],
    ) -> Result<(), EnforcerError> {
        self.change(session, |loaded, maps, connections, share| {
            let mut peers = || connections.peers();
            loaded.open_name(maps, name, addresses, &mut Room { share, peers: &mut peers })
        })
    }

    fn sweep_names(&mut self) -> Result<(), EnforcerError> {
        let mut swept = Ok(());
        for loaded in self.sessions.values_mut() {
            swept = loaded.sweep_names(&mut self.maps).and(swept);
        }
        // Where sessions' doors are looked through anyway, what was counted one by one is counted anew.
        self.named_doors = self.sessions.values().map(Loaded::named_doors).sum();
        swept
    }

    fn names_of(&self, session: SessionId, address: IpAddr) -> Vec<HostName> {
        self.sessions.get(&session).map(|loaded| loaded.names_of(&address)).unwrap_or_default()
    }

    fn beat(&mut self, now: Duration) -> Result<(), EnforcerError> {
        let heartbeat = &mut self.maps.heartbeat;
        heartbeat.map.set(0, nanoseconds(now), 0).map_err(heartbeat.refused())
    }

    fn examine(&mut self) -> Result<Examination, EnforcerError> {
        let rows = probe::examine(self)?;
        Ok(Examination {
            tier: self.enforcement.tier.as_str().to_owned(),
            kernel: rustix::system::uname().release().to_string_lossy().into_owned(),
            rows,
            programs: self.hooks.programs()?,
            lost_reports: self.dropped_records()?,
        })
    }

    fn drain_records(&mut self, records: &mut Vec<KernelRecord>, limit: usize) {
        let wanted = records.len().saturating_add(limit);
        let earlier = self.taken.len().min(limit);
        records.extend(self.taken.drain(..earlier));
        while records.len() < wanted {
            let Some(item) = self.records.next() else { return };
            match records::decode(&item) {
                Some(record) => {
                    self.connections.refused(&record);
                    records.push(record);
                }
                None => {
                    tracing::error!(bytes = item.len(), "the kernel side reported something of a wrong size")
                }
            }
        }
    }

    fn dropped_records(&self) -> Result<u64, EnforcerError> {
        let drops = &self.maps.drops;
        let mut sum = 0_u64;
        for index in 0..2 {
            let of_cpus = drops.map.get(&index, 0).map_err(|cause: MapError| drops.refused()(cause))?;
            sum = of_cpus.iter().fold(sum, |sum, count| sum.saturating_add(*count));
        }
        Ok(sum)
    }
}

/// The ring buffer: readable when there are records to drain.
impl AsFd for EbpfEnforcer {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.records.as_fd()
    }
}

impl fmt::Debug for EbpfEnforcer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EbpfEnforcer")
            .field("enforcement", &self.enforcement)
            .field("places", &self.places)
            .field("hooks", &self.hooks)
            .field("sessions", &self.sessions)
            .finish_non_exhaustive()
    }
}

/// Of each grant, when the earliest of its actions in flight began: never, where none is; always, where connections outlive actions.
fn since(openings: &[Opening], keep_alive: u64) -> [u64; GRANTS] {
    let mut since = [u64::MAX; GRANTS];
    for (index, since) in since.iter_mut().enumerate() {
        let bit = GrantSet::of(index).0;
        let of_bit = openings.iter().filter(|opening| opening.grants.0 & bit != 0);
        *since = if keep_alive & bit != 0 {
            0
        } else {
            of_bit.map(|opening| nanoseconds(opening.since)).min().unwrap_or(u64::MAX)
        };
    }
    since
}

/// A mark as the driver sees it.
fn told(mark: &TaskMark) -> Mark {
    Mark {
        session: SessionId(mark.session),
        scopes: mark.scopes.map(|scope| (scope != 0).then_some(ScopeId(scope))),
        marked_at: Duration::from_nanos(mark.marked_at),
    }
}

fn no_session(session: SessionId) -> EnforcerError {
    EnforcerError::Missing(format!("there is no session {session}"))
}

fn no_mark(tgid: u32) -> EnforcerError {
    EnforcerError::Missing(format!("process {tgid} is in no session"))
}

/// A time on CLOCK_BOOTTIME as the kernel side has it; the farthest that can be told where it is farther.
fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
