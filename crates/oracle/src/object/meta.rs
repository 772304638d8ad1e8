//! What every object has.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use super::{list, time};

/// The metadata of an object, as far as laws ask for it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Meta {
    pub namespace: Arc<str>,
    pub name: Arc<str>,
    pub uid: Arc<str>,
    pub generation: i64,
    pub created: Option<Timestamp>,
    pub deletion: Option<Deletion>,
    /// The uid of the owner that is its controller.
    pub controller: Option<Arc<str>>,
    /// How many of its owners say that they are its controller.
    pub n_controllers: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deletion {
    /// When it was asked for: the deletion timestamp less the grace period.
    pub asked: Timestamp,
    /// 0: nothing is waited for but finalizers.
    pub grace_seconds: i64,
}

impl Meta {
    pub fn read(json: &Value) -> Meta {
        let meta = &json["metadata"];
        let text = |field: &str| -> Arc<str> { meta[field].as_str().unwrap_or_default().into() };
        let deletion = time(meta, "deletionTimestamp").map(|at| {
            let grace_seconds = meta["deletionGracePeriodSeconds"].as_i64().unwrap_or_default();
            Deletion { asked: at.saturating_sub(SignedDuration::from_secs(grace_seconds)).unwrap_or(at), grace_seconds }
        });
        let mut controllers = list(meta, "ownerReferences").filter(|owner| owner["controller"] == true);
        let controller = controllers.next().and_then(|owner| owner["uid"].as_str()).map(Arc::from);
        Meta {
            namespace: text("namespace"),
            name: text("name"),
            uid: text("uid"),
            generation: meta["generation"].as_i64().unwrap_or_default(),
            created: time(meta, "creationTimestamp"),
            deletion,
            n_controllers: usize::from(controller.is_some()) + controllers.count(),
            controller,
        }
    }

    /// "namespace/name".
    pub fn place(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }
}
