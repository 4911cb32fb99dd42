//! How far a partition is: everything up to its floor is finished, and of what was fetched above it, some is.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// How far a partition is, as it is kept.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Progress {
    /// Every event of the partition up to this sequence of the model's stream is finished: it took effect, or what stands for it is kept.
    pub floor: u64,
    /// Ranges of sequences above the floor whose events are finished too.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub finished: Vec<(u64, u64)>,
    /// The newest event that is finished, sequence and id, by which the stream is known again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub newest: Option<(u64, String)>,
}

/// How far a partition is, in memory.
#[derive(Debug, Default)]
pub struct Window {
    progress: Progress,
    // What was fetched above the floor, and whether it is finished.
    fetched: BTreeMap<u64, bool>,
    unfinished: usize,
    last_fetched: u64,
}

impl Window {
    /// Goes on from what was kept.
    pub fn new(progress: Progress) -> Self {
        Self { last_fetched: progress.floor, progress, ..Self::default() }
    }

    /// The sequence up to which everything was fetched.
    pub fn last_fetched(&self) -> u64 {
        self.last_fetched
    }

    /// How many events are fetched and not finished.
    pub fn unfinished(&self) -> usize {
        self.unfinished
    }

    /// How many events above the floor are known of.
    pub fn span(&self) -> usize {
        self.fetched.len()
    }

    /// The newest event that is finished.
    pub fn newest(&self) -> Option<&(u64, String)> {
        self.progress.newest.as_ref()
    }

    /// Notes an event that was fetched; whether it is to be handled: not one that was finished before.
    pub fn fetch(&mut self, sequence: u64) -> bool {
        if sequence <= self.last_fetched {
            return false;
        }
        self.last_fetched = sequence;
        let before = self.progress.finished.iter().any(|(from, to)| (*from..=*to).contains(&sequence));
        self.fetched.insert(sequence, before);
        self.unfinished += usize::from(!before);
        self.advance();
        !before
    }

    /// Notes that an event is finished.
    pub fn finish(&mut self, sequence: u64, id: &str) {
        if let Some(finished @ false) = self.fetched.get_mut(&sequence) {
            *finished = true;
            self.unfinished -= 1;
        }
        if self.progress.newest.as_ref().is_none_or(|(newest, _)| *newest < sequence) {
            self.progress.newest = Some((sequence, id.to_owned()));
        }
        self.advance();
    }

    fn advance(&mut self) {
        while let Some(first) = self.fetched.first_entry().filter(|first| *first.get()) {
            self.progress.floor = *first.key();
            first.remove();
        }
    }

    /// The stream has no event of the partition up to this sequence that was not fetched. Counts where nothing is being handled.
    pub fn nothing_up_to(&mut self, sequence: u64) {
        if self.fetched.is_empty() && sequence > self.progress.floor {
            self.progress.floor = sequence;
            self.last_fetched = self.last_fetched.max(sequence);
        }
    }

    /// The stream is not what it was: everything after this sequence is fetched anew.
    pub fn set_back(&mut self, sequence: u64) {
        let newest = self.progress.newest.take();
        *self = Self::new(Progress { floor: sequence, finished: Vec::new(), newest });
    }

    /// What is to be kept now.
    pub fn progress(&self) -> Progress {
        let mut finished: Vec<(u64, u64)> = Vec::new();
        let mut going_on = false;
        for (sequence, is_finished) in &self.fetched {
            match finished.last_mut() {
                Some(range) if *is_finished && going_on => range.1 = *sequence,
                _ if *is_finished => finished.push((*sequence, *sequence)),
                _ => {}
            }
            going_on = *is_finished;
        }
        // What was finished before and was not fetched again yet.
        let later = self.progress.finished.iter().filter(|(_, to)| *to > self.last_fetched);
        finished.extend(later.map(|(from, to)| ((*from).max(self.last_fetched + 1), *to)));
        Progress { floor: self.progress.floor, finished, newest: self.progress.newest.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_floor_follows_what_is_finished_and_the_rest_is_kept_as_ranges() {
        let mut window = Window::new(Progress { floor: 10, ..Progress::default() });
        for sequence in [12, 15, 17, 20, 23] {
            assert!(window.fetch(sequence));
        }
        for sequence in [15, 17, 23] {
            window.finish(sequence, "id");
        }
        assert_eq!(window.progress(), Progress { floor: 10, finished: vec![(15, 17), (23, 23)], newest: Some((23, "id".to_owned())) });
        assert_eq!((window.unfinished(), window.span()), (2, 5));
        window.finish(12, "id");
        assert_eq!(window.progress().floor, 17);
        window.nothing_up_to(100);
        assert_eq!(window.progress().floor, 17, "20 is still being handled");
        window.finish(20, "id");
        assert_eq!(window.progress().floor, 23);
        window.nothing_up_to(100);
        assert_eq!((window.progress().floor, window.last_fetched()), (100, 100));
    }

    #[test]
    fn who_goes_on_leaves_out_what_is_finished_and_forgets_none_of_it() {
        let kept = Progress { floor: 10, finished: vec![(15, 17), (23, 23)], newest: Some((23, "id".to_owned())) };
        let mut window = Window::new(kept.clone());
        assert_eq!(window.progress(), kept);
        assert!(window.fetch(12));
        assert!(!window.fetch(15));
        assert!(!window.fetch(12), "delivered twice");
        assert_eq!(window.progress().finished, [(15, 15), (16, 17), (23, 23)]);
        window.finish(12, "id");
        assert_eq!(window.progress(), Progress { floor: 15, finished: vec![(16, 17), (23, 23)], ..kept });
    }
}
