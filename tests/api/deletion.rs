//! A job or its namespace is deleted: nothing stays that should go, and nothing is stuck.

use anyhow::Result;
use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::Api;
use serde_json::json;

use crate::kubelet::{End, Playing, name, phase};
use crate::stage::{Stage, expect, is_finished, is_held, status};

/// A job with two pods that run until they are told to go.
async fn two_at_work(stage: &Stage) -> Result<Playing> {
    stage.create("etl", json!({ "completions": 2, "parallelism": 2 })).await?;
    let kubelet = stage.kubelet.plays(|_| End::Never);
    stage.until("etl", "its pods are at work", |job| status(job).ready == Some(2)).await;
    Ok(kubelet)
}

#[tokio::test]
async fn deleted_in_the_background_it_goes_and_its_pods_follow() -> Result<()> {
    let stage = Stage::new("background").await?;
    let _operator = stage.operator().await?;
    let _kubelet = two_at_work(&stage).await?;
    stage.kubectl(&["delete", "bj", "etl", "--cascade=background", "--timeout=60s"]).await?;
    stage.until_pods("etl", "they are gone", |pods| pods.is_empty()).await;
    Ok(())
}

#[tokio::test]
async fn deleted_in_the_foreground_it_goes_after_its_pods() -> Result<()> {
    let stage = Stage::new("foreground").await?;
    let _operator = stage.operator().await?;
    let _kubelet = two_at_work(&stage).await?;
    stage.kubectl(&["delete", "bj", "etl", "--cascade=foreground", "--timeout=60s"]).await?;
    assert_eq!(stage.pods_of("etl").await?.len(), 0, "they go first");
    Ok(())
}

#[tokio::test]
async fn orphaned_pods_go_on_and_belong_to_nobody() -> Result<()> {
    let stage = Stage::new("orphan").await?;
    let _operator = stage.operator().await?;
    let _kubelet = two_at_work(&stage).await?;
    stage.kubectl(&["delete", "bj", "etl", "--cascade=orphan", "--timeout=60s"]).await?;
    let is_free = |pod: &Pod| !is_held(pod) && pod.metadata.owner_references.is_none();
    let pods = stage.until_pods("etl", "all are free", |pods| pods.iter().all(is_free)).await;
    assert_eq!(pods.len(), 2);
    assert!(pods.iter().all(|pod| phase(pod) == "Running" && pod.metadata.deletion_timestamp.is_none()));
    Ok(())
}

#[tokio::test]
async fn deleted_in_the_foreground_while_the_operator_is_away_it_goes_when_it_is_back() -> Result<()> {
    let stage = Stage::new("foreground-away").await?;
    let operator = stage.operator().await?;
    let _kubelet = two_at_work(&stage).await?;
    operator.kill()?;
    stage.kubectl(&["delete", "bj", "etl", "--cascade=foreground", "--wait=false"]).await?;
    let is_left = |pod: &Pod| is_held(pod) && pod.metadata.deletion_grace_period_seconds == Some(0);
    stage.until_pods("etl", "nothing but our finalizer holds them", |pods| pods.iter().all(is_left)).await;
    let _operator = stage.operator().await?;
    stage.until_gone("etl").await;
    assert_eq!(stage.pods_of("etl").await?.len(), 0, "they go first");
    Ok(())
}

#[tokio::test]
async fn orphaned_while_the_operator_is_away_they_are_let_go_when_it_is_back() -> Result<()> {
    let stage = Stage::new("orphan-away").await?;
    let operator = stage.operator().await?;
    let _kubelet = two_at_work(&stage).await?;
    operator.kill()?;
    stage.kubectl(&["delete", "bj", "etl", "--cascade=orphan", "--timeout=60s"]).await?;
    let pods = stage.pods_of("etl").await?;
    assert!(pods.iter().all(|pod| is_held(pod) && pod.metadata.owner_references.is_none()));
    let _operator = stage.operator().await?;
    let pods = stage.until_no_pod_is_held("etl").await;
    assert!(pods.len() == 2 && pods.iter().all(|pod| phase(pod) == "Running"));
    Ok(())
}

#[tokio::test]
async fn made_again_at_once_under_its_name_it_starts_anew() -> Result<()> {
    let stage = Stage::new("again").await?;
    let _operator = stage.operator().await?;
    let running = two_at_work(&stage).await?;
    let before: Vec<String> = stage.pods_of("etl").await?.iter().map(|pod| name(pod).to_owned()).collect();
    drop(running);
    stage.kubectl(&["delete", "bj", "etl", "--cascade=background", "--timeout=60s"]).await?;
    let job = stage.create("etl", json!({ "completions": 2, "parallelism": 2 })).await?;

    let _kubelet = stage.kubelet.plays(|_| End::Success);
    let job_of = |pod: &Pod| pod.metadata.owner_references.as_ref().map(|owners| owners[0].uid.clone());
    let job = stage.until("etl", "it is over", |now| is_finished(now) && now.metadata.uid == job.metadata.uid).await;
    assert_eq!((status(&job).succeeded, status(&job).failed), (Some(2), Some(0)));
    let of_new = |pods: &[Pod]| pods.iter().all(|pod| job_of(pod) == job.metadata.uid);
    let after = stage.until_pods("etl", "the old ones are gone", of_new).await;
    assert_eq!(after.len(), 2);
    assert!(after.iter().all(|pod| !before.iter().any(|before| before == name(pod))));
    Ok(())
}

async fn until_gone(stage: &Stage) {
    let namespaces: Api<Namespace> = Api::all(stage.namespace.client.clone());
    let name = &stage.namespace.name;
    expect("the namespace is gone", async || Ok(namespaces.get_opt(name).await?.is_none().then_some(()))).await;
}

#[tokio::test]
async fn a_namespace_goes_with_the_jobs_in_it() -> Result<()> {
    let stage = Stage::new("namespace").await?;
    let _operator = stage.operator().await?;
    let _kubelet = two_at_work(&stage).await?;
    stage.kubectl(&["delete", "namespace", &stage.namespace.name, "--wait=false"]).await?;
    until_gone(&stage).await;
    Ok(())
}

#[tokio::test]
async fn a_namespace_that_waits_for_the_operator_goes_once_it_is_back() -> Result<()> {
    let stage = Stage::new("namespace-waits").await?;
    let operator = stage.operator().await?;
    let _kubelet = two_at_work(&stage).await?;
    operator.kill()?;
    stage.kubectl(&["delete", "namespace", &stage.namespace.name, "--wait=false"]).await?;
    // The namespace controller deletes pods first, and nothing else while there is one.
    let is_left = |pod: &Pod| is_held(pod) && pod.metadata.deletion_grace_period_seconds == Some(0);
    stage.until_pods("etl", "nothing but our finalizer holds them", |pods| pods.iter().all(is_left)).await;

    let _operator = stage.operator().await?;
    until_gone(&stage).await;
    Ok(())
}
