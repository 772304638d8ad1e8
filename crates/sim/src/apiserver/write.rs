//! Creates and updates, step by step as `registry/generic/registry/store.go` of the real API server takes them.

use bytes::Bytes;
use serde_json::Value;

use super::decode::{decode, inherit_labels};
use super::kind::Kind;
use super::refusal::{Cause, Refusal};
use super::route::Part;
use super::store::{Store, key};
use super::strategy;

/// Which object, and who wants it changed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Target<'a> {
    pub kind: Kind,
    pub namespace: &'a str,
    pub name: &'a str,
    pub who: &'a str,
}

impl Target<'_> {
    pub fn key(&self) -> String {
        key(self.namespace, self.name)
    }

    pub fn not_found(&self) -> Refusal {
        Refusal::not_found(self.kind, self.name)
    }
}

/// The code and the body of an answer.
pub(super) type Answered = (u16, Bytes);

impl Store {
    pub fn create(&mut self, kind: Kind, namespace: &str, mut object: Value, who: &str) -> Result<Answered, Refusal> {
        check_type(kind, &object)?;
        decode(kind, &mut object);
        let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        let target = Target { kind, namespace, name: &name, who };
        place(&target, &mut object)?;
        // The status of the schema, and the labels that a Job inherits when it is read (`SetDefaults_Job`).
        let has_no_labels = |object: &Value| object["metadata"].get("labels").is_none();
        let has_unstored_default = match kind {
            Kind::BatchJob | Kind::BatchCronJob => true,
            Kind::Job => has_no_labels(&object) && has_no_labels(&object["spec"]["template"]),
            Kind::Pod | Kind::Lease | Kind::Event => false,
        };
        self.prepare(kind, &mut object);
        if name.is_empty() {
            return Err(Refusal::invalid(
                kind,
                &name,
                &[Cause::required("metadata.name", "name or generateName is required")],
            ));
        }
        let causes = metadata_causes(&object["metadata"]);
        if !causes.is_empty() {
            return Err(Refusal::invalid(kind, &name, &causes));
        }
        if let Some(admission) = &mut self.admission {
            admission(kind, &object)?;
        }
        if object["metadata"].get("resourceVersion").is_some() {
            return Err(Refusal::new(500, "", "resourceVersion should not be set on objects to be created"));
        }
        let key = target.key();
        if let Some(there) = self.find(kind, &key) {
            return Err(Refusal::already_exists(kind, &name, there.is_being_deleted()));
        }
        if kind == Kind::Event {
            return Ok((201, self.count_event(&object)));
        }
        Ok((201, self.put(kind, &key, object, has_unstored_default, who).bytes.clone()))
    }

    /// What the server alone says of a new object.
    fn prepare(&mut self, kind: Kind, object: &mut Value) {
        let (uid, now) = (self.next_uid(), self.time());
        if let Value::Object(metadata) = &mut object["metadata"] {
            metadata.remove("deletionTimestamp");
            metadata.remove("deletionGracePeriodSeconds");
            metadata.insert("uid".to_owned(), uid.into());
            metadata.insert("creationTimestamp".to_owned(), now.clone());
        }
        strategy::prepare_new(kind, object, now);
    }

    /// Events are many, and nobody reads them.
    fn count_event(&mut self, object: &Value) -> Bytes {
        self.n_events += 1;
        self.revision += 1;
        object.to_string().into()
    }

