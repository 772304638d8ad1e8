//! The pass: observe → decide → act → requeue.
//!
//! A pass takes no reason and no hint about what has changed: it looks at everything about one job, decides, acts, and
//! says when to look again. As many passes run at a time as there are workers, never two on one job.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use batchjob_crd::reason;
use batchjob_decide::job::ledger::Ledger;
use batchjob_decide::job::name::PodNames;
use batchjob_decide::job::status::is_decided;
use batchjob_decide::observed::{Job, Pod};
use batchjob_decide::plan::{AttemptId, PodRef};
use batchjob_decide::{Observed, Plan, decide};
use jiff::Timestamp;
use tokio::time::Instant;

use crate::act::{Actor, Outcome};
use crate::clock::Clock;
use crate::error::{Class, Error};
use crate::events::Recorder;
use crate::memory::{Causes, Memory, NextTry};
use crate::metrics::{Metrics, PassResult};
use crate::observe::job::{JobKey, JobRecord};
use crate::observe::snapshot::{self, Snapshot};
use crate::queue::Queue;
use crate::workers::{LEFT_ALONE, Passes};

/// At least so long between two status writes of a job that only say how many pods are active and ready.
const STATUS_REST: Duration = Duration::from_millis(500);

/// How many jobs one tells that its pods are refused no more.
const TOLD: usize = 2;

/// A job whose writes were refused so often before can most likely not be written at all.
const REFUSED_FOR_GOOD: u32 = 4;

/// A job that waits for a time is looked at at least so often: the clock may have been wrong when it began to wait, and have
/// been set right since.
const LONGEST_SLEEP: Duration = Duration::from_mins(5);

/// Runs passes.
pub struct Controller {
    pub actor: Actor,
    pub queue: Arc<Queue<JobKey>>,
    pub recorder: Recorder,
    pub metrics: Arc<Metrics>,
    pub clock: Clock,
    memories: Mutex<HashMap<JobKey, Memory>>,
}

impl Passes for Controller {
    const KIND: &'static str = "job";
    type Key = JobKey;

    fn queue(&self) -> &Queue<JobKey> {
        &self.queue
    }

    fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    async fn pass(&self, key: &JobKey) {
        let mut has_turn = false;
        loop {
            match snapshot::snapshot(&self.actor.jobs, &self.actor.pods, key, self.clock.now()) {
                Snapshot::Job { record, mut observed } => {
                    let memory = self.memory_of(&record);
                    observed.obstacle = memory.obstacle(observed.now);
                    let plan = decide(&observed);
                    let causes = plan.status().map(|_| Causes::of(&observed));
                    let until = causes.as_ref().and_then(|causes| rests_until(&memory, causes, &plan));
                    if let Some(until) = until.filter(|&until| Instant::now() < until) {
                        self.queue.add_at(key, until);
                        plan.wake_at.into_iter().for_each(|at| self.queue.add_at(key, instant_of(at, observed.now)));
                        return;
                    }
                    if !plan.is_empty() && !has_turn {
                        has_turn = true;
                        if self.actor.writer.outage.turn().await {
                            // What was decided may be old by now.
                            continue;
                        }
                    }
                    let is_refused = self.carry_out(&record, &observed, plan, causes, memory).await;
                    if is_refused || observed.job.status.reason.as_deref() == Some(reason::INVALID_SPEC) {
                        self.let_go_with_all(&record).await;
                    }
                }
                Snapshot::Unreadable { record, error } => self.report_unreadable(&record, &error).await,
                Snapshot::Gone => {
                    self.memories().remove(key);
                    self.queue.forget(key);
                }
            }
            return;
        }
    }
}

impl Controller {
    pub fn new(
        actor: Actor,
        queue: Arc<Queue<JobKey>>,
        recorder: Recorder,
        metrics: Arc<Metrics>,
        clock: Clock,
    ) -> Controller {
        Controller { actor, queue, recorder, metrics, clock, memories: Mutex::default() }
    }

