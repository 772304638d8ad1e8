//! A job from its first pod to its end, and what its readers are told.

use std::time::Duration;

use anyhow::{Context, Result};
use batchjob_crd::{Phase, keys};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::api::DeleteParams;
use serde_json::json;

use crate::kubelet::{End, name};
use crate::stage::{
    LONG_AGO, Stage, attempts, conditions, expect, is_finished, is_held, look_again, message, reason, status, template,
};

fn created(pod: &Pod) -> Timestamp {
    pod.metadata.creation_timestamp.as_ref().expect("the API server sets it").0
}

#[tokio::test]
async fn a_job_of_one_pod_completes_and_every_reader_is_told() -> Result<()> {
    let stage = Stage::new("one-pod").await?;
    let _operator = stage.operator().await?;
    stage.create("etl", json!({})).await?;
    let pod = stage.running_pod("etl", 0, 1).await?;
    let job = stage.until("etl", "its pod is ready", |job| status(job).ready == Some(1)).await;
    assert_eq!(conditions(&job), ["Ready=False(Running)", "Reconciling=True(Running)"]);
    assert_eq!((status(&job).phase, status(&job).active), (Some(Phase::Running), Some(1)));

    stage.kubelet.succeeds(&pod).await?;
    stage.kubectl(&["wait", "--for=condition=Finished", "bj/etl", "--timeout=60s"]).await?;
    let job = stage.jobs.get("etl").await?;
    assert_eq!(
        conditions(&job),
        [
            "Complete=True(CompletionsReached)",
            "Finished=True(CompletionsReached)",
            "Ready=True(Succeeded)",
            "SuccessCriteriaMet=True(CompletionsReached)",
        ]
    );
    let status = status(&job);
    assert!(status.conditions.iter().all(|condition| condition.observed_generation == job.metadata.generation));
    assert_eq!(status.observed_generation, job.metadata.generation);
    assert_eq!(status.phase, Some(Phase::Succeeded));
    assert_eq!(status.reason.as_deref(), Some("CompletionsReached"));
    assert_eq!(status.completions_summary.as_deref(), Some("1/1"));
    assert_eq!((status.succeeded, status.failed), (Some(1), Some(0)));
    assert_eq!((status.active, status.ready, status.terminating), (Some(0), Some(0), Some(0)));
    assert_eq!((status.parallelism, status.backoff_limit), (Some(1), Some(6)), "the values in effect");
    let (start, end) = (status.start_time.context("a start")?, status.completion_time.context("an end")?);
    assert!(start <= end && status.duration.is_some_and(|duration| duration.ends_with('s')));

    let selected = stage.kubectl(&["get", "pods", "-o", "name", "-l", &status.selector.context("a selector")?]).await?;
    assert_eq!(selected.trim(), format!("pod/{}", name(&pod)));
    stage.until_no_pod_is_held("etl").await;
    expect("both events are there", async || {
        let said = stage.kubectl(&["events", "--for", "bj/etl", "-o", "jsonpath={.items[*].reason}"]).await?;
        Ok((said == "SuccessfulCreate Completed").then_some(()))
    })
    .await;
    Ok(())
}

#[tokio::test]
async fn kubectl_get_shows_how_a_job_stands() -> Result<()> {
    let stage = Stage::new("columns").await?;
    let _operator = stage.operator().await?;
    stage.create("etl", json!({ "parallelism": 2, "completions": 2 })).await?;
    let _kubelet = stage.kubelet.plays(|_| End::Success);
    stage.until("etl", "it is over", is_finished).await;
    let said = stage.kubectl(&["get", "bj"]).await?;
    let lines: Vec<Vec<&str>> = said.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines[0], ["NAME", "STATUS", "COMPLETIONS", "FAILED", "REASON", "STARTED", "DURATION", "AGE"]);
    assert_eq!(lines[1][..5], ["etl", "Succeeded", "2/2", "0", "CompletionsReached"]);
    let select = |selector| ["get", "bj", "-o", "name", "--field-selector", selector];
    let said = stage.kubectl(&select("status.phase=Succeeded")).await?;
    assert_eq!(said.trim(), "batchjob.batchjob.dev/etl");
    assert_eq!(stage.kubectl(&select("status.reason=BackoffLimitExceeded")).await?.trim(), "");
    Ok(())
}

