//! Everything that has happened to the jobs and pods of one namespace, in order; and how it is now.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use anyhow::{Context, Result};
use batchjob_crd::{BatchJob, keys};
use batchjob_oracle::Change;
use jiff::Timestamp;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, ApiResource, DynamicObject, ListParams};
use kube::{Client, Resource as _};
use serde_json::Value;
use tokio::task::JoinSet;

use super::fault::Kind;
use crate::recorder::{changes, now, unpoisoned, version};

/// One thing that happened to one object.
#[derive(Clone, Debug)]
pub struct Happened {
    pub revision: u64,
    pub at: Timestamp,
    pub kind: Kind,
    pub change: Change,
    pub object: Arc<Value>,
}

/// How a pod is, as far as a kubelet and users look at it.
#[derive(Clone, Debug)]
pub struct PodView {
    pub name: String,
    pub uid: String,
    pub job: String,
    pub index: u32,
    pub attempt: u32,
    pub phase: String,
    pub is_bound: bool,
    pub is_deleted: bool,
    /// It has still to be told by the kubelet that it is gone.
    pub is_graceful: bool,
    pub is_held: bool,
    pub has_owner: bool,
    pub restarts: u64,
    /// Its container runs.
    pub runs: bool,
}

impl PodView {
    fn of(object: &Value) -> PodView {
        let meta = &object["metadata"];
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let name = text(&meta["name"]);
        // etl-0-1-x2b4k: labels may be taken off, the name stays.
        let mut parts = name.rsplit('-').skip(1);
        let mut number = || parts.next().and_then(|part| part.parse().ok()).unwrap_or_default();
        let (attempt, index) = (number(), number());
        let mut job: Vec<&str> = name.rsplitn(4, '-').collect();
        let ours = [keys::POD_FINALIZER, keys::JOB_POD_FINALIZER];
        let finalizers = meta["finalizers"].as_array().into_iter().flatten();
        let container = &object["status"]["containerStatuses"][0];
        PodView {
            job: job.pop().unwrap_or_default().to_owned(),
            uid: text(&meta["uid"]),
            index,
            attempt,
            phase: text(&object["status"]["phase"]),
            is_bound: object["spec"]["nodeName"].is_string(),
            is_deleted: meta["deletionTimestamp"].is_string(),
            is_graceful: meta["deletionGracePeriodSeconds"].as_u64().unwrap_or_default() > 0,
            is_held: finalizers.filter_map(Value::as_str).any(|finalizer| ours.contains(&finalizer)),
            has_owner: meta["ownerReferences"].as_array().is_some_and(|owners| !owners.is_empty()),
            restarts: container["restartCount"].as_u64().unwrap_or_default(),
            runs: container["state"]["running"].is_object(),
            name,
        }
    }

    pub fn has_ended(&self) -> bool {
        matches!(&*self.phase, "Succeeded" | "Failed")
    }

    /// It runs, and nobody has told it to go.
    pub fn is_running(&self) -> bool {
        self.phase == "Running" && self.runs && !self.is_deleted
    }
}

/// How everything is at one moment.
#[derive(Clone, Debug, Default)]
pub struct World {
    /// By uid.
    pub pods: BTreeMap<String, PodView>,
    /// By name: of either kind.
    pub jobs: BTreeMap<String, Arc<Value>>,
    /// How many of the user's steps are done.
    pub n_steps: usize,
}

impl World {
    pub fn pods_of<'a>(&'a self, job: &'a str) -> impl Iterator<Item = &'a PodView> {
        self.pods.values().filter(move |pod| pod.job == job)
    }

    pub fn n_running(&self, job: &str) -> usize {
        self.pods_of(job).filter(|pod| pod.is_running()).count()
    }

    pub fn attempt(&self, job: &str, index: u32, attempt: u32) -> Option<&PodView> {
        self.pods.values().find(|pod| pod.job == job && pod.index == index && pod.attempt == attempt)
    }

    pub fn runs(&self, job: &str, index: u32, attempt: u32) -> bool {
        self.attempt(job, index, attempt).is_some_and(PodView::is_running)
    }

    pub fn status(&self, job: &str) -> &Value {
        static NONE: Value = Value::Null;
        self.jobs.get(job).map_or(&NONE, |job| &job["status"])
    }

    pub fn is(&self, job: &str, condition: &str) -> bool {
        let conditions = self.status(job)["conditions"].as_array().into_iter().flatten();
        conditions.into_iter().any(|found| found["type"] == condition && found["status"] == "True")
    }

