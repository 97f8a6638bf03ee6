//! The [`Enforcer`] of this host's kernel: programs and maps that are pinned, and so outlive the agent.
//!
//! Invariant: a start adopts what an earlier agent of the same build left, or ends it; a clean end leaves nothing; any other end leaves every hook
//! in place, and nothing that is leased open. What is adopted never was off.

use std::collections::BTreeMap;
use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::time::Duration;

use aya::maps::MapError;
use aya::{Ebpf, EbpfLoader};
use sentinel_ebpf_common::{OWNED_BY_AGENT, Protected, Scope, TaskMark};
use sentinel_engine::{GrantSet, Policy, ScopeId};
use sentinel_proto::SessionId;

use super::hooks::Hooks;
use super::layout::Layout;
use super::loaded::{Loaded, forget};
use super::maps::{EXISTING, Maps, Records, with_causes};
use super::object::OBJECT;
use super::tracefs::with_tracefs;
use super::{
    Enforcement, Enforcer, EnforcerError, FirstImage, KernelRecord, Mark, Places, Tier, identities,
    leftovers, lsm, mountinfo, places, preconditions, probe, records,
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
    /// Keep the numbers of what is protected from being given to other files.
    own: Vec<OwnedFd>,
}

impl EbpfEnforcer {
    /// Ends what a dead instance left in `places`, loads and attaches the kernel side there, and proves by denials that
    /// really happen that it enforces.
    ///
    /// # Errors
    /// This host can't enforce, or it could not be proven. Nothing stays.
    pub fn start(places: &Places) -> Result<Self, EnforcerError> {
        preconditions::check()?;
        let started = match lsm::is_active()? {
            Ok(()) => Self::start_at(Tier::Lsm, places).or_else(|error| {
                tracing::error!(
                    %error,
                    "this kernel asks BPF before it lets things happen, and can't be told what: forbidden images are killed and not \
                     refused, and the rest of tier `lsm` is missing"
                );
                Self::start_at(Tier::Kill, places)
            }),
            Err(cause) => {
                tracing::info!(%cause, "tier `lsm` is not to be had");
                Self::start_at(Tier::Kill, places)
            }
        };
        give_memory_back();
        started
    }

    fn start_at(tier: Tier, places: &Places) -> Result<Self, EnforcerError> {
        leftovers::remove(places)?;
        let started = places.make().and_then(|()| Self::load(tier, places)).and_then(|mut enforcer| {
            probe::prove(&mut enforcer)?;
            enforcer.enforcement.proven = true;
            Ok(enforcer)
        });
        if started.is_err()
            && let Err(error) = leftovers::remove(places)
        {
            tracing::error!(%error, "a start that failed left something behind");
        }
        started
    }

    /// Takes over the kernel side that an earlier agent of this instance left running, with all doors of actions shut; and proves by denials that
    /// really happen that it enforces. None: there is nothing that this build could take over.
    ///
    /// # Errors
    /// It is there but can't be taken over, or doesn't enforce.
    pub fn adopt(places: &Places) -> Result<Option<Self>, EnforcerError> {
        preconditions::check()?;
        if !places.pins.join("TASKS").exists() || places.build()? != build() {
            return Ok(None);
        }
        let hooks = Hooks::adopt(places)?;
        let (maps, records) = Maps::adopt(&places.pins)?;
        let enforcement = Enforcement { tier: Hooks::tier_of(places), proven: false };
        let mut enforcer = Self {
            enforcement,
            places: places.clone(),
            hooks,
            maps,
            records,
            sessions: BTreeMap::new(),
            own: Vec::new(),
        };
        // Before any heartbeat: what the dead agent had opened must not live on.
        for scope in enforcer.maps.scopes.keys(|_| true)? {
            enforcer.maps.scopes.remove(&scope)?;
        }
        // Reports of the meantime would hide the proof's own.
        enforcer.drain_records(&mut Vec::new(), usize::MAX);
        probe::prove(&mut enforcer)?;
        enforcer.enforcement.proven = true;
        give_memory_back();
        Ok(Some(enforcer))
    }

    /// Leaves everything as it is, for the next agent of this instance.
    ///
    /// # Errors
    /// Which build it is of can't be noted: then the next one can't take it over.
    pub fn note_build(&self) -> Result<(), EnforcerError> {
        self.places.note_build(&build())
    }

