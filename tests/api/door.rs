//! The managed door: batch/v1 Jobs with our `spec.managedBy`, under the API server's own rules for their status; and whose
//! Jobs and pods are left alone.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use batchjob_crd::{BatchJob, condition, keys};
use batchjob_tests::support::Operator;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, DynamicObject, Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt as _};
use serde_json::{Value, json};

use crate::both::{Both, Door, both_doors};
use crate::kubelet::{End, name, phase};
use crate::stage::{LONG_AGO, Stage, attempt_of, expect, index_of, is_held, kubernetes, metric, template};

/// The uid of its controller; empty if it has none.
pub fn owner_of(pod: &Pod) -> &str {
    let owners = pod.metadata.owner_references.iter().flatten();
    owners.filter(|owner| owner.controller == Some(true)).map(|owner| &*owner.uid).next().unwrap_or_default()
}

pub fn uid(object: &DynamicObject) -> &str {
    object.metadata.uid.as_deref().unwrap_or_default()
}

/// The API server has found nothing wrong with any status that the operator wrote.
pub fn no_status_was_refused(operator: &Operator) -> Result<()> {
    let log = fs::read_to_string(&operator.log)?;
    let refused: Vec<&str> =
        log.lines().filter(|line| line.contains("write the status") && line.contains("is invalid")).collect();
    ensure!(refused.is_empty(), "{refused:?}");
    Ok(())
}

/// A managed Job in a stage, whose history is checked at the end.
async fn managed(test: &str) -> Result<(Both, Operator)> {
    let stage = Both::new(test, Door::ManagedJob).await?;
    let operator = stage.operator().await?;
    Ok((stage, operator))
}

async fn ends_well(stage: &Both, operator: &Operator) -> Result<()> {
    no_status_was_refused(operator)?;
    stage.check_history().await
}

#[tokio::test]
async fn an_indexed_job_with_failures_runs_to_its_end_and_looks_like_any_job() -> Result<()> {
    let (stage, operator) = managed("indexed").await?;
    let _kubelet = stage.stage.kubelet.plays(|pod| match (index_of(pod), attempt_of(pod)) {
        (Some(1), Some(1 | 2)) => End::Failure { exit_code: 3, ago: LONG_AGO },
        _ => End::Success,
    });
    let job = stage.create("etl", json!({ "completionMode": "Indexed", "completions": 4, "parallelism": 2 })).await?;
    stage.stage.kubectl(&["wait", "--for=condition=Complete", "job/etl", "--timeout=60s"]).await?;
    let standing = stage.standing("etl").await?;
    assert_eq!((standing.succeeded, standing.failed, &*standing.completed_indexes), (4, 2, "0-3"));
    assert!(standing.is(condition::SUCCESS_CRITERIA_MET) && standing.completion_time.is_some());

    let pods = stage.stage.until_no_pod_is_held("etl").await;
    assert_eq!(pods.len(), 6);
    for pod in &pods {
        let owner = &pod.metadata.owner_references.clone().context("an owner")?[0];
        assert_eq!((&*owner.api_version, &*owner.kind, &*owner.uid), ("batch/v1", "Job", uid(&job)));
        let hostname = pod.spec.as_ref().and_then(|spec| spec.hostname.clone());
        assert_eq!(hostname, index_of(pod).map(|index| format!("etl-{index}")));
    }
    let selected = stage.stage.kubectl(&["get", "pods", "-o", "name", "-l", "job-name=etl"]).await?;
    assert_eq!(selected.lines().count(), 6);
    expect("an event about the Job", async || {
        let said = stage.stage.kubectl(&["events", "--for", "job/etl", "-o", "jsonpath={.items[*].reason}"]).await?;
        Ok((said.contains("SuccessfulCreate") && said.contains("Completed")).then_some(()))
    })
    .await;
    ends_well(&stage, &operator).await
}