    /// PUT.
    pub fn replace(&mut self, target: Target<'_>, part: Part, new: Value) -> Result<Answered, Refusal> {
        check_type(target.kind, &new)?;
        let metadata = &new["metadata"];
        let text = |name: &str| metadata[name].as_str().unwrap_or_default();
        if text("name") != target.name {
            let message = if text("name").is_empty() {
                "name must be provided".to_owned()
            } else {
                format!(
                    "the name of the object ({}) does not match the name on the URL ({})",
                    text("name"),
                    target.name
                )
            };
            return Err(Refusal::bad_request(message));
        }
        let uid = text("uid").to_owned();
        match self.find(target.kind, &target.key()) {
            Some(there) if !uid.is_empty() && uid != there.uid() => Err(unmet_uid(&target, &uid, there.uid())),
            Some(_) => self.update(target, part, |_| Ok(new)),
            None if !target.kind.may_be_created_by_put() => Err(target.not_found()),
            None if !uid.is_empty() => Err(unmet_uid(&target, &uid, "")),
            None => {
                let mut new = new;
                if let Value::Object(metadata) = &mut new["metadata"] {
                    metadata.remove("resourceVersion");
                }
                self.create(target.kind, target.namespace, new, target.who)
            }
        }
    }

    /// Changes an object to what `revise` makes of it; if nothing is changed, nothing is written.
    pub fn update(
        &mut self,
        target: Target<'_>,
        part: Part,
        revise: impl FnOnce(&Value) -> Result<Value, Refusal>,
    ) -> Result<Answered, Refusal> {
        let Target { kind, name, who, .. } = target;
        let key = target.key();
        let old = self.find(kind, &key).cloned().ok_or_else(|| target.not_found())?;
        let mut new = revise(&old.value)?;
        decode(kind, &mut new);
        if kind == Kind::Job {
            inherit_labels(&mut new);
        }
        place(&target, &mut new)?;
        self.check_version(&target, &mut new, old.revision)?;

        strategy::prepare_update(kind, part, &mut new, &old.value);
        keep_system_fields(&mut new["metadata"], &old.value["metadata"]);
        let mut causes = metadata_update_causes(&new["metadata"], &old.value["metadata"]);
        causes.extend(strategy::validate_update(kind, part, &new, &old.value));
        if !causes.is_empty() {
            return Err(Refusal::invalid(kind, name, &causes));
        }

        if is_let_go(&new["metadata"], &old.value["metadata"]) {
            // The update itself is never written: a watch sees the object go with the finalizer that it had.
            self.remove(kind, &key, who);
            return Ok((200, new.to_string().into()));
        }
        if new == old.value && !old.has_unstored_default {
            return Ok((200, old.bytes.clone()));
        }
        Ok((200, self.put(kind, &key, new, false, who).bytes.clone()))
    }

    /// The version that the request was made for is the one that is there; then it is the old object's.
    fn check_version(&self, target: &Target<'_>, new: &mut Value, revision: u64) -> Result<(), Refusal> {
        let version = &mut new["metadata"]["resourceVersion"];
        let asked = version.as_str().unwrap_or_default();
        let is_any = asked.is_empty() || asked == "0";
        if is_any && !target.kind.may_be_replaced_blindly() {
            let cause = Cause::invalid("metadata.resourceVersion", "must be specified for an update");
            let mut refusal = Refusal::invalid(target.kind, target.name, &[cause]);
            // The real one says here which resource it is, not which kind.
            refusal.details["kind"] = target.kind.plural().into();
            return Err(refusal);
        }
        if !is_any && asked != revision.to_string() {
            return Err(Refusal::outdated(target.kind, target.name));
        }
        *version = revision.to_string().into();
        Ok(())
    }
}

fn unmet_uid(target: &Target<'_>, asked: &str, found: &str) -> Refusal {
    let why = format!("Precondition failed: UID in precondition: {asked}, UID in object meta: {found}");
    Refusal::conflict(target.kind, target.name, why)
}

/// What the object says of its own type fits the path.
fn check_type(kind: Kind, object: &Value) -> Result<(), Refusal> {
    let fits = |name: &str, wanted: &str| match object.get(name).and_then(Value::as_str) {
        Some(found) => found == wanted,
        None => kind.is_built_in(),
    };
    if object.is_object() && fits("kind", kind.name()) && fits("apiVersion", kind.api_version()) {
        Ok(())
    } else {
        Err(Refusal::bad_request("the object provided is of another type than the resource"))
    }
}

