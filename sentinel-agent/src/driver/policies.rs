//! Policies are read anew: all of them hold afterwards, or none does.
//!
//! Invariant: no moment has a mix. Each session's new rules stand in the kernel before anything is decided by them; one write makes them hold, and
//! shuts every door that the old ones had opened; only then doors open by the new ones.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;

use sentinel_authority::{Log, NewPolicy};
use sentinel_proto::app::{RefusalCode, RequestId};

use super::Driver;
use super::operators::{Refusal, answer};
use crate::clock::Clock;
use crate::connection::{Arrival, Connection};
use crate::daemon::{LoadedPolicy, PoliciesError};
use crate::enforcer::Enforcer;
use crate::intake::Lane;

/// Who asked for the policies to be read anew: on which connection, by which request, as which uid.
pub(super) type Asked = Option<(Rc<Connection>, RequestId, u32)>;

impl<L: Log, E: Enforcer, C: Clock> Driver<L, E, C> {
    /// Has the policies read, on a thread of their own: a disk that hangs doesn't hang the driver.
    pub(super) fn reload(&self, asked: Asked) {
        let source = self.setting.policies_source.clone();
        let intake = Rc::clone(&self.intake);
        tokio::task::spawn_local(async move {
            let read = tokio::task::spawn_blocking(move || source.read()).await;
            let read = read.unwrap_or_else(|panicked| Err(PoliciesError::new(panicked)));
            intake.push(Lane::Host, Arrival::PoliciesRead { read, asked });
        });
    }

    /// Puts policies in force that were read.
    pub(super) fn on_policies_read(
        &mut self,
        read: Result<BTreeMap<String, LoadedPolicy>, PoliciesError>,
        asked: Asked,
    ) {
        let operator = asked.as_ref().map(|(_, _, uid)| *uid);
        let done = match read {
            Ok(policies) => self.put_in_force(policies, operator),
            Err(error) => Err((RefusalCode::Failed, format!("nothing has changed: {error}"))),
        };
        match &done {
            Ok(message) => tracing::info!(?operator, message, "policies reloaded"),
            Err((_, cause)) => tracing::error!(?operator, cause, "policies not reloaded"),
        }
        if let Some((connection, request, _)) = asked {
            answer(&connection, request, done);
        }
    }

    fn put_in_force(
        &mut self,
        policies: BTreeMap<String, LoadedPolicy>,
        operator: Option<u32>,
    ) -> Result<String, Refusal> {
        let changed = changed(&self.setting.policies, &policies);
        if changed.is_empty() {
            return Ok("no policy has changed".to_owned());
        }
        let new: Vec<NewPolicy> = self
            .sessions
            .iter()
            .filter(|(_, session)| session.ending.is_none() && changed.contains(&session.policy))
            .filter_map(|(id, session)| {
                let loaded = policies.get(&session.policy)?;
                Some(NewPolicy {
                    session: *id,
                    name: session.policy.clone(),
                    sha256: loaded.sha256.clone(),
                    policy: Arc::new(loaded.policy.clone()),
                })
            })
            .collect();
        let orphaned =
            self.sessions.values().filter(|session| !policies.contains_key(&session.policy)).count();
        self.prepare_all(&new)?;
        let names = changed.iter().cloned().collect();
        let now = self.clock.now();
        let step = match self.authority.reload(operator, names, new.clone(), now) {
            Ok(step) => step,
            Err(error) => {
                self.discard_all(&new);
                return Err((RefusalCode::Failed, format!("nothing has changed: {error}")));
            }
        };
        self.note(&step, now);
        for new in &new {
            let held = self.enforcer.commit_rules(new.session);
            let Some(session) = self.sessions.get_mut(&new.session) else { continue };
            session.change_rules(Arc::clone(&new.policy));
            if let Err(error) = held {
                self.condemn(new.session, &error);
            }
        }
        self.shut(&step.effects);
        self.setting.policies = policies;
        let gone = match orphaned {
            0 => String::new(),
            count => {
                format!("; {count} sessions go on under policies that are gone: `sentinel kill` ends them")
            }
        };
        let changed: Vec<String> = changed.into_iter().map(|name| format!("`{name}`")).collect();
        Ok(format!("changed: {}; {} sessions have new rules{gone}", changed.join(", "), new.len()))
    }

    /// Writes all new rules beside the old ones; on failure none of them stays.
    fn prepare_all(&mut self, new: &[NewPolicy]) -> Result<(), Refusal> {
        for (index, one) in new.iter().enumerate() {
            let uid = self.authority.state().uid_of(one.session).unwrap_or(u32::MAX);
            if let Err(error) = self.enforcer.prepare_rules(one.session, &one.policy, uid) {
                self.discard_all(new.get(..index).unwrap_or_default());
                let cause = format!(
                    "nothing has changed: policy `{}` can't hold session `{}`: {error}",
                    one.name,
                    self.shown(one.session)
                );
                return Err((RefusalCode::Failed, cause));
            }
        }
        Ok(())
    }

    fn discard_all(&mut self, new: &[NewPolicy]) {
        for one in new {
            if let Err(error) = self.enforcer.discard_rules(one.session) {
                tracing::error!(session = %one.session, %error, "rules that don't hold are left");
            }
        }
    }
}

/// The names of policies that are new, gone or not the same.
fn changed(old: &BTreeMap<String, LoadedPolicy>, new: &BTreeMap<String, LoadedPolicy>) -> BTreeSet<String> {
    let names = old.keys().chain(new.keys());
    let sha = |policies: &BTreeMap<String, LoadedPolicy>, name: &str| {
        policies.get(name).map(|loaded| loaded.sha256.clone())
    };
    names.filter(|name| sha(old, name) != sha(new, name)).cloned().collect()
}
