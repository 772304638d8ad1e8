//! What one side has shown so far, and its answers without what is each side's own: uids and versions become "the n-th that
//! was seen", times that the server took from its clock become "now".

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::sequence::{Kind, SOME_UID, Step, Verb};

/// The memory of one side.
#[derive(Default)]
pub struct Seen {
    /// The objects as they were last seen, by kind and name.
    objects: BTreeMap<(Kind, &'static str), Value>,
    /// The version before that.
    old_versions: BTreeMap<(Kind, &'static str), String>,
    /// Of the list that was cut off last, by kind.
    tokens: BTreeMap<Kind, String>,
    uids: Vec<String>,
    versions: Vec<String>,
}

impl Seen {
    /// The body that this side is sent; None if the request has none.
    pub fn body(&self, step: &Step) -> Option<Value> {
        let mut body = match &step.verb {
            Verb::Get | Verb::List(_) | Verb::Continue => return None,
            Verb::Replace(change) => {
                let mut body = self.objects.get(&(step.kind, step.name)).cloned().unwrap_or_else(|| {
                    json!({
                        "apiVersion": step.kind.api_version(), "kind": format!("{:?}", step.kind),
                        "metadata": { "name": step.name },
                    })
                });
                // What is not said to be a precondition is none.
                if let Value::Object(metadata) = &mut body["metadata"] {
                    metadata.retain(|name, _| !matches!(&**name, "uid" | "resourceVersion" | "managedFields"));
                }
                json_patch::merge(&mut body, change);
                body
            }
            Verb::Create(body)
            | Verb::Merge(body)
            | Verb::Strategic(body)
            | Verb::Delete(body)
            | Verb::Bind(body)
            | Verb::Evict(body) => body.clone(),
        };
        self.fill(step, &mut body);
        Some(body)
    }

    pub fn token(&self, kind: Kind) -> Option<&String> {
        self.tokens.get(&kind)
    }

    fn fill(&self, step: &Step, body: &mut Value) {
        let key = (step.kind, step.name);
        let object = self.objects.get(&key);
        let of = |field: &str| object.and_then(|object| object["metadata"][field].as_str());
        match body {
            Value::String(text) => {
                let filled = match &**text {
                    "<uid>" => of("uid").unwrap_or(SOME_UID).to_owned(),
                    "<version>" => of("resourceVersion").unwrap_or("1").to_owned(),
                    "<old-version>" => self.old_versions.get(&key).cloned().unwrap_or_else(|| "1".to_owned()),
                    _ => return,
                };
                *text = filled;
            }
            Value::Object(fields) => fields.values_mut().for_each(|value| self.fill(step, value)),
            Value::Array(items) => items.iter_mut().for_each(|value| self.fill(step, value)),
            _ => {}
        }
    }

    /// Remembers what an answer shows of the object.
    pub fn learn(&mut self, step: &Step, answer: &Value) {
        if let Some(items) = answer.get("items") {
            match answer["metadata"]["continue"].as_str().filter(|token| !token.is_empty()) {
                Some(token) => _ = self.tokens.insert(step.kind, token.to_owned()),
                None => _ = self.tokens.remove(&step.kind),
            }
            for item in items.as_array().into_iter().flatten() {
                self.number(item);
            }
            return;
        }
        let Some(version) = answer["metadata"]["resourceVersion"].as_str() else { return };
        self.number(answer);
        let key = (step.kind, step.name);
        let before = self.objects.insert(key, answer.clone());
        let before = before.and_then(|before| Some(before["metadata"]["resourceVersion"].as_str()?.to_owned()));
        if let Some(before) = before.filter(|before| before != version) {
            self.old_versions.insert(key, before);
        }
    }

    /// Numbers the uid and the version of an object in the order in which they are seen.
    pub fn number(&mut self, object: &Value) {
        let metadata = &object["metadata"];
        for (field, known) in [("uid", &mut self.uids), ("resourceVersion", &mut self.versions)] {
            if let Some(value) = metadata[field].as_str()
                && !known.iter().any(|known| known == value)
            {
                known.push(value.to_owned());
            }
        }
    }

    /// What of an answer is to be the same on both sides.
    pub fn comparable(&self, step: &Step, code: u16, answer: &Value) -> Value {
        let what = if let Some(items) = answer.get("items") {
            json!({
                "items": items.as_array().into_iter().flatten().map(|item| self.object(step.kind, item)).collect::<Vec<_>>(),
                "goes on": answer["metadata"]["continue"].as_str().is_some_and(|token| !token.is_empty()),
                "left": answer["metadata"]["remainingItemCount"],
            })
        } else if answer["kind"] == "Status" {
            self.status(answer)
        } else {
            self.object(step.kind, answer)
        };
        json!({ "code": code, "answer": what })
    }

    fn status(&self, status: &Value) -> Value {
        let mut causes: Vec<String> = status["details"]["causes"]
            .as_array()
            .into_iter()
            .flatten()
            // The rules of a schema that were not asked, because the object is wrong anyhow.
            .filter(|cause| cause["field"] != "<nil>")
            .map(|cause| format!("{} {}", cause["reason"], cause["field"]))
            .collect();
        causes.sort();
        causes.dedup();
        let mut details = status["details"].clone();
        if let Value::Object(details) = &mut details {
            details.remove("causes");
        }
        // Other messages are for people, and some of them name versions.
        let message = status["message"].as_str().filter(|message| {
            matches!(status["reason"].as_str(), Some("NotFound" | "AlreadyExists"))
                || message.contains("the object has been modified")
        });
        let mut status = json!({
            "message": message, "status": status["status"], "reason": status["reason"], "details": details, "causes": causes,
        });
        self.tidy(&mut status);
        status
    }

    /// What of an object is to be the same.
    pub fn object(&self, kind: Kind, object: &Value) -> Value {
        let mut metadata = object["metadata"].clone();
        if let Value::Object(fields) = &mut metadata {
            fields.retain(|name, _| !matches!(&**name, "managedFields" | "namespace" | "creationTimestamp"));
            if fields.contains_key("deletionTimestamp") {
                fields.insert("deletionTimestamp".to_owned(), "given".into());
            }
            if let Some(version) = fields.get_mut("resourceVersion") {
                let place = self.versions.iter().position(|known| version == known);
                *version = place.map_or("never seen".into(), |place| format!("version {place}").into());
            }
        }
        let mut spec = object["spec"].clone();
        let known: &[&str] = match kind {
            Kind::Pod => &["nodeName", "terminationGracePeriodSeconds", "restartPolicy"],
            Kind::Job | Kind::BatchJob | Kind::Lease => &[],
        };
        if let Value::Object(fields) = &mut spec {
            fields.retain(|name, _| known.is_empty() || known.contains(&&**name));
            if let Some(Value::Object(template)) = fields.get_mut("template") {
                template.remove("spec");
            }
        }
        let mut whole = json!({ "metadata": metadata, "spec": spec, "status": object["status"] });
        self.tidy(&mut whole);
        whole
    }

    /// Drops nulls, numbers uids, and takes the present out of times.
    fn tidy(&self, value: &mut Value) {
        match value {
            Value::Object(fields) => {
                fields.retain(|_, value| !value.is_null());
                fields.values_mut().for_each(|value| self.tidy(value));
            }
            Value::Array(items) => items.iter_mut().for_each(|value| self.tidy(value)),
            Value::String(text) => {
                if let Some(place) = self.uids.iter().position(|uid| uid == text) {
                    *text = format!("uid {place}");
                } else if text.parse::<jiff::Timestamp>().is_ok() && !text.starts_with("2026-01-01T") {
                    *text = "now".to_owned();
                }
            }
            _ => {}
        }
    }
}

/// Where two values differ, one place a line.
pub fn differences(in_memory: &Value, real: &Value) -> Vec<String> {
    let mut found = Vec::new();
    differ("", in_memory, real, &mut found);
    found
}

fn differ(path: &str, in_memory: &Value, real: &Value, found: &mut Vec<String>) {
    match (in_memory, real) {
        (Value::Object(one), Value::Object(other)) => {
            let mut names: Vec<&String> = one.keys().chain(other.keys()).collect();
            names.sort();
            names.dedup();
            for name in names {
                differ(&format!("{path}.{name}"), &in_memory[name], &real[name], found);
            }
        }
        (Value::Array(one), Value::Array(other)) if one.len() == other.len() => {
            for (index, (one, other)) in one.iter().zip(other).enumerate() {
                differ(&format!("{path}[{index}]"), one, other, found);
            }
        }
        _ if in_memory == real => {}
        _ => found.push(format!("{path}: in memory {in_memory}, real {real}")),
    }
}
