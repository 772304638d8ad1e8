//! What the user asked for, with every default filled in, or why it cannot be.
//!
//! The CRD's schema and rules refuse all of this at admission. It is checked again here for the objects that a newer
//! or older schema let in: a field that is not acted on must be refused, never ignored.

use batchjob_crd::unsupported::UNSUPPORTED;
use batchjob_crd::{BatchJobSpec, CompletionMode, PodReplacementPolicy};
use jiff::SignedDuration;

use super::failure_policy::FailurePolicy;
use super::success_policy::SuccessPolicy;
use crate::observed::{Door, Job};

/// What batch/v1 Job allows by default (`pkg/apis/batch/v1/defaults.go`).
const DEFAULT_BACKOFF_LIMIT: u32 = 6;

/// What the user asked for, in a form that cannot be wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spec {
    pub parallelism: u32,
    pub completions: Completions,
    pub mode: CompletionMode,
    pub backoff_limit: u32,
    /// So many attempts of an index may fail; with one more the index has failed for good. None: no such limit.
    pub backoff_limit_per_index: Option<u32>,
    /// So many indexes may fail. None: as many as there are.
    pub max_failed_indexes: Option<u32>,
    pub failure_policy: Option<FailurePolicy>,
    pub success_policy: Option<SuccessPolicy>,
    /// podReplacementPolicy Failed: a pod that is being deleted is replaced, and counted, only when it has ended.
    pub replaces_only_ended: bool,
    pub active_deadline: Option<SignedDuration>,
    pub ttl: Option<SignedDuration>,
    pub is_suspended: bool,
    /// restartPolicy OnFailure: the kubelet restarts containers within the pod.
    pub restarts_in_place: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Completions {
    Fixed(u32),
    /// As many workers as `parallelism`, until one of them says that the work is done.
    WorkQueue,
}

impl Spec {
    /// The error names the field and what to write instead.
    pub fn read(job: &Job) -> Result<Spec, String> {
        let spec = &job.spec;
        let refused =
            UNSUPPORTED.iter().find(|row| is_asked_for(spec, row.field) && !is_of_every_job(job.door, row.field));
        if let Some(unsupported) = refused {
            return Err(unsupported.message());
        }
        let mode = spec.completion_mode.unwrap_or_default();
        if mode == CompletionMode::Indexed && spec.completions.is_none() {
            return Err("spec.completions is required with completionMode Indexed".to_owned());
        }
        let restart_policy = spec.template.spec.as_ref().and_then(|pod| pod.restart_policy.as_deref());
        let restarts_in_place = match restart_policy {
            Some("OnFailure") => true,
            Some("Never") => false,
            other => {
                let found = other.unwrap_or("missing, which means Always");
                return Err(format!("spec.template.spec.restartPolicy is {found}: write OnFailure or Never"));
            }
        };
        let parallelism = count("parallelism", spec.parallelism)?;
        let completions = match (count("completions", spec.completions)?, parallelism) {
            (Some(completions), _) => Completions::Fixed(completions),
            (None, None) => Completions::Fixed(1),
            (None, Some(_)) => Completions::WorkQueue,
        };
        let backoff_limit_per_index = count("backoffLimitPerIndex", spec.backoff_limit_per_index)?;
        // Beside a limit for each index the one for all is no limit, unless it is written.
        let default_limit = backoff_limit_per_index.map_or(DEFAULT_BACKOFF_LIMIT, |_| i32::MAX as u32);
        let failure_policy = spec.pod_failure_policy.as_ref().map(FailurePolicy::read).transpose()?;
        let replaces_only_ended = match spec.pod_replacement_policy {
            Some(policy) => policy == PodReplacementPolicy::Failed,
            None => failure_policy.is_some(),
        };
        if failure_policy.is_some() && !replaces_only_ended {
            return Err(
                "spec.podReplacementPolicy is TerminatingOrFailed: write Failed, or nothing, beside podFailurePolicy"
                    .to_owned(),
            );
        }
        Ok(Spec {
            parallelism: parallelism.unwrap_or(1),
            completions,
            mode,
            backoff_limit: count("backoffLimit", spec.backoff_limit)?.unwrap_or(default_limit),
            backoff_limit_per_index,
            max_failed_indexes: count("maxFailedIndexes", spec.max_failed_indexes)?,
            failure_policy,
            success_policy: spec.success_policy.as_ref().map(SuccessPolicy::read).transpose()?,
            replaces_only_ended,
            active_deadline: seconds("activeDeadlineSeconds", spec.active_deadline_seconds)?,
            ttl: seconds("ttlSecondsAfterFinished", spec.ttl_seconds_after_finished.map(i64::from))?,
            is_suspended: spec.suspend.unwrap_or(false),
            restarts_in_place,
        })
    }

    /// The indexes of the job are those below; None if it may have any.
    pub fn index_limit(&self) -> Option<u32> {
        match (self.mode, self.completions) {
            (CompletionMode::Indexed, Completions::Fixed(completions)) => Some(completions),
            _ => None,
        }
    }

