//! Template → run: name, owner, and the slot that it is told (`getJobFromTemplate2` in `pkg/controller/cronjob/utils.go`).
//!
//! A CronJob tells only the Job which slot it is for. Here the pods and their containers are told, too, by an annotation and an
//! environment variable, so that a run that comes late, or catches up, works on the hour that it is for.

use batchjob_crd::{BatchJob, GROUP, VERSION, keys};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{EnvVar, PodSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

use super::observed::CronJob;
use super::plan::Start;
use crate::schedule::shown;

/// The run that starts.
pub fn build(cron: &CronJob, start: &Start) -> BatchJob {
    let template = &cron.spec.job_template;
    let metadata = template.metadata.clone().unwrap_or_default();
    let mut labels = metadata.labels.unwrap_or_default();
    labels.insert(keys::CRON_JOB_NAME.to_owned(), cron.name.clone());
    let mut annotations = metadata.annotations.unwrap_or_default();
    let slot = slot_text(cron, start.time);
    annotations.insert(keys::SCHEDULED_TIMESTAMP.to_owned(), slot.clone());
    if start.is_manual {
        annotations.insert(keys::INSTANTIATE.to_owned(), "manual".to_owned());
    }
    if start.is_backfill {
        annotations.insert(keys::BACKFILL.to_owned(), "true".to_owned());
    }
    let mut spec = template.spec.clone();
    let of_pods = spec.template.metadata.get_or_insert_default().annotations.get_or_insert_default();
    of_pods.insert(keys::SCHEDULED_TIMESTAMP.to_owned(), slot.clone());
    if let Some(pod) = &mut spec.template.spec {
        tell_slot(pod, &slot);
    }
    BatchJob {
        metadata: ObjectMeta {
            name: Some(start.name.clone()),
            namespace: Some(cron.namespace.clone()),
            labels: Some(labels),
            annotations: Some(annotations),
            owner_references: Some(vec![owner(cron)]),
            ..ObjectMeta::default()
        },
        spec,
        status: None,
    }
}

/// What a run says of the BatchCronJob that controls it.
fn owner(cron: &CronJob) -> OwnerReference {
    OwnerReference {
        api_version: format!("{GROUP}/{VERSION}"),
        kind: "BatchCronJob".to_owned(),
        name: cron.name.clone(),
        uid: cron.uid.clone(),
        controller: Some(true),
        // A foreground deletion waits for the runs.
        block_owner_deletion: Some(true),
    }
}

/// As clocks of the schedule's zone show it.
fn slot_text(cron: &CronJob, slot: Timestamp) -> String {
    shown(slot, cron.spec.time_zone.as_deref().unwrap_or("UTC"))
}

/// Tells every container its slot, unless the template sets the variable itself.
fn tell_slot(pod: &mut PodSpec, slot: &str) {
    for container in pod.init_containers.iter_mut().flatten().chain(&mut pod.containers) {
        let env = container.env.get_or_insert_default();
        if env.iter().all(|variable| variable.name != keys::SCHEDULED_TIMESTAMP_ENV) {
            // First, so that what the template sets may refer to it.
            let value = Some(slot.to_owned());
            env.insert(0, EnvVar { name: keys::SCHEDULED_TIMESTAMP_ENV.to_owned(), value, ..EnvVar::default() });
        }
    }
}
