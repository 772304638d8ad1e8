//! What went wrong, and its class: the one place that says when a failed write is worth another try.
//!
//! | class | what | tried again |
//! |---|---|---|
//! | `Stale` | a conflict: we have decided on what is no longer so | three times at once, on fresh state, then as `Failing` |
//! | `Unavailable` | network, no answer in time, 502 to 504, a store that does not answer | after 0.25 s, doubling to 2 s |
//! | `Busy` | 429 | when the API server says (`Retry-After`), else as `Unavailable` |
//! | `Failing` | any other answer, such as that of a policy or of rights that are missing | after 0.25 s, doubling to 30 s |
//! | `Refused` | a create: quota, policy, webhook, something missing | after 1 s, doubling to 15 s |
//! | `Rejected` | 422 on a create: the template makes no pod | when the spec changes; or after 60 s, doubling to 15 min |
//!
//! A failed create holds back the creates of its job, and nothing else: what has ended is counted and let go meanwhile.
//! While the API server is unavailable, how often anybody tries is for [`outage`](crate::outage): a job's own delay only
//! has to end soon after its return.

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
    #[error("{}", said(.0))]
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
    Unavailable,
    Busy { retry_after: Option<Duration> },
    Failing,
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

    /// None: the pod was refused.
    pub fn class(&self) -> Option<Class> {
        match self {
            Error::Write { class, .. } | Error::Unanswered { class, .. } => Some(*class),
            Error::Refused { .. } | Error::NameTaken { .. } => None,
        }
    }

    pub fn is_create(&self) -> bool {
        matches!(self, Error::Refused { .. } | Error::NameTaken { .. } | Error::Unanswered { .. })
    }

    /// What the user is to know, because it may be his to mend: the answer to a write other than a create, where it
    /// says that the write is not allowed or not possible, and not only that it comes at a bad time.
    pub fn complaint(&self) -> Option<String> {
        match self {
            Error::Write { what, source, .. } => {
                let is_no =
                    |status: &&Status| matches!(status.code, 400 | 403 | 422) || is_by_admission(&status.message);
                let status = source.status().filter(is_no)?;
                Some(format!("cannot {what}: {}", status.message))
            }
            // Not in an outage, when nobody answers.
            Error::Unanswered { class: Class::Failing, source, .. } => {
                Some(format!("cannot create pods: {}", source.status()?.message))
            }
            _ => None,
        }
    }

    /// The value of the metric's label.
    pub fn label(&self) -> &'static str {
        match self {
            Error::Write { class, .. } | Error::Unanswered { class, .. } => match class {
                Class::Stale => "stale",
                Class::Unavailable => "unavailable",
                Class::Busy { .. } => "busy",
                Class::Failing => "failing",
            },
            Error::Refused { refusal: Refusal::Refused(_), .. } | Error::NameTaken { .. } => "refused",
            Error::Refused { refusal: Refusal::Rejected, .. } => "rejected",
        }
    }
}

/// kube says all of a status twice.
fn said(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => format!("{} ({})", status.message, status.code),
        error => error.to_string(),
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
        self.of_the_object().is_some_and(|status| status.reason == "AlreadyExists")
    }

    pub fn is_conflict(&self) -> bool {
        self.of_the_object().is_some_and(|status| status.code == 409 && status.reason != "AlreadyExists")
    }

    pub fn is_invalid(&self) -> bool {
        self.of_the_object().is_some_and(|status| status.code == 422)
    }

    /// The answer, if it is the API server's own: what admission says by any code is no word about what is stored.
    fn of_the_object(&self) -> Option<&Status> {
        self.status().filter(|status| !is_by_admission(&status.message))
    }

    pub fn class(&self) -> Class {
        let Some(status) = self.status() else {
            return match self {
                WriteError::Unexpected(_) => Class::Failing,
                // There was an answer, or not even a question.
                WriteError::Client(kube::Error::SerdeError(_) | kube::Error::BuildRequest(_)) => Class::Failing,
                _ => Class::Unavailable,
            };
        };
        match status.code {
            _ if is_by_admission(&status.message) => Class::Failing,
            _ if self.is_conflict() || self.is_invalid() => Class::Stale,
            429 => Class::Busy { retry_after: retry_after(status) },
            502..=504 => Class::Unavailable,
            500 if is_of_the_store(&status.message) => Class::Unavailable,
            _ => Class::Failing,
        }
    }

    /// Whether it is the API server as a whole that does not work, for all that this one answer tells.
    pub fn is_outage(&self) -> bool {
        matches!(self.class(), Class::Unavailable | Class::Busy { .. }) && !matches!(self, WriteError::TermEnded)
    }

    /// What a failed create says about the pod itself; None if it says nothing about it.
    pub fn refusal(&self) -> Option<Refusal> {
        let status = self.status()?;
        let has_cause = |reason: &str| {
            status.details.iter().flat_map(|details| &details.causes).any(|cause| cause.reason == reason)
        };
        let refused = match status.code {
            403 if has_cause("NamespaceTerminating") => RefusedReason::NamespaceTerminating,
            403 if status.message.contains("exceeded quota") => RefusedReason::QuotaExceeded,
            // Whatever code it gives: it may say something else in a minute.
            _ if is_by_admission(&status.message) => RefusedReason::Forbidden,
            500 if status.message.contains("failed calling webhook") => RefusedReason::WebhookFailed,
            422 => return Some(Refusal::Rejected),
            400 | 403 => RefusedReason::Forbidden,
            _ => return None,
        };
        Some(Refusal::Refused(refused))
    }
}

