//! The garbage collector, one step at a time: `pkg/controller/garbagecollector/garbagecollector.go` with a graph that is
//! never behind.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::ApiServer;
use super::delete::{FOREGROUND, ORPHAN, Options};
use super::kind::Kind;
use super::patch;
use super::route::Part;
use super::store::{Object, Store};
use super::watch::lock;
use super::write::{Target, strings};

/// Who writes.
pub const COLLECTOR: &str = "garbage-collector";

/// Who depends on whom, and who is to be looked at.
#[derive(Default)]
pub(super) struct Graph {
    /// Every object by its uid.
    objects: BTreeMap<String, (Kind, String)>,
    /// The uids of those that name a uid as their owner.
    dependents: BTreeMap<String, BTreeSet<String>>,
    waiting: BTreeSet<String>,
}

impl Graph {
    pub fn put(&mut self, kind: Kind, key: &str, previous: Option<&Object>, object: &Object) {
        let uid = object.uid();
        if previous.is_none() {
            self.objects.insert(uid.to_owned(), (kind, key.to_owned()));
        }
        let is_as_before = match previous {
            Some(previous) => references(previous) == references(object),
            None => references(object).is_null(),
        };
        if object.is_being_deleted() || !is_as_before {
            self.waiting.insert(uid.to_owned());
        }
        if is_as_before {
            return;
        }
        for owner in previous.into_iter().flat_map(owners) {
            self.forget(owner, uid);
            // It may be what its owner waits for no more.
            self.waiting.insert(owner.to_owned());
        }
        for owner in owners(object) {
            self.dependents.entry(owner.to_owned()).or_default().insert(uid.to_owned());
        }
    }

    pub fn remove(&mut self, _kind: Kind, object: &Object) {
        let uid = object.uid();
        self.objects.remove(uid);
        self.waiting.remove(uid);
        for owner in owners(object) {
            self.forget(owner, uid);
            self.waiting.insert(owner.to_owned());
        }
        self.waiting.extend(self.dependents.get(uid).into_iter().flatten().cloned());
    }

    fn forget(&mut self, owner: &str, dependent: &str) {
        if let Some(dependents) = self.dependents.get_mut(owner) {
            dependents.remove(dependent);
            if dependents.is_empty() {
                self.dependents.remove(owner);
            }
        }
    }
}

fn references(object: &Object) -> &Value {
    &object.value["metadata"]["ownerReferences"]
}

/// The uids of its owners.
fn owners(object: &Object) -> impl Iterator<Item = &str> {
    references(object).as_array().into_iter().flatten().filter_map(|owner| owner["uid"].as_str())
}

fn is_deleting_dependents(object: &Object) -> bool {
    object.is_being_deleted() && has_finalizer(object, FOREGROUND)
}

fn has_finalizer(object: &Object, finalizer: &str) -> bool {
    strings(&object.value["metadata"], "finalizers").any(|found| found == finalizer)
}

/// Makes one write, if there is one to make; answers whether there was.
pub fn collect(server: &ApiServer) -> bool {
    let mut store = lock(&server.store);
    while let Some(uid) = store.graph.waiting.pop_first() {
        if store.look_at(&uid) {
            return true;
        }
    }
    false
}

/// Makes all writes that are to be made; answers with how many.
pub fn collect_all(server: &ApiServer) -> usize {
    let mut n_writes = 0;
    while collect(server) {
        n_writes += 1;
    }
    n_writes
}

impl Store {
    /// `attemptToDeleteItem` and `attemptToOrphan`; whether something was written.
    fn look_at(&mut self, uid: &str) -> bool {
        let Some((kind, key)) = self.graph.objects.get(uid).cloned() else { return false };
        let Some(object) = self.find(kind, &key).cloned() else { return false };
        let Some((namespace, name)) = key.split_once('/') else { return false };
        let target = Target { kind, namespace, name, who: COLLECTOR };

        if object.is_being_deleted() && has_finalizer(&object, ORPHAN) {
            return self.make_orphans(target, uid);
        }
        if is_deleting_dependents(&object) {
            if !self.is_blocked(uid) {
                return self.take_finalizer(target, FOREGROUND);
            }
            let dependents = self.graph.dependents.get(uid).into_iter().flatten();
            let idle: Vec<String> = dependents.filter(|dependent| !self.is_going(dependent)).cloned().collect();
            self.graph.waiting.extend(idle);
            return false;
        }
        if object.is_being_deleted() {
            return false;
        }
        self.judge_owners(target, uid, &object)
    }

