//! The jobs, by name and by uid, fed by watch events and by our own writes.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use batchjob_crd::BatchJob;
use batchjob_decide::observed::Job;
use kube::core::DeserializeGuard;

use super::watch::{Change, Sink};

/// The name of a job, under which it is queued. What is deleted and made again has the same one, and another uid.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct JobKey {
    pub namespace: Arc<str>,
    pub name: Arc<str>,
}

impl fmt::Display for JobKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// A job as it is kept.
#[derive(Clone, Debug)]
pub struct JobRecord {
    pub key: JobKey,
    pub uid: Arc<str>,
    pub version: u64,
    pub resource_version: Arc<str>,
    pub content: Content,
}

#[derive(Clone, Debug)]
pub enum Content {
    Job(Arc<Job>),
    /// Its JSON is not a BatchJob: it is reported on itself, and stops nobody else.
    Unreadable {
        error: Arc<str>,
    },
}

impl From<BatchJob> for JobRecord {
    fn from(job: BatchJob) -> JobRecord {
        let BatchJob { metadata, spec, status } = job;
        let key = JobKey {
            namespace: metadata.namespace.as_deref().unwrap_or_default().into(),
            name: metadata.name.as_deref().unwrap_or_default().into(),
        };
        let resource_version = metadata.resource_version.unwrap_or_default();
        let uid = metadata.uid.unwrap_or_default();
        JobRecord {
            uid: uid.as_str().into(),
            version: super::version(&resource_version),
            resource_version: resource_version.into(),
            content: Content::Job(Arc::new(Job {
                namespace: key.namespace.to_string(),
                name: key.name.to_string(),
                uid,
                generation: metadata.generation.unwrap_or_default(),
                is_deleted: metadata.deletion_timestamp.is_some(),
                spec,
                status: status.unwrap_or_default(),
            })),
            key,
        }
    }
}

impl From<DeserializeGuard<BatchJob>> for JobRecord {
    fn from(guard: DeserializeGuard<BatchJob>) -> JobRecord {
        match guard.0 {
            Ok(job) => job.into(),
            Err(invalid) => {
                let meta = invalid.metadata;
                let resource_version = meta.resource_version.unwrap_or_default();
                JobRecord {
                    key: JobKey {
                        namespace: meta.namespace.unwrap_or_default().into(),
                        name: meta.name.unwrap_or_default().into(),
                    },
                    uid: meta.uid.unwrap_or_default().into(),
                    version: super::version(&resource_version),
                    resource_version: resource_version.into(),
                    content: Content::Unreadable { error: invalid.error.into() },
                }
            }
        }
    }
}

/// The jobs.
#[derive(Debug, Default)]
pub struct Jobs {
    jobs: Mutex<Map>,
}

#[derive(Debug, Default)]
struct Map {
    by_key: HashMap<JobKey, JobRecord>,
    by_uid: HashMap<Arc<str>, JobKey>,
}

impl Jobs {
    pub fn get(&self, key: &JobKey) -> Option<JobRecord> {
        self.lock().by_key.get(key).cloned()
    }

    pub fn key_of(&self, uid: &str) -> Option<JobKey> {
        self.lock().by_uid.get(uid).cloned()
    }

    pub fn len(&self) -> usize {
        self.lock().by_key.len()
    }

    /// The answer to a write of ours. It never brings back a job that is gone.
    pub fn wrote(&self, record: JobRecord) {
        let mut map = self.lock();
        if map.by_key.get(&record.key).is_some_and(|known| known.uid == record.uid) {
            map.apply(record);
        }
    }

    /// What a fresh read says: None, it is gone.
    pub fn reread(&self, key: &JobKey, fresh: Option<JobRecord>) {
        let mut map = self.lock();
        match fresh {
            Some(record) => map.apply(record),
            None => map.remove(key, u64::MAX),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Map> {
        // Nothing that holds the lock can panic half-way through a change.
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Map {
    fn apply(&mut self, record: JobRecord) {
        if let Some(known) = self.by_key.get(&record.key) {
            if known.version > record.version {
                return;
            }
            if known.uid != record.uid {
                let gone = known.uid.clone();
                self.by_uid.remove(&gone);
            }
        }
        self.by_uid.insert(record.uid.clone(), record.key.clone());
        self.by_key.insert(record.key.clone(), record);
    }

    /// Removes it unless what is known is newer than `version`.
    fn remove(&mut self, key: &JobKey, version: u64) {
        if self.by_key.get(key).is_some_and(|known| known.version <= version)
            && let Some(record) = self.by_key.remove(key)
        {
            self.by_uid.remove(&record.uid);
        }
    }
}

/// Feeds [`Jobs`] from a watch and tells whom it concerns.
pub struct JobSink<F, G> {
    pub jobs: Arc<Jobs>,
    /// A job has changed, or is gone.
    pub notify: F,
    /// The cache is full for the first time, or anew.
    pub filled: G,
    pub relisted: Box<dyn Fn() + Send>,
}

impl<F: Fn(&JobKey) + Send, G: Fn() + Send> Sink for JobSink<F, G> {
    type Record = JobRecord;
    type Wire = DeserializeGuard<BatchJob>;

    const KIND: &'static str = "BatchJob";
    const WHERE_FROM: &'static str = "install its CRD, with the Helm chart or kubectl apply -f crds/batchjobs.yaml";

    fn record(wire: Self::Wire) -> JobRecord {
        wire.into()
    }

    fn change(&mut self, change: Change<JobRecord>) {
        match change {
            Change::Applied(record) => {
                let key = record.key.clone();
                self.jobs.lock().apply(record);
                (self.notify)(&key);
            }
            Change::Deleted(record) => {
                self.jobs.lock().remove(&record.key, record.version);
                (self.notify)(&record.key);
            }
            Change::Replaced { objects, version } => {
                let mut concerned: Vec<JobKey> = objects.iter().map(|record| record.key.clone()).collect();
                {
                    let mut map = self.jobs.lock();
                    let listed: HashMap<Arc<str>, ()> = objects.iter().map(|record| (record.uid.clone(), ())).collect();
                    let gone: Vec<JobKey> = map
                        .by_key
                        .values()
                        .filter(|known| !listed.contains_key(&known.uid))
                        .map(|known| known.key.clone())
                        .collect();
                    for key in &gone {
                        map.remove(key, version);
                    }
                    for record in objects {
                        map.apply(record);
                    }
                    concerned.extend(gone);
                }
                concerned.iter().for_each(&self.notify);
                (self.filled)();
            }
        }
    }

    fn relisting(&mut self) {
        (self.relisted)();
    }
}
