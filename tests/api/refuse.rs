//! A job that can make no pod says why, in the API server's words, and goes on once it can.

use anyhow::{Context, Result};
use batchjob_decide::job::name::PodNames;
use batchjob_decide::observed::Job;
use batchjob_decide::plan::AttemptId;
use k8s_openapi::api::core::v1::{ResourceQuota, ServiceAccount};
use k8s_openapi::api::events::v1::Event;
use kube::Api;
use kube::api::{ListParams, Patch, PatchParams, PostParams};
use serde_json::json;

use crate::stage::{Stage, conditions, expect, is_finished, look_again, message, metric, reason, status, template};

#[tokio::test]
async fn a_template_that_makes_no_pod_is_tried_once() -> Result<()> {
    let stage = Stage::new("rejected").await?;
    let operator = stage.operator().await?;
    let container = json!({ "name": "main", "image": "none", "volumeMounts": [{ "name": "data", "mountPath": "/d" }] });
    stage
        .create("etl", json!({ "parallelism": 1, "template": template(json!({ "containers": [container] })) }))
        .await?;
    let job = stage.until("etl", "it says so", |job| reason(job) == "PodTemplateRejected").await;
    assert_eq!(conditions(&job), ["Ready=False(PodTemplateRejected)", "Stalled=True(PodTemplateRejected)"]);
    let message = message(&job, "Stalled");
    assert!(message.contains(r#"spec.containers[0].volumeMounts[0].name: Not found: "data""#), "{message}");

    for _ in 0..3 {
        look_again(&stage, &operator, "etl").await?;
    }
    let n_tries = metric(&operator, "job_controller_job_pods_creation_total", r#"status="failed""#).await?;
    assert_eq!(n_tries, 1.0, "nothing has changed, so it cannot end otherwise");
    Ok(())
}

#[tokio::test]
async fn a_quota_is_waited_for() -> Result<()> {
    let stage = Stage::new("quota").await?;
    let quotas: Api<ResourceQuota> = Api::namespaced(stage.namespace.client.clone(), &stage.namespace.name);
    let pods = |n: &str| json!({ "metadata": { "name": "pods" }, "spec": { "hard": { "pods": n } } });
    quotas.create(&PostParams::default(), &serde_json::from_value(pods("0"))?).await?;
    expect("the quota holds", async || Ok(quotas.get("pods").await?.status.and_then(|status| status.hard).map(drop)))
        .await;
    let _operator = stage.operator().await?;
    stage.create("etl", json!({})).await?;
    let job = stage.until("etl", "it says so", |job| reason(job) == "QuotaExceeded").await;
    let message = message(&job, "Reconciling");
    assert!(message.contains("exceeded quota: pods, requested: pods=1, used: pods=0, limited: pods=0"), "{message}");
    let events: Api<Event> = Api::namespaced(stage.namespace.client.clone(), &stage.namespace.name);
    let event = expect("the same event is counted up", async || {
        let mut events = events.list(&ListParams::default()).await?.items.into_iter();
        Ok(events.find(|event| event.series.as_ref().is_some_and(|series| series.count >= 2)))
    })
    .await;
    assert_eq!((event.reason.as_deref(), event.type_.as_deref()), (Some("FailedCreate"), Some("Warning")));

    quotas.patch("pods", &PatchParams::default(), &Patch::Merge(pods("10"))).await?;
    let pod = stage.running_pod("etl", 0, 1).await?;
    stage.kubelet.succeeds(&pod).await?;
    let job = stage.until("etl", "it is over", is_finished).await;
    assert_eq!((status(&job).succeeded, status(&job).failed), (Some(1), Some(0)));
    Ok(())
}

#[tokio::test]
async fn a_service_account_is_waited_for() -> Result<()> {
    let stage = Stage::new("account").await?;
    let _operator = stage.operator().await?;
    stage.create("etl", json!({ "template": template(json!({ "serviceAccountName": "later" })) })).await?;
    let job = stage.until("etl", "it says so", |job| reason(job) == "PodCreateForbidden").await;
    let message = message(&job, "Reconciling");
    assert!(message.contains("serviceaccount \"later\" not found"), "{message}");

    let accounts: Api<ServiceAccount> = Api::namespaced(stage.namespace.client.clone(), &stage.namespace.name);
    let account = serde_json::from_value(json!({ "metadata": { "name": "later" } }))?;
    accounts.create(&PostParams::default(), &account).await?;
    let pod = stage.running_pod("etl", 0, 1).await?;
    stage.kubelet.succeeds(&pod).await?;
    stage.until("etl", "it is over", is_finished).await;
    Ok(())
}

#[tokio::test]
async fn a_pod_of_somebody_else_under_our_name_is_left_alone() -> Result<()> {
    let stage = Stage::new("taken").await?;
    let job = stage.create("etl", json!({})).await?;
    let uid = job.metadata.uid.context("a uid")?;
    let names = PodNames::of(&Job { name: "etl".to_owned(), uid, ..Job::default() });
    let taken = names.write(AttemptId { index: 0, attempt: 1 });
    let foreign = json!({
        "metadata": { "name": taken },
        "spec": { "containers": [{ "name": "main", "image": "none" }] },
    });
    let foreign = stage.pods.create(&PostParams::default(), &serde_json::from_value(foreign)?).await?;

    let _operator = stage.operator().await?;
    let pod = stage.running_pod("etl", 0, 2).await?;
    stage.kubelet.succeeds(&pod).await?;
    let job = stage.until("etl", "it is over", is_finished).await;
    assert_eq!((status(&job).succeeded, status(&job).failed), (Some(1), Some(0)));
    assert_eq!(stage.pods.get(&taken).await?.metadata, foreign.metadata, "untouched");
    let said = stage.kubectl(&["get", "events", "--field-selector", "reason=FailedCreate", "-o", "wide"]).await?;
    assert!(said.contains("index 0 attempt 1 already, which is not this job's"), "{said}");
    Ok(())
}
