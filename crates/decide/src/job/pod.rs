//! Template → Pod: name, owner, labels, environment.
//!
//! A pod of a BatchJob looks like a pod of a batch/v1 Job to everything that reads pods: the same labels, the same
//! annotation, the same environment variable and host name (`pkg/controller/job/indexed_job_utils.go`), so that
//! `kubectl logs -l job-name=x`, dashboards and scripts written for Jobs work unchanged.

use std::collections::BTreeMap;

use batchjob_crd::{CompletionMode, GROUP, VERSION, keys};
use k8s_openapi::api::core::v1::{Container, EnvVar, EnvVarSource, ObjectFieldSelector, Pod, PodSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

use super::name::PodNames;
use crate::observed::{Door, Job};
use crate::plan::{AttemptId, Start};

/// The pod of an attempt of `job`.
pub fn build(job: &Job, start: Start) -> Pod {
    let Start { id, n_failures, n_ignored } = start;
    let template = &job.spec.template;
    let metadata = template.metadata.clone().unwrap_or_default();
    let mut spec = template.spec.clone().unwrap_or_default();
    let mut annotations = metadata.annotations.unwrap_or_default();
    let mut finalizers = metadata.finalizers.unwrap_or_default();
    let finalizer = finalizer(job.door);
    if finalizers.iter().all(|other| other != finalizer) {
        finalizers.push(finalizer.to_owned());
    }
    if is_indexed(job) {
        annotations.insert(keys::COMPLETION_INDEX.to_owned(), id.index.to_string());
        spec.hostname = Some(format!("{}-{}", job.name, id.index));
        tell_index(&mut spec);
    }
    if job.spec.backoff_limit_per_index.is_some() {
        annotations.insert(keys::INDEX_FAILURE_COUNT.to_owned(), n_failures.to_string());
        if n_ignored > 0 {
            annotations.insert(keys::INDEX_IGNORED_FAILURE_COUNT.to_owned(), n_ignored.to_string());
        }
    }
    Pod {
        metadata: ObjectMeta {
            name: Some(PodNames::of(job).write(id)),
            namespace: Some(job.namespace.clone()),
            labels: Some(labels(job, id, metadata.labels.unwrap_or_default())),
            annotations: Some(annotations).filter(|annotations| !annotations.is_empty()),
            finalizers: Some(finalizers),
            owner_references: Some(vec![owner(job)]),
            ..ObjectMeta::default()
        },
        spec: Some(spec),
        ..Pod::default()
    }
}

/// The finalizer by which a pod is held until it is counted.
pub fn finalizer(door: Door) -> &'static str {
    match door {
        Door::BatchJob => keys::POD_FINALIZER,
        Door::ManagedJob => keys::JOB_POD_FINALIZER,
    }
}

fn is_indexed(job: &Job) -> bool {
    job.spec.completion_mode == Some(CompletionMode::Indexed)
}

fn labels(job: &Job, id: AttemptId, mut labels: BTreeMap<String, String>) -> BTreeMap<String, String> {
    let index_key = if is_indexed(job) { keys::COMPLETION_INDEX } else { keys::INDEX };
    for (key, value) in [
        (keys::JOB_NAME, job.name.clone()),
        (keys::LEGACY_JOB_NAME, job.name.clone()),
        (keys::CONTROLLER_UID, job.uid.clone()),
        (keys::LEGACY_CONTROLLER_UID, job.uid.clone()),
        (index_key, id.index.to_string()),
        (keys::ATTEMPT, id.attempt.to_string()),
    ] {
        labels.insert(key.to_owned(), value);
    }
    labels
}

/// What a pod says of the job that controls it.
pub fn owner(job: &Job) -> OwnerReference {
    let (api_version, kind) = match job.door {
        Door::BatchJob => (format!("{GROUP}/{VERSION}"), "BatchJob"),
        Door::ManagedJob => ("batch/v1".to_owned(), "Job"),
    };
    OwnerReference {
        api_version,
        kind: kind.to_owned(),
        name: job.name.clone(),
        uid: job.uid.clone(),
        controller: Some(true),
        // A foreground deletion waits for the pods.
        block_owner_deletion: Some(true),
    }
}

/// Tells every container its index, unless the template sets the variable itself.
fn tell_index(spec: &mut PodSpec) {
    let init_containers = spec.init_containers.iter_mut().flatten();
    for container in init_containers.chain(&mut spec.containers) {
        let Container { env, .. } = container;
        let env = env.get_or_insert_default();
        if env.iter().all(|variable| variable.name != keys::COMPLETION_INDEX_ENV) {
            env.push(index_variable());
        }
    }
}

