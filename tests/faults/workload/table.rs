//! All workloads, the smallest first.

use kube::api::PropagationPolicy;
use serde_json::json;

use super::{Does, End, Step, Workload, batch_job, managed_job, pod};

const SUSPEND: Step = Step {
    what: "suspend, once two pods run",
    when: |world| world.n_running("etl") == 2,
    does: Does::Change { job: "etl", patch: || json!({ "spec": { "suspend": true } }) },
};

const RESUME: Step = Step {
    what: "resume, once all pods are gone",
    when: |world| world.is("etl", "Suspended") && world.pods.is_empty(),
    does: Does::Change { job: "etl", patch: || json!({ "spec": { "suspend": false } }) },
};

pub static WORKLOADS: &[Workload] = &[
    Workload {
        name: "one",
        about: "one pod that succeeds",
        jobs: || vec![batch_job("etl", json!({}))],
        end: |_, _| End::Succeeds,
        steps: &[],
        is_over: |world| world.is_over("etl"),
    },
    Workload {
        name: "retry",
        about: "five pods, three at a time, one of which fails once",
        jobs: || vec![batch_job("etl", json!({ "completions": 5, "parallelism": 3 }))],
        end: |_, pod| match (pod.index, pod.attempt) {
            (1, 1) => End::Fails(1),
            _ => End::Succeeds,
        },
        steps: &[],
        is_over: |world| world.is_over("etl"),
    },
    Workload {
        name: "indexed-retry",
        about: "backoffLimitPerIndex: an index that fails once, and one that fails for good, which the job outlives until \
                its end",
        jobs: || {
            let spec = json!({
                "completionMode": "Indexed", "completions": 6, "parallelism": 3, "backoffLimitPerIndex": 1,
            });
            vec![batch_job("etl", spec)]
        },
        end: |_, pod| match (pod.index, pod.attempt) {
            (1, 1) | (4, _) => End::Fails(1),
            _ => End::Succeeds,
        },
        steps: &[],
        is_over: |world| world.is_over("etl"),
    },
    Workload {
        name: "failure-policy",
        about: "podFailurePolicy: a failure that is ignored, then one that fails the job and stops the others",
        jobs: || {
            let on = |code: i32| json!({ "operator": "In", "values": [code] });
            let spec = json!({
                "completionMode": "Indexed", "completions": 3, "parallelism": 3, "backoffLimit": 0,
                "podFailurePolicy": { "rules": [
                    { "action": "Ignore", "onExitCodes": on(42) },
                    { "action": "FailJob", "onExitCodes": on(3) },
                ]},
            });
            vec![batch_job("etl", spec)]
        },
        end: |world, pod| match (pod.index, pod.attempt) {
            (0, 1) => End::Fails(42),
            (1, 1) if world.runs("etl", 0, 2) && world.runs("etl", 2, 1) => End::Fails(3),
            _ => End::Runs,
        },
        steps: &[],
        is_over: |world| world.is_over("etl"),
    },
    Workload {
        name: "success-policy",
        about: "successPolicy: the leader's success is enough, the others are stopped",
        jobs: || {
            let spec = json!({
                "completionMode": "Indexed", "completions": 4, "parallelism": 4,
                "successPolicy": { "rules": [{ "succeededIndexes": "0" }] },
            });
            vec![batch_job("etl", spec)]
        },
        end: |world, pod| match pod.index {
            0 if world.n_running("etl") == 4 => End::Succeeds,
            _ => End::Runs,
        },
        steps: &[],
        is_over: |world| world.is_over("etl"),
    },
    Workload {
        name: "suspend",
        about: "suspended and resumed twice while pods run",
        jobs: || vec![batch_job("etl", json!({ "completions": 3, "parallelism": 2 }))],
        end: |world, _| if world.n_steps == 4 { End::Succeeds } else { End::Runs },
        steps: &[
            SUSPEND,
            RESUME,
            Step { what: "suspend again, once two pods run", ..SUSPEND },
            Step { what: "resume again, once all pods are gone", ..RESUME },
        ],
        is_over: |world| world.is_over("etl"),
    },
    Workload {
        name: "elastic",
        about: "an Indexed job that is made larger, smaller and larger again while its pods run",
        jobs: || vec![batch_job("etl", json!({ "completionMode": "Indexed", "completions": 2, "parallelism": 2 }))],
        end: |world, _| if world.n_steps == 3 && world.pods.len() == 3 { End::Succeeds } else { End::Runs },
        steps: &[
            Step {
                what: "4 instead of 2, once they run",
                when: |world| world.n_running("etl") == 2,
                does: Does::Change { job: "etl", patch: || json!({ "spec": { "completions": 4, "parallelism": 4 } }) },
            },
            Step {
                what: "1 instead of 4, once they run",
                when: |world| world.n_running("etl") == 4,
                does: Does::Change { job: "etl", patch: || json!({ "spec": { "completions": 1, "parallelism": 1 } }) },
            },
            Step {
                what: "3 instead of 1, once the others are gone",
                when: |world| world.pods.len() == 1 && world.status("etl")["active"] == 1,
                does: Does::Change { job: "etl", patch: || json!({ "spec": { "completions": 3, "parallelism": 3 } }) },
            },
        ],
        is_over: |world| world.is_over("etl"),
    },
    Workload {
        name: "deletion",
        about: "three jobs that are deleted while their pods run: in the background, in the foreground, and leaving orphans",
        jobs: || {
            let spec = json!({ "completions": 2, "parallelism": 2 });
            ["back", "fore", "orphan"].map(|name| batch_job(name, spec.clone())).to_vec()
        },
        end: |_, _| End::Runs,
        steps: &[
            Step {
                what: "delete one in the background, once all pods run",
                when: |world| world.pods.values().filter(|pod| pod.is_running()).count() == 6,
                does: Does::Delete { job: "back", how: PropagationPolicy::Background },
            },
            Step {
                what: "delete one in the foreground",
                when: |_| true,
                does: Does::Delete { job: "fore", how: PropagationPolicy::Foreground },
            },
            Step {
                what: "delete one and leave its pods",
                when: |_| true,
                does: Does::Delete { job: "orphan", how: PropagationPolicy::Orphan },
            },
        ],
        is_over: |world| {
            let are_free = world.pods.values().all(|pod| pod.job == "orphan" && !pod.is_held && !pod.has_owner);
            world.jobs.is_empty() && world.pods.len() == 2 && are_free
        },
    },
    Workload {
        name: "deadline",
        about: "activeDeadlineSeconds stops the pods, ttlSecondsAfterFinished removes the job",
        jobs: || {
            let spec = json!({
                "completions": 2, "parallelism": 2, "activeDeadlineSeconds": 3, "ttlSecondsAfterFinished": 1,
            });
            vec![batch_job("etl", spec)]
        },
        end: |_, _| End::Runs,
        steps: &[],
        is_over: |world| world.jobs.is_empty() && world.pods.is_empty(),
    },
    Workload {
        name: "restarts",
        about: "restartPolicy OnFailure: a container that is restarted and succeeds, and one that is restarted too often",
        jobs: || {
            let spec = json!({
                "backoffLimit": 1,
                "template": pod("OnFailure"),
            });
            ["good", "bad"].map(|name| batch_job(name, spec.clone())).to_vec()
        },
        end: |_, pod| match (&*pod.job, pod.runs, pod.restarts) {
            ("good", true, 0) | ("bad", true, _) => End::Crashes,
            ("good", true, _) => End::Succeeds,
            // One restart and one more failure: it stays so until it is stopped.
            ("bad", false, 1) => End::Crashes,
            _ => End::Runs,
        },
        steps: &[],
        is_over: |world| world.is_over("good") && world.is_over("bad"),
    },
    Workload {
        name: "managed",
        about: "a batch/v1 Job that the operator runs, with a failure and limits for each index",
        jobs: || {
            let spec = json!({
                "completionMode": "Indexed", "completions": 4, "parallelism": 2, "backoffLimitPerIndex": 1,
            });
            vec![managed_job("etl", spec)]
        },
        end: |_, pod| match (pod.index, pod.attempt) {
            (1, 1) => End::Fails(1),
            _ => End::Succeeds,
        },
        steps: &[],
        is_over: |world| world.is_over("etl"),
    },
    Workload {
        name: "meddling",
        about: "podReplacementPolicy Failed: a user deletes a pod, which takes its time, and takes the owner off the other",
        jobs: || {
            let spec = json!({
                "completionMode": "Indexed", "completions": 2, "parallelism": 2, "podReplacementPolicy": "Failed",
            });
            vec![batch_job("etl", spec)]
        },
        end: |world, pod| match (pod.index, pod.attempt) {
            (0, 1) if pod.is_deleted && world.n_steps < 2 => End::Lingers,
            (0, 2) | (1, 1) if world.n_steps == 2 && is_whole_again(world) => End::Succeeds,
            _ => End::Runs,
        },
        steps: &[
            Step {
                what: "delete a pod, once both run",
                when: |world| world.n_running("etl") == 2,
                does: Does::DeletePod { job: "etl", index: 0, attempt: 1 },
            },
            Step {
                what: "take the owner off the other, once the job says that one ends",
                when: |world| world.status("etl")["terminating"] == 1,
                does: Does::ChangePod {
                    job: "etl",
                    index: 1,
                    attempt: 1,
                    patch: || json!({ "metadata": { "ownerReferences": null, "finalizers": null } }),
                },
            },
        ],
        is_over: |world| world.is_over("etl"),
    },
];

/// The pod that was deleted has its successor, and the other one its owner.
fn is_whole_again(world: &super::World) -> bool {
    let is_owned = world.attempt("etl", 1, 1).is_some_and(|pod| pod.has_owner && (pod.is_held || pod.has_ended()));
    is_owned && world.attempt("etl", 0, 2).is_some()
}
