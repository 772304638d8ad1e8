//! The pass: observe → decide → act → requeue.
//!
//! A pass takes no reason and no hint about what has changed: it looks at everything about one job, decides, acts, and
//! says when to look again. As many passes run at a time as there are workers, never two on one job.

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use batchjob_crd::reason;
use batchjob_decide::observed::{Job, Pod};
use batchjob_decide::plan::PodRef;
use batchjob_decide::{Observed, Plan, decide};
use futures::FutureExt as _;
use jiff::Timestamp;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::act::{Actor, Outcome};
use crate::clock::Clock;
use crate::error::Error;
use crate::events::Recorder;
use crate::memory::{Memory, NextTry};
use crate::metrics::{Metrics, PassResult};
use crate::observe::job::{JobKey, JobRecord};
use crate::observe::snapshot::{self, Snapshot};
use crate::queue::Queue;

/// At least so long between two status writes of a job that only say how many pods are active and ready.
const STATUS_REST: Duration = Duration::from_millis(500);

/// How long a job that we cannot bear is left alone.
const LEFT_ALONE: Duration = Duration::from_secs(60);

/// A job that waits for a time is looked at at least so often: the clock may have been wrong when it began to wait, and have
/// been set right since.
const LONGEST_SLEEP: Duration = Duration::from_mins(5);

/// Runs passes.
pub struct Controller {
    pub actor: Actor,
    pub queue: Arc<Queue>,
    pub recorder: Recorder,
    pub metrics: Arc<Metrics>,
    pub clock: Clock,
    memories: Mutex<HashMap<JobKey, Memory>>,
}

impl Controller {
    pub fn new(actor: Actor, queue: Arc<Queue>, recorder: Recorder, metrics: Arc<Metrics>, clock: Clock) -> Controller {
        Controller { actor, queue, recorder, metrics, clock, memories: Mutex::default() }
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
                        controller.queue.hold(&key, Instant::now() + LEFT_ALONE);
                    }
                    controller.queue.done(&key);
                }
            });
        }
        workers.join_all().await;
    }

    async fn pass(&self, key: &JobKey) {
        let started = Instant::now();
        match snapshot::snapshot(&self.actor.jobs, &self.actor.pods, key, self.clock.now()) {
            Snapshot::Job { record, mut observed } => {
                let memory = self.memory_of(&record);
                observed.obstacle = memory.obstacle;
                let plan = decide(&observed);
                if let Some(until) = memory.status_rests_until.filter(|&until| plan.can_wait && Instant::now() < until)
                {
                    self.queue.add_at(key, until);
                    return;
                }
                let outcome = self.actor.act(record.clone(), &observed.job, &plan).await;
                self.metrics.passed(&observed.job, &plan, &outcome, started.elapsed());
                self.follow_up(&record, &observed, plan, outcome);
                if observed.job.status.reason.as_deref() == Some(reason::INVALID_SPEC) {
                    self.let_go_with_all(&record).await;
                }
            }
            Snapshot::Unreadable { record, error } => self.report_unreadable(&record, &error).await,
            Snapshot::Gone => {
                self.memories().remove(key);
                self.queue.forget(key);
            }
        }
    }

    /// Nothing is done about it, but what is deleted must not stay because of us.
    async fn report_unreadable(&self, record: &JobRecord, error: &str) {
        tracing::warn!(job = %record.key, error, "the job cannot be read");
        let message = format!("this {} cannot be read, and nothing is done about it: {error}", record.key.kind());
        self.recorder.warn(record, "InvalidSpec", message);
        self.metrics.pass(PassResult::Unreadable);
        self.let_go_with_all(record).await;
    }

    /// Lets go the pods of a job that cannot count them, when the job is deleted, or all of its namespace: that deletes pods
    /// first, and no job before they are gone (KEP-5080). A pod that somebody deletes for itself waits for the job to be
    /// repaired: its result is not lost.
    async fn let_go_with_all(&self, record: &JobRecord) {
        // Without a uid none is known to be its own.
        if record.uid.is_empty() {
            return;
        }
        let JobKey { door, namespace, .. } = &record.key;
        let pods = self.actor.pods.of(namespace, &record.uid);
        let is_going = |pod: &Pod| pod.is_held && (record.is_deleted || pod.deletion.is_some());
        let held: Vec<PodRef> = pods.iter().filter(|pod| is_going(pod)).map(|pod| PodRef::from(&**pod)).collect();
        if held.is_empty() {
            return;
        }
        if !record.is_deleted && !self.actor.writer.is_terminating(namespace).await {
            // When it is, nobody tells us.
            self.queue.add_at(&record.key, Instant::now() + LEFT_ALONE);
            return;
        }
        if let Err(error) = self.actor.release_pods(namespace, *door, held.iter()).await {
            tracing::warn!(job = %record.key, %error, "failed to let go its pods");
            self.queue.hold(&record.key, Instant::now() + LEFT_ALONE);
        }
    }

    fn follow_up(&self, record: &JobRecord, observed: &Observed, plan: Plan, outcome: Outcome) {
        let key = &record.key;
        let mut memory = self.memory_of(record);
        if outcome.is_counted {
            memory.status_rests_until = Some(Instant::now() + STATUS_REST);
        }
        if outcome.n_created > 0 {
            memory.it_goes_on();
        }
        if outcome.is_counted || outcome.error.is_none() {
            self.publish(record, &observed.job, plan.reasons);
        }
        let Some(error) = outcome.error else {
            memory.n_failures = 0;
            self.remember(key, memory);
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
        match &error {
            Error::Refused { message, .. } => {
                self.recorder.warn(record, "FailedCreate", format!("cannot create pods: {message}"));
            }
            Error::NameTaken { id, .. } => {
                let message =
                    format!("there is a pod of the name of {id} already, which is not this job's: it goes on without");
                self.recorder.warn(record, "FailedCreate", message);
            }
            _ => {}
        }
        let next_try = memory.learn(&error, &observed.job, observed.now);
        self.remember(key, memory);
        match next_try {
            NextTry::AtOnce => self.queue.add(key),
            NextTry::After(delay) => self.queue.hold(key, Instant::now() + delay),
        }
    }

    fn publish(&self, record: &JobRecord, job: &Job, reasons: Vec<batchjob_decide::plan::Reason>) {
        for reason in reasons {
            tracing::info!(job = %record.key, uid = job.uid, reason = reason.reason, "{}", reason.note);
            self.recorder.publish(record, reason);
        }
    }

    /// What is remembered of this job; nothing of another one that had its name.
    fn memory_of(&self, record: &JobRecord) -> Memory {
        let memory = self.memories().get(&record.key).filter(|memory| memory.uid == record.uid).cloned();
        memory.unwrap_or_else(|| Memory::of(record.uid.clone()))
    }

    fn remember(&self, key: &JobKey, memory: Memory) {
        self.memories().insert(key.clone(), memory);
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

/// When `at` is on the clock that timers go by. Never early: a timer that fires before its time decides nothing.
fn instant_of(at: Timestamp, now: Timestamp) -> Instant {
    let wait = Duration::try_from(at.duration_since(now)).unwrap_or_default();
    Instant::now() + wait.min(LONGEST_SLEEP)
}
