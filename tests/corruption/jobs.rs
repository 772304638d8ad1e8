//! The jobs of these tests: Indexed, of two indexes, through either door.

use anyhow::Result;
use batchjob_crd::{condition, keys, reason};
use kube::Client;
use serde_json::{Value, json};

use super::rest::{Rest, is, text};
use super::stored::Kind;

/// What became of a job whose `managedBy` was broken.
pub const OF_OTHERS: &str = "it says that somebody else runs it";

/// A job as a client has it.
#[derive(Clone)]
pub struct Job {
    pub kind: Kind,
    pub name: String,
    api: Rest,
    pods: Rest,
}

impl Job {
    pub fn new(client: &Client, kind: Kind, namespace: &str, name: &str) -> Job {
        let api = match kind {
            Kind::Job => Rest::new(client, "batch/v1", "jobs", namespace),
            Kind::BatchJob | Kind::Pod => Rest::new(client, "batchjob.dev/v1alpha1", "batchjobs", namespace),
        };
        Job { kind, name: name.to_owned(), api, pods: Rest::pods(client, namespace) }
    }

    /// Creates it. Its pods have a node from their birth.
    pub async fn create(&self) -> Result<Value> {
        let (version, kind) = match self.kind {
            Kind::Job => ("batch/v1", "Job"),
            Kind::BatchJob | Kind::Pod => ("batchjob.dev/v1alpha1", "BatchJob"),
        };
        let mut job = json!({
            "apiVersion": version, "kind": kind, "metadata": { "name": self.name },
            "spec": { "completionMode": "Indexed", "completions": 2, "parallelism": 2, "template": { "spec": {
                "nodeName": "node-1", "restartPolicy": "Never", "terminationGracePeriodSeconds": 1,
                "containers": [{ "name": "main", "image": "none" }],
            } } },
        });
        if self.kind == Kind::Job {
            job["spec"]["managedBy"] = keys::MANAGED_BY.into();
        }
        Ok(self.api.create(&job).await?)
    }

    pub async fn get(&self) -> kube::Result<Value> {
        self.api.get(&self.name).await
    }

    /// Those that its name is on.
    pub async fn its_pods(&self) -> Result<Vec<Value>> {
        Ok(of(&self.name, &self.pods.list().await?))
    }
}

/// The pods that this job's name is on.
pub fn of(job: &str, pods: &[Value]) -> Vec<Value> {
    pods.iter().filter(|pod| label(pod, keys::JOB_NAME) == job).cloned().collect()
}

pub fn label<'a>(object: &'a Value, key: &str) -> &'a str {
    object["metadata"]["labels"][key].as_str().unwrap_or_default()
}

pub fn name(object: &Value) -> &str {
    text(object, "/metadata/name")
}

pub fn uid(object: &Value) -> &str {
    text(object, "/metadata/uid")
}

/// It runs, and nobody has told it to go.
pub fn is_running(pod: &Value) -> bool {
    text(pod, "/status/phase") == "Running" && text(pod, "/metadata/deletionTimestamp").is_empty()
}

pub fn is_over(job: &Value) -> bool {
    is(job, condition::COMPLETE) || is(job, condition::FAILED)
}

/// What is wrong with a job of which nothing was broken; nothing, once it has ended as it should have, each index with one
/// attempt.
pub fn complaint(job: &Value, pods: &[Value]) -> Option<String> {
    let status = &job["status"];
    let n = |count: &str| status[count].as_i64().unwrap_or_default();
    let mut attempts: Vec<_> =
        pods.iter().map(|pod| (label(pod, keys::COMPLETION_INDEX), label(pod, keys::ATTEMPT))).collect();
    attempts.sort_unstable();
    let is_well = is(job, condition::COMPLETE)
        && (n("succeeded"), n("failed"), n("terminating")) == (2, 0, 0)
        && attempts == [("0", "1"), ("1", "1")];
    (!is_well).then(|| format!("{}: attempts {attempts:?}, status {status}", name(job)))
}

/// How a broken job shows that all is well again, or what is wrong; None: nobody could tell.
pub fn told(job: Option<&Value>, warnings: &[String]) -> Option<&'static str> {
    let Some(job) = job else { return Some("it is gone") };
    if is_over(job) {
        return Some("it came to its end");
    }
    if !warnings.is_empty() {
        return Some("an event tells");
    }
    let manager = &job["spec"]["managedBy"];
    let is_a_job = job["kind"] == "Job";
    if manager != keys::MANAGED_BY && (is_a_job || !manager.is_null()) {
        return Some(OF_OTHERS);
    }
    let reason = text(job, "/status/reason");
    if !["", reason::RUNNING, reason::PENDING].contains(&reason) {
        return Some("its status tells");
    }
    // The status of a Job has no reason.
    if is(job, condition::SUSPENDED) || job["spec"]["parallelism"] == 0 {
        return Some("its status tells");
    }
    (job["spec"]["completions"].as_i64() > Some(2)).then_some("it has become a larger one")
}
