//! A job of either kind: as it comes over the wire, whether it is ours, and as it is kept.
//!
//! A BatchJob is ours unless its `spec.managedBy` names somebody else; a batch/v1 Job is ours only if it names us. That
//! field cannot be changed, so what is another's when it is first read stays another's: it is dropped at once.

use std::fmt::{self, Debug};
use std::sync::Arc;

use batchjob_crd::{BatchJob, BatchJobStatus, GROUP, VERSION, keys};
use batchjob_decide::job::managed::{self, Read};
use batchjob_decide::observed::{Door, Job};
use jiff::Timestamp;
use k8s_openapi::api::batch::v1::{Job as BatchV1Job, JobStatus};
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::Resource;
use kube::core::NamespaceResourceScope;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::lenient::metadata;

/// The kind and name of a job, under which it is queued. What is deleted and made again has the same one, and another
/// uid.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct JobKey {
    pub door: Door,
    pub namespace: Arc<str>,
    pub name: Arc<str>,
}

impl fmt::Display for JobKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.door == Door::ManagedJob {
            f.write_str("job.batch ")?;
        }
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

impl JobKey {
    pub fn api_version(&self) -> String {
        match self.door {
            Door::BatchJob => format!("{GROUP}/{VERSION}"),
            Door::ManagedJob => "batch/v1".to_owned(),
        }
    }

    pub fn kind(&self) -> &'static str {
        match self.door {
            Door::BatchJob => "BatchJob",
            Door::ManagedJob => "Job",
        }
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
    /// The ledger in `content` is the one that we wrote. A user may take off the annotation that a managed Job has it in.
    has_ledger: bool,
    /// It is the run of a BatchCronJob.
    pub run: Option<RunOf>,
    pub content: Content,
}

/// Whose run a BatchJob is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunOf {
    pub cron_uid: Arc<str>,
    pub created: Timestamp,
    /// None: it was triggered by hand, or made by hand.
    pub slot: Option<Timestamp>,
    pub is_backfill: bool,
}

impl JobRecord {
    /// A ledger that we wrote and that is no longer there still holds: nobody has uncounted what it counts.
    pub(super) fn keep_ledger_of(&mut self, known: &JobRecord) {
        let (Content::Job(job), Content::Job(before)) = (&mut self.content, &known.content) else { return };
        if self.has_ledger || !known.has_ledger {
            return;
        }
        let status = &mut Arc::make_mut(job).status;
        status.failed = status.failed.max(before.status.failed);
        status.completed_indexes.clone_from(&before.status.completed_indexes);
        status.failed_indexes.clone_from(&before.status.failed_indexes);
        status.open_indexes.clone_from(&before.status.open_indexes);
        status.reason.clone_from(&before.status.reason);
        self.has_ledger = true;
    }
}

impl RunOf {
    fn read(metadata: &ObjectMeta) -> Option<RunOf> {
        let owners = metadata.owner_references.as_ref()?;
        let is_ours = |owner: &&OwnerReference| {
            owner.controller == Some(true)
                && owner.kind == "BatchCronJob"
                && owner.api_version.starts_with("batchjob.dev/")
        };
        let owner = owners.iter().find(is_ours)?;
        let annotation = |key: &str| metadata.annotations.as_ref()?.get(key);
        let slot = annotation(keys::SCHEDULED_TIMESTAMP).filter(|_| annotation(keys::INSTANTIATE).is_none());
        Some(RunOf {
            cron_uid: owner.uid.as_str().into(),
            created: metadata.creation_timestamp.as_ref().map(|time| time.0).unwrap_or_default(),
            slot: slot.and_then(|slot| slot.parse().ok()),
            is_backfill: annotation(keys::BACKFILL).is_some(),
        })
    }
}

impl From<&JobRecord> for ObjectReference {
    fn from(job: &JobRecord) -> ObjectReference {
        ObjectReference {
            api_version: Some(job.key.api_version()),
            kind: Some(job.key.kind().to_owned()),
            namespace: Some(job.key.namespace.to_string()),
            name: Some(job.key.name.to_string()),
            uid: Some(job.uid.to_string()),
            ..ObjectReference::default()
        }
    }
}

#[derive(Clone, Debug)]
pub enum Content {
    Job(Arc<Job>),
    /// Its JSON is not that of its kind: it is reported on itself, and stops nobody else.
    Unreadable {
        error: Arc<str>,
    },
}

/// A job as the API server has it, whoever runs it: its metadata can always be read, the rest if it is as it should be.
#[derive(Clone, Debug)]
pub struct AnyJob {
    door: Door,
    metadata: ObjectMeta,
    spec: Value,
    status: Option<Value>,
}

impl AnyJob {
    pub fn uid(&self) -> &str {
        self.metadata.uid.as_deref().unwrap_or_default()
    }

    /// The annotation that a managed Job's ledger is in.
    pub fn ledger(&self) -> Option<&str> {
        self.metadata.annotations.as_ref()?.get(keys::LEDGER).map(String::as_str)
    }

