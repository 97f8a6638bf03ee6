//! From effects to the kernel.
//!
//! Invariant: what can't be opened is an error that becomes a denial; what can't be shut costs the session its life.

use std::time::Duration;

use sentinel_authority::Log;
use sentinel_engine::{Attempt, Effect, Event, GrantSet, ScopeId};
use sentinel_proto::SessionId;

use super::Driver;
use crate::clock::Clock;
use crate::enforcer::{Enforcer, EnforcerError};

impl<L: Log, E: Enforcer, C: Clock> Driver<L, E, C> {
    /// Carries out effects in their order; the first failure leaves the rest undone.
    ///
    /// # Errors
    /// The kernel side's.
    pub(super) fn perform(&mut self, effects: &[Effect]) -> Result<(), EnforcerError> {
        effects.iter().try_for_each(|effect| self.carry_out(effect))
    }

    /// Carries out effects that shut doors, or leave them as they are.
    pub(super) fn shut(&mut self, effects: &[Effect]) {
        for effect in effects {
            if let Err(error) = self.carry_out(effect) {
                let (Effect::SetDoors { session, .. }
                | Effect::SetBaselineNetwork { session, .. }
                | Effect::SetFrozen { session, .. }) = effect;
                if matches!(effect, Effect::SetBaselineNetwork { open: true, .. }) {
                    tracing::error!(%session, %error, "the baseline network could not be opened; it stays shut");
                } else {
                    self.condemn(*session, &error);
                }
            }
        }
    }

    /// Shuts all doors of a scope, without asking the authority.
    pub(super) fn shut_scope(&mut self, session: SessionId, scope: ScopeId) {
        let (open, until, openings) = (GrantSet::EMPTY, Duration::ZERO, Vec::new());
        self.shut(&[Effect::SetDoors { session, scope, open, until, openings }]);
    }

    fn carry_out(&mut self, effect: &Effect) -> Result<(), EnforcerError> {
        match *effect {
            Effect::SetDoors { session, scope, open, until, ref openings } => {
                self.enforcer.set_doors(session, scope, open, until, openings)
            }
            // Whoever orders it is told how it went.
            Effect::SetFrozen { .. } => Ok(()),
            Effect::SetBaselineNetwork { session, open } => {
                let known = self.sessions.get_mut(&session).map(|session| &mut session.baseline);
                if known.as_ref().is_some_and(|known| **known == Some(open)) {
                    return Ok(());
                }
                self.enforcer.set_baseline_network(session, open)?;
                if let Some(known) = known {
                    *known = Some(open);
                }
                Ok(())
            }
        }
    }

    /// Kills a session whose doors could not be shut: nothing may go on behind an open one.
    pub(super) fn condemn(&mut self, session: SessionId, error: &EnforcerError) {
        tracing::error!(%session, %error, "doors could not be shut; its processes are killed");
        let Some(condemned) = self.sessions.get(&session) else { return };
        if let Err(error) = condemned.cgroup.kill() {
            tracing::error!(%session, %error, "and could not be killed; its doors shut when they expire");
        }
        let attempt = Box::new(Attempt {
            operation: "shut".to_owned(),
            target: "the doors of an action".to_owned(),
            verdict: format!("failed: {error}"),
            fate: "killed".to_owned(),
            process: "sentinel-agent".to_owned(),
            pid: std::process::id(),
            would_allow: None,
        });
        // A ledger that can't be written has been reported.
        drop(self.step(Event::KernelDenied { session, attempt, count: 1 }));
    }
}
