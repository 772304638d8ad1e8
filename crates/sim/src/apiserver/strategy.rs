//! What the registry of a kind does with an object before it is written: which side of an update counts, when the
//! generation rises, and what may not be changed (`PrepareForCreate`, `PrepareForUpdate` and `ValidateUpdate` of
//! `pkg/registry/*/*/strategy.go`). Whether a new object is valid is not asked: nobody here makes one that is not.

use serde_json::{Map, Value, json};

use super::decode::inherit_labels;
use super::job_status;
use super::kind::Kind;
use super::refusal::Cause;
use super::route::Part;

/// A new object, after its uid is known.
pub(super) fn prepare_new(kind: Kind, object: &mut Value, now: Value) {
    match kind {
        Kind::Pod => {
            object["metadata"]["generation"] = 1.into();
            // Nobody here asks for resources.
            object["status"] = json!({ "phase": "Pending", "qosClass": "BestEffort" });
            if object["spec"].get("schedulingGates").is_some() {
                object["status"]["conditions"] = json!([{
                    "type": "PodScheduled", "status": "False", "reason": "SchedulingGated", "lastTransitionTime": now,
                    "message": "Scheduling is blocked due to non-empty scheduling gates",
                }]);
            }
        }
        Kind::BatchJob | Kind::BatchCronJob => {
            object["metadata"]["generation"] = 1.into();
            object["status"] = json!({ "observedGeneration": -1 });
        }
        Kind::Job => {
            object["metadata"]["generation"] = 1.into();
            object["status"] = json!({});
            if object["spec"]["manualSelector"] != true {
                select_by_uid(object);
            }
            inherit_labels(object);
        }
        Kind::Lease | Kind::Event => {}
    }
}

/// `generateSelector`.
fn select_by_uid(job: &mut Value) {
    let (name, uid) = (job["metadata"]["name"].clone(), job["metadata"]["uid"].clone());
    let labels = &mut job["spec"]["template"]["metadata"]["labels"];
    for (label, value) in [
        ("job-name", &name),
        ("batch.kubernetes.io/job-name", &name),
        ("controller-uid", &uid),
        ("batch.kubernetes.io/controller-uid", &uid),
    ] {
        if labels.get(label).is_none() {
            labels[label] = value.clone();
        }
    }
    let selected = &mut job["spec"]["selector"]["matchLabels"];
    if selected.get("batch.kubernetes.io/controller-uid").is_none() {
        selected["batch.kubernetes.io/controller-uid"] = uid;
    }
}

/// Takes over from the old object what this side of an update cannot change.
pub(super) fn prepare_update(kind: Kind, part: Part, new: &mut Value, old: &Value) {
    new["metadata"]["generation"] = old["metadata"]["generation"].clone();
    if !kind.has_status() {
        restore(new, old, "generation");
        return;
    }
    match part {
        Part::Status if kind.is_custom() => {
            let status = new["status"].take();
            *new = old.clone();
            new["status"] = status;
        }
        Part::Status => {
            keep(new, old, "spec");
            if kind == Kind::Pod {
                restore(new, old, "ownerReferences");
                restore(new, old, "deletionTimestamp");
                let class = &old["status"]["qosClass"];
                if new["status"].get("qosClass").is_none() && !class.is_null() {
                    new["status"]["qosClass"] = class.clone();
                }
            }
        }
        _ => {
            keep(new, old, "status");
            if new["spec"] != old["spec"] {
                let generation = old["metadata"]["generation"].as_i64().unwrap_or_default();
                new["metadata"]["generation"] = (generation + 1).into();
            }
        }
    }
}

/// A side of the object is as it was: mostly it is anyhow, and to compare is cheaper than to copy.
fn keep(new: &mut Value, old: &Value, side: &str) {
    if new[side] != old[side] {
        new[side] = old[side].clone();
    }
}

/// A field of the metadata is as it was.
fn restore(new: &mut Value, old: &Value, name: &str) {
    let Value::Object(metadata) = &mut new["metadata"] else { return };
    match old["metadata"].get(name) {
        Some(value) => metadata.insert(name.to_owned(), value.clone()),
        None => metadata.remove(name),
    };
}

/// What the kind itself forbids.
pub(super) fn validate_update(kind: Kind, part: Part, new: &Value, old: &Value) -> Vec<Cause> {
    match (kind, part) {
        (Kind::Pod, Part::Status) => pod_status(new, old),
        (Kind::Pod, _) => pod_spec(&new["spec"], &old["spec"]),
        (Kind::Job, Part::Status) => job_status::validate(new, old),
        (Kind::Job, _) => job_spec(&new["spec"], old),
        _ => Vec::new(),
    }
}