#[tokio::test]
async fn a_job_that_is_not_indexed_has_counts_and_no_indexes() -> Result<()> {
    let (stage, operator) = managed("counts").await?;
    let _kubelet = stage.stage.kubelet.plays(|pod| match (index_of(pod), attempt_of(pod)) {
        (Some(0), Some(1)) => End::Failure { exit_code: 3, ago: LONG_AGO },
        _ => End::Success,
    });
    stage.create("etl", json!({ "completions": 5, "parallelism": 3 })).await?;
    let standing = stage.until("etl", "it is over", |job| job.is_finished()).await;
    assert_eq!((standing.succeeded, standing.failed, &*standing.completed_indexes), (5, 1, ""));
    assert!(standing.is(condition::COMPLETE));
    stage.stage.until_no_pod_is_held("etl").await;
    ends_well(&stage, &operator).await
}

#[tokio::test]
async fn a_job_that_fails_says_so_as_a_job_does() -> Result<()> {
    let (stage, operator) = managed("fails").await?;
    let _kubelet = stage.stage.kubelet.plays(|_| End::Failure { exit_code: 3, ago: LONG_AGO });
    stage.create("etl", json!({ "backoffLimit": 1 })).await?;
    stage.stage.kubectl(&["wait", "--for=condition=Failed", "job/etl", "--timeout=60s"]).await?;
    let standing = stage.standing("etl").await?;
    assert_eq!((standing.failed, standing.completion_time), (2, None));
    let reason = "jsonpath={.status.conditions[?(@.type=='Failed')].reason}";
    let said = stage.stage.kubectl(&["get", "job", "etl", "-o", reason]).await?;
    assert_eq!(said, "BackoffLimitExceeded");
    stage.stage.until_no_pod_is_held("etl").await;
    ends_well(&stage, &operator).await
}

#[tokio::test]
async fn past_its_deadline_it_fails_when_its_last_pod_has_ended() -> Result<()> {
    let (stage, operator) = managed("deadline").await?;
    stage.create("etl", json!({ "activeDeadlineSeconds": 2 })).await?;
    let pod = stage.stage.running_pod("etl", 0, 1).await?;
    let standing = stage.until("etl", "its pod is told to go", |job| job.terminating == 1).await;
    assert!(standing.is(condition::FAILURE_TARGET) && !standing.is_finished());
    stage.stage.kubelet.ends(&pod).await?;
    let standing = stage.until("etl", "it is over", |job| job.is_finished()).await;
    let failed = standing.conditions.iter().find(|found| found.type_ == condition::FAILED).context("it has failed")?;
    assert_eq!((&*failed.reason, failed.is_true), ("DeadlineExceeded", true));
    stage.stage.until_pods("etl", "it is gone", |pods| pods.is_empty()).await;
    ends_well(&stage, &operator).await
}

#[tokio::test]
async fn a_work_queue_is_complete_when_one_has_succeeded_and_all_have_ended() -> Result<()> {
    let (stage, operator) = managed("queue").await?;
    stage.create("etl", json!({ "parallelism": 2 })).await?;
    let first = stage.stage.running_pod("etl", 0, 1).await?;
    let second = stage.stage.running_pod("etl", 1, 1).await?;
    stage.stage.kubelet.succeeds(&first).await?;
    let standing = stage.until("etl", "one has ended", |job| job.succeeded == 1).await;
    assert!(!standing.is_finished());
    stage.stage.kubelet.succeeds(&second).await?;
    let standing = stage.until("etl", "it is over", |job| job.is_finished()).await;
    assert_eq!((standing.succeeded, standing.is(condition::COMPLETE)), (2, true));
    ends_well(&stage, &operator).await
}

