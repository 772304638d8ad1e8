//! Every request that is not a watch goes through here: bounded in number, bounded in time, tried once. What comes of each
//! tells the [gate](crate::outage) whether the API server works.
//!
//! kube's client has no time limit of its own, and by default repeats a refused request up to fifteen times. Here a
//! request is sent once, and the next pass, on fresh state, is what tries again. And it is sent only while the term lasts
//! in which it was decided on.

use std::sync::Arc;
use std::time::Duration;

use batchjob_crd::{BatchCronJob, BatchCronJobStatus, BatchJob, BatchJobStatus, keys};
use batchjob_decide::cron::plan::RunRef;
use batchjob_decide::job::{managed, pod};
use batchjob_decide::observed::{Door, Job, RefusedReason};
use batchjob_decide::plan::PodRef;
use k8s_openapi::api::batch::v1::{Job as BatchV1Job, JobStatus};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ManagedFieldsEntry, ObjectMeta};
use kube::Client;
use kube::api::{Api, DeleteParams, GetParams, Patch, PatchParams, PostParams, Preconditions, PropagationPolicy};
use kube::core::{Request, Resource as _};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::error::{Refusal, WriteError};
use crate::lease::Term;
use crate::observe::cron::{CronKey, CronRecord, WireBatchCronJob};
use crate::observe::job::{AnyJob, JobKey, JobRecord, WireBatchJob, WireManagedJob};
use crate::observe::wire::{PodRecord, WirePod};
use crate::outage::Outage;

/// As whom the API server notes us in `managedFields`: what stands before the slash in the header `User-Agent`.
pub const FIELD_MANAGER: &str = "batchjob-operator";

/// Sends requests.
#[derive(Clone)]
pub struct Writer {
    client: Client,
    in_flight: Arc<Semaphore>,
    time_limit: Duration,
    term: Term,
    pub outage: Arc<Outage>,
}

type Result<T> = std::result::Result<T, WriteError>;

impl Writer {
    pub fn new(client: Client, max_in_flight: usize, time_limit: Duration, term: Term) -> Writer {
        Writer { client, in_flight: Arc::new(Semaphore::new(max_in_flight)), time_limit, term, outage: Arc::default() }
    }

    /// Waits for its turn, then at most the time limit for the answer.
    async fn limited<T>(&self, request: impl Future<Output = kube::Result<T>>, is_write: bool) -> Result<T> {
        // The semaphore is never closed.
        let _turn = self.in_flight.acquire().await;
        let sent = Instant::now();
        // The term is looked at before each step of the request: one that waits for its connection, or whose process was
        // stopped meanwhile, is not sent when the term is over.
        let answer = tokio::select! {
            biased;
            () = self.term.ended() => return Err(WriteError::TermEnded),
            answer = tokio::time::timeout(self.time_limit, request) => match answer {
                Ok(answer) => answer.map_err(WriteError::from),
                Err(_) => Err(WriteError::TimedOut(self.time_limit)),
            },
        };
        match &answer {
            Err(error) if error.is_outage() => self.outage.failed(sent),
            _ if is_write => self.outage.answered(sent),
            _ => {}
        }
        answer
    }

    async fn read<T>(&self, request: impl Future<Output = kube::Result<T>>) -> Result<T> {
        self.limited(request, false).await
    }

    async fn write<T>(&self, request: impl Future<Output = kube::Result<T>>) -> Result<T> {
        self.limited(request, true).await
    }

    async fn send<T: DeserializeOwned>(&self, request: http::Request<Vec<u8>>) -> Result<T> {
        self.write(self.client.request::<T>(request)).await
    }

    /// Creates a pod; of the answer only what is kept is parsed.
    pub async fn create_pod(&self, pod: &Pod) -> Result<PodRecord> {
        let namespace = pod.metadata.namespace.as_deref();
        let body = serde_json::to_vec(pod).map_err(kube::Error::SerdeError)?;
        let request = Request::new(Pod::url_path(&(), namespace)).create(&PostParams::default(), body);
        Ok(self.send::<WirePod>(request.map_err(kube::Error::BuildRequest)?).await?.into())
    }

