//! The CustomResourceDefinitions, as they are installed.
//!
//! `BatchJob::crd()`, which the derive makes, is only where one starts: it is too large for plain `kubectl apply`, stores
//! explicit nulls, and knows none of the rules. [`all`] has the ones to use:
//!
//! | step | because |
//! |---|---|
//! | Kubernetes' own types as an API server serves them ([`kubernetes`]) | k8s-openapi's lack list types and have 270 kB of descriptions |
//! | no `nullable` | `parallelism: null` is then dropped, instead of stored, where it breaks the scale path |
//! | no line ends of the source in descriptions | `kubectl explain` wraps them anew |
//! | `.status` has the default `{observedGeneration: -1}` | tools must not take a job for done that nobody has seen yet |
//! | the words and limits of a Job's validation (`limits`) and the rules of [`crate::rules`] and [`crate::cron_rules`] | a mistake is named when it is applied, not by a job that hangs |
//! | the words of [`crate::unsupported`] at its fields | `kubectl explain` must not advertise what is refused |

pub mod kubernetes;

use k8s_openapi::api::batch::v1::{PodFailurePolicy, SuccessPolicy};
use k8s_openapi::api::core::v1::{ObjectReference, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, ObjectMeta};
use kube::CustomResourceExt;
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::cron_job::BatchCronJob;
use crate::cron_rules;
use crate::job::BatchJob;
use crate::rules::{self, MAX_CONTAINERS, MAX_NAME, Rule};
use crate::unsupported::{Refused, UNSUPPORTED};

/// The CustomResourceDefinitions, ready to be applied.
pub fn all() -> [Value; 2] {
    [batch_job(), batch_cron_job()]
}

/// The CustomResourceDefinition of `BatchJob`.
pub fn batch_job() -> Value {
    finished(BatchJob::crd(), MAX_NAME, |root| {
        repair_spec(root, "spec");
        rules::all()
    })
}

/// The CustomResourceDefinition of `BatchCronJob`.
pub fn batch_cron_job() -> Value {
    finished(BatchCronJob::crd(), cron_rules::MAX_NAME, |root| {
        repair_spec(root, cron_rules::TEMPLATE);
        put(at(root, "spec.jobTemplate.metadata"), kubernetes::bare::<ObjectMeta>());
        let fields = &mut at(root, cron_rules::TEMPLATE)["properties"];
        for (_, field) in fields.as_object_mut().expect("fields") {
            // They are told once, by `kubectl explain batchjob.spec`.
            field.as_object_mut().expect("a schema").remove("description");
        }
        put(at(root, "status.active[]"), kubernetes::bare::<ObjectReference>());
        for (path, keyword, value) in cron_rules::LIMITS {
            at(root, path)[keyword] = json!(value);
        }
        for list in ["status.nextScheduleTimes", "status.active", "status.gaps", "status.waiting", "status.backfilled"]
        {
            // From serde's `default`, which is about reading.
            at(root, list).as_object_mut().expect("a schema").remove("default");
        }
        cron_rules::all()
    })
}

/// What the derive makes, made fit for use; `change` does what is of this kind alone, and answers with its rules.
fn finished(derived: impl Serialize, max_name: u32, change: impl FnOnce(&mut Value) -> Vec<Rule>) -> Value {
    let mut crd = serde_json::to_value(derived).expect("a CRD is plain JSON");
    let root = &mut crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
    for_each_schema(root, &mut |schema| {
        schema.remove("nullable");
        if let Some(Value::String(words)) = schema.get_mut("description") {
            *words = unwrapped(words);
        }
    });

    // The only parts of metadata that a CRD may say something about are the lengths and patterns of the names.
    root["properties"]["metadata"] =
        json!({ "type": "object", "properties": { "name": { "type": "string", "maxLength": max_name } } });

    let status = &mut root["properties"]["status"];
    status["default"] = json!({ "observedGeneration": -1 });
    let conditions = &mut status["properties"]["conditions"];
    conditions["items"] = kubernetes::described::<Condition>();
    // So that two writers of conditions can each own theirs under server-side apply, as in Kubernetes' own kinds.
    conditions["x-kubernetes-list-type"] = json!("map");
    conditions["x-kubernetes-list-map-keys"] = json!(["type"]);
    // From serde's `default`, which is about reading.
    conditions.as_object_mut().expect("a schema").remove("default");

    for found in change(root) {
        let rules = &mut at(root, &found.stands_on)["x-kubernetes-validations"];
        if rules.is_null() {
            *rules = json!([]);
        }
        rules.as_array_mut().expect("rules").push(rule(&found));
    }
    crd
}