/// The name begins those of its pods, and labels and hostnames have no more than 63 characters.
#[tokio::test]
async fn jobs_with_the_longest_names_run() -> Result<()> {
    let stage = Stage::new("long").await?;
    let _operator = stage.operator().await?;
    let _kubelet = stage.kubelet.plays(|_| End::Success);
    let (plain, indexed) = ("a".repeat(63), "b".repeat(60));
    stage.create(&plain, json!({})).await?;
    stage.create(&indexed, json!({ "completionMode": "Indexed", "completions": 11, "parallelism": 11 })).await?;
    for name in [plain, indexed] {
        let job = stage.until(&name, "it is over", is_finished).await;
        assert_eq!(status(&job).phase, Some(Phase::Succeeded));
    }
    Ok(())
}

#[tokio::test]
async fn pods_look_like_those_of_a_job() -> Result<()> {
    let stage = Stage::new("looks").await?;
    let _operator = stage.operator().await?;
    let job = stage.create("etl", json!({ "completionMode": "Indexed", "completions": 2, "parallelism": 2 })).await?;
    let uid = job.metadata.uid.context("a uid")?;
    let pod = stage.pod("etl", 1, 1).await;
    let labels = pod.metadata.labels.clone().context("labels")?;
    for (label, value) in [
        ("batch.kubernetes.io/job-name", "etl"),
        ("job-name", "etl"),
        ("batch.kubernetes.io/controller-uid", &uid),
        ("controller-uid", &uid),
        ("batch.kubernetes.io/job-completion-index", "1"),
        ("batchjob.dev/attempt", "1"),
    ] {
        assert_eq!(labels.get(label).map(String::as_str), Some(value), "{label}");
    }
    let annotations = pod.metadata.annotations.clone().context("annotations")?;
    assert_eq!(annotations.get(keys::COMPLETION_INDEX).map(String::as_str), Some("1"));
    let owner = &pod.metadata.owner_references.clone().context("an owner")?[0];
    assert_eq!((owner.kind.as_str(), &owner.uid, owner.controller), ("BatchJob", &uid, Some(true)));
    assert!(name(&pod).starts_with("etl-1-1-") && is_held(&pod));

    let spec = pod.spec.context("a spec")?;
    assert_eq!(spec.hostname.as_deref(), Some("etl-1"));
    let env = spec.containers[0].env.clone().context("an environment")?;
    let index = env.iter().find(|variable| variable.name == "JOB_COMPLETION_INDEX").context("the index")?;
    let field = index.value_from.clone().and_then(|from| from.field_ref).context("a field")?;
    assert_eq!(field.field_path, "metadata.labels['batch.kubernetes.io/job-completion-index']");
    Ok(())
}

#[tokio::test]
async fn every_index_is_done_once() -> Result<()> {
    let stage = Stage::new("indexed").await?;
    let _operator = stage.operator().await?;
    let _kubelet = stage.kubelet.plays(|_| End::Success);
    stage.create("etl", json!({ "completionMode": "Indexed", "completions": 6, "parallelism": 2 })).await?;
    let job = stage.until("etl", "it is over", is_finished).await;
    let status = status(&job);
    assert_eq!((status.completed_indexes.as_deref(), status.failed), (Some("0-5"), Some(0)));
    assert_eq!(status.completions_summary.as_deref(), Some("6/6"));
    let pods = stage.until_no_pod_is_held("etl").await;
    assert_eq!(attempts(&pods), ["0-1", "1-1", "2-1", "3-1", "4-1", "5-1"]);
    Ok(())
}

/// From its end, not from when it was noticed: here 8 of the 10 seconds have passed by then.
#[tokio::test]
async fn the_next_attempt_starts_ten_seconds_after_the_end_of_the_failed_one() -> Result<()> {
    let stage = Stage::new("retry").await?;
    let _operator = stage.operator().await?;
    stage.create("etl", json!({})).await?;
    let pod = stage.running_pod("etl", 0, 1).await?;
    let ended = stage.kubelet.fails(&pod, 7, Duration::from_secs(8)).await?;
    let due = ended + Duration::from_secs(10);
    let job = stage.until("etl", "it backs off", |job| reason(job) == "BackingOff").await;
    assert_eq!(
        message(&job, "Reconciling"),
        format!("0/1 done, 0 active, 1 failed; index 0 attempt 2 starts at {due}")
    );
    let next = created(&stage.pod("etl", 0, 2).await);
    assert!(due <= next && next < due + Duration::from_secs(6), "due at {due}, started at {next}");
    Ok(())
}

