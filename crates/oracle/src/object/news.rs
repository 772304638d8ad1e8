//! An event that somebody told about an object: not one of our history.

use std::sync::Arc;

use serde_json::Value;

use super::{Meta, count};

#[derive(Clone, Debug)]
pub struct News {
    pub meta: Meta,
    /// The uid of the object that it is about.
    pub about: Arc<str>,
    pub reason: Box<str>,
    /// Who tells it: `reportingController`, or the source of an event of the core API.
    pub controller: Box<str>,
    pub note_bytes: usize,
    /// How often it was told.
    pub n_told: u32,
}

impl News {
    pub fn read(json: &Value) -> News {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        // The core API and events.k8s.io name the same fields differently.
        let about = if json["regarding"].is_object() { &json["regarding"] } else { &json["involvedObject"] };
        let note = json["note"].as_str().or(json["message"].as_str()).unwrap_or_default();
        let controller = json["reportingController"].as_str().or(json["reportingComponent"].as_str());
        let controller = controller.filter(|name| !name.is_empty()).or(json["source"]["component"].as_str());
        News {
            meta: Meta::read(json),
            about: text(&about["uid"]).into(),
            reason: text(&json["reason"]).into(),
            controller: controller.unwrap_or_default().into(),
            note_bytes: note.len(),
            n_told: count(&json["series"], "count").or_else(|| count(json, "count")).unwrap_or(1),
        }
    }
}
