//! Whether everything is done: no file waits, the relay has passed the end of PostgreSQL's log, no service has an event, a retry or a due retry
//! to handle. One look is not enough: what one service writes is work for another, and it is under way between the two. So two looks must find
//! nothing to do and the same counts, and the relay at the second must be past the log's end of the first.

use super::progress::{ConsumerProgress, Progress, ServiceProgress};

/// Compares looks.
#[derive(Debug, Default)]
pub struct Drained {
    // The last look, where it found nothing to do.
    last: Option<Progress>,
}

impl Drained {
    /// Takes the next look; whether all is done.
    pub fn look(&mut self, now: &Progress) -> bool {
        if !idle(now) {
            self.last = None;
            return false;
        }
        let done = self.last.as_ref().is_some_and(|last| same_counts(last, now) && relay_passed(now, last.flushed));
        self.last = Some(now.clone());
        done
    }
}

fn idle(progress: &Progress) -> bool {
    progress.not_ready.is_empty()
        && relay_passed(progress, progress.flushed)
        && progress.models.values().all(|model| model.last_sequence.is_some())
        && progress.services.values().all(service_idle)
}

fn service_idle(service: &ServiceProgress) -> bool {
    let consumers = match service.files {
        Some(files) => files == 0,
        // Runs that are planned for later are no work that waits.
        None => (service.scheduled || consumer_idle(service.events)) && consumer_idle(service.due),
    };
    consumers && service.retries == Some(0) && service.dead_letters.is_some()
}

fn consumer_idle(consumer: Option<ConsumerProgress>) -> bool {
    consumer.is_some_and(|consumer| consumer.pending == 0 && consumer.in_hand == 0)
}

// A watermark's position is one less than the log position up to which it is complete.
fn relay_passed(progress: &Progress, flushed: Option<u64>) -> bool {
    matches!((progress.relayed, flushed), (Some(relayed), Some(flushed)) if relayed.saturating_add(1) >= flushed)
}

fn same_counts(one: &Progress, other: &Progress) -> bool {
    let sequences = |progress: &Progress| progress.models.values().map(|model| model.last_sequence).collect::<Vec<_>>();
    one.services == other.services && sequences(one) == sequences(other)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::local::progress::ModelProgress;

    fn idle_progress() -> Progress {
        let idle = ConsumerProgress { pending: 0, in_hand: 0, delivered: 7 };
        let service =
            ServiceProgress { events: Some(idle), due: Some(idle), retries: Some(0), dead_letters: Some(1), ..ServiceProgress::default() };
        Progress {
            models: [("m".to_owned(), ModelProgress { objects: Some(1), events: Some(9), last_sequence: Some(9) })].into(),
            services: [("s".to_owned(), service)].into(),
            flushed: Some(100),
            relayed: Some(99),
            ..Progress::default()
        }
    }

    #[test]
    fn two_equal_looks_with_nothing_to_do_are_the_end() {
        let mut drained = Drained::default();
        assert!(!drained.look(&idle_progress()));
        assert!(drained.look(&idle_progress()));
    }

    #[test]
    fn a_schedule_is_done_when_no_run_waits() {
        let mut progress = idle_progress();
        progress.services.values_mut().for_each(|service| (service.events, service.scheduled) = (None, true));
        let mut drained = Drained::default();
        assert!(!drained.look(&progress));
        assert!(drained.look(&progress));
        progress.services.values_mut().for_each(|service| service.due = None);
        assert!(!drained.look(&progress));
    }

    #[test]
    fn work_between_the_looks_counts() {
        let mut drained = Drained::default();
        assert!(!drained.look(&idle_progress()));
        let mut worked = idle_progress();
        worked.models.insert("m".to_owned(), ModelProgress { objects: Some(1), events: Some(10), last_sequence: Some(10) });
        assert!(!drained.look(&worked));
        assert!(drained.look(&worked));
    }

    #[test]
    fn waiting_work_and_gaps_are_not_the_end() {
        let spoil: [fn(&mut Progress); 6] = [
            |progress| progress.relayed = Some(98),
            |progress| progress.relayed = None,
            |progress| progress.services.values_mut().for_each(|service| service.retries = Some(1)),
            |progress| progress.services.values_mut().for_each(|service| service.due = None),
            |progress| progress.services.values_mut().for_each(|service| service.files = Some(1)),
            |progress| drop(progress.not_ready.insert("api".to_owned(), "no answer yet".to_owned())),
        ];
        for spoil in spoil {
            let mut drained = Drained::default();
            let mut progress = idle_progress();
            spoil(&mut progress);
            assert!(!drained.look(&progress));
            assert!(!drained.look(&progress));
        }
    }
}