#[tokio::test]
async fn the_delay_survives_the_operator_and_the_failed_pod() -> Result<()> {
    let stage = Stage::new("retry-restart").await?;
    let operator = stage.operator().await?;
    stage.create("etl", json!({})).await?;
    let pod = stage.running_pod("etl", 0, 1).await?;
    let ended = stage.kubelet.fails(&pod, 7, Duration::from_secs(6)).await?;
    let due = ended + Duration::from_secs(10);
    stage.until("etl", "the failure is counted", |job| status(job).failed == Some(1)).await;
    stage.until_no_pod_is_held("etl").await;
    operator.kill()?;
    stage.pods.delete(name(&pod), &DeleteParams::default()).await?;
    stage.until_pods("etl", "the failed one is gone", |pods| pods.is_empty()).await;

    let _operator = stage.operator().await?;
    let next = stage.running_pod("etl", 0, 2).await?;
    let started = created(&next);
    assert!(due <= started && started < due + Duration::from_secs(6), "due at {due}, started at {started}");
    stage.kubelet.succeeds(&next).await?;
    let job = stage.until("etl", "it is over", is_finished).await;
    assert_eq!((status(&job).succeeded, status(&job).failed), (Some(1), Some(1)));
    Ok(())
}

#[tokio::test]
async fn as_many_failures_as_backoff_limit_are_retried_and_one_more_is_the_end() -> Result<()> {
    let stage = Stage::new("backoff").await?;
    let _operator = stage.operator().await?;
    for (name, limit) in [("none", 0), ("two", 2)] {
        stage.create(name, json!({ "backoffLimit": limit })).await?;
        for attempt in 1..=limit + 1 {
            let pod = stage.running_pod(name, 0, attempt).await?;
            stage.kubelet.fails(&pod, 3, LONG_AGO).await?;
        }
        let job = stage.until(name, "it is over", is_finished).await;
        assert_eq!(
            conditions(&job),
            [
                "Failed=True(BackoffLimitExceeded)",
                "FailureTarget=True(BackoffLimitExceeded)",
                "Finished=True(BackoffLimitExceeded)",
                "Ready=False(BackoffLimitExceeded)",
                "Stalled=True(BackoffLimitExceeded)",
            ]
        );
        let n_failures = limit + 1;
        let message = message(&job, "Failed");
        let end =
            format!("failures {n_failures}; index 0 attempt {n_failures} failed: container main exited with code 3");
        assert!(message.ends_with(&end), "{message}");
        assert_eq!((status(&job).phase, status(&job).completion_time), (Some(Phase::Failed), None));
        assert_eq!(status(&job).failed, Some(n_failures as i32));
        assert_eq!(stage.until_no_pod_is_held(name).await.len(), n_failures as usize);
    }
    Ok(())
}

#[tokio::test]
async fn restarts_within_a_pod_count_against_backoff_limit() -> Result<()> {
    let stage = Stage::new("on-failure").await?;
    let _operator = stage.operator().await?;
    let template = template(json!({ "restartPolicy": "OnFailure" }));
    stage.create("etl", json!({ "backoffLimit": 2, "template": template })).await?;
    let pod = stage.running_pod("etl", 0, 1).await?;
    stage.kubelet.crashes(&pod, 0).await?;
    stage.until("etl", "it says so", |job| reason(job) == "CrashLoopBackOff").await;
    stage.kubelet.crashes(&pod, 1).await?;
    stage.kubelet.runs_again(&pod, 2).await?;
    let job = stage.until("etl", "it runs after two failures", |job| status(job).ready == Some(1)).await;
    assert_eq!(conditions(&job), ["Ready=False(Running)", "Reconciling=True(Running)"]);

    stage.kubelet.crashes(&pod, 2).await?;
    stage.until_pods("etl", "it is deleted", |pods| pods[0].metadata.deletion_timestamp.is_some()).await;
    stage.kubelet.ends(&pod).await?;
    let job = stage.until("etl", "it is over", is_finished).await;
    assert_eq!((reason(&job), status(&job).failed), ("BackoffLimitExceeded", Some(1)));
    assert!(message(&job, "Failed").contains("backoffLimit 2, failures 3"), "{}", message(&job, "Failed"));
    stage.until_pods("etl", "it is gone", |pods| pods.is_empty()).await;
    Ok(())
}

