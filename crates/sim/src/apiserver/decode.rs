//! What becomes of an object between the request and the registry: what is empty is dropped, what is missing gets its
//! default. Only defaults that somebody reads here are set; the real API server sets many more in a pod's spec.

use serde_json::{Map, Value, json};

use super::kind::Kind;

/// Brings an object into the form in which it is kept.
pub(super) fn decode(kind: Kind, object: &mut Value) {
    drop_nulls(object);
    let Value::Object(fields) = object else { return };
    fields.insert("kind".to_owned(), kind.name().into());
    fields.insert("apiVersion".to_owned(), kind.api_version().into());
    if let Value::Object(metadata) = field(fields, "metadata") {
        decode_metadata(metadata);
    }
    match kind {
        Kind::Pod => decode_pod(fields),
        Kind::Job => decode_job(fields),
        Kind::BatchJob | Kind::BatchCronJob => {
            // The default in the CRD.
            fields.entry("status").or_insert_with(|| json!({ "observedGeneration": -1 }));
        }
        Kind::Lease | Kind::Event => {}
    }
}

fn field<'a>(fields: &'a mut Map<String, Value>, name: &str) -> &'a mut Value {
    if !fields.get(name).is_some_and(Value::is_object) {
        fields.insert(name.to_owned(), Value::Object(Map::new()));
    }
    &mut fields[name]
}

fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|_, value| !value.is_null());
            fields.values_mut().for_each(drop_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(drop_nulls),
        _ => {}
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Object(fields) => fields.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::String(text) => text.is_empty(),
        _ => false,
    }
}

fn decode_metadata(metadata: &mut Map<String, Value>) {
    metadata.remove("managedFields");
    metadata.retain(|_, value| !is_empty(value));
    if let Some(Value::Array(owners)) = metadata.get_mut("ownerReferences") {
        let mut kept: Vec<Value> = Vec::with_capacity(owners.len());
        for mut owner in owners.drain(..) {
            // `controller` and `blockOwnerDeletion` are pointers: false stays.
            if let Value::Object(fields) = &mut owner {
                fields.retain(|_, value| !value.is_null());
            }
            if !kept.contains(&owner) {
                kept.push(owner);
            }
        }
        *owners = kept;
    }
}

fn decode_pod(pod: &mut Map<String, Value>) {
    if let Value::Object(spec) = field(pod, "spec") {
        spec.entry("restartPolicy").or_insert_with(|| "Always".into());
        spec.entry("terminationGracePeriodSeconds").or_insert_with(|| 30.into());
        spec.retain(|_, value| !is_empty(value));
    }
    if let Value::Object(status) = field(pod, "status") {
        for list in ["containerStatuses", "initContainerStatuses"] {
            if let Some(Value::Array(containers)) = status.get_mut(list) {
                containers.iter_mut().for_each(decode_container_status);
            }
        }
        decode_conditions(status);
        status.retain(|_, value| !is_empty(value));
    }
}

fn decode_container_status(container: &mut Value) {
    let Value::Object(container) = container else { return };
    for name in ["name", "image", "imageID"] {
        container.entry(name).or_insert_with(|| "".into());
    }
    container.entry("ready").or_insert(false.into());
    container.entry("restartCount").or_insert(0.into());
    for name in ["state", "lastState"] {
        let Value::Object(state) = field(container, name) else { continue };
        if let Some(Value::Object(terminated)) = state.get_mut("terminated") {
            terminated.entry("exitCode").or_insert(0.into());
            terminated.retain(|_, value| !is_empty(value));
        }
    }
}

fn decode_conditions(status: &mut Map<String, Value>) {
    if let Some(Value::Array(conditions)) = status.get_mut("conditions") {
        for condition in conditions {
            if let Value::Object(condition) = condition {
                condition.retain(|name, value| matches!(&**name, "type" | "status") || !is_empty(value));
            }
        }
    }
}

/// `SetDefaults_Job`, and what a Job's status leaves out.
fn decode_job(job: &mut Map<String, Value>) {
    if let Value::Object(spec) = field(job, "spec") {
        let is_missing = |spec: &Map<String, Value>, name: &str| !spec.contains_key(name);
        if is_missing(spec, "completions") && is_missing(spec, "parallelism") {
            spec.insert("completions".to_owned(), 1.into());
        }
        spec.entry("parallelism").or_insert(1.into());
        let backoff_limit = if is_missing(spec, "backoffLimitPerIndex") { 6 } else { i32::MAX };
        spec.entry("backoffLimit").or_insert(backoff_limit.into());
        spec.entry("completionMode").or_insert_with(|| "NonIndexed".into());
        spec.entry("suspend").or_insert(false.into());
        let policy = if is_missing(spec, "podFailurePolicy") { "TerminatingOrFailed" } else { "Failed" };
        spec.entry("podReplacementPolicy").or_insert_with(|| policy.into());
        spec.entry("manualSelector").or_insert(false.into());
        if let Value::Object(template) = field(spec, "template")
            && let Value::Object(pod) = field(template, "spec")
        {
            pod.entry("terminationGracePeriodSeconds").or_insert(30.into());
        }
    }
    if let Value::Object(status) = field(job, "status") {
        decode_conditions(status);
        for count in ["active", "succeeded", "failed"] {
            if status.get(count).is_some_and(|count| *count == 0) {
                status.remove(count);
            }
        }
        if let Some(Value::Object(uncounted)) = status.get_mut("uncountedTerminatedPods") {
            uncounted.retain(|_, value| !is_empty(value));
        }
        for name in ["completedIndexes", "conditions"] {
            if status.get(name).is_some_and(is_empty) {
                status.remove(name);
            }
        }
    }
}

/// A Job without labels has those of its pods, whenever it is read (`SetDefaults_Job`).
pub(super) fn inherit_labels(job: &mut Value) {
    if job["metadata"].get("labels").is_none() {
        let labels = job["spec"]["template"]["metadata"]["labels"].clone();
        if !labels.is_null() && !is_empty(&labels) {
            job["metadata"]["labels"] = labels;
        }
    }
}
