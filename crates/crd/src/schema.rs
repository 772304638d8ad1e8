//! The CustomResourceDefinition, as it is installed.
//!
//! `BatchJob::crd()`, which the derive makes, is only where it starts: it is too large for plain `kubectl apply`, stores
//! explicit nulls, and knows none of the rules. [`crd`] is the one to use:
//!
//! | step | because |
//! |---|---|
//! | Kubernetes' own types as an API server serves them ([`kubernetes`]) | k8s-openapi's lack list types and have 270 kB of descriptions |
//! | no `nullable` | `parallelism: null` is then dropped, instead of stored, where it breaks the scale path |
//! | no line ends of the source in descriptions | `kubectl explain` wraps them anew |
//! | `.status` has the default `{observedGeneration: -1}` | tools must not take a job for done that nobody has seen yet |
//! | the rules of [`crate::rules`] | a mistake is named when it is applied, not by a job that hangs |
//! | the words of [`crate::unsupported`] at its fields | `kubectl explain` must not advertise what is refused |

pub mod kubernetes;

use k8s_openapi::api::batch::v1::{PodFailurePolicy, SuccessPolicy};
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::CustomResourceExt;
use serde_json::{Map, Value, json};

use crate::job::BatchJob;
use crate::rules::{self, MAX_NAME, Rule};
use crate::unsupported::UNSUPPORTED;

/// The CustomResourceDefinition of `BatchJob`, ready to be applied.
pub fn crd() -> Value {
    let mut crd = serde_json::to_value(BatchJob::crd()).expect("a CRD is plain JSON");
    let root = &mut crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
    for_each_schema(root, &mut |schema| {
        schema.remove("nullable");
        if let Some(Value::String(words)) = schema.get_mut("description") {
            *words = unwrapped(words);
        }
    });

    // The only parts of metadata that a CRD may say something about are the lengths and patterns of the names.
    root["properties"]["metadata"] =
        json!({ "type": "object", "properties": { "name": { "type": "string", "maxLength": MAX_NAME } } });
    root["x-kubernetes-validations"] = rules::root().iter().map(rule).collect();

    let spec = &mut root["properties"]["spec"];
    spec["x-kubernetes-validations"] = rules::spec(UNSUPPORTED).iter().map(rule).collect();
    let fields = &mut spec["properties"];
    put(&mut fields["template"], kubernetes::bare::<PodTemplateSpec>());
    // A Job's validation requires both (ValidatePodSpec), though its schema does not.
    fields["template"]["required"] = json!(["spec"]);
    fields["template"]["properties"]["spec"]["properties"]["containers"]["minItems"] = json!(1);
    put(&mut fields["podFailurePolicy"], kubernetes::bare::<PodFailurePolicy>());
    put(&mut fields["successPolicy"], kubernetes::bare::<SuccessPolicy>());
    for unsupported in UNSUPPORTED {
        let description = &mut fields[unsupported.field]["description"];
        *description = format!("{} {}.", description.as_str().unwrap_or_default(), unsupported.message()).into();
    }

    let status = &mut root["properties"]["status"];
    status["default"] = json!({ "observedGeneration": -1 });
    let conditions = &mut status["properties"]["conditions"];
    conditions["items"] = kubernetes::described::<Condition>();
    // So that two writers of conditions can each own theirs under server-side apply, as in Kubernetes' own kinds.
    conditions["x-kubernetes-list-type"] = json!("map");
    conditions["x-kubernetes-list-map-keys"] = json!(["type"]);
    // From serde's `default`, which is about reading.
    conditions.as_object_mut().expect("a schema").remove("default");

    crd
}

/// Replaces the schema of a field, and keeps our own words about it.
fn put(field: &mut Value, mut schema: Value) {
    schema["description"] = field["description"].take();
    *field = schema;
}

fn rule(rule: &Rule) -> Value {
    json!({
        "rule": rule.rule,
        "message": rule.message,
        "reason": rule.reason.as_str(),
        "fieldPath": rule.field_path,
    })
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