    /// `causes` of the status, if the plan writes one. Answers whether the API server refuses again and again what is written.
    async fn carry_out(
        &self,
        record: &JobRecord,
        observed: &Observed,
        plan: Plan,
        causes: Option<Causes>,
        mut memory: Memory,
    ) -> bool {
        let started = Instant::now();
        let fight = match causes.as_ref().is_some_and(|causes| memory.repairs.is_news(causes)) {
            // Before we write: what the other one has written is ours afterwards.
            true => Some(self.actor.writer.other_status_writers(&record.key).await.unwrap_or_default()),
            false => None,
        };
        let outcome = self.act(record, observed, &plan, &mut memory).await;
        self.metrics.passed(&observed.job, &plan, &outcome, started.elapsed());
        if let Some(causes) = causes.filter(|_| outcome.is_counted) {
            memory.repairs.wrote(causes);
            if let Some(others) = fight {
                self.recorder.warn(record, "StatusReverted", reverted(&others));
            }
        }
        // What is invalid looks like a conflict at first: the object may have been made anew.
        let is_no = matches!(outcome.error, Some(Error::Write { class: Class::Failing | Class::Stale, .. }));
        let is_refused = is_no && memory.n_failures >= REFUSED_FOR_GOOD;
        self.follow_up(record, observed, plan, outcome, memory);
        is_refused
    }

    /// Before it is said how a job ends, all of its pods must be known: what is found after that is counted no more.
    async fn act(&self, record: &JobRecord, observed: &Observed, plan: &Plan, memory: &mut Memory) -> Outcome {
        let job = &observed.job;
        if plan.status().is_some_and(is_decided) && !memory.unanswered.is_empty() {
            let unanswered = std::mem::take(&mut memory.unanswered);
            let error = match self.actor.look_for(job, &unknown(observed, &unanswered)).await {
                Ok(0) => None,
                Ok(n_found) => Some(Error::changed(format!("end {}, which has {n_found} pods more", record.key))),
                Err(error) => {
                    memory.unanswered = unanswered;
                    Some(error)
                }
            };
            if error.is_some() {
                return Outcome { error, ..Outcome::default() };
            }
        }
        let outcome = self.actor.act(record.clone(), job, plan, memory.n_failures).await;
        memory.unanswered.extend(&outcome.unanswered);
        outcome
    }

    /// Nothing is done about it, but what is deleted must not stay because of us.
    async fn report_unreadable(&self, record: &JobRecord, error: &str) {
        tracing::warn!(job = %record.key, error, "the job cannot be read");
        let message = format!("this {} cannot be read, and nothing is done about it: {error}", record.key.kind());
        self.recorder.warn(record, "InvalidSpec", message);
        self.metrics.pass(PassResult::Unreadable);
        self.let_go_with_all(record).await;
    }

    /// Lets go the pods of a job that cannot count them, because it cannot be read, or not be written: when it is deleted, or
    /// all of its namespace. That deletes pods first, and no job before they are gone (KEP-5080). A pod that somebody deletes
    /// for itself waits for the job to be repaired: its result is not lost.
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

