//! What waits for the driver: messages by lane, a lane for each session.
//!
//! Invariant: a lane that is full of work delays no other by more than one [`TURN`]; within a lane, what came first is
//! handled first.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};

use sentinel_proto::SessionId;
use tokio::sync::Notify;

/// So many messages of one lane are handled before it is the next lane's turn.
pub const TURN: usize = 16;

/// Who shares a place in the order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lane {
    /// What operators ask for, and what the host tells.
    Host,
    /// Applications that have not said hello yet.
    Strangers,
    /// A session's applications.
    Session(SessionId),
}

/// The queues. Shared by the connections, which put in, and the driver, which takes out; all on one thread.
#[derive(Debug)]
pub struct Intake<T> {
    lanes: RefCell<Lanes<T>>,
    wake: Notify,
}

#[derive(Debug)]
struct Lanes<T> {
    waiting: BTreeMap<Lane, VecDeque<T>>,
    /// The lanes with something in them, in the order of their turns.
    order: VecDeque<Lane>,
    /// What is left of the first one's turn.
    left: usize,
}

impl<T> Default for Intake<T> {
    fn default() -> Self {
        let lanes = Lanes { waiting: BTreeMap::new(), order: VecDeque::new(), left: TURN };
        Self { lanes: RefCell::new(lanes), wake: Notify::new() }
    }
}

impl<T> Intake<T> {
    /// Puts something at the end of a lane.
    pub fn push(&self, lane: Lane, item: T) {
        let mut lanes = self.lanes.borrow_mut();
        let queue = lanes.waiting.entry(lane).or_default();
        let was_empty = queue.is_empty();
        queue.push_back(item);
        if was_empty {
            lanes.order.push_back(lane);
        }
        drop(lanes);
        self.wake.notify_one();
    }

    /// Takes what is to be handled next.
    pub fn pop(&self) -> Option<T> {
        let lanes = &mut *self.lanes.borrow_mut();
        let lane = *lanes.order.front()?;
        let queue = lanes.waiting.get_mut(&lane)?;
        let item = queue.pop_front();
        lanes.left = lanes.left.saturating_sub(1);
        let is_done = queue.is_empty();
        if is_done || lanes.left == 0 {
            lanes.order.pop_front();
            lanes.left = TURN;
            if !is_done {
                lanes.order.push_back(lane);
            }
        }
        if is_done && queue.capacity() > TURN {
            lanes.waiting.remove(&lane);
        }
        item
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.lanes.borrow().order.is_empty()
    }

    /// Waits until something may be there.
    pub async fn filled(&self) {
        self.wake.notified().await;
    }

    /// Forgets an empty lane that won't be used again.
    pub fn forget(&self, lane: Lane) {
        let mut lanes = self.lanes.borrow_mut();
        if lanes.waiting.get(&lane).is_some_and(VecDeque::is_empty) {
            lanes.waiting.remove(&lane);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GREEDY: Lane = Lane::Session(SessionId(1));
    const MODEST: Lane = Lane::Session(SessionId(2));

    #[test]
    fn a_session_that_floods_delays_another_by_no_more_than_one_turn() {
        let intake = Intake::default();
        for number in 0..1_000 {
            intake.push(GREEDY, number);
        }
        intake.push(MODEST, -1);
        let handled: Vec<i32> = std::iter::from_fn(|| intake.pop()).collect();
        assert_eq!(handled.iter().position(|item| *item == -1), Some(TURN));
        assert_eq!(handled.len(), 1_001, "and nothing is lost");
    }

    #[test]
    fn within_a_session_the_first_comes_first() {
        let intake = Intake::default();
        for number in 0..100 {
            intake.push(GREEDY, number);
            intake.push(MODEST, 1_000 + number);
        }
        let handled: Vec<i32> = std::iter::from_fn(|| intake.pop()).collect();
        let of_one: Vec<i32> = handled.iter().copied().filter(|item| *item < 1_000).collect();
        assert_eq!(of_one, (0..100).collect::<Vec<_>>());
        assert!(intake.pop().is_none());
    }

    #[test]
    fn a_turn_that_was_cut_short_by_an_empty_lane_takes_nothing_from_the_next() {
        let intake = Intake::default();
        intake.push(GREEDY, 1);
        assert_eq!(intake.pop(), Some(1));
        for number in 0..TURN {
            intake.push(MODEST, i32::try_from(number).unwrap());
        }
        intake.push(GREEDY, -1);
        let handled: Vec<i32> = std::iter::from_fn(|| intake.pop()).collect();
        assert_eq!(handled.last(), Some(&-1), "the whole turn was the other's");
    }
}
