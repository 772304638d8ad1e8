//! A job is suspended and resumed, and what of its pods may be changed meanwhile.

use anyhow::{Context, Result};
use batchjob_crd::{condition, reason};
use batchjob_oracle::standing::Standing;
use batchjob_tests::support::Operator;
use k8s_openapi::api::core::v1::Pod;
use kube::api::DynamicObject;
use serde_json::{Value, json};

use crate::both::{Both, Counts, both_doors};
use crate::kubelet::End;
use crate::stage::{attempts, is_told};

const NONE: Counts = Counts { active: 0, ready: 0, terminating: 0, succeeded: 0, failed: 0 };

fn suspend(is_suspended: bool) -> Value {
    json!({ "spec": { "suspend": is_suspended } })
}

/// The condition Suspended, as "True(JobSuspended)".
fn suspended(job: &Standing) -> Option<String> {
    let found = job.conditions.iter().find(|found| found.type_ == condition::SUSPENDED)?;
    Some(format!("{}({})", if found.is_true { "True" } else { "False" }, found.reason))
}

fn is_suspended(job: &Standing) -> bool {
    job.is(condition::SUSPENDED)
}

both_doors!(suspended_it_stops_and_resumed_it_goes_on);

async fn suspended_it_stops_and_resumed_it_goes_on(stage: &Both) -> Result<()> {
    let _operator = stage.operator().await?;
    stage.create("etl", json!({ "completions": 4, "parallelism": 2, "backoffLimit": 0 })).await?;
    let pods = [stage.stage.running_pod("etl", 0, 1).await?, stage.stage.running_pod("etl", 1, 1).await?];
    let job = stage.until_counts("etl", Counts { active: 2, ready: 2, ..NONE }).await;
    assert_eq!(suspended(&job), None);
    let started = job.start_time.context("it has started")?;

    stage.change("etl", suspend(true)).await?;
    let job = stage.until_counts("etl", Counts { terminating: 2, ..NONE }).await;
    assert_eq!(suspended(&job).as_deref(), Some("True(JobSuspended)"), "at once");
    assert_eq!(job.start_time, None);
    stage.until_event("etl", "Suspended").await;
    for pod in &pods {
        stage.stage.kubelet.ends(pod).await?;
    }
    stage.until_counts("etl", NONE).await;
    stage.stage.until_pods("etl", "they are gone", |pods| pods.is_empty()).await;

    stage.change("etl", suspend(false)).await?;
    let job = stage.until_counts("etl", Counts { active: 2, ..NONE }).await;
    assert_eq!(suspended(&job).as_deref(), Some("False(JobResumed)"));
    assert!(job.start_time >= Some(started), "its time counts anew");
    stage.until_event("etl", "Resumed").await;
    assert_eq!(attempts(&stage.stage.pods_of("etl").await?), ["0-2", "1-2"]);

    let _kubelet = stage.stage.kubelet.plays(|_| End::Success);
    let job = stage.until_over("etl").await;
    assert_eq!(Counts::from(&job), Counts { succeeded: 4, ..NONE });
    assert!(job.is(condition::COMPLETE));
    Ok(())
}

both_doors!(suspended_when_all_that_is_needed_is_done_it_is_complete);

/// A worker has said that the queue is empty, and the other one is stopped.
async fn suspended_when_all_that_is_needed_is_done_it_is_complete(stage: &Both) -> Result<()> {
    let _operator = stage.operator().await?;
    stage.create("queue", json!({ "parallelism": 2 })).await?;
    let workers = [stage.stage.running_pod("queue", 0, 1).await?, stage.stage.running_pod("queue", 1, 1).await?];
    stage.stage.kubelet.succeeds(&workers[0]).await?;
    let started = stage.until_counts("queue", Counts { active: 1, ready: 1, succeeded: 1, ..NONE }).await.start_time;
    stage.change("queue", suspend(true)).await?;
    let job = stage.until_counts("queue", Counts { terminating: 1, succeeded: 1, ..NONE }).await;
    assert!(job.is(condition::SUCCESS_CRITERIA_MET) && !job.is_finished(), "{job:?}");
    stage.stage.kubelet.ends(&workers[1]).await?;
    let job = stage.until_over("queue").await;
    assert!(job.is(condition::COMPLETE));
    assert_eq!(Counts::from(&job), Counts { succeeded: 1, ..NONE });
    assert_eq!((suspended(&job), job.start_time), (None, started), "it has never been suspended");
    Ok(())
}

