//! The jobs, by name and by uid, fed by watch events and by our own writes.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use batchjob_crd::{BatchJob, BatchJobStatus};
use batchjob_decide::observed::{Door, Job};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Deserialize;

use super::lenient::metadata;
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
    /// Somebody has asked for its deletion, and a finalizer still holds it.
    pub is_deleted: bool,
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

/// A job as it comes over the wire: its metadata can always be read, the rest if it is a BatchJob's.
#[derive(kube::Resource, Clone, Debug, Deserialize)]
#[resource(inherit = BatchJob)]
pub struct WireJob {
    #[serde(deserialize_with = "metadata")]
    metadata: ObjectMeta,
    #[serde(default)]
    spec: serde_json::Value,
    #[serde(default)]
    status: Option<serde_json::Value>,
}

impl From<WireJob> for JobRecord {
    fn from(wire: WireJob) -> JobRecord {
        let WireJob { metadata, spec, status } = wire;
        let key = JobKey {
            namespace: metadata.namespace.as_deref().unwrap_or_default().into(),
            name: metadata.name.as_deref().unwrap_or_default().into(),
        };
        let resource_version = metadata.resource_version.unwrap_or_default();
        let uid = metadata.uid.unwrap_or_default();
        let is_deleted = metadata.deletion_timestamp.is_some();
        let status = status
            .filter(|status| !status.is_null())
            .map_or_else(|| Ok(BatchJobStatus::default()), serde_json::from_value);
        let content = match (serde_json::from_value(spec), status) {
            (Ok(spec), Ok(status)) => Content::Job(Arc::new(Job {
                door: Door::BatchJob,
                namespace: key.namespace.to_string(),
                name: key.name.to_string(),
                uid: uid.clone(),
                generation: metadata.generation.unwrap_or_default(),
                is_deleted,
                spec,
                status,
            })),
            (Err(error), _) => Content::Unreadable { error: format!("spec: {error}").into() },
            (_, Err(error)) => Content::Unreadable { error: format!("status: {error}").into() },
        };
        JobRecord {
            key,
            uid: uid.into(),
            version: super::version(&resource_version),
            resource_version: resource_version.into(),
            is_deleted,
            content,
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

    /// The answer to a write of ours, or to a read. It never brings back a job that is gone.
    pub fn wrote(&self, record: JobRecord) {
        let mut map = self.lock();
        if map.by_key.get(&record.key).is_some_and(|known| known.uid == record.uid) {
            map.apply(record);
        }
    }

    /// A read found no such job. One made anew under the same name is another one.
    pub fn is_gone(&self, key: &JobKey, uid: &str) {
        let mut map = self.lock();
        if map.by_key.get(key).is_some_and(|known| *known.uid == *uid) {
            map.remove(key, u64::MAX);
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
pub struct JobSink<F> {
    pub jobs: Arc<Jobs>,
    /// A job has changed, or is gone.
    pub notify: F,
}

impl<F: Fn(&JobKey) + Send> Sink for JobSink<F> {
    type Record = JobRecord;
    type Wire = WireJob;

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
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: serde_json::Value) -> JobRecord {
        serde_json::from_value::<WireJob>(json).expect("any job can be read so far").into()
    }

    fn job(uid: &str, version: u64) -> JobRecord {
        let metadata =
            serde_json::json!({ "name": "etl", "namespace": "ns", "uid": uid, "resourceVersion": version.to_string() });
        read(serde_json::json!({ "metadata": metadata, "spec": { "template": {} } }))
    }

    #[test]
    fn what_is_no_batchjob_is_unreadable_by_itself() {
        let record = read(serde_json::json!({ "metadata": { "name": "x" }, "spec": { "completions": "many" } }));
        assert!(
            matches!(record.content, Content::Unreadable { ref error } if error.starts_with("spec: ")),
            "{record:?}"
        );
    }

    /// Anybody who may update a job can write such a time, and must not stop the list of all the others with it.
    #[test]
    fn the_times_of_managed_fields_are_not_read() {
        let fields = serde_json::json!([{ "manager": "me", "time": "9999-12-31T23:59:59Z" }]);
        let record = read(
            serde_json::json!({ "metadata": { "name": "x", "managedFields": fields }, "spec": { "template": {} } }),
        );
        assert!(matches!(record.content, Content::Job(_)));
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
        assert_eq!(jobs.len(), 0, "an answer that comes late brings nothing back");
    }
}
