//! The policies on a node: real exit codes, evictions, signals and restarts. Each is asked of a BatchJob and of a
//! managed Job.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use batchjob_crd::{BatchJob, condition, keys};
use batchjob_oracle::standing::Standing;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{DeleteParams, EvictParams, PostParams};
use serde_json::{Value, json};

use crate::installed::shared;
use crate::story::{Story, container, phase, script, tell};

/// A kind of job, and the name of its jobs: their pods are found by it.
const KINDS: [&str; 2] = ["batchjob", "job"];

/// A job of that kind, named after it.
async fn create(story: &Story<'_>, kind: &str, spec: &Value) -> Result<()> {
    if kind == "batchjob" {
        return story.create(kind, spec.clone()).await;
    }
    let mut spec = spec.clone();
    spec["managedBy"] = json!(keys::MANAGED_BY);
    let job = json!({ "apiVersion": "batch/v1", "kind": "Job", "metadata": { "name": kind }, "spec": spec });
    jobs(story).create(&PostParams::default(), &serde_json::from_value::<Job>(job)?).await.context("create the Job")?;
    Ok(())
}

/// One of each kind.
async fn create_both(story: &Story<'_>, spec: &Value) -> Result<()> {
    for kind in KINDS {
        create(story, kind, spec).await?;
    }
    Ok(())
}

fn jobs(story: &Story<'_>) -> Api<Job> {
    Api::namespaced(story.pods.clone().into_client(), story.jobs.namespace().unwrap_or("default"))
}

async fn standing(story: &Story<'_>, kind: &str) -> Result<Standing> {
    Ok(match kind {
        "batchjob" => Standing::from(&story.jobs.get(kind).await? as &BatchJob),
        _ => Standing::from(&jobs(story).get(kind).await?),
    })
}

/// Waits until it is over, and wants it to have ended in that way, for that reason, with no pod left at work.
async fn ended(story: &Story<'_>, kind: &str, as_: &str, because: &str) -> Result<Standing> {
    let job = story
        .until(&format!("the {kind} is over"), 90, async || {
            Ok(Some(standing(story, kind).await?).filter(Standing::is_finished))
        })
        .await?;
    let is_so = |found: &&batchjob_oracle::standing::Condition| found.type_ == as_ && found.is_true;
    let found = job.conditions.iter().find(is_so).with_context(|| format!("{kind} is not {as_}: {job:#?}"))?;
    ensure!(found.reason == because, "{kind}: {found:?}");
    assert_eq!((job.active, job.ready, job.terminating), (0, 0, 0), "{kind}");
    Ok(job)
}

/// The first attempt of that index, as soon as it runs.
async fn running(story: &Story<'_>, job: &str, index: u32) -> Result<Pod> {
    story
        .until(&format!("index {index} of {job} runs"), 60, async || {
            Ok(story.attempts(job).await?.remove(&(index, 1)).filter(|pod| phase(pod) == "Running"))
        })
        .await
}

/// Waits until these attempts have left a pod and no other has: the kubelet removes a deleted pod a moment after its
/// end.
async fn only(story: &Story<'_>, job: &str, expected: &[(u32, u32)]) -> Result<BTreeMap<(u32, u32), Pod>> {
    story
        .until(&format!("only {expected:?} of {job} are left"), 30, async || {
            Ok(Some(story.attempts(job).await?).filter(|attempts| attempts.keys().eq(expected)))
        })
        .await
}

fn exit_code(pod: &Pod) -> Option<i32> {
    Some(container(pod)?.state.as_ref()?.terminated.as_ref()?.exit_code)
}

fn name(pod: &Pod) -> Result<&str> {
    pod.metadata.name.as_deref().context("a pod has a name")
}

fn on_exit_code(action: &str, code: i32) -> Value {
    json!({ "rules": [{ "action": action, "onExitCodes": { "operator": "In", "values": [code] } }] })
}

/// Runs until it is told to go.
const FOR_EVER: &str = "trap 'exit 1' TERM; sleep 1000 & wait";