    /// It is complete or has failed, and all of its pods are let go.
    pub fn is_over(&self, job: &str) -> bool {
        (self.is(job, "Complete") || self.is(job, "Failed")) && self.pods_of(job).all(|pod| !pod.is_held)
    }
}

/// Follows a namespace from a moment on.
pub struct History {
    inner: Arc<Mutex<Inner>>,
    pub changes: tokio::sync::watch::Receiver<u64>,
    watches: JoinSet<Result<()>>,
}

#[derive(Default)]
struct Inner {
    happened: Vec<Happened>,
    world: World,
}

impl History {
    /// Of a namespace without jobs and pods.
    pub async fn follow(client: &Client, namespace: &str) -> Result<History> {
        let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
        let list = pods.list(&ListParams::default()).await?;
        anyhow::ensure!(list.items.is_empty(), "there are pods in namespace {namespace} already");
        let from = list.metadata.resource_version.context("a version")?;
        let inner = Arc::new(Mutex::new(Inner::default()));
        let (count, changes) = tokio::sync::watch::channel(0);
        let mut watches = JoinSet::new();
        for (kind, resource) in [
            (Kind::Pods, ApiResource::erase::<Pod>(&())),
            (Kind::BatchJobs, ApiResource::erase::<BatchJob>(&())),
            (Kind::Jobs, ApiResource::erase::<Job>(&())),
        ] {
            let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), namespace, &resource);
            let (inner, count, from) = (inner.clone(), count.clone(), from.clone());
            watches.spawn(async move {
                watch(api, kind, from, |happened| {
                    unpoisoned(&inner).see(happened);
                    count.send_modify(|n| *n += 1);
                })
                .await
            });
        }
        Ok(History { inner, changes, watches })
    }

    pub fn world(&self) -> World {
        unpoisoned(&self.inner).world.clone()
    }

    /// Notes that a user has done the next step.
    pub fn step_done(&self) {
        unpoisoned(&self.inner).world.n_steps += 1;
    }

    /// Fails if something of the history may be missing.
    pub fn is_whole(&mut self) -> Result<()> {
        match self.watches.try_join_next() {
            None => Ok(()),
            Some(ended) => ended?.context("the history has a gap"),
        }
    }

    /// All that has happened, in its order.
    pub fn happened(&self) -> Vec<Happened> {
        let mut all = unpoisoned(&self.inner).happened.clone();
        all.sort_by_key(|happened| happened.revision);
        all
    }
}

impl Inner {
    fn see(&mut self, happened: Happened) {
        let object = &happened.object;
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        match (happened.kind, happened.change) {
            (Kind::Pods, Change::Deleted) => drop(self.world.pods.remove(&text(&object["metadata"]["uid"]))),
            (Kind::Pods, _) => {
                let pod = PodView::of(object);
                self.world.pods.insert(pod.uid.clone(), pod);
            }
            (_, Change::Deleted) => drop(self.world.jobs.remove(&text(&object["metadata"]["name"]))),
            (_, _) => drop(self.world.jobs.insert(text(&object["metadata"]["name"]), object.clone())),
        }
        self.happened.push(happened);
    }
}

/// Ends only with what makes a gap in the history.
async fn watch(api: Api<DynamicObject>, kind: Kind, from: String, mut tell: impl FnMut(Happened)) -> Result<()> {
    let (api_version, name) = match kind {
        Kind::BatchJobs => (BatchJob::api_version(&()), BatchJob::kind(&())),
        Kind::Jobs => (Job::api_version(&()), Job::kind(&())),
        Kind::Pods | Kind::All => (Pod::api_version(&()), Pod::kind(&())),
    };
    let mut from = from;
    loop {
        let heard = changes(&api, &mut from, |change, object| {
            let revision = version(&object.metadata);
            let mut object = serde_json::to_value(object).unwrap_or_default();
            object["apiVersion"] = api_version.as_ref().into();
            object["kind"] = name.as_ref().into();
            tell(Happened { revision, at: now(), kind, change, object: Arc::new(object) });
        });
        heard.await?;
    }
}

/// The names of the pods that have ever been, for names that end with something that differs from run to run.
pub fn pod_names(happened: &[Happened]) -> BTreeSet<&str> {
    let pods = happened.iter().filter(|happened| happened.kind == Kind::Pods);
    pods.filter_map(|happened| happened.object["metadata"]["name"].as_str()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_pod_is_known_by_its_name() {
        let pod = PodView::of(&json!({ "metadata": { "name": "etl-a-3-2-k8x2q", "deletionTimestamp": "x" } }));
        assert_eq!((&*pod.job, pod.index, pod.attempt), ("etl-a", 3, 2));
        assert!(pod.is_deleted && !pod.is_held && !pod.is_running());
    }
}