#[tokio::test]
async fn after_active_deadline_seconds_the_job_fails_and_its_pods_end() -> Result<()> {
    let stage = Stage::new("deadline").await?;
    let _operator = stage.operator().await?;
    stage.create("etl", json!({ "activeDeadlineSeconds": 2 })).await?;
    let pod = stage.running_pod("etl", 0, 1).await?;
    let job = stage.until("etl", "its pod is told to go", |job| status(job).terminating == Some(1)).await;
    assert!(conditions(&job).contains(&"FailureTarget=True(DeadlineExceeded)".to_owned()));
    assert!(!is_finished(&job), "not before its last pod has ended");
    stage.kubelet.ends(&pod).await?;
    let job = stage.until("etl", "it is over", is_finished).await;
    assert_eq!((reason(&job), status(&job).phase), ("DeadlineExceeded", Some(Phase::Failed)));
    stage.until_pods("etl", "it is gone", |pods| pods.is_empty()).await;
    Ok(())
}

#[tokio::test]
async fn after_its_time_to_live_a_job_goes_with_its_pods() -> Result<()> {
    let stage = Stage::new("ttl").await?;
    let _operator = stage.operator().await?;
    let _kubelet = stage.kubelet.plays(|_| End::Success);
    stage.create("etl", json!({ "ttlSecondsAfterFinished": 1 })).await?;
    stage.until("etl", "it is over", is_finished).await;
    stage.until_gone("etl").await;
    assert_eq!(stage.pods_of("etl").await?.len(), 0, "they go first");
    Ok(())
}

#[tokio::test]
async fn a_time_to_live_that_is_extended_in_time_keeps_the_job() -> Result<()> {
    let stage = Stage::new("ttl-extended").await?;
    let _operator = stage.operator().await?;
    let _kubelet = stage.kubelet.plays(|_| End::Success);
    let spec = json!({ "ttlSecondsAfterFinished": 5 });
    stage.create("kept", spec.clone()).await?;
    stage.until("kept", "it is over", is_finished).await;
    let kept = stage.change("kept", json!({ "spec": { "ttlSecondsAfterFinished": 1000 } })).await?;
    stage.until("kept", "it is seen", |job| status(job).observed_generation == kept.metadata.generation).await;
    // Its time is over after that of the first would have been.
    stage.create("goes", spec).await?;
    stage.until("goes", "it is over", is_finished).await;
    stage.until_gone("goes").await;
    let kept = stage.jobs.get("kept").await?;
    assert!(kept.metadata.deletion_timestamp.is_none() && is_finished(&kept));
    Ok(())
}

#[tokio::test]
async fn a_suspended_job_stops_without_a_failure_and_goes_on_when_resumed() -> Result<()> {
    let stage = Stage::new("suspend").await?;
    let _operator = stage.operator().await?;
    stage.create("etl", json!({ "completions": 2, "parallelism": 2, "backoffLimit": 0 })).await?;
    let pods = [stage.running_pod("etl", 0, 1).await?, stage.running_pod("etl", 1, 1).await?];
    stage.until("etl", "both are ready", |job| status(job).ready == Some(2)).await;

    stage.change("etl", json!({ "spec": { "suspend": true } })).await?;
    let are_told = |pods: &[Pod]| pods.iter().all(|pod| pod.metadata.deletion_timestamp.is_some());
    stage.until_pods("etl", "both are told to go", are_told).await;
    for pod in &pods {
        stage.kubelet.ends(pod).await?;
    }
    let job = stage.until("etl", "both have ended", |job| status(job).terminating == Some(0)).await;
    assert_eq!(conditions(&job), ["Suspended=True(JobSuspended)"]);
    assert_eq!((status(&job).phase, status(&job).start_time), (Some(Phase::Suspended), None));
    assert_eq!((status(&job).active, status(&job).failed), (Some(0), Some(0)));

    stage.change("etl", json!({ "spec": { "suspend": false } })).await?;
    for index in 0..2 {
        let pod = stage.running_pod("etl", index, 2).await?;
        stage.kubelet.succeeds(&pod).await?;
    }
    let job = stage.until("etl", "it is over", is_finished).await;
    assert_eq!((status(&job).succeeded, status(&job).failed), (Some(2), Some(0)));
    assert!(conditions(&job).contains(&"Suspended=False(JobResumed)".to_owned()));
    stage.until_no_pod_is_held("etl").await;
    Ok(())
}