    fn follow_up(&self, record: &JobRecord, observed: &Observed, plan: Plan, outcome: Outcome, mut memory: Memory) {
        let key = &record.key;
        if outcome.is_counted {
            memory.status_rests_until = Some(Instant::now() + STATUS_REST);
        }
        if outcome.n_created > 0 {
            if memory.is_refused() {
                self.tell_others_of_better_times(key);
            }
            memory.it_goes_on();
        }
        if outcome.is_counted || outcome.error.is_none() {
            self.publish(record, &observed.job, plan.reasons);
        }
        let Some(error) = outcome.error else {
            memory.n_failures = 0;
            self.remember(key, memory);
            match plan.wake_at {
                _ if outcome.is_partial => self.queue.add(key),
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
        let n_refused = if matches!(error, Error::Refused { .. }) { self.n_refused(key) + 1 } else { 0 };
        let next_try = memory.learn(&error, &observed.job, n_refused, observed.now);
        if let Some(complaint) = complaint(&error, &memory) {
            let reason = if error.is_create() { "FailedCreate" } else { "FailedUpdate" };
            self.recorder.warn(record, reason, complaint);
        }
        self.remember(key, memory);
        match next_try {
            NextTry::AtOnce => self.queue.add(key),
            NextTry::After(delay) => self.queue.hold(key, Instant::now() + delay),
        }
    }

    /// How many other jobs of the namespace wait because their pods are refused.
    fn n_refused(&self, key: &JobKey) -> usize {
        let is_other = |other: &JobKey| other.namespace == key.namespace && other != key;
        self.memories().iter().filter(|(other, memory)| memory.is_refused() && is_other(other)).count()
    }

    /// A job whose pods were refused could create one: two others of its namespace try now, whose time would be next. If they
    /// can too, each of them tells two more: what has waited in vain for long goes on within moments, and what has to wait on
    /// is asked little more.
    fn tell_others_of_better_times(&self, key: &JobKey) {
        let mut memories = self.memories();
        let mut others: Vec<_> = memories
            .iter_mut()
            .filter(|(other, memory)| other.namespace == key.namespace && *other != key && memory.is_refused())
            .collect();
        others.sort_by_key(|(other, memory)| (memory.retries_at(), (*other).clone()));
        for (other, memory) in others.into_iter().take(TOLD) {
            memory.hears_of_better_times();
            self.queue.add(other);
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

/// Those of them of which no pod is seen, and that are not counted.
fn unknown(observed: &Observed, ids: &BTreeSet<AttemptId>) -> Vec<AttemptId> {
    let (names, ledger) = (PodNames::of(&observed.job), Ledger::read(&observed.job.status));
    let pods = observed.pods.iter().chain(&observed.orphans);
    let seen: HashSet<AttemptId> = pods.filter_map(|pod| names.read(&pod.name)).collect();
    let is_unknown = |id: &AttemptId| !seen.contains(id) && !ledger.is_passed(id.index, id.attempt);
    ids.iter().copied().filter(is_unknown).collect()
}

/// When that plan, which writes a status for these causes, may be carried out. None: now.
fn rests_until(memory: &Memory, causes: &Causes, plan: &Plan) -> Option<Instant> {
    let is_status_alone = plan.actions.len() == 1;
    let rest = memory.status_rests_until.filter(|_| plan.can_wait);
    let repair = if is_status_alone { memory.repairs.rest_until(causes) } else { None };
    rest.max(repair)
}

/// What the user is told of an error.
fn complaint(error: &Error, memory: &Memory) -> Option<String> {
    match error {
        Error::Refused { .. } => memory.message().map(|message| format!("cannot create pods: {message}")),
        Error::NameTaken { id, .. } => {
            Some(format!("there is a pod of the name of {id} already, which is not this job's: it goes on without"))
        }
        // Each time it is another pod that it is about, and another event: ever more seldom.
        Error::Write { .. } | Error::Unanswered { .. } => {
            error.complaint().filter(|_| memory.n_failures.is_power_of_two())
        }
    }
}

pub(crate) fn reverted(others: &[String]) -> String {
    let who = match others {
        [] => "somebody else".to_owned(),
        names => names.join(", "),
    };
    format!("what is written into the status is undone again and again, by {who}: it is put back ever more slowly")
}

/// How long the changes of a job with so many pods are gathered before the next pass: its status is written once for all
/// of them. Small jobs do not wait. batch/v1 Job gathers for a second, whatever the size (`SyncJobBatchPeriod`).
fn pace(n_pods: usize) -> Option<Duration> {
    (n_pods >= 50).then(|| Duration::from_millis(n_pods as u64).min(Duration::from_secs(1)))
}

/// When `at` is on the clock that timers go by. Never early: a timer that fires before its time decides nothing.
pub(crate) fn instant_of(at: Timestamp, now: Timestamp) -> Instant {
    let wait = Duration::try_from(at.duration_since(now)).unwrap_or_default();
    Instant::now() + wait.min(LONGEST_SLEEP)
}
