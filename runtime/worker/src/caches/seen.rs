//! How far a cache has seen the log, worked out from watermarks and from the sequences it has processed.

use std::collections::VecDeque;

// Watermarks that the cache has yet to reach; beyond this the newest takes the place of the one before.
const MOST_WAITING: usize = 4096;

/// Turns watermarks and processed sequences into a position.
#[derive(Debug, Default)]
pub struct Seen {
    // The entity's last stream sequence at that position; both rise.
    waiting: VecDeque<(u64, u64)>,
    processed: u64,
    position: u64,
}

impl Seen {
    /// Nothing seen; every message of the entity up to this stream sequence needs no processing.
    pub fn from_sequence(processed: u64) -> Self {
        Self { processed, ..Self::default() }
    }

    /// The last stream sequence that is processed, or needs no processing.
    pub fn processed(&self) -> u64 {
        self.processed
    }

    /// The position up to which every change is in the cache.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// The relay says: every change at or before `position` is in the streams, and the entity's last one is message `sequence`.
    pub fn watermark(&mut self, position: u64, sequence: u64) {
        if self.waiting.is_empty() && sequence <= self.processed {
            self.position = self.position.max(position);
            return;
        }
        let full = self.waiting.len() >= MOST_WAITING;
        match self.waiting.back_mut() {
            // Another relay, or one that started again, may tell what is known already.
            Some((_, last)) if *last >= position => return,
            Some(back) if back.0 >= sequence => back.1 = position,
            Some(back) if full => *back = (sequence, position),
            _ => self.waiting.push_back((sequence, position)),
        }
        self.advance();
    }

    /// The message `sequence` is processed.
    pub fn process(&mut self, sequence: u64) {
        self.processed = self.processed.max(sequence);
        self.advance();
    }

    fn advance(&mut self) {
        while let Some(&(sequence, position)) = self.waiting.front() {
            if sequence > self.processed {
                break;
            }
            self.position = self.position.max(position);
            self.waiting.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_is_seen_when_its_last_message_is_processed() {
        let mut seen = Seen::from_sequence(10);
        seen.watermark(100, 10);
        assert_eq!(seen.position(), 100);
        seen.watermark(200, 12);
        seen.watermark(210, 12);
        seen.watermark(300, 15);
        assert_eq!(seen.position(), 100);
        seen.process(11);
        assert_eq!(seen.position(), 100);
        seen.process(12);
        assert_eq!(seen.position(), 210);
        seen.watermark(50, 12);
        assert_eq!(seen.position(), 210);
        seen.process(15);
        assert_eq!(seen.position(), 300);
    }

    #[test]
    fn watermarks_that_wait_are_bounded() {
        let mut seen = Seen::from_sequence(0);
        for n in 1..=10_000 {
            seen.watermark(n * 10, n);
        }
        assert!(seen.waiting.len() <= MOST_WAITING);
        seen.process(10_000);
        assert_eq!(seen.position(), 100_000);
    }
}