    fn load(tier: Tier, places: &Places) -> Result<Self, EnforcerError> {
        let layout = Layout::of_kernel(tier, places.session_level()?)?;
        let mut loader = EbpfLoader::new();
        // The object has no relocations against the kernel's description: no need to keep that in memory.
        loader.btf(None);
        layout.tell(&mut loader);
        let mut ebpf: Ebpf = loader.load(OBJECT).map_err(|cause| EnforcerError::Unavailable {
            what: "cannot load the kernel side".to_owned(),
            cause: with_causes(&cause),
            way_out: "run the agent as root on Linux 6.1 or newer, with enough locked memory".to_owned(),
        })?;
        let hooks = with_tracefs(|| Hooks::attach(&mut ebpf, tier, places))?;
        let (maps, records) = Maps::take(&mut ebpf, &places.pins)?;
        let enforcement = Enforcement { tier, proven: false };
        let places = places.clone();
        Ok(Self { enforcement, places, hooks, maps, records, sessions: BTreeMap::new(), own: Vec::new() })
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

    #[cfg(test)]
    pub(super) fn maps(&self) -> &Maps {
        &self.maps
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

    fn adopt_session(&mut self, session: SessionId, cgroup_id: u64) -> Result<(), EnforcerError> {
        let loaded = Loaded::adopt(&self.maps, session, cgroup_id)?;
        self.sessions.insert(session, loaded);
        Ok(())
    }

    fn enrol(&mut self, session: SessionId, tgid: u32, first: FirstImage) -> Result<(), EnforcerError> {
        if !self.sessions.contains_key(&session) {
            return Err(no_session(session));
        }
        let gone = |cause| EnforcerError::Missing(format!("process {tgid} can't be looked at: {cause}"));
        let start = peer::started_at(tgid).map_err(gone)?;
        let known = if first.generation.is_some() { TaskMark::FIRST_GENERATION_KNOWN } else { 0 };
        let mark = TaskMark {
            session: session.0,
            flags: TaskMark::FIRST_EXEC | known,
            marked_at: nanoseconds(clock::since_boot()),
            scopes: [0; 4],
            first_dev: first.dev,
            first_generation: first.generation.unwrap_or(0),
            first_ino: first.ino,
        };
        self.maps.tasks.put(&tgid, &mark, 0)?;
        // The pid may have gone to another process in between: that one must not keep the mark.
        match peer::started_at(tgid) {
            Ok(still) if still == start => Ok(()),
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

    fn mark(&self, tgid: u32) -> Result<Option<Mark>, EnforcerError> {
        Ok(self.valid_mark(tgid)?.map(|mark| Mark {
            session: SessionId(mark.session),
            scopes: mark.scopes.map(|scope| (scope != 0).then_some(ScopeId(scope))),
            marked_at: Duration::from_nanos(mark.marked_at),
        }))
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
    ) -> Result<(), EnforcerError> {
        if open.is_empty() {
            return self.maps.scopes.remove(&scope.0);
        }
        let expires_at = nanoseconds(until);
        let generation = self.loaded(session)?.generation();
        let value = Scope { session: session.0, generation, open: open.0, expires_at };
        self.maps.scopes.put(&scope.0, &value, 0)
    }

    fn set_baseline_network(&mut self, session: SessionId, open: bool) -> Result<(), EnforcerError> {
        let loaded = self.sessions.get_mut(&session).ok_or_else(|| no_session(session))?;
        loaded.set_baseline_network(&mut self.maps, open)
    }

    fn prepare_rules(&mut self, session: SessionId, policy: &Policy, user: u32) -> Result<(), EnforcerError> {
        let loaded = self.sessions.get_mut(&session).ok_or_else(|| no_session(session))?;
        loaded.prepare(&mut self.maps, policy, user)
    }

    fn commit_rules(&mut self, session: SessionId) -> Result<(), EnforcerError> {
        let loaded = self.sessions.get_mut(&session).ok_or_else(|| no_session(session))?;
        loaded.commit(&mut self.maps)
    }

    fn discard_rules(&mut self, session: SessionId) -> Result<(), EnforcerError> {
        let loaded = self.sessions.get_mut(&session).ok_or_else(|| no_session(session))?;
        loaded.discard(&mut self.maps)
    }

    fn stop_session(&mut self, session: SessionId) -> Result<(), EnforcerError> {
        let Some(loaded) = self.sessions.get(&session) else { return forget(&mut self.maps, session) };
        loaded.unload(&mut self.maps)?;
        self.sessions.remove(&session);
        Ok(())
    }

    fn beat(&mut self, now: Duration) -> Result<(), EnforcerError> {
        let heartbeat = &mut self.maps.heartbeat;
        heartbeat.map.set(0, nanoseconds(now), 0).map_err(heartbeat.refused())
    }

    fn drain_records(&mut self, records: &mut Vec<KernelRecord>, limit: usize) {
        let wanted = records.len().saturating_add(limit);
        while records.len() < wanted {
            let Some(item) = self.records.next() else { return };
            match records::decode(&item) {
                Some(record) => records.push(record),
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

/// Which build this is, by its kernel side.
fn build() -> String {
    use sha2::Digest as _;
    sha2::Sha256::digest(OBJECT).iter().map(|byte| format!("{byte:02x}")).collect()
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

/// Gives back what the kernel's description took while it was read: tens of megabytes, once.
fn give_memory_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: takes a number, and may be called at any time.
    unsafe {
        libc::malloc_trim(0);
    }
}
