//! Pods that have lost their job: which of them it takes back, which it gives up, and which are let go because no job will
//! ever count them.

use std::fs;

use anyhow::{Context, Result};
use batchjob_crd::{condition, keys};
use batchjob_decide::job::{name::PodNames, pod};
use batchjob_decide::observed::Job;
use batchjob_decide::plan::AttemptId;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::api::{DeleteParams, DynamicObject, Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt as _};
use serde_json::{Value, json};

use crate::both::{Both, both_doors};
use crate::door::{forge, no_status_was_refused, owner_of, uid, until_all_pods_are_looked_through};
use crate::kubelet::{End, name, phase};
use crate::refusal::{KEEPS_FINALIZERS, refuse_releases};
use crate::stage::{expect, is_held, template};

/// A pod that somebody made.
async fn make(stage: &Both, name: &str, labels: Value, more: Value) -> Result<Pod> {
    let mut metadata = json!({ "name": name, "labels": labels });
    metadata.as_object_mut().context("an object")?.extend(more.as_object().context("an object")?.clone());
    let pod = json!({ "metadata": metadata, "spec": template(json!({}))["spec"] });
    Ok(stage.stage.pods.create(&PostParams::default(), &serde_json::from_value(pod)?).await?)
}

/// The name of the pod of that attempt.
fn name_of(stage: &Both, job: &DynamicObject, index: u32, attempt: u32) -> String {
    let job = Job { door: stage.door, name: job.name_any(), uid: uid(job).to_owned(), ..Job::default() };
    PodNames::of(&job).write(AttemptId { index, attempt })
}

async fn orphan(stage: &Both, pod: &Pod) -> Result<()> {
    let alone = json!({ "metadata": { "ownerReferences": null } });
    stage.stage.pods.patch(name(pod), &PatchParams::default(), &Patch::Merge(alone)).await?;
    Ok(())
}

both_doors!(a_pod_that_gets_the_labels_of_a_job_becomes_its_own);

/// `TestUpdatePodOrphanWithNewLabels`. Until then its name is in the way, so its index has gone on without it: it is taken in,
/// and one too many.
async fn a_pod_that_gets_the_labels_of_a_job_becomes_its_own(stage: &Both) -> Result<()> {
    let job = stage.create("etl", json!({})).await?;
    let labels = json!({ keys::ATTEMPT: "1", keys::JOB_NAME: "etl" });
    let made = make(stage, &name_of(stage, &job, 0, 1), labels, json!({})).await?;
    let _operator = stage.operator().await?;
    stage.until_event("etl", "FailedCreate").await;
    let next = stage.stage.running_pod("etl", 0, 2).await?;
    assert!(owner_of(&stage.stage.pods.get(name(&made)).await?).is_empty());

    let labelled = json!({ "metadata": { "labels": { keys::CONTROLLER_UID: uid(&job) } } });
    stage.stage.pods.patch(name(&made), &PatchParams::default(), &Patch::Merge(labelled)).await?;
    stage.stage.until_pods("etl", "it is gone", |pods| pods.len() == 1).await;
    stage.stage.kubelet.succeeds(&next).await?;
    let job = stage.until_over("etl").await;
    assert!(job.is(condition::COMPLETE));
    assert_eq!((job.succeeded, job.failed), (1, 0));
    let pods = stage.stage.pods_of("etl").await?;
    assert_eq!(pods.iter().map(|pod| pod.uid()).collect::<Vec<_>>(), [next.uid()], "that pod, and no other");
    Ok(())
}

both_doors!(a_job_that_is_being_deleted_takes_no_pod_back);

