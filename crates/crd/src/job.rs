//! [`BatchJobSpec`]: what to run, how often, how many at once, and when to give up.
//!
//! A manifest of a batch/v1 Job becomes a BatchJob by changing `apiVersion` and `kind`: every field here has the name
//! and the meaning it has there. What the API server refuses is in [`crate::rules`] and [`crate::schema`], and which
//! fields are not acted on in [`crate::unsupported`].
//!
//! The doc comments of the fields become the descriptions that `kubectl explain batchjob.spec` prints, so they speak
//! to the user: meaning, unit, limits, and what holds when the field is absent. No field has a default in the schema:
//! a server that fills fields in shows up as drift in every GitOps tool. Effective values are shown in the status.

use k8s_openapi::api::batch::v1::{JobSchedulingConfiguration, PodFailurePolicy, SuccessPolicy};
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::status::BatchJobStatus;

/// The work and its rules; every field of a batch/v1 Job keeps its name and meaning.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "batchjob.dev",
    version = "v1alpha1",
    kind = "BatchJob",
    plural = "batchjobs",
    shortname = "bj",
    category = "all",
    category = "batch",
    namespaced,
    status = "BatchJobStatus",
    derive = "PartialEq",
    doc = "Work that runs to its end: pods are started from a template until enough of them have succeeded, or too many have failed.",
    // `kubectl scale`, PodDisruptionBudgets with percentages and the VerticalPodAutoscaler need the scale subresource.
    scale(
        spec_replicas_path = ".spec.parallelism",
        status_replicas_path = ".status.active",
        label_selector_path = ".status.selector"
    ),
    selectable = ".status.phase",
    selectable = ".status.reason"
)]
#[kube(
    printcolumn = r#"{"name": "Status", "type": "string", "jsonPath": ".status.phase", "description": "Where the job stands."}"#
)]
#[kube(
    printcolumn = r#"{"name": "Completions", "type": "string", "jsonPath": ".status.completionsSummary", "description": "Succeeded, of how many."}"#
)]
#[kube(
    printcolumn = r#"{"name": "Failed", "type": "integer", "jsonPath": ".status.failed", "description": "Attempts that failed."}"#
)]
#[kube(
    printcolumn = r#"{"name": "Reason", "type": "string", "jsonPath": ".status.reason", "description": "Why it stands there."}"#
)]
#[kube(
    printcolumn = r#"{"name": "Started", "type": "date", "jsonPath": ".status.startTime", "description": "When it started, or was resumed."}"#
)]
#[kube(
    printcolumn = r#"{"name": "Duration", "type": "string", "jsonPath": ".status.duration", "description": "How long it took, once it is over."}"#
)]
#[kube(
    printcolumn = r#"{"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp", "description": "Since it was created."}"#
)]
#[kube(
    printcolumn = r#"{"name": "Active", "type": "integer", "jsonPath": ".status.active", "priority": 1, "description": "Pods that are pending or running."}"#
)]
// The first only: the API server prints one result of a column's path, whatever the path selects.
#[kube(
    printcolumn = r#"{"name": "Image", "type": "string", "jsonPath": ".spec.template.spec.containers[0].image", "priority": 1, "description": "The image of the first container."}"#
)]
#[serde(rename_all = "camelCase")]
pub struct BatchJobSpec {
    /// How many pods may run at once, 0 or more; at most 100000 if completionMode is Indexed. Absent: 1. With 0 no pod
    /// runs and the job waits. May be changed at any time, also by `kubectl scale`; write it if autoscalers or
    /// PodDisruptionBudgets are to find it. As in batch/v1 Job.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub parallelism: Option<i32>,

    /// How many pods have to succeed, 0 or more. Absent while parallelism is absent too: 1. Absent beside parallelism:
    /// the pods share a work queue, and the job is complete once one of them has succeeded and all have ended.
    /// Required if completionMode is Indexed, and then it may be changed, to the same number as parallelism; otherwise it
    /// cannot be changed. As in batch/v1 Job.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub completions: Option<i32>,

    /// Whether the containers are told their index. `kubectl explain` prints the words of the type.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub completion_mode: Option<CompletionMode>,

    /// How many attempts may fail, over the whole job, 0 or more; with one failure more the job has failed. Absent: 6,
    /// or without limit beside backoffLimitPerIndex. May be changed at any time. As in batch/v1 Job.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub backoff_limit: Option<i32>,

