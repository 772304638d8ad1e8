//! The counts of pods at every step of a job, the metrics that follow from them, and that no pod stays held by us.

use anyhow::Result;
use batchjob_crd::{condition, reason};
use batchjob_tests::support::Operator;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, PropagationPolicy};
use serde_json::json;

use crate::both::{Both, Counts, Door, both_doors};
use crate::kubelet::{End, name, phase};
use crate::stage::{LONG_AGO, attempts, expect, is_held};

const NONE: Counts = Counts { active: 0, ready: 0, terminating: 0, succeeded: 0, failed: 0 };

/// The metric comes to this: it is counted after the status is written.
async fn until_metric(operator: &Operator, name: &str, labels: &[&str], value: u32) {
    let name = if name.starts_with("batchjob_") { name.to_owned() } else { format!("job_controller_{name}") };
    expect(&format!("{name}{labels:?} is {value}"), async || {
        let text = operator.get("/metrics").await?;
        let of_name = text.lines().filter(|line| line.starts_with(&format!("{name}{{")));
        let mut values = of_name
            .filter(|line| labels.iter().all(|label| line.contains(&format!("\"{label}\""))))
            .filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok());
        Ok((values.next().unwrap_or_default() == f64::from(value) && values.next().is_none()).then_some(()))
    })
    .await;
}

/// So many pods that had ended were held by us, and all were let go.
async fn until_let_go(operator: &Operator, n: u32) {
    for event in ["add", "delete"] {
        until_metric(operator, "batchjob_pod_finalizers_total", &[event], n).await;
    }
}

async fn run_all(stage: &Both, pods: &[Pod]) -> Result<()> {
    for pod in pods {
        stage.stage.kubelet.bind(pod).await?;
        stage.stage.kubelet.runs(pod).await?;
    }
    Ok(())
}

async fn succeed_all(stage: &Both, pods: &[Pod]) -> Result<()> {
    for pod in pods {
        stage.stage.kubelet.succeeds(pod).await?;
    }
    Ok(())
}

async fn fail_all(stage: &Both, pods: &[Pod]) -> Result<()> {
    for pod in pods {
        stage.stage.kubelet.fails(pod, 1, LONG_AGO).await?;
    }
    Ok(())
}

both_doors!(one_pod_is_counted_by_three_operators_in_turn);

async fn one_pod_is_counted_by_three_operators_in_turn(stage: &Both) -> Result<()> {
    let operator = stage.operator().await?;
    stage.create("etl", json!({})).await?;
    stage.until_counts("etl", Counts { active: 1, ..NONE }).await;
    operator.kill()?;

    let operator = stage.operator().await?;
    fail_all(stage, &stage.stage.until_living("etl", 1).await).await?;
    stage.until_counts("etl", Counts { active: 1, failed: 1, ..NONE }).await;
    until_metric(&operator, "job_pods_finished_total", &["NonIndexed", "failed"], 1).await;
    operator.kill()?;

    let operator = stage.operator().await?;
    succeed_all(stage, &stage.stage.until_living("etl", 1).await).await?;
    let job = stage.until_over("etl").await;
    assert!(job.is(condition::COMPLETE));
    assert_eq!(Counts::from(&job), Counts { succeeded: 1, failed: 1, ..NONE });
    assert_eq!(attempts(&stage.stage.pods_of("etl").await?), ["0-1", "0-2"]);
    until_metric(&operator, "job_pods_finished_total", &["NonIndexed", "succeeded"], 1).await;
    until_metric(&operator, "jobs_finished_total", &["NonIndexed", "succeeded", reason::COMPLETIONS_REACHED], 1).await;
    Ok(())
}

both_doors!(a_work_queue_of_five);

