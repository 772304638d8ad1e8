//! Reads what users may have written as far as it can be read.
//!
//! The API server takes times up to the end of the year 9999 and grace periods of any length; a list in which one time
//! cannot be read would be no list at all, and whoever wrote it would have stopped the operator for everybody.

use std::collections::BTreeMap;

use batchjob_crd::keys;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference, Time};
use serde::{Deserialize, Deserializer};

/// A time; None if it cannot be read.
pub(super) fn time<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Timestamp>, D::Error> {
    let text = Option::<String>::deserialize(deserializer)?;
    Ok(text.and_then(|text| text.parse().ok()))
}

/// Metadata without what is large, not read, or another's: managed fields, and all annotations and labels but the ones
/// that say something to us.
pub(super) fn metadata<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ObjectMeta, D::Error> {
    #[derive(Default, Deserialize)]
    struct Annotations {
        #[serde(rename = "batchjob.dev/ledger")]
        ledger: Option<String>,
        #[serde(rename = "batchjob.dev/trigger")]
        trigger: Option<String>,
        #[serde(rename = "batch.kubernetes.io/cronjob-scheduled-timestamp")]
        scheduled_timestamp: Option<String>,
        #[serde(rename = "cronjob.kubernetes.io/instantiate")]
        instantiate: Option<String>,
        #[serde(rename = "batchjob.dev/backfill")]
        backfill: Option<String>,
    }
    #[derive(Default, Deserialize)]
    struct Labels {
        #[serde(rename = "batch.kubernetes.io/controller-uid")]
        controller_uid: Option<String>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Read {
        name: Option<String>,
        namespace: Option<String>,
        uid: Option<String>,
        resource_version: Option<String>,
        generation: Option<i64>,
        #[serde(default, deserialize_with = "time")]
        creation_timestamp: Option<Timestamp>,
        deletion_timestamp: Option<String>,
        deletion_grace_period_seconds: Option<i64>,
        finalizers: Option<Vec<String>>,
        owner_references: Option<Vec<OwnerReference>>,
        annotations: Option<Annotations>,
        labels: Option<Labels>,
    }
    let read = Read::deserialize(deserializer)?;
    let annotations = read.annotations.unwrap_or_default();
    // A deletion is a deletion, whenever it is to be over.
    let deletion = read.deletion_timestamp.map(|text| Time(text.parse().unwrap_or(Timestamp::MAX)));
    Ok(ObjectMeta {
        name: read.name,
        namespace: read.namespace,
        uid: read.uid,
        resource_version: read.resource_version,
        generation: read.generation,
        creation_timestamp: read.creation_timestamp.map(Time),
        deletion_timestamp: deletion,
        deletion_grace_period_seconds: read.deletion_grace_period_seconds,
        finalizers: read.finalizers,
        owner_references: read.owner_references,
        annotations: present([
            (keys::LEDGER, annotations.ledger),
            (keys::TRIGGER, annotations.trigger),
            (keys::SCHEDULED_TIMESTAMP, annotations.scheduled_timestamp),
            (keys::INSTANTIATE, annotations.instantiate),
            (keys::BACKFILL, annotations.backfill),
        ]),
        labels: present([(keys::CONTROLLER_UID, read.labels.unwrap_or_default().controller_uid)]),
        ..ObjectMeta::default()
    })
}

/// Those that have a value; None if none has.
fn present<const N: usize>(values: [(&str, Option<String>); N]) -> Option<BTreeMap<String, String>> {
    let present: BTreeMap<String, String> =
        values.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?))).collect();
    Some(present).filter(|present| !present.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_annotations_and_labels_only_our_own_are_read() {
        let json = serde_json::json!({
            "annotations": { keys::LEDGER: "{}", "kubectl.kubernetes.io/last-applied-configuration": "long" },
            "labels": { keys::CONTROLLER_UID: "uid", "app": "etl" },
        });
        let read = metadata(json).expect("metadata");
        assert_eq!(read.annotations, Some(BTreeMap::from([(keys::LEDGER.to_owned(), "{}".to_owned())])));
        assert_eq!(read.labels, Some(BTreeMap::from([(keys::CONTROLLER_UID.to_owned(), "uid".to_owned())])));
    }
}