/// By a webhook (`ToStatusErr` in `k8s.io/apiserver/pkg/admission/plugin/webhook/errors`), which chooses the code itself, or by
/// a `ValidatingAdmissionPolicy`, whose code is 422 if it names none (`policy/validating/dispatcher.go`).
fn is_by_admission(message: &str) -> bool {
    message.starts_with("admission webhook ")
        || (message.contains("ValidatingAdmissionPolicy") && message.contains("denied request"))
}

/// What the API server passes on, as an internal error, of an etcd that is away, full or without a leader; but not what
/// etcd says of one object.
fn is_of_the_store(message: &str) -> bool {
    let is_from_there = ["etcdserver: ", "rpc error: "].into_iter().any(|sign| message.contains(sign));
    is_from_there && !message.contains("request is too large")
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
        assert!(busy.is_outage());
    }

    #[test]
    fn a_server_that_is_away_is_told_from_one_that_says_no() {
        let full = "etcdserver: mvcc: database space exceeded";
        let webhook =
            "Internal error occurred: failed calling webhook \"x\": failed to call webhook: connection refused";
        for (code, message, class) in [
            (503, "", Class::Unavailable),
            (504, "", Class::Unavailable),
            (500, full, Class::Unavailable),
            (500, webhook, Class::Failing),
            (500, "etcdserver: request is too large", Class::Failing),
            (403, "no rights", Class::Failing),
            (404, "", Class::Failing),
        ] {
            let error = answer(serde_json::json!({ "code": code, "message": message }));
            assert_eq!(error.class(), class, "{code} {message}");
            assert_eq!(error.is_outage(), class == Class::Unavailable, "{code} {message}");
        }
        assert!(WriteError::TimedOut(Duration::ZERO).is_outage());
        assert!(!WriteError::TermEnded.is_outage() && !WriteError::Unexpected("").is_outage());
    }

    #[test]
    fn a_refused_pod_is_told_from_one_that_can_never_be() {
        let quota = serde_json::json!({ "code": 403, "message": "pods \"x\" is forbidden: exceeded quota: q" });
        let missing = serde_json::json!({ "code": 403, "message": "error looking up service account" });
        let going = serde_json::json!({ "code": 403, "details": { "causes": [{ "reason": "NamespaceTerminating" }] } });
        let refused = |reason| Some(Refusal::Refused(reason));
        assert_eq!(answer(quota).refusal(), refused(RefusedReason::QuotaExceeded));
        assert_eq!(answer(missing).refusal(), refused(RefusedReason::Forbidden));
        assert_eq!(answer(going).refusal(), refused(RefusedReason::NamespaceTerminating));
        assert_eq!(answer(serde_json::json!({ "code": 422 })).refusal(), Some(Refusal::Rejected));
        assert_eq!(answer(serde_json::json!({ "code": 500 })).refusal(), None);
    }

    /// Whoever is asked about a pod may choose any code; it says nothing for ever, and nothing about the API server.
    #[test]
    fn what_admission_says_may_change() {
        for code in [400, 403, 409, 422, 429, 500, 503] {
            let webhook = r#"admission webhook "a.b.c" denied the request: not now"#;
            let denied = answer(serde_json::json!({ "code": code, "message": webhook }));
            assert_eq!(denied.refusal(), Some(Refusal::Refused(RefusedReason::Forbidden)), "{code}");
            assert!(!denied.is_outage(), "{code}");
        }
        let policy = r#"pods "x" is forbidden: ValidatingAdmissionPolicy 'p' with binding 'b' denied request: not now"#;
        let denied = answer(serde_json::json!({ "code": 422, "message": policy }));
        assert_eq!(denied.refusal(), Some(Refusal::Refused(RefusedReason::Forbidden)));
        let away = r#"Internal error occurred: failed calling webhook "a.b.c": failed to call webhook: no"#;
        let away = answer(serde_json::json!({ "code": 500, "message": away }));
        assert_eq!(away.refusal(), Some(Refusal::Refused(RefusedReason::WebhookFailed)));
    }

    #[test]
    fn the_user_hears_of_what_is_not_allowed_and_not_of_bad_luck() {
        let complaint = |code| Error::write("write", answer(serde_json::json!({ "code": code }))).complaint();
        assert!([400, 403, 422].into_iter().all(|code| complaint(code).is_some()));
        assert!([404, 409, 429, 500, 503].into_iter().all(|code| complaint(code).is_none()));
        let policy = "x is forbidden: ValidatingAdmissionPolicy 'p' with binding 'b' denied request: not now";
        let denied = answer(serde_json::json!({ "code": 422, "message": policy }));
        assert!(!denied.is_invalid() && denied.class() == Class::Failing, "it is no word about what is stored");
        assert_eq!(Error::write("write", denied).complaint(), Some(format!("cannot write: {policy}")));
    }
}