/// The object is in the namespace of the path, under the name of the path.
fn place(target: &Target<'_>, object: &mut Value) -> Result<(), Refusal> {
    let metadata = &mut object["metadata"];
    match metadata.get("namespace").and_then(Value::as_str) {
        None => metadata["namespace"] = target.namespace.into(),
        Some(namespace) if namespace == target.namespace => {}
        Some(_) => {
            return Err(Refusal::bad_request(
                "the namespace of the provided object does not match the namespace sent on the request",
            ));
        }
    }
    if metadata["name"].as_str().unwrap_or_default() == target.name {
        Ok(())
    } else {
        Err(Refusal::bad_request("the name of the object does not match the name on the URL"))
    }
}

/// `BeforeUpdate`: what is never changed by an update.
fn keep_system_fields(new: &mut Value, old: &Value) {
    let Value::Object(new) = new else { return };
    let mut keep = |name: &str, is_given: bool| match old.get(name) {
        Some(value) if !is_given => _ = new.insert(name.to_owned(), value.clone()),
        _ => {}
    };
    keep("creationTimestamp", false);
    keep("deletionTimestamp", false);
    for name in ["uid", "deletionGracePeriodSeconds"] {
        if !new.contains_key(name)
            && let Some(value) = old.get(name)
        {
            new.insert(name.to_owned(), value.clone());
        }
    }
}

/// `ValidateObjectMetaAccessorUpdate`.
fn metadata_update_causes(new: &Value, old: &Value) -> Vec<Cause> {
    let mut causes = metadata_causes(new);
    if old.get("deletionTimestamp").is_some()
        && strings(new, "finalizers").any(|new| !strings(old, "finalizers").any(|old| old == new))
    {
        causes.push(Cause::forbidden(
            "metadata.finalizers",
            "no new finalizers can be added if the object is being deleted",
        ));
    }
    for field in ["uid", "deletionTimestamp", "deletionGracePeriodSeconds"] {
        if new.get(field) != old.get(field) {
            causes.push(Cause::invalid(format!("metadata.{field}"), "field is immutable"));
        }
    }
    causes
}

fn metadata_causes(metadata: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    let owners = metadata["ownerReferences"].as_array().into_iter().flatten();
    let mut n_controllers = 0;
    for (index, owner) in owners.enumerate() {
        for field in ["apiVersion", "kind", "name", "uid"] {
            if owner[field].as_str().is_none_or(str::is_empty) {
                let field = format!("metadata.ownerReferences[{index}].{field}");
                causes.push(Cause::required(field, "must not be empty"));
            }
        }
        if owner["controller"] == true {
            n_controllers += 1;
            if n_controllers > 1 {
                causes.push(Cause::invalid(
                    "metadata.ownerReferences",
                    "Only one reference can have Controller set to true",
                ));
            }
        }
    }
    let has = |wanted: &str| strings(metadata, "finalizers").any(|finalizer| finalizer == wanted);
    if has(super::delete::ORPHAN) && has(super::delete::FOREGROUND) {
        causes
            .push(Cause::invalid("metadata.finalizers", "finalizer orphan and foregroundDeletion cannot be both set"));
    }
    causes
}

/// `ShouldDeleteDuringUpdate`: it was to be deleted, nothing is left of its grace, and the last finalizer goes.
fn is_let_go(new: &Value, old: &Value) -> bool {
    let has_grace = old.get("deletionGracePeriodSeconds").and_then(Value::as_i64).is_some_and(|seconds| seconds != 0);
    strings(new, "finalizers").next().is_none() && old.get("deletionTimestamp").is_some() && !has_grace
}

pub(super) fn strings<'a>(metadata: &'a Value, field: &str) -> impl Iterator<Item = &'a str> {
    metadata[field].as_array().into_iter().flatten().filter_map(Value::as_str)
}
