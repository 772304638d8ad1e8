//! The pass over a BatchCronJob: observe → decide → act → requeue, as over a job, with workers of its own.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use batchjob_decide::cron::decide;
use batchjob_decide::cron::observed::{CronJob, Obstacle};
use batchjob_decide::cron::plan::Plan;
use batchjob_decide::plan::Note;
use jiff::Timestamp;
use tokio::sync::{Mutex as Turn, OwnedMutexGuard};
use tokio::time::Instant;

use crate::act::Actor;
use crate::act::cron::{CronError, CronOutcome};
use crate::clock::Clock;
use crate::controller::{instant_of, reverted};
use crate::error::{Class, Refusal};
use crate::events::Recorder;
use crate::memory::{Causes, Met, REFUSED, REJECTED, Repairs, after, doubling, later};
use crate::metrics::{Metrics, PassResult};
use crate::observe::cron::{CronContent, CronKey, CronRecord};
use crate::queue::Queue;
use crate::workers::Passes;

/// Runs passes over BatchCronJobs.
pub struct CronController {
    pub actor: Actor,
    pub queue: Arc<Queue<CronKey>>,
    pub recorder: Recorder,
    pub metrics: Arc<Metrics>,
    pub clock: Clock,
    memories: Mutex<HashMap<CronKey, Memory>>,
    /// One pass at a time in each concurrency group: two members must not both take its last place.
    groups: Mutex<HashMap<Group, Arc<Turn<()>>>>,
}

/// A concurrency group: its namespace, and its name.
type Group = (Arc<str>, String);

/// What is remembered of a BatchCronJob from pass to pass. It is lost with the operator, which costs one more try.
#[derive(Clone, Debug, Default)]
struct Memory {
    uid: Arc<str>,
    /// Passes that failed, since one did not.
    n_failures: u32,
    /// Creates that failed, since one did not.
    n_refusals: u32,
    obstacle: Option<Obstacle>,
    met: Option<Met>,
    /// The generation that the obstacle was met with.
    generation: i64,
    repairs: Repairs,
    /// Runs whose creates were not answered: they may be there, and no event has told of them yet.
    unanswered: BTreeSet<String>,
}

impl Memory {
    /// What stands in the way of creates, with its time on the clock as it goes now.
    fn obstacle(&self, now: Timestamp) -> Option<Obstacle> {
        let mut obstacle = self.obstacle.clone()?;
        if let (Obstacle::Refused { retry_at, .. }, Some(met)) = (&mut obstacle, self.met) {
            *retry_at = met.on_the_clock(*retry_at, now);
        }
        Some(obstacle)
    }
}

impl Passes for CronController {
    const KIND: &'static str = "BatchCronJob";
    type Key = CronKey;

    fn queue(&self) -> &Queue<CronKey> {
        &self.queue
    }

    fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    async fn pass(&self, key: &CronKey) {
        let mut has_turn = false;
        loop {
            let Some(record) = self.actor.crons.get(key) else {
                self.memories().remove(key);
                self.queue.forget(key);
                return;
            };
            let cron = match &record.content {
                CronContent::CronJob(cron) => cron.clone(),
                CronContent::Unreadable { error } => return self.report_unreadable(&record, error),
            };
            let _turn = self.turn_of_group(&record).await;
            let now = self.clock.now();
            let mut memory = self.memory_of(&record, &cron);
            let mut observed = self.actor.crons.observe(&record, &cron, &self.actor.jobs, now);
            observed.obstacle = memory.obstacle(now);
            let plan = decide(&observed);
            let causes = plan.status().map(|status| Causes::of_cron(&observed, status));
            let is_status_alone = plan.actions.len() == 1;
            let rest = causes.as_ref().filter(|_| is_status_alone).and_then(|causes| memory.repairs.rest_until(causes));
            if let Some(until) = rest.filter(|&until| Instant::now() < until) {
                self.queue.add_at(key, until);
                plan.wake_at.into_iter().for_each(|at| self.queue.add_at(key, instant_of(at, now)));
                return;
            }
            if !plan.is_empty() && !has_turn {
                has_turn = true;
                if self.actor.writer.outage.turn().await {
                    // What was decided may be old by now.
                    continue;
                }
            }
            let fight = match causes.as_ref().is_some_and(|causes| memory.repairs.is_news(causes)) {
                // Before we write: what the other one has written is ours afterwards.
                true => Some(self.actor.writer.other_cron_status_writers(key).await.unwrap_or_default()),
                false => None,
            };
            let outcome = self.actor.act_on_cron(&record, &cron, &plan, &memory.unanswered).await;
            if let Some(causes) = causes.filter(|_| outcome.error.is_none()) {
                memory.repairs.wrote(causes);
                if let Some(others) = fight {
                    self.recorder.warn(&record, "StatusReverted", reverted(&others));
                }
            }
            return self.follow_up(&record, &cron, plan, outcome, memory, now).await;
        }
    }
}

impl CronController {
    pub fn new(
        actor: Actor,
        queue: Arc<Queue<CronKey>>,
        recorder: Recorder,
        metrics: Arc<Metrics>,
        clock: Clock,
    ) -> CronController {
        CronController { actor, queue, recorder, metrics, clock, memories: Mutex::default(), groups: Mutex::default() }
    }

