//! A request that is refused: the `Status` that says so, in the words of the real API server.

use bytes::Bytes;
use serde_json::{Value, json};

use super::kind::Kind;

/// Why a request is refused.
#[derive(Clone, Debug, PartialEq)]
pub struct Refusal {
    pub code: u16,
    /// Empty where the real API server knows no word for it.
    pub reason: &'static str,
    pub message: String,
    /// The `details` of the `Status`; null if it has none.
    pub details: Value,
}

/// One field that is wrong.
#[derive(Clone, Debug, PartialEq)]
pub struct Cause {
    pub reason: &'static str,
    pub field: String,
    pub message: String,
}

impl Cause {
    pub fn invalid(field: impl Into<String>, message: impl Into<String>) -> Cause {
        Cause { reason: "FieldValueInvalid", field: field.into(), message: message.into() }
    }

    pub fn forbidden(field: impl Into<String>, message: impl Into<String>) -> Cause {
        Cause { reason: "FieldValueForbidden", field: field.into(), message: message.into() }
    }

    pub fn required(field: impl Into<String>, message: impl Into<String>) -> Cause {
        Cause { reason: "FieldValueRequired", field: field.into(), message: message.into() }
    }
}

impl Refusal {
    pub fn new(code: u16, reason: &'static str, message: impl Into<String>) -> Refusal {
        Refusal { code, reason, message: message.into(), details: Value::Null }
    }

    pub fn not_found(kind: Kind, name: &str) -> Refusal {
        Refusal::new(404, "NotFound", format!("{} {name:?} not found", kind.resource())).about(kind, name)
    }

    pub fn already_exists(kind: Kind, name: &str, is_being_deleted: bool) -> Refusal {
        let prefix = if is_being_deleted { "object is being deleted: " } else { "" };
        Refusal::new(409, "AlreadyExists", format!("{prefix}{} {name:?} already exists", kind.resource()))
            .about(kind, name)
    }

    pub fn conflict(kind: Kind, name: &str, why: impl std::fmt::Display) -> Refusal {
        let message = format!("Operation cannot be fulfilled on {} {name:?}: {why}", kind.resource());
        Refusal::new(409, "Conflict", message).about(kind, name)
    }

    /// The precondition of a delete is not met; the real one names the kind, where it else names the resource.
    pub fn unmet_precondition(kind: Kind, name: &str, why: impl std::fmt::Display) -> Refusal {
        let message = format!("Operation cannot be fulfilled on {} {name:?}: {why}", kind.qualified_name());
        let mut refusal = Refusal::new(409, "Conflict", message).about(kind, name);
        refusal.details["kind"] = kind.name().into();
        refusal
    }

    /// One that another request was in the way of.
    pub fn outdated(kind: Kind, name: &str) -> Refusal {
        let why = "the object has been modified; please apply your changes to the latest version and try again";
        Refusal::conflict(kind, name, why)
    }

    pub fn invalid(kind: Kind, name: &str, causes: &[Cause]) -> Refusal {
        let texts: Vec<String> = causes.iter().map(|cause| format!("{}: {}", cause.field, cause.message)).collect();
        let text = if texts.len() == 1 { texts.concat() } else { format!("[{}]", texts.join(", ")) };
        let message = format!("{} {name:?} is invalid: {text}", kind.qualified_name());
        let mut refusal = Refusal::new(422, "Invalid", message).about(kind, name);
        refusal.details["kind"] = kind.name().into();
        let causes = causes.iter();
        refusal.details["causes"] = causes
            .map(|cause| json!({ "reason": cause.reason, "field": cause.field, "message": cause.message }))
            .collect();
        refusal
    }

    pub fn bad_request(message: impl Into<String>) -> Refusal {
        Refusal::new(400, "BadRequest", message)
    }

    /// What quota admission says.
    pub fn quota_exceeded(kind: Kind, name: &str, quota: &str) -> Refusal {
        let message = format!("{} {name:?} is forbidden: exceeded quota: {quota}", kind.resource());
        Refusal::new(403, "Forbidden", message).about(kind, name)
    }

    /// What namespace admission says of a namespace that is being deleted.
    pub fn namespace_terminating(kind: Kind, name: &str, namespace: &str) -> Refusal {
        let why = format!("namespace {namespace} is being terminated");
        let message = format!(
            "{} {name:?} is forbidden: unable to create new content in namespace {namespace} because it is being terminated",
            kind.resource()
        );
        let mut refusal = Refusal::new(403, "Forbidden", message).about(kind, name);
        refusal.details["causes"] =
            json!([{ "reason": "NamespaceTerminating", "field": "metadata.namespace", "message": why }]);
        refusal
    }

    /// What a validating webhook says that gives no code of its own.
    pub fn webhook(webhook: &str, why: &str) -> Refusal {
        Refusal::new(400, "", format!("admission webhook {webhook:?} denied the request: {why}"))
    }

    pub fn too_many_requests(retry_after_seconds: u32) -> Refusal {
        let mut refusal = Refusal::new(429, "TooManyRequests", "too many requests, please try again later");
        refusal.details = json!({ "retryAfterSeconds": retry_after_seconds });
        refusal
    }

    /// What came after that revision is no longer kept.
    pub(super) fn expired(what: String) -> Refusal {
        Refusal::new(410, "Expired", what)
    }

    fn about(mut self, kind: Kind, name: &str) -> Refusal {
        let mut details = serde_json::Map::new();
        for (field, value) in [("name", name), ("group", kind.group()), ("kind", kind.plural())] {
            if !value.is_empty() {
                details.insert(field.to_owned(), value.into());
            }
        }
        self.details = details.into();
        self
    }

    pub(super) fn status(&self) -> Value {
        let mut status = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {},
            "status": "Failure", "message": self.message, "code": self.code,
        });
        if !self.reason.is_empty() {
            status["reason"] = self.reason.into();
        }
        if !self.details.is_null() {
            status["details"] = self.details.clone();
        }
        status
    }

    pub fn body(&self) -> Bytes {
        self.status().to_string().into()
    }
}
