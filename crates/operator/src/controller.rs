//! The pass: observe → decide → act → requeue.
//!
//! A pass takes no reason and no hint about what has changed: it looks at everything about one job, decides, acts, and
//! says when to look again. As many passes run at a time as there are workers, never two on one job.

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use batchjob_decide::observed::{Job, Obstacle};
use batchjob_decide::{Observed, Plan, decide};
use futures::FutureExt as _;
use jiff::Timestamp;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::act::{Actor, Outcome};
use crate::error::{Class, Error, Refusal};
use crate::events::Recorder;
use crate::metrics::{Metrics, PassResult};
use crate::observe::jobs::{JobKey, JobRecord};
use crate::observe::snapshot::{self, Snapshot};
use crate::queue::Queue;

/// At least so long between two status writes of a job that only say how many pods are active and ready.
const STATUS_REST: Duration = Duration::from_millis(500);

/// How long a job whose pass panicked is left alone.
const AFTER_PANIC: Duration = Duration::from_secs(60);

/// Runs passes.
pub struct Controller {
    pub actor: Actor,
    pub queue: Arc<Queue>,
    pub recorder: Recorder,
    pub metrics: Arc<Metrics>,
    memories: Mutex<HashMap<JobKey, Memory>>,
}

/// What is remembered of a job from pass to pass. Lost with the operator, which costs one more try.
#[derive(Clone, Debug, Default)]
struct Memory {
    n_failures: u32,
    n_refusals: u32,
    obstacle: Option<Obstacle>,
    /// How many pods are active and ready was just written; the next change of that alone may wait until then.
    status_rests_until: Option<Instant>,
}

impl Controller {
    pub fn new(actor: Actor, queue: Arc<Queue>, recorder: Recorder, metrics: Arc<Metrics>) -> Controller {
        Controller { actor, queue, recorder, metrics, memories: Mutex::default() }
    }

    /// Works until the queue is closed, and then finishes the passes that have begun.
    pub async fn run(self: Arc<Self>, n_workers: usize) {
        let mut workers = JoinSet::new();
        for _ in 0..n_workers {
            let controller = self.clone();
            workers.spawn(async move {
                while let Some(key) = controller.queue.next().await {
                    // A job that we cannot bear must not take a worker with it.
                    if AssertUnwindSafe(controller.pass(&key)).catch_unwind().await.is_err() {
                        tracing::error!(job = %key, "a pass panicked: this is a bug in the operator");
                        controller.metrics.pass(PassResult::Panicked);
                        controller.queue.hold(&key, Instant::now() + AFTER_PANIC);
                    }
                    controller.queue.done(&key);
                }
            });
        }
        workers.join_all().await;
    }

    async fn pass(&self, key: &JobKey) {
        let started = Instant::now();
        let memory = self.memory_of(key);
        let jobs = &self.actor.jobs;
        match snapshot::snapshot(jobs, &self.actor.pods, key, memory.obstacle) {
            Snapshot::Job { record, observed } => {
                let plan = decide(&observed);
                if let Some(until) = memory.status_rests_until.filter(|&until| plan.can_wait && Instant::now() < until)
                {
                    self.queue.add_at(key, until);
                    return;
                }
                let outcome = self.actor.act(record.clone(), &observed.job, &plan).await;
                self.metrics.passed(&observed.job, &plan, &outcome, started.elapsed());
                self.follow_up(&record, &observed, plan, outcome);
            }
            Snapshot::Unreadable { record, error } => {
                tracing::warn!(job = %key, error, "the job cannot be read");
                let message = format!("this BatchJob cannot be read, and nothing is done about it: {error}");
                self.recorder.warn(&record, "InvalidSpec", message);
                self.metrics.pass(PassResult::Unreadable);
            }
            Snapshot::Gone => {
                self.memories().remove(key);
                self.queue.forget(key);
            }
        }
    }

    fn follow_up(&self, record: &JobRecord, observed: &Observed, plan: Plan, outcome: Outcome) {
        let key = &record.key;
        if outcome.is_counted {
            self.memories().entry(key.clone()).or_default().status_rests_until = Some(Instant::now() + STATUS_REST);
        }
        if outcome.is_counted || outcome.error.is_none() {
            self.publish(record, &observed.job, plan.reasons);
        }
        let Some(error) = outcome.error else {
            self.memories().entry(key.clone()).and_modify(|memory| {
                memory.n_failures = 0;
                if outcome.n_created > 0 {
                    memory.n_refusals = 0;
                    memory.obstacle = None;
                }
            });
            match plan.wake_at {
                // More is to be done than one pass does: behind the others, but at once.
                Some(at) if at <= observed.now => self.queue.add(key),
                wake_at => {
                    if let Some(pace) = pace(observed.pods.len()) {
                        self.queue.pace(key, Instant::now() + pace);
                    }
                    if let Some(at) = wake_at {
                        self.queue.add_at(key, instant_of(at, observed.now));
                    }
                }
            }
            return;
        };
        tracing::warn!(job = %key, %error, class = error.label(), "the plan was not carried out");
        self.hold_back(record, &observed.job, &error, observed.now);
    }

