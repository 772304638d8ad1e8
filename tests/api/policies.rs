//! What a failure and a success mean: podFailurePolicy, successPolicy, and the limits for each index, as upstream's
//! integration tests of them (`test/integration/job/job_test.go`) have it.

use std::time::Duration;

use anyhow::{Context, Result};
use batchjob_crd::keys;
use batchjob_oracle::standing::Standing;
use batchjob_tests::support::Operator;
use k8s_openapi::api::core::v1::Pod;
use kube::api::DeleteParams;
use serde_json::{Value, json};

use crate::both::{Both, both_doors};
use crate::kubelet::name;
use crate::stage::{attempt_of, expect, index_of, is_held, metric};

/// Long enough ago that no delay is left.
const LONG_AGO: Duration = Duration::from_secs(1200);

/// How many are active, have failed, have succeeded, and are terminating.
fn counts(job: &Standing) -> [i32; 4] {
    [job.active, job.failed, job.succeeded, job.terminating]
}

/// A Job has them from the beginning, a BatchJob when there are some.
fn failed_indexes(job: &Standing) -> &str {
    job.failed_indexes.as_deref().unwrap_or_default()
}

/// Each condition that is true, as "Failed: PodFailurePolicy"; in alphabetical order.
fn verdicts(job: &Standing) -> Vec<String> {
    let conditions = job.conditions.iter().filter(|condition| condition.is_true);
    conditions.map(|condition| format!("{}: {}", condition.type_, condition.reason)).collect()
}

fn failed_because(reason: &str) -> Vec<String> {
    [format!("Failed: {reason}"), format!("FailureTarget: {reason}")].into()
}

fn complete_because(reason: &str) -> Vec<String> {
    [format!("Complete: {reason}"), format!("SuccessCriteriaMet: {reason}")].into()
}

/// The message of its condition, which both kinds have in the same place.
async fn message(stage: &Both, name: &str, condition: &str) -> Result<String> {
    let job = stage.jobs.get(name).await?;
    let conditions = job.data["status"]["conditions"].as_array().context("conditions")?;
    let found = conditions.iter().find(|found| found["type"] == condition).context("the condition")?;
    Ok(found["message"].as_str().unwrap_or_default().to_owned())
}

async fn until_counts(stage: &Both, name: &str, expected: [i32; 4]) -> Standing {
    let what = format!("active, failed, succeeded, terminating are {expected:?}");
    stage.until(name, &what, |job| counts(job) == expected).await
}

async fn until_finished(stage: &Both, name: &str) -> Standing {
    stage.until(name, "it is over", Standing::is_finished).await
}

/// Its last pod is released after the last status is written.
async fn until_let_go(stage: &Both, name: &str) {
    stage.stage.until_no_pod_is_held(name).await;
}

/// The attempt's pod has failed long ago, so that the next one may start at once.
async fn fails(stage: &Both, job: &str, (index, attempt): (u32, u32), exit_code: i32) -> Result<Pod> {
    let pod = stage.stage.pod(job, index, attempt).await;
    stage.stage.kubelet.fails(&pod, exit_code, LONG_AGO).await?;
    Ok(pod)
}

async fn succeeds(stage: &Both, job: &str, (index, attempt): (u32, u32)) -> Result<()> {
    let pod = stage.stage.pod(job, index, attempt).await;
    stage.stage.kubelet.succeeds(&pod).await
}

/// It was ended from outside, long ago.
async fn is_disrupted(stage: &Both, job: &str, (index, attempt): (u32, u32)) -> Result<()> {
    let pod = stage.stage.pod(job, index, attempt).await;
    stage.stage.kubelet.is_disrupted(&pod, LONG_AGO).await
}

/// The pods that go on: those of which none has ended or is told to.
async fn active_indexes(stage: &Both, job: &str) -> Result<Vec<u32>> {
    let is_over = |pod: &Pod| matches!(crate::kubelet::phase(pod), "Succeeded" | "Failed");
    let pods = stage.stage.pods_of(job).await?;
    let active = pods.iter().filter(|pod| !is_over(pod) && pod.metadata.deletion_timestamp.is_none());
    let mut indexes: Vec<u32> = active.filter_map(index_of).collect();
    indexes.sort_unstable();
    Ok(indexes)
}

fn annotation<'a>(pod: &'a Pod, key: &str) -> Option<&'a str> {
    pod.metadata.annotations.as_ref()?.get(key).map(String::as_str)
}