both_doors!(created_suspended_it_waits_also_for_the_next_operator);

async fn created_suspended_it_waits_also_for_the_next_operator(stage: &Both) -> Result<()> {
    let operator = stage.operator().await?;
    stage.create("etl", json!({ "completions": 4, "parallelism": 2, "suspend": true })).await?;
    let before = stage.until("etl", "it is suspended", is_suspended).await;
    assert_eq!((Counts::from(&before), before.start_time), (NONE, None));
    stage.until_event("etl", "Suspended").await;
    operator.kill()?;

    let operator = stage.operator().await?;
    stage.look_again(&operator, "etl").await?;
    assert_eq!(stage.standing("etl").await?, before);
    assert_eq!(stage.stage.pods_of("etl").await?.len(), 0);

    stage.change("etl", suspend(false)).await?;
    let job = stage.until_counts("etl", Counts { active: 2, ..NONE }).await;
    assert_eq!(suspended(&job).as_deref(), Some("False(JobResumed)"));
    assert!(job.start_time.is_some());
    stage.until_event("etl", "Resumed").await;
    let _kubelet = stage.stage.kubelet.plays(|_| End::Success);
    let job = stage.until_over("etl").await;
    assert_eq!(Counts::from(&job), Counts { succeeded: 4, ..NONE });
    Ok(())
}

both_doors!(suspended_with_nothing_to_do_it_is_complete);

async fn suspended_with_nothing_to_do_it_is_complete(stage: &Both) -> Result<()> {
    let _operator = stage.operator().await?;
    stage.create("etl", json!({ "completions": 0, "suspend": true })).await?;
    let job = stage.until_over("etl").await;
    let of_all: Vec<_> = job.conditions.iter().map(|found| (&*found.type_, found.is_true, &*found.reason)).collect();
    assert_eq!(
        of_all,
        [
            (condition::COMPLETE, true, reason::COMPLETIONS_REACHED),
            (condition::SUCCESS_CRITERIA_MET, true, reason::COMPLETIONS_REACHED),
        ]
    );
    assert_eq!((Counts::from(&job), job.start_time), (NONE, None));
    Ok(())
}

/// All that says where a pod may run; only the node affinity of what `affinity` holds, as a Job has it.
fn directives() -> Value {
    let expression = json!({ "key": "disk", "operator": "In", "values": ["ssd"] });
    json!({
        "metadata": { "labels": { "team": "blue" }, "annotations": { "note": "moved" } },
        "spec": {
            "nodeSelector": { "zone": "a" },
            "tolerations": [{ "key": "spot", "operator": "Exists" }],
            "affinity": { "nodeAffinity": { "requiredDuringSchedulingIgnoredDuringExecution": {
                "nodeSelectorTerms": [{ "matchExpressions": [expression] }] } } },
            "schedulingGates": [{ "name": "example.com/quota" }],
        },
    })
}

fn has_directives(pod: &Pod) -> bool {
    let pod = serde_json::to_value(pod).expect("a pod is JSON");
    let is_within = |wanted: &Value, found: &Value| {
        let wanted = wanted.as_object().into_iter().flatten();
        wanted.into_iter().all(|(name, value)| found[name] == *value || includes(&found[name], value))
    };
    let wanted = directives();
    is_within(&wanted["metadata"], &pod["metadata"]) && is_within(&wanted["spec"], &pod["spec"])
}

/// What was there already stays beside it: other labels, and the tolerations that every pod gets.
fn includes(found: &Value, wanted: &Value) -> bool {
    match (found, wanted) {
        (Value::Object(found), Value::Object(wanted)) => {
            wanted.iter().all(|(name, value)| found.get(name) == Some(value))
        }
        (Value::Array(found), Value::Array(wanted)) => wanted.iter().all(|value| found.contains(value)),
        _ => false,
    }
}

