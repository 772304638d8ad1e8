//! The work queue: which job, or which BatchCronJob, is looked at next. Each kind has its own, so that no schedule waits behind jobs.
//!
//! First come, first served; a job that is in the queue already is not queued twice; a job is never looked at by two
//! workers at once, and one that changes meanwhile is looked at again. A job that failed is held back until its time:
//! events about it do not bring it forward, so that what fails does not take the place of what works.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::hash::Hash;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

/// The work queue.
#[derive(Debug)]
pub struct Queue<K> {
    state: Mutex<State<K>>,
    /// Wakes one worker for each thing that may be due.
    changed: Notify,
}

#[derive(Debug)]
struct State<K> {
    ready: VecDeque<K>,
    is_ready: HashSet<K>,
    /// By time; one entry for each job.
    delayed: BTreeSet<(Instant, K)>,
    delayed_until: HashMap<K, Instant>,
    /// Not before then, whoever asks.
    held_until: HashMap<K, Instant>,
    /// At work, and whether to look again afterwards.
    running: HashMap<K, bool>,
    is_closed: bool,
}

impl<K> Default for Queue<K> {
    fn default() -> Queue<K> {
        Queue { state: Mutex::default(), changed: Notify::new() }
    }
}

impl<K> Default for State<K> {
    fn default() -> State<K> {
        State {
            ready: VecDeque::new(),
            is_ready: HashSet::new(),
            delayed: BTreeSet::new(),
            delayed_until: HashMap::new(),
            held_until: HashMap::new(),
            running: HashMap::new(),
            is_closed: false,
        }
    }
}

impl<K: Clone + Ord + Hash> Queue<K> {
    /// Something has changed about the job.
    pub fn add(&self, key: &K) {
        let mut state = self.lock();
        match state.held_until.get(key).copied() {
            Some(until) if until > Instant::now() => state.delay(key, until),
            _ => state.make_ready(key),
        }
        drop(state);
        self.changed.notify_one();
    }

    /// Look at the job then, or earlier if something changes.
    pub fn add_at(&self, key: &K, at: Instant) {
        self.lock().delay(key, at);
        self.changed.notify_one();
    }

    /// Look at the job then, and not earlier.
    pub fn hold(&self, key: &K, until: Instant) {
        let mut state = self.lock();
        state.held_until.insert(key.clone(), until);
        state.delay(key, until);
        drop(state);
        self.changed.notify_one();
    }

    /// Whatever changes, the job is not looked at before then: changes of a large job are taken together.
    pub fn pace(&self, key: &K, until: Instant) {
        self.lock().held_until.insert(key.clone(), until);
    }

    /// Begins anew, with these jobs: no worker is at work, and what jobs were held back for is forgotten.
    pub fn restart(&self, keys: impl IntoIterator<Item = K>) {
        let mut state = self.lock();
        *state = State::default();
        for key in keys {
            state.make_ready(&key);
        }
        drop(state);
        self.changed.notify_one();
    }

    /// The job is gone.
    pub fn forget(&self, key: &K) {
        self.lock().held_until.remove(key);
    }

    pub fn count(&self) -> usize {
        self.lock().ready.len()
    }

    /// Workers get no more jobs.
    pub fn close(&self) {
        self.lock().is_closed = true;
        self.changed.notify_waiters();
        self.changed.notify_one();
    }

    /// The next job, when there is one; None once the queue is closed. Give it back with [`done`](Queue::done).
    pub async fn next(&self) -> Option<K> {
        loop {
            let changed = self.changed.notified();
            let next_time = {
                let mut state = self.lock();
                if state.is_closed {
                    // The next worker must hear of it too.
                    self.changed.notify_one();
                    return None;
                }
                state.wake(Instant::now());
                if let Some(key) = state.take() {
                    if !state.ready.is_empty() {
                        self.changed.notify_one();
                    }
                    return Some(key);
                }
                state.delayed.first().map(|(at, _)| *at)
            };
            match next_time {
                Some(at) => tokio::select! {
                    biased;
                    () = changed => {}
                    () = sleep_until(at) => {}
                },
                None => changed.await,
            }
        }
    }

