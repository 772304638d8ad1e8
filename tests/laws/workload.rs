//! The jobs: one of each kind, what becomes of their pods, and what their users do meanwhile.

use serde_json::{Value, json};

/// One job.
pub struct Workload {
    pub name: &'static str,
    pub spec: Value,
    /// What becomes of the n-th pod, from 0, of an index; of a job that is not Indexed, of the n-th pod of all.
    pub end: fn(index: u32, nth: u32) -> End,
    /// What its user does, so many milliseconds after its creation.
    pub steps: &'static [(u64, Step)],
}

/// How a pod ends that runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Success,
    Failure {
        exit_code: i32,
    },
    /// By something outside of it.
    Disruption,
    /// Only when it is told to go.
    Never,
}

#[derive(Clone, Copy, Debug)]
pub enum Step {
    Suspend(bool),
    Parallelism(u32),
    /// Both completions and parallelism: an elastic job.
    Size(u32),
    /// One of its pods, by a user.
    DeletePod,
    DeleteJob,
}

const FAILURE: End = End::Failure { exit_code: 1 };

pub fn workloads() -> Vec<Workload> {
    let workload = |name, spec, end, steps: &'static [(u64, Step)]| Workload { name, spec, end, steps };
    vec![
        workload("parallel", json!({ "completions": 6, "parallelism": 3 }), |_, _| End::Success, &[]),
        workload("queue", json!({ "parallelism": 3 }), |_, nth| if nth == 0 { FAILURE } else { End::Success }, &[]),
        workload("indexed", indexed(8, json!({ "parallelism": 4 })), |_, _| End::Success, &[]),
        workload(
            "retries",
            indexed(4, json!({})),
            |index, nth| if nth < index.saturating_sub(1) { FAILURE } else { End::Success },
            &[],
        ),
        workload(
            "backoff-limit",
            json!({ "completions": 3, "parallelism": 2, "backoffLimit": 1 }),
            |_, nth| if nth < 3 { FAILURE } else { End::Never },
            &[],
        ),
        workload(
            "limit-per-index",
            indexed(4, json!({ "backoffLimitPerIndex": 1 })),
            |index, _| if index == 2 { FAILURE } else { End::Success },
            &[],
        ),
        workload(
            "suspended",
            json!({ "completions": 6, "parallelism": 3 }),
            |_, nth| if nth == 1 { FAILURE } else { End::Success },
            &[(1500, Step::Suspend(true)), (4000, Step::Suspend(false))],
        ),
        workload(
            "scaled",
            json!({ "completions": 12, "parallelism": 2 }),
            |_, _| End::Success,
            &[(800, Step::Parallelism(5)), (1600, Step::Parallelism(1)), (2400, Step::Parallelism(3))],
        ),
        workload(
            "elastic",
            indexed(4, json!({})),
            |_, _| End::Success,
            &[(700, Step::Size(6)), (1600, Step::Size(2)), (2500, Step::Size(5))],
        ),
        workload("deleted", indexed(6, json!({})), |_, _| End::Never, &[(2000, Step::DeleteJob)]),
        workload(
            "replaced-when-ended",
            indexed(3, json!({ "podReplacementPolicy": "Failed" })),
            |_, nth| if nth == 0 { End::Never } else { End::Success },
            &[(1500, Step::DeletePod), (2000, Step::DeletePod), (2500, Step::DeletePod)],
        ),
        workload(
            "replaced-at-once",
            indexed(3, json!({ "podReplacementPolicy": "TerminatingOrFailed" })),
            |_, nth| if nth == 0 { End::Never } else { End::Success },
            &[(1500, Step::DeletePod), (2000, Step::DeletePod), (2500, Step::DeletePod)],
        ),
        workload(
            "failure-policy",
            indexed(
                4,
                json!({ "podFailurePolicy": { "rules": [
                    { "action": "FailJob", "onExitCodes": { "operator": "In", "values": [42] } },
                    { "action": "Ignore", "onPodConditions": [{ "type": "DisruptionTarget", "status": "True" }] },
                ] } }),
            ),
            |index, nth| match (index, nth) {
                (1, 0) => End::Disruption,
                (2, 1) => End::Failure { exit_code: 42 },
                (2, 0) => FAILURE,
                (3, _) => End::Never,
                _ => End::Success,
            },
            &[],
        ),
        workload(
            "success-policy",
            indexed(6, json!({ "successPolicy": { "rules": [{ "succeededIndexes": "0-3", "succeededCount": 2 }] } })),
            |index, _| if index % 2 == 0 { End::Success } else { End::Never },
            &[],
        ),
        workload(
            "deadline",
            json!({ "completions": 2, "parallelism": 2, "activeDeadlineSeconds": 4 }),
            |_, _| End::Never,
            &[],
        ),
    ]
}

/// An Indexed job; as many pods at once as it has indexes, if nothing else is said.
fn indexed(completions: u32, more: Value) -> Value {
    let mut spec = json!({ "completionMode": "Indexed", "completions": completions, "parallelism": completions });
    if let (Value::Object(spec), Value::Object(more)) = (&mut spec, more) {
        spec.extend(more);
    }
    spec
}
