//! What the API server refuses, and what the user then reads.
//!
//! The rules are batch/v1 Job's (k8s.io/kubernetes v1.37, `pkg/apis/batch/validation/validation.go`; each row names the
//! function), written in CEL so that the API server itself checks them and no webhook is needed. What a schema can say
//! by itself (numbers that must not be negative, sets of words, lengths) is in [`crate::schema`], because the API server's
//! own message is clear.
//!
//! A message says what to write instead. The field is not repeated in it where the API server already puts it in front
//! of the message (`spec.completions: Required value: …`).
//!
//! A rule on a field that is absent is not evaluated, so one that has to miss a field stands above it: on the root where
//! it needs the name or the status, on `spec`, or on the entry of a list.
//!
//! # What CEL cannot say
//!
//! The API server estimates what a rule can cost at most and refuses one that could be too expensive, and CEL does not
//! see everything. So these are different from a Job:
//!
//! | | because | so |
//! |---|---|---|
//! | the rules of the pod template (`ValidatePodTemplateSpec`) | they are code in the API server | the first pod is refused, and the job's status tells why |
//! | that succeededCount is at most the number of succeededIndexes, if these have more than 6000 characters | cost | the operator refuses it: the job is Stalled |
//! | a template with more than [`MAX_CONTAINERS`] containers | cost of comparing them | it is refused |
//! | the order of lists with keys inside a container, such as `env`, and of volumes | CEL compares them without it | it may change, for new pods |
//! | `overhead` of a suspended job's template | CEL does not see quantities | it may change; pods get theirs from the RuntimeClass |
//! | a field of the template that is written out with its default, or as an empty list | no default is filled in, so it is a change | it is refused |
//! | the labels of a generated selector in the template | CEL does not see the uid | the operator sets its own on every pod |

use k8s_openapi::api::core::v1::{Container, PodSpec};
use schemars::JsonSchema;

use crate::schema::kubernetes;
use crate::unsupported::{UNSUPPORTED, Unsupported};

/// A CEL rule, as it stands in the CRD.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// The part of the object that is `self` in it, such as `spec.podFailurePolicy.rules[]`; empty: the whole.
    pub stands_on: String,
    /// The field the API server names in front of the message, from where the rule stands; empty: that one.
    pub field_path: String,
    /// The CEL expression that has to be true.
    pub rule: String,
    /// What the user reads if it is not.
    pub message: String,
    /// A CEL expression in place of it, which puts the entry of a list in front of it.
    pub message_expression: Option<String>,
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

/// A rule as it is written down here.
pub(crate) struct Row {
    pub field_path: &'static str,
    pub reason: Reason,
    pub rule: &'static str,
    pub message: &'static str,
}

/// The longest name: it is the value of the pods' label `batch.kubernetes.io/job-name`, and a label's value ends at 63.
/// It stands in the schema as `maxLength`, which also tells the API server what the rules on the name can cost.
pub const MAX_NAME: u32 = 63;