/// By the downward API, as batch/v1 Job does it: all pods of a job have the same spec.
fn index_variable() -> EnvVar {
    EnvVar {
        name: keys::COMPLETION_INDEX_ENV.to_owned(),
        value_from: Some(EnvVarSource {
            field_ref: Some(ObjectFieldSelector {
                field_path: format!("metadata.labels['{}']", keys::COMPLETION_INDEX),
                ..ObjectFieldSelector::default()
            }),
            ..EnvVarSource::default()
        }),
        ..EnvVar::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(template: serde_json::Value, mode: Option<CompletionMode>) -> Job {
        let template = serde_json::from_value(template).expect("a template");
        let spec = batchjob_crd::BatchJobSpec { template, completion_mode: mode, ..Default::default() };
        Job { namespace: "team".into(), name: "etl".into(), uid: "uid-1".into(), spec, ..Job::default() }
    }

    fn as_json(job: &Job) -> serde_json::Value {
        let start = Start { id: AttemptId { index: 3, attempt: 2 }, n_failures: 1, n_ignored: 0 };
        serde_json::to_value(build(job, start)).expect("a pod is JSON")
    }

    #[test]
    fn every_container_of_an_indexed_job_is_told_its_index_unless_it_sets_it_itself() {
        let mine = serde_json::json!({ "name": "JOB_COMPLETION_INDEX", "value": "mine" });
        let job = job(
            serde_json::json!({ "spec": {
                "initContainers": [{ "name": "fetch" }],
                "containers": [{ "name": "main" }, { "name": "own", "env": [mine] }],
            }}),
            Some(CompletionMode::Indexed),
        );
        let pod = as_json(&job);
        let path = "/valueFrom/fieldRef/fieldPath";
        let told = serde_json::json!("metadata.labels['batch.kubernetes.io/job-completion-index']");
        assert_eq!(pod.pointer(&format!("/spec/initContainers/0/env/0{path}")), Some(&told));
        assert_eq!(pod.pointer(&format!("/spec/containers/0/env/0{path}")), Some(&told));
        assert_eq!(pod.pointer("/spec/containers/1/env"), Some(&serde_json::json!([mine])));
        assert_eq!(pod.pointer("/spec/hostname"), Some(&serde_json::json!("etl-3")));
        assert_eq!(pod["metadata"]["annotations"]["batch.kubernetes.io/job-completion-index"], "3");
    }

    #[test]
    fn the_pods_of_other_jobs_are_not_told() {
        let job = job(serde_json::json!({ "spec": { "containers": [{ "name": "main" }] } }), None);
        let pod = as_json(&job);
        assert_eq!(pod.pointer("/spec/containers/0/env"), None);
        assert_eq!(pod.pointer("/spec/hostname"), None);
        assert_eq!(pod["metadata"]["labels"]["batchjob.dev/index"], "3");
    }

    #[test]
    fn a_pod_of_a_job_with_a_limit_for_each_index_is_told_its_failures() {
        let mut job = job(serde_json::json!({ "spec": { "containers": [] } }), Some(CompletionMode::Indexed));
        job.spec.backoff_limit_per_index = Some(4);
        let told = |n_failures, n_ignored| {
            let start = Start { id: AttemptId { index: 3, attempt: 2 }, n_failures, n_ignored };
            let annotations = build(&job, start).metadata.annotations.unwrap_or_default();
            [keys::INDEX_FAILURE_COUNT, keys::INDEX_IGNORED_FAILURE_COUNT].map(|key| annotations.get(key).cloned())
        };
        assert_eq!(told(0, 0), [Some("0".to_owned()), None]);
        assert_eq!(told(2, 1), [Some("2".to_owned()), Some("1".to_owned())]);
    }

    #[test]
    fn a_pod_of_a_managed_job_is_held_and_owned_as_that_of_a_job() {
        let mut job = job(serde_json::json!({ "spec": { "containers": [] } }), None);
        job.door = Door::ManagedJob;
        let pod = as_json(&job);
        assert_eq!(pod["metadata"]["finalizers"], serde_json::json!(["batch.kubernetes.io/job-tracking"]));
        let owner = &pod["metadata"]["ownerReferences"][0];
        assert_eq!((&owner["apiVersion"], &owner["kind"]), (&"batch/v1".into(), &"Job".into()));
    }

    #[test]
    fn labels_finalizers_and_annotations_of_the_template_are_kept_and_ours_win() {
        let job = job(
            serde_json::json!({
                "metadata": {
                    "labels": { "app": "etl", "job-name": "forged" },
                    "annotations": { "note": "x" },
                    "finalizers": ["example.com/keep"],
                },
                "spec": { "containers": [{ "name": "main" }] },
            }),
            None,
        );
        let pod = as_json(&job);
        assert_eq!(pod["metadata"]["labels"]["app"], "etl");
        assert_eq!(pod["metadata"]["labels"]["job-name"], "etl");
        assert_eq!(pod["metadata"]["annotations"]["note"], "x");
        assert_eq!(pod["metadata"]["finalizers"], serde_json::json!(["example.com/keep", "batchjob.dev/uncounted"]));
        assert_eq!(pod["metadata"]["ownerReferences"][0]["uid"], "uid-1");
    }
}