/// `no adopt when deleting` and `no adopt when deleting race` of `TestGetPodsForJob`: whichever of the two is heard of first,
/// that the job is being deleted or that its pod has lost its owner.
async fn a_job_that_is_being_deleted_takes_no_pod_back(stage: &Both) -> Result<()> {
    const JOBS: [&str; 8] = ["etl-0", "etl-1", "etl-2", "etl-3", "etl-4", "etl-5", "etl-6", "etl-7"];
    let operator = stage.operator().await?;
    let _kubelet = stage.stage.kubelet.plays(|_| End::Never);
    let mut pods = Vec::new();
    for job in JOBS {
        stage.create(job, json!({})).await?;
        // Somebody else holds it, so that it stays a while.
        stage.change(job, json!({ "metadata": { "finalizers": ["example.com/hold"] } })).await?;
        pods.push(stage.stage.pod(job, 0, 1).await);
        stage.until(job, "it runs", |job| job.ready == 1).await;
    }
    let (seen, race) = (JOBS[0], &JOBS[1..]);
    stage.delete(seen, DeleteParams::background()).await?;
    stage.stage.until_no_pod_is_held(seen).await;
    orphan(stage, &pods[0]).await?;
    stage.look_again(&operator, seen).await?;

    let process = rustix::process::Pid::from_raw(operator.pid().cast_signed()).context("a process")?;
    rustix::process::kill_process(process, rustix::process::Signal::STOP)?;
    for (job, pod) in race.iter().zip(&pods[1..]) {
        stage.delete(job, DeleteParams::background()).await?;
        orphan(stage, pod).await?;
    }
    rustix::process::kill_process(process, rustix::process::Signal::CONT)?;
    for job in JOBS {
        stage.stage.until_no_pod_is_held(job).await;
        stage.look_again(&operator, job).await?;
    }
    for pod in &pods {
        let pod = stage.stage.pods.get(name(pod)).await?;
        assert!(owner_of(&pod).is_empty() && !is_held(&pod), "{pod:?}");
        assert!(phase(&pod) == "Running" && pod.metadata.deletion_timestamp.is_none(), "{pod:?}");
    }
    Ok(())
}

both_doors!(a_pod_is_let_go_where_no_controller_has_it);

/// `TestSyncOrphanPod`, with its cases. All of the pods are deleted, and stay for the finalizer alone.
async fn a_pod_is_let_go_where_no_controller_has_it(stage: &Both) -> Result<()> {
    let _operator = stage.operator().await?;
    let job = stage.create("etl", json!({})).await?;
    let own = stage.stage.running_pod("etl", 0, 1).await?;
    let owner = |version: &str, kind: &str, uid: &str, controls: bool| {
        let owner = json!({ "apiVersion": version, "kind": kind, "name": "etl", "uid": uid, "controller": controls });
        json!({ "ownerReferences": [owner] })
    };
    let kind = job.types.clone().context("a kind")?;
    let nobody = "7d1f8a0e-0000-4000-8000-000000000000";
    let kept = [
        ("controlled-by-cronjob", owner("batch/v1", "CronJob", nobody, true)),
        ("controlled-by-custom-crd", owner("example.com/v1", "Job", nobody, true)),
    ];
    let let_go = [
        ("owned-by-existing-running-job", owner(&kind.api_version, &kind.kind, uid(&job), false)),
        ("owned-by-custom-crd", owner("example.com/v1", "Job", nobody, false)),
        ("orphan-pods-by-label-selector", json!({})),
    ];
    for (name, metadata) in kept.iter().chain(&let_go) {
        let mut metadata = metadata.clone();
        metadata["finalizers"] = json!([pod::finalizer(stage.door)]);
        make(stage, name, json!({ keys::ATTEMPT: "1", "app": "test" }), metadata).await?;
        stage.stage.pods.delete(name, &DeleteParams::default().grace_period(0)).await?;
    }
    for (name, _) in &let_go {
        expect(&format!("{name} is gone"), async || Ok(stage.stage.pods.get_opt(name).await?.is_none().then_some(())))
            .await;
    }
    until_all_pods_are_looked_through(&stage.stage).await?;
    for (name, _) in &kept {
        assert!(is_held(&stage.stage.pods.get(name).await?), "{name}");
    }
    // `controlled_by_existing_running_job`.
    assert!(is_held(&stage.stage.pods.get(name(&own)).await?));
    stage.stage.kubelet.succeeds(&own).await?;
    let job = stage.until_over("etl").await;
    assert_eq!((job.succeeded, job.failed), (1, 0));
    Ok(())
}