/// Rules on the root, which sees `metadata.name`.
const ROOT: &[Row] = &[
    // Stricter than validateJobCreate, which takes a DNS subdomain: the name begins pod names, hostnames and, later,
    // names of Services, and none of those may have a dot everywhere. The API server has checked everything else of a
    // DNS label when this rule is reached.
    Row {
        field_path: ".metadata.name",
        reason: Reason::Invalid,
        rule: "!self.metadata.name.contains('.')",
        message: "must not contain a dot, because it begins the names and hostnames of the pods: write etl-daily, not \
                  etl.daily",
    },
    // validateNameAllowsCompletions: the hostname of the last pod, NAME-(completions - 1), has to be a DNS label.
    Row {
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
const SPEC: &[Row] = &[
    // validateJobSpec. Absent is refused too, because it means Always in a pod.
    Row {
        field_path: ".template.spec.restartPolicy",
        reason: Reason::Required,
        rule: "has(self.template.spec.restartPolicy) && self.template.spec.restartPolicy in ['OnFailure', 'Never']",
        message: "write OnFailure (the container is restarted in its pod) or Never (each attempt is a new pod); absent \
                  means Always, and such a pod never ends",
    },
    // validateJobSpec.
    Row {
        field_path: ".completions",
        reason: Reason::Required,
        rule: "!has(self.completionMode) || self.completionMode != 'Indexed' || has(self.completions)",
        message: "completionMode Indexed needs it: write how many indexes there are",
    },
    // validateJobSpec, maxParallelismForIndexedJob.
    Row {
        field_path: ".parallelism",
        reason: Reason::Invalid,
        rule: "!has(self.completionMode) || self.completionMode != 'Indexed' || !has(self.parallelism) || \
               self.parallelism <= 100000",
        message: "must be at most 100000 when completionMode is Indexed",
    },
    // validateJobSpec, for each of the three fields that speak of single indexes.
    Row {
        field_path: ".backoffLimitPerIndex",
        reason: Reason::Invalid,
        rule: "!has(self.backoffLimitPerIndex) || (has(self.completionMode) && self.completionMode == 'Indexed')",
        message: "needs completionMode Indexed: write that too, or use backoffLimit",
    },
    Row {
        field_path: ".maxFailedIndexes",
        reason: Reason::Invalid,
        rule: "!has(self.maxFailedIndexes) || (has(self.completionMode) && self.completionMode == 'Indexed')",
        message: "needs completionMode Indexed: write that too, or use backoffLimit",
    },
    Row {
        field_path: ".successPolicy",
        reason: Reason::Invalid,
        rule: "!has(self.successPolicy) || (has(self.completionMode) && self.completionMode == 'Indexed')",
        message: "needs completionMode Indexed: write that too, or remove it",
    },
    // validateJobSpec.
    Row {
        field_path: ".backoffLimitPerIndex",
        reason: Reason::Required,
        rule: "!has(self.maxFailedIndexes) || has(self.backoffLimitPerIndex)",
        message: "maxFailedIndexes needs it: write how many attempts of one index may fail",
    },
    Row {
        field_path: ".maxFailedIndexes",
        reason: Reason::Invalid,
        rule: "!has(self.maxFailedIndexes) || !has(self.completions) || self.maxFailedIndexes <= self.completions",
        message: "must be at most completions",
    },
    // validateJobSpec, maxFailedIndexesForIndexedJob.
    Row {
        field_path: ".maxFailedIndexes",
        reason: Reason::Invalid,
        rule: "!has(self.maxFailedIndexes) || self.maxFailedIndexes <= 100000",
        message: "must be at most 100000",
    },
    // validateJobSpec, completionsSoftLimit and the limits for what lies above it.
    Row {
        field_path: ".maxFailedIndexes",
        reason: Reason::Required,
        rule: "!has(self.backoffLimitPerIndex) || !has(self.completions) || self.completions <= 100000 || \
               has(self.maxFailedIndexes)",
        message: "completions above 100000 together with backoffLimitPerIndex need it: write at most 10000",
    },
    Row {
        field_path: ".maxFailedIndexes",
        reason: Reason::Invalid,
        rule: "!has(self.backoffLimitPerIndex) || !has(self.completions) || self.completions <= 100000 || \
               !has(self.maxFailedIndexes) || self.maxFailedIndexes <= 10000",
        message: "must be at most 10000 when completions is above 100000 and backoffLimitPerIndex is set",
    },
    Row {
        field_path: ".parallelism",
        reason: Reason::Invalid,
        rule: "!has(self.backoffLimitPerIndex) || !has(self.completions) || self.completions <= 100000 || \
               !has(self.parallelism) || self.parallelism <= 10000",
        message: "must be at most 10000 when completions is above 100000 and backoffLimitPerIndex is set",
    },
    // validateJobSpec.
    Row {
        field_path: ".template.spec.restartPolicy",
        reason: Reason::Invalid,
        rule: "!has(self.podFailurePolicy) || \
               (has(self.template.spec.restartPolicy) && self.template.spec.restartPolicy == 'Never')",
        message: "must be Never when podFailurePolicy is set",
    },
    // validateJobSpec, IsDomainPrefixedPath. Its length is in the schema.
    Row {
        field_path: ".managedBy",
        reason: Reason::Invalid,
        rule: "!has(self.managedBy) || self.managedBy.matches(\
               r'^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*/[-A-Za-z0-9/._~%!$&\\x27()*+,;=:]+$')",
        message: "must be a path with a domain in front: write batchjob.dev/operator, or remove it, to have the job run by \
                  this operator",
    },
    // validatePodReplacementPolicy.
    Row {
        field_path: ".podReplacementPolicy",
        reason: Reason::Invalid,
        rule: "!has(self.podFailurePolicy) || !has(self.podReplacementPolicy) || self.podReplacementPolicy == 'Failed'",
        message: "must be Failed, or absent, when podFailurePolicy is set",
    },
];

/// Rules on single entries and parts of the policies: where they stand, from the spec, and the rules.
const POLICIES: &[(&str, &[Row])] = &[
    ("podFailurePolicy.rules[]", FAILURE_RULE),
    ("podFailurePolicy.rules[].onExitCodes", ON_EXIT_CODES),
    ("podFailurePolicy.rules[].onPodConditions[]", ON_POD_CONDITION),
    ("successPolicy.rules[]", SUCCESS_RULE),
];

/// `validatePodFailurePolicyRule`.
const FAILURE_RULE: &[Row] = &[Row {
    field_path: "",
    reason: Reason::Invalid,
    rule: "has(self.onExitCodes) != (has(self.onPodConditions) && size(self.onPodConditions) > 0)",
    message: "must have one of onExitCodes and onPodConditions, and not both: write one rule for each",
}];

/// `validatePodFailurePolicyRuleOnExitCodes`.
const ON_EXIT_CODES: &[Row] = &[
    Row {
        field_path: ".values",
        reason: Reason::Invalid,
        rule: "self.operator != 'In' || !(0 in self.values)",
        message: "must not contain 0 when operator is In, because 0 is no failure: remove it",
    },
    Row {
        field_path: ".values",
        reason: Reason::Invalid,
        rule: "self.values.isSorted()",
        message: "must be in ascending order",
    },
];

/// `validatePodFailurePolicyRuleOnPodConditions`, ValidateQualifiedName.
const ON_POD_CONDITION: &[Row] = &[Row {
    field_path: ".type",
    reason: Reason::Invalid,
    rule: "!format.qualifiedName().validate(self.type).hasValue()",
    message: "must be a condition type, such as DisruptionTarget or example.com/Ready",
}];

/// `validateSuccessPolicyRule`.
const SUCCESS_RULE: &[Row] = &[
    Row {
        field_path: "",
        reason: Reason::Required,
        rule: "has(self.succeededIndexes) || has(self.succeededCount)",
        message: "write succeededIndexes, succeededCount or both",
    },
    // validateIndexesFormat. Numbers that grow by at least 1 do not get smaller when the place of each is taken off.
    // 64 KiB hold at most 12774 numbers that are all different.
    Row {
        field_path: ".succeededIndexes",
        reason: Reason::Invalid,
        rule: "!has(self.succeededIndexes) || self.succeededIndexes == '' || ( \
               self.succeededIndexes.matches(r'^(\\d+(-\\d+)?(,|$))+$') && !self.succeededIndexes.endsWith(',') && \
               self.succeededIndexes.replace('-', ',').split(',', 12775) \
               .transformList(i, n, double(n) - double(i)).isSorted())",
        message: "must be indexes and ranges of them in ascending order, without spaces: write them like 0,2-4",
    },
    // With 2-4 written as 2.5,-4 each number shows what it is: a start (2.5) takes its own off, an end (-4) puts its own
    // and one more on, and an index alone is one. To do that with more than 6000 characters could cost too much.
    Row {
        field_path: ".succeededCount",
        reason: Reason::Invalid,
        rule: "!has(self.succeededCount) || !has(self.succeededIndexes) || size(self.succeededIndexes) > 6000 || ( \
               self.succeededIndexes == '' ? self.succeededCount == 0 : \
               !self.succeededIndexes.matches(r'^(\\d+(-\\d+)?(,|$))+$') || self.succeededIndexes.endsWith(',') || \
               self.succeededCount <= self.succeededIndexes.replace('-', '.5,-').split(',', 3001) \
               .map(n, double(n) < 0.0 ? 1 - int(double(n)) : \
               double(n) == double(int(double(n))) ? 1 : -int(double(n))).sum())",
        message: "must be at most the number of indexes in succeededIndexes",
    },
];

/// A rule about each entry of a list that has to see more than the entry, which is `r` in it. It stands on the spec, and
/// the message begins with the field.
struct Entry {
    list: &'static str,
    field: &'static str,
    rule: &'static str,
    message: &'static str,
}

const ENTRIES: &[Entry] = &[
    // validatePodFailurePolicyRule.
    Entry {
        list: "podFailurePolicy.rules",
        field: "action",
        rule: "r.action != 'FailIndex' || has(self.backoffLimitPerIndex)",
        message: "FailIndex needs backoffLimitPerIndex: write that too, or use FailJob",
    },
    // validatePodFailurePolicyRuleOnExitCodes.
    Entry {
        list: "podFailurePolicy.rules",
        field: "onExitCodes.containerName",
        rule: "!has(r.onExitCodes) || !has(r.onExitCodes.containerName) || \
               self.template.spec.containers.exists(c, c.name == r.onExitCodes.containerName) || \
               (has(self.template.spec.initContainers) && \
               self.template.spec.initContainers.exists(c, c.name == r.onExitCodes.containerName))",
        message: "must be the name of one of the containers or initContainers in the template",
    },
    // validateIndexesFormat: the last one is the greatest.
    Entry {
        list: "successPolicy.rules",
        field: "succeededIndexes",
        rule: "!has(self.completions) || !has(r.succeededIndexes) || !r.succeededIndexes.matches(r'\\d$') || \
               double(r.succeededIndexes.find(r'\\d+$')) < double(self.completions)",
        message: "must be below completions: the last index is completions - 1",
    },
    // validateSuccessPolicyRule.
    Entry {
        list: "successPolicy.rules",
        field: "succeededCount",
        rule: "!has(self.completions) || !has(r.succeededCount) || r.succeededCount <= self.completions",
        message: "must be at most completions",
    },
];

const IMMUTABLE: &str = "cannot be changed: delete this BatchJob and create it anew, or create one with another name";

/// Fields of `spec` that never change (`ValidateJobSpecUpdate`), and what of them is compared, where `SELF` is the old
/// and the new spec: with the default where a Job has one filled in.
const IMMUTABLE_FIELDS: &[(&str, &str)] = &[
    ("completionMode", "has(SELF.completionMode) ? SELF.completionMode : 'NonIndexed'"),
    ("backoffLimitPerIndex", "has(SELF.backoffLimitPerIndex) ? dyn(SELF.backoffLimitPerIndex) : null"),
    ("managedBy", "has(SELF.managedBy) ? dyn(SELF.managedBy) : null"),
    ("successPolicy", "has(SELF.successPolicy) ? dyn(SELF.successPolicy) : null"),
    (
        "podFailurePolicy",
        "has(SELF.podFailurePolicy) ? \
         dyn(has(SELF.podFailurePolicy.rules) ? SELF.podFailurePolicy.rules.map(r, [\
         dyn(r.action), has(r.onExitCodes) ? dyn(r.onExitCodes) : null, \
         has(r.onPodConditions) ? dyn(r.onPodConditions.map(p, [p.type, has(p.status) ? p.status : 'True'])) : []\
         ]) : []) : null",
    ),
];

/// Rules on `spec` that compare it with what it was, beside [`IMMUTABLE_FIELDS`] and those of [`template`].
const UPDATE: &[Row] = &[
    // validateCompletions. What is compared is the effective value, where -1 stands for a work queue.
    Row {
        field_path: ".completions",
        reason: Reason::Invalid,
        rule: "(!has(self.completions) && !has(oldSelf.completions)) || \
               (has(self.completions) ? self.completions : has(self.parallelism) ? -1 : 1) == \
               (has(oldSelf.completions) ? oldSelf.completions : has(oldSelf.parallelism) ? -1 : 1) || \
               (has(self.completionMode) && self.completionMode == 'Indexed' && has(self.completions) && \
               self.completions == (has(self.parallelism) ? self.parallelism : 1))",
        message: "can be changed only if completionMode is Indexed, and only to the same number as parallelism: write \
                  that too, or create a BatchJob with another name",
    },
    // The same where completions is absent. In a Job `completions: 1` is filled in at creation if parallelism is absent
    // too; here nothing is filled in, and `kubectl scale` on such a job would make it a work queue.
    Row {
        field_path: ".parallelism",
        reason: Reason::Forbidden,
        rule: "has(self.completions) || has(oldSelf.completions) || has(self.parallelism) == has(oldSelf.parallelism)",
        message: "cannot be added or removed while completions is absent, because without both completions is 1, and \
                  with parallelism alone the job is a work queue: to run more pods of the former, write completions: 1 \
                  as well",
    },
];

/// The spec of the template, from the root.
const POD: &str = "SELF.spec.template.spec";

/// The most containers, and the most initContainers, of a template: what the rules on them may cost rests on it.
pub const MAX_CONTAINERS: u32 = 1000;

/// Whether a part of the template may change: `shouldAllowMutablePodTemplate` in `pkg/registry/batch/job/strategy.go`.
const TEMPLATE_MAY_CHANGE: &str = "has(oldSelf.spec.suspend) && oldSelf.spec.suspend && (!has(oldSelf.status) || \
     ((!has(oldSelf.status.active) || oldSelf.status.active == 0) && (!has(oldSelf.status.startTime) || \
     (has(oldSelf.status.conditions) && \
     oldSelf.status.conditions.exists(c, c.type == 'Suspended' && c.status == 'True')))))";

/// Fields of a template's spec that may change while the job is suspended, wholly or in part
/// (`validatePodTemplateUpdate`, `validatePodResourceUpdatesOnly`), and the one that CEL does not see.
const NOT_COMPARED: &[&str] =
    &["affinity", "containers", "initContainers", "nodeSelector", "overhead", "schedulingGates", "tolerations"];

/// The rules on the root about changes of the template (`validatePodTemplateUpdate`). While parts of it may change, its
/// metadata is not compared at all.
fn template() -> [Rule; 2] {
    // CEL compares lists whose schema says `map` without regard to order, and containers start in theirs.
    let in_order = is_same(&["containers", "initContainers"].map(|list| each(list, "c.name")).join(", "));
    [
        Rule::new(
            "",
            ".spec.template",
            Reason::Forbidden,
            format!("({TEMPLATE_MAY_CHANGE}) || (self.spec.template == oldSelf.spec.template && {in_order})"),
            "cannot be changed: delete this BatchJob and create it anew, or create one with another name (while a \
             BatchJob is suspended and its pods are gone, these can be changed: labels, annotations, nodeSelector, \
             tolerations, affinity.nodeAffinity, schedulingGates, and the resources of containers and initContainers)",
        ),
        Rule::new(
            "",
            ".spec.template.spec",
            Reason::Forbidden,
            format!("!({TEMPLATE_MAY_CHANGE}) || {}", is_same(&unchanged_while_suspended())),
            "cannot be changed, apart from nodeSelector, tolerations, affinity.nodeAffinity, schedulingGates, and the \
             resources of containers and initContainers, because the BatchJob is suspended: delete it and create it anew, \
             or create one with another name",
        ),
    ]
}

/// The items of a CEL list: all of a template's spec that does not change while the job is suspended.
fn unchanged_while_suspended() -> String {
    let of_container = fields::<Container>().into_iter().filter(|field| field != "resources");
    let of_container: Vec<String> = of_container.map(|field| or_null("c", &field)).collect();
    let of_container = format!("[{}]", of_container.join(", "));
    let fields = fields::<PodSpec>().into_iter().filter(|field| !NOT_COMPARED.contains(&field.as_str()));
    let mut items: Vec<String> = fields.map(|field| or_null(POD, &field)).collect();
    for field in ["podAffinity", "podAntiAffinity"] {
        items.push(format!("has({POD}.affinity) && has({POD}.affinity.{field}) ? dyn({POD}.affinity.{field}) : null"));
    }
    for list in ["containers", "initContainers"] {
        items.push(format!("dyn({})", each(list, &of_container)));
    }
    items.join(", ")
}

fn fields<T: JsonSchema>() -> Vec<String> {
    let schema = kubernetes::bare::<T>();
    schema["properties"].as_object().expect("fields").keys().cloned().collect()
}

fn or_null(owner: &str, field: &str) -> String {
    format!("has({owner}.{field}) ? dyn({owner}.{field}) : null")
}

/// A list of the template's spec, which may be absent, of a value made from each entry `c`.
fn each(list: &str, value: &str) -> String {
    format!("(has({POD}.{list}) ? {POD}.{list}.map(c, {value}) : [])")
}

/// Compares items of the new and the old object, which is `SELF` in them. They are put in lists because the API server
/// takes the comparison of two texts without a limit to be dear, and that of two lists of them not.
fn is_same(items: &str) -> String {
    format!("[{}] == [{}]", items.replace("SELF", "self"), items.replace("SELF", "oldSelf"))
}

/// All rules of a BatchJob.
pub fn all() -> Vec<Rule> {
    let root = ROOT.iter().map(|row| row.rule("")).chain(template());
    let update = UPDATE.iter().map(|row| row.rule("spec"));
    let immutable = IMMUTABLE_FIELDS.iter().map(|&(field, value)| immutable(field, value));
    root.chain(of_spec("spec")).chain(update).chain(immutable).collect()
}

/// The rules of a BatchJob's spec, wherever it stands, that look at nothing else.
pub(crate) fn of_spec(path: &str) -> impl Iterator<Item = Rule> {
    let unsupported = UNSUPPORTED.iter().map(move |row| row.rule_at(path));
    let spec = SPEC.iter().map(move |row| row.rule(path));
    let entries = ENTRIES.iter().map(move |row| row.rule_at(path));
    let policies = POLICIES.iter().flat_map(move |&(below, rows)| {
        let stands_on = format!("{path}.{below}");
        rows.iter().map(move |row| row.rule(&stands_on))
    });
    unsupported.chain(spec).chain(entries).chain(policies)
}

fn immutable(field: &str, value: &str) -> Rule {
    Rule::new("spec", &format!(".{field}"), Reason::Forbidden, is_same(value), IMMUTABLE)
}

impl Rule {
    fn new(stands_on: &str, field_path: &str, reason: Reason, rule: String, message: &str) -> Rule {
        let (stands_on, field_path, message) = (stands_on.into(), field_path.into(), message.into());
        Rule { stands_on, field_path, rule, message, message_expression: None, reason }
    }
}

impl Row {
    pub(crate) fn rule(&self, stands_on: &str) -> Rule {
        Rule::new(stands_on, self.field_path, self.reason, self.rule.into(), self.message)
    }
}

impl Entry {
    fn rule_at(&self, path: &str) -> Rule {
        let Entry { list, field, rule, message } = self;
        let (owner, _) = list.split_once('.').expect("a list in a field");
        let field_path = format!(".{list}");
        let all = format!("!has(self.{owner}) || !has(self.{list}) || self.{list}.all(r, {rule})");
        // Not `+ string(…)`: what that makes has no length that the API server knows, and so no cost.
        let first = format!("self.{list}.map(r, {rule}).indexOf(false)");
        Rule {
            message_expression: Some(format!("'{path}.{list}[%d].{field}: {message}'.format([{first}])")),
            ..Rule::new(path, &field_path, Reason::Invalid, all, message)
        }
    }
}

impl Unsupported {
    fn rule_at(&self, path: &str) -> Rule {
        Rule::new(path, &format!(".{}", self.field), Reason::Forbidden, self.rule(), &self.message())
    }
}
