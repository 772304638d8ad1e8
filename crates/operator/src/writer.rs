//! Every request that is not a watch goes through here: bounded in number, bounded in time, tried once.
//!
//! kube's client has no time limit of its own, and by default repeats a refused request up to fifteen times. Here a
//! request is sent once, and the next pass, on fresh state, is what tries again.

use std::sync::Arc;
use std::time::Duration;

use batchjob_crd::{BatchJob, BatchJobStatus, GROUP, VERSION, keys};
use batchjob_decide::plan::PodRef;
use k8s_openapi::api::core::v1::Pod;
use kube::Client;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams, Preconditions, PropagationPolicy};
use kube::core::{Request, Resource as _};
use serde::de::DeserializeOwned;
use tokio::sync::Semaphore;

use crate::error::WriteError;
use crate::observe::jobs::{JobRecord, WireJob};
use crate::observe::wire::{PodRecord, WirePod};

/// Sends requests.
#[derive(Clone)]
pub struct Writer {
    client: Client,
    in_flight: Arc<Semaphore>,
    time_limit: Duration,
}

type Result<T> = std::result::Result<T, WriteError>;

impl Writer {
    pub fn new(client: Client, max_in_flight: usize, time_limit: Duration) -> Writer {
        Writer { client, in_flight: Arc::new(Semaphore::new(max_in_flight)), time_limit }
    }

    /// Waits for its turn, then at most the time limit for the answer.
    async fn limited<T>(&self, request: impl Future<Output = kube::Result<T>>) -> Result<T> {
        // The semaphore is never closed.
        let _turn = self.in_flight.acquire().await;
        match tokio::time::timeout(self.time_limit, request).await {
            Ok(answer) => Ok(answer?),
            Err(_) => Err(WriteError::TimedOut(self.time_limit)),
        }
    }

    async fn send<T: DeserializeOwned>(&self, request: http::Request<Vec<u8>>) -> Result<T> {
        self.limited(self.client.request::<T>(request)).await
    }

    /// Creates a pod; of the answer only what is kept is parsed.
    pub async fn create_pod(&self, pod: &Pod) -> Result<PodRecord> {
        let namespace = pod.metadata.namespace.as_deref();
        let body = serde_json::to_vec(pod).map_err(kube::Error::SerdeError)?;
        let request = Request::new(Pod::url_path(&(), namespace)).create(&PostParams::default(), body);
        Ok(self.send::<WirePod>(request.map_err(kube::Error::BuildRequest)?).await?.into())
    }

    pub async fn pod(&self, namespace: &str, name: &str) -> Result<PodRecord> {
        Ok(self.limited(self.pods(namespace).get(name)).await?.into())
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
        let answer = self.limited(self.pods(namespace).delete(&pod.name, &params)).await?;
        Ok(answer.left().map(PodRecord::from))
    }

    /// Takes our finalizer off, and no other. A pod made anew under the same name refuses the uid in the patch (422).
    pub async fn release_pod(&self, namespace: &str, name: &str, uid: &str) -> Result<PodRecord> {
        let patch = serde_json::json!({ "metadata": {
            "uid": uid,
            "$deleteFromPrimitiveList/finalizers": [keys::POD_FINALIZER],
        }});
        let pods = self.pods(namespace);
        let patch = Patch::Strategic(patch);
        Ok(self.limited(pods.patch(name, &PatchParams::default(), &patch)).await?.into())
    }

    /// Puts back the label that we watch by.
    pub async fn label_pod(&self, namespace: &str, name: &str, uid: &str, attempt: &str) -> Result<()> {
        let patch =
            Patch::Merge(serde_json::json!({ "metadata": { "uid": uid, "labels": { keys::ATTEMPT: attempt } } }));
        let pods = self.pods(namespace);
        self.limited(pods.patch(name, &PatchParams::default(), &patch)).await?;
        Ok(())
    }

    /// Writes a status if the job is still the one that it was decided on.
    pub async fn write_status(&self, job: &JobRecord, status: &BatchJobStatus) -> Result<JobRecord> {
        let body = serde_json::json!({
            "apiVersion": format!("{GROUP}/{VERSION}"),
            "kind": "BatchJob",
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
        Ok(self.send::<WireJob>(request.map_err(kube::Error::BuildRequest)?).await?.into())
    }

    pub async fn job(&self, namespace: &str, name: &str) -> Result<JobRecord> {
        let jobs: Api<WireJob> = Api::namespaced(self.client.clone(), namespace);
        Ok(self.limited(jobs.get(name)).await?.into())
    }

    /// Deletes a job and its pods, the pods first, if it is still as it was decided on: somebody may just have given it
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
        self.limited(jobs.delete(&job.key.name, &params)).await?;
        Ok(())
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