both_doors!(pods_that_could_not_be_let_go_are_let_go_later);

/// `TestSyncOrphanPodsBySelectorRetryOnFailure`.
async fn pods_that_could_not_be_let_go_are_let_go_later(stage: &Both) -> Result<()> {
    let operator = stage.operator().await?;
    let _kubelet = stage.stage.kubelet.plays(|_| End::Never);
    stage.create("etl", json!({ "completions": 3, "parallelism": 3 })).await?;
    stage.until("etl", "its pods run", |job| job.ready == 3).await;
    let pod = stage.stage.pod("etl", 0, 1).await;
    let refusal = refuse_releases(stage, &pod, KEEPS_FINALIZERS).await?;

    stage.delete("etl", DeleteParams::background()).await?;
    // The garbage collector would, but it takes its time to learn of a new kind.
    for pod in stage.stage.pods_of("etl").await? {
        stage.stage.pods.delete(name(&pod), &DeleteParams::default()).await?;
    }
    expect("the operator has tried", async || {
        Ok(fs::read_to_string(&operator.log)?.contains("failed to let go the pods of a job that is gone").then_some(()))
    })
    .await;
    let is_left = |pod: &Pod| is_held(pod) && pod.metadata.deletion_grace_period_seconds == Some(0);
    let held = stage.stage.until_pods("etl", "nothing but a finalizer holds them", |pods| pods.iter().all(is_left));
    assert_eq!(held.await.len(), 3);
    refusal.lift().await?;
    stage.stage.until_pods("etl", "they are gone", |pods| pods.is_empty()).await;
    Ok(())
}

async fn a_pod_that_loses_its_owner_is_taken_back(stage: &Both) -> Result<()> {
    let operator = stage.operator().await?;
    let job = stage.create("etl", json!({ "completionMode": "Indexed", "completions": 1, "parallelism": 1 })).await?;
    let pod = stage.stage.running_pod("etl", 0, 1).await?;
    stage.until("etl", "it runs", |job| job.ready == 1).await;
    let finalizers = pod.metadata.finalizers.clone();
    let alone = json!({ "metadata": { "ownerReferences": null, "finalizers": null } });
    stage.stage.pods.patch(name(&pod), &PatchParams::default(), &Patch::Merge(alone)).await?;
    let pod = expect("it has its owner again", async || {
        Ok(Some(stage.stage.pods.get(name(&pod)).await?).filter(|pod| owner_of(pod) == uid(&job) && is_held(pod)))
    })
    .await;
    assert_eq!(pod.metadata.finalizers, finalizers);
    assert!(pod.metadata.deletion_timestamp.is_none());
    stage.stage.kubelet.succeeds(&pod).await?;
    let standing = stage.until("etl", "it is over", |job| job.is_finished()).await;
    assert_eq!((standing.succeeded, standing.failed), (1, 0));
    let pods = stage.stage.until_no_pod_is_held("etl").await;
    assert_eq!(pods.iter().map(name).collect::<Vec<_>>(), [name(&pod)], "the same pod, and no other");
    no_status_was_refused(&operator)
}
both_doors!(a_pod_that_loses_its_owner_is_taken_back);

/// While nobody looks, it ends too.
async fn a_pod_that_ends_without_its_owner_is_counted_once(stage: &Both) -> Result<()> {
    let operator = stage.operator().await?;
    let job = stage.create("etl", json!({})).await?;
    let pod = stage.stage.running_pod("etl", 0, 1).await?;
    stage.until("etl", "it runs", |job| job.ready == 1).await;
    operator.kill()?;
    let alone = json!({ "metadata": { "ownerReferences": null } });
    stage.stage.pods.patch(name(&pod), &PatchParams::default(), &Patch::Merge(alone)).await?;
    stage.stage.kubelet.succeeds(&pod).await?;
    let operator = stage.operator().await?;
    let standing = stage.until("etl", "it is over", |job| job.is_finished()).await;
    assert_eq!((standing.succeeded, standing.failed), (1, 0));
    let pods = stage.stage.until_no_pod_is_held("etl").await;
    assert_eq!(pods.iter().map(|pod| (name(pod), owner_of(pod))).collect::<Vec<_>>(), [(name(&pod), uid(&job))]);
    no_status_was_refused(&operator)
}
both_doors!(a_pod_that_ends_without_its_owner_is_counted_once);

