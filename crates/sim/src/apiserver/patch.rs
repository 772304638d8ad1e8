//! Strategic merge patches, as far as clients of these kinds send them:
//! `k8s.io/apimachinery/pkg/util/strategicpatch/patch.go`.

use serde_json::{Map, Value};

use super::refusal::Refusal;

const DIRECTIVE: &str = "$patch";
const DELETE_FROM: &str = "$deleteFromPrimitiveList/";

/// How the items of a list are told apart.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Items {
    /// The list is replaced.
    Atomic,
    /// By themselves.
    Primitive,
    /// By one of their fields.
    By(&'static str),
}

/// The `patchStrategy` and `patchMergeKey` of the fields of Pods and Jobs.
fn items(field: &str) -> Items {
    match field {
        "finalizers" => Items::Primitive,
        "ownerReferences" => Items::By("uid"),
        "conditions" => Items::By("type"),
        "containers"
        | "initContainers"
        | "ephemeralContainers"
        | "volumes"
        | "env"
        | "imagePullSecrets"
        | "schedulingGates" => Items::By("name"),
        "volumeMounts" => Items::By("mountPath"),
        "podIPs" | "hostIPs" | "hostAliases" => Items::By("ip"),
        _ => Items::Atomic,
    }
}

/// Changes `target` as the patch says, merging those lists of which the kind says how.
pub(super) fn strategic(target: &mut Map<String, Value>, patch: Map<String, Value>) -> Result<(), Refusal> {
    if let Some(directive) = patch.get(DIRECTIVE) {
        match directive.as_str() {
            Some("replace") => {
                *target = patch;
                target.remove(DIRECTIVE);
            }
            Some("delete") => target.clear(),
            _ => return Err(unknown(directive)),
        }
        return Ok(());
    }
    for (name, value) in patch {
        if let Some(list) = name.strip_prefix(DELETE_FROM) {
            delete_from(target.get_mut(list), &value);
        } else if name.starts_with('$') {
            return Err(unknown(&name.into()));
        } else if value.is_null() {
            target.remove(&name);
        } else {
            match (target.get_mut(&name), value) {
                (Some(Value::Object(fields)), Value::Object(patch)) => strategic(fields, patch)?,
                (Some(Value::Array(list)), Value::Array(patch)) => merge_list(list, patch, items(&name))?,
                (_, value) => {
                    if let Some(value) = without_directives(value) {
                        target.insert(name, value);
                    }
                }
            }
        }
    }
    Ok(())
}

fn delete_from(list: Option<&mut Value>, items: &Value) {
    if let (Some(Value::Array(list)), Value::Array(items)) = (list, items) {
        list.retain(|item| !items.contains(item));
    }
}

fn merge_list(list: &mut Vec<Value>, patch: Vec<Value>, items: Items) -> Result<(), Refusal> {
    let Items::By(key) = items else {
        if items == Items::Primitive {
            let before = list.clone();
            let mut all = std::mem::take(list);
            all.extend(patch.iter().cloned());
            let mut merged: Vec<Value> = Vec::new();
            for item in all {
                if !merged.contains(&item) {
                    merged.push(item);
                }
            }
            *list = ordered(merged, &patch, &before, |item| item);
        } else {
            *list = patch;
        }
        return Ok(());
    };
    let mut rest = Vec::new();
    let mut replaces = false;
    for item in patch {
        match item.get(DIRECTIVE).map(Value::as_str) {
            None => rest.push(item),
            Some(Some("delete")) => match item.get(key) {
                Some(wanted) => list.retain(|there| there.get(key) != Some(wanted)),
                None => return Err(no_key(&item, key)),
            },
            Some(Some("replace")) => replaces = true,
            Some(_) => return Err(unknown(&item[DIRECTIVE])),
        }
    }
    if replaces {
        list.clear();
    }
    let before = list.clone();
    for item in &rest {
        let Some(wanted) = item.get(key) else { return Err(no_key(item, key)) };
        let there = list.iter_mut().find(|there| there.get(key) == Some(wanted));
        match (there, item) {
            (Some(Value::Object(there)), Value::Object(item)) => strategic(there, item.clone())?,
            _ => list.extend(without_directives(item.clone())),
        }
    }
    let merged = std::mem::take(list);
    *list = ordered(merged, &rest, &before, |item| &item[key]);
    Ok(())
}

