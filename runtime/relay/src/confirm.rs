//! How far the streams are complete, and how far the slot may be confirmed: only what JetStream has acknowledged at least a sync interval ago,
//! because it acknowledges before it syncs.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::publish::Tail;
use crate::state::Models;

// A place of the log, complete when the messages sent before it are acknowledged.
struct Marker {
    end: u64,
    sent: u64,
    models: Arc<Models>,
}

/// Places of the log that wait for acknowledgements, in order. There are never more of them than messages on their way, and one.
#[derive(Default)]
pub struct Settling {
    markers: VecDeque<Marker>,
    settled: u64,
    models: Option<Arc<Models>>,
}

impl Settling {
    /// Notes that the log was read up to `end`, with `sent` messages sent by then and the catalog given.
    pub fn mark(&mut self, end: u64, sent: u64, models: &Arc<Models>) {
        match self.markers.back_mut() {
            Some(last) if last.sent == sent => {
                last.end = last.end.max(end);
                if !Arc::ptr_eq(&last.models, models) {
                    last.models = models.clone();
                }
            }
            _ => self.markers.push_back(Marker { end, sent, models: models.clone() }),
        }
    }

    /// Takes in that the first `acknowledged` messages are acknowledged; true where the settled position rose.
    pub fn settle(&mut self, acknowledged: u64) -> bool {
        let before = self.settled;
        while self.markers.front().is_some_and(|marker| marker.sent <= acknowledged) {
            if let Some(marker) = self.markers.pop_front() {
                self.settled = self.settled.max(marker.end);
                self.models = Some(marker.models);
            }
        }
        self.settled > before
    }

    /// All that was committed before this place of the log is in the streams; 0 before the first place is known.
    pub fn settled(&self) -> u64 {
        self.settled
    }

    /// The catalog at that place.
    pub fn models(&self) -> Option<&Arc<Models>> {
        self.models.as_ref()
    }
}

/// What the streams held at a moment.
#[derive(Clone)]
pub struct Checkpoint {
    /// The log up to here is in them.
    pub end: u64,
    /// Their ends.
    pub tails: Vec<(String, Tail)>,
    /// The catalog at `end`.
    pub models: Arc<Models>,
}

/// Checkpoints that wait until they count as synced.
pub struct Confirming {
    interval: Duration,
    checkpoints: VecDeque<(Instant, Checkpoint)>,
}

impl Confirming {
    /// What was acknowledged `interval` ago counts as synced.
    pub fn new(interval: Duration) -> Self {
        Self { interval, checkpoints: VecDeque::new() }
    }

    /// Whether the settled position is news, and no checkpoint was taken just before: they are kept to some hundred.
    pub fn wants(&self, end: u64, now: Instant) -> bool {
        let pause = self.interval / 256;
        end > 0 && self.checkpoints.back().is_none_or(|(at, last)| end > last.end && now.duration_since(*at) >= pause)
    }

    /// Takes a checkpoint.
    pub fn push(&mut self, at: Instant, checkpoint: Checkpoint) {
        self.checkpoints.push_back((at, checkpoint));
    }

    /// The newest checkpoint that counts as synced, once.
    pub fn synced(&mut self, now: Instant) -> Option<Checkpoint> {
        let mut newest = None;
        while self.checkpoints.front().is_some_and(|(at, _)| now.duration_since(*at) >= self.interval) {
            newest = self.checkpoints.pop_front();
        }
        newest.map(|(_, checkpoint)| checkpoint)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_settles_when_all_before_it_is_acknowledged() {
        let models = Arc::new(Models::default());
        let mut settling = Settling::default();
        settling.mark(100, 2, &models);
        settling.mark(110, 2, &models);
        settling.mark(120, 3, &models);
        assert!(!settling.settle(1));
        assert!(settling.settle(2));
        assert_eq!(settling.settled(), 110);
        assert!(settling.settle(3));
        assert_eq!(settling.settled(), 120);
    }

    #[test]
    fn only_what_is_old_enough_is_confirmed() {
        let mut confirming = Confirming::new(Duration::from_secs(10));
        let start = Instant::now();
        let checkpoint = |end| Checkpoint { end, tails: Vec::new(), models: Arc::new(Models::default()) };
        assert!(confirming.wants(1, start));
        confirming.push(start, checkpoint(1));
        assert!(!confirming.wants(2, start));
        assert!(!confirming.wants(1, start + Duration::from_secs(1)));
        confirming.push(start + Duration::from_secs(1), checkpoint(2));
        assert!(confirming.synced(start + Duration::from_secs(9)).is_none());
        assert_eq!(confirming.synced(start + Duration::from_secs(11)).map(|checkpoint| checkpoint.end), Some(2));
        assert!(confirming.synced(start + Duration::from_secs(20)).is_none());
    }
}
