//! What the API server refuses, and what the user then reads.
//!
//! The rules are batch/v1 Job's (k8s.io/kubernetes v1.37, `pkg/apis/batch/validation/validation.go`; each row names the
//! function), written in CEL so that the API server itself checks them and no webhook is needed. Numbers that must not be
//! negative are not here: `minimum: 0` in the schema says it, and the API server's own message is clear. Neither are
//! the rules of the pod template: the API server applies them to the first pod, and the job's status tells what it said.
//!
//! A message says what to write instead. The field is not repeated in it where the API server already puts it in front
//! of the message (`spec.completions: Required value: …`).
//!
//! All rules stand on `spec`, or on the root where they need the name, and never on an optional field itself: a rule on
//! a field that is absent is not evaluated, so one on the field would miss that it was removed.

use crate::unsupported::{Refused, Unsupported};

/// A CEL rule, as it stands in the CRD.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// The field the API server names in front of the message, from where the rule stands.
    pub field_path: String,
    /// The CEL expression that has to be true.
    pub rule: String,
    /// What the user reads if it is not.
    pub message: String,
    /// The kind of error.
    pub reason: Reason,
}

/// The kind of error, as the API server words it in front of the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// "Invalid value: …".
    Invalid,
    /// "Forbidden: …".
    Forbidden,
    /// "Required value: …".
    Required,
}

impl Reason {
    /// The word in the CRD.
    pub fn as_str(self) -> &'static str {
        match self {
            Reason::Invalid => "FieldValueInvalid",
            Reason::Forbidden => "FieldValueForbidden",
            Reason::Required => "FieldValueRequired",
        }
    }
}

/// A rule of batch/v1 Job, with the optional field without which it says nothing, if there is one.
struct Upstream {
    about: Option<&'static str>,
    field_path: &'static str,
    reason: Reason,
    rule: &'static str,
    message: &'static str,
}

/// The longest name: it is the value of the pods' label `batch.kubernetes.io/job-name`, and a label's value ends at 63.
/// It stands in the schema as `maxLength`, which also tells the API server what the rules on the name can cost.
pub const MAX_NAME: u32 = 63;

/// Rules on the root, which sees `metadata.name`.
const ROOT: &[Upstream] = &[
    // Stricter than validateJobCreate, which takes a DNS subdomain: the name begins pod names, hostnames and, later,
    // names of Services, and none of those may have a dot everywhere. The API server has checked everything else of a
    // DNS label when this rule is reached.
    Upstream {
        about: None,
        field_path: ".metadata.name",
        reason: Reason::Invalid,
        rule: "!self.metadata.name.contains('.')",
        message: "must not contain a dot, because it begins the names and hostnames of the pods: write etl-daily, not \
                  etl.daily",
    },
    // validateNameAllowsCompletions: the hostname of the last pod, NAME-(completions - 1), has to be a DNS label.
    Upstream {
        about: None,
        field_path: ".metadata.name",
        reason: Reason::Invalid,
        rule: "!has(self.spec.completionMode) || self.spec.completionMode != 'Indexed' || \
               !has(self.spec.completions) || self.spec.completions < 1 || \
               size(self.metadata.name) + 1 + size(string(self.spec.completions - 1)) <= 63",
        message: "is too long for an Indexed job: the hostname of its last pod, NAME-INDEX, must have at most 63 \
                  characters, so shorten the name",
    },
];