/// The order that a merged list has: the items of the patch in its order, and the others in theirs, each before the first
/// item of the patch that it stood before; but those behind an item of the patch that is new come after it
/// (`normalizeElementOrder` and `mergeSortedSlice`).
fn ordered(merged: Vec<Value>, patch: &[Value], before: &[Value], key: impl Fn(&Value) -> &Value) -> Vec<Value> {
    let place = |list: &[Value], item: &Value| list.iter().position(|other| key(other) == key(item));
    let (mut patched, mut others): (Vec<Value>, Vec<Value>) =
        merged.into_iter().partition(|item| place(patch, item).is_some());
    patched.sort_by_key(|item| place(patch, item));
    others.sort_by_key(|item| place(before, item));
    let mut all = Vec::with_capacity(patched.len() + others.len());
    let (mut patched, mut others) = (patched.into_iter().peekable(), others.into_iter().peekable());
    loop {
        let takes_other = match (others.peek(), patched.peek()) {
            (Some(other), Some(item)) => match (place(before, other), place(before, item)) {
                (Some(other), Some(item)) => other < item,
                _ => false,
            },
            (Some(_), None) => true,
            (None, Some(_)) => false,
            (None, None) => return all,
        };
        all.extend(if takes_other { others.next() } else { patched.next() });
    }
}

/// What is put where nothing was; None for a directive that has nothing to work on.
fn without_directives(value: Value) -> Option<Value> {
    match value {
        Value::Object(mut fields) => {
            if fields.get(DIRECTIVE).is_some() {
                let is_delete = fields[DIRECTIVE] == "delete";
                fields.remove(DIRECTIVE);
                if is_delete {
                    return None;
                }
            }
            let fields = fields.into_iter().filter(|(name, value)| !name.starts_with('$') && !value.is_null());
            Some(Value::Object(fields.filter_map(|(name, value)| Some((name, without_directives(value)?))).collect()))
        }
        Value::Array(items) => Some(Value::Array(items.into_iter().filter_map(without_directives).collect())),
        value => Some(value),
    }
}

fn unknown(directive: &Value) -> Refusal {
    Refusal::bad_request(format!("the API server in memory knows no {directive} in a patch"))
}

fn no_key(item: &Value, key: &str) -> Refusal {
    // The real one has no word for it.
    Refusal::new(500, "", format!("map: {item} does not contain declared merge key: {key}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn patched(mut target: Value, patch: Value) -> Value {
        let Value::Object(patch) = patch else { panic!("an object") };
        strategic(target.as_object_mut().expect("an object"), patch).expect("a good patch");
        target
    }

    #[test]
    fn finalizers_are_a_set() {
        let target = json!({ "finalizers": ["a", "b"] });
        assert_eq!(
            patched(target.clone(), json!({ "finalizers": ["c", "b"] })),
            json!({ "finalizers": ["c", "a", "b"] })
        );
        assert_eq!(
            patched(target, json!({ "$deleteFromPrimitiveList/finalizers": ["a", "x"] })),
            json!({ "finalizers": ["b"] })
        );
    }

    #[test]
    fn owners_are_merged_and_deleted_by_uid() {
        let target = json!({ "ownerReferences": [{ "uid": "1", "name": "a" }, { "uid": "2", "name": "b" }] });
        let patch =
            json!({ "ownerReferences": [{ "$patch": "delete", "uid": "1" }, { "uid": "2", "controller": true }] });
        let left = json!({ "ownerReferences": [{ "uid": "2", "name": "b", "controller": true }] });
        assert_eq!(patched(target, patch), left);
        let nobody = json!({});
        assert_eq!(
            patched(nobody, json!({ "ownerReferences": [{ "$patch": "delete", "uid": "1" }] })),
            json!({ "ownerReferences": [] })
        );
    }
}