    pub fn done(&self, key: &K) {
        let mut state = self.lock();
        if state.running.remove(key) == Some(true) {
            drop(state);
            self.add(key);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State<K>> {
        // Nothing that holds the lock can panic half-way through a change.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Clone + Ord + Hash> State<K> {
    fn make_ready(&mut self, key: &K) {
        self.undelay(key);
        self.held_until.remove(key);
        if let Some(again) = self.running.get_mut(key) {
            *again = true;
        } else if self.is_ready.insert(key.clone()) {
            self.ready.push_back(key.clone());
        }
    }

    /// The earlier of two times counts, but none before the job may be looked at.
    fn delay(&mut self, key: &K, at: Instant) {
        if self.is_ready.contains(key) {
            return;
        }
        let earliest = self.delayed_until.get(key).map_or(at, |&before| before.min(at));
        let at = self.held_until.get(key).map_or(earliest, |&held| held.max(earliest));
        self.undelay(key);
        self.delayed_until.insert(key.clone(), at);
        self.delayed.insert((at, key.clone()));
    }

    fn undelay(&mut self, key: &K) {
        if let Some(at) = self.delayed_until.remove(key) {
            self.delayed.remove(&(at, key.clone()));
        }
    }

    /// Moves what is due to the end of the queue.
    fn wake(&mut self, now: Instant) {
        while let Some((at, key)) = self.delayed.first().cloned() {
            if at > now {
                break;
            }
            self.make_ready(&key);
        }
    }

    fn take(&mut self) -> Option<K> {
        let key = self.ready.pop_front()?;
        self.is_ready.remove(&key);
        self.running.insert(key.clone(), false);
        Some(key)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::observe::job::JobKey;

    fn key(name: &str) -> JobKey {
        JobKey { door: Default::default(), namespace: "ns".into(), name: name.into() }
    }

    async fn next_within(queue: &Queue<JobKey>, seconds: u64) -> Option<JobKey> {
        tokio::time::timeout(Duration::from_secs(seconds), queue.next()).await.ok().flatten()
    }

    #[tokio::test(start_paused = true)]
    async fn first_come_first_served_and_never_twice() {
        let queue = Queue::default();
        for name in ["a", "b", "a"] {
            queue.add(&key(name));
        }
        assert_eq!(queue.next().await, Some(key("a")));
        assert_eq!(queue.next().await, Some(key("b")));
        assert_eq!(next_within(&queue, 1).await, None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_job_that_changes_while_at_work_is_looked_at_again_afterwards() {
        let queue = Queue::default();
        queue.add(&key("a"));
        let taken = queue.next().await.expect("a job");
        queue.add(&key("a"));
        assert_eq!(next_within(&queue, 1).await, None, "never two workers on one job");
        queue.done(&taken);
        assert_eq!(next_within(&queue, 1).await, Some(key("a")));
    }

    #[tokio::test(start_paused = true)]
    async fn the_earlier_of_two_times_counts() {
        let queue = Queue::default();
        let start = Instant::now();
        queue.add_at(&key("a"), start + Duration::from_secs(60));
        queue.add_at(&key("a"), start + Duration::from_secs(10));
        queue.add_at(&key("a"), start + Duration::from_secs(30));
        assert_eq!(queue.next().await, Some(key("a")));
        assert_eq!(start.elapsed().as_secs(), 10);
        queue.done(&key("a"));
        assert_eq!(next_within(&queue, 100).await, None);
    }

    #[tokio::test(start_paused = true)]
    async fn events_do_not_bring_forward_a_job_that_is_held() {
        let queue = Queue::default();
        let start = Instant::now();
        queue.add(&key("a"));
        let taken = queue.next().await.expect("a job");
        queue.hold(&taken, start + Duration::from_secs(20));
        queue.done(&taken);
        queue.add(&key("a"));
        assert_eq!(queue.next().await, Some(key("a")));
        assert_eq!(start.elapsed().as_secs(), 20);
    }

    #[tokio::test(start_paused = true)]
    async fn a_closed_queue_sends_every_worker_home() {
        let queue = std::sync::Arc::new(Queue::<JobKey>::default());
        let workers: Vec<_> = (0..4)
            .map(|_| {
                let queue = queue.clone();
                tokio::spawn(async move { queue.next().await })
            })
            .collect();
        tokio::task::yield_now().await;
        queue.close();
        for worker in workers {
            assert_eq!(worker.await.expect("no panic"), None);
        }
    }
}
