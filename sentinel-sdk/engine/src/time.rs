//! Time, as the shells hand it in.

use std::time::Duration;

/// The moment of an event. Windows, expiries and waits use `elapsed`; only what a person reads uses `wall`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// Microseconds since 1970-01-01 UTC. May jump, also backwards.
    pub wall_micros: u64,
    /// Since boot, sleep included (CLOCK_BOOTTIME). Never goes backwards while the host is up.
    pub elapsed: Duration,
}
