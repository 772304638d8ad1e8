//! A small history, written by hand: one job and its pods, as JSON, one change after the other.

use std::collections::BTreeMap;
use std::sync::Arc;

use batchjob_decide::job::name::PodNames;
use batchjob_decide::observed;
use batchjob_decide::plan::AttemptId;
use batchjob_oracle::{Change, Controller, End, Event, Law, Object, Oracle, Promises, Violation};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

pub struct World {
    oracle: Oracle,
    kind: &'static str,
    revision: u64,
    at: Timestamp,
    job: Value,
    pods: BTreeMap<String, Value>,
    pub writer: Option<Arc<str>>,
}

const UID: &str = "uid-of-etl";

impl World {
    /// A BatchJob of that spec, judged strictly.
    pub fn new(spec: Value) -> World {
        World::with(Promises::default(), "BatchJob", spec)
    }

    /// A Job that kube-controller-manager runs.
    pub fn of_kubernetes(spec: Value) -> World {
        World::with(Promises { controller: Controller::Kubernetes, ..Promises::default() }, "Job", spec)
    }

    pub fn with(promises: Promises, kind: &'static str, spec: Value) -> World {
        let mut job = json!({
            "kind": kind, "metadata": { "namespace": "default", "name": "etl", "uid": UID, "generation": 1 },
            "spec": { "template": { "spec": { "restartPolicy": "Never" } } }, "status": {},
        });
        merge(&mut job["spec"], spec);
        let at = Timestamp::from_second(1_000_000).expect("a time");
        let oracle = Oracle::new(promises);
        let mut world = World { oracle, kind, revision: 0, at, job, pods: BTreeMap::new(), writer: None };
        world.see(Change::Added, world.job.clone());
        world
    }

    fn see(&mut self, change: Change, json: Value) {
        self.revision += 1;
        let object = Object::read(&json);
        let (revision, at, writer) = (self.revision, self.at, self.writer.clone());
        self.oracle.see(&Event { revision, at, change, object, writer });
    }

    pub fn see_other(&mut self, json: Value) -> &mut World {
        self.see(Change::Added, json);
        self
    }

    pub fn later(&mut self, seconds: i64) -> &mut World {
        self.at += SignedDuration::from_secs(seconds);
        self
    }

    pub fn now(&self, less_seconds: i64) -> String {
        (self.at - SignedDuration::from_secs(less_seconds)).to_string()
    }

    /// Fields of the status that are written; the counts follow from the texts where they are not given.
    pub fn status(&mut self, status: Value) -> &mut World {
        merge(&mut self.job["status"], status);
        self.see(Change::Modified, self.job.clone());
        self
    }

    /// The status of a job at work, with that ledger.
    pub fn counts(&mut self, completed: &str, open: &str, failed: u32) -> &mut World {
        let n = batchjob_decide::job::indexes::IndexSet::parse(completed).len();
        self.status(json!({
            "completedIndexes": completed, "openIndexes": open, "succeeded": n, "failed": failed,
            "startTime": "1970-01-12T13:46:40Z",
        }))
    }

    /// Both conditions, one of each kind of end.
    pub fn ends(&mut self, conditions: [&str; 2], reason: &str) -> &mut World {
        let list: Vec<Value> =
            conditions.iter().map(|it| json!({ "type": it, "status": "True", "reason": reason })).collect();
        let mut status = json!({ "conditions": list, "openIndexes": "", "active": 0, "terminating": 0, "ready": 0 });
        if conditions.contains(&"Complete") {
            status["completionTime"] = self.now(0).into();
        }
        self.status(status)
    }

    pub fn completes(&mut self) -> &mut World {
        self.ends(["SuccessCriteriaMet", "Complete"], "CompletionsReached")
    }

    pub fn fails_for(&mut self, reason: &str) -> &mut World {
        self.ends(["FailureTarget", "Failed"], reason)
    }

    pub fn edit(&mut self, spec: Value) -> &mut World {
        merge(&mut self.job["spec"], spec);
        self.job["metadata"]["generation"] = json!(self.job["metadata"]["generation"].as_i64().unwrap_or_default() + 1);
        self.see(Change::Modified, self.job.clone());
        self
    }

    pub fn delete_job(&mut self) -> &mut World {
        self.see(Change::Deleted, self.job.clone());
        self
    }

    pub fn name(&self, index: u32, attempt: u32) -> String {
        if self.kind == "Job" {
            return format!("etl-{index}-x{attempt}");
        }
        let job = observed::Job { name: "etl".to_owned(), uid: UID.to_owned(), ..observed::Job::default() };
        PodNames::of(&job).write(AttemptId { index, attempt })
    }

