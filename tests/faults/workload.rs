//! The workloads: jobs, how each attempt ends, and what users do meanwhile. Everything waits for a state, nothing for a
//! time: so each comes to the same end however slow, dead or blind the operator is for a while.

mod table;

use kube::api::PropagationPolicy;
use serde_json::{Value, json};

use super::world::{PodView, World};
pub use table::WORKLOADS;

/// One of them.
pub struct Workload {
    pub name: &'static str,
    /// What of the operator it is about.
    pub about: &'static str,
    /// What users create at the beginning.
    pub jobs: fn() -> Vec<Value>,
    /// What comes of a pod that runs, or was told to go.
    pub end: fn(&World, &PodView) -> End,
    /// What users do then, one after the other.
    pub steps: &'static [Step],
    /// Whether all has come to its end. Asked only when all steps are done.
    pub is_over: fn(&World) -> bool,
}

/// What a user does.
pub struct Step {
    pub what: &'static str,
    pub when: fn(&World) -> bool,
    pub does: Does,
}

pub enum Does {
    /// A merge patch of a job.
    Change {
        job: &'static str,
        patch: fn() -> Value,
    },
    Delete {
        job: &'static str,
        how: PropagationPolicy,
    },
    DeletePod {
        job: &'static str,
        index: u32,
        attempt: u32,
    },
    /// A merge patch of a pod.
    ChangePod {
        job: &'static str,
        index: u32,
        attempt: u32,
        patch: fn() -> Value,
    },
}

/// What comes of a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It runs on until something else happens; what is told to go ends by the signal.
    Runs,
    Succeeds,
    Fails(i32),
    /// Its container fails; said again of one that has failed, it is not started anew yet.
    Crashes,
    /// It was told to go, and does not yet.
    Lingers,
}

/// The workload of that name.
pub fn of_name(name: &str) -> Option<&'static Workload> {
    WORKLOADS.iter().find(|workload| workload.name == name)
}

/// The pod spec that is enough. A token would bring a volume, whose name is drawn by chance.
pub(crate) fn pod(restart_policy: &str) -> Value {
    json!({ "spec": {
        "restartPolicy": restart_policy,
        "terminationGracePeriodSeconds": 1,
        "automountServiceAccountToken": false,
        "containers": [{ "name": "main", "image": "none" }],
    }})
}

/// A BatchJob of that spec, with one container that is never restarted.
fn batch_job(name: &str, spec: Value) -> Value {
    job("batchjob.dev/v1alpha1", "BatchJob", name, spec)
}

/// The same as a batch/v1 Job that the operator runs.
fn managed_job(name: &str, mut spec: Value) -> Value {
    spec["managedBy"] = batchjob_crd::keys::MANAGED_BY.into();
    job("batch/v1", "Job", name, spec)
}

fn job(version: &str, kind: &str, name: &str, spec: Value) -> Value {
    let mut whole = json!({ "template": pod("Never") });
    if let (Value::Object(whole), Value::Object(spec)) = (&mut whole, spec) {
        whole.extend(spec);
    }
    json!({ "apiVersion": version, "kind": kind, "metadata": { "name": name }, "spec": whole })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_twelve_and_each_is_found_by_its_name() {
        assert_eq!(WORKLOADS.len(), 12);
        for workload in WORKLOADS {
            assert_eq!(of_name(workload.name).map(|found| found.about), Some(workload.about));
            assert!(!workload.name.contains('.'), "a name of a plan is cut at the dots");
        }
    }
}