/// While it is suspended it has no start, and when it is resumed it has a new one: the one case in which the API server
/// lets a start change.
#[tokio::test]
async fn a_job_is_suspended_and_resumed() -> Result<()> {
    let (stage, operator) = managed("suspend").await?;
    stage.create("etl", json!({ "completions": 2, "parallelism": 2 })).await?;
    let first = stage.stage.running_pod("etl", 0, 1).await?;
    stage.stage.running_pod("etl", 1, 1).await?;
    stage.stage.kubelet.succeeds(&first).await?;
    stage.until("etl", "one has succeeded", |job| job.succeeded == 1).await;

    let kubelet = stage.stage.kubelet.plays(|_| End::Never);
    stage.change("etl", json!({ "spec": { "suspend": true } })).await?;
    let standing = stage
        .until("etl", "it is suspended", |job| job.is(condition::SUSPENDED) && job.active + job.terminating == 0)
        .await;
    assert_eq!((standing.start_time, standing.succeeded, standing.failed), (None, 1, 0));
    drop(kubelet);

    let _kubelet = stage.stage.kubelet.plays(|_| End::Success);
    stage.change("etl", json!({ "spec": { "suspend": false } })).await?;
    let standing = stage.until("etl", "it is over", |job| job.is_finished()).await;
    assert!(standing.start_time.is_some() && standing.is(condition::COMPLETE));
    assert_eq!((standing.succeeded, standing.failed), (2, 0));
    ends_well(&stage, &operator).await
}

/// The pods that have ended are gone by then: only the annotation tells.
#[tokio::test]
async fn killed_in_the_middle_it_reads_the_ledger_back() -> Result<()> {
    let (stage, operator) = managed("killed").await?;
    stage.create("etl", json!({ "completions": 3, "parallelism": 2 })).await?;
    let failing = stage.stage.running_pod("etl", 0, 1).await?;
    let succeeding = stage.stage.running_pod("etl", 1, 1).await?;
    let ended = stage.stage.kubelet.fails(&failing, 7, Duration::from_secs(4)).await?;
    stage.stage.kubelet.succeeds(&succeeding).await?;
    stage.until("etl", "both are counted", |job| (job.succeeded, job.failed) == (1, 1)).await;
    for pod in [&failing, &succeeding] {
        expect("it is let go", async || Ok((!is_held(&stage.stage.pods.get(name(pod)).await?)).then_some(()))).await;
    }
    no_status_was_refused(&operator)?;
    operator.kill()?;
    for pod in [&failing, &succeeding] {
        stage.stage.pods.delete(name(pod), &DeleteParams::default().grace_period(0)).await?;
    }

    let operator = stage.operator().await?;
    let again = stage.stage.pod("etl", 0, 2).await;
    let started = again.metadata.creation_timestamp.as_ref().context("a time")?.0;
    assert!(ended + Duration::from_secs(10) <= started, "ended {ended}, started again {started}");
    let _kubelet = stage.stage.kubelet.plays(|_| End::Success);
    let standing = stage.until("etl", "it is over", |job| job.is_finished()).await;
    assert_eq!((standing.succeeded, standing.failed), (3, 1));
    assert!(stage.stage.pods_of("etl").await?.iter().all(|pod| index_of(pod) != Some(1)), "it was done already");
    ends_well(&stage, &operator).await
}

#[tokio::test]
async fn a_ledger_that_somebody_removes_costs_no_count() -> Result<()> {
    let (stage, operator) = managed("removed").await?;
    stage.create("etl", json!({ "completions": 3, "parallelism": 1 })).await?;
    let failing = stage.stage.running_pod("etl", 0, 1).await?;
    stage.stage.kubelet.fails(&failing, 7, LONG_AGO).await?;
    let second = stage.stage.running_pod("etl", 0, 2).await?;
    stage.stage.kubelet.succeeds(&second).await?;
    stage.until("etl", "both are counted", |job| (job.succeeded, job.failed) == (1, 1)).await;

    stage.change("etl", json!({ "metadata": { "annotations": { keys::LEDGER: null } } })).await?;
    let _kubelet = stage.stage.kubelet.plays(|_| End::Success);
    let standing = stage.until("etl", "it is over", |job| job.is_finished()).await;
    assert_eq!((standing.succeeded, standing.failed), (3, 1));
    let job = stage.jobs.get("etl").await?;
    assert!(job.annotations().contains_key(keys::LEDGER), "it is written again");
    ends_well(&stage, &operator).await
}