    pub fn uid(&self, index: u32, attempt: u32) -> String {
        format!("uid-{index}-{attempt}")
    }

    pub fn create(&mut self, index: u32, attempt: u32) -> &mut World {
        self.create_with(index, attempt, json!({}))
    }

    /// With other metadata.
    pub fn create_with(&mut self, index: u32, attempt: u32, metadata: Value) -> &mut World {
        let finalizer = if self.kind == "Job" { "batch.kubernetes.io/job-tracking" } else { "batchjob.dev/uncounted" };
        let mut pod = json!({
            "kind": "Pod",
            "metadata": {
                "namespace": "default", "name": self.name(index, attempt), "uid": self.uid(index, attempt),
                "creationTimestamp": self.now(0), "finalizers": [finalizer],
                "labels": {
                    "batch.kubernetes.io/controller-uid": UID,
                    "batch.kubernetes.io/job-completion-index": index.to_string(),
                    "batchjob.dev/attempt": attempt.to_string(),
                },
                "ownerReferences": [{ "uid": UID, "controller": true }],
            },
            "spec": { "nodeName": "node-1" },
            "status": { "phase": "Running", "containerStatuses": [{ "name": "main", "state": { "running": {} } }] },
        });
        merge(&mut pod["metadata"], metadata);
        self.pods.insert(self.name(index, attempt), pod.clone());
        self.see(Change::Added, pod);
        self
    }

    pub fn change_pod(&mut self, index: u32, attempt: u32, change: Value) -> &mut World {
        let name = self.name(index, attempt);
        let pod = self.pods.get_mut(&name).expect("a pod");
        merge(pod, change);
        let pod = pod.clone();
        self.see(Change::Modified, pod);
        self
    }

    fn end(&mut self, index: u32, attempt: u32, phase: &str, exit_code: i32) -> &mut World {
        let ended = json!({ "terminated": { "exitCode": exit_code, "finishedAt": self.now(0) } });
        let main = json!({ "name": "main", "state": ended });
        self.change_pod(index, attempt, json!({ "status": { "phase": phase, "containerStatuses": [main] } }))
    }

    pub fn succeeds(&mut self, index: u32, attempt: u32) -> &mut World {
        self.end(index, attempt, "Succeeded", 0)
    }

    pub fn fails(&mut self, index: u32, attempt: u32) -> &mut World {
        self.end(index, attempt, "Failed", 1)
    }

    /// Somebody deletes it; it has still to end.
    pub fn tell(&mut self, index: u32, attempt: u32) -> &mut World {
        let told = json!({ "deletionTimestamp": self.now(-30), "deletionGracePeriodSeconds": 30 });
        self.change_pod(index, attempt, json!({ "metadata": told }))
    }

    pub fn release(&mut self, index: u32, attempt: u32) -> &mut World {
        self.change_pod(index, attempt, json!({ "metadata": { "finalizers": [] } }))
    }

    pub fn remove(&mut self, index: u32, attempt: u32) -> &mut World {
        let pod = self.pods.remove(&self.name(index, attempt)).expect("a pod");
        self.see(Change::Deleted, pod);
        self
    }

    /// What is broken when nothing more is asked.
    pub fn cut(&mut self) -> Vec<Violation> {
        std::mem::replace(&mut self.oracle, Oracle::new(Promises::default())).finish(End::Cut)
    }

    /// What is broken when nothing happens for a minute.
    pub fn settle(&mut self) -> Vec<Violation> {
        let quiet_since = self.at + SignedDuration::from_secs(1);
        let end = End::Settled { quiet_since, at: self.at + SignedDuration::from_secs(60) };
        std::mem::replace(&mut self.oracle, Oracle::new(Promises::default())).finish(end)
    }
}

/// Objects are merged, everything else is replaced.
fn merge(target: &mut Value, change: Value) {
    match (target, change) {
        (Value::Object(target), Value::Object(change)) => {
            for (key, value) in change {
                merge(target.entry(key).or_insert(Value::Null), value);
            }
        }
        (target, change) => *target = change,
    }
}

/// Exactly that law is broken, once, in words with `words` in them.
#[track_caller]
pub fn assert_broken(violations: &[Violation], law: Law, words: &str) {
    let said: Vec<String> = violations.iter().map(Violation::to_string).collect();
    assert!(
        violations.len() == 1 && violations[0].law == law && said[0].contains(words),
        "{law:?} {words:?}: {said:#?}"
    );
}

#[track_caller]
pub fn assert_kept(violations: &[Violation]) {
    assert!(violations.is_empty(), "{:#?}", violations.iter().map(Violation::to_string).collect::<Vec<_>>());
}