/// As after `kubectl label pod … LABEL-` for all of its labels: it is somebody's to look at, out of the job's way.
async fn a_pod_whose_labels_are_taken_off_is_given_up_and_replaced(stage: &Both) -> Result<()> {
    let operator = stage.operator().await?;
    let job = stage.create("etl", json!({ "completionMode": "Indexed", "completions": 1, "parallelism": 1 })).await?;
    let pod = stage.stage.running_pod("etl", 0, 1).await?;
    stage.until("etl", "it runs", |job| job.ready == 1).await;
    let all: Value =
        pod.labels().keys().map(|label| (label.clone(), Value::Null)).collect::<serde_json::Map<_, _>>().into();
    let bare = json!({ "metadata": { "labels": all } });
    stage.stage.pods.patch(name(&pod), &PatchParams::default(), &Patch::Merge(bare)).await?;
    let free = expect("it is free", async || {
        let pod = stage.stage.pods.get(name(&pod)).await?;
        Ok(Some(pod).filter(|pod| owner_of(pod).is_empty() && !is_held(pod) && pod.labels().is_empty()))
    })
    .await;
    assert!(free.metadata.uid == pod.metadata.uid && phase(&free) == "Running");
    assert!(free.metadata.deletion_timestamp.is_none());

    let next = stage.stage.running_pod("etl", 0, 2).await?;
    assert_eq!(owner_of(&next), uid(&job));
    stage.stage.kubelet.succeeds(&next).await?;
    let standing = stage.until("etl", "it is over", |job| job.is_finished()).await;
    assert_eq!((standing.succeeded, standing.failed), (1, 0));
    stage.stage.until_no_pod_is_held("etl").await;
    until_all_pods_are_looked_through(&stage.stage).await?;
    let still = stage.stage.pods.get(name(&pod)).await?;
    assert_eq!(still.resource_version(), free.resource_version(), "nobody touches it any more");
    no_status_was_refused(&operator)
}
both_doors!(a_pod_whose_labels_are_taken_off_is_given_up_and_replaced);

async fn a_pod_of_another_owner_is_not_touched_whatever_its_labels(stage: &Both) -> Result<()> {
    let operator = stage.operator().await?;
    let job = stage.create("etl", json!({ "completions": 2, "parallelism": 1 })).await?;
    let first = stage.stage.running_pod("etl", 0, 1).await?;
    let namespace = &stage.stage.namespace;
    let owners: Api<ConfigMap> = Api::namespaced(namespace.client.clone(), &namespace.name);
    let owner: ConfigMap = serde_json::from_value(json!({ "metadata": { "name": "owner" } }))?;
    let owner = owners.create(&PostParams::default(), &owner).await?;
    let owner = json!({ "apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": owner.metadata.uid, "controller": true });
    // The name of the next attempt, and all of its labels.
    let theirs = name(&first).replacen("etl-0-1-", "etl-0-2-", 1);
    let labels = serde_json::to_value(first.labels())?;
    let theirs = forge(&stage.stage, &theirs, owner, labels).await?;

    stage.stage.kubelet.succeeds(&first).await?;
    let second = stage.stage.running_pod("etl", 1, 1).await?;
    stage.stage.kubelet.succeeds(&second).await?;
    let standing = stage.until("etl", "it is over", |job| job.is_finished()).await;
    assert_eq!((standing.succeeded, standing.failed, standing.active), (2, 0, 0));
    stage.delete("etl", DeleteParams::background()).await?;
    stage.until_gone("etl").await;
    until_all_pods_are_looked_through(&stage.stage).await?;
    let now = stage.stage.pods.get(name(&theirs)).await?;
    assert_eq!(now.resource_version(), theirs.resource_version(), "{now:?} {}", uid(&job));
    no_status_was_refused(&operator)
}
both_doors!(a_pod_of_another_owner_is_not_touched_whatever_its_labels);