/// While the failed pod is still there, and its index has not been done since.
#[tokio::test]
async fn a_ledger_that_somebody_removes_counts_no_failure_twice() -> Result<()> {
    let (stage, operator) = managed("removed-early").await?;
    stage.create("etl", json!({ "backoffLimit": 1 })).await?;
    let failing = stage.stage.running_pod("etl", 0, 1).await?;
    stage.stage.kubelet.fails(&failing, 7, LONG_AGO).await?;
    let second = stage.stage.running_pod("etl", 0, 2).await?;
    let before = stage.until("etl", "it runs again", |job| (job.ready, job.failed) == (1, 1)).await;
    stage.change("etl", json!({ "metadata": { "annotations": { keys::LEDGER: null } } })).await?;
    expect("it is written again", async || {
        Ok(stage.jobs.get("etl").await?.annotations().contains_key(keys::LEDGER).then_some(()))
    })
    .await;
    assert_eq!(stage.standing("etl").await?, before);
    stage.stage.kubelet.succeeds(&second).await?;
    let standing = stage.until("etl", "it is over", |job| job.is_finished()).await;
    assert_eq!((standing.succeeded, standing.failed, standing.is(condition::COMPLETE)), (1, 1, true));
    ends_well(&stage, &operator).await
}

/// A managed Job with two pods that run until they are told to go.
async fn two_at_work(stage: &Both) -> Result<crate::kubelet::Playing> {
    stage.create("etl", json!({ "completions": 2, "parallelism": 2 })).await?;
    let kubelet = stage.stage.kubelet.plays(|_| End::Never);
    stage.until("etl", "its pods are at work", |job| job.ready == 2).await;
    Ok(kubelet)
}

#[tokio::test]
async fn deleted_in_whatever_way_no_pod_stays_held() -> Result<()> {
    for way in ["background", "foreground"] {
        let (stage, operator) = managed(&format!("deleted-{way}")).await?;
        let _kubelet = two_at_work(&stage).await?;
        let cascade = format!("--cascade={way}");
        stage.stage.kubectl(&["delete", "job", "etl", &cascade, "--timeout=60s"]).await?;
        stage.stage.until_pods("etl", "they are gone", |pods| pods.is_empty()).await;
        no_status_was_refused(&operator)?;
    }
    let (stage, operator) = managed("deleted-orphan").await?;
    let _kubelet = two_at_work(&stage).await?;
    stage.stage.kubectl(&["delete", "job", "etl", "--cascade=orphan", "--timeout=60s"]).await?;
    let is_free = |pod: &Pod| !is_held(pod) && pod.metadata.owner_references.is_none();
    let pods = stage.stage.until_pods("etl", "all are free", |pods| pods.iter().all(is_free)).await;
    assert!(pods.len() == 2 && pods.iter().all(|pod| phase(pod) == "Running"));
    no_status_was_refused(&operator)
}

#[tokio::test]
async fn its_time_to_live_is_kept_by_kubernetes_itself() -> Result<()> {
    let (stage, operator) = managed("ttl").await?;
    let _kubelet = stage.stage.kubelet.plays(|_| End::Success);
    stage.create("etl", json!({ "ttlSecondsAfterFinished": 0 })).await?;
    stage.until_gone("etl").await;
    stage.stage.until_pods("etl", "they went too", |pods| pods.is_empty()).await;
    no_status_was_refused(&operator)
}

both_doors!(a_job_made_again_with_another_manager_is_another_ones);

