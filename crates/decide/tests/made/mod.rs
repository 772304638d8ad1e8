//! Jobs for tables: as few fields as a case has to say something about.

use batchjob_crd::{BatchJobSpec, BatchJobStatus};
use batchjob_decide::observed::{Door, Job};
use jiff::Timestamp;
use serde_json::{Value, json};

pub(crate) const DOORS: [Door; 2] = [Door::BatchJob, Door::ManagedJob];

pub(crate) fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).expect("a small number of seconds")
}

/// A job with one container that is not restarted, these fields of a spec beside, and this status.
pub(crate) fn job(door: Door, name: &str, spec: &Value, status: BatchJobStatus) -> Job {
    let mut whole = json!({ "template": { "spec": { "restartPolicy": "Never", "containers": [{ "name": "main" }] } } });
    if let (Value::Object(whole), Value::Object(spec)) = (&mut whole, spec) {
        whole.extend(spec.clone());
    }
    Job {
        door,
        namespace: "default".into(),
        name: name.into(),
        uid: "uid-1".into(),
        generation: 1,
        spec: serde_json::from_value::<BatchJobSpec>(whole).expect("a spec"),
        status,
        ..Job::default()
    }
}
