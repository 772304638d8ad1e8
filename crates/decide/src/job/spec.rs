//! What the user asked for, with every default filled in, or why it cannot be.
//!
//! The CRD's schema and rules refuse all of this at admission. It is checked again here for the objects that a newer
//! or older schema let in: a field that is not acted on must be refused, never ignored.

use batchjob_crd::unsupported::UNSUPPORTED;
use batchjob_crd::{BatchJobSpec, CompletionMode, PodReplacementPolicy};
use jiff::SignedDuration;

/// What batch/v1 Job allows by default (`pkg/apis/batch/v1/defaults.go`).
const DEFAULT_BACKOFF_LIMIT: u32 = 6;

/// What the user asked for, in a form that cannot be wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spec {
    pub parallelism: u32,
    pub completions: Completions,
    pub mode: CompletionMode,
    pub backoff_limit: u32,
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
    pub fn read(spec: &BatchJobSpec) -> Result<Spec, String> {
        if let Some(unsupported) = UNSUPPORTED.iter().find(|unsupported| is_asked_for(spec, unsupported.field)) {
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
        Ok(Spec {
            parallelism: parallelism.unwrap_or(1),
            completions,
            mode,
            backoff_limit: count("backoffLimit", spec.backoff_limit)?.unwrap_or(DEFAULT_BACKOFF_LIMIT),
            active_deadline: seconds("activeDeadlineSeconds", spec.active_deadline_seconds)?,
            ttl: seconds("ttlSecondsAfterFinished", spec.ttl_seconds_after_finished.map(i64::from))?,
            is_suspended: spec.suspend.unwrap_or(false),
            restarts_in_place,
        })
    }
}

/// Whether the spec has what a row of [`UNSUPPORTED`] refuses.
fn is_asked_for(spec: &BatchJobSpec, field: &str) -> bool {
    match field {
        "podFailurePolicy" => spec.pod_failure_policy.is_some(),
        "successPolicy" => spec.success_policy.is_some(),
        "backoffLimitPerIndex" => spec.backoff_limit_per_index.is_some(),
        "maxFailedIndexes" => spec.max_failed_indexes.is_some(),
        "podReplacementPolicy" => spec.pod_replacement_policy == Some(PodReplacementPolicy::Failed),
        _ => false,
    }
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

    fn spec(json: serde_json::Value) -> Result<Spec, String> {
        let mut whole = serde_json::json!({ "template": { "spec": { "restartPolicy": "Never", "containers": [] } } });
        whole.as_object_mut().expect("an object").extend(json.as_object().expect("an object").clone());
        Spec::read(&serde_json::from_value(whole).expect("a spec"))
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
                "podFailurePolicy" | "successPolicy" => serde_json::json!({ "rules": [] }),
                "podReplacementPolicy" => serde_json::json!("Failed"),
                _ => serde_json::json!(1),
            };
            let found = spec(serde_json::json!({ unsupported.field: value }));
            assert_eq!(found, Err(unsupported.message()));
        }
        assert!(spec(serde_json::json!({ "podReplacementPolicy": "TerminatingOrFailed" })).is_ok());
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