/// `TestManagedBy_RecreatedJob`: a pod of the one before has ended, and is not counted yet.
async fn a_job_made_again_with_another_manager_is_another_ones(stage: &Both) -> Result<()> {
    let operator = stage.operator().await?;
    stage.create("etl", json!({})).await?;
    let pod = stage.stage.running_pod("etl", 0, 1).await?;
    stage.until("etl", "its pod is at work", |job| job.ready == 1).await;
    stage.stage.kubelet.succeeds(&pod).await?;
    stage.delete("etl", DeleteParams::background()).await?;
    let made = stage.create("etl", json!({ "managedBy": "example.com/nobody" })).await?;
    stage.stage.until_pods("etl", "the old one is gone", |pods| pods.is_empty()).await;
    stage.create("after", json!({})).await?;
    stage.stage.pod("after", 0, 1).await;
    let now = stage.jobs.get("etl").await?;
    assert_eq!(now.resource_version(), made.resource_version());
    assert_eq!(stage.stage.pods_of("etl").await?.len(), 0);
    no_status_was_refused(&operator)
}

/// A pod that nobody owns and that we hold; the operator lets it go when it looks for what no job will ever count.
async fn until_a_pod_of_nobody_is_let_go(stage: &Stage, name: &str) -> Result<()> {
    let pod = json!({
        "metadata": { "name": name, "labels": { keys::ATTEMPT: "1" }, "finalizers": [keys::POD_FINALIZER] },
        "spec": template(json!({}))["spec"],
    });
    stage.pods.create(&PostParams::default(), &serde_json::from_value(pod)?).await?;
    expect("it is let go", async || Ok((!is_held(&stage.pods.get(name).await?)).then_some(()))).await;
    Ok(())
}

/// Twice: what there was before the first is looked at before the second is let go, whatever the order of a look.
pub async fn until_all_pods_are_looked_through(stage: &Stage) -> Result<()> {
    until_a_pod_of_nobody_is_let_go(stage, "nobodys-1").await?;
    until_a_pod_of_nobody_is_let_go(stage, "nobodys-2").await
}

/// A pod that somebody made to look as much like ours as can be.
pub async fn forge(stage: &Stage, name: &str, owner: Value, labels: Value) -> Result<Pod> {
    let pod = json!({
        "metadata": {
            "name": name, "labels": labels, "ownerReferences": [owner],
            "finalizers": [keys::JOB_POD_FINALIZER, keys::POD_FINALIZER],
        },
        "spec": template(json!({}))["spec"],
    });
    Ok(stage.pods.create(&PostParams::default(), &serde_json::from_value(pod)?).await?)
}