async fn until_metric(operator: &Operator, name: &str, label: &str, expected: f64) {
    expect(&format!("{name} of {label} is {expected}"), async || {
        Ok((metric(operator, name, label).await? == expected).then_some(()))
    })
    .await;
}

const BY_POLICY: &str = "job_controller_pod_failures_handled_by_failure_policy_total";
const JOBS: &str = "job_controller_jobs_finished_total";

fn ended_as(completion_mode: &str, result: &str, reason: &str) -> String {
    format!(r#"completion_mode="{completion_mode}",result="{result}",reason="{reason}""#)
}

fn on_exit_codes(action: &str, values: &[i32]) -> Value {
    json!({ "action": action, "onExitCodes": { "operator": "In", "values": values } })
}

/// Without a status, which means True.
fn on_disruption(action: &str) -> Value {
    json!({ "action": action, "onPodConditions": [{ "type": "DisruptionTarget" }] })
}

/// The policy of `TestJobPodFailurePolicy`.
fn policy() -> Value {
    let rules = [on_disruption("Ignore"), on_exit_codes("Count", &[10]), on_exit_codes("FailJob", &[5, 6, 7])];
    json!({ "podFailurePolicy": { "rules": rules } })
}

fn indexed(completions: u32, fields: Value) -> Value {
    let mut spec = json!({ "completionMode": "Indexed", "completions": completions, "parallelism": completions });
    if let (Value::Object(spec), Value::Object(fields)) = (&mut spec, fields) {
        spec.extend(fields);
    }
    spec
}

both_doors!(the_first_rule_that_matches_says_what_a_failure_means);
async fn the_first_rule_that_matches_says_what_a_failure_means(stage: &Both) -> Result<()> {
    let operator = stage.operator().await?;
    let windows = json!({ "podFailurePolicy": { "rules": [on_exit_codes("FailJob", &[-1073741510, 137])] } });
    for (job, spec, exit_code) in [("fails", policy(), 5), ("windows", windows, -1073741510)] {
        stage.create(job, spec).await?;
        let pod = fails(stage, job, (0, 1), exit_code).await?;
        let ended = until_finished(stage, job).await;
        assert_eq!((counts(&ended), verdicts(&ended)), ([0, 1, 0, 0], failed_because("PodFailurePolicy")), "{job}");
        let rule = if job == "fails" { 2 } else { 0 };
        let namespace = &stage.stage.namespace.name;
        let expected = format!(
            "Container main for pod {namespace}/{} failed with exit code {exit_code} matching FailJob rule at index {rule}",
            name(&pod)
        );
        assert_eq!(message(stage, job, "Failed").await?, expected);
        until_let_go(stage, job).await;
    }

    for job in ["ignored", "counted", "no-rule"] {
        stage.create(job, policy()).await?;
        let n_failed = match job {
            "ignored" => {
                is_disrupted(stage, job, (0, 1)).await?;
                0
            }
            _ => {
                fails(stage, job, (0, 1), if job == "counted" { 10 } else { 1 }).await?;
                1
            }
        };
        until_counts(stage, job, [1, n_failed, 0, 0]).await;
        succeeds(stage, job, (0, 2)).await?;
        let ended = until_finished(stage, job).await;
        let expected = ([0, n_failed, 1, 0], complete_because("CompletionsReached"));
        assert_eq!((counts(&ended), verdicts(&ended)), expected, "{job}");
        until_let_go(stage, job).await;
    }

    for (action, n) in [("FailJob", 2.0), ("Ignore", 1.0), ("Count", 1.0)] {
        until_metric(&operator, BY_POLICY, &format!(r#"action="{action}""#), n).await;
    }
    until_metric(&operator, BY_POLICY, "", 4.0).await;
    until_metric(&operator, JOBS, &ended_as("NonIndexed", "failed", "PodFailurePolicy"), 2.0).await;
    until_metric(&operator, JOBS, &ended_as("NonIndexed", "succeeded", "CompletionsReached"), 3.0).await;
    Ok(())
}

both_doors!(a_failure_of_the_whole_job_is_seen_by_the_next_operator);
async fn a_failure_of_the_whole_job_is_seen_by_the_next_operator(stage: &Both) -> Result<()> {
    let operator = stage.operator().await?;
    stage.create("etl", policy()).await?;
    until_counts(stage, "etl", [1, 0, 0, 0]).await;
    operator.kill()?;
    fails(stage, "etl", (0, 1), 5).await?;

    let operator = stage.operator().await?;
    let ended = until_finished(stage, "etl").await;
    assert_eq!((counts(&ended), verdicts(&ended)), ([0, 1, 0, 0], failed_because("PodFailurePolicy")));
    until_let_go(stage, "etl").await;
    assert_eq!(stage.stage.pods_of("etl").await?.len(), 1, "no second attempt");
    until_metric(&operator, JOBS, &ended_as("NonIndexed", "failed", "PodFailurePolicy"), 1.0).await;
    Ok(())
}

both_doors!(the_cause_is_known_when_its_pod_is_gone);
/// The interim condition says what the job fails for, when the pod that it failed for is gone.
async fn the_cause_is_known_when_its_pod_is_gone(stage: &Both) -> Result<()> {
    let operator = stage.operator().await?;
    let mut spec = policy();
    (spec["completions"], spec["parallelism"]) = (json!(3), json!(3));
    stage.create("etl", spec).await?;
    for index in [0, 2] {
        stage.stage.running_pod("etl", index, 1).await?;
    }
    let pod = fails(stage, "etl", (1, 1), 5).await?;
    let failing = until_counts(stage, "etl", [0, 3, 0, 2]).await;
    assert_eq!(verdicts(&failing), ["FailureTarget: PodFailurePolicy"]);
    expect("the failed pod is let go", async || Ok((!is_held(&stage.stage.pods.get(name(&pod)).await?)).then_some(())))
        .await;
    operator.kill()?;
    let at_once = DeleteParams::default().grace_period(0);
    stage.stage.pods.delete(name(&pod), &at_once).await?;
    for index in [0, 2] {
        let pod = stage.stage.pod("etl", index, 1).await;
        stage.stage.kubelet.ends(&pod).await?;
    }
    stage.stage.until_pods("etl", "the failed one is gone", |pods| pods.len() == 2).await;

    let _operator = stage.operator().await?;
    let ended = until_finished(stage, "etl").await;
    assert_eq!((counts(&ended), verdicts(&ended)), ([0, 3, 0, 0], failed_because("PodFailurePolicy")));
    let message = message(stage, "etl", "Failed").await?;
    assert!(message.contains(name(&pod)), "{message}");
    stage.stage.until_pods("etl", "all are gone", <[Pod]>::is_empty).await;
    Ok(())
}

both_doors!(a_deleted_pod_is_judged_when_it_has_ended);
/// A pod that is being evicted has not failed yet, and when it has it is judged by what it was evicted for.
async fn a_deleted_pod_is_judged_when_it_has_ended(stage: &Both) -> Result<()> {
    let _operator = stage.operator().await?;
    let mut spec = policy();
    spec["backoffLimit"] = json!(0);
    stage.create("etl", spec).await?;
    let pod = stage.stage.running_pod("etl", 0, 1).await?;
    stage.stage.pods.delete(name(&pod), &DeleteParams::default()).await?;
    let leaving = until_counts(stage, "etl", [0, 0, 0, 1]).await;
    assert!(!leaving.is_decided());
    assert_eq!(stage.stage.pods_of("etl").await?.len(), 1, "it is not replaced yet");

    is_disrupted(stage, "etl", (0, 1)).await?;
    until_counts(stage, "etl", [1, 0, 0, 0]).await;
    succeeds(stage, "etl", (0, 2)).await?;
    let ended = until_finished(stage, "etl").await;
    assert_eq!((counts(&ended), verdicts(&ended)), ([0, 0, 1, 0], complete_because("CompletionsReached")));
    Ok(())
}

both_doors!(a_success_policy_is_met_by_index_or_by_number);
async fn a_success_policy_is_met_by_index_or_by_number(stage: &Both) -> Result<()> {
    let operator = stage.operator().await?;
    let rule = |rule| json!({ "successPolicy": { "rules": [rule] } });
    for (job, spec) in [
        ("all", indexed(1, rule(json!({ "succeededIndexes": "0" })))),
        ("by-index", indexed(2, rule(json!({ "succeededIndexes": "1" })))),
        ("by-number", indexed(2, rule(json!({ "succeededCount": 1 })))),
    ] {
        let last = if job == "all" { 0 } else { 1 };
        stage.create(job, spec).await?;
        until_counts(stage, job, [last + 1, 0, 0, 0]).await;
        succeeds(stage, job, (last.unsigned_abs(), 1)).await?;
        let ended = until_finished(stage, job).await;
        assert_eq!((counts(&ended), verdicts(&ended)), ([0, 0, 1, 0], complete_because("SuccessPolicy")), "{job}");
        assert_eq!(ended.completed_indexes, last.to_string(), "{job}");
        assert_eq!(message(stage, job, "Complete").await?, "Matched rules at index 0", "{job}");
        until_let_go(stage, job).await;
    }
    until_metric(&operator, JOBS, &ended_as("Indexed", "succeeded", "SuccessPolicy"), 3.0).await;
    Ok(())
}

both_doors!(what_a_success_policy_ends_is_no_failure);
async fn what_a_success_policy_ends_is_no_failure(stage: &Both) -> Result<()> {
    let _operator = stage.operator().await?;
    let policy = json!({ "successPolicy": { "rules": [{ "succeededIndexes": "1,2", "succeededCount": 1 }] } });
    stage.create("etl", indexed(3, policy)).await?;
    let mut pods = Vec::new();
    for index in 0..3 {
        pods.push(stage.stage.running_pod("etl", index, 1).await?);
    }
    stage.until("etl", "all are ready", |job| job.ready == 3).await;
    stage.stage.kubelet.succeeds(&pods[1]).await?;
    let met = until_counts(stage, "etl", [0, 0, 1, 2]).await;
    assert_eq!((verdicts(&met), met.ready), (vec!["SuccessCriteriaMet: SuccessPolicy".to_owned()], 0));
    stage.stage.kubelet.ends(&pods[0]).await?;
    let met = until_counts(stage, "etl", [0, 0, 1, 1]).await;
    assert_eq!(verdicts(&met), ["SuccessCriteriaMet: SuccessPolicy"], "one still ends");
    stage.stage.kubelet.ends(&pods[2]).await?;
    let ended = until_finished(stage, "etl").await;
    assert_eq!((counts(&ended), verdicts(&ended)), ([0, 0, 1, 0], complete_because("SuccessPolicy")));
    stage.stage.until_pods("etl", "the ended ones are gone", |pods| pods.len() == 1).await;
    Ok(())
}

both_doors!(failed_indexes_win_over_a_success_policy);
async fn failed_indexes_win_over_a_success_policy(stage: &Both) -> Result<()> {
    let _operator = stage.operator().await?;
    let policy = json!({ "backoffLimitPerIndex": 0, "successPolicy": { "rules": [{ "succeededCount": 1 }] } });
    stage.create("etl", indexed(2, policy)).await?;
    fails(stage, "etl", (0, 1), 1).await?;
    let one_failed = until_counts(stage, "etl", [1, 1, 0, 0]).await;
    assert_eq!(failed_indexes(&one_failed), "0");
    assert_eq!(active_indexes(stage, "etl").await?, [1]);
    succeeds(stage, "etl", (1, 1)).await?;
    let ended = until_finished(stage, "etl").await;
    assert_eq!((counts(&ended), verdicts(&ended)), ([0, 1, 1, 0], failed_because("FailedIndexes")));
    assert_eq!((&*ended.completed_indexes, failed_indexes(&ended)), ("1", "0"));
    Ok(())
}

both_doors!(each_index_has_its_own_retries_and_its_pods_are_told);
async fn each_index_has_its_own_retries_and_its_pods_are_told(stage: &Both) -> Result<()> {
    let _operator = stage.operator().await?;
    for (job, limit) in [("succeeds", 1), ("fails", 2)] {
        stage.create(job, indexed(2, json!({ "backoffLimitPerIndex": limit }))).await?;
        let first = stage.stage.pod(job, 0, 1).await;
        assert_eq!(annotation(&first, keys::INDEX_FAILURE_COUNT), Some("0"));
        let n_retried = limit;
        for attempt in 1..=n_retried {
            fails(stage, job, (0, attempt), 1).await?;
            let retried = until_counts(stage, job, [2, attempt.cast_signed(), 0, 0]).await;
            assert_eq!(failed_indexes(&retried), "");
            let next = stage.stage.pod(job, 0, attempt + 1).await;
            assert_eq!(annotation(&next, keys::INDEX_FAILURE_COUNT), Some(&*attempt.to_string()));
            assert_eq!(annotation(&next, keys::INDEX_IGNORED_FAILURE_COUNT), None);
        }
        assert_eq!(active_indexes(stage, job).await?, [0, 1]);
    }
    succeeds(stage, "succeeds", (0, 2)).await?;
    succeeds(stage, "succeeds", (1, 1)).await?;
    let ended = until_finished(stage, "succeeds").await;
    assert_eq!((counts(&ended), verdicts(&ended)), ([0, 1, 2, 0], complete_because("CompletionsReached")));

    fails(stage, "fails", (0, 3), 1).await?;
    let given_up = until_counts(stage, "fails", [1, 3, 0, 0]).await;
    assert_eq!(failed_indexes(&given_up), "0");
    assert_eq!(active_indexes(stage, "fails").await?, [1]);
    succeeds(stage, "fails", (1, 1)).await?;
    let ended = until_finished(stage, "fails").await;
    assert_eq!((counts(&ended), verdicts(&ended)), ([0, 3, 1, 0], failed_because("FailedIndexes")));
    Ok(())
}

both_doors!(the_limit_of_the_job_holds_beside_that_of_each_index);
async fn the_limit_of_the_job_holds_beside_that_of_each_index(stage: &Both) -> Result<()> {
    let _operator = stage.operator().await?;
    stage.create("etl", indexed(3, json!({ "backoffLimitPerIndex": 1, "backoffLimit": 2 }))).await?;
    for index in 0..2 {
        fails(stage, "etl", (index, 1), 1).await?;
        until_counts(stage, "etl", [3, index.cast_signed() + 1, 0, 0]).await;
        assert_eq!(active_indexes(stage, "etl").await?, [0, 1, 2]);
    }
    fails(stage, "etl", (2, 1), 1).await?;
    // Two attempts were under way, which now fail with it.
    let ended = until_finished(stage, "etl").await;
    assert_eq!((counts(&ended), verdicts(&ended)), ([0, 5, 0, 0], failed_because("BackoffLimitExceeded")));
    assert_eq!(failed_indexes(&ended), "");
    Ok(())
}

both_doors!(one_failed_index_too_many_ends_the_job);
async fn one_failed_index_too_many_ends_the_job(stage: &Both) -> Result<()> {
    let _operator = stage.operator().await?;
    stage.create("etl", indexed(4, json!({ "backoffLimitPerIndex": 0, "maxFailedIndexes": 1 }))).await?;
    let running = stage.stage.running_pod("etl", 3, 1).await?;
    succeeds(stage, "etl", (2, 1)).await?;
    fails(stage, "etl", (0, 1), 1).await?;
    let one_failed = until_counts(stage, "etl", [2, 1, 1, 0]).await;
    assert_eq!(failed_indexes(&one_failed), "0");
    assert_eq!(active_indexes(stage, "etl").await?, [1, 3]);

    fails(stage, "etl", (1, 1), 1).await?;
    let failing = until_counts(stage, "etl", [0, 3, 1, 1]).await;
    assert_eq!(verdicts(&failing), ["FailureTarget: MaxFailedIndexesExceeded"]);
    stage.stage.kubelet.ends(&running).await?;
    let ended = until_finished(stage, "etl").await;
    assert_eq!((counts(&ended), verdicts(&ended)), ([0, 3, 1, 0], failed_because("MaxFailedIndexesExceeded")));
    assert_eq!((&*ended.completed_indexes, failed_indexes(&ended)), ("2", "0,1"));
    Ok(())
}

both_doors!(fail_index_fails_the_index_without_another_attempt);
async fn fail_index_fails_the_index_without_another_attempt(stage: &Both) -> Result<()> {
    let operator = stage.operator().await?;
    let rules = [on_exit_codes("FailIndex", &[13]), on_disruption("FailIndex")];
    let spec = indexed(3, json!({ "backoffLimitPerIndex": 1, "podFailurePolicy": { "rules": rules } }));
    stage.create("etl", spec).await?;
    fails(stage, "etl", (0, 1), 13).await?;
    let one_failed = until_counts(stage, "etl", [2, 1, 0, 0]).await;
    assert_eq!(failed_indexes(&one_failed), "0");
    is_disrupted(stage, "etl", (1, 1)).await?;
    until_counts(stage, "etl", [1, 2, 0, 0]).await;
    // One that no rule matches is tried again.
    fails(stage, "etl", (2, 1), 1).await?;
    let retried = until_counts(stage, "etl", [1, 3, 0, 0]).await;
    assert_eq!(failed_indexes(&retried), "0,1");
    succeeds(stage, "etl", (2, 2)).await?;
    let ended = until_finished(stage, "etl").await;
    assert_eq!((counts(&ended), verdicts(&ended)), ([0, 3, 1, 0], failed_because("FailedIndexes")));
    assert_eq!(stage.stage.pods_of("etl").await?.len(), 4, "no second attempt of indexes 0 and 1");
    until_metric(&operator, BY_POLICY, r#"action="FailIndex""#, 2.0).await;
    Ok(())
}

both_doors!(the_delays_of_each_index_grow_by_its_own_failures);
/// Each delay counts from the end of the attempt before it, so a failure of some seconds ago leaves the rest of it.
async fn the_delays_of_each_index_grow_by_its_own_failures(stage: &Both) -> Result<()> {
    let _operator = stage.operator().await?;
    stage.create("etl", indexed(2, json!({ "backoffLimitPerIndex": 2 }))).await?;
    for (index, attempt, seconds) in [(0, 1, 10), (0, 2, 20), (1, 1, 10)] {
        let delay = Duration::from_secs(seconds);
        let pod = stage.stage.pod("etl", index, attempt).await;
        let ended = stage.stage.kubelet.fails(&pod, 1, delay - Duration::from_secs(3)).await?;
        stage.until("etl", "one waits", |job| job.active == 1).await;
        let next = stage.stage.pod("etl", index, attempt + 1).await;
        let created = next.metadata.creation_timestamp.context("a time")?.0;
        let waited = created.duration_since(ended).as_secs();
        assert!((seconds.cast_signed()..seconds.cast_signed() + 5).contains(&waited), "{index}-{attempt}: {waited} s");
    }
    succeeds(stage, "etl", (0, 3)).await?;
    succeeds(stage, "etl", (1, 2)).await?;
    let ended = until_finished(stage, "etl").await;
    assert_eq!((counts(&ended), verdicts(&ended)), ([0, 3, 2, 0], complete_because("CompletionsReached")));
    Ok(())
}

both_doors!(the_failures_of_an_index_are_known_without_its_pods);
/// Kubernetes' own controller keeps the failed pod for this; here it may be deleted, and the operator killed.
async fn the_failures_of_an_index_are_known_without_its_pods(stage: &Both) -> Result<()> {
    let operator = stage.operator().await?;
    let rules = [on_disruption("Ignore")];
    stage
        .create("etl", indexed(1, json!({ "backoffLimitPerIndex": 1, "podFailurePolicy": { "rules": rules } })))
        .await?;
    is_disrupted(stage, "etl", (0, 1)).await?;
    let second = stage.stage.pod("etl", 0, 2).await;
    let told = |pod: &Pod| {
        [keys::INDEX_FAILURE_COUNT, keys::INDEX_IGNORED_FAILURE_COUNT]
            .map(|key| annotation(pod, key).map(str::to_owned))
    };
    assert_eq!(told(&second), [Some("0".to_owned()), Some("1".to_owned())]);

    // The second failure, of which the first is ignored, leaves a delay of 20 s, and 3 s of it.
    stage.stage.kubelet.fails(&second, 1, Duration::from_secs(17)).await?;
    until_counts(stage, "etl", [0, 1, 0, 0]).await;
    for attempt in [1, 2] {
        let pod = stage.stage.pod("etl", 0, attempt).await;
        stage.stage.pods.delete(name(&pod), &DeleteParams::default().grace_period(0)).await?;
    }
    stage.stage.until_pods("etl", "none is left", <[Pod]>::is_empty).await;
    operator.kill()?;

    let _operator = stage.operator().await?;
    let third = stage.stage.pod("etl", 0, 3).await;
    assert_eq!(told(&third), [Some("1".to_owned()), Some("1".to_owned())]);
    assert_eq!(attempt_of(&third), Some(3));
    succeeds(stage, "etl", (0, 3)).await?;
    let ended = until_finished(stage, "etl").await;
    assert_eq!((counts(&ended), verdicts(&ended)), ([0, 1, 1, 0], complete_because("CompletionsReached")));
    Ok(())
}
