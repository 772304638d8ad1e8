//! What the operator writes is refused, or comes too late: nothing is lost, and nothing is counted twice.

use std::time::Duration;

use anyhow::Result;
use batchjob_crd::condition;
use batchjob_tests::support::Operator;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

use crate::both::{Both, Counts, Door, both_doors};
use crate::kubelet::{End, name};
use crate::refusal::{KEEPS_FINALIZERS, Refusal, dry_run, is_refused, refuse_releases};
use crate::stage::{LONG_AGO, attempts, expect, index_of, is_held, metric};

const NONE: Counts = Counts { active: 0, ready: 0, terminating: 0, succeeded: 0, failed: 0 };

/// No status can be written any more.
async fn refuse_statuses(stage: &Both, job: &str) -> Result<Refusal> {
    let (group, resource) = match stage.door {
        Door::BatchJob => ("batchjob.dev", "batchjobs/status"),
        Door::ManagedJob => ("batch", "jobs/status"),
    };
    let refusal = Refusal::of(stage, group, resource, "false").await?;
    let probe = Patch::Merge(json!({ "metadata": { "annotations": { "probe": "" } } }));
    expect("statuses are refused", async || {
        Ok(is_refused(stage.jobs.patch_status(job, &dry_run(), &probe).await).then_some(()))
    })
    .await;
    Ok(refusal)
}

/// The pod of index 0 cannot be let go any more.
async fn refuse_release_of_index_0(stage: &Both, pod: &Pod) -> Result<Refusal> {
    let other = "object.metadata.labels['batch.kubernetes.io/job-completion-index'] != '0'";
    let expression = format!("{other} || {KEEPS_FINALIZERS}");
    refuse_releases(stage, pod, &expression).await
}

/// So many plans were not carried out, for errors of that class; of any, if it is empty.
async fn until_errors(operator: &Operator, class: &str, n: f64) {
    expect(&format!("{n} errors {class:?}"), async || {
        Ok((metric(operator, "batchjob_errors_total", class).await? >= n).then_some(()))
    })
    .await;
}

fn two() -> Value {
    json!({ "completionMode": "Indexed", "completions": 2, "parallelism": 2 })
}

both_doors!(a_status_that_is_refused_is_written_later);

async fn a_status_that_is_refused_is_written_later(stage: &Both) -> Result<()> {
    let operator = stage.operator().await?;
    stage.create("etl", two()).await?;
    let pods = [stage.stage.running_pod("etl", 0, 1).await?, stage.stage.running_pod("etl", 1, 1).await?];
    let before = stage.until_counts("etl", Counts { active: 2, ready: 2, ..NONE }).await;
    let refusal = refuse_statuses(stage, "etl").await?;
    stage.stage.kubelet.succeeds(&pods[0]).await?;
    stage.stage.kubelet.fails(&pods[1], 1, LONG_AGO).await?;
    until_errors(&operator, "", 1.0).await;
    operator.kill()?;

    let operator = stage.operator().await?;
    until_errors(&operator, "", 1.0).await;
    assert_eq!(stage.standing("etl").await?, before);
    for pod in &pods {
        assert!(is_held(&stage.stage.pods.get(name(pod)).await?), "it is not counted yet");
    }
    refusal.lift().await?;
    stage.until_counts("etl", Counts { active: 1, succeeded: 1, failed: 1, ..NONE }).await;
    let next = stage.stage.running_pod("etl", 1, 2).await?;
    stage.stage.kubelet.succeeds(&next).await?;
    let job = stage.until_over("etl").await;
    assert!(job.is(condition::COMPLETE));
    assert_eq!(Counts::from(&job), Counts { succeeded: 2, failed: 1, ..NONE });
    assert_eq!(attempts(&stage.stage.pods_of("etl").await?), ["0-1", "1-1", "1-2"]);
    let finished = "job_controller_job_pods_finished_total";
    assert_eq!(metric(&operator, finished, "failed").await?, 1.0);
    assert_eq!(metric(&operator, finished, "succeeded").await?, 2.0);
    Ok(())
}

both_doors!(a_pod_that_cannot_be_let_go_is_counted_once);

async fn a_pod_that_cannot_be_let_go_is_counted_once(stage: &Both) -> Result<()> {
    let operator = stage.operator().await?;
    stage.create("etl", two()).await?;
    let pods = [stage.stage.running_pod("etl", 0, 1).await?, stage.stage.running_pod("etl", 1, 1).await?];
    stage.until_counts("etl", Counts { active: 2, ready: 2, ..NONE }).await;
    let refusal = refuse_release_of_index_0(stage, &pods[0]).await?;
    stage.stage.kubelet.fails(&pods[0], 1, LONG_AGO).await?;
    stage.until_counts("etl", Counts { active: 2, ready: 1, failed: 1, ..NONE }).await;
    until_errors(&operator, "", 1.0).await;
    operator.kill()?;

    let operator = stage.operator().await?;
    until_errors(&operator, "", 1.0).await;
    let next = stage.stage.running_pod("etl", 0, 2).await?;
    stage.stage.kubelet.succeeds(&next).await?;
    stage.stage.kubelet.succeeds(&pods[1]).await?;
    let job = stage.until("etl", "it is over", |job| job.is_finished()).await;
    assert_eq!(Counts::from(&job), Counts { succeeded: 2, failed: 1, ..NONE });
    // Both pods of the index, whose release is refused; the other one is free.
    let held = stage
        .stage
        .until_pods("etl", "one of three is free", |pods| pods.iter().filter(|pod| is_held(pod)).count() == 2);
    let held: Vec<Pod> = held.await.into_iter().filter(is_held).collect();
    assert!(held.iter().all(|pod| index_of(pod) == Some(0)), "{held:?}");
    refusal.lift().await?;
    let over = stage.until_over("etl").await;
    assert_eq!(over, job);
    assert_eq!(attempts(&stage.stage.pods_of("etl").await?), ["0-1", "0-2", "1-1"]);
    Ok(())
}

both_doors!(each_index_is_done_once_though_others_write_the_job);

async fn each_index_is_done_once_though_others_write_the_job(stage: &Both) -> Result<()> {
    let operator = stage.operator().await?;
    let _kubelet = stage.stage.kubelet.plays(|_| End::Success);
    stage.create("etl", json!({ "completionMode": "Indexed", "completions": 20, "parallelism": 5 })).await?;
    let jobs = stage.jobs.clone();
    let meddler = tokio::spawn(async move {
        let mut pace = tokio::time::interval(Duration::from_millis(2));
        for n in 0.. {
            pace.tick().await;
            let patch = Patch::Merge(json!({ "metadata": { "annotations": { "n": n.to_string() } } }));
            if jobs.patch("etl", &PatchParams::default(), &patch).await.is_err() {
                break;
            }
        }
    });
    // For as long as somebody writes so often, nearly every status comes too late.
    until_errors(&operator, "stale", 3.0).await;
    meddler.abort();
    let job = stage.until_over("etl").await;
    assert!(job.is(condition::COMPLETE));
    assert_eq!(Counts::from(&job), Counts { succeeded: 20, ..NONE });
    assert_eq!(job.completed_indexes, "0-19");
    let pods = stage.stage.pods_of("etl").await?;
    assert!(pods.len() == 20 && attempts(&pods).iter().all(|attempt| attempt.ends_with("-1")), "{pods:?}");
    let finished = "job_controller_job_pods_finished_total";
    assert_eq!(metric(&operator, finished, "succeeded").await?, 20.0);
    Ok(())
}
