//! The ways in which the same job can come: to Kubernetes' own controller, and to ours.

use std::fmt;

use anyhow::{Context, Result};
use batchjob_crd::{BatchJob, keys};
use batchjob_oracle::standing::Standing;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::serde::Serialize;
use k8s_openapi::serde::de::DeserializeOwned;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use kube::{Client, Error, Resource, ResourceExt as _};
use serde_json::{Map, Value, json};

/// Who runs the job, and as which kind of object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, clap::ValueEnum)]
pub enum Door {
    /// A batch/v1 Job, run by kube-controller-manager: what the others are measured by.
    Reference,
    /// A BatchJob.
    BatchJob,
    /// A batch/v1 Job with our `spec.managedBy`.
    ManagedJob,
}

impl fmt::Display for Door {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Door::Reference => "Job",
            Door::BatchJob => "BatchJob",
            Door::ManagedJob => "managed Job",
        })
    }
}

/// A job of either kind, as far as it matters here.
#[derive(Clone, Debug)]
pub struct Seen {
    pub uid: String,
    pub version: u64,
    /// Whether its status says that it is about an older spec. A batch/v1 Job cannot say so.
    pub is_behind: bool,
    pub standing: Standing,
    /// What our operator keeps about attempts, in its own words: for people who read a history.
    pub ledger: Option<String>,
}

/// A kind that a job can have.
pub trait Kind:
    Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + fmt::Debug + DeserializeOwned + Serialize
{
    fn seen(&self) -> Seen;
}

impl Kind for Job {
    fn seen(&self) -> Seen {
        let ledger = self.annotations().get(keys::LEDGER).cloned();
        Seen { uid: uid(self), version: version(self), is_behind: false, standing: Standing::from(self), ledger }
    }
}

impl Kind for BatchJob {
    fn seen(&self) -> Seen {
        let observed = self.status.as_ref().and_then(|status| status.observed_generation);
        Seen {
            uid: uid(self),
            version: version(self),
            is_behind: observed != self.metadata.generation,
            standing: Standing::from(self),
            ledger: self.status.as_ref().and_then(|status| status.open_indexes.clone()),
        }
    }
}

pub fn uid(object: &impl kube::ResourceExt) -> String {
    object.uid().unwrap_or_default()
}

/// Numbers that grow, since Kubernetes 1.35 also by contract (KEP-5504).
pub fn version(object: &impl kube::ResourceExt) -> u64 {
    object.resource_version().and_then(|version| version.parse().ok()).unwrap_or_default()
}

/// What came of a write that the API server may refuse.
pub enum Answer {
    Accepted(Box<Seen>),
    Refused(String),
}

/// One door's jobs, in a namespace of its own.
pub struct Jobs {
    pub door: Door,
    pub namespace: String,
    client: Client,
}

impl Jobs {
    pub fn new(door: Door, namespace: String, client: Client) -> Jobs {
        Jobs { door, namespace, client }
    }

    pub async fn create(&self, name: &str, spec: &Map<String, Value>) -> Result<Answer> {
        let mut object = json!({ "metadata": { "name": name }, "spec": spec });
        if self.door == Door::ManagedJob {
            object["spec"]["managedBy"] = json!(keys::MANAGED_BY);
        }
        match self.door {
            Door::BatchJob => answer(self.api::<BatchJob>().create(&PostParams::default(), &whole(object)?).await),
            Door::Reference | Door::ManagedJob => {
                answer(self.api::<Job>().create(&PostParams::default(), &whole(object)?).await)
            }
        }
    }

    pub async fn edit(&self, name: &str, spec: &Value) -> Result<Answer> {
        let (parameters, patch) = (PatchParams::default(), Patch::Merge(json!({ "spec": spec })));
        match self.door {
            Door::BatchJob => answer(self.api::<BatchJob>().patch(name, &parameters, &patch).await),
            Door::Reference | Door::ManagedJob => answer(self.api::<Job>().patch(name, &parameters, &patch).await),
        }
    }

    /// As it is at this moment, not as a watch has told.
    pub async fn now(&self, name: &str) -> Result<Seen> {
        Ok(match self.door {
            Door::BatchJob => self.api::<BatchJob>().get(name).await?.seen(),
            Door::Reference | Door::ManagedJob => self.api::<Job>().get(name).await?.seen(),
        })
    }

    /// The garbage collector takes its pods.
    pub async fn delete(&self, name: &str) -> Result<()> {
        let background = DeleteParams::background();
        match self.door {
            Door::BatchJob => drop(self.api::<BatchJob>().delete(name, &background).await?),
            Door::Reference | Door::ManagedJob => drop(self.api::<Job>().delete(name, &background).await?),
        }
        Ok(())
    }

    pub fn api<K: Resource<DynamicType = (), Scope = NamespaceResourceScope>>(&self) -> Api<K> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }
}

fn whole<K: Kind>(mut object: Value) -> Result<K> {
    object["apiVersion"] = json!(K::api_version(&()));
    object["kind"] = json!(K::kind(&()));
    serde_json::from_value(object).context("read the drawn spec")
}

fn answer<K: Kind>(answer: kube::Result<K>) -> Result<Answer> {
    match answer {
        Ok(object) => Ok(Answer::Accepted(Box::new(object.seen()))),
        Err(Error::Api(status)) if status.code == 422 => Ok(Answer::Refused(status.message)),
        Err(error) => Err(error.into()),
    }
}
