//! The jobs of both kinds, by name and by uid, fed by watch events and by our own writes.

use std::marker::PhantomData;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::cache::{Cache, Record};
use super::job::{JobKey, JobRecord, WireJob};
use super::watch::{Change, Sink};

/// The jobs.
#[derive(Debug, Default)]
pub struct Jobs {
    jobs: Mutex<Cache<JobRecord>>,
}

/// Creates of runs are under way: from before they are sent until their answers are known to the cache.
#[derive(Debug)]
pub struct Creating<'a> {
    jobs: &'a Jobs,
    number: u64,
}

impl Drop for Creating<'_> {
    fn drop(&mut self) {
        self.jobs.lock().creations.end(self.number);
    }
}

impl Jobs {
    pub fn get(&self, key: &JobKey) -> Option<JobRecord> {
        self.lock().get(key).cloned()
    }

    pub fn key_of(&self, uid: &str) -> Option<JobKey> {
        self.lock().key_of(uid).cloned()
    }

    pub fn count(&self) -> usize {
        self.lock().count()
    }

    pub fn keys(&self) -> Vec<JobKey> {
        self.lock().all().map(|record| record.key.clone()).collect()
    }

    /// The runs of a BatchCronJob. One in another namespace that names it as its owner is somebody's forgery.
    pub fn runs_of(&self, namespace: &str, uid: &str) -> Vec<JobRecord> {
        self.lock().of_owner(uid).filter(|record| *record.key.namespace == *namespace).cloned().collect()
    }

    /// To be held while runs are created.
    pub fn creating(&self) -> Creating<'_> {
        Creating { jobs: self, number: self.lock().creations.begin() }
    }

    /// A run that we have created, or found when we wanted to.
    pub fn created(&self, record: JobRecord) {
        self.lock().created(record);
    }

    /// The answer to a write of ours, or to a read. It never brings back a job that is gone.
    pub fn wrote(&self, record: JobRecord) {
        self.lock().wrote(record);
    }

    /// Whether what is known of the job is at least as new as our last write to it.
    pub fn is_confirmed(&self, uid: &str) -> bool {
        self.lock().is_confirmed(uid)
    }

    /// A read found no such job. One made anew under the same name is another one.
    pub fn is_gone(&self, key: &JobKey, uid: &str) {
        self.lock().is_gone(key, uid);
    }

    fn lock(&self) -> MutexGuard<'_, Cache<JobRecord>> {
        // Nothing that holds the lock can panic half-way through a change.
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Record for JobRecord {
    type Key = JobKey;

    fn key(&self) -> &JobKey {
        &self.key
    }

    fn uid(&self) -> &Arc<str> {
        &self.uid
    }

    fn version(&self) -> u64 {
        self.version
    }

    fn owner(&self) -> Option<&Arc<str>> {
        self.run.as_ref().map(|run| &run.cron_uid)
    }

    fn keep(&mut self, known: &JobRecord) {
        self.keep_ledger_of(known);
    }
}

/// Feeds the jobs of one kind to [`Jobs`] from a watch and tells whom it concerns.
pub struct JobSink<W, F> {
    jobs: Arc<Jobs>,
    /// A job has changed, or is gone.
    notify: F,
    kind: PhantomData<fn() -> W>,
}

impl<W, F> JobSink<W, F> {
    pub fn new(jobs: Arc<Jobs>, notify: F) -> JobSink<W, F> {
        JobSink { jobs, notify, kind: PhantomData }
    }
}

impl<W: WireJob, F: Fn(&JobRecord) + Send> Sink for JobSink<W, F> {
    type Record = JobRecord;
    type Wire = W;

    const KIND: &'static str = W::KIND;
    const WHERE_FROM: &'static str = W::WHERE_FROM;
    const WHAT_ALLOWS: &'static str = W::WHAT_ALLOWS;

    fn record(wire: W) -> Option<JobRecord> {
        wire.into().record()
    }

