//! Pods that nobody owns: which of them a job takes in, and which pods are let go because no job will ever count them.
//! How a job takes back what it has lost is with `door`.

use std::fs;

use anyhow::{Context, Result, ensure};
use batchjob_crd::{condition, keys};
use batchjob_decide::job::{name::PodNames, pod};
use batchjob_decide::observed::Job;
use batchjob_decide::plan::AttemptId;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use kube::api::{DeleteParams, DynamicObject, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use crate::both::{Both, both_doors};
use crate::door::{owner_of, uid, until_all_pods_are_looked_through};
use crate::kubelet::{End, name, phase};
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

/// No pod of a namespace loses a finalizer.
fn refusal(namespace: &str) -> Value {
    let n_finalizers = |object: &str| format!("{object}.metadata.?finalizers.orValue([]).size()");
    let policy = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy",
        "metadata": { "name": namespace },
        "spec": {
            "matchConstraints": {
                "namespaceSelector": { "matchLabels": { "kubernetes.io/metadata.name": namespace } },
                "resourceRules": [
                    { "apiGroups": [""], "apiVersions": ["*"], "operations": ["UPDATE"], "resources": ["pods"] },
                ],
            },
            "validations": [{
                "expression": format!("{} >= {}", n_finalizers("object"), n_finalizers("oldObject")),
                "message": "not now",
            }],
        },
    });
    let binding = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicyBinding",
        "metadata": { "name": namespace }, "spec": { "policyName": namespace, "validationActions": ["Deny"] },
    });
    json!({ "apiVersion": "v1", "kind": "List", "items": [policy, binding] })
}

both_doors!(pods_that_could_not_be_let_go_are_let_go_later);

/// `TestSyncOrphanPodsBySelectorRetryOnFailure`.
async fn pods_that_could_not_be_let_go_are_let_go_later(stage: &Both) -> Result<()> {
    let operator = stage.operator().await?;
    let _kubelet = stage.stage.kubelet.plays(|_| End::Never);
    stage.create("etl", json!({ "completions": 3, "parallelism": 3 })).await?;
    stage.until("etl", "its pods run", |job| job.ready == 3).await;
    let pod = stage.stage.pod("etl", 0, 1).await;
    let refusal = refusal(&stage.stage.namespace.name).to_string();
    let kubectl = async |verb: &str| stage.stage.kubectl_says(&[verb, "-f", "-"], &refusal).await;
    ensure!(kubectl("create").await?.succeeded, "the refusal");
    let probe = Patch::Merge(json!({ "metadata": { "finalizers": null } }));
    let dry_run = PatchParams { dry_run: true, ..PatchParams::default() };
    expect("releases are refused", async || {
        Ok(stage.stage.pods.patch(name(&pod), &dry_run, &probe).await.is_err().then_some(()))
    })
    .await;

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
    ensure!(kubectl("delete").await?.succeeded, "the refusal is lifted");
    stage.stage.until_pods("etl", "they are gone", |pods| pods.is_empty()).await;
    Ok(())
}