    fn is_ours(&self) -> bool {
        match (self.door, self.spec.get("managedBy").filter(|manager| !manager.is_null())) {
            (_, Some(manager)) => manager == keys::MANAGED_BY,
            (Door::BatchJob, None) => true,
            (Door::ManagedJob, None) => false,
        }
    }

    /// None: somebody else runs it, and we have nothing to do with it.
    pub fn record(self) -> Option<JobRecord> {
        if !self.is_ours() {
            return None;
        }
        let read = self.read_status();
        let has_ledger = read.as_ref().is_ok_and(|read| !read.is_lost);
        let AnyJob { door, metadata, spec, .. } = self;
        let run = RunOf::read(&metadata).filter(|_| door == Door::BatchJob);
        let key = JobKey {
            door,
            namespace: metadata.namespace.as_deref().unwrap_or_default().into(),
            name: metadata.name.as_deref().unwrap_or_default().into(),
        };
        let resource_version = metadata.resource_version.unwrap_or_default();
        let uid = metadata.uid.unwrap_or_default();
        let is_deleted = metadata.deletion_timestamp.is_some();
        let content = match (serde_json::from_value(spec), read) {
            // Every pod whose owner has lost its uid would be its own.
            _ if uid.is_empty() => Content::Unreadable { error: "metadata: it has no uid".into() },
            (Ok(spec), Ok(Read { status, is_lost })) => Content::Job(Arc::new(Job {
                door,
                namespace: key.namespace.to_string(),
                name: key.name.to_string(),
                uid: uid.clone(),
                generation: metadata.generation.unwrap_or_default(),
                is_deleted,
                spec,
                has_lost_its_ledger: is_lost,
                status,
            })),
            (Err(error), _) => Content::Unreadable { error: format!("spec: {error}").into() },
            (_, Err(error)) => Content::Unreadable { error: format!("status: {error}").into() },
        };
        Some(JobRecord {
            key,
            uid: uid.into(),
            version: super::version(&resource_version),
            resource_version: resource_version.into(),
            is_deleted,
            has_ledger,
            run,
            content,
        })
    }

    fn read_status(&self) -> serde_json::Result<Read> {
        let status = self.status.as_ref().filter(|status| !status.is_null());
        match self.door {
            Door::BatchJob => {
                let status = status.map_or_else(|| Ok(BatchJobStatus::default()), BatchJobStatus::deserialize)?;
                Ok(Read { status, is_lost: false })
            }
            Door::ManagedJob => {
                let status = status.map_or_else(|| Ok(JobStatus::default()), JobStatus::deserialize)?;
                Ok(managed::read(self.uid(), &status, self.ledger()))
            }
        }
    }
}

/// A kind that jobs come as.
pub trait WireJob:
    Resource<DynamicType = (), Scope = NamespaceResourceScope>
    + Clone
    + Debug
    + DeserializeOwned
    + Into<AnyJob>
    + Send
    + 'static
{
    const DOOR: Door;
    /// As the API server calls it.
    const KIND: &'static str;
    /// What to do where the API server does not know the kind.
    const WHERE_FROM: &'static str;
    /// What to do where the API server does not let us read the kind.
    const WHAT_ALLOWS: &'static str;
}

#[derive(kube::Resource, Clone, Debug, Deserialize)]
#[resource(inherit = BatchJob)]
pub struct WireBatchJob {
    #[serde(deserialize_with = "metadata")]
    metadata: ObjectMeta,
    #[serde(default)]
    spec: Value,
    #[serde(default)]
    status: Option<Value>,
}

impl WireJob for WireBatchJob {
    const DOOR: Door = Door::BatchJob;
    const KIND: &'static str = "BatchJob";
    const WHERE_FROM: &'static str = "install its CRD, with the Helm chart or kubectl apply -f crds/batchjobs.yaml";
    const WHAT_ALLOWS: &'static str = "allow get, list and watch of batchjobs.batchjob.dev, as the Helm chart does";
}

impl From<WireBatchJob> for AnyJob {
    fn from(wire: WireBatchJob) -> AnyJob {
        let WireBatchJob { metadata, spec, status } = wire;
        AnyJob { door: Door::BatchJob, metadata, spec, status }
    }
}

#[derive(kube::Resource, Clone, Debug, Deserialize)]
#[resource(inherit = BatchV1Job)]
pub struct WireManagedJob {
    #[serde(deserialize_with = "metadata")]
    metadata: ObjectMeta,
    #[serde(default)]
    spec: Value,
    #[serde(default)]
    status: Option<Value>,
}

impl WireJob for WireManagedJob {
    const DOOR: Door = Door::ManagedJob;
    const KIND: &'static str = "Job";
    const WHERE_FROM: &'static str = "this is not a Kubernetes cluster";
    const WHAT_ALLOWS: &'static str = "allow get, list and watch of jobs.batch, as the Helm chart does with managedJobs.enabled: true, or \
         start without --managed-jobs";
}