    /// How many attempts of one index may fail, 0 or more; with one failure more that index has failed, and the others
    /// go on. Indexed jobs only. Absent: no limit for an index. Cannot be changed. As in batch/v1 Job.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub backoff_limit_per_index: Option<i32>,

    /// How many indexes may fail, 0 to completions and at most 100000; with one more the job has failed at once. Needs
    /// backoffLimitPerIndex. Required, and at most 10000, if completions is above 100000. Absent: every index is tried,
    /// and then the job has failed if any of them has. May be changed at any time. As in batch/v1 Job.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub max_failed_indexes: Option<i32>,

    /// Seconds from status.startTime after which the job has failed and its pods are deleted, 0 or more. The clock
    /// stands still while the job is suspended and starts again from 0 when it is resumed. Absent: no deadline. May be
    /// changed at any time. As in batch/v1 Job.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub active_deadline_seconds: Option<i64>,

    /// Seconds after its end when the job is deleted, 0 or more, whether it succeeded or failed. 0: at once. Absent: it
    /// is kept. May be changed at any time, also after the end. As in batch/v1 Job.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub ttl_seconds_after_finished: Option<i32>,

    /// true: no pod is started, and those that run are deleted; what has succeeded and failed stays counted. false, or
    /// absent: the job runs. May be changed at any time. As in batch/v1 Job.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub suspend: Option<bool>,

    /// What the failure of a pod means, by exit code or pod condition: it fails the job, fails its index (which needs
    /// backoffLimitPerIndex), is counted, or is not counted. At most 20 rules, each with onExitCodes or onPodConditions;
    /// the first that matches is taken. Needs restartPolicy Never. Absent: every failure counts. Cannot be changed. As in
    /// batch/v1 Job: see `kubectl explain job.spec.podFailurePolicy`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod_failure_policy: Option<PodFailurePolicy>,

    /// Which indexes, or how many of them, are enough for the job to be complete; 1 to 20 rules, any of which is enough.
    /// succeededIndexes are written like 0,2-4, ascending. Indexed jobs only. Absent: all. Cannot be changed. As in
    /// batch/v1 Job: see `kubectl explain job.spec.successPolicy`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub success_policy: Option<SuccessPolicy>,

    /// When a pod is replaced. `kubectl explain` prints the words of the type.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod_replacement_policy: Option<PodReplacementPolicy>,

    /// Who runs the job: absent, or batchjob.dev/operator, this operator; anything else leaves it to the controller of that
    /// name, and this operator never touches it. A path with a domain in front, at most 63 characters. Cannot be changed.
    /// As in batch/v1 Job.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub managed_by: Option<String>,

    /// How the pods of a batch/v1 Job are found.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub selector: Option<LabelSelector>,

    /// Whether the selector of a batch/v1 Job is written by hand. Absent, or false: no.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub manual_selector: Option<bool>,

    /// Scheduling of the pods of a batch/v1 Job as a group.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scheduling: Option<JobSchedulingConfiguration>,

    /// The pods to start. Its spec.restartPolicy has to be OnFailure or Never. Labels, annotations and finalizers are
    /// copied to every pod; name, generateName, namespace and creationTimestamp are accepted and not used. At most 1000
    /// containers and as many initContainers. Cannot be changed, except while the job is suspended and its pods are gone:
    /// then its metadata and, of its spec, nodeSelector, tolerations, affinity.nodeAffinity, schedulingGates and the
    /// resources of containers and initContainers. As in batch/v1 Job: see `kubectl explain job.spec.template`.
    pub template: PodTemplateSpec,
}

/// NonIndexed: the completions are alike. Indexed: each index from 0 to completions - 1 is done once, and the containers
/// find theirs in the environment variable JOB_COMPLETION_INDEX; the pod's hostname is NAME-INDEX. Absent: NonIndexed.
/// Cannot be changed. As in batch/v1 Job.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum CompletionMode {
    /// The completions are alike.
    #[default]
    NonIndexed,
    /// Each index from 0 to completions − 1 is done once, and its containers are told which one they are.
    Indexed,
}

/// When a pod is replaced. TerminatingOrFailed: as soon as it is being deleted or has failed. Failed: when it has ended.
/// Absent: TerminatingOrFailed, or Failed beside podFailurePolicy, which allows nothing else. May be changed at any time.
/// As in batch/v1 Job.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum PodReplacementPolicy {
    /// As soon as the pod is being deleted or has failed.
    #[default]
    TerminatingOrFailed,
    /// When the pod has ended, so that no two pods ever work on the same index at the same time.
    Failed,
}