async fn a_work_queue_of_five(stage: &Both) -> Result<()> {
    let operator = stage.operator().await?;
    stage.create("queue", json!({ "parallelism": 5 })).await?;
    stage.until_counts("queue", Counts { active: 5, ..NONE }).await;
    let workers = stage.stage.until_living("queue", 5).await;
    run_all(stage, &workers[..2]).await?;
    stage.until_counts("queue", Counts { active: 5, ready: 2, ..NONE }).await;

    fail_all(stage, &workers[..2]).await?;
    stage.until_counts("queue", Counts { active: 5, failed: 2, ..NONE }).await;
    let workers = stage.stage.until_living("queue", 5).await;
    succeed_all(stage, &workers[..1]).await?;
    stage.until_counts("queue", Counts { active: 4, succeeded: 1, failed: 2, ..NONE }).await;
    // Once a worker has said that the work is done, no other takes the place of one that fails.
    fail_all(stage, &workers[1..3]).await?;
    stage.until_counts("queue", Counts { active: 2, succeeded: 1, failed: 4, ..NONE }).await;
    stage.look_again(&operator, "queue").await?;
    assert_eq!(stage.stage.pods_of("queue").await?.len(), 7);

    succeed_all(stage, &workers[3..]).await?;
    let job = stage.until_over("queue").await;
    assert!(job.is(condition::COMPLETE));
    assert_eq!(Counts::from(&job), Counts { succeeded: 3, failed: 4, ..NONE });
    assert_eq!(stage.stage.pods_of("queue").await?.len(), 7);
    until_metric(&operator, "jobs_finished_total", &["NonIndexed", "succeeded", reason::COMPLETIONS_REACHED], 1).await;
    until_metric(&operator, "job_pods_finished_total", &["NonIndexed", "succeeded"], 3).await;
    until_metric(&operator, "job_pods_finished_total", &["NonIndexed", "failed"], 4).await;
    until_let_go(&operator, 7).await;
    Ok(())
}

both_doors!(a_work_queue_gets_fewer_workers_and_more_again);

/// By more workers than may fail: those that are stopped are no failures.
async fn a_work_queue_gets_fewer_workers_and_more_again(stage: &Both) -> Result<()> {
    let _operator = stage.operator().await?;
    stage.create("queue", json!({ "parallelism": 5, "backoffLimit": 2 })).await?;
    stage.until_counts("queue", Counts { active: 5, ..NONE }).await;
    stage.change("queue", json!({ "spec": { "parallelism": 2 } })).await?;
    stage.until_counts("queue", Counts { active: 2, ..NONE }).await;
    stage.stage.until_pods("queue", "the others are gone", |pods| pods.len() == 2).await;
    stage.change("queue", json!({ "spec": { "parallelism": 4 } })).await?;
    stage.until_counts("queue", Counts { active: 4, ..NONE }).await;
    succeed_all(stage, &stage.stage.until_living("queue", 4).await).await?;
    let job = stage.until_over("queue").await;
    assert!(job.is(condition::COMPLETE));
    assert_eq!(Counts::from(&job), Counts { succeeded: 4, ..NONE });
    Ok(())
}

both_doors!(fifty_six_completions_fifty_four_at_once);

async fn fifty_six_completions_fifty_four_at_once(stage: &Both) -> Result<()> {
    let operator = stage.operator().await?;
    stage.create("etl", json!({ "completions": 56, "parallelism": 54 })).await?;
    stage.until_counts("etl", Counts { active: 54, ..NONE }).await;
    let pods = stage.stage.until_living("etl", 54).await;
    run_all(stage, &pods[..52]).await?;
    stage.until_counts("etl", Counts { active: 54, ready: 52, ..NONE }).await;
    fail_all(stage, &pods[..2]).await?;
    stage.until_counts("etl", Counts { active: 54, ready: 50, failed: 2, ..NONE }).await;
    // One of them is not ready, and more were started in the place of those that failed.
    let pods = stage.stage.until_living("etl", 54).await;
    succeed_all(stage, &pods[..53]).await?;
    stage.until_counts("etl", Counts { active: 3, succeeded: 53, failed: 2, ..NONE }).await;
    let pods = stage.stage.until_living("etl", 3).await;
    succeed_all(stage, &pods).await?;
    let job = stage.until_over("etl").await;
    assert!(job.is(condition::COMPLETE));
    assert_eq!(Counts::from(&job), Counts { succeeded: 56, failed: 2, ..NONE });
    assert_eq!(stage.stage.pods_of("etl").await?.len(), 58);
    until_metric(&operator, "jobs_finished_total", &["NonIndexed", "succeeded", reason::COMPLETIONS_REACHED], 1).await;
    until_metric(&operator, "job_pods_finished_total", &["NonIndexed", "succeeded"], 56).await;
    until_metric(&operator, "job_pods_finished_total", &["NonIndexed", "failed"], 2).await;
    Ok(())
}

