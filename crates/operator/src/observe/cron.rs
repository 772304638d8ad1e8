//! A BatchCronJob: as it comes over the wire, and as it is kept.

use std::fmt;
use std::sync::Arc;

use batchjob_crd::{BatchCronJob, BatchCronJobStatus, GROUP, VERSION, keys};
use batchjob_decide::cron::observed::CronJob;
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Deserialize;
use serde_json::Value;

use super::lenient::metadata;

/// The name of a BatchCronJob, under which it is queued.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CronKey {
    pub namespace: Arc<str>,
    pub name: Arc<str>,
}

impl fmt::Display for CronKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// A BatchCronJob as it is kept.
#[derive(Clone, Debug)]
pub struct CronRecord {
    pub key: CronKey,
    pub uid: Arc<str>,
    pub version: u64,
    pub resource_version: Arc<str>,
    pub content: CronContent,
}

#[derive(Clone, Debug)]
pub enum CronContent {
    CronJob(Arc<CronJob>),
    /// Its JSON is not that of its kind: it is reported on itself, and stops nobody else.
    Unreadable {
        error: Arc<str>,
    },
}

impl CronRecord {
    pub fn cron(&self) -> Option<&Arc<CronJob>> {
        match &self.content {
            CronContent::CronJob(cron) => Some(cron),
            CronContent::Unreadable { .. } => None,
        }
    }

    /// A ledger that is no longer there still holds: what is decided is decided. Whoever writes another time has meant it.
    pub(super) fn keep_ledger_of(&mut self, known: &CronRecord) {
        let (CronContent::CronJob(cron), CronContent::CronJob(before)) = (&mut self.content, &known.content) else {
            return;
        };
        if cron.status.decided_until.is_some() || before.status.decided_until.is_none() {
            return;
        }
        let status = &mut Arc::make_mut(cron).status;
        let before = before.status.clone();
        *status = BatchCronJobStatus {
            decided_until: before.decided_until,
            waiting: before.waiting,
            gaps: before.gaps,
            missed: before.missed,
            skipped: before.skipped,
            last_schedule_time: before.last_schedule_time,
            schedule_hash: before.schedule_hash,
            trigger_hash: before.trigger_hash,
            backfilled: before.backfilled,
            // It does not stand there: it is to be written again.
            observed_generation: None,
            ..std::mem::take(status)
        };
    }

    /// The concurrency group that it belongs to.
    pub fn group(&self) -> Option<&str> {
        self.cron()?.spec.concurrency_group.as_ref().map(|group| group.name.as_str())
    }
}

impl From<&CronRecord> for ObjectReference {
    fn from(cron: &CronRecord) -> ObjectReference {
        ObjectReference {
            api_version: Some(format!("{GROUP}/{VERSION}")),
            kind: Some("BatchCronJob".to_owned()),
            namespace: Some(cron.key.namespace.to_string()),
            name: Some(cron.key.name.to_string()),
            uid: Some(cron.uid.to_string()),
            ..ObjectReference::default()
        }
    }
}

#[derive(kube::Resource, Clone, Debug, Deserialize)]
#[resource(inherit = BatchCronJob)]
pub struct WireBatchCronJob {
    #[serde(deserialize_with = "metadata")]
    metadata: ObjectMeta,
    #[serde(default)]
    spec: Value,
    #[serde(default)]
    status: Option<Value>,
}

impl From<WireBatchCronJob> for CronRecord {
    fn from(wire: WireBatchCronJob) -> CronRecord {
        let WireBatchCronJob { metadata, spec, status } = wire;
        let key = CronKey {
            namespace: metadata.namespace.as_deref().unwrap_or_default().into(),
            name: metadata.name.as_deref().unwrap_or_default().into(),
        };
        let uid = metadata.uid.unwrap_or_default();
        let resource_version = metadata.resource_version.unwrap_or_default();
        let status = status.filter(|status| !status.is_null());
        let status = status.map_or_else(|| Ok(Default::default()), serde_json::from_value);
        let content = match (serde_json::from_value(spec), status) {
            // Every run whose owner has lost its uid would be its own.
            _ if uid.is_empty() => CronContent::Unreadable { error: "metadata: it has no uid".into() },
            (Ok(spec), Ok(status)) => CronContent::CronJob(Arc::new(CronJob {
                namespace: key.namespace.to_string(),
                name: key.name.to_string(),
                uid: uid.clone(),
                generation: metadata.generation.unwrap_or_default(),
                created: metadata.creation_timestamp.map(|time| time.0).unwrap_or_default(),
                is_deleted: metadata.deletion_timestamp.is_some(),
                trigger: metadata.annotations.and_then(|mut annotations| annotations.remove(keys::TRIGGER)),
                spec,
                status,
            })),
            (Err(error), _) => CronContent::Unreadable { error: format!("spec: {error}").into() },
            (_, Err(error)) => CronContent::Unreadable { error: format!("status: {error}").into() },
        };
        CronRecord {
            key,
            uid: uid.into(),
            version: super::version(&resource_version),
            resource_version: resource_version.into(),
            content,
        }
    }
}