/// Upstream's concern in the integration test `TestManagedBy_UsingReservedJobFinalizers`, the other way round.
#[tokio::test]
async fn what_others_run_is_not_touched() -> Result<()> {
    let stage = Both::new("others", Door::ManagedJob).await?;
    let namespace = &stage.stage.namespace;
    let before = stage.create("before", json!({ "managedBy": "example.com/nobody" })).await?;
    let pods_owner =
        json!({ "apiVersion": "batch/v1", "kind": "Job", "name": "before", "uid": uid(&before), "controller": true });
    let labels = json!({ keys::ATTEMPT: "1", keys::CONTROLLER_UID: uid(&before), keys::JOB_NAME: "before" });
    let pod = forge(&stage.stage, "before-0-1-xxxxx", pods_owner, labels).await?;
    let operator = stage.operator().await?;

    let after = stage.create("after", json!({ "managedBy": "example.com/nobody" })).await?;
    let suspended = stage.create("suspended", json!({ "managedBy": "example.com/nobody", "suspend": true })).await?;
    let batch_jobs: Api<BatchJob> = Api::namespaced(namespace.client.clone(), &namespace.name);
    let batch_job = stage.stage.create("theirs", json!({ "managedBy": "example.com/nobody" })).await?;
    // Kubernetes' own controller runs these, as if there were no operator.
    stage.create("named", json!({ "managedBy": "kubernetes.io/job-controller" })).await?;
    stage.create("plain", json!({ "managedBy": null })).await?;
    let named = expect("a pod of the Job that names it", async || Ok(stage.stage.pods_of("named").await?.pop())).await;
    let plain = expect("a pod of the plain Job", async || Ok(stage.stage.pods_of("plain").await?.pop())).await;
    stage.stage.kubelet.bind(&plain).await?;
    stage.stage.kubelet.succeeds(&plain).await?;
    stage.until("plain", "it is over", |job| job.is_finished()).await;

    // The operator has seen all of them by the time that it ends this one, and has looked through the pods.
    stage.create("ours", json!({})).await?;
    let ours = stage.stage.running_pod("ours", 0, 1).await?;
    stage.stage.kubelet.succeeds(&ours).await?;
    stage.until("ours", "it is over", |job| job.is_finished()).await;
    until_all_pods_are_looked_through(&stage.stage).await?;

    for job in [&before, &after, &suspended] {
        let now = stage.jobs.get(&job.name_any()).await?;
        assert_eq!(now.resource_version(), job.resource_version(), "{}", job.name_any());
    }
    let now = batch_jobs.get("theirs").await?;
    assert_eq!(now.resource_version(), batch_job.resource_version());
    let now = stage.stage.pods.get(name(&pod)).await?;
    assert_eq!(now.resource_version(), pod.resource_version(), "{now:?}");
    let plain_job = stage.jobs.get("plain").await?;
    let plain_pod = stage.stage.pods.get(name(&plain)).await?;
    for fields in [plain_job.metadata.managed_fields, plain_pod.metadata.managed_fields] {
        let managers: Vec<String> = fields.into_iter().flatten().filter_map(|entry| entry.manager).collect();
        assert!(!managers.is_empty() && managers.iter().all(|manager| !manager.contains("operator")), "{managers:?}");
    }
    assert!(attempt_of(&plain).is_none() && attempt_of(&named).is_none());
    assert_eq!(metric(&operator, "job_controller_job_syncs_total", r#"result="error""#).await?, 0.0);
    ends_well(&stage, &operator).await
}

/// With the flag off a Job is none of ours even if it says so, nor are its pods.
#[tokio::test]
async fn without_the_flag_no_job_is_ours() -> Result<()> {
    let stage = Both::new("no-flag", Door::ManagedJob).await?;
    let job = stage.create("etl", json!({})).await?;
    let owner = json!({ "apiVersion": "batch/v1", "kind": "Job", "name": "etl", "uid": uid(&job), "controller": true });
    let labels = json!({ keys::ATTEMPT: "1", keys::CONTROLLER_UID: uid(&job), keys::JOB_NAME: "etl" });
    let pod = forge(&stage.stage, "etl-0-1-xxxxx", owner, labels).await?;
    let _operator = stage.stage.operator().await?;
    until_all_pods_are_looked_through(&stage.stage).await?;
    assert_eq!(stage.jobs.get("etl").await?.resource_version(), job.resource_version());
    assert_eq!(stage.stage.pods.get(name(&pod)).await?.resource_version(), pod.resource_version());
    Ok(())
}

/// `TestManagedBy_Reenabling`, the other way round: while the flag is off the Job rests, and nothing of it is lost.
#[tokio::test]
async fn the_flag_is_taken_back_and_given_again() -> Result<()> {
    let (stage, operator) = managed("flag").await?;
    let job = stage.create("etl", json!({ "backoffLimit": 1 })).await?;
    let first = stage.stage.running_pod("etl", 0, 1).await?;
    stage.stage.kubelet.fails(&first, 7, LONG_AGO).await?;
    let second = stage.stage.running_pod("etl", 0, 2).await?;
    stage.until("etl", "it runs again", |job| (job.ready, job.failed) == (1, 1)).await;
    no_status_was_refused(&operator)?;
    operator.kill()?;

    let without = stage.stage.operator().await?;
    let before = stage.jobs.get("etl").await?;
    stage.stage.kubelet.succeeds(&second).await?;
    until_all_pods_are_looked_through(&stage.stage).await?;
    assert_eq!(stage.jobs.get("etl").await?.resource_version(), before.resource_version());
    let pod = stage.stage.pods.get(name(&second)).await?;
    assert!(is_held(&pod) && owner_of(&pod) == uid(&job));
    without.kill()?;

    let operator = stage.operator().await?;
    let standing = stage.until("etl", "it is over", |job| job.is_finished()).await;
    assert_eq!((standing.succeeded, standing.failed, standing.is(condition::COMPLETE)), (1, 1, true));
    assert_eq!(stage.stage.until_no_pod_is_held("etl").await.len(), 2);
    ends_well(&stage, &operator).await
}

both_doors!(the_pods_of_a_job_of_somebody_else_stay_held);

/// `TestManagedBy_UsingReservedJobFinalizers`: they have ended, and their manager has said how the job will end.
async fn the_pods_of_a_job_of_somebody_else_stay_held(stage: &Both) -> Result<()> {
    let operator = stage.operator().await?;
    let job = stage.create("theirs", json!({ "managedBy": "example.com/nobody" })).await?;
    let suspended = json!({ "managedBy": "example.com/nobody", "suspend": true });
    let suspended = stage.create("suspended", suspended).await?;
    let kind = job.types.clone().context("a kind")?;
    let owner = json!({ "apiVersion": kind.api_version, "kind": kind.kind, "name": "theirs", "uid": uid(&job), "controller": true });
    let labels = json!({ keys::ATTEMPT: "1", keys::CONTROLLER_UID: uid(&job), keys::JOB_NAME: "theirs" });
    let pod = forge(&stage.stage, "theirs-0-1-xxxxx", owner, labels).await?;
    stage.stage.kubelet.bind(&pod).await?;
    stage.stage.kubelet.succeeds(&pod).await?;
    let met = json!({ "type": "SuccessCriteriaMet", "status": "True", "reason": "Theirs", "message": "",
        "lastTransitionTime": "2026-01-01T00:00:00Z" });
    let status = json!({ "status": { "startTime": "2026-01-01T00:00:00Z", "conditions": [met] } });
    let written = stage.jobs.patch_status("theirs", &PatchParams::default(), &Patch::Merge(status)).await?;
    let touched = json!({ "metadata": { "annotations": { "touched": "" } } });
    let touched = stage.stage.pods.patch(name(&pod), &PatchParams::default(), &Patch::Merge(touched)).await?;

    stage.create("after", json!({})).await?;
    stage.stage.pod("after", 0, 1).await;
    until_all_pods_are_looked_through(&stage.stage).await?;
    let now = stage.stage.pods.get(name(&pod)).await?;
    assert_eq!(now.resource_version(), touched.resource_version(), "{now:?}");
    assert_eq!(now.metadata.finalizers, pod.metadata.finalizers);
    assert_eq!(stage.jobs.get("theirs").await?.resource_version(), written.resource_version());
    assert_eq!(stage.jobs.get("suspended").await?.resource_version(), suspended.resource_version());
    no_status_was_refused(&operator)
}

/// It is not ready, and says what it lacks.
#[tokio::test]
async fn an_operator_that_may_not_read_jobs_says_so_and_is_not_ready() -> Result<()> {
    let stage = Stage::new("forbidden").await?;
    let namespace = &stage.namespace.name;
    let kubernetes = kubernetes().await?;
    let rights = "--resource=batchjobs.batchjob.dev,batchcronjobs.batchjob.dev,pods";
    stage.kubectl(&["create", "role", "reads", "--verb=get,list,watch", rights]).await?;
    let account = format!("--serviceaccount={namespace}:default");
    stage.kubectl(&["create", "rolebinding", "reads", "--role=reads", &account]).await?;
    let token = stage.kubectl(&["create", "token", "default"]).await?;
    let kubeconfig: String = fs::read_to_string(kubernetes.kubeconfig())?
        .lines()
        .filter(|line| !line.contains("client-key-data"))
        .map(|line| match line.contains("client-certificate-data") {
            true => format!("    token: {}\n", token.trim()),
            false => format!("{line}\n"),
        })
        .collect();
    let path = kubernetes.folder().join("kubeconfig-of-a-reader");
    fs::write(&path, kubeconfig)?;
    let arguments = ["--watch-namespace", namespace, "--managed-jobs", "true"];
    let operator = Operator::spawn(kubernetes, &path, &arguments)?;
    let log = expect("it says so", async || {
        Ok(Some(fs::read_to_string(&operator.log)?).filter(|log| log.contains("the operator may not read any Job: ")))
    })
    .await;
    assert!(log.contains("managedJobs.enabled: true"), "{log}");
    assert!(operator.get("/readyz").await?.starts_with("HTTP/1.1 503"));
    assert!(operator.get("/healthz").await?.starts_with("HTTP/1.1 200"));
    // It may read the rest.
    let without = Operator::spawn(kubernetes, &path, &["--watch-namespace", namespace])?;
    expect("without the flag it is ready", async || {
        Ok(without.get("/readyz").await?.starts_with("HTTP/1.1 200").then_some(()))
    })
    .await;
    Ok(())
}

/// What another has put into the status of the Job, as upstream's end-to-end test "should apply changes to a job status" does.
#[tokio::test]
async fn the_conditions_of_others_stay_as_they_are() -> Result<()> {
    let (stage, operator) = managed("conditions-of-others").await?;
    stage.create("etl", json!({})).await?;
    let pod = stage.stage.running_pod("etl", 0, 1).await?;
    let theirs = json!({ "type": "Theirs", "status": "True", "lastProbeTime": "2026-01-02T00:00:00Z",
        "lastTransitionTime": "2026-01-01T00:00:00Z" });
    let patch = Patch::Strategic(json!({ "status": { "conditions": [theirs] } }));
    stage.jobs.patch_status("etl", &PatchParams::default(), &patch).await?;
    stage.stage.kubelet.succeeds(&pod).await?;
    stage.until("etl", "it is complete", |job| job.is(condition::COMPLETE)).await;
    let job = stage.jobs.get("etl").await?;
    let conditions = job.data["status"]["conditions"].as_array().cloned().unwrap_or_default();
    assert!(conditions.contains(&theirs), "{conditions:?}");
    ends_well(&stage, &operator).await
}

/// What the writes of a managed Job's status stand on.
#[tokio::test]
async fn the_status_endpoint_of_a_job_takes_the_annotation_and_guards_both() -> Result<()> {
    let stage = Both::new("endpoint", Door::ManagedJob).await?;
    let job = stage.create("etl", json!({})).await?;
    let jobs: Api<Job> = Api::namespaced(stage.stage.namespace.client.clone(), &stage.stage.namespace.name);
    let write = async |uid: &str, version: &str, active: i32| {
        let patch = json!({
            "metadata": { "uid": uid, "resourceVersion": version, "annotations": { keys::LEDGER: active.to_string() } },
            "status": { "active": active },
        });
        jobs.patch_status("etl", &PatchParams::default(), &Patch::Merge(patch)).await
    };
    let code = |answer: kube::Result<Job>| match answer {
        Ok(_) => 200,
        Err(kube::Error::Api(status)) => status.code,
        Err(_) => 0,
    };
    let version = job.resource_version().context("a version")?;
    let written = write(uid(&job), &version, 1).await?;
    assert_eq!(written.annotations().get(keys::LEDGER).map(String::as_str), Some("1"));
    assert_eq!(code(write(uid(&job), &version, 2).await), 409, "the version is an old one");
    let version = written.resource_version().context("a version")?;
    let another = "7d1f8a0e-0000-4000-8000-000000000000";
    assert_eq!(code(write(another, &version, 2).await), 422, "the uid is another");
    let old = job.resource_version().context("a version")?;
    assert_eq!(code(write(another, &old, 2).await), 409, "the version is looked at first");
    let now = jobs.get("etl").await?;
    assert_eq!(now.resource_version(), written.resource_version(), "both or neither");
    Ok(())
}