    fn judge_owners(&mut self, target: Target<'_>, uid: &str, object: &Object) -> bool {
        let owners = references(object).as_array().cloned().unwrap_or_default();
        if owners.is_empty() {
            return false;
        }
        let (mut is_held, mut is_awaited, mut lost) = (false, false, Vec::new());
        for owner in &owners {
            match self.owner(target.namespace, owner) {
                Owner::Unknown => return false,
                Owner::Solid => is_held = true,
                Owner::Dangling => lost.push(owner["uid"].clone()),
                Owner::Waiting => {
                    is_awaited = true;
                    lost.push(owner["uid"].clone());
                }
            }
        }
        if is_held {
            return !lost.is_empty() && self.disown(target, &lost);
        }
        let are_dependents_asked = is_awaited && self.graph.dependents.contains_key(uid);
        if are_dependents_asked && self.may_be_circle(uid) && self.unblock(target) {
            self.graph.waiting.insert(uid.to_owned());
            return true;
        }
        let policy = if are_dependents_asked {
            "Foreground"
        } else if has_finalizer(object, ORPHAN) {
            "Orphan"
        } else if has_finalizer(object, FOREGROUND) {
            "Foreground"
        } else {
            "Background"
        };
        let options =
            Options { uid: Some(uid.to_owned()), propagation_policy: Some(policy.to_owned()), ..Options::default() };
        self.delete(target, &options).is_ok()
    }

    /// What has become of an owner.
    fn owner(&self, namespace: &str, owner: &Value) -> Owner {
        let text = |name: &str| owner[name].as_str().unwrap_or_default();
        let Some(kind) = Kind::of_owner(text("apiVersion"), text("kind")) else {
            return Owner::Unknown;
        };
        match self.find(kind, &super::store::key(namespace, text("name"))) {
            Some(found) if found.uid() == text("uid") => {
                if is_deleting_dependents(found) {
                    Owner::Waiting
                } else {
                    Owner::Solid
                }
            }
            _ => Owner::Dangling,
        }
    }

    /// Whether an object that is to be deleted after its dependents has any that it must wait for.
    fn is_blocked(&self, uid: &str) -> bool {
        let mut dependents = self.graph.dependents.get(uid).into_iter().flatten();
        dependents.any(|dependent| {
            self.object(dependent).is_some_and(|object| {
                let mut owners = references(object).as_array().into_iter().flatten();
                owners.any(|owner| owner["uid"] == uid && owner["blockOwnerDeletion"] == true)
            })
        })
    }

    /// A dependent waits for its own dependents: the object may be one of them.
    fn may_be_circle(&self, uid: &str) -> bool {
        let mut dependents = self.graph.dependents.get(uid).into_iter().flatten();
        dependents.any(|dependent| self.object(dependent).is_some_and(is_deleting_dependents))
    }

    /// No owner waits for the object any more; answers whether one did.
    fn unblock(&mut self, target: Target<'_>) -> bool {
        let before = self.revision;
        let written = self.update(target, Part::Whole, |old| {
            let mut new = old.clone();
            for owner in new["metadata"]["ownerReferences"].as_array_mut().into_iter().flatten() {
                if owner["blockOwnerDeletion"] == true {
                    owner["blockOwnerDeletion"] = false.into();
                }
            }
            Ok(new)
        });
        written.is_ok() && self.revision > before
    }

    fn object(&self, uid: &str) -> Option<&Object> {
        let (kind, key) = self.graph.objects.get(uid)?;
        self.find(*kind, key).map(|object| &**object)
    }

    fn is_going(&self, uid: &str) -> bool {
        self.object(uid).is_some_and(Object::is_being_deleted)
    }

    /// One dependent at a time; when there is none left, the finalizer.
    fn make_orphans(&mut self, target: Target<'_>, uid: &str) -> bool {
        let dependent = self.graph.dependents.get(uid).and_then(BTreeSet::first).cloned();
        let Some(dependent) = dependent else { return self.take_finalizer(target, ORPHAN) };
        self.graph.waiting.insert(uid.to_owned());
        let Some((kind, key)) = self.graph.objects.get(&dependent).cloned() else { return false };
        let Some((namespace, name)) = key.split_once('/') else { return false };
        self.disown(Target { kind, namespace, name, who: COLLECTOR }, &[uid.into()])
    }

    fn disown(&mut self, target: Target<'_>, owners: &[Value]) -> bool {
        let gone: Vec<Value> = owners.iter().map(|uid| json!({ "$patch": "delete", "uid": uid })).collect();
        let patch = json!({ "metadata": { "ownerReferences": gone } });
        let written = self.update(target, Part::Whole, |old| {
            let mut new = old.clone();
            if let (Value::Object(new), Value::Object(patch)) = (&mut new, patch) {
                patch::strategic(new, patch)?;
            }
            Ok(new)
        });
        written.is_ok()
    }

    fn take_finalizer(&mut self, target: Target<'_>, finalizer: &str) -> bool {
        let written = self.update(target, Part::Whole, |old| {
            let mut new = old.clone();
            if let Some(Value::Array(finalizers)) = new["metadata"].get_mut("finalizers") {
                finalizers.retain(|found| found != finalizer);
            }
            Ok(new)
        });
        written.is_ok()
    }
}

enum Owner {
    /// Of a kind that is not served: as long as it is one, the dependent is left alone.
    Unknown,
    Solid,
    Dangling,
    /// It waits for its dependents to be deleted.
    Waiting,
}