    fn change(&mut self, change: Change<JobRecord>) {
        match change {
            Change::Applied(record) => {
                self.jobs.lock().apply(record.clone());
                (self.notify)(&record);
            }
            Change::Deleted(record) => {
                self.jobs.lock().deleted(&record);
                (self.notify)(&record);
            }
            Change::Replaced { objects, version } => {
                let mut concerned = objects.clone();
                // The other kind has a list of its own.
                let is_listed = |known: &JobRecord| known.key.door == W::DOOR;
                concerned.extend(self.jobs.lock().replace(objects, version, is_listed));
                concerned.iter().for_each(&self.notify);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use batchjob_crd::keys;
    use serde_json::{Value, json};

    use super::super::job::{WireBatchJob, WireManagedJob};
    use batchjob_decide::job::managed;

    use super::*;

    fn object(uid: &str, version: u64, manager: Option<&str>) -> Value {
        let metadata = json!({ "name": "etl", "namespace": "ns", "uid": uid, "resourceVersion": version.to_string() });
        json!({ "metadata": metadata, "spec": { "template": {}, "managedBy": manager } })
    }

    fn read<W: WireJob>(object: Value) -> Option<JobRecord> {
        serde_json::from_value::<W>(object).expect("any job can be read so far").into().record()
    }

    fn job(uid: &str, version: u64) -> JobRecord {
        read::<WireBatchJob>(object(uid, version, None)).expect("ours")
    }

    fn managed_job(uid: &str, version: u64) -> JobRecord {
        read::<WireManagedJob>(object(uid, version, Some(keys::MANAGED_BY))).expect("ours")
    }

    fn sink<W: WireJob>(jobs: &Arc<Jobs>) -> impl Sink<Record = JobRecord, Wire = W> {
        JobSink::<W, _>::new(jobs.clone(), |_: &JobRecord| {})
    }

    #[test]
    fn a_read_that_found_nothing_does_not_remove_a_job_made_anew() {
        let jobs = Jobs::default();
        let key = job("first", 1).key;
        jobs.lock().apply(job("second", 9));
        jobs.is_gone(&key, "first");
        assert!(jobs.get(&key).is_some());
        jobs.is_gone(&key, "second");
        assert!(jobs.get(&key).is_none());
        jobs.wrote(job("second", 10));
        assert_eq!(jobs.count(), 0, "an answer that comes late brings nothing back");
    }

    /// `TestDelayedJobUpdateEvent` in upstream's `test/integration/job`: the events of the job come late, and the pass that
    /// is asked for by its pod must know that the job is over.
    #[test]
    fn an_older_event_does_not_undo_the_end_that_we_wrote() {
        fn check<W: WireJob>(manager: Option<&str>) {
            for end in ["Complete", "Failed"] {
                let mut over = object("u", 9, manager);
                let end = json!({ "type": end, "status": "True", "reason": "R", "message": "",
                    "lastTransitionTime": "2026-01-01T00:00:00Z" });
                over["status"] = json!({ "conditions": [end] });
                let before = read::<W>(object("u", 5, manager)).expect("ours");
                let key = before.key.clone();
                let jobs = Arc::new(Jobs::default());
                let mut watch = sink::<W>(&jobs);
                let is_over = || match jobs.get(&key).expect("there").content {
                    super::super::job::Content::Job(job) => {
                        batchjob_decide::job::status::finished_at(&job.status).is_some()
                    }
                    unreadable => panic!("{unreadable:?}"),
                };
                watch.change(Change::Applied(before.clone()));
                assert!(!is_over());
                jobs.wrote(read::<W>(over).expect("ours"));
                watch.change(Change::Applied(read::<W>(object("u", 7, manager)).expect("ours")));
                assert!(is_over(), "after a late event");
                watch.change(Change::Replaced { objects: vec![before], version: 8 });
                assert!(is_over(), "after a late list");
            }
        }
        check::<WireBatchJob>(None);
        check::<WireManagedJob>(Some(keys::MANAGED_BY));
    }

    #[test]
    fn a_batchjob_and_a_job_of_one_name_are_two_and_each_is_found_by_its_uid() {
        let jobs = Arc::new(Jobs::default());
        sink::<WireBatchJob>(&jobs).change(Change::Applied(job("a", 1)));
        sink::<WireManagedJob>(&jobs).change(Change::Applied(managed_job("b", 2)));
        assert_eq!(jobs.count(), 2);
        let found = |uid| jobs.key_of(uid).map(|key| key.to_string());
        assert_eq!((found("a"), found("b")), (Some("ns/etl".to_owned()), Some("job.batch ns/etl".to_owned())));
    }

    #[test]
    fn a_list_of_one_kind_says_nothing_about_the_other() {
        let jobs = Arc::new(Jobs::default());
        sink::<WireBatchJob>(&jobs).change(Change::Applied(job("a", 1)));
        sink::<WireManagedJob>(&jobs).change(Change::Replaced { objects: vec![managed_job("b", 2)], version: 5 });
        assert_eq!(jobs.count(), 2);
        sink::<WireManagedJob>(&jobs).change(Change::Replaced { objects: Vec::new(), version: 6 });
        assert!(jobs.key_of("a").is_some() && jobs.key_of("b").is_none());
    }

    #[test]
    fn a_job_made_again_with_another_manager_is_forgotten() {
        let made_again = || read::<WireManagedJob>(object("second", 9, Some("example.com/other")));
        assert!(made_again().is_none());
        let jobs = Arc::new(Jobs::default());
        let mut watch = sink::<WireManagedJob>(&jobs);
        watch.change(Change::Applied(managed_job("first", 1)));
        watch.change(Change::Deleted(managed_job("first", 8)));
        assert_eq!(jobs.count(), 0, "the watch tells of the end of the first one");

        watch.change(Change::Applied(managed_job("first", 1)));
        watch.change(Change::Replaced { objects: made_again().into_iter().collect(), version: 10 });
        assert_eq!((jobs.count(), jobs.key_of("first")), (0, None), "a list tells what there is");
    }

    #[test]
    fn a_ledger_that_somebody_takes_off_or_breaks_still_holds() {
        let status = json!({ "failed": 1, "active": 1, "openIndexes": "0:2/1@50" });
        let ours = batchjob_decide::observed::Job { uid: "u".to_owned(), ..Default::default() };
        let (status, written) = managed::write(&ours, &serde_json::from_value(status).expect("a status"));
        let with = |uid, version, ledger: Option<&str>| {
            let mut object = object(uid, version, Some(keys::MANAGED_BY));
            object["metadata"]["annotations"] = json!({ keys::LEDGER: ledger });
            object["status"] = json!(status);
            read::<WireManagedJob>(object).expect("ours")
        };
        let jobs = Arc::new(Jobs::default());
        let mut watch = sink::<WireManagedJob>(&jobs);
        let kept = |key: &JobKey| match jobs.get(key).expect("there").content {
            super::super::job::Content::Job(job) => (job.status.open_indexes.clone(), job.has_lost_its_ledger),
            unreadable => panic!("{unreadable:?}"),
        };
        let ours = with("u", 1, Some(&written));
        let key = ours.key.clone();
        watch.change(Change::Applied(ours));
        let ledger = Some("0:2/1@50".to_owned());
        for (version, broken) in [(2, None), (3, Some("{"))] {
            watch.change(Change::Applied(with("u", version, broken)));
            assert_eq!(kept(&key), (ledger.clone(), true), "and is written again");
        }
        watch.change(Change::Applied(with("another", 4, None)));
        assert_eq!(kept(&key), (None, true), "of another job it says nothing");
    }

    #[test]
    fn what_a_list_says_is_not_confirmed_by_it() {
        let jobs = Arc::new(Jobs::default());
        let mut watch = sink::<WireBatchJob>(&jobs);
        watch.change(Change::Replaced { objects: vec![job("u", 3)], version: 3 });
        assert!(!jobs.is_confirmed("u"));
        jobs.wrote(job("u", 4));
        watch.change(Change::Applied(job("u", 5)));
        assert!(jobs.is_confirmed("u"));
        watch.change(Change::Replaced { objects: Vec::new(), version: 6 });
        watch.change(Change::Replaced { objects: vec![job("u", 3)], version: 3 });
        assert!(!jobs.is_confirmed("u"), "an old list has brought it back");
    }

    #[test]
    fn a_job_made_again_that_is_ours_now_is_another_one() {
        let jobs = Arc::new(Jobs::default());
        let mut watch = sink::<WireManagedJob>(&jobs);
        watch.change(Change::Applied(managed_job("first", 1)));
        watch.change(Change::Applied(managed_job("second", 9)));
        assert_eq!((jobs.count(), jobs.key_of("first")), (1, None));
        assert!(jobs.key_of("second").is_some());
    }
}