/// Rules on `spec` that look at the new spec only.
const SPEC: &[Upstream] = &[
    // validateJobSpec. Absent is refused too, because it means Always in a pod.
    Upstream {
        about: None,
        field_path: ".template.spec.restartPolicy",
        reason: Reason::Required,
        rule: "has(self.template.spec.restartPolicy) && self.template.spec.restartPolicy in ['OnFailure', 'Never']",
        message: "write OnFailure (the container is restarted in its pod) or Never (each attempt is a new pod); absent \
                  means Always, and such a pod never ends",
    },
    // validateJobSpec.
    Upstream {
        about: None,
        field_path: ".completions",
        reason: Reason::Required,
        rule: "!has(self.completionMode) || self.completionMode != 'Indexed' || has(self.completions)",
        message: "completionMode Indexed needs it: write how many indexes there are",
    },
    // validateJobSpec, maxParallelismForIndexedJob.
    Upstream {
        about: None,
        field_path: ".parallelism",
        reason: Reason::Invalid,
        rule: "!has(self.completionMode) || self.completionMode != 'Indexed' || !has(self.parallelism) || \
               self.parallelism <= 100000",
        message: "must be at most 100000 when completionMode is Indexed",
    },
    // validateJobSpec, for each of the three fields that speak of single indexes.
    Upstream {
        about: Some("backoffLimitPerIndex"),
        field_path: ".backoffLimitPerIndex",
        reason: Reason::Invalid,
        rule: "!has(self.backoffLimitPerIndex) || (has(self.completionMode) && self.completionMode == 'Indexed')",
        message: "needs completionMode Indexed: write that too, or use backoffLimit",
    },
    Upstream {
        about: Some("maxFailedIndexes"),
        field_path: ".maxFailedIndexes",
        reason: Reason::Invalid,
        rule: "!has(self.maxFailedIndexes) || (has(self.completionMode) && self.completionMode == 'Indexed')",
        message: "needs completionMode Indexed: write that too, or use backoffLimit",
    },
    Upstream {
        about: Some("successPolicy"),
        field_path: ".successPolicy",
        reason: Reason::Forbidden,
        rule: "!has(self.successPolicy) || (has(self.completionMode) && self.completionMode == 'Indexed')",
        message: "needs completionMode Indexed: write that too, or remove it",
    },
    // validateJobSpec.
    Upstream {
        about: Some("maxFailedIndexes"),
        field_path: ".backoffLimitPerIndex",
        reason: Reason::Required,
        rule: "!has(self.maxFailedIndexes) || has(self.backoffLimitPerIndex)",
        message: "maxFailedIndexes needs it: write how many attempts of one index may fail",
    },
    Upstream {
        about: Some("maxFailedIndexes"),
        field_path: ".maxFailedIndexes",
        reason: Reason::Invalid,
        rule: "!has(self.maxFailedIndexes) || !has(self.completions) || self.maxFailedIndexes <= self.completions",
        message: "must be at most completions",
    },
    // validateJobSpec, maxFailedIndexesForIndexedJob.
    Upstream {
        about: Some("maxFailedIndexes"),
        field_path: ".maxFailedIndexes",
        reason: Reason::Invalid,
        rule: "!has(self.maxFailedIndexes) || self.maxFailedIndexes <= 100000",
        message: "must be at most 100000",
    },
    // validateJobSpec, completionsSoftLimit and the limits for what lies above it.
    Upstream {
        about: Some("backoffLimitPerIndex"),
        field_path: ".maxFailedIndexes",
        reason: Reason::Required,
        rule: "!has(self.backoffLimitPerIndex) || !has(self.completions) || self.completions <= 100000 || \
               has(self.maxFailedIndexes)",
        message: "completions above 100000 together with backoffLimitPerIndex need it: write at most 10000",
    },
    Upstream {
        about: Some("backoffLimitPerIndex"),
        field_path: ".maxFailedIndexes",
        reason: Reason::Invalid,
        rule: "!has(self.backoffLimitPerIndex) || !has(self.completions) || self.completions <= 100000 || \
               !has(self.maxFailedIndexes) || self.maxFailedIndexes <= 10000",
        message: "must be at most 10000 when completions is above 100000 and backoffLimitPerIndex is set",
    },
    Upstream {
        about: Some("backoffLimitPerIndex"),
        field_path: ".parallelism",
        reason: Reason::Invalid,
        rule: "!has(self.backoffLimitPerIndex) || !has(self.completions) || self.completions <= 100000 || \
               !has(self.parallelism) || self.parallelism <= 10000",
        message: "must be at most 10000 when completions is above 100000 and backoffLimitPerIndex is set",
    },
    // validateJobSpec.
    Upstream {
        about: Some("podFailurePolicy"),
        field_path: ".template.spec.restartPolicy",
        reason: Reason::Invalid,
        rule: "!has(self.podFailurePolicy) || \
               (has(self.template.spec.restartPolicy) && self.template.spec.restartPolicy == 'Never')",
        message: "must be Never when podFailurePolicy is set",
    },
    // validatePodReplacementPolicy.
    Upstream {
        about: Some("podFailurePolicy"),
        field_path: ".podReplacementPolicy",
        reason: Reason::Invalid,
        rule: "!has(self.podFailurePolicy) || !has(self.podReplacementPolicy) || self.podReplacementPolicy == 'Failed'",
        message: "must be Failed, or absent, when podFailurePolicy is set",
    },
];

const IMMUTABLE: &str = "cannot be changed: delete this BatchJob and create it anew, or create one with another name";

