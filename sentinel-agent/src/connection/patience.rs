//! How long to wait for a peer's next words before going to sleep.
//!
//! A peer that has just been answered often speaks again at once, and to yield the processor to it costs less than to
//! sleep and be woken: on one processor a little, on two ten times as much. Who is known to think longer isn't waited for.

use std::time::Duration;

/// How long.
const MOST: Duration = Duration::from_micros(20);
/// So many times a peer that took longer isn't waited for; twice as many each time that it does so again, up to
const FIRST_SKIPS: u16 = 16;
/// so many. Where the processor comes back at once, though another waits for it, waiting never pays.
const MOST_SKIPS: u16 = 1024;

/// Patience with one peer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// Since when it is being waited for.
    since: Option<Duration>,
    /// How many times it won't be.
    skips: u16,
    /// How many times it won't be after the next time that it takes too long.
    next_skips: u16,
}

impl Default for Patience {
    fn default() -> Self {
        Self { since: None, skips: 0, next_skips: FIRST_SKIPS }
    }
}

impl Patience {
    /// Whether to ask again soon, for nothing was there at `now`.
    pub(super) fn lasts(&mut self, now: Duration) -> bool {
        if self.skips > 0 {
            return false;
        }
        let waited = now.saturating_sub(*self.since.get_or_insert(now));
        if waited >= MOST {
            self.skips = self.next_skips;
            self.next_skips = self.next_skips.saturating_mul(2).min(MOST_SKIPS);
            return false;
        }
        true
    }

    /// Something was there.
    pub(super) fn is_rewarded(&mut self) {
        if self.since.take().is_some() && self.skips == 0 {
            self.next_skips = FIRST_SKIPS;
        }
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
        for _ in 0..FIRST_SKIPS {
            assert!(!patience.lasts(Duration::from_secs(1)));
            patience.is_rewarded();
        }
        assert!(patience.lasts(Duration::from_secs(2)));
    }

    #[test]
    fn the_longer_a_peer_stays_slow_the_more_rarely_it_is_waited_for() {
        let mut patience = Patience::default();
        let mut waited_for = 0;
        for second in 0..10_000 {
            let now = Duration::from_secs(second);
            waited_for += u32::from(patience.lasts(now) && !patience.lasts(now + MOST));
            patience.is_rewarded();
        }
        assert!((10..30).contains(&waited_for), "{waited_for}");
    }
}
