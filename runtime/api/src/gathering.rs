//! Gathering: jobs of one kind that come while others of it are being done, wait and are then done together, as one group. A lone job is
//! done at once; the busier, the larger the groups, and the fewer statements and transactions a job costs.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;

// Groups of one kind under way, so that one is prepared while another waits for the disk.
const SIDE_BY_SIDE: usize = 2;
// The most jobs of a group.
const MOST_JOBS: usize = 64;
// A group that takes longer no longer holds up those that wait.
const SLOW: Duration = Duration::from_millis(20);

/// Jobs `J`, gathered by their kind `K`.
pub struct Gathering<K, J> {
    most_waiting: usize,
    state: Mutex<State<K, J>>,
}

struct State<K, J> {
    waiting: usize,
    kinds: HashMap<K, Kind<J>>,
}

struct Kind<J> {
    groups: usize,
    waiting: VecDeque<J>,
}

impl<K: Clone + Eq + Hash + Send + Sync + 'static, J: Send + 'static> Gathering<K, J> {
    /// Nothing gathered yet; so many jobs may wait at the most.
    pub fn new(most_waiting: usize) -> Arc<Self> {
        Arc::new(Self { most_waiting, state: Mutex::new(State { waiting: 0, kinds: HashMap::new() }) })
    }

    /// Has a job done by `work`, alone or in a group. It is done to its end, whoever still waits for it. `work` must be the same for all
    /// jobs of a kind.
    ///
    /// # Errors
    /// The job, where too many wait.
    pub fn submit<W, F>(self: &Arc<Self>, kind: K, job: J, work: W) -> Result<(), J>
    where
        W: Fn(Vec<J>) -> F + Clone + Send + 'static,
        F: Future<Output = ()> + Send,
    {
        let mut state = self.state();
        if state.waiting >= self.most_waiting {
            return Err(job);
        }
        state.waiting += 1;
        let of_kind = state.kinds.entry(kind.clone()).or_insert_with(|| Kind { groups: 0, waiting: VecDeque::new() });
        of_kind.waiting.push_back(job);
        if of_kind.groups < SIDE_BY_SIDE {
            of_kind.groups += 1;
            drop(state);
            tokio::spawn(self.clone().work_off(kind, work));
        }
        Ok(())
    }

    fn state(&self) -> MutexGuard<'_, State<K, J>> {
        // Nothing here leaves the state half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    // Those who wait; where nobody does, the place is given back under the same lock, so that nobody comes in between.
    fn next_group(&self, kind: &K) -> Option<Vec<J>> {
        let mut state = self.state();
        let of_kind = state.kinds.get_mut(kind)?;
        let group: Vec<J> = of_kind.waiting.drain(..of_kind.waiting.len().min(MOST_JOBS)).collect();
        if group.is_empty() {
            of_kind.groups -= 1;
            if of_kind.groups == 0 {
                state.kinds.remove(kind);
            }
            return None;
        }
        state.waiting -= group.len();
        Some(group)
    }

    // Does group after group, until nobody waits. Boxed, because it begins itself anew.
    fn work_off<W, F>(self: Arc<Self>, kind: K, work: W) -> BoxFuture<'static, ()>
    where
        W: Fn(Vec<J>) -> F + Clone + Send + 'static,
        F: Future<Output = ()> + Send,
    {
        async move {
            while let Some(group) = self.next_group(&kind) {
                let unfinished = Unfinished { gathering: &self, kind: &kind };
                let mut doing = std::pin::pin!(work(group));
                let slow = tokio::time::timeout(SLOW, &mut doing).await.is_err();
                if slow {
                    tokio::spawn(self.clone().work_off(kind.clone(), work.clone()));
                }
                // Its place is another's now, or it goes on here.
                std::mem::forget(unfinished);
                if slow {
                    return doing.await;
                }
            }
        }
        .boxed()
    }
}

// A group that panics gives its place back. Those who wait are let go: they see that nobody answers.
struct Unfinished<'a, K: Eq + Hash, J> {
    gathering: &'a Gathering<K, J>,
    kind: &'a K,
}

impl<K: Eq + Hash, J> Drop for Unfinished<'_, K, J> {
    fn drop(&mut self) {
        let mut state = self.gathering.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(of_kind) = state.kinds.get_mut(self.kind) {
            of_kind.groups -= 1;
            let waiting = std::mem::take(&mut of_kind.waiting);
            state.waiting -= waiting.len();
        }
    }
}