/// The change is refused, and what is said names the template.
async fn refuses(stage: &Both, job: &str, template: &Value) -> Result<()> {
    match stage.change(job, json!({ "spec": { "template": template } })).await {
        Ok(taken) => panic!("{template} is taken: {}", serde_json::to_string(&taken)?),
        Err(error) => {
            let said = format!("{error:#}");
            assert!(said.contains("spec.template"), "{said}");
            Ok(())
        }
    }
}

async fn take(stage: &Both, job: &str, template: &Value) -> Result<DynamicObject> {
    stage.change(job, json!({ "spec": { "template": template } })).await
}

both_doors!(started_and_suspended_it_may_be_sent_elsewhere);

async fn started_and_suspended_it_may_be_sent_elsewhere(stage: &Both) -> Result<()> {
    let _operator = stage.operator().await?;
    stage.create("etl", json!({ "completions": 2, "parallelism": 1 })).await?;
    let pod = stage.stage.running_pod("etl", 0, 1).await?;
    stage.until_counts("etl", Counts { active: 1, ready: 1, ..NONE }).await;
    refuses(stage, "etl", &directives()).await?;

    stage.change("etl", suspend(true)).await?;
    stage.stage.until_pods("etl", "it is told to go", |pods| pods.iter().all(is_told)).await;
    stage.stage.kubelet.ends(&pod).await?;
    let job = stage.until_counts("etl", NONE).await;
    assert_eq!((suspended(&job).as_deref(), job.start_time), (Some("True(JobSuspended)"), None));
    take(stage, "etl", &directives()).await?;

    stage.change("etl", suspend(false)).await?;
    let next = stage.stage.pod("etl", 0, 2).await;
    assert!(has_directives(&next), "{next:?}");
    stage.until_counts("etl", Counts { active: 1, ..NONE }).await;
    refuses(stage, "etl", &json!({ "spec": { "nodeSelector": { "zone": "b" } } })).await
}

both_doors!(not_yet_stopped_it_may_not_be_sent_elsewhere);

/// The spec alone says nothing: nobody has told the pods yet.
async fn not_yet_stopped_it_may_not_be_sent_elsewhere(stage: &Both) -> Result<()> {
    let operator = stage.operator().await?;
    stage.create("etl", json!({})).await?;
    stage.until_counts("etl", Counts { active: 1, ..NONE }).await;
    operator.kill()?;
    stage.change("etl", suspend(true)).await?;
    refuses(stage, "etl", &directives()).await?;
    refuses(stage, "etl", &resources("200m")).await?;
    let _operator = stage.operator().await?;
    stage.until_counts("etl", NONE).await;
    take(stage, "etl", &directives()).await?;
    take(stage, "etl", &resources("200m")).await?;
    Ok(())
}

both_doors!(resumed_and_sent_elsewhere_in_one_change);

async fn resumed_and_sent_elsewhere_in_one_change(stage: &Both) -> Result<()> {
    let _operator = stage.operator().await?;
    stage.create("etl", json!({ "parallelism": 1, "suspend": true })).await?;
    stage.until("etl", "it is suspended", is_suspended).await;
    let selector = |zone: &str| json!({ "spec": { "nodeSelector": { "zone": zone } } });
    stage.change("etl", json!({ "spec": { "suspend": false, "template": selector("a") } })).await?;
    let pod = stage.stage.pod("etl", 0, 1).await;
    let chosen = pod.spec.and_then(|spec| spec.node_selector).context("a node selector")?;
    assert_eq!(chosen.into_iter().collect::<Vec<_>>(), [("zone".to_owned(), "a".to_owned())]);
    refuses(stage, "etl", &selector("b")).await
}

both_doors!(not_yet_seen_it_may_be_changed);

/// Queueing systems write where a job shall run at once, before any operator has seen it.
async fn not_yet_seen_it_may_be_changed(stage: &Both) -> Result<()> {
    stage.create("etl", json!({ "suspend": true })).await?;
    take(stage, "etl", &directives()).await?;
    take(stage, "etl", &resources("200m")).await?;
    let _operator = stage.operator().await?;
    stage.until("etl", "it is suspended", is_suspended).await;
    stage.change("etl", suspend(false)).await?;
    let pod = stage.stage.pod("etl", 0, 1).await;
    assert!(has_directives(&pod), "{pod:?}");
    assert_eq!(cpu(&pod), Some(("200m".to_owned(), "200m".to_owned())));
    Ok(())
}

