//! What the targets share: a world in which a plan is carried out, and changes of JSON that leave it JSON.

#[path = "../../crates/operator/tests/odd/world.rs"]
pub mod world;

pub mod change;

use jiff::Timestamp;
use serde_json::{Value, json};

use batchjob_decide::observed::Door;
use batchjob_decide::plan::AttemptId;
use world::World;

/// The time at which every world begins: fixed, so that an input always does the same.
pub fn start() -> Timestamp {
    Timestamp::from_second(1_767_226_200).unwrap_or(Timestamp::UNIX_EPOCH)
}

/// A door, as an input says it.
pub fn door(is_managed: bool) -> Door {
    if is_managed { Door::ManagedJob } else { Door::BatchJob }
}

/// The spec of a small job that the operator runs, with these changes. A job of more pods than these is the same, and slower.
pub fn small_spec(door: Door, changes: &Value) -> Value {
    let mut spec = json!({
        "completionMode": "Indexed", "completions": 3, "parallelism": 3,
        "template": { "spec": { "restartPolicy": "Never", "containers": [{ "name": "main", "image": "none" }] } },
    });
    if changes.is_object() {
        json_patch::merge(&mut spec, changes);
    }
    if door == Door::ManagedJob {
        spec["managedBy"] = batchjob_crd::keys::MANAGED_BY.into();
    }
    make_small(&mut spec);
    spec
}

pub fn make_small(spec: &mut Value) {
    for field in ["completions", "parallelism"] {
        if let Some(n) = spec[field].as_i64().filter(|&n| n > 8) {
            spec[field] = (n % 8).into();
        }
    }
}

/// A pod of that attempt, which runs, with these changes. None: the job makes none.
pub fn pod(world: &World, id: AttemptId, changes: &Value) -> Option<Value> {
    let mut pod = world.pod_of(id)?;
    pod["spec"]["nodeName"] = "node-a".into();
    pod["status"] = json!({
        "phase": "Running",
        "conditions": [{ "type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:02:00Z" }],
        "containerStatuses": [{ "name": "main", "restartCount": 0, "state": { "running": {} }, "lastState": {} }],
    });
    if changes.is_object() {
        json_patch::merge(&mut pod, changes);
    }
    Some(pod)
}

/// Lets it come to rest; a broken law is a crash.
pub fn settle(world: &mut World) {
    if let Err(broken) = world.settle() {
        panic!("{broken}\nthe job: {:#?}\nthe pods: {:#?}", world.job, world.pods);
    }
}
