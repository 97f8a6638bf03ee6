//! Whether this host still enforces: tried anew every ten minutes, and when an operator asks.
//!
//! Invariant: while the last trial failed, no session starts. Those that run go on under what holds; the ledger says since when it is in doubt.

use std::time::Duration;

use sentinel_authority::Log;
use sentinel_engine::Event;
use sentinel_proto::examination::Examination;

use super::Driver;
use crate::clock::Clock;
use crate::enforcer::Enforcer;

/// How often it is tried.
const EVERY: Duration = Duration::from_secs(600);

/// When it is tried next, and how it came out last.
#[derive(Debug, Default)]
pub(super) struct Examinations {
    due: Option<Duration>,
    failure: Option<String>,
}

impl Examinations {
    /// Why no session may start; none: one may.
    pub(super) fn failure(&self) -> Option<&str> {
        self.failure.as_deref()
    }
}

impl<L: Log, E: Enforcer, C: Clock> Driver<L, E, C> {
    /// Tries it if it is due. At the start it was tried already.
    pub(super) fn examine_if_due(&mut self) {
        let now = self.clock.now().elapsed;
        match self.examinations.due {
            Some(due) if due <= now => {
                if let Err(error) = self.examine() {
                    tracing::error!(error, "this host could not be tried out");
                }
            }
            Some(_) => {}
            None => self.examinations.due = Some(now.saturating_add(EVERY)),
        }
    }

    /// Tries it now.
    ///
    /// # Errors
    /// It could not be tried, which is as bad as a failure.
    pub(super) fn examine(&mut self) -> Result<Examination, String> {
        self.examinations.due = Some(self.clock.now().elapsed.saturating_add(EVERY));
        let examined = self.enforcer.examine().map_err(|error| error.to_string());
        let failure = match &examined {
            Ok(examination) => examination.failure(),
            Err(cause) => Some(cause.clone()),
        };
        if failure != self.examinations.failure {
            match &failure {
                Some(cause) => {
                    tracing::error!(cause, "this host does not enforce what it is told: no session starts")
                }
                None => tracing::info!("this host enforces again what it is told"),
            }
            // Where that can't be written, nothing starts for that reason already.
            drop(self.step(Event::Examined { failure: failure.clone() }));
            self.examinations.failure = failure;
        }
        examined
    }
}