both_doors!(an_indexed_job_counts_each_index_once);

async fn an_indexed_job_counts_each_index_once(stage: &Both) -> Result<()> {
    let operator = stage.operator().await?;
    stage.create("etl", json!({ "completionMode": "Indexed", "completions": 4, "parallelism": 3 })).await?;
    let job = stage.until_counts("etl", Counts { active: 3, ..NONE }).await;
    assert_eq!(job.completed_indexes, "");
    let living = stage.stage.until_living("etl", 3).await;
    assert_eq!(attempts(&living), ["0-1", "1-1", "2-1"]);

    succeed_all(stage, &living[1..2]).await?;
    let job = stage.until_counts("etl", Counts { active: 3, succeeded: 1, ..NONE }).await;
    assert_eq!(job.completed_indexes, "1");
    let living = stage.stage.until_living("etl", 3).await;
    assert_eq!(attempts(&living), ["0-1", "2-1", "3-1"]);

    fail_all(stage, &living[1..2]).await?;
    let job = stage.until_counts("etl", Counts { active: 3, succeeded: 1, failed: 1, ..NONE }).await;
    assert_eq!(job.completed_indexes, "1");
    let living = stage.stage.until_living("etl", 3).await;
    assert_eq!(attempts(&living), ["0-1", "2-2", "3-1"]);

    succeed_all(stage, &living).await?;
    let job = stage.until_over("etl").await;
    assert!(job.is(condition::COMPLETE));
    assert_eq!(Counts::from(&job), Counts { succeeded: 4, failed: 1, ..NONE });
    assert_eq!(job.completed_indexes, "0-3");
    until_metric(&operator, "jobs_finished_total", &["Indexed", "succeeded", reason::COMPLETIONS_REACHED], 1).await;
    until_metric(&operator, "job_pods_finished_total", &["Indexed", "succeeded"], 4).await;
    until_metric(&operator, "job_pods_finished_total", &["Indexed", "failed"], 1).await;
    until_let_go(&operator, 5).await;
    Ok(())
}

both_doors!(when_one_of_a_hundred_fails_at_once_none_stays_held);

/// The job fails while its last pods have only just been made.
async fn when_one_of_a_hundred_fails_at_once_none_stays_held(stage: &Both) -> Result<()> {
    let operator = stage.operator().await?;
    let spec = json!({ "completionMode": "Indexed", "completions": 100, "parallelism": 100, "backoffLimit": 0 });
    stage.create("etl", spec).await?;
    let first = stage.stage.pod("etl", 0, 1).await;
    fail_all(stage, &[first]).await?;
    let job = stage.until_over("etl").await;
    assert!(job.is(condition::FAILED));
    // Those that were deleted for it have failed too.
    assert_eq!(Counts::from(&job), Counts { failed: 100, ..NONE });
    let pods = stage.stage.until_pods("etl", "the others are gone", |pods| pods.len() == 1).await;
    assert_eq!((attempts(&pods), phase(&pods[0])), (vec!["0-1".to_owned()], "Failed"));
    until_metric(&operator, "jobs_finished_total", &["Indexed", "failed", reason::BACKOFF_LIMIT_EXCEEDED], 1).await;
    Ok(())
}

both_doors!(one_of_ten_fails_and_the_operator_is_killed);

