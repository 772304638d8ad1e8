//! [`BatchJobStatus`]: what has happened, for people, for tools, and as the ledger that counting rests on.
//!
//! Three readers, one write:
//!
//! | for | fields |
//! |---|---|
//! | people, in columns | `phase`, `reason`, `completionsSummary`, `duration` |
//! | tools | `observedGeneration`, `conditions`, the counts, `selector`, and the effective values of absent spec fields |
//! | the operator itself: the ledger | `completedIndexes`, `failedIndexes`, `openIndexes`, `failed` |
//!
//! The counts are a projection of the ledger and of the pods that live; nothing adds to them by hand. The names and the
//! rules between the fields are those of batch/v1 JobStatus where it has them.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What has happened to the job. Written by the operator only.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BatchJobStatus {
    /// The metadata.generation this status was computed from; -1 until the operator has seen the job. While it differs
    /// from metadata.generation the rest of the status is about an older spec.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,

    /// Where the job stands. `kubectl explain` prints the words of the type.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phase: Option<Phase>,

    /// Why it stands there, in one CamelCase word, for example BackingOff or BackoffLimitExceeded. The sentence to it is
    /// the message of the condition with the same reason.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,

    /// How many completions have succeeded, of how many: "3/5".
    #[serde(skip_serializing_if = "Option::is_none")]
    pub completions_summary: Option<String>,

    /// When the job was first acted on while not suspended; set again when it is resumed, and absent while it is
    /// suspended. activeDeadlineSeconds counts from here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_time: Option<Time>,

    /// When the job was complete. A failed job has none: the condition Failed tells when.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub completion_time: Option<Time>,

    /// From startTime to the end, for people: "4m10s". Absent until the job is over, so that it is not written every
    /// second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub duration: Option<String>,

    /// Pods that are pending or running and not being deleted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub active: Option<i32>,

    /// Active pods that are ready.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ready: Option<i32>,

    /// Pods that are being deleted and have not ended yet. A job is over only when there are none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub terminating: Option<i32>,

    /// Attempts that succeeded: the number of indexes in completedIndexes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub succeeded: Option<i32>,

    /// Attempts that failed and count against backoffLimit. Never gets smaller.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failed: Option<i32>,

    /// Ledger: the indexes that have succeeded, ascending, as numbers and ranges: "0-3,7".
    #[serde(skip_serializing_if = "Option::is_none")]
    pub completed_indexes: Option<String>,

    /// Ledger: the indexes that have failed for good, written like completedIndexes. Only with backoffLimitPerIndex.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failed_indexes: Option<String>,

    /// Ledger: the indexes that are neither completed nor failed but have ended an attempt, ascending, separated by
    /// commas. Each is INDEX:NEXT/FAILURES@SECONDS: the number of its next attempt (they count from 1), how many of its
    /// attempts failed, and, if one did, when the last one ended, in seconds since 1970. "3:2/1@1764021302" says that
    /// attempt 1 of index 3 failed at that time and attempt 2 is next.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub open_indexes: Option<String>,

    /// The effective spec.parallelism: 1 if that is absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parallelism: Option<i32>,

    /// The effective spec.backoffLimit: 6 if that is absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backoff_limit: Option<i32>,

    /// The label selector of the job's pods, as text, for the scale subresource and `kubectl get pods -l`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub selector: Option<String>,

    /// How the job stands, for programs: the conditions of a batch/v1 Job (Suspended, SuccessCriteriaMet, FailureTarget,
    /// Complete, Failed), Finished at either end, and Reconciling, Stalled and Ready for Helm, Flux and Argo CD.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}

/// Where the job stands, in one word, for people and field selectors; programs should read the conditions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Phase {
    /// No pod of it has started yet.
    Pending,
    /// It is at work, or waits to try again.
    Running,
    /// `spec.suspend` holds it.
    Suspended,
    /// It is over, and complete.
    Succeeded,
    /// It is over, and has failed.
    Failed,
}