    /// When to try again, by the class of the error.
    fn hold_back(&self, record: &JobRecord, job: &Job, error: &Error, now: Timestamp) {
        let key = &record.key;
        let mut memories = self.memories();
        let memory = memories.entry(key.clone()).or_default();
        memory.n_failures += 1;
        match error {
            Error::Write { class: Class::Stale, .. } if memory.n_failures <= 3 => self.queue.add(key),
            Error::Write { class: Class::Busy { retry_after: Some(after) }, .. } => {
                self.queue.hold(key, Instant::now() + *after + jitter(job, memory.n_failures));
            }
            Error::Write { .. } => {
                let delay = doubling(Duration::from_millis(250), Duration::from_secs(30), memory.n_failures);
                self.queue.hold(key, Instant::now() + delay + jitter(job, memory.n_failures));
            }
            Error::Create { refusal: Refusal::Rejected, message, .. } => {
                let (generation, message) = (job.generation, message.clone());
                self.recorder.warn(record, "FailedCreate", format!("the template makes no pod: {message}"));
                memory.obstacle = Some(Obstacle::TemplateRejected { generation, message });
                self.queue.add(key);
            }
            Error::Create { refusal: Refusal::Refused(reason), message, .. } => {
                memory.n_refusals += 1;
                let delay = doubling(Duration::from_secs(1), Duration::from_secs(60), memory.n_refusals);
                let retry_at = now.checked_add(delay).unwrap_or(Timestamp::MAX);
                self.recorder.warn(record, "FailedCreate", format!("cannot create pods: {message}"));
                let message = message.clone();
                memory.obstacle = Some(Obstacle::Refused { reason: *reason, message, retry_at });
                self.queue.add(key);
            }
        }
    }

    fn publish(&self, record: &JobRecord, job: &Job, reasons: Vec<batchjob_decide::plan::Reason>) {
        for reason in reasons {
            tracing::info!(job = %record.key, uid = job.uid, reason = reason.reason, "{}", reason.note);
            self.recorder.publish(record, reason);
        }
    }

    fn memory_of(&self, key: &JobKey) -> Memory {
        self.memories().get(key).cloned().unwrap_or_default()
    }

    fn memories(&self) -> MutexGuard<'_, HashMap<JobKey, Memory>> {
        // Nothing that holds the lock can panic half-way through a change.
        self.memories.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How long the changes of a job with so many pods are gathered before the next pass: its status is written once for all
/// of them. Small jobs do not wait. batch/v1 Job gathers for a second, whatever the size (`SyncJobBatchPeriod`).
fn pace(n_pods: usize) -> Option<Duration> {
    (n_pods >= 50).then(|| Duration::from_millis(n_pods as u64).min(Duration::from_secs(1)))
}

/// The n-th delay of a sequence that doubles.
fn doubling(first: Duration, max: Duration, n: u32) -> Duration {
    (first * 2u32.pow(n.saturating_sub(1).min(16))).min(max)
}

/// Up to a quarter of a second, so that jobs that failed together do not come back together; from a hash, so that it
/// can be repeated.
fn jitter(job: &Job, n_failures: u32) -> Duration {
    let seed =
        job.uid.bytes().fold(u64::from(n_failures), |hash, byte| hash.wrapping_mul(31).wrapping_add(u64::from(byte)));
    Duration::from_millis(seed % 250)
}

/// When `at` is on the clock that timers go by. Never early: a timer that fires before its time decides nothing.
fn instant_of(at: Timestamp, now: Timestamp) -> Instant {
    let wait = Duration::try_from(at.duration_since(now)).unwrap_or_default();
    // Far beyond any job; an Instant cannot go arbitrarily far.
    Instant::now() + wait.min(Duration::from_secs(365 * 86_400))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_up_to_their_maximum() {
        let delays = [1, 2, 3, 7, 100].map(|n| doubling(Duration::from_secs(1), Duration::from_secs(60), n).as_secs());
        assert_eq!(delays, [1, 2, 4, 60, 60]);
    }
}
