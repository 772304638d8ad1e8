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
use sha2::{Digest, Sha256};

use super::indexes::IndexSet;
use crate::observed::Job;

/// What the annotation holds: what of the ledger a Job's status has no field for, and why the job stands where it stands.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Annotation {
    /// The job and the status that it was written with. A manifest that is exported, and applied again later or under
    /// another name, brings an annotation that is no longer, or never was, the job's own.
    of: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    /// Of a job that is not Indexed: else they are in the status.
    #[serde(skip_serializing_if = "Option::is_none")]
    completed_indexes: Option<String>,
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
#[derive(Clone, Debug, PartialEq)]
pub struct Read {
    pub status: BatchJobStatus,
    /// The annotation is not the one that was written with this status: somebody has taken it off, broken it, or put back an
    /// older one. It is made good from the status as far as that tells: what has succeeded and failed stays counted.
    pub is_lost: bool,
}

pub fn read(uid: &str, status: &JobStatus, ledger: Option<&str>) -> Read {
    let annotation = ledger.and_then(|text| serde_json::from_str::<Annotation>(text).ok());
    let annotation = annotation.filter(|annotation| annotation.of == fingerprint(uid, status));
    let is_new =
        JobStatus { conditions: None, ..status.clone() } == JobStatus::default() && own(status).next().is_none();
    let is_lost = annotation.is_none() && !is_new;
    let Annotation { reason, completed_indexes, open_indexes, .. } = annotation.unwrap_or_default();
    let succeeded = status.succeeded.unwrap_or_default().max(0) as u32;
    let said = status.completed_indexes.clone().filter(|text| !text.is_empty());
    let as_many = || (is_lost && succeeded > 0).then(|| IndexSet::first(succeeded).to_string());
    let count = |count: Option<i32>| if is_new { None } else { Some(count.unwrap_or_default()) };
    let status = BatchJobStatus {
        reason,
        start_time: status.start_time.clone(),
        completion_time: status.completion_time.clone(),
        active: count(status.active),
        ready: count(status.ready),
        terminating: count(status.terminating),
        succeeded: count(status.succeeded),
        failed: count(status.failed),
        completed_indexes: completed_indexes.or(said).or_else(as_many),
        failed_indexes: status.failed_indexes.clone().filter(|text| !text.is_empty()),
        open_indexes,
        conditions: own(status).map(condition).collect(),
        ..BatchJobStatus::default()
    };
    Read { status, is_lost }
}

fn own(status: &JobStatus) -> impl Iterator<Item = &JobCondition> {
    status.conditions.iter().flatten().filter(|condition| is_of_a_job(&condition.type_))
}

/// Ten characters that are others for another job, and for another status of it.
fn fingerprint(uid: &str, status: &JobStatus) -> String {
    let seconds = |time: &Option<Time>| time.as_ref().map(|time| time.0.as_second());
    let mut conditions: Vec<_> = own(status)
        .map(|it| {
            (&it.type_, &it.status, it.reason.as_deref(), it.message.as_deref(), seconds(&it.last_transition_time))
        })
        .collect();
    conditions.sort();
    let counts = [status.active, status.ready, status.terminating, status.succeeded, status.failed];
    let texts = [&status.completed_indexes, &status.failed_indexes];
    let all = (
        uid,
        counts.map(Option::unwrap_or_default),
        texts.map(|text| text.as_deref().unwrap_or_default()),
        [seconds(&status.start_time), seconds(&status.completion_time)],
        conditions,
    );
    let digest = Sha256::digest(serde_json::to_vec(&all).expect("texts and numbers are JSON"));
    digest.iter().take(5).map(|byte| format!("{byte:02x}")).collect()
}

/// What a Job can hold of a status that is to follow `job`'s.
pub fn keep(job: &Job, status: BatchJobStatus) -> BatchJobStatus {
    // The API server lets the count fall only while these are the same: somebody may have made the job smaller and then have
    // changed parallelism again, before we looked.
    let is_elastic = is_indexed(job) && job.spec.completions == job.spec.parallelism;
    let succeeded = if is_elastic { status.succeeded } else { status.succeeded.max(job.status.succeeded) };
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
        succeeded,
        conditions,
        ..status
    }
}