/// Rules on `spec` that compare it with what it was (`ValidateJobSpecUpdate`).
const UPDATE: &[Upstream] = &[
    // validatePodTemplateUpdate. Later: what Job allows on a suspended job (scheduling directives, resources).
    Upstream {
        about: None,
        field_path: ".template",
        reason: Reason::Forbidden,
        rule: "self.template == oldSelf.template",
        message: IMMUTABLE,
    },
    // CEL compares a list whose schema says `map` without regard to order, and init containers run in theirs.
    Upstream {
        about: None,
        field_path: ".template",
        reason: Reason::Forbidden,
        rule: "!has(self.template.spec.initContainers) || !has(oldSelf.template.spec.initContainers) || \
               self.template.spec.initContainers.map(c, c.name) == oldSelf.template.spec.initContainers.map(c, c.name)",
        message: "cannot be changed, nor can the order of its initContainers: delete this BatchJob and create it anew, \
                  or create one with another name",
    },
    // ValidateJobSpecUpdate. Absent and NonIndexed are the same, because there the default is filled in.
    Upstream {
        about: None,
        field_path: ".completionMode",
        reason: Reason::Forbidden,
        rule: "(has(self.completionMode) ? self.completionMode : 'NonIndexed') == \
               (has(oldSelf.completionMode) ? oldSelf.completionMode : 'NonIndexed')",
        message: IMMUTABLE,
    },
    // validateCompletions. What is compared is the effective value, where -1 stands for a work queue.
    Upstream {
        about: None,
        field_path: ".completions",
        reason: Reason::Forbidden,
        rule: "(!has(self.completions) && !has(oldSelf.completions)) || \
               (has(self.completions) ? self.completions : has(self.parallelism) ? -1 : 1) == \
               (has(oldSelf.completions) ? oldSelf.completions : has(oldSelf.parallelism) ? -1 : 1)",
        message: "cannot be changed by this version of batchjob, not even together with parallelism as in an Indexed \
                  batch/v1 Job: delete this BatchJob and create it anew, or create one with another name",
    },
    // The same where completions is absent. In a Job `completions: 1` is filled in at creation if parallelism is absent
    // too; here nothing is filled in, and `kubectl scale` on such a job would make it a work queue.
    Upstream {
        about: None,
        field_path: ".parallelism",
        reason: Reason::Forbidden,
        rule: "has(self.completions) || has(oldSelf.completions) || has(self.parallelism) == has(oldSelf.parallelism)",
        message: "cannot be added or removed while completions is absent, because without both completions is 1, and \
                  with parallelism alone the job is a work queue: to run more pods of the former, write completions: 1 \
                  as well",
    },
    Upstream {
        about: Some("podFailurePolicy"),
        field_path: ".podFailurePolicy",
        reason: Reason::Forbidden,
        rule: "has(self.podFailurePolicy) == has(oldSelf.podFailurePolicy) && \
               (!has(self.podFailurePolicy) || self.podFailurePolicy == oldSelf.podFailurePolicy)",
        message: IMMUTABLE,
    },
    Upstream {
        about: Some("backoffLimitPerIndex"),
        field_path: ".backoffLimitPerIndex",
        reason: Reason::Forbidden,
        rule: "has(self.backoffLimitPerIndex) == has(oldSelf.backoffLimitPerIndex) && \
               (!has(self.backoffLimitPerIndex) || self.backoffLimitPerIndex == oldSelf.backoffLimitPerIndex)",
        message: IMMUTABLE,
    },
    Upstream {
        about: Some("successPolicy"),
        field_path: ".successPolicy",
        reason: Reason::Forbidden,
        rule: "has(self.successPolicy) == has(oldSelf.successPolicy) && \
               (!has(self.successPolicy) || self.successPolicy == oldSelf.successPolicy)",
        message: IMMUTABLE,
    },
];

/// The rules on the root of the object.
pub fn root() -> Vec<Rule> {
    ROOT.iter().map(Upstream::rule).collect()
}

/// The rules on `spec`: what is unsupported, then batch/v1 Job's rules about the rest.
///
/// A field that is refused altogether gets no second message about how it should have been written.
pub fn spec(unsupported: &[Unsupported]) -> Vec<Rule> {
    let refused = |field: &str| unsupported.iter().any(|row| row.field == field && row.what == Refused::Field);
    let upstream = SPEC.iter().chain(UPDATE).filter(|row| !row.about.is_some_and(refused)).map(Upstream::rule);
    unsupported.iter().map(Unsupported::as_rule).chain(upstream).collect()
}

impl Upstream {
    fn rule(&self) -> Rule {
        Rule {
            field_path: self.field_path.into(),
            rule: self.rule.into(),
            message: self.message.into(),
            reason: self.reason,
        }
    }
}

impl Unsupported {
    fn as_rule(&self) -> Rule {
        Rule {
            field_path: format!(".{}", self.field),
            rule: self.rule(),
            message: self.message(),
            reason: Reason::Forbidden,
        }
    }
}