/// The template's container with so much of a CPU.
fn resources(cpu: &str) -> Value {
    let resources = json!({ "requests": { "cpu": cpu }, "limits": { "cpu": cpu } });
    json!({ "spec": { "containers": [{ "name": "main", "image": "none", "resources": resources }] } })
}

/// What the container of a pod requests, and its limit.
fn cpu(pod: &Pod) -> Option<(String, String)> {
    let resources = pod.spec.as_ref()?.containers[0].resources.as_ref()?;
    Some((resources.requests.as_ref()?["cpu"].0.clone(), resources.limits.as_ref()?["cpu"].0.clone()))
}

both_doors!(resources_change_only_while_it_is_suspended);

async fn resources_change_only_while_it_is_suspended(stage: &Both) -> Result<()> {
    let operator = stage.operator().await?;
    stage.create("running", json!({})).await?;
    let pod = stage.stage.running_pod("running", 0, 1).await?;
    stage.until_counts("running", Counts { active: 1, ready: 1, ..NONE }).await;
    refuses(stage, "running", &resources("200m")).await?;
    stage.look_again(&operator, "running").await?;
    assert_eq!(cpu(&stage.stage.pod("running", 0, 1).await), None);

    stage.change("running", suspend(true)).await?;
    stage.stage.until_pods("running", "it is told to go", |pods| pods.iter().all(is_told)).await;
    stage.stage.kubelet.ends(&pod).await?;
    stage.until_counts("running", NONE).await;
    take(stage, "running", &resources("300m")).await?;
    stage.change("running", suspend(false)).await?;
    assert_eq!(cpu(&stage.stage.pod("running", 0, 2).await), Some(("300m".to_owned(), "300m".to_owned())));

    stage.create("waiting", json!({ "suspend": true })).await?;
    stage.until("waiting", "it is suspended", is_suspended).await;
    take(stage, "waiting", &resources("200m")).await?;
    // Nothing else of the container.
    let image = json!({ "spec": { "containers": [{ "name": "main", "image": "another" }] } });
    refuses(stage, "waiting", &image).await?;
    stage.change("waiting", suspend(false)).await?;
    assert_eq!(cpu(&stage.stage.pod("waiting", 0, 1).await), Some(("200m".to_owned(), "200m".to_owned())));
    Ok(())
}

both_doors!(resources_change_while_the_stopped_pods_still_end);

/// No pod is active by then, and with podReplacementPolicy Failed none is started before the stopped ones have ended.
async fn resources_change_while_the_stopped_pods_still_end(stage: &Both) -> Result<()> {
    let operator: Operator = stage.operator().await?;
    let spec = json!({ "completions": 2, "parallelism": 2, "podReplacementPolicy": "Failed" });
    stage.create("etl", spec).await?;
    let pods = [stage.stage.running_pod("etl", 0, 1).await?, stage.stage.running_pod("etl", 1, 1).await?];
    stage.until_counts("etl", Counts { active: 2, ready: 2, ..NONE }).await;
    stage.change("etl", suspend(true)).await?;
    stage.until_counts("etl", Counts { terminating: 2, ..NONE }).await;
    take(stage, "etl", &resources("300m")).await?;
    stage.change("etl", suspend(false)).await?;
    stage.until("etl", "it is resumed", |job| suspended(job).as_deref() == Some("False(JobResumed)")).await;
    stage.look_again(&operator, "etl").await?;
    assert_eq!(Counts::from(&stage.standing("etl").await?), Counts { terminating: 2, ..NONE });
    assert_eq!(attempts(&stage.stage.pods_of("etl").await?), ["0-1", "1-1"], "the stopped ones");

    for pod in &pods {
        stage.stage.kubelet.ends(pod).await?;
    }
    stage.until_counts("etl", Counts { active: 2, ..NONE }).await;
    let next = stage.stage.until_living("etl", 2).await;
    assert_eq!(attempts(&next), ["0-2", "1-2"]);
    assert!(next.iter().all(|pod| cpu(pod) == Some(("300m".to_owned(), "300m".to_owned()))), "{next:?}");
    Ok(())
}