fn is_indexed(job: &Job) -> bool {
    job.spec.completion_mode == Some(CompletionMode::Indexed)
}

/// The status of a managed Job, and its annotation.
pub fn write(job: &Job, status: &BatchJobStatus) -> (JobStatus, String) {
    // As batch/v1 Job has it: there, and empty, as soon as an index can fail.
    let failed_indexes = job.spec.backoff_limit_per_index.map(|_| status.failed_indexes.clone().unwrap_or_default());
    let written = JobStatus {
        active: status.active,
        completed_indexes: status.completed_indexes.clone().filter(|_| is_indexed(job)),
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
    let annotation = Annotation {
        of: fingerprint(&job.uid, &written),
        reason: status.reason.clone(),
        completed_indexes: status.completed_indexes.clone().filter(|_| !is_indexed(job)),
        open_indexes: status.open_indexes.clone(),
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

    fn kept(mode: CompletionMode) -> BatchJobStatus {
        keep(&job(mode), status())
    }

    #[test]
    fn what_is_kept_is_read_back_whatever_the_mode() {
        for mode in [CompletionMode::Indexed, CompletionMode::NonIndexed] {
            let (written, ledger) = write(&job(mode), &kept(mode));
            let read = read("", &written, Some(&ledger));
            assert_eq!(read, Read { status: kept(mode), is_lost: false }, "{mode:?}");
            assert_eq!(written.completed_indexes.is_some(), mode == CompletionMode::Indexed);
            let types: Vec<_> = written.conditions.iter().flatten().map(|condition| &*condition.type_).collect();
            assert_eq!(types, ["Suspended"], "only what a Job has");
        }
    }

    #[test]
    fn a_new_job_has_an_empty_status_and_no_ledger_to_lose() {
        let (_, of_another) = write(&job(CompletionMode::Indexed), &kept(CompletionMode::Indexed));
        for ledger in [None, Some(&*of_another)] {
            let read = read("", &JobStatus::default(), ledger);
            assert_eq!(read, Read { status: BatchJobStatus::default(), is_lost: false }, "{ledger:?}");
        }
    }

    #[test]
    fn a_lost_broken_older_or_foreign_ledger_is_made_good_from_the_status() {
        let (indexed, now) = write(&job(CompletionMode::Indexed), &kept(CompletionMode::Indexed));
        let (plain, _) = write(&job(CompletionMode::NonIndexed), &kept(CompletionMode::NonIndexed));
        let earlier = BatchJobStatus { failed: Some(2), ..kept(CompletionMode::Indexed) };
        let (_, older) = write(&job(CompletionMode::Indexed), &earlier);
        let ledgers = [
            ("", None),
            ("", Some("{")),
            ("", Some("[1]")),
            ("", Some("{}")),
            ("", Some(&*older)),
            ("other", Some(&*now)),
        ];
        for (uid, ledger) in ledgers {
            let found = read(uid, &indexed, ledger);
            assert!(found.is_lost, "{ledger:?}");
            assert_eq!(found.status.completed_indexes.as_deref(), Some("0-3"));
            assert_eq!((found.status.failed_indexes.as_deref(), found.status.failed), (Some("5"), Some(3)));
            assert_eq!(found.status.open_indexes, None);
            let found = read(uid, &plain, ledger).status.completed_indexes;
            assert_eq!(found.as_deref(), Some("0-3"), "four, whichever they were");
        }
    }

    /// `RejectDecreasingSucceededCounter` in `pkg/registry/batch/job/strategy.go`.
    #[test]
    fn the_count_of_successes_falls_only_where_the_api_server_lets_it() {
        let mut job = job(CompletionMode::Indexed);
        job.status.succeeded = Some(5);
        let succeeded = |job: &Job| keep(job, status()).succeeded;
        (job.spec.completions, job.spec.parallelism) = (Some(4), Some(4));
        assert_eq!(succeeded(&job), Some(4));
        job.spec.parallelism = Some(1);
        assert_eq!(succeeded(&job), Some(5));
    }
}
