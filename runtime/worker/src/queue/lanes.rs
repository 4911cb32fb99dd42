//! Order among the events of one object: while one is handled, the next ones queue behind it.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};

/// Queues by key. What is queued is bounded by what is in hand.
#[derive(Debug)]
pub struct Lanes<T> {
    lanes: Mutex<HashMap<String, VecDeque<T>>>,
}

impl<T> Default for Lanes<T> {
    fn default() -> Self {
        Self { lanes: Mutex::default() }
    }
}

impl<T> Lanes<T> {
    /// Enters a lane: the item comes back where the lane is free and the item's turn is now; [`Self::leave`] ends its turn.
    pub fn enter(&self, key: &str, item: T) -> Option<T> {
        let mut lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        match lanes.get_mut(key) {
            Some(queue) => {
                queue.push_back(item);
                None
            }
            None => {
                lanes.insert(key.to_owned(), VecDeque::new());
                Some(item)
            }
        }
    }

    /// Ends a turn; the next item's turn begins.
    pub fn leave(&self, key: &str) -> Option<T> {
        let mut lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        let next = lanes.get_mut(key)?.pop_front();
        if next.is_none() {
            lanes.remove(key);
        }
        next
    }
}

#[cfg(test)]
mod tests {
    use super::Lanes;

    #[test]
    fn one_at_a_time_in_order_and_nothing_is_left_behind() {
        let lanes = Lanes::default();
        assert_eq!(lanes.enter("a", 1), Some(1));
        assert_eq!(lanes.enter("b", 9), Some(9));
        assert_eq!(lanes.enter("a", 2), None);
        assert_eq!(lanes.enter("a", 3), None);
        assert_eq!(lanes.leave("a"), Some(2));
        assert_eq!(lanes.leave("a"), Some(3));
        assert_eq!(lanes.leave("a"), None);
        assert_eq!(lanes.enter("a", 4), Some(4));
    }
}
