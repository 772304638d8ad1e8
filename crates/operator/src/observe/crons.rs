//! The BatchCronJobs, fed by watch events and by our own writes.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use batchjob_crd::condition;
use batchjob_decide::cron::observed::{CronJob, End, Group, Observed, Run};
use batchjob_decide::job::status;
use jiff::Timestamp;

use super::cache::{Cache, Record};
use super::cron::{CronKey, CronRecord, WireBatchCronJob};
use super::job::{Content, JobRecord};
use super::jobs::Jobs;
use super::watch::{Change, Sink};

/// The BatchCronJobs.
#[derive(Debug, Default)]
pub struct Crons {
    crons: Mutex<Cache<CronRecord>>,
}

impl Crons {
    pub fn get(&self, key: &CronKey) -> Option<CronRecord> {
        self.lock().get(key).cloned()
    }

    pub fn count(&self) -> usize {
        self.lock().count()
    }

    pub fn keys(&self) -> Vec<CronKey> {
        self.lock().all().map(|record| record.key.clone()).collect()
    }

    /// The answer to a write of ours, or to a read. It never brings back one that is gone.
    pub fn wrote(&self, record: CronRecord) {
        self.lock().wrote(record);
    }

    /// Whether what is known of it is at least as new as our last write to it.
    pub fn is_confirmed(&self, uid: &str) -> bool {
        self.lock().is_confirmed(uid)
    }

    /// A read found no such BatchCronJob.
    pub fn is_gone(&self, key: &CronKey, uid: &str) {
        self.lock().is_gone(key, uid);
    }

    /// Everything that a decision may look at, but what stood in its way.
    pub fn observe(&self, record: &CronRecord, cron: &Arc<CronJob>, jobs: &Jobs, now: Timestamp) -> Observed {
        let runs = jobs.runs_of(&record.key.namespace, &record.uid).iter().filter_map(run).collect();
        let group = record.group().map(|group| self.group(record, group, jobs)).unwrap_or_default();
        Observed { cron: cron.clone(), runs, group, obstacle: None, now }
    }

    /// Whom it concerns that a run has changed: its BatchCronJob, and, if that is in a group or gone, whoever waits for a place in
    /// a group; who has waited longest comes first.
    pub fn concerned(&self, namespace: &str, cron_uid: &str) -> Vec<CronKey> {
        let crons = self.lock();
        let own = crons.key_of(cron_uid).and_then(|key| crons.get(key));
        if let Some(own) = own.filter(|own| own.group().is_none()) {
            return vec![own.key.clone()];
        }
        let waits_since = |record: &CronRecord| {
            let is_meant = record.group().is_some_and(|group| own.is_none_or(|own| own.group() == Some(group)));
            let status = &record.cron().filter(|_| is_meant)?.status;
            let fills_in = status.backfill.as_ref().is_some_and(|backfill| !backfill.is_complete);
            // What was triggered by hand has no slot, and comes first.
            let since = status.waiting.first().map(|time| time.0);
            (status.held > Some(0) || fills_in).then(|| (since, record.key.clone()))
        };
        let mut waiting: Vec<_> = in_namespace(&crons, namespace).filter_map(waits_since).collect();
        waiting.sort();
        let waiting: Vec<CronKey> = waiting.into_iter().map(|(_, key)| key).collect();
        let own = own.map(|own| own.key.clone()).filter(|key| !waiting.contains(key));
        waiting.into_iter().chain(own).collect()
    }

    /// The other members of its group.
    fn group(&self, record: &CronRecord, group: &str, jobs: &Jobs) -> Group {
        let crons = self.lock();
        let others: Vec<&CronRecord> = in_namespace(&crons, &record.key.namespace)
            .filter(|other| other.uid != record.uid && other.group() == Some(group))
            .collect();
        let limit = |other: &&CronRecord| {
            let group = other.cron()?.spec.concurrency_group.as_ref()?;
            usize::try_from(group.max_active.unwrap_or(1)).ok()
        };
        let is_active = |job: &JobRecord| run(job).is_some_and(|run| run.end.is_none());
        let n_active = |other: &&CronRecord| {
            jobs.runs_of(&other.key.namespace, &other.uid).iter().filter(|job| is_active(job)).count()
        };
        Group { n_active: others.iter().map(n_active).sum(), limit: others.iter().filter_map(limit).min() }
    }

    fn lock(&self) -> MutexGuard<'_, Cache<CronRecord>> {
        // Nothing that holds the lock can panic half-way through a change.
        self.crons.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn in_namespace<'a>(crons: &'a Cache<CronRecord>, namespace: &'a str) -> impl Iterator<Item = &'a CronRecord> {
    crons
        .from(CronKey { namespace: namespace.into(), name: "".into() })
        .take_while(move |record| *record.key.namespace == *namespace)
}

/// A job as the run that it is.
fn run(record: &JobRecord) -> Option<Run> {
    let of = record.run.as_ref()?;
    let end = match &record.content {
        Content::Job(job) => status::end(&job.status).map(|end| End {
            succeeded: end.type_ == condition::COMPLETE,
            at: end.last_transition_time.0,
            reason: end.reason.clone(),
        }),
        // Nobody can say that it has ended.
        Content::Unreadable { .. } => None,
    };
    Some(Run {
        name: record.key.name.clone(),
        uid: record.uid.clone(),
        created: of.created,
        slot: of.slot,
        is_backfill: of.is_backfill,
        is_deleted: record.is_deleted,
        end,
    })
}

impl Record for CronRecord {
    type Key = CronKey;

    fn key(&self) -> &CronKey {
        &self.key
    }

    fn uid(&self) -> &Arc<str> {
        &self.uid
    }

    fn version(&self) -> u64 {
        self.version
    }

    fn owner(&self) -> Option<&Arc<str>> {
        None
    }

    fn keep(&mut self, known: &CronRecord) {
        self.keep_ledger_of(known);
    }
}

/// Feeds [`Crons`] from a watch and tells whom it concerns.
pub struct CronSink<F> {
    pub crons: Arc<Crons>,
    pub notify: F,
}

impl<F: Fn(&CronKey) + Send> Sink for CronSink<F> {
    type Record = CronRecord;
    type Wire = WireBatchCronJob;

    const KIND: &'static str = "BatchCronJob";
    const WHERE_FROM: &'static str = "install its CRD, with the Helm chart or kubectl apply -f crds/batchcronjobs.yaml, or start \
         with --cron-jobs=false";
    const WHAT_ALLOWS: &'static str = "allow get, list and watch of batchcronjobs.batchjob.dev, as the Helm chart does, or start with \
         --cron-jobs=false";

    fn record(wire: WireBatchCronJob) -> Option<CronRecord> {
        Some(wire.into())
    }

    fn change(&mut self, change: Change<CronRecord>) {
        match change {
            Change::Applied(record) => {
                let key = record.key.clone();
                self.crons.lock().apply(record);
                (self.notify)(&key);
            }
            Change::Deleted(record) => {
                self.crons.lock().deleted(&record);
                (self.notify)(&record.key);
            }
            Change::Replaced { objects, version } => {
                let mut concerned: Vec<CronKey> = objects.iter().map(|record| record.key.clone()).collect();
                let gone = self.crons.lock().replace(objects, version, |_| true);
                concerned.extend(gone.into_iter().map(|record| record.key));
                concerned.iter().for_each(&self.notify);
            }
        }
    }
}
