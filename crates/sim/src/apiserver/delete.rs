//! Deletes and evictions: `Store.Delete` in `registry/generic/registry/store.go` and `BeforeDelete` in
//! `registry/rest/delete.go`. A pod is given time to end; whatever has finalizers stays until the last of them is gone.

use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::kind::Kind;
use super::refusal::Refusal;
use super::route::{Part, Query};
use super::store::{Store, text_of};
use super::write::{Answered, Target, strings};

/// The garbage collector makes orphans of its dependents before it goes.
pub(super) const ORPHAN: &str = "orphan";
/// The garbage collector deletes its dependents before it goes.
pub(super) const FOREGROUND: &str = "foregroundDeletion";

/// `DeleteOptions`.
#[derive(Clone, Debug, Default)]
pub(super) struct Options {
    pub uid: Option<String>,
    pub resource_version: Option<String>,
    pub grace_period_seconds: Option<i64>,
    pub propagation_policy: Option<String>,
}

impl Options {
    pub fn of(body: &Bytes, query: &Query) -> Result<Options, Refusal> {
        if body.is_empty() {
            return Ok(Options {
                grace_period_seconds: query.grace_period_seconds,
                propagation_policy: query.propagation_policy.clone(),
                ..Options::default()
            });
        }
        let body: Value =
            serde_json::from_slice(body).map_err(|error| Refusal::bad_request(format!("the options: {error}")))?;
        Ok(Options::read(&body))
    }

    fn read(options: &Value) -> Options {
        let text = |value: &Value| value.as_str().map(str::to_owned);
        Options {
            uid: text(&options["preconditions"]["uid"]),
            resource_version: text(&options["preconditions"]["resourceVersion"]),
            grace_period_seconds: options["gracePeriodSeconds"].as_i64(),
            propagation_policy: text(&options["propagationPolicy"]),
        }
    }
}

/// What `BeforeDelete` finds.
#[derive(PartialEq)]
enum Grace {
    /// It goes at once, or as soon as its finalizers do.
    None,
    /// It is given this time from now on.
    Given(i64),
    /// It has been told before, and is not told anew.
    Pending,
}

impl Store {
    pub fn delete(&mut self, target: Target<'_>, options: &Options) -> Result<Answered, Refusal> {
        let Target { kind, who, .. } = target;
        let key = target.key();
        let old = self.find(kind, &key).cloned().ok_or_else(|| target.not_found())?;
        check(&target, options, old.uid(), &old.revision.to_string())?;

        let mut new = old.value.clone();
        let grace = self.graceful(kind, &mut new, options);
        if grace == Grace::Pending {
            return Ok((200, deleted(&target, &old.value, &old.bytes)));
        }
        let wanted = finalizers(kind, &new, options);
        if wanted.is_empty() {
            if let Value::Object(metadata) = &mut new["metadata"] {
                metadata.remove("finalizers");
            }
        } else {
            new["metadata"]["finalizers"] = wanted.clone().into();
        }
        if grace == Grace::None && !wanted.is_empty() {
            self.mark(&mut new);
        }
        if grace != Grace::None || !wanted.is_empty() {
            let written = if new == old.value { old.clone() } else { self.put(kind, &key, new, false, who) };
            if !wanted.is_empty() || matches!(grace, Grace::Given(seconds) if seconds > 0) {
                return Ok((200, written.bytes.clone()));
            }
        }
        let were_for_collector = strings(&old.value["metadata"], "finalizers").next().is_some();
        if grace == Grace::None && were_for_collector && options.resource_version.is_some() {
            // It had only finalizers that these options take off, and goes without a write: `Store.Delete` then compares with
            // the version of an object that is not there.
            let found = old.revision;
            let why = format!(
                "Precondition failed: ResourceVersion in precondition: , ResourceVersion in object meta: {found}"
            );
            return Err(Refusal::conflict(kind, target.name, why));
        }
        let gone = self.remove(kind, &key, who).ok_or_else(|| target.not_found())?;
        Ok((200, deleted(&target, &gone.value, &gone.bytes)))
    }