    pub async fn pod(&self, namespace: &str, name: &str) -> Result<PodRecord> {
        Ok(self.read(self.pods(namespace).get(name)).await?.into())
    }

    /// Whether the namespace is being deleted: the API server refuses every new object in it, also one that is not meant. We have
    /// no right to read namespaces. False if nobody says so.
    pub async fn is_terminating(&self, namespace: &str) -> bool {
        let pod = serde_json::json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "not-meant" },
            "spec": { "containers": [{ "name": "main", "image": "none" }] },
        });
        let params = PostParams { dry_run: true, ..PostParams::default() };
        let request = Request::new(Pod::url_path(&(), Some(namespace))).create(&params, pod.to_string().into_bytes());
        let Ok(request) = request else { return false };
        let answer = self.send::<serde::de::IgnoredAny>(request).await;
        answer.is_err_and(|error| error.refusal() == Some(Refusal::Refused(RefusedReason::NamespaceTerminating)))
    }

    /// Deletes the pod if it is still as it was seen. None if the API server has removed it at once.
    pub async fn delete_pod(&self, namespace: &str, pod: &PodRef) -> Result<Option<PodRecord>> {
        let params = DeleteParams {
            preconditions: Some(Preconditions {
                uid: Some(pod.uid.to_string()),
                resource_version: Some(pod.resource_version.to_string()),
            }),
            ..DeleteParams::default()
        };
        let answer = self.write(self.pods(namespace).delete(&pod.name, &params)).await?;
        Ok(answer.left().map(PodRecord::from))
    }

    /// Takes our finalizer off, and no other. A pod made anew under the same name refuses the uid in the patch (422).
    pub async fn release_pod(&self, namespace: &str, pod: &PodRef, door: Door) -> Result<PodRecord> {
        let patch = serde_json::json!({ "metadata": {
            "uid": pod.uid,
            "$deleteFromPrimitiveList/finalizers": [pod::finalizer(door)],
        }});
        self.patch_pod(namespace, &pod.name, patch).await
    }

    /// Makes the job the owner of a pod that has none, and holds the pod for it. A pod that has another controller by now
    /// refuses a second one (422).
    pub async fn adopt_pod(&self, job: &Job, pod: &PodRef) -> Result<PodRecord> {
        let patch = serde_json::json!({ "metadata": {
            "uid": pod.uid,
            "ownerReferences": [pod::owner(job)],
            "finalizers": [pod::finalizer(job.door)],
        }});
        self.patch_pod(&job.namespace, &pod.name, patch).await
    }

    /// The job is the pod's owner no more, does not hold it, and does not watch it.
    pub async fn disown_pod(&self, job: &Job, pod: &PodRef) -> Result<PodRecord> {
        let patch = serde_json::json!({ "metadata": {
            "uid": pod.uid,
            "ownerReferences": [{ "$patch": "delete", "uid": job.uid }],
            "$deleteFromPrimitiveList/finalizers": [pod::finalizer(job.door)],
            "labels": { keys::ATTEMPT: null },
        }});
        self.patch_pod(&job.namespace, &pod.name, patch).await
    }

    async fn patch_pod(&self, namespace: &str, name: &str, patch: serde_json::Value) -> Result<PodRecord> {
        let (pods, patch) = (self.pods(namespace), Patch::Strategic(patch));
        Ok(self.write(pods.patch(name, &PatchParams::default(), &patch)).await?.into())
    }

    /// Puts back the label that we watch by, if the pod is still as it was read: it may have been given up meanwhile.
    pub async fn label_pod(&self, record: &PodRecord, attempt: &str) -> Result<PodRecord> {
        let pod = &record.pod;
        let patch = Patch::Merge(serde_json::json!({ "metadata": {
            "uid": &*pod.uid,
            "resourceVersion": &*pod.resource_version,
            "labels": { keys::ATTEMPT: attempt },
        }}));
        let pods = self.pods(&record.namespace);
        Ok(self.write(pods.patch(&pod.name, &PatchParams::default(), &patch)).await?.into())
    }

    /// Writes a status if the job is still the one that it was decided on.
    pub async fn write_status(&self, record: &JobRecord, job: &Job, status: &BatchJobStatus) -> Result<JobRecord> {
        let found = match record.key.door {
            Door::BatchJob => self.replace_status(record, status).await?,
            Door::ManagedJob => self.patch_status(record, job, status).await?,
        };
        found.record().ok_or(WriteError::Unexpected("says that somebody else runs the job"))
    }

    async fn replace_status(&self, job: &JobRecord, status: &BatchJobStatus) -> Result<AnyJob> {
        let body = serde_json::json!({
            "apiVersion": job.key.api_version(),
            "kind": job.key.kind(),
            "metadata": {
                "name": &*job.key.name,
                "namespace": &*job.key.namespace,
                "uid": &*job.uid,
                "resourceVersion": &*job.resource_version,
            },
            "status": status,
        });
        let body = serde_json::to_vec(&body).map_err(kube::Error::SerdeError)?;
        let url = BatchJob::url_path(&(), Some(&job.key.namespace));
        let request = Request::new(url).replace_subresource("status", &job.key.name, &PostParams::default(), body);
        Ok(self.send::<WireBatchJob>(request.map_err(kube::Error::BuildRequest)?).await?.into())
    }

    /// The status and the ledger of a managed Job, in one request: both or neither.
    async fn patch_status(&self, record: &JobRecord, job: &Job, status: &BatchJobStatus) -> Result<AnyJob> {
        let (status, ledger) = managed::write(job, status);
        // Strategic, so that the conditions are merged by type: others may have theirs on the Job.
        let patch = Patch::Strategic(serde_json::json!({
            "metadata": {
                "uid": &*record.uid,
                "resourceVersion": &*record.resource_version,
                "annotations": { keys::LEDGER: ledger },
            },
            "status": every_field(&status).map_err(kube::Error::SerdeError)?,
        }));
        let url = BatchV1Job::url_path(&(), Some(&record.key.namespace));
        let request = Request::new(url).patch_subresource("status", &record.key.name, &PatchParams::default(), &patch);
        let found = self.send::<WireManagedJob>(request.map_err(kube::Error::BuildRequest)?).await?;
        let found = AnyJob::from(found);
        if found.ledger() != Some(&ledger) {
            return Err(WriteError::Unexpected("has not the annotation batchjob.dev/ledger that was written"));
        }
        Ok(found)
    }

    pub async fn job(&self, key: &JobKey) -> Result<AnyJob> {
        let client = self.client.clone();
        Ok(match key.door {
            Door::BatchJob => {
                let jobs: Api<WireBatchJob> = Api::namespaced(client, &key.namespace);
                self.read(jobs.get(&key.name)).await?.into()
            }
            Door::ManagedJob => {
                let jobs: Api<WireManagedJob> = Api::namespaced(client, &key.namespace);
                self.read(jobs.get(&key.name)).await?.into()
            }
        })
    }

    /// Who else has written the job's status, the last first, by the names that they give themselves.
    pub async fn other_status_writers(&self, key: &JobKey) -> Result<Vec<String>> {
        let url = match key.door {
            Door::BatchJob => BatchJob::url_path(&(), Some(&key.namespace)),
            Door::ManagedJob => BatchV1Job::url_path(&(), Some(&key.namespace)),
        };
        Ok(others_of_status(self.managed_fields(url, &key.name).await?))
    }

    /// The same of a BatchCronJob.
    pub async fn other_cron_status_writers(&self, key: &CronKey) -> Result<Vec<String>> {
        let url = BatchCronJob::url_path(&(), Some(&key.namespace));
        Ok(others_of_status(self.managed_fields(url, &key.name).await?))
    }

    /// Who has written which fields of an object.
    async fn managed_fields(&self, url: String, name: &str) -> Result<Vec<ManagedFieldsEntry>> {
        #[derive(Deserialize)]
        struct Written {
            metadata: ObjectMeta,
        }
        let request = Request::new(url).get(name, &GetParams::default()).map_err(kube::Error::BuildRequest)?;
        let written: Written = self.read(self.client.request(request)).await?;
        Ok(written.metadata.managed_fields.unwrap_or_default())
    }

    /// Deletes a BatchJob and its pods, the pods first, if it is still as it was decided on: somebody may just have given it
    /// a longer life.
    pub async fn delete_job(&self, job: &JobRecord) -> Result<()> {
        let params = DeleteParams {
            propagation_policy: Some(PropagationPolicy::Foreground),
            preconditions: Some(Preconditions {
                uid: Some(job.uid.to_string()),
                resource_version: Some(job.resource_version.to_string()),
            }),
            ..DeleteParams::default()
        };
        let jobs: Api<BatchJob> = Api::namespaced(self.client.clone(), &job.key.namespace);
        self.write(jobs.delete(&job.key.name, &params)).await?;
        Ok(())
    }

    /// Creates a run of a BatchCronJob. None: the answer is that of a job that is not for us.
    pub async fn create_run(&self, run: &BatchJob) -> Result<Option<JobRecord>> {
        let namespace = run.metadata.namespace.as_deref();
        let body = serde_json::to_vec(run).map_err(kube::Error::SerdeError)?;
        let request = Request::new(BatchJob::url_path(&(), namespace)).create(&PostParams::default(), body);
        let created: WireBatchJob = self.send(request.map_err(kube::Error::BuildRequest)?).await?;
        Ok(AnyJob::from(created).record())
    }

    /// Deletes a run, and its pods after it, if it is still the one that was seen.
    pub async fn delete_run(&self, namespace: &str, run: &RunRef) -> Result<()> {
        let params = DeleteParams {
            propagation_policy: Some(PropagationPolicy::Background),
            preconditions: Some(Preconditions { uid: Some(run.uid.to_string()), resource_version: None }),
            ..DeleteParams::default()
        };
        let jobs: Api<WireBatchJob> = Api::namespaced(self.client.clone(), namespace);
        self.write(jobs.delete(&run.name, &params)).await?;
        Ok(())
    }

    pub async fn cron(&self, key: &CronKey) -> Result<CronRecord> {
        let crons: Api<WireBatchCronJob> = Api::namespaced(self.client.clone(), &key.namespace);
        Ok(self.read(crons.get(&key.name)).await?.into())
    }

    /// Writes a status if the BatchCronJob is still as it was decided on.
    pub async fn write_cron_status(&self, cron: &CronRecord, status: &BatchCronJobStatus) -> Result<CronRecord> {
        let body = serde_json::json!({
            "apiVersion": BatchCronJob::api_version(&()),
            "kind": BatchCronJob::kind(&()),
            "metadata": {
                "name": &*cron.key.name,
                "namespace": &*cron.key.namespace,
                "uid": &*cron.uid,
                "resourceVersion": &*cron.resource_version,
            },
            "status": status,
        });
        let body = serde_json::to_vec(&body).map_err(kube::Error::SerdeError)?;
        let url = BatchCronJob::url_path(&(), Some(&cron.key.namespace));
        let request = Request::new(url).replace_subresource("status", &cron.key.name, &PostParams::default(), body);
        Ok(self.send::<WireBatchCronJob>(request.map_err(kube::Error::BuildRequest)?).await?.into())
    }

    /// Who has set the annotation that triggers a run, by the name that he gives himself, and when. None: nobody says.
    pub async fn who_triggered(&self, key: &CronKey) -> Result<Option<String>> {
        let url = BatchCronJob::url_path(&(), Some(&key.namespace));
        let entries = self.managed_fields(url, &key.name).await?;
        let field = format!("f:{}", keys::TRIGGER);
        let has_set = |entry: &ManagedFieldsEntry| {
            let fields = entry.fields_v1.as_ref().map(|fields| &fields.0["f:metadata"]["f:annotations"]);
            fields.is_some_and(|fields| fields.get(&field).is_some())
        };
        let entry = entries.into_iter().filter(has_set).max_by_key(|entry| entry.time.as_ref().map(|time| time.0));
        Ok(entry.and_then(|entry| Some(format!("{} at {}", entry.manager?, entry.time?.0))))
    }

    /// Creates an event, or counts it up: any object of any kind, by its path.
    pub async fn write_event(&self, request: http::Request<Vec<u8>>) -> Result<()> {
        self.send::<serde::de::IgnoredAny>(request).await?;
        Ok(())
    }

    fn pods(&self, namespace: &str) -> Api<WirePod> {
        Api::namespaced(self.client.clone(), namespace)
    }
}

