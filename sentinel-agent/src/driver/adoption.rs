//! Takes over the sessions of an agent that is gone, while they run.
//!
//! Invariant: a session goes on only if its processes, its rules in the kernel, its facts and its policy are all found; else it is killed. Until
//! its facts are written and its rules are of this agent's policies, no heartbeat is: so every door of an action stays shut.

use std::sync::Arc;
use std::time::{Duration, Instant};

use sentinel_authority::{Log, NewPolicy};
use sentinel_engine::{Effect, Event, Policy};
use sentinel_proto::{SessionId, SessionName};

use super::Driver;
use super::sessions::Session;
use crate::clock::Clock;
use crate::enforcer::{Enforcer, cgroup2};
use crate::session::cgroup::{CgroupError, SessionCgroup};

/// How long killed processes may take to be gone.
const DEATH: Duration = Duration::from_secs(5);

/// A session that was found whole.
struct Found {
    id: SessionId,
    cgroup: SessionCgroup,
    policy: String,
    sha256: String,
    rules: Arc<Policy>,
}

impl<L: Log, E: Enforcer, C: Clock> Driver<L, E, C> {
    /// Records that the agent is up (and, of a ledger that lost lines, after which one), and takes over what an earlier one left: sessions that are whole go on, all others are ended. Actions that
    /// were in flight are interrupted.
    ///
    /// # Errors
    /// The ledger's: then nothing may start. What runs goes on as it is, with all doors of actions shut.
    pub fn announce(&mut self, gap: Option<u64>) -> Result<(), L::Error> {
        if let Some(after) = gap {
            self.step(Event::Gap { after })?;
        }
        let mut found = Vec::new();
        let known = self.enforcer.sessions().unwrap_or_else(|error| {
            tracing::error!(%error, "which sessions the kernel side knows can't be read: all are ended");
            Vec::new()
        });
        for id in known {
            match self.find(id) {
                Ok(session) => found.push(session),
                Err(cause) => self.end_lost(id, &cause),
            }
        }
        let event = Event::AgentStarted {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            tier: self.enforcer.enforcement().tier.as_str().to_owned(),
            adopted: found.iter().map(|session| session.id).collect(),
        };
        self.step(event)?;
        for session in found {
            self.adopt(session)?;
        }
        Ok(())
    }

    /// A session with all that belongs to it.
    fn find(&mut self, id: SessionId) -> Result<Found, String> {
        let state = self.authority.state();
        if !state.is_alive(id) {
            return Err("the ledger knows of no such session".to_owned());
        }
        let (policy, _) = state.policy_of(id).ok_or("the ledger doesn't say under which policy it is")?;
        let uid = state.uid_of(id).ok_or("the ledger doesn't say as whom it runs")?;
        let loaded = self
            .setting
            .policies
            .get(policy)
            .ok_or_else(|| format!("its policy `{policy}` is not there any more"))?
            .clone();
        let is_same_policy = state.policy_of(id).is_some_and(|(_, known)| known == loaded.sha256);
        let policy = policy.to_owned();
        let cgroup = self.cgroup_of(id).map_err(|error| error.to_string())?;
        if !cgroup.is_bound() && !cgroup.is_populated().map_err(|error| error.to_string())? {
            return Err("its processes have ended".to_owned());
        }
        let rules = Arc::new(loaded.policy);
        self.enforcer
            .adopt_session(id, cgroup.id(), is_same_policy)
            .and_then(
                |()| {
                    if cgroup.is_bound() { self.enforcer.bind_cgroup(id, cgroup.path()) } else { Ok(()) }
                },
            )
            .and_then(|()| self.enforcer.prepare_rules(id, &rules, uid))
            .map_err(|error| error.to_string())?;
        Ok(Found { id, cgroup, policy, sha256: loaded.sha256, rules })
    }

    /// The cgroup of a session that an earlier agent had: one of its own, or the one that it is bound to.
    fn cgroup_of(&self, id: SessionId) -> Result<SessionCgroup, CgroupError> {
        let name = self.authority.state().name_of(id);
        let binding = self.bindings.iter().find(|bound| Some(&bound.binding.session) == name);
        match binding {
            Some(bound) => SessionCgroup::open_bound(bound.binding.cgroup.clone()),
            None => SessionCgroup::open(self.setting.cgroups.join(id.to_string())),
        }
    }

    /// Ends a session that is not whole.
    fn end_lost(&mut self, id: SessionId, cause: &str) {
        tracing::warn!(session = %id, cause, "a session of an earlier agent is ended");
        if let Err(cause) = self.kill_lost(id) {
            return tracing::error!(session = %id, cause, "processes of the session may be left; they stay held");
        }
        if let Err(error) = self.enforcer.stop_session(id) {
            tracing::error!(session = %id, %error, "rules of the session are left");
        }
        let own = SessionCgroup::open(self.setting.cgroups.join(id.to_string()));
        if let Ok(own) = own
            && let Err(error) = own.remove()
        {
            tracing::error!(session = %id, %error, "the session's cgroup is left");
        }
    }

    /// Kills all that is in a session's cgroup, and what was taken out of it. Which cgroup that is the kernel side says: it may have been bound, and
    /// the configuration may name another by now, or none.
    fn kill_lost(&self, id: SessionId) -> Result<(), String> {
        let known = self.enforcer.cgroup_of(id).map_err(|error| error.to_string())?;
        if let Some(known) = known {
            let root = cgroup2().map_err(|error| error.to_string())?;
            let found = SessionCgroup::with_id(&root, known).map_err(|error| error.to_string())?;
            if let Some(cgroup) = found {
                cgroup.kill_all(Instant::now() + DEATH).map_err(|error| error.to_string())?;
            }
        }
        self.kill_marked(id)
    }

    /// Lets a session go on under this agent's version of its policy.
    fn adopt(&mut self, found: Found) -> Result<(), L::Error> {
        let Found { id, cgroup, policy, sha256, rules } = found;
        let state = self.authority.state();
        let is_changed = state.policy_of(id).is_none_or(|(_, known)| known != sha256);
        let shown = state.name_of(id).map_or_else(|| format!("s{id}"), SessionName::to_string);
        self.authority.bind(id, Arc::clone(&rules));
        if is_changed {
            let new = NewPolicy { session: id, name: policy.clone(), sha256, policy: Arc::clone(&rules) };
            let now = self.clock.now();
            let step = self.authority.reload(None, vec![policy.clone()], vec![new], now)?;
            self.note(&step, now);
        }
        let is_paused = self.authority.state().is_paused(id);
        tracing::info!(session = %id, name = %shown, is_paused, "session adopted");
        self.sessions.insert(id, Session::unlaunched(shown, policy, Arc::clone(&rules), cgroup));
        if let Err(error) = self.enforcer.commit_rules(id) {
            self.condemn(id, &error);
        }
        if let Some(effect) = sentinel_engine::baseline(self.authority.state(), &rules, id, self.clock.now())
        {
            self.shut(&[effect, Effect::SetFrozen { session: id, frozen: is_paused }]);
        }
        if let Err(error) = self.freeze(id, is_paused) {
            tracing::error!(session = %id, error, "a paused session may run");
        }
        Ok(())
    }
}