/// The spec of a BatchJob, wherever it stands: Kubernetes' own types in it, what is refused, and the limits.
fn repair_spec(root: &mut Value, path: &str) {
    let fields = &mut at(root, path)["properties"];
    put(&mut fields["template"], kubernetes::bare::<PodTemplateSpec>());
    put(&mut fields["podFailurePolicy"], kubernetes::bare::<PodFailurePolicy>());
    // A Job's validation takes one without rules, which does nothing.
    fields["podFailurePolicy"].as_object_mut().expect("a schema").remove("required");
    put(&mut fields["successPolicy"], kubernetes::bare::<SuccessPolicy>());
    for unsupported in UNSUPPORTED {
        let field = &mut fields[unsupported.field];
        let words = field["description"].as_str().unwrap_or_default();
        let what = match unsupported.what {
            Refused::Field => "Refused",
            Refused::True => "true is refused",
        };
        field["description"] = format!("{words} {what}: {}.", unsupported.message()).into();
        if field["type"] == "object" {
            put(field, json!({ "type": "object", "x-kubernetes-preserve-unknown-fields": true }));
        }
    }
    for (below, keyword, value) in limits() {
        at(root, &format!("{path}.{below}"))[keyword] = value;
    }
}

/// What a Job's validation says (`pkg/apis/batch/validation/validation.go`) and a schema can say: where in the spec, the
/// keyword, and its value.
fn limits() -> Vec<(&'static str, &'static str, Value)> {
    let containers = ["template.spec.containers", "template.spec.initContainers"];
    let of_containers = containers.into_iter().map(|path| (path, "maxItems", json!(MAX_CONTAINERS)));
    // ValidateDNS1123Label.
    let of_names = ["template.spec.containers[].name", "template.spec.initContainers[].name"];
    let of_names = of_names.into_iter().map(|path| (path, "maxLength", json!(63)));
    let others = [
        // ValidatePodSpec requires both, though the schema of a Job does not.
        ("template", "required", json!(["spec"])),
        ("template.spec.containers", "minItems", json!(1)),
        // validateJobSpec.
        ("managedBy", "maxLength", json!(63)),
        // validatePodFailurePolicy and below.
        ("podFailurePolicy.rules", "maxItems", json!(20)),
        ("podFailurePolicy.rules[].action", "enum", json!(["Count", "FailIndex", "FailJob", "Ignore"])),
        ("podFailurePolicy.rules[].onExitCodes.containerName", "maxLength", json!(63)),
        ("podFailurePolicy.rules[].onExitCodes.operator", "enum", json!(["In", "NotIn"])),
        ("podFailurePolicy.rules[].onExitCodes.values", "minItems", json!(1)),
        ("podFailurePolicy.rules[].onExitCodes.values", "maxItems", json!(255)),
        ("podFailurePolicy.rules[].onPodConditions", "maxItems", json!(20)),
        // ValidateQualifiedName: a prefix of at most 253 characters and a name of at most 63.
        ("podFailurePolicy.rules[].onPodConditions[].type", "maxLength", json!(317)),
        ("podFailurePolicy.rules[].onPodConditions[].status", "enum", json!(["False", "True", "Unknown"])),
        // validateSuccessPolicy and below.
        ("successPolicy.rules", "minItems", json!(1)),
        ("successPolicy.rules", "maxItems", json!(20)),
        ("successPolicy.rules[].succeededCount", "minimum", json!(0)),
        ("successPolicy.rules[].succeededIndexes", "maxLength", json!(65536)),
    ];
    of_containers.chain(of_names).chain(others).collect()
}

/// The schema at a path like `spec.template.spec.containers[].name`.
fn at<'a>(schema: &'a mut Value, path: &str) -> &'a mut Value {
    path.split('.').filter(|field| !field.is_empty()).fold(schema, |schema, field| match field.strip_suffix("[]") {
        Some(list) => &mut schema["properties"][list]["items"],
        None => &mut schema["properties"][field],
    })
}

/// Replaces the schema of a field, and keeps our own words about it.
fn put(field: &mut Value, mut schema: Value) {
    schema["description"] = field["description"].take();
    *field = schema;
}

fn rule(rule: &Rule) -> Value {
    let mut schema = json!({ "rule": rule.rule, "message": rule.message, "reason": rule.reason.as_str() });
    if let Some(expression) = &rule.message_expression {
        schema["messageExpression"] = json!(expression);
    }
    if !rule.field_path.is_empty() {
        schema["fieldPath"] = json!(rule.field_path);
    }
    schema
}

/// Words without the line ends of the doc comment they come from: `kubectl explain` wraps them anew.
fn unwrapped(words: &str) -> String {
    words.split("\n\n").map(|paragraph| paragraph.replace('\n', " ")).collect::<Vec<_>>().join("\n\n")
}

/// Calls `change` on a schema and on every schema in it; property names are not taken for keywords.
fn for_each_schema(schema: &mut Value, change: &mut impl FnMut(&mut Map<String, Value>)) {
    let Value::Object(schema) = schema else { return };
    change(schema);
    for (keyword, value) in schema {
        match (keyword.as_str(), value) {
            ("items" | "additionalProperties", schema) => for_each_schema(schema, change),
            ("properties", Value::Object(properties)) => {
                properties.values_mut().for_each(|schema| for_each_schema(schema, change));
            }
            ("allOf" | "anyOf" | "oneOf", Value::Array(schemas)) => {
                schemas.iter_mut().for_each(|schema| for_each_schema(schema, change));
            }
            _ => {}
        }
    }
}
