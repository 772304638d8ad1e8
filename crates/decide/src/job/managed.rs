//! A managed Job: how the status and the ledger of a batch/v1 Job are read and written.
//!
//! A Job's status has no room for the ledger, and its API server checks what is in it (`validateJobStatus`). So the ledger
//! is in an annotation, written together with the status in one request: the status endpoint of a Job takes annotations
//! too, as that of every built-in kind does.
//!
//! Everywhere else a managed Job looks like a BatchJob: [`read`] makes the one from the other, [`keep`] leaves out what a
//! Job cannot hold, and [`write()`] makes the Job's own form of it.

use batchjob_crd::{BatchJobStatus, CompletionMode, condition};
use jiff::Timestamp;
use k8s_openapi::api::batch::v1::{JobCondition, JobStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use serde::{Deserialize, Serialize};

use super::indexes::IndexSet;
use crate::observed::Job;

/// What the annotation holds: the fields of a BatchJob's status that are its ledger, and why the job stands where it
/// stands, of which a Job has no field either.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Annotation {
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    failed: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    completed_indexes: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    failed_indexes: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    open_indexes: Option<String>,
}

/// The conditions that a Job's controller writes; others may add theirs, which are none of our business.
const CONDITIONS: [&str; 5] = [
    condition::SUSPENDED,
    condition::SUCCESS_CRITERIA_MET,
    condition::FAILURE_TARGET,
    condition::COMPLETE,
    condition::FAILED,
];

fn is_of_a_job(type_: &str) -> bool {
    CONDITIONS.contains(&type_)
}

/// The status of a managed Job with its ledger, in the form of a BatchJob's.
///
/// An annotation that is lost, or that somebody broke, is made good from the status as far as that tells: what has
/// succeeded and failed stays counted.
pub fn read(status: &JobStatus, ledger: Option<&str>) -> BatchJobStatus {
    let annotation = ledger.and_then(|text| serde_json::from_str::<Annotation>(text).ok());
    let is_lost = annotation.is_none();
    let Annotation { reason, failed, completed_indexes, failed_indexes, open_indexes } = annotation.unwrap_or_default();
    let succeeded = status.succeeded.unwrap_or_default().max(0);
    let said = status.completed_indexes.clone().filter(|text| !text.is_empty());
    let completed_indexes = match is_lost {
        true => said.or_else(|| (succeeded > 0).then(|| IndexSet::first(succeeded as u32).to_string())),
        false => completed_indexes,
    };
    let failed_indexes = if is_lost { status.failed_indexes.clone() } else { failed_indexes };
    let is_new = *status == JobStatus::default();
    let count = |count: Option<i32>| if is_new { None } else { Some(count.unwrap_or_default()) };
    BatchJobStatus {
        reason,
        start_time: status.start_time.clone(),
        completion_time: status.completion_time.clone(),
        active: count(status.active),
        ready: count(status.ready),
        terminating: count(status.terminating),
        succeeded: count(status.succeeded),
        // It must never fall, whoever wrote what.
        failed: count(failed.max(status.failed)),
        completed_indexes,
        failed_indexes: failed_indexes.filter(|text| !text.is_empty()),
        open_indexes,
        conditions: status.conditions.iter().flatten().filter(|it| is_of_a_job(&it.type_)).map(condition).collect(),
        ..BatchJobStatus::default()
    }
}

/// What a Job can hold of a status.
pub fn keep(status: BatchJobStatus) -> BatchJobStatus {
    let mut conditions = status.conditions;
    conditions.retain(|condition| is_of_a_job(&condition.type_));
    for condition in &mut conditions {
        condition.observed_generation = None;
    }
    BatchJobStatus {
        observed_generation: None,
        phase: None,
        completions_summary: None,
        duration: None,
        parallelism: None,
        backoff_limit: None,
        selector: None,
        conditions,
        ..status
    }
}

