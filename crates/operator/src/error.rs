//! What went wrong, and its class: the one place that says when a failed write is worth another try.
//!
//! | class | what | tried again |
//! |---|---|---|
//! | `Stale` | a conflict: we have decided on what is no longer so | at once, on fresh state |
//! | `Soon` | network, no answer in time, 5xx, an answer that does not fit | after 0.25 s, doubling to 30 s |
//! | `Busy` | 429 | when the API server says (`Retry-After`), else as `Soon` |
//! | `Refused` | 403, 400 on a create: quota, policy, something missing | after 1 s, doubling to 60 s |
//! | `Rejected` | 422 on a create: the template makes no pod | when the spec changes |
//!
//! A failed create holds back the creates of its job, and nothing else: what has ended is counted and let go meanwhile.

use std::time::Duration;

use batchjob_decide::observed::RefusedReason;
use batchjob_decide::plan::AttemptId;
use kube::core::Status;

/// A write that failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("failed to {what}: {source}")]
    Write { what: String, class: Class, source: WriteError },
    #[error("failed to create pod {pod}: {message}")]
    Refused { pod: String, refusal: Refusal, message: String },
    #[error("failed to create pod {pod}: there is one of that name already, and it is not this job's")]
    NameTaken { pod: String, id: AttemptId },
    #[error("failed to create pod {pod}: {source}")]
    Unanswered { pod: String, class: Class, source: WriteError },
}

#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    #[error(transparent)]
    Client(#[from] kube::Error),
    #[error("no answer within {0:?}")]
    TimedOut(Duration),
    #[error("this operator leads no more")]
    TermEnded,
    #[error("the API server's answer {0}")]
    Unexpected(&'static str),
}

/// When it is worth another try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    Stale,
    Soon,
    Busy { retry_after: Option<Duration> },
}

/// Why the API server makes no pod of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    Refused(RefusedReason),
    Rejected,
}

impl Error {
    pub fn write(what: impl Into<String>, source: WriteError) -> Error {
        Error::Write { what: what.into(), class: source.class(), source }
    }

    /// It is no longer as it was decided on.
    pub fn changed(what: impl Into<String>) -> Error {
        let source = WriteError::Unexpected("says that it has changed");
        Error::Write { what: what.into(), class: Class::Stale, source }
    }

    pub fn is_create(&self) -> bool {
        matches!(self, Error::Refused { .. } | Error::NameTaken { .. } | Error::Unanswered { .. })
    }

    /// The value of the metric's label.
    pub fn label(&self) -> &'static str {
        match self {
            Error::Write { class, .. } | Error::Unanswered { class, .. } => match class {
                Class::Stale => "stale",
                Class::Soon => "soon",
                Class::Busy { .. } => "busy",
            },
            Error::Refused { refusal: Refusal::Refused(_), .. } | Error::NameTaken { .. } => "refused",
            Error::Refused { refusal: Refusal::Rejected, .. } => "rejected",
        }
    }
}

impl WriteError {
    pub fn status(&self) -> Option<&Status> {
        match self {
            WriteError::Client(kube::Error::Api(status)) => Some(status),
            _ => None,
        }
    }

    pub fn is_not_found(&self) -> bool {
        self.status().is_some_and(|status| status.code == 404)
    }

    /// There is an object of that name. It is a 409 too, but no conflict.
    pub fn is_already_there(&self) -> bool {
        self.status().is_some_and(|status| status.reason == "AlreadyExists")
    }

    pub fn is_conflict(&self) -> bool {
        self.status().is_some_and(|status| status.code == 409 && status.reason != "AlreadyExists")
    }

    pub fn is_invalid(&self) -> bool {
        self.status().is_some_and(|status| status.code == 422)
    }

    pub fn class(&self) -> Class {
        match self.status() {
            Some(_) if self.is_conflict() || self.is_invalid() => Class::Stale,
            Some(status) if status.code == 429 => Class::Busy { retry_after: retry_after(status) },
            _ => Class::Soon,
        }
    }

    /// What a failed create says about the pod itself; None if it says nothing about it.
    pub fn refusal(&self) -> Option<Refusal> {
        let status = self.status()?;
        let has_cause = |reason: &str| {
            status.details.iter().flat_map(|details| &details.causes).any(|cause| cause.reason == reason)
        };
        let refused = match status.code {
            422 => return Some(Refusal::Rejected),
            403 if has_cause("NamespaceTerminating") => RefusedReason::NamespaceTerminating,
            403 if status.message.contains("exceeded quota") => RefusedReason::QuotaExceeded,
            // An admission webhook that gives no code of its own refuses with 400.
            400 | 403 => RefusedReason::Forbidden,
            _ => return None,
        };
        Some(Refusal::Refused(refused))
    }
}

fn retry_after(status: &Status) -> Option<Duration> {
    let seconds = status.details.as_ref()?.retry_after_seconds;
    (seconds > 0).then(|| Duration::from_secs(u64::from(seconds)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(json: serde_json::Value) -> WriteError {
        let mut status = serde_json::json!({ "kind": "Status", "apiVersion": "v1", "status": "Failure", "message": "", "reason": "" });
        status.as_object_mut().expect("an object").extend(json.as_object().expect("an object").clone());
        WriteError::Client(kube::Error::Api(Box::new(serde_json::from_value(status).expect("a status"))))
    }

    #[test]
    fn a_name_that_is_taken_is_no_conflict() {
        let taken = answer(serde_json::json!({ "code": 409, "reason": "AlreadyExists" }));
        assert!(taken.is_already_there() && !taken.is_conflict());
        let conflict = answer(serde_json::json!({ "code": 409, "reason": "Conflict" }));
        assert!(!conflict.is_already_there() && conflict.class() == Class::Stale);
    }

    #[test]
    fn a_busy_server_says_when_to_come_back() {
        let busy = answer(serde_json::json!({ "code": 429, "details": { "retryAfterSeconds": 7 } }));
        assert_eq!(busy.class(), Class::Busy { retry_after: Some(Duration::from_secs(7)) });
    }

    #[test]
    fn a_refused_pod_is_told_from_one_that_can_never_be() {
        let quota = serde_json::json!({ "code": 403, "message": "pods \"x\" is forbidden: exceeded quota: q" });
        let missing = serde_json::json!({ "code": 403, "message": "error looking up service account" });
        let going = serde_json::json!({ "code": 403, "details": { "causes": [{ "reason": "NamespaceTerminating" }] } });
        assert_eq!(answer(quota).refusal(), Some(Refusal::Refused(RefusedReason::QuotaExceeded)));
        assert_eq!(answer(missing).refusal(), Some(Refusal::Refused(RefusedReason::Forbidden)));
        assert_eq!(answer(going).refusal(), Some(Refusal::Refused(RefusedReason::NamespaceTerminating)));
        assert_eq!(answer(serde_json::json!({ "code": 422 })).refusal(), Some(Refusal::Rejected));
        assert_eq!(answer(serde_json::json!({ "code": 500 })).refusal(), None);
    }
}