fn pod_spec(new: &Value, old: &Value) -> Vec<Cause> {
    if new == old {
        return Vec::new();
    }
    let mut munged = new.clone();
    let mut causes = Vec::new();
    for list in ["containers", "initContainers"] {
        let (new, old) = (munged[list].as_array().map_or(0, Vec::len), old[list].as_array().map_or(0, Vec::len));
        if new != old {
            let field = format!("spec.{list}");
            causes.push(Cause::forbidden(field, "pod updates may not add or remove containers"));
            return causes;
        }
    }
    for list in ["containers", "initContainers"] {
        for (index, old) in old[list].as_array().into_iter().flatten().enumerate() {
            munged[list][index]["image"] = old["image"].clone();
        }
    }
    for field in ["activeDeadlineSeconds", "schedulingGates", "tolerations"] {
        let Value::Object(munged) = &mut munged else { continue };
        match old.get(field) {
            Some(value) => munged.insert(field.to_owned(), value.clone()),
            None => munged.remove(field),
        };
    }
    if munged != *old {
        causes.push(Cause::forbidden("spec", "pod updates may not change fields other than the images of containers"));
    }
    causes
}

/// A container that has ended begins again only if the pod's policy says so.
fn pod_status(new: &Value, old: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    let restart_policy = old["spec"]["restartPolicy"].as_str().unwrap_or_default();
    let containers = |pod: &Value| pod["status"]["containerStatuses"].as_array().cloned().unwrap_or_default();
    let now = containers(new);
    for (index, before) in containers(old).iter().enumerate() {
        let Some(terminated) = before["state"].get("terminated") else { continue };
        let Some(now) = now.iter().find(|now| now["name"] == before["name"]) else { continue };
        if now["state"].get("terminated").is_some() {
            continue;
        }
        let mut known = old["spec"]["containers"].as_array().into_iter().flatten();
        let is_known = known.any(|container| container["name"] == before["name"]);
        let may_restart = match restart_policy {
            "Always" => true,
            "OnFailure" => terminated["exitCode"] != 0,
            _ => false,
        };
        if !(is_known && may_restart) {
            let field = format!("status.containerStatuses[{index}].state");
            causes.push(Cause::forbidden(field, "may not be transitioned to non-terminated state"));
        }
    }
    if new["status"].get("qosClass") != old["status"].get("qosClass") {
        causes.push(Cause::invalid("status.qosClass", "field is immutable"));
    }
    causes
}

/// `ValidateJobSpecUpdate`.
fn job_spec(new: &Value, old_job: &Value) -> Vec<Cause> {
    let old = &old_job["spec"];
    let mut causes = Vec::new();
    let negative = ["parallelism", "completions", "backoffLimit", "activeDeadlineSeconds", "ttlSecondsAfterFinished"];
    for field in negative.into_iter().filter(|field| new[*field].as_i64().is_some_and(|number| number < 0)) {
        causes.push(Cause::invalid(format!("spec.{field}"), "must be greater than or equal to 0"));
    }
    if new["completions"] != old["completions"] {
        let is_elastic = old["completionMode"] == "Indexed"
            && !new["completions"].is_null()
            && !old["completions"].is_null()
            && new["completions"] == new["parallelism"];
        if !is_elastic {
            causes.push(Cause::invalid("spec.completions", "field is immutable"));
        }
    }
    let may_change_template = may_change_template(old_job);
    if fixed_part(&new["template"], may_change_template) != fixed_part(&old["template"], may_change_template) {
        causes.push(Cause::invalid("spec.template", "field is immutable"));
    }
    let immutable =
        ["selector", "completionMode", "podFailurePolicy", "backoffLimitPerIndex", "managedBy", "successPolicy"];
    for field in immutable.into_iter().filter(|field| new[*field] != old[*field]) {
        causes.push(Cause::invalid(format!("spec.{field}"), "field is immutable"));
    }
    causes
}

/// `shouldAllowMutablePodTemplate`.
fn may_change_template(job: &Value) -> bool {
    let status = &job["status"];
    let is_told_suspended = job_status::is_true(status, "Suspended");
    job["spec"]["suspend"] == true
        && (status.get("startTime").is_none() || is_told_suspended)
        && status.get("active").is_none_or(|active| *active == 0)
}

/// What of a pod template may not be changed.
fn fixed_part(template: &Value, is_suspended: bool) -> Value {
    let mut fixed = template.clone();
    if is_suspended {
        let without = |value: &mut Value, names: &[&str]| {
            if let Value::Object(fields) = value {
                fields.retain(|name, _| !names.contains(&&**name));
            }
        };
        let is_unset = |value: &Value| value.as_object().is_none_or(Map::is_empty);
        without(&mut fixed["metadata"], &["labels", "annotations"]);
        without(&mut fixed["spec"], &["nodeSelector", "tolerations", "schedulingGates"]);
        without(&mut fixed["spec"]["affinity"], &["nodeAffinity"]);
        if is_unset(&fixed["spec"]["affinity"]) {
            without(&mut fixed["spec"], &["affinity"]);
        }
        if is_unset(&fixed["metadata"]) {
            without(&mut fixed, &["metadata"]);
        }
        for list in ["containers", "initContainers"] {
            for container in fixed["spec"].get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
                without(container, &["resources"]);
            }
        }
    }
    fixed
}