    /// How many indexes, from the first on, are worked on.
    pub fn n_indexes(&self) -> u32 {
        match self.completions {
            Completions::Fixed(completions) => completions,
            Completions::WorkQueue => self.parallelism,
        }
    }
}

/// Whether the spec has what a row of [`UNSUPPORTED`] refuses.
fn is_asked_for(spec: &BatchJobSpec, field: &str) -> bool {
    match field {
        "selector" => spec.selector.is_some(),
        "manualSelector" => spec.manual_selector == Some(true),
        "scheduling" => spec.scheduling.is_some(),
        _ => false,
    }
}

/// The API server writes a selector into every Job, and has checked one that was written by hand: the pods that we make
/// match either.
fn is_of_every_job(door: Door, field: &str) -> bool {
    door == Door::ManagedJob && matches!(field, "selector" | "manualSelector")
}

fn count(field: &str, value: Option<i32>) -> Result<Option<u32>, String> {
    let at_least_zero = |value| u32::try_from(value).map_err(|_| negative(field, value));
    value.map(at_least_zero).transpose()
}

fn seconds(field: &str, value: Option<i64>) -> Result<Option<SignedDuration>, String> {
    match value {
        Some(value) if value < 0 => Err(negative(field, value)),
        value => Ok(value.map(SignedDuration::from_secs)),
    }
}

fn negative(field: &str, value: impl std::fmt::Display) -> String {
    format!("spec.{field} is {value}: write 0 or more")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(door: Door, json: serde_json::Value) -> Result<Spec, String> {
        let mut whole = serde_json::json!({ "template": { "spec": { "restartPolicy": "Never", "containers": [] } } });
        whole.as_object_mut().expect("an object").extend(json.as_object().expect("an object").clone());
        let spec = serde_json::from_value(whole).expect("a spec");
        Spec::read(&Job { door, spec, ..Job::default() })
    }

    fn spec(json: serde_json::Value) -> Result<Spec, String> {
        read(Door::BatchJob, json)
    }

    #[test]
    fn the_defaults_are_those_of_a_job() {
        let spec = spec(serde_json::json!({})).expect("valid");
        assert_eq!((spec.parallelism, spec.completions, spec.backoff_limit), (1, Completions::Fixed(1), 6));
    }

    #[test]
    fn parallelism_without_completions_is_a_work_queue() {
        let spec = spec(serde_json::json!({ "parallelism": 3 })).expect("valid");
        assert_eq!((spec.parallelism, spec.completions), (3, Completions::WorkQueue));
    }

    /// Every row of the table is refused here too, each by its own message.
    #[test]
    fn what_is_not_acted_on_is_refused() {
        for unsupported in UNSUPPORTED {
            let value = match unsupported.field {
                "manualSelector" => serde_json::json!(true),
                _ => serde_json::json!({}),
            };
            let found = spec(serde_json::json!({ unsupported.field: value }));
            assert_eq!(found, Err(unsupported.message()));
        }
        assert!(spec(serde_json::json!({ "manualSelector": false })).is_ok());
    }

    #[test]
    fn the_selector_of_a_managed_job_is_the_api_servers() {
        let json = serde_json::json!({ "selector": {}, "manualSelector": true });
        assert!(read(Door::ManagedJob, json).is_ok());
        assert!(read(Door::ManagedJob, serde_json::json!({ "scheduling": {} })).is_err());
    }

    #[test]
    fn the_defaults_follow_from_the_other_fields() {
        let per_index = spec(serde_json::json!({ "backoffLimitPerIndex": 1 })).expect("valid");
        assert_eq!(per_index.backoff_limit, i32::MAX as u32);
        assert!(!per_index.replaces_only_ended);
        let policy = serde_json::json!({ "rules": [] });
        assert!(spec(serde_json::json!({ "podFailurePolicy": policy })).expect("valid").replaces_only_ended);
        let error =
            spec(serde_json::json!({ "podFailurePolicy": policy, "podReplacementPolicy": "TerminatingOrFailed" }));
        assert!(
            error.expect_err("invalid").starts_with("spec.podReplacementPolicy is TerminatingOrFailed: write Failed")
        );
    }

    #[test]
    fn errors_name_the_field_and_what_to_write() {
        let error = |json| spec(json).expect_err("invalid");
        assert_eq!(error(serde_json::json!({ "parallelism": -1 })), "spec.parallelism is -1: write 0 or more");
        assert_eq!(
            error(serde_json::json!({ "activeDeadlineSeconds": -5 })),
            "spec.activeDeadlineSeconds is -5: write 0 or more"
        );
        assert_eq!(
            error(serde_json::json!({ "completionMode": "Indexed" })),
            "spec.completions is required with completionMode Indexed"
        );
        assert_eq!(
            error(serde_json::json!({ "template": { "spec": { "containers": [] } } })),
            "spec.template.spec.restartPolicy is missing, which means Always: write OnFailure or Never"
        );
    }
}