    /// Gives a pod its time to end.
    fn graceful(&self, kind: Kind, object: &mut Value, options: &Options) -> Grace {
        if kind != Kind::Pod {
            return Grace::None;
        }
        // Below zero means one second.
        let asked = options.grace_period_seconds.map(|seconds| if seconds < 0 { 1 } else { seconds });
        let now = self.now();
        if let Some(deadline) = time(&object["metadata"]["deletionTimestamp"]) {
            let given = object["metadata"]["deletionGracePeriodSeconds"].as_i64().unwrap_or_default();
            if given == 0 {
                return Grace::None;
            }
            let Some(asked) = asked.filter(|asked| *asked < given) else { return Grace::Pending };
            // Shortened from when it was told first, and not into the past.
            let earlier = deadline + SignedDuration::from_secs(asked - given);
            let (deadline, left) = if earlier < now { (now, asked.min(1)) } else { (earlier, asked) };
            object["metadata"]["deletionTimestamp"] = text_of(deadline).into();
            object["metadata"]["deletionGracePeriodSeconds"] = left.into();
            return Grace::Given(asked);
        }
        let own = object["spec"]["terminationGracePeriodSeconds"].as_i64().unwrap_or_default();
        let is_scheduled = object["spec"]["nodeName"].as_str().is_some_and(|node| !node.is_empty());
        let has_ended = matches!(object["status"]["phase"].as_str(), Some("Succeeded" | "Failed"));
        let seconds = if is_scheduled && !has_ended { asked.unwrap_or(own) } else { 0 };
        object["metadata"]["deletionTimestamp"] = text_of(now + SignedDuration::from_secs(seconds)).into();
        object["metadata"]["deletionGracePeriodSeconds"] = seconds.into();
        raise_generation(object);
        Grace::Given(seconds)
    }

    /// `markAsDeleting`: it goes with its last finalizer.
    fn mark(&self, object: &mut Value) {
        let now = self.now();
        let deadline = time(&object["metadata"]["deletionTimestamp"]);
        if deadline.is_none() {
            raise_generation(object);
        }
        if deadline.is_none_or(|deadline| deadline > now) {
            object["metadata"]["deletionTimestamp"] = text_of(now).into();
        }
        object["metadata"]["deletionGracePeriodSeconds"] = 0.into();
    }

    /// The pod is told why, and deleted. There are no disruption budgets.
    pub fn evict(&mut self, target: Target<'_>, eviction: &Value) -> Result<Answered, Refusal> {
        if eviction["metadata"]["name"] != target.name {
            return Err(Refusal::bad_request("name in URL does not match name in Eviction object"));
        }
        let mut options = Options::read(&eviction["deleteOptions"]);
        let now = self.time();
        let asked = options.clone();
        let key = target.key();
        let (_, told) = self.update(target, Part::Status, |pod| {
            let found = pod["metadata"]["resourceVersion"].as_str().unwrap_or_default();
            check(&target, &asked, pod["metadata"]["uid"].as_str().unwrap_or_default(), found)?;
            let mut pod = pod.clone();
            set_condition(
                &mut pod["status"],
                json!({
                    "type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI",
                    "message": "Eviction API: evicting", "lastTransitionTime": now,
                }),
            );
            Ok(pod)
        })?;
        drop(told);
        if options.resource_version.is_some() {
            options.resource_version = self.find(target.kind, &key).map(|pod| pod.revision.to_string());
        }
        self.delete(target, &options)?;
        Ok((201, success().to_string().into()))
    }

