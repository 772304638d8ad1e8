//! When a pod is replaced that somebody deletes, by podReplacementPolicy; and that a job is over only when its last pod has
//! ended.

use anyhow::Result;
use batchjob_oracle::standing::Standing;
use k8s_openapi::api::core::v1::Pod;
use kube::api::DeleteParams;
use serde_json::{Value, json};

use crate::both::{Both, Counts, both_doors};
use crate::kubelet::name;
use crate::stage::{LONG_AGO, attempts, metric};

const NONE: Counts = Counts { active: 0, ready: 0, terminating: 0, succeeded: 0, failed: 0 };
const CREATED: &str = "job_controller_job_pods_creation_total";

/// A job of two pods, which run and are then deleted by somebody.
async fn two_deleted(stage: &Both, job: &str, mut spec: Value) -> Result<Vec<Pod>> {
    spec["completions"] = 2.into();
    spec["parallelism"] = 2.into();
    stage.create(job, spec).await?;
    let pods = vec![stage.stage.running_pod(job, 0, 1).await?, stage.stage.running_pod(job, 1, 1).await?];
    stage.until_counts(job, Counts { active: 2, ready: 2, ..NONE }).await;
    for pod in &pods {
        stage.stage.pods.delete(name(pod), &DeleteParams::default()).await?;
    }
    Ok(pods)
}

both_doors!(a_deleted_pod_is_replaced_while_it_still_ends);

async fn a_deleted_pod_is_replaced_while_it_still_ends(stage: &Both) -> Result<()> {
    let operator = stage.operator().await?;
    let jobs = [
        ("default", json!({ "completionMode": "Indexed" })),
        ("indexed", json!({ "completionMode": "Indexed", "podReplacementPolicy": "TerminatingOrFailed" })),
        ("plain", json!({ "completionMode": "NonIndexed", "podReplacementPolicy": "TerminatingOrFailed" })),
    ];
    let mut ending = Vec::new();
    for (job, spec) in jobs {
        ending.push((job, two_deleted(stage, job, spec).await?));
    }
    for (job, pods) in ending {
        stage.until_counts(job, Counts { active: 2, terminating: 2, failed: 2, ..NONE }).await;
        assert_eq!(attempts(&stage.stage.pods_of(job).await?), ["0-1", "0-2", "1-1", "1-2"]);
        for pod in &pods {
            stage.stage.kubelet.ends(pod).await?;
        }
        stage.until_counts(job, Counts { active: 2, failed: 2, ..NONE }).await;
        stage.stage.until_pods(job, "the first ones are gone", |pods| attempts(pods) == ["0-2", "1-2"]).await;
    }
    assert_eq!(metric(&operator, CREATED, "status=\"succeeded\"").await?, 12.0);
    Ok(())
}

both_doors!(with_policy_failed_it_is_replaced_when_it_has_ended);

async fn with_policy_failed_it_is_replaced_when_it_has_ended(stage: &Both) -> Result<()> {
    let operator = stage.operator().await?;
    for mode in ["Indexed", "NonIndexed"] {
        let job = mode.to_lowercase();
        let spec = json!({ "completionMode": mode, "podReplacementPolicy": "Failed" });
        let pods = two_deleted(stage, &job, spec).await?;
        stage.until_counts(&job, Counts { terminating: 2, ..NONE }).await;
        stage.look_again(&operator, &job).await?;
        assert_eq!(Counts::from(&stage.standing(&job).await?), Counts { terminating: 2, ..NONE });
        assert_eq!(attempts(&stage.stage.pods_of(&job).await?), ["0-1", "1-1"], "none is replaced");

        for pod in &pods {
            stage.stage.kubelet.fails(pod, 143, LONG_AGO).await?;
        }
        stage.until_counts(&job, Counts { active: 2, failed: 2, ..NONE }).await;
        assert_eq!(attempts(&stage.stage.until_living(&job, 2).await), ["0-2", "1-2"]);
    }
    assert_eq!(metric(&operator, CREATED, "status=\"succeeded\"").await?, 8.0);
    Ok(())
}

fn conditions(job: &Standing) -> Vec<String> {
    job.conditions.iter().map(|found| format!("{}={}({})", found.type_, found.is_true, found.reason)).collect()
}

both_doors!(a_job_that_fails_is_over_with_its_last_pod);

async fn a_job_that_fails_is_over_with_its_last_pod(stage: &Both) -> Result<()> {
    let _operator = stage.operator().await?;
    stage.create("etl", json!({ "completions": 2, "parallelism": 2, "backoffLimit": 0 })).await?;
    let pods = [stage.stage.running_pod("etl", 0, 1).await?, stage.stage.running_pod("etl", 1, 1).await?];
    stage.until_counts("etl", Counts { active: 2, ready: 2, ..NONE }).await;
    stage.stage.kubelet.fails(&pods[0], 1, LONG_AGO).await?;
    let job = stage.until_counts("etl", Counts { terminating: 1, failed: 2, ..NONE }).await;
    assert_eq!(conditions(&job), ["FailureTarget=true(BackoffLimitExceeded)"]);

    // It has been counted as failed, and leaves in peace.
    stage.stage.kubelet.succeeds(&pods[1]).await?;
    let job = stage.until_over("etl").await;
    assert_eq!(Counts::from(&job), Counts { failed: 2, ..NONE });
    assert_eq!(conditions(&job), ["Failed=true(BackoffLimitExceeded)", "FailureTarget=true(BackoffLimitExceeded)"]);
    Ok(())
}
