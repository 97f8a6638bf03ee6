//! How often an action has started lately.
//!
//! Invariant: what is kept is bounded, and neither the bound nor a clock that goes backwards ever makes a limit looser.
//!
//! The newest starts are kept one by one, older ones in blocks that count as the youngest of them: the older, the
//! larger. So a limit of a few hundred is exact, a larger one gives its slots back late by less than a hundredth of
//! them, and a million starts take some hundred kilobytes at most, whatever the window.

use std::collections::VecDeque;
use std::time::Duration;

/// The most blocks of one size.
const MOST_OF_A_SIZE: usize = 512;

/// The starts of one action.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Starts {
    /// Blocks by size: first those of one start, then of two, of four and so on. In each, the oldest comes first; all
    /// of a larger size are older than all of a smaller one.
    sizes: Vec<VecDeque<Duration>>,
}

impl Starts {
    /// One more start; answers as which moment it counts: now, but never before the last one.
    pub(crate) fn add(&mut self, now: Duration) -> Duration {
        let newest = self.sizes.iter().find_map(VecDeque::back).copied().unwrap_or_default();
        let moment = now.max(newest);
        let mut block = Some(moment);
        for blocks in &mut self.sizes {
            let Some(moment) = block else { break };
            blocks.push_back(moment);
            block = two_oldest_of_too_many(blocks);
        }
        if let Some(moment) = block {
            self.sizes.push(VecDeque::from([moment]));
        }
        moment
    }

    /// Takes back the start that counts as this moment, of an action that never ran. One that is in a block by now
    /// stays: its slot is lost, not gained.
    pub(crate) fn remove(&mut self, moment: Duration) {
        let Some(single) = self.sizes.first_mut() else { return };
        if let Ok(index) = single.binary_search(&moment) {
            single.remove(index);
        }
        if self.sizes.iter().all(VecDeque::is_empty) {
            self.sizes.clear();
        }
    }

    /// Moves all moments. `moved` keeps their order.
    pub(crate) fn rebase(&mut self, moved: impl Fn(Duration) -> Duration) {
        for moment in self.sizes.iter_mut().flatten() {
            *moment = moved(*moment);
        }
    }

    /// How many are in the window that ends now.
    pub(crate) fn within(&self, window: Duration, now: Duration) -> u64 {
        self.by_size().fold(0, |sum, (size, blocks)| {
            let gone = blocks.partition_point(|moment| moment.saturating_add(window) <= now);
            let left = u64::try_from(blocks.len().saturating_sub(gone)).unwrap_or(u64::MAX);
            sum.saturating_add(left.saturating_mul(size))
        })
    }

    /// How long until fewer than `max_count` are in the window; none: never.
    pub(crate) fn wait(&self, max_count: u64, window: Duration, now: Duration) -> Option<Duration> {
        if max_count == 0 {
            return None;
        }
        let mut left = self.within(window, now);
        let mut wait = Duration::ZERO;
        let oldest_first =
            self.by_size().rev().flat_map(|(size, blocks)| blocks.iter().map(move |at| (size, at)));
        for (size, moment) in oldest_first {
            let ends = moment.saturating_add(window);
            if ends <= now {
                continue;
            }
            if left < max_count {
                break;
            }
            left = left.saturating_sub(size);
            wait = ends.saturating_sub(now);
        }
        Some(wait)
    }

    /// The blocks with the number of starts that each stands for.
    fn by_size(&self) -> impl DoubleEndedIterator<Item = (u64, &VecDeque<Duration>)> {
        let size = |exponent: usize| {
            u32::try_from(exponent).ok().and_then(|exponent| 1_u64.checked_shl(exponent)).unwrap_or(u64::MAX)
        };
        self.sizes.iter().enumerate().map(move |(exponent, blocks)| (size(exponent), blocks))
    }
}

/// Takes the two oldest blocks out as one, if there are too many of their size.
fn two_oldest_of_too_many(blocks: &mut VecDeque<Duration>) -> Option<Duration> {
    if blocks.len() <= MOST_OF_A_SIZE {
        return None;
    }
    blocks.pop_front()?;
    blocks.pop_front()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

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
        for millisecond in 0..1_000_000 {
            starts.add(Duration::from_millis(millisecond));
        }
        let kept: usize = starts.sizes.iter().map(VecDeque::len).sum();
        assert!(kept <= 12 * MOST_OF_A_SIZE, "{kept} blocks are kept");
        assert_eq!(starts.within(Duration::from_secs(2000), Duration::from_secs(1000)), 1_000_000);
    }

    #[test]
    fn a_steady_stream_far_below_a_large_limit_is_never_held_up() {
        let mut starts = Starts::default();
        let (hour, max_count) = (Duration::from_secs(3600), 40_000);
        // Ten in a second are 36,000 in an hour.
        for tenth in 0..200_000 {
            let now = Duration::from_millis(tenth * 100);
            assert!(starts.within(hour, now) < max_count, "held up after {tenth} starts");
            starts.add(now);
        }
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

    #[test]
    fn a_start_that_is_taken_back_was_never_there() {
        let mut starts = Starts::default();
        starts.add(SECOND);
        let before = starts.clone();
        let moment = starts.add(SECOND.saturating_mul(2));
        starts.remove(moment);
        assert_eq!(starts, before);
        starts.remove(SECOND);
        assert_eq!(starts, Starts::default());
        starts.remove(SECOND);
        assert_eq!(starts, Starts::default());
    }

    proptest! {
        /// Against a plain list of all starts.
        #[test]
        fn the_count_is_exact_for_few_and_never_too_low_for_many(
            steps in prop::collection::vec(0..50_u64, 1..4000),
            window in 1..100_000_u64,
        ) {
            let (mut starts, mut all) = (Starts::default(), Vec::new());
            let mut now = 0;
            for step in steps {
                now += step;
                starts.add(Duration::from_millis(now));
                all.push(now);
            }
            let exact = u64::try_from(all.iter().filter(|at| **at + window > now).count()).unwrap();
            let counted = starts.within(Duration::from_millis(window), Duration::from_millis(now));
            prop_assert!(counted >= exact);
            prop_assert!(counted - exact <= exact / 100, "{} for {}", counted, exact);
            if exact < 500 {
                prop_assert_eq!(counted, exact);
            }
        }

        #[test]
        fn after_the_wait_there_is_room_and_not_a_moment_before(
            steps in prop::collection::vec(0..2_000_u64, 1..60),
            max_count in 1..20_u64,
        ) {
            let window = Duration::from_secs(10);
            let (mut starts, mut now) = (Starts::default(), Duration::ZERO);
            for step in steps {
                now += Duration::from_millis(step);
                starts.add(now);
            }
            let wait = starts.wait(max_count, window, now).unwrap();
            prop_assert!(starts.within(window, now + wait) < max_count);
            if !wait.is_zero() {
                prop_assert!(starts.within(window, now + wait - Duration::from_nanos(1)) >= max_count);
            }
        }
    }
}
