//! How long to wait for a peer's next words before going to sleep.
//!
//! A peer that has just been answered often speaks again at once, and to yield the processor to it costs less than to
//! sleep and be woken: on one processor a little, on two ten times as much. Who is known to think longer isn't waited for.

use std::time::Duration;

/// How long.
const MOST: Duration = Duration::from_micros(20);
/// So many times a peer that took longer isn't waited for.
const SKIPPED: u8 = 16;

/// Patience with one peer.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Patience {
    /// Since when it is being waited for.
    since: Option<Duration>,
    /// How many times it won't be.
    skips: u8,
}

impl Patience {
    /// Whether to ask again soon, for nothing was there at `now`.
    pub(super) fn lasts(&mut self, now: Duration) -> bool {
        if self.skips > 0 {
            return false;
        }
        let waited = now.saturating_sub(*self.since.get_or_insert(now));
        if waited >= MOST {
            self.skips = SKIPPED;
            return false;
        }
        true
    }

    /// Something was there.
    pub(super) fn is_rewarded(&mut self) {
        self.since = None;
        self.skips = self.skips.saturating_sub(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quick_peer_is_waited_for_each_time() {
        let mut patience = Patience::default();
        for second in 0..100 {
            let now = Duration::from_secs(second);
            assert!(patience.lasts(now) && patience.lasts(now + MOST / 2));
            patience.is_rewarded();
        }
    }

    #[test]
    fn a_slow_peer_is_waited_for_once_and_then_left_alone_for_a_while() {
        let mut patience = Patience::default();
        assert!(patience.lasts(Duration::ZERO));
        assert!(!patience.lasts(MOST), "no longer than that");
        for _ in 0..SKIPPED {
            assert!(!patience.lasts(Duration::from_secs(1)));
            patience.is_rewarded();
        }
        assert!(patience.lasts(Duration::from_secs(2)));
    }
}
