//! Time, handed to whatever decides by it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};
use sentinel_engine::Now;

/// Where the driver has its time from.
pub trait Clock {
    /// The present moment.
    fn now(&self) -> Now;
}

/// The host's clocks.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Now {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        Now { wall_micros: u64::try_from(wall.as_micros()).unwrap_or(u64::MAX), elapsed: since_boot() }
    }
}

/// How long the host has been up, sleep included: the clock of expiries, marks and the heartbeat.
#[must_use]
pub fn since_boot() -> Duration {
    let time = clock_gettime(ClockId::Boottime);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// A clock for tests, that stands still until it is moved.
#[cfg(test)]
#[derive(Clone, Debug)]
pub(crate) struct ManualClock(std::rc::Rc<std::cell::Cell<Duration>>);

#[cfg(test)]
impl ManualClock {
    pub(crate) fn at(elapsed: Duration) -> Self {
        Self(std::rc::Rc::new(std::cell::Cell::new(elapsed)))
    }

    pub(crate) fn advance(&self, by: Duration) {
        self.0.set(self.0.get() + by);
    }
}

#[cfg(test)]
impl Clock for ManualClock {
    fn now(&self) -> Now {
        let elapsed = self.0.get();
        Now { wall_micros: u64::try_from(elapsed.as_micros()).unwrap() + 1_700_000_000_000_000, elapsed }
    }
}