#[tokio::test]
async fn an_exit_code_fails_the_job_and_ends_its_other_pods() -> Result<()> {
    tell(shared().await?, "fail-job", async |story| {
        let ready = "until [ -e /go ]; do sleep 0.2; done; exit 42";
        let mut spec = script("Never", &format!("[ $JOB_COMPLETION_INDEX = 0 ] || {{ {FOR_EVER}; }}; {ready}"));
        spec["completionMode"] = json!("Indexed");
        (spec["completions"], spec["parallelism"]) = (json!(2), json!(2));
        spec["podFailurePolicy"] = on_exit_code("FailJob", 42);
        create_both(story, &spec).await?;
        for kind in KINDS {
            running(story, kind, 1).await?;
            let failing = running(story, kind, 0).await?;
            story.kubectl.run(&["exec", name(&failing)?, "--", "touch", "/go"])?;
        }
        for kind in KINDS {
            let job = ended(story, kind, condition::FAILED, "PodFailurePolicy").await?;
            assert_eq!((job.failed, job.succeeded), (2, 0), "{kind}");
            let failed = &only(story, kind, &[(0, 1)]).await?[&(0, 1)];
            assert_eq!(exit_code(failed), Some(42));
            let column = r#"jsonpath={.status.conditions[?(@.type=="Failed")].message}"#;
            let message = story.kubectl.run(&["get", kind, kind, "--output", column])?;
            let pod = format!("{}/{}", story.jobs.namespace().unwrap_or_default(), name(failed)?);
            let expected =
                format!("Container main for pod {pod} failed with exit code 42 matching FailJob rule at index 0");
            assert_eq!(message, expected, "{kind}");
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn an_exit_code_that_is_ignored_is_retried_beyond_the_limit() -> Result<()> {
    tell(shared().await?, "ignore-code", async |story| {
        let mut spec = script("Never", r#"[ "$ATTEMPT" -ge 2 ] || exit 13"#);
        spec["completionMode"] = json!("Indexed");
        (spec["completions"], spec["parallelism"]) = (json!(2), json!(2));
        spec["backoffLimit"] = json!(0);
        spec["podFailurePolicy"] = on_exit_code("Ignore", 13);
        create_both(story, &spec).await?;
        for kind in KINDS {
            let job = ended(story, kind, condition::COMPLETE, "CompletionsReached").await?;
            assert_eq!((job.succeeded, job.failed, &*job.completed_indexes), (2, 0, "0,1"), "{kind}");
            let attempts = story.attempts(kind).await?;
            let codes: Vec<_> = attempts.iter().map(|(&id, pod)| (id, exit_code(pod))).collect();
            let expected = [((0, 1), Some(13)), ((0, 2), Some(0)), ((1, 1), Some(13)), ((1, 2), Some(0))];
            assert_eq!(codes, expected, "{kind}");
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn an_eviction_that_is_ignored_is_retried_beyond_the_limit() -> Result<()> {
    tell(shared().await?, "ignore-eviction", async |story| {
        let mut spec = script("Never", &format!(r#"[ "$ATTEMPT" -ge 2 ] || {{ {FOR_EVER}; }}"#));
        spec["backoffLimit"] = json!(0);
        spec["podFailurePolicy"] =
            json!({ "rules": [{ "action": "Ignore", "onPodConditions": [{ "type": "DisruptionTarget" }] }] });
        create_both(story, &spec).await?;
        for kind in KINDS {
            let pod = running(story, kind, 0).await?;
            story.pods.evict(name(&pod)?, &EvictParams::default()).await.context("evict it")?;
        }
        for kind in KINDS {
            let job = ended(story, kind, condition::COMPLETE, "CompletionsReached").await?;
            assert_eq!((job.succeeded, job.failed), (1, 0), "{kind}");
            only(story, kind, &[(0, 2)]).await?;
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn what_still_runs_when_the_named_indexes_have_succeeded_is_ended() -> Result<()> {
    tell(shared().await?, "enough", async |story| {
        let mut spec = script("Never", &format!("[ $JOB_COMPLETION_INDEX = 1 ] || {{ {FOR_EVER}; }}"));
        spec["completionMode"] = json!("Indexed");
        (spec["completions"], spec["parallelism"]) = (json!(3), json!(3));
        spec["successPolicy"] = json!({ "rules": [{ "succeededIndexes": "1" }] });
        create_both(story, &spec).await?;
        for kind in KINDS {
            let job = ended(story, kind, condition::COMPLETE, "SuccessPolicy").await?;
            assert_eq!((job.succeeded, job.failed, &*job.completed_indexes), (1, 0, "1"), "{kind}");
            only(story, kind, &[(1, 1)]).await?;
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn every_index_has_its_own_retries() -> Result<()> {
    tell(shared().await?, "per-index", async |story| {
        let mut spec = script("Never", "[ $((JOB_COMPLETION_INDEX % 2)) = 0 ]");
        spec["completionMode"] = json!("Indexed");
        (spec["completions"], spec["parallelism"]) = (json!(4), json!(2));
        spec["backoffLimitPerIndex"] = json!(1);
        create_both(story, &spec).await?;
        for kind in KINDS {
            let job = ended(story, kind, condition::FAILED, "FailedIndexes").await?;
            assert_eq!((job.succeeded, job.failed), (2, 4), "{kind}");
            assert_eq!((&*job.completed_indexes, job.failed_indexes.as_deref()), ("0,2", Some("1,3")), "{kind}");
            let attempts = story.attempts(kind).await?;
            let expected = [(0, 1), (1, 1), (1, 2), (2, 1), (3, 1), (3, 2)];
            assert_eq!(attempts.keys().copied().collect::<Vec<_>>(), expected, "{kind}");
            let told = attempts[&(3, 2)].metadata.annotations.as_ref().context("annotations")?;
            assert_eq!(told.get(keys::INDEX_FAILURE_COUNT).map(String::as_str), Some("1"), "{kind}");
        }
        Ok(())
    })
    .await
}

/// A container may have rules of its own by which the kubelet restarts it, though the pod's policy is Never (KEP-5307).
#[tokio::test]
async fn a_restart_by_the_containers_own_rules_is_no_failure() -> Result<()> {
    tell(shared().await?, "own-rules", async |story| {
        let mut spec = script("Never", "[ -e /past/run ] || { touch /past/run; exit 42; }");
        let pod = &mut spec["template"]["spec"];
        pod["volumes"] = json!([{ "name": "past", "emptyDir": {} }]);
        pod["containers"][0]["volumeMounts"] = json!([{ "name": "past", "mountPath": "/past" }]);
        pod["containers"][0]["restartPolicy"] = json!("Never");
        pod["containers"][0]["restartPolicyRules"] =
            json!([{ "action": "Restart", "exitCodes": { "operator": "In", "values": [42] } }]);
        spec["backoffLimit"] = json!(0);
        spec["podFailurePolicy"] = on_exit_code("FailJob", 42);
        create_both(story, &spec).await?;
        for kind in KINDS {
            let job = ended(story, kind, condition::COMPLETE, "CompletionsReached").await?;
            assert_eq!((job.succeeded, job.failed), (1, 0), "{kind}");
            let attempts = story.attempts(kind).await?;
            let restarts: Vec<_> = attempts.values().map(|pod| container(pod).map(|it| it.restart_count)).collect();
            assert_eq!(restarts, [Some(1)], "{kind}: one pod, restarted once");
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn with_pod_replacement_policy_failed_a_deleted_pod_is_replaced_when_it_has_ended() -> Result<()> {
    tell(shared().await?, "replacement", async |story| {
        // It ends when the test lets it.
        let slowly = "trap 'until [ -e /go ]; do sleep 0.2; done; exit 1' TERM; sleep 1000 & wait";
        let mut spec = script("Never", &format!(r#"[ "$ATTEMPT" -ge 2 ] || {{ {slowly}; }}; {FOR_EVER}"#));
        spec["podReplacementPolicy"] = json!("Failed");
        spec["backoffLimit"] = json!(1);
        spec["template"]["spec"]["terminationGracePeriodSeconds"] = json!(60);
        create_both(story, &spec).await?;
        for kind in KINDS {
            let pod = running(story, kind, 0).await?;
            story.pods.delete(name(&pod)?, &DeleteParams::default()).await?;
            let counts = |job: &Standing| (job.active, job.terminating, job.failed);
            let until = async |expected| {
                let what = format!("active, terminating, failed of the {kind} are {expected:?}");
                story
                    .until(&what, 60, async || Ok((counts(&standing(story, kind).await?) == expected).then_some(())))
                    .await
            };
            until((0, 1, 0)).await?;
            assert_eq!(story.attempts(kind).await?.len(), 1, "{kind}: it is not replaced yet");
            story.kubectl.run(&["exec", name(&pod)?, "--", "touch", "/go"])?;
            until((1, 0, 1)).await?;
            only(story, kind, &[(0, 2)]).await?;
        }
        Ok(())
    })
    .await
}
