//! A circuit breaker: a web service that fails again and again is left alone for a while, and those who would call it wait.

use std::time::{Duration, Instant};

use tokio::sync::watch;

#[derive(Clone, Copy, Debug)]
enum State {
    /// Calls are made; so many have failed in a row.
    Closed { failures: u32 },
    /// No calls are made before this moment.
    Open { until: Instant },
    /// One call is made, whose outcome decides.
    Probing,
}

/// The breaker of one web service, as one worker sees it.
#[derive(Debug)]
pub(crate) struct Breaker {
    failures: u32,
    open_for: Duration,
    state: watch::Sender<State>,
}

/// The leave to make one call. Dropped without an outcome, for example because the worker stops, a probe lets the next one try.
#[derive(Debug)]
pub(crate) struct Leave<'a> {
    breaker: &'a Breaker,
    probe: bool,
    told: bool,
}

impl Breaker {
    /// Opens after so many failures in a row.
    pub(crate) fn new(failures: u32, open_for: Duration) -> Self {
        Self { failures: failures.max(1), open_for, state: watch::Sender::new(State::Closed { failures: 0 }) }
    }

    /// Leave to call, where it may be given now.
    pub(crate) fn try_leave(&self) -> Option<Leave<'_>> {
        let mut leave = None;
        self.state.send_if_modified(|state| match *state {
            State::Closed { .. } => {
                leave = Some(false);
                false
            }
            State::Open { until } if until <= Instant::now() => {
                leave = Some(true);
                *state = State::Probing;
                true
            }
            State::Open { .. } | State::Probing => false,
        });
        leave.map(|probe| Leave { breaker: self, probe, told: false })
    }

    /// Returns when leave might be given.
    pub(crate) async fn wait(&self) {
        let mut changes = self.state.subscribe();
        loop {
            let state = *changes.borrow_and_update();
            match state {
                State::Closed { .. } => return,
                State::Open { until } if until <= Instant::now() => return,
                State::Open { until } => {
                    // The state may change meanwhile; an error would mean that the breaker is gone, and `self` holds it.
                    let _ = tokio::time::timeout_at(until.into(), changes.changed()).await;
                }
                State::Probing => drop(changes.changed().await),
            }
        }
    }

    /// Whether calls are made.
    pub(crate) fn is_closed(&self) -> bool {
        matches!(*self.state.borrow(), State::Closed { .. })
    }

    fn open(&self) -> State {
        State::Open { until: Instant::now() + self.open_for }
    }
}

impl Leave<'_> {
    /// The web service answered, or failed in a way that may pass. True where this opened the breaker.
    pub(crate) fn tell(mut self, answered: bool) -> bool {
        self.told = true;
        let mut opened = false;
        self.breaker.state.send_if_modified(|state| {
            let next = match (*state, answered) {
                // The outcome of a call that was made before the breaker opened says nothing new.
                (State::Open { .. }, _) => return false,
                (State::Probing, _) if !self.probe => return false,
                (State::Probing, true) => State::Closed { failures: 0 },
                (State::Closed { failures: 0 }, true) => return false,
                (State::Closed { .. }, true) => State::Closed { failures: 0 },
                (State::Probing, false) => self.breaker.open(),
                (State::Closed { failures }, false) if failures + 1 >= self.breaker.failures => self.breaker.open(),
                (State::Closed { failures }, false) => State::Closed { failures: failures + 1 },
            };
            opened = matches!(next, State::Open { .. });
            *state = next;
            true
        });
        opened
    }
}

impl Drop for Leave<'_> {
    fn drop(&mut self) {
        if self.probe && !self.told {
            self.breaker.state.send_replace(State::Open { until: Instant::now() });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: Duration = Duration::from_millis(20);

    fn failing(breaker: &Breaker, times: u32) {
        for _ in 0..times {
            breaker.try_leave().expect("leave").tell(false);
        }
    }

    #[tokio::test]
    async fn failures_in_a_row_open_it_and_a_probe_that_succeeds_closes_it() {
        let breaker = Breaker::new(3, SHORT);
        failing(&breaker, 2);
        breaker.try_leave().expect("leave").tell(true);
        failing(&breaker, 2);
        assert!(breaker.try_leave().expect("leave").tell(false), "the third in a row opens it");
        assert!(breaker.try_leave().is_none());
        breaker.wait().await;
        let probe = breaker.try_leave().expect("a probe");
        assert!(breaker.try_leave().is_none(), "one probe at a time");
        assert!(probe.tell(false));
        assert!(breaker.try_leave().is_none());
        breaker.wait().await;
        breaker.try_leave().expect("a probe").tell(true);
        assert!(breaker.is_closed());
    }

    #[tokio::test]
    async fn a_probe_that_is_given_up_lets_another_one_try() {
        let breaker = Breaker::new(1, SHORT);
        failing(&breaker, 1);
        breaker.wait().await;
        drop(breaker.try_leave().expect("a probe"));
        breaker.wait().await;
        breaker.try_leave().expect("another probe").tell(true);
        assert!(breaker.is_closed());
    }

    #[tokio::test]
    async fn outcomes_of_calls_made_before_it_opened_decide_nothing() {
        let breaker = Breaker::new(1, SHORT);
        let (early, late) = (breaker.try_leave().expect("leave"), breaker.try_leave().expect("leave"));
        failing(&breaker, 1);
        early.tell(true);
        assert!(!breaker.is_closed());
        breaker.wait().await;
        let probe = breaker.try_leave().expect("a probe");
        late.tell(true);
        assert!(!breaker.is_closed(), "only the probe decides");
        probe.tell(true);
        assert!(breaker.is_closed());
    }
}