    async fn follow_up(
        &self,
        record: &CronRecord,
        cron: &CronJob,
        plan: Plan,
        outcome: CronOutcome,
        mut memory: Memory,
        now: Timestamp,
    ) {
        let key = &record.key;
        for (slot, created) in &outcome.created {
            self.metrics.run_created(created.duration_since(*slot));
        }
        let has_written = !plan.is_empty();
        let Some(error) = outcome.error else {
            memory.n_failures = 0;
            // A name that was taken is in the status by now.
            memory.obstacle = memory.obstacle.filter(|it| !matches!(it, Obstacle::NameTaken(_)));
            if plan.starts().next().is_some() {
                memory.n_refusals = 0;
                memory.obstacle = None;
                memory.unanswered.clear();
            }
            let wake_at = plan.wake_at;
            self.publish(record, plan).await;
            self.remember(key, memory);
            if has_written {
                // What was started is now to be written down.
                self.queue.add(key);
            } else if let Some(at) = wake_at {
                self.queue.add_at(key, instant_of(at, now));
            }
            return;
        };
        tracing::warn!(batchcronjob = %key, %error, "the plan was not carried out");
        self.metrics.cron_failed(error.label());
        match error {
            CronError::NameTaken(name) => {
                let words =
                    format!("there is a BatchJob {name} already, which is not this BatchCronJob's: it goes on without");
                self.recorder.warn(record, "FailedCreate", words);
                memory.obstacle = Some(Obstacle::NameTaken(name));
                self.queue.add(key);
            }
            CronError::Create { source, name } => {
                memory.n_refusals += 1;
                if source.refusal().is_none() {
                    memory.unanswered.insert(name);
                }
                let delay = match source.refusal() {
                    Some(Refusal::Rejected) => doubling(REJECTED, memory.n_refusals),
                    Some(Refusal::Refused(_)) => doubling(REFUSED, memory.n_refusals),
                    None => after(source.class(), memory.n_refusals),
                };
                let message = source.status().map_or_else(|| source.to_string(), |status| status.message.clone());
                if source.refusal().is_some() {
                    self.recorder.warn(record, "FailedCreate", format!("Error creating run: {message}"));
                }
                memory.obstacle = Some(Obstacle::Refused { message, retry_at: later(now, delay) });
                memory.met = Some(Met::now(now));
                self.queue.add(key);
            }
            CronError::Write(error) => {
                memory.n_failures += 1;
                if let Some(complaint) = error.complaint().filter(|_| memory.n_failures.is_power_of_two()) {
                    self.recorder.warn(record, "FailedUpdate", complaint);
                }
                match error.class() {
                    Some(Class::Stale) if memory.n_failures <= 3 => self.queue.add(key),
                    class => {
                        let delay = after(class.unwrap_or(Class::Failing), memory.n_failures);
                        self.queue.hold(key, Instant::now() + delay);
                    }
                }
            }
        }
        memory.generation = cron.generation;
        self.remember(key, memory);
    }

    async fn publish(&self, record: &CronRecord, plan: Plan) {
        let who = match plan.starts().any(|start| start.is_manual) {
            true => self.actor.writer.who_triggered(&record.key).await.ok().flatten(),
            false => None,
        };
        for mut reason in plan.reasons {
            if let (Note::Text(text), Some(who)) = (&mut reason.note, &who)
                && text.ends_with("triggered by hand")
            {
                text.push_str(&format!(" by {who}"));
            }
            tracing::info!(batchcronjob = %record.key, reason = reason.reason, "{}", reason.note);
            self.recorder.publish(record, reason);
        }
    }

    fn report_unreadable(&self, record: &CronRecord, error: &str) {
        tracing::warn!(batchcronjob = %record.key, error, "it cannot be read");
        let message = format!("this BatchCronJob cannot be read, and nothing is done about it: {error}");
        self.recorder.warn(record, "InvalidSpec", message);
        self.metrics.pass(PassResult::Unreadable);
    }

    async fn turn_of_group(&self, record: &CronRecord) -> Option<OwnedMutexGuard<()>> {
        let group = (record.key.namespace.clone(), record.group()?.to_owned());
        let turn = {
            let mut groups = self.groups.lock().unwrap_or_else(PoisonError::into_inner);
            groups.retain(|_, turn| Arc::strong_count(turn) > 1);
            groups.entry(group).or_default().clone()
        };
        Some(turn.lock_owned().await)
    }

    /// What is remembered of it; nothing of another one that had its name, and of an obstacle nothing once its spec has changed.
    fn memory_of(&self, record: &CronRecord, cron: &CronJob) -> Memory {
        let memory = self.memories().get(&record.key).filter(|memory| memory.uid == record.uid).cloned();
        let mut memory = memory.unwrap_or_else(|| Memory { uid: record.uid.clone(), ..Memory::default() });
        if memory.generation != cron.generation {
            memory.obstacle = memory.obstacle.filter(|obstacle| matches!(obstacle, Obstacle::NameTaken(_)));
        }
        memory
    }

    fn remember(&self, key: &CronKey, memory: Memory) {
        self.memories().insert(key.clone(), memory);
    }

    fn memories(&self) -> MutexGuard<'_, HashMap<CronKey, Memory>> {
        // Nothing that holds the lock can panic half-way through a change.
        self.memories.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl CronError {
    /// The value of the metric's label.
    fn label(&self) -> &'static str {
        match self {
            CronError::Write(error) => error.label(),
            CronError::NameTaken(_) => "refused",
            CronError::Create { source, .. } => match (source.refusal(), source.class()) {
                (Some(Refusal::Rejected), _) => "rejected",
                (Some(Refusal::Refused(_)), _) => "refused",
                (None, Class::Unavailable) => "unavailable",
                (None, Class::Busy { .. }) => "busy",
                (None, Class::Stale) => "stale",
                (None, Class::Failing) => "failing",
            },
        }
    }
}