async fn one_of_ten_fails_and_the_operator_is_killed(stage: &Both) -> Result<()> {
    let operator = stage.operator().await?;
    stage.create("etl", json!({ "completions": 10, "parallelism": 10, "backoffLimit": 0 })).await?;
    stage.until_counts("etl", Counts { active: 10, ..NONE }).await;
    let pods = stage.stage.until_living("etl", 10).await;
    run_all(stage, &pods).await?;
    fail_all(stage, &pods[..1]).await?;
    succeed_all(stage, &pods[1..]).await?;
    operator.kill()?;

    let _operator = stage.operator().await?;
    let job = stage.until_over("etl").await;
    assert!(job.is(condition::FAILED));
    let Counts { active, ready, terminating, succeeded, failed } = Counts::from(&job);
    assert_eq!((active, ready, terminating, succeeded + failed), (0, 0, 0, 10));
    Ok(())
}

both_doors!(one_of_ten_fails_while_the_operator_is_away);

/// By the time that anybody looks nine have succeeded, and one failure was one too many.
async fn one_of_ten_fails_while_the_operator_is_away(stage: &Both) -> Result<()> {
    let operator = stage.operator().await?;
    stage.create("etl", json!({ "completions": 10, "parallelism": 10, "backoffLimit": 0 })).await?;
    stage.until_counts("etl", Counts { active: 10, ..NONE }).await;
    operator.kill()?;
    let pods = stage.stage.until_living("etl", 10).await;
    run_all(stage, &pods).await?;
    fail_all(stage, &pods[..1]).await?;
    succeed_all(stage, &pods[1..]).await?;

    let operator = stage.operator().await?;
    let job = stage.until_over("etl").await;
    assert!(job.is(condition::FAILED));
    assert_eq!(Counts::from(&job), Counts { succeeded: 9, failed: 1, ..NONE });
    until_metric(&operator, "job_pods_finished_total", &["NonIndexed", "succeeded"], 9).await;
    until_metric(&operator, "job_pods_finished_total", &["NonIndexed", "failed"], 1).await;
    Ok(())
}

both_doors!(however_a_job_is_deleted_no_pod_stays_held);

async fn however_a_job_is_deleted_no_pod_stays_held(stage: &Both) -> Result<()> {
    let _operator = stage.operator().await?;
    let _kubelet = stage.stage.kubelet.plays(|_| End::Never);
    let orphan = DeleteParams { propagation_policy: Some(PropagationPolicy::Orphan), ..DeleteParams::default() };
    for (job, params) in
        [("orphan", orphan), ("background", DeleteParams::background()), ("foreground", DeleteParams::foreground())]
    {
        stage.create(job, json!({ "parallelism": 2 })).await?;
        stage.until_counts(job, Counts { active: 2, ready: 2, ..NONE }).await;
        stage.delete(job, params).await?;
        stage.until_gone(job).await;
        let pods = stage.stage.until_no_pod_is_held(job).await;
        if job == "orphan" {
            let go_on = |pod: &Pod| phase(pod) == "Running" && pod.metadata.owner_references.is_none();
            assert!(pods.len() == 2 && pods.iter().all(go_on), "{pods:?}");
        } else {
            stage.stage.until_pods(job, "they are gone", |pods| pods.is_empty()).await;
        }
    }
    Ok(())
}

both_doors!(deleted_while_the_operator_is_away_no_pod_stays_held);

async fn deleted_while_the_operator_is_away_no_pod_stays_held(stage: &Both) -> Result<()> {
    let operator = stage.operator().await?;
    stage.create("etl", json!({ "parallelism": 1 })).await?;
    stage.until_counts("etl", Counts { active: 1, ..NONE }).await;
    operator.kill()?;
    let pod = stage.stage.until_living("etl", 1).await;
    stage.delete("etl", DeleteParams::background()).await?;
    stage.until_gone("etl").await;
    // The pods of a Job that is gone are let go by Kubernetes' own controller too.
    if stage.door == Door::BatchJob {
        assert!(is_held(&stage.stage.pods.get(name(&pod[0])).await?));
    }
    let _operator = stage.operator().await?;
    stage.stage.until_pods("etl", "it is gone", |pods| pods.is_empty()).await;
    Ok(())
}
