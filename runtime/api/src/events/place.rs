//! Where in a stream an event stands, found by its position: sequences of a stream that was repaired or made anew are others, positions stay
//! what they are. They rise with the sequence, so the place is searched for, from the end, where those who come back mostly are.

use std::cmp::Ordering;

use async_nats::jetstream::message::StreamMessage;
use async_nats::jetstream::stream::{DirectGetError, DirectGetErrorKind, Stream};
use autonomy_crds::event::{Position, header};

/// What is known of a position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// The event is there, at this sequence (0: before the first event of all).
    At(u64),
    /// The stream has not come so far: it lost its tail, and the relay is about to bring it again.
    Ahead,
    /// The stream does not have that event any more, and so maybe not what came behind it.
    Gone,
}

/// A stream can't be read.
#[derive(Debug, thiserror::Error)]
pub enum PlaceError {
    /// JetStream did not answer as expected.
    #[error("the stream of {subjects} can't be read")]
    Read {
        /// The stream's subjects.
        subjects: String,
        /// Why.
        #[source]
        source: async_nats::Error,
    },
    /// A message has no position.
    #[error("message {sequence} of the stream of {subjects} is no event of the relay (it has no position in its header ce-id)")]
    Foreign {
        /// The stream's subjects.
        subjects: String,
        /// The message.
        sequence: u64,
    },
}

/// Looks for an event in a stream of which `stream` tells the state; `subjects` are all of its subjects.
///
/// # Errors
/// When the stream can't be read.
pub async fn find(stream: &Stream, subjects: &str, wanted: Position) -> Result<Place, PlaceError> {
    let state = &stream.cached_info().state;
    if wanted == Position::default() {
        return Ok(if state.first_sequence <= 1 { Place::At(0) } else { Place::Gone });
    }
    if state.messages == 0 {
        // One that never had a message was made anew just now, or lost all of the little that it had.
        return Ok(if state.last_sequence == 0 { Place::Ahead } else { Place::Gone });
    }
    let Some(end) = last(stream, subjects).await? else { return Ok(Place::Gone) };
    let mut search = match Search::begin(state.first_sequence, end, wanted) {
        Ok(place) => return Ok(place),
        Err(search) => search,
    };
    loop {
        let found = read(subjects, stream.direct_get_next_for_subject(subjects, Some(search.probe())).await)?;
        if let Some(place) = search.take(found) {
            return Ok(place);
        }
    }
}

/// The last event of a stream: its sequence and position; none where it has no message.
///
/// # Errors
/// When the stream can't be read.
pub async fn last<I>(stream: &Stream<I>, subjects: &str) -> Result<Option<(u64, Position)>, PlaceError> {
    read(subjects, stream.direct_get_last_for_subject(subjects).await)
}

fn read(subjects: &str, answer: Result<StreamMessage, DirectGetError>) -> Result<Option<(u64, Position)>, PlaceError> {
    let message = match answer {
        Ok(message) => message,
        Err(error) if error.kind() == DirectGetErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(PlaceError::Read { subjects: subjects.to_owned(), source: error.into() }),
    };
    let position = message.headers.get(header::ID).and_then(|id| id.as_str().parse().ok());
    let position = position.ok_or_else(|| PlaceError::Foreign { subjects: subjects.to_owned(), sequence: message.sequence })?;
    Ok(Some((message.sequence, position)))
}

// A search for a position: first with growing steps from the end, then by halves. Each look gives the first event at a sequence or behind it;
// some between may be missing.
struct Search {
    first: u64,
    end: u64,
    wanted: Position,
    step: u64,
    // What is here or before it is before the event wanted; none as long as steps are taken.
    low: Option<u64>,
    // What is here or behind it is behind the event wanted.
    high: u64,
}

impl Search {
    // A search in a stream with this first sequence and this last event, or what is known at once.
    fn begin(first: u64, (end, position): (u64, Position), wanted: Position) -> Result<Place, Self> {
        match position.cmp(&wanted) {
            Ordering::Less => Ok(Place::Ahead),
            Ordering::Equal => Ok(Place::At(end)),
            Ordering::Greater if end <= first => Ok(Place::Gone),
            Ordering::Greater => Err(Self { first, end, wanted, step: 1, low: None, high: end }),
        }
    }

    // Where to look.
    fn probe(&self) -> u64 {
        match self.low {
            None => self.end.saturating_sub(self.step).max(self.first),
            Some(low) => low + (self.high - low) / 2,
        }
    }

    // Takes in what was found there; gives the place when it is known.
    fn take(&mut self, found: Option<(u64, Position)>) -> Option<Place> {
        let probe = self.probe();
        // Another server may answer, which has not come so far as the one before.
        let Some((sequence, position)) = found else { return Some(Place::Ahead) };
        match position.cmp(&self.wanted) {
            Ordering::Equal => return Some(Place::At(sequence)),
            Ordering::Less => self.low = Some(sequence),
            Ordering::Greater if self.low.is_none() && probe == self.first => return Some(Place::Gone),
            Ordering::Greater => {
                self.high = probe;
                self.step = self.step.saturating_mul(2);
            }
        }
        self.low.is_some_and(|low| low + 1 >= self.high).then_some(Place::Gone)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(commit: u64) -> Position {
        Position { commit, index: 0 }
    }

    fn found(events: &[(u64, u64)], wanted: u64) -> (Place, usize) {
        let (first, (end, position)) = (events[0].0, events[events.len() - 1]);
        let mut search = match Search::begin(first, (end, at(position)), at(wanted)) {
            Ok(place) => return (place, 0),
            Err(search) => search,
        };
        for looks in 1.. {
            let probe = search.probe();
            let event = events.iter().find(|(known, _)| *known >= probe);
            if let Some(place) = search.take(event.map(|(sequence, commit)| (*sequence, at(*commit)))) {
                return (place, looks);
            }
        }
        unreachable!("it ends");
    }

    #[test]
    fn every_event_is_found_whatever_is_missing_between() {
        // Positions are 10 times the sequence; every third event was removed, and the first 100 have expired.
        let events: Vec<(u64, u64)> = (100..=1000).filter(|n| n % 3 != 0).map(|n| (n, n * 10)).collect();
        for n in 90..=1010_u64 {
            let wanted = match n {
                ..100 => Place::Gone,
                1001.. => Place::Ahead,
                n if n % 3 == 0 => Place::Gone,
                n => Place::At(n),
            };
            assert_eq!(found(&events, n * 10).0, wanted, "{n}");
            if n < 1000 {
                assert_eq!(found(&events, n * 10 + 5).0, Place::Gone, "between {n} and the next");
            }
        }
    }

    #[test]
    fn one_event_is_enough() {
        assert_eq!(found(&[(7, 70)], 70).0, Place::At(7));
        assert_eq!(found(&[(7, 70)], 60).0, Place::Gone);
        assert_eq!(found(&[(7, 70)], 80).0, Place::Ahead);
    }

    #[test]
    fn those_near_the_end_are_found_at_once() {
        let events: Vec<(u64, u64)> = (1..=10_000).map(|n| (n, n)).collect();
        let (place, looks) = found(&events, 9_999);
        assert_eq!(place, Place::At(9_999));
        assert_eq!(looks, 1);
        let (place, looks) = found(&events, 17);
        assert_eq!(place, Place::At(17));
        assert!(looks <= 28, "{looks}");
    }
}
