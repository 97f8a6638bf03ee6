//! How often an action has started lately.
//!
//! Invariant: what is kept is bounded, and a bound or a clock that goes backwards only ever makes the limit stricter.

use std::collections::VecDeque;
use std::time::Duration;

/// Moments kept one by one; beyond, neighbours are counted together at the later one's time.
const MOST_MOMENTS: usize = 4096;

/// The starts of one action.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Starts {
    /// When, and how many then; oldest first.
    moments: VecDeque<(Duration, u64)>,
}

impl Starts {
    /// One more start. A time before the last one counts as the last one's.
    pub(crate) fn add(&mut self, at: Duration) {
        match self.moments.back_mut() {
            Some((last, count)) if *last >= at => *count = count.saturating_add(1),
            Some(_) | None => self.moments.push_back((at, 1)),
        }
        if self.moments.len() > MOST_MOMENTS {
            self.merge_neighbours();
        }
    }

    /// Takes back the start of then, of an action that never ran. Unknown: a no-op.
    pub(crate) fn remove(&mut self, at: Duration) {
        let found = self.moments.iter_mut().rev().find(|(moment, count)| *moment >= at && *count > 0);
        if let Some((_, count)) = found {
            *count = count.saturating_sub(1);
        }
    }

    /// How many are in the window that ends now.
    pub(crate) fn within(&self, window: Duration, now: Duration) -> u64 {
        self.in_window(window, now).fold(0, |sum, (_, count)| sum.saturating_add(count))
    }

    /// How long until fewer than `max_count` are in the window; none: never.
    pub(crate) fn wait(&self, max_count: u64, window: Duration, now: Duration) -> Option<Duration> {
        if max_count == 0 {
            return None;
        }
        let mut left = self.within(window, now);
        let mut wait = Duration::ZERO;
        for (moment, count) in self.in_window(window, now) {
            if left < max_count {
                break;
            }
            left = left.saturating_sub(count);
            wait = moment.saturating_add(window).saturating_sub(now);
        }
        Some(wait)
    }

    fn in_window(&self, window: Duration, now: Duration) -> impl Iterator<Item = (Duration, u64)> {
        self.moments.iter().copied().filter(move |(moment, _)| moment.saturating_add(window) > now)
    }

    fn merge_neighbours(&mut self) {
        let mut merged = VecDeque::with_capacity(MOST_MOMENTS);
        let mut moments = std::mem::take(&mut self.moments).into_iter();
        while let Some((first, count)) = moments.next() {
            merged.push_back(match moments.next() {
                Some((second, more)) => (second, count.saturating_add(more)),
                None => (first, count),
            });
        }
        self.moments = merged;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_start_leaves_the_window_when_the_window_has_passed() {
        let mut starts = Starts::default();
        starts.add(SECOND);
        assert_eq!(starts.within(SECOND, Duration::from_millis(1999)), 1);
        assert_eq!(starts.within(SECOND, Duration::from_millis(2000)), 0);
    }

    #[test]
    fn a_clock_that_goes_backwards_frees_no_slot() {
        let mut starts = Starts::default();
        starts.add(Duration::from_secs(100));
        starts.add(Duration::from_secs(50));
        assert_eq!(starts.within(SECOND, Duration::from_secs(50)), 2);
        assert_eq!(starts.within(SECOND, Duration::from_millis(100_500)), 2);
    }

    #[test]
    fn many_starts_are_kept_in_bounds_and_none_is_forgotten() {
        let mut starts = Starts::default();
        for millisecond in 0..100_000 {
            starts.add(Duration::from_millis(millisecond));
        }
        assert!(starts.moments.len() <= MOST_MOMENTS);
        assert_eq!(starts.within(Duration::from_secs(1000), Duration::from_secs(100)), 100_000);
    }

    #[test]
    fn the_wait_ends_when_there_is_room() {
        let mut starts = Starts::default();
        starts.add(SECOND);
        starts.add(SECOND.saturating_mul(2));
        let window = Duration::from_secs(10);
        let now = Duration::from_secs(3);
        assert_eq!(starts.wait(2, window, now), Some(Duration::from_secs(8)));
        assert_eq!(starts.wait(1, window, now), Some(Duration::from_secs(9)));
        assert_eq!(starts.wait(0, window, now), None);
    }
}