#[tokio::test]
async fn parallelism_goes_from_nothing_up_and_down_again() -> Result<()> {
    let stage = Stage::new("parallelism").await?;
    let operator = stage.operator().await?;
    let parallelism = |n: u32| json!({ "spec": { "parallelism": n } });
    stage.create("etl", json!({ "completions": 4, "parallelism": 0, "backoffLimit": 0 })).await?;
    stage.until("etl", "it waits", |job| reason(job) == "ParallelismZero").await;
    look_again(&stage, &operator, "etl").await?;
    assert_eq!(stage.pods_of("etl").await?.len(), 0);

    stage.change("etl", parallelism(3)).await?;
    let (first, third) = (stage.running_pod("etl", 0, 1).await?, stage.running_pod("etl", 2, 1).await?);
    stage.until("etl", "two of three are ready", |job| status(job).ready == Some(2)).await;
    stage.change("etl", parallelism(2)).await?;
    let pods = stage.until_pods("etl", "one fewer", |pods| pods.len() == 2).await;
    assert_eq!(attempts(&pods), ["0-1", "2-1"], "the one that has got least far goes");

    stage.change("etl", parallelism(0)).await?;
    let are_told = |pods: &[Pod]| pods.iter().all(|pod| pod.metadata.deletion_timestamp.is_some());
    stage.until_pods("etl", "all are told to go", are_told).await;
    for pod in [&first, &third] {
        stage.kubelet.ends(pod).await?;
    }
    stage.until_pods("etl", "none is left", |pods| pods.is_empty()).await;
    stage.change("etl", parallelism(4)).await?;
    let pods = stage.until_pods("etl", "four at once", |pods| pods.len() == 4).await;
    assert_eq!(attempts(&pods), ["0-2", "1-2", "2-2", "3-1"]);
    let job = stage.until("etl", "four are active", |job| status(job).active == Some(4)).await;
    assert_eq!((status(&job).failed, status(&job).terminating), (Some(0), Some(0)));
    Ok(())
}

#[tokio::test]
async fn a_work_queue_is_done_when_one_worker_says_so_and_all_have_ended() -> Result<()> {
    let stage = Stage::new("queue").await?;
    let _operator = stage.operator().await?;
    stage.create("queue", json!({ "parallelism": 3 })).await?;
    let mut workers = Vec::new();
    for index in 0..3 {
        workers.push(stage.running_pod("queue", index, 1).await?);
    }
    stage.kubelet.succeeds(&workers[1]).await?;
    let job = stage.until("queue", "one has succeeded", |job| status(job).succeeded == Some(1)).await;
    assert_eq!(status(&job).completions_summary.as_deref(), Some("1/1 of 3"));
    stage.kubelet.fails(&workers[0], 1, LONG_AGO).await?;
    let job = stage.until("queue", "one has failed", |job| status(job).failed == Some(1)).await;
    assert!(!is_finished(&job), "one is still at work");
    stage.kubelet.succeeds(&workers[2]).await?;
    let job = stage.until("queue", "it is over", is_finished).await;
    assert_eq!((status(&job).phase, status(&job).succeeded), (Some(Phase::Succeeded), Some(2)));
    let pods = stage.until_no_pod_is_held("queue").await;
    assert_eq!(attempts(&pods), ["0-1", "1-1", "2-1"], "none was started after the first success");
    Ok(())
}

#[tokio::test]
async fn a_pod_that_somebody_deletes_is_a_failure_and_is_replaced() -> Result<()> {
    let stage = Stage::new("deleted-pod").await?;
    let _operator = stage.operator().await?;
    stage.create("etl", json!({})).await?;
    let pod = stage.running_pod("etl", 0, 1).await?;
    stage.kubectl(&["delete", "pod", name(&pod), "--wait=false"]).await?;
    stage.until("etl", "it is counted", |job| status(job).failed == Some(1)).await;
    assert!(is_held(&stage.pods.get(name(&pod)).await?), "until its end is known");
    stage.kubelet.ends(&pod).await?;
    stage.until_pods("etl", "it is gone", |pods| pods.is_empty()).await;
    let next = stage.running_pod("etl", 0, 2).await?;
    stage.kubelet.succeeds(&next).await?;
    let job = stage.until("etl", "it is over", is_finished).await;
    assert_eq!((status(&job).succeeded, status(&job).failed), (Some(1), Some(1)));
    stage.until_no_pod_is_held("etl").await;
    Ok(())
}