impl From<WireManagedJob> for AnyJob {
    fn from(wire: WireManagedJob) -> AnyJob {
        let WireManagedJob { metadata, spec, status } = wire;
        AnyJob { door: Door::ManagedJob, metadata, spec, status }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn batch_job(json: Value) -> Option<JobRecord> {
        AnyJob::from(serde_json::from_value::<WireBatchJob>(json).expect("any job can be read so far")).record()
    }

    fn managed_job(json: Value) -> Option<JobRecord> {
        AnyJob::from(serde_json::from_value::<WireManagedJob>(json).expect("any job can be read so far")).record()
    }

    #[test]
    fn what_is_no_batchjob_is_unreadable_by_itself() {
        let record = batch_job(json!({ "metadata": { "name": "x", "uid": "u" }, "spec": { "completions": "many" } }));
        let content = record.expect("ours").content;
        assert!(matches!(content, Content::Unreadable { ref error } if error.starts_with("spec: ")), "{content:?}");
    }

    #[test]
    fn a_job_without_a_uid_is_unreadable() {
        for uid in [json!(null), json!("")] {
            let record = batch_job(json!({ "metadata": { "name": "x", "uid": uid }, "spec": { "template": {} } }));
            let content = record.expect("ours").content;
            assert!(matches!(content, Content::Unreadable { ref error } if error.contains("uid")), "{content:?}");
        }
    }

    /// Anybody who may update a job can write such a time, and must not stop the list of all the others with it.
    #[test]
    fn the_times_of_managed_fields_are_not_read() {
        let fields = json!([{ "manager": "me", "time": "9999-12-31T23:59:59Z" }]);
        let record = batch_job(
            json!({ "metadata": { "name": "x", "uid": "u", "managedFields": fields }, "spec": { "template": {} } }),
        );
        assert!(matches!(record.expect("ours").content, Content::Job(_)));
    }

    #[test]
    fn a_time_in_a_status_that_cannot_be_read_makes_one_job_unreadable() {
        let record = managed_job(json!({
            "metadata": { "name": "x", "uid": "u" },
            "spec": { "managedBy": keys::MANAGED_BY, "template": {} },
            "status": { "startTime": "9999-12-31T23:59:59Z" },
        }));
        let content = record.expect("ours").content;
        assert!(matches!(content, Content::Unreadable { ref error } if error.starts_with("status: ")), "{content:?}");
    }

    #[test]
    fn a_batchjob_is_ours_unless_it_says_otherwise_and_a_job_only_if_it_says_so() {
        let spec = |manager: Option<&str>| match manager {
            Some(manager) => json!({ "metadata": {}, "spec": { "template": {}, "managedBy": manager } }),
            None => json!({ "metadata": {}, "spec": { "template": {} } }),
        };
        let (ours, other) = (Some(keys::MANAGED_BY), Some("example.com/other"));
        let are_ours = [None, ours, other].map(|manager| batch_job(spec(manager)).is_some());
        assert_eq!(are_ours, [true, true, false]);
        let kubernetes = Some("kubernetes.io/job-controller");
        let are_ours = [None, ours, other, kubernetes].map(|manager| managed_job(spec(manager)).is_some());
        assert_eq!(are_ours, [false, true, false, false]);
    }

    #[test]
    fn a_managed_job_is_read_with_its_ledger() {
        let ours = Job { uid: "u".to_owned(), ..Job::default() };
        let status = json!({ "succeeded": 1, "failed": 1, "active": 1, "ready": 0, "terminating": 0,
            "completedIndexes": "0", "openIndexes": "1:2/1@50" });
        let (status, ledger) = managed::write(&ours, &serde_json::from_value(status).expect("a status"));
        let mut status = json!(status);
        status["uncountedTerminatedPods"] = json!({});
        let record = managed_job(json!({
            "metadata": { "name": "etl", "namespace": "ns", "uid": "u", "annotations": { keys::LEDGER: ledger } },
            "spec": {
                "managedBy": keys::MANAGED_BY,
                "template": { "spec": { "containers": [] } },
                "completions": 3, "parallelism": 1, "backoffLimit": 6, "suspend": false, "completionMode": "NonIndexed",
                "podReplacementPolicy": "TerminatingOrFailed", "manualSelector": false,
                "selector": { "matchLabels": { "batch.kubernetes.io/controller-uid": "u" } },
            },
            "status": status,
        }));
        let record = record.expect("ours");
        assert_eq!(record.key.to_string(), "job.batch ns/etl");
        let Content::Job(job) = record.content else { panic!("{:?}", record.content) };
        assert_eq!((job.door, job.spec.completions), (Door::ManagedJob, Some(3)));
        let status = &job.status;
        assert_eq!((status.succeeded, status.failed, status.active), (Some(1), Some(1), Some(1)));
        assert_eq!(
            (status.completed_indexes.as_deref(), status.open_indexes.as_deref()),
            (Some("0"), Some("1:2/1@50"))
        );
    }
}
