//! How long a thread looks for an answer before it sleeps.
//!
//! On two processors to be woken costs more than a whole round trip, so it pays to look again and again for a moment, and to let others run in
//! between. On one it doesn't where the kernel gives the processor back at once: then the answer comes only to who sleeps. Which it is shows.

use std::time::{Duration, Instant};

/// A thread looks for so long.
const LOOKING: Duration = Duration::from_micros(50);
/// After it has looked in vain, so many answers are slept for; twice as many each time, up to
const FIRST_SKIPS: u32 = 8;
/// so many.
const MOST_SKIPS: u32 = 1024;

/// Patience with the agent, on one connection.
#[derive(Debug)]
pub(super) struct Patience {
    looking_since: Option<Instant>,
    /// So many answers are slept for.
    skips: u32,
    /// After the next time in vain, so many.
    next_skips: u32,
}

impl Default for Patience {
    fn default() -> Self {
        Self { looking_since: None, skips: 0, next_skips: FIRST_SKIPS }
    }
}

impl Patience {
    /// Whether the next answer is slept for.
    pub(super) const fn is_at_an_end(&self) -> bool {
        self.skips > 0
    }

    /// Whether to look again instead of to sleep, for nothing is there at `now`.
    pub(super) fn lasts(&mut self, now: impl Fn() -> Instant) -> bool {
        if self.skips > 0 {
            return false;
        }
        let now = now();
        let since = *self.looking_since.get_or_insert(now);
        if now.saturating_duration_since(since) < LOOKING {
            return true;
        }
        self.skips = self.next_skips;
        self.next_skips = self.next_skips.saturating_mul(2).min(MOST_SKIPS);
        false
    }

    /// Something came.
    pub(super) fn is_rewarded(&mut self) {
        if self.looking_since.take().is_some() && self.skips == 0 {
            self.next_skips = FIRST_SKIPS;
        }
        self.skips = self.skips.saturating_sub(1);
    }
}

#[cfg(test)]
#[expect(clippy::arithmetic_side_effects, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    /// Whether this answer, which comes after so long, is looked for at first, and still when it comes.
    fn is_looked_for(patience: &mut Patience, after: Duration) -> (bool, bool) {
        let start = Instant::now();
        let looks = (patience.lasts(|| start), patience.lasts(|| start + after));
        patience.is_rewarded();
        looks
    }

    #[test]
    fn an_answer_that_comes_soon_is_looked_for_each_time() {
        let mut patience = Patience::default();
        for _ in 0..100 {
            assert_eq!(is_looked_for(&mut patience, LOOKING / 2), (true, true));
        }
    }

    #[test]
    fn the_longer_answers_come_late_the_more_rarely_one_is_looked_for() {
        let mut patience = Patience::default();
        let mut looked_for = 0;
        for _ in 0..10_000 {
            looked_for += u32::from(is_looked_for(&mut patience, LOOKING).0);
        }
        assert!((10..30).contains(&looked_for), "{looked_for}");
    }

    #[test]
    fn once_answers_come_soon_again_they_are_looked_for_again() {
        let mut patience = Patience::default();
        for _ in 0..10_000 {
            is_looked_for(&mut patience, LOOKING);
        }
        for _ in 0..MOST_SKIPS {
            is_looked_for(&mut patience, LOOKING / 2);
        }
        assert_eq!(is_looked_for(&mut patience, LOOKING / 2), (true, true));
    }
}