/// The status of a managed Job, and its annotation.
pub fn write(job: &Job, status: &BatchJobStatus) -> (JobStatus, String) {
    let annotation = Annotation {
        reason: status.reason.clone(),
        failed: status.failed.filter(|&failed| failed > 0),
        completed_indexes: status.completed_indexes.clone(),
        failed_indexes: status.failed_indexes.clone(),
        open_indexes: status.open_indexes.clone(),
    };
    let is_indexed = job.spec.completion_mode == Some(CompletionMode::Indexed);
    // As batch/v1 Job has it: there, and empty, as soon as an index can fail.
    let failed_indexes = job.spec.backoff_limit_per_index.map(|_| status.failed_indexes.clone().unwrap_or_default());
    let written = JobStatus {
        active: status.active,
        completed_indexes: status.completed_indexes.clone().filter(|_| is_indexed),
        completion_time: status.completion_time.clone(),
        conditions: Some(status.conditions.iter().map(job_condition).collect())
            .filter(|list: &Vec<_>| !list.is_empty()),
        failed: status.failed,
        failed_indexes,
        ready: status.ready,
        start_time: status.start_time.clone(),
        succeeded: status.succeeded,
        terminating: status.terminating,
        uncounted_terminated_pods: None,
    };
    (written, serde_json::to_string(&annotation).expect("texts and numbers are JSON"))
}

fn condition(condition: &JobCondition) -> Condition {
    Condition {
        type_: condition.type_.clone(),
        status: condition.status.clone(),
        reason: condition.reason.clone().unwrap_or_default(),
        message: condition.message.clone().unwrap_or_default(),
        observed_generation: None,
        last_transition_time: condition.last_transition_time.clone().unwrap_or(Time(Timestamp::UNIX_EPOCH)),
    }
}

fn job_condition(condition: &Condition) -> JobCondition {
    JobCondition {
        type_: condition.type_.clone(),
        status: condition.status.clone(),
        reason: Some(condition.reason.clone()),
        message: Some(condition.message.clone()),
        last_probe_time: Some(condition.last_transition_time.clone()),
        last_transition_time: Some(condition.last_transition_time.clone()),
    }
}

#[cfg(test)]
mod tests {
    use batchjob_crd::BatchJobSpec;

    use super::*;
    use crate::observed::Door;

    fn job(mode: CompletionMode) -> Job {
        let spec =
            BatchJobSpec { completion_mode: Some(mode), backoff_limit_per_index: Some(1), ..BatchJobSpec::default() };
        Job { door: Door::ManagedJob, spec, ..Job::default() }
    }

    fn status() -> BatchJobStatus {
        serde_json::from_value(serde_json::json!({
            "observedGeneration": 3, "phase": "Running", "reason": "BackingOff", "completionsSummary": "4/9",
            "active": 1, "ready": 1, "terminating": 0, "succeeded": 4, "failed": 3,
            "completedIndexes": "0-3", "failedIndexes": "5", "openIndexes": "4:2/1@50", "startTime": "2026-01-01T00:00:00Z",
            "conditions": [
                { "type": "Suspended", "status": "False", "reason": "JobResumed", "message": "Job resumed",
                  "observedGeneration": 3, "lastTransitionTime": "2026-01-01T00:00:00Z" },
                { "type": "Reconciling", "status": "True", "reason": "BackingOff", "message": "4/9 done",
                  "lastTransitionTime": "2026-01-01T00:00:00Z" },
            ],
        }))
        .expect("a status")
    }

    #[test]
    fn what_is_kept_is_read_back_whatever_the_mode() {
        for mode in [CompletionMode::Indexed, CompletionMode::NonIndexed] {
            let kept = keep(status());
            let (written, ledger) = write(&job(mode), &kept);
            assert_eq!(read(&written, Some(&ledger)), kept, "{mode:?}");
            assert_eq!(written.completed_indexes.is_some(), mode == CompletionMode::Indexed);
            let types: Vec<_> = written.conditions.iter().flatten().map(|condition| &*condition.type_).collect();
            assert_eq!(types, ["Suspended"], "only what a Job has");
        }
    }

    #[test]
    fn a_new_job_has_an_empty_status() {
        assert_eq!(read(&JobStatus::default(), None), BatchJobStatus::default());
    }

    #[test]
    fn a_lost_or_broken_ledger_is_made_good_from_the_status() {
        let (indexed, _) = write(&job(CompletionMode::Indexed), &keep(status()));
        let (plain, _) = write(&job(CompletionMode::NonIndexed), &keep(status()));
        for ledger in [None, Some("{"), Some("[1]")] {
            let found = read(&indexed, ledger);
            assert_eq!(found.completed_indexes.as_deref(), Some("0-3"));
            assert_eq!((found.failed_indexes.as_deref(), found.failed), (Some("5"), Some(3)));
            assert_eq!(read(&plain, ledger).completed_indexes.as_deref(), Some("0-3"), "four, whichever they were");
        }
    }
}