/// The fields of a Job's status.
const JOB_STATUS_FIELDS: [&str; 10] = [
    "active",
    "completedIndexes",
    "completionTime",
    "failed",
    "failedIndexes",
    "ready",
    "startTime",
    "succeeded",
    "terminating",
    "uncountedTerminatedPods",
];

/// The status with null for what is absent, so that a patch leaves nothing of the old one; but conditions, of which none
/// of ours ever goes.
fn every_field(status: &JobStatus) -> serde_json::Result<serde_json::Value> {
    let mut fields: serde_json::Map<_, _> =
        JOB_STATUS_FIELDS.into_iter().map(|field| (field.to_owned(), serde_json::Value::Null)).collect();
    if let serde_json::Value::Object(present) = serde_json::to_value(status)? {
        fields.extend(present);
    }
    Ok(fields.into())
}

/// Those that have written the status, but ourselves, the last first.
fn others_of_status(mut entries: Vec<ManagedFieldsEntry>) -> Vec<String> {
    entries.retain(|entry| entry.subresource.as_deref() == Some("status"));
    entries.sort_by_key(|entry| std::cmp::Reverse(entry.time.as_ref().map(|time| time.0)));
    entries.into_iter().filter_map(|entry| entry.manager).filter(|manager| manager != FIELD_MANAGER).collect()
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn nothing_is_sent_after_the_term() {
        let client =
            Client::try_from(kube::Config::new("http://127.0.0.1:1".parse().expect("a URL"))).expect("a client");
        let began = tokio::time::Instant::now();
        let (term, over) = (Duration::from_secs(10), Duration::from_secs(12));
        let writer = Writer::new(client, 1, Duration::from_secs(30), Term::until(began + term));
        // What waits for a connection.
        let mut is_sent = false;
        let request = async {
            tokio::time::sleep_until(began + over).await;
            is_sent = true;
            Ok(())
        };
        assert!(matches!(writer.limited(request, true).await, Err(WriteError::TermEnded)));
        assert_eq!(began.elapsed(), term);
        // What waits for its turn, or comes later.
        assert!(matches!(writer.limited(async { Ok(()) }, true).await, Err(WriteError::TermEnded)));
        assert!(!is_sent);
    }

    #[test]
    fn every_field_of_a_status_is_written() {
        // Whoever adds a field to the type must name it here.
        let full = JobStatus {
            active: Some(1),
            completed_indexes: Some("0".to_owned()),
            completion_time: Some(Time(Timestamp::UNIX_EPOCH)),
            // Merged by type.
            conditions: None,
            failed: Some(1),
            failed_indexes: Some("1".to_owned()),
            ready: Some(1),
            start_time: Some(Time(Timestamp::UNIX_EPOCH)),
            succeeded: Some(1),
            terminating: Some(1),
            uncounted_terminated_pods: Some(Default::default()),
        };
        let names = |status: &JobStatus| {
            let written = every_field(status).expect("JSON");
            written.as_object().expect("an object").keys().cloned().collect::<Vec<_>>()
        };
        assert_eq!(names(&full), JOB_STATUS_FIELDS);
        assert_eq!(names(&JobStatus::default()), JOB_STATUS_FIELDS);
        let empty = every_field(&JobStatus::default()).expect("JSON");
        assert_eq!((empty.get("active"), empty.get("conditions")), (Some(&serde_json::Value::Null), None));
    }
}