    /// The scheduler's decision.
    pub fn bind(&mut self, target: Target<'_>, binding: &Value) -> Result<Answered, Refusal> {
        if binding["metadata"]["name"] != target.name {
            return Err(Refusal::bad_request("name in URL does not match name in Binding object"));
        }
        let key = target.key();
        let old = self.find(target.kind, &key).cloned().ok_or_else(|| target.not_found())?;
        let conflict = |why: &str| {
            let mut refusal = Refusal::conflict(target.kind, target.name, why);
            refusal.details["kind"] = "pods/binding".into();
            refusal
        };
        let text = |name: &str| binding["metadata"][name].as_str().filter(|text| !text.is_empty());
        let is_other = text("uid").is_some_and(|uid| uid != old.uid())
            || text("resourceVersion").is_some_and(|version| version != old.revision.to_string());
        if is_other {
            return Err(Refusal::conflict(target.kind, target.name, "Precondition failed"));
        }
        if old.is_being_deleted() {
            return Err(conflict("the pod is being deleted, cannot be assigned to a host"));
        }
        if old.value["spec"].get("nodeName").is_some() {
            return Err(conflict("the pod is already assigned to a node"));
        }
        if old.value["spec"]["schedulingGates"].as_array().is_some_and(|gates| !gates.is_empty()) {
            return Err(conflict("the pod has non-empty .spec.schedulingGates"));
        }
        let mut new = old.value.clone();
        new["spec"]["nodeName"] = binding["target"]["name"].clone();
        let now = self.time();
        set_condition(
            &mut new["status"],
            json!({ "type": "PodScheduled", "status": "True", "lastTransitionTime": now }),
        );
        self.put(target.kind, &key, new, false, target.who);
        Ok((201, success().to_string().into()))
    }
}

/// The preconditions of a delete.
fn check(target: &Target<'_>, options: &Options, uid: &str, version: &str) -> Result<(), Refusal> {
    let unmet = |what: &str, asked: &str, found: &str| {
        let why = format!("the {what} in the precondition ({asked}) does not match the {what} in record ({found})");
        Err(Refusal::unmet_precondition(target.kind, target.name, why))
    };
    match (&options.uid, &options.resource_version) {
        (Some(asked), _) if *asked != uid => unmet("UID", asked, uid),
        (_, Some(asked)) if *asked != version => unmet("ResourceVersion", asked, version),
        _ => Ok(()),
    }
}

/// `deletionFinalizersForGarbageCollection`: what is to become of the dependents is written on the owner.
fn finalizers(kind: Kind, object: &Value, options: &Options) -> Vec<String> {
    let found: Vec<&str> = strings(&object["metadata"], "finalizers").collect();
    let policy = match options.propagation_policy.as_deref() {
        Some(policy) => policy,
        None if found.contains(&ORPHAN) => "Orphan",
        None if found.contains(&FOREGROUND) => "Foreground",
        // For compatibility with the times before the garbage collector.
        None if kind == Kind::Job => "Orphan",
        None => "Background",
    };
    let own = match policy {
        "Orphan" => Some(ORPHAN),
        "Foreground" => Some(FOREGROUND),
        _ => None,
    };
    if own.is_some_and(|own| found.contains(&own)) {
        // As they are, in their order.
        let other = if own == Some(ORPHAN) { FOREGROUND } else { ORPHAN };
        if !found.contains(&other) {
            return found.into_iter().map(str::to_owned).collect();
        }
    }
    let others = found.into_iter().filter(|finalizer| ![ORPHAN, FOREGROUND].contains(finalizer));
    others.chain(own).map(str::to_owned).collect()
}

fn raise_generation(object: &mut Value) {
    if let Some(generation) = object["metadata"]["generation"].as_i64().filter(|generation| *generation > 0) {
        object["metadata"]["generation"] = (generation + 1).into();
    }
}

/// `UpdatePodCondition`.
fn set_condition(status: &mut Value, mut condition: Value) {
    if !status["conditions"].is_array() {
        status["conditions"] = Value::Array(Vec::new());
    }
    let Value::Array(conditions) = &mut status["conditions"] else { return };
    match conditions.iter_mut().find(|there| there["type"] == condition["type"]) {
        Some(there) => {
            if there["status"] == condition["status"] {
                condition["lastTransitionTime"] = there["lastTransitionTime"].clone();
            }
            *there = condition;
        }
        None => conditions.push(condition),
    }
}

/// A pod is told as it was, of another kind only that it is gone.
fn deleted(target: &Target<'_>, object: &Value, bytes: &Bytes) -> Bytes {
    if target.kind == Kind::Pod {
        return bytes.clone();
    }
    let mut status = success();
    status["details"] = json!({ "name": target.name, "kind": target.kind.plural(), "uid": object["metadata"]["uid"] });
    if !target.kind.group().is_empty() {
        status["details"]["group"] = target.kind.group().into();
    }
    status.to_string().into()
}

fn success() -> Value {
    json!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success" })
}

fn time(value: &Value) -> Option<Timestamp> {
    value.as_str()?.parse().ok()
}
