//! Bad data on the real API server: the odd pods of `crates/operator/tests/odd/pods.yaml`, as far as the API server takes
//! them, and statuses and ledgers that somebody has forged.

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Context, Result, ensure};
use batchjob_crd::keys;
use batchjob_tests::corruption::stored::{Damage, Kind, Stored};
use batchjob_tests::support::{Etcd, Operator};
use futures::future::try_join_all;
use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::both::{Both, Door, both_doors};
use crate::kubelet::{End, name, phase};
use crate::stage::{
    attempt_of, expect, is_finished, is_held, kubernetes, merged, metric, repository, status, template,
};

/// A row of the table; what else it says is for the test beside it.
#[derive(Clone, Debug, Deserialize)]
struct Case {
    name: String,
    #[serde(default)]
    spec: Value,
    before: Option<Value>,
    pod: Value,
    is: String,
    #[serde(default)]
    ends: bool,
}

/// The rows that are about a status and nothing else, so that a kubelet could have written them.
fn cases() -> Result<Vec<Case>> {
    let text = fs::read_to_string(repository("crates/operator/tests/odd/pods.yaml"))?;
    let mut cases: Vec<Case> = serde_saphyr::from_str(&text)?;
    cases.retain(|case| {
        let is_a_status = case.pod.as_object().is_some_and(|pod| pod.keys().eq(["status"]));
        let text = case.pod.to_string();
        // The types that this test lists pods by cannot hold such a time, and would show none of them (`corruption` has such).
        let is_beyond_time = text.contains("9999-12-31");
        is_a_status && case.before.is_none() && !case.ends && !text.contains("MANY") && !is_beyond_time
    });
    Ok(cases)
}

/// What stands for something long.
fn filled_in(value: &Value) -> Value {
    match value {
        Value::String(text) if text == "LONG" => "long ".repeat(10_000).into(),
        Value::String(text) if text == "BINARY" => {
            (0..4096_u32).map(|n| char::from((n % 256) as u8)).collect::<String>().into()
        }
        Value::Array(list) => list.iter().map(filled_in).collect(),
        Value::Object(fields) => fields.iter().map(|(key, value)| (key.clone(), filled_in(value))).collect(),
        other => other.clone(),
    }
}

/// No pass has panicked.
async fn has_not_panicked(operator: &mut Operator) -> Result<()> {
    ensure!(operator.is_running()?, "it has ended: {}", operator.tail());
    let log = fs::read_to_string(&operator.log)?;
    ensure!(!log.contains("panicked"), "{log}");
    ensure!(metric(operator, "batchjob_errors_total", r#"class="panic""#).await? == 0.0, "a pass has panicked");
    Ok(())
}

both_doors!(every_odd_status_has_the_verdict_of_the_table);
async fn every_odd_status_has_the_verdict_of_the_table(stage: &Both) -> Result<()> {
    let mut operator = stage.operator().await?;
    let cases = cases()?;
    let job = |n: usize| format!("odd-{n}");
    try_join_all(cases.iter().enumerate().map(async |(n, case)| {
        let spec = json!({ "completionMode": "Indexed", "completions": 1, "template": template(json!({})) });
        stage.create(&job(n), merged(spec, &case.spec)).await.with_context(|| case.name.clone())
    }))
    .await?;
    let played = try_join_all(cases.iter().enumerate().map(async |(n, case)| {
        let pod = stage.stage.running_pod(&job(n), 0, 1).await?;
        let patch = Patch::Merge(filled_in(&case.pod));
        match stage.stage.pods.patch_status(name(&pod), &PatchParams::default(), &patch).await {
            Ok(_) => Ok(true),
            // The API server cannot read it, or does not let it in.
            Err(kube::Error::Api(refused)) if matches!(refused.code, 400 | 422) => Ok(false),
            Err(error) => Err(anyhow::Error::from(error).context(case.name.clone())),
        }
    }))
    .await?;
    let n_taken = played.iter().filter(|is_taken| **is_taken).count();
    assert!(n_taken >= 35, "the API server takes {n_taken} of {}", cases.len());

    for (n, case) in cases.iter().enumerate().filter(|(n, _)| played[*n]) {
        let what = format!("{} is {}", case.name, case.is);
        let standing = match &*case.is {
            "success" => stage.until(&job(n), &what, |job| job.succeeded == 1 && job.is_finished()).await,
            "failure" => stage.until(&job(n), &what, |job| job.failed == 1).await,
            "ignored" => {
                stage.stage.pod(&job(n), 0, 2).await;
                stage.until(&job(n), &what, |job| job.failed == 0).await
            }
            "alive" => {
                stage.look_again(&operator, &job(n)).await?;
                stage.until(&job(n), &what, |job| job.active == 1 && job.failed + job.succeeded == 0).await
            }
            other => panic!("{other} is no verdict on a status"),
        };
        let attempts = stage.stage.pods_of(&job(n)).await?;
        let n_first = attempts.iter().filter(|pod| attempt_of(pod) == Some(1)).count();
        assert!(n_first <= 1 && standing.succeeded <= 1, "{what}: {standing:?}");
    }
    has_not_panicked(&mut operator).await
}

/// What somebody writes into the status of a job of three, whose index 0 is done; and how many are done at its end.
fn forgeries() -> Vec<(&'static str, Value)> {
    vec![
        ("counters-too-large", json!({ "active": 1_000_000, "ready": 7, "succeeded": 2_147_483_647, "failed": 0 })),
        ("counters-of-nothing", json!({ "active": 0, "ready": 0, "terminating": 0, "succeeded": 0 })),
        ("counters-below-nothing", json!({ "active": -1, "ready": -7, "terminating": -1, "succeeded": -3 })),
        ("failures-below-nothing", json!({ "failed": -2_147_483_648_i64 })),
        ("a-ledger-of-nonsense", json!({ "openIndexes": "}{,;:@/-" })),
        ("an-attempt-of-no-number", json!({ "openIndexes": "1:99999999999999999999/1@1" })),
        ("a-failure-after-the-end-of-time", json!({ "openIndexes": "1:2/1@-99999999999999" })),
        ("indexes-backwards", json!({ "completedIndexes": "0,9-3,,-,a" })),
        ("an-index-done-and-failed", json!({ "failedIndexes": "0" })),
        ("a-phase-that-is-over", json!({ "phase": "Succeeded", "reason": "CompletionsReached" })),
        ("a-selector-of-others", json!({ "selector": "app=other" })),
        ("a-limit-of-others", json!({ "parallelism": 100, "backoffLimit": 0, "completionsSummary": "9/9" })),
        ("a-generation-to-come", json!({ "observedGeneration": 9_000_000_000_i64 })),
        ("no-start", json!({ "startTime": null })),
        ("a-start-long-ago", json!({ "startTime": "0001-01-01T00:00:00Z" })),
        ("no-conditions", json!({ "conditions": [] })),
        (
            "nothing-at-all",
            json!({ "conditions": null, "completedIndexes": null, "succeeded": null, "startTime": null }),
        ),
    ]
}

/// Each comes to its end, each index is done once by the count, and a job beside them does not notice.
#[tokio::test]
async fn forged_statuses_of_batchjobs_are_made_good_or_told() -> Result<()> {
    let stage = Both::new("forged", Door::BatchJob).await?;
    let mut operator = stage.operator().await?;
    let forgeries = forgeries();
    let spec = || json!({ "completionMode": "Indexed", "completions": 3, "parallelism": 3 });
    try_join_all(forgeries.iter().map(|(name, _)| stage.create(name, spec()))).await?;
    for (job, _) in &forgeries {
        let pod = stage.stage.running_pod(job, 0, 1).await?;
        stage.stage.kubelet.succeeds(&pod).await?;
        stage.until(job, "index 0 is done", |job| job.succeeded == 1).await;
    }
    let mut n_taken = 0;
    for (job, forged) in &forgeries {
        let patch = Patch::Merge(json!({ "status": forged }));
        match stage.stage.jobs.patch_status(job, &PatchParams::default(), &patch).await {
            Ok(_) => n_taken += 1,
            // The schema does not let it in.
            Err(kube::Error::Api(refused)) if refused.code == 422 => {}
            Err(error) => return Err(anyhow::Error::from(error).context(*job)),
        }
    }
    assert!(n_taken >= 10, "{n_taken} are taken");
    stage.create("neighbour", spec()).await?;
    let _kubelet = stage.stage.kubelet.plays(|_| End::Success);
    for job in forgeries.iter().map(|(job, _)| *job).chain(["neighbour"]) {
        let job = stage.stage.until(job, "it is over", is_finished).await;
        let status = status(&job);
        assert_eq!((status.succeeded, status.active, status.terminating), (Some(3), Some(0), Some(0)), "{status:?}");
        assert_eq!(status.completed_indexes.as_deref(), Some("0-2"));
    }
    has_not_panicked(&mut operator).await
}

/// The annotation of a managed Job, as anybody may write it: it is made again from the status, nothing is run twice and
/// nothing is counted that was not.
#[tokio::test]
async fn forged_ledgers_of_managed_jobs_are_made_good() -> Result<()> {
    let stage = Both::new("ledgers", Door::ManagedJob).await?;
    let mut operator = stage.operator().await?;
    let forged: BTreeMap<&str, Value> = BTreeMap::from([
        ("none", Value::Null),
        ("empty", "".into()),
        ("no-json", "{".into()),
        ("another-type", "[1,2]".into()),
        ("of-another", r#"{"of":"0000000000","openIndexes":"1:9/8@1"}"#.into()),
        ("wrong-types", r#"{"of":7,"openIndexes":{}}"#.into()),
        ("all-done", r#"{"of":"","completedIndexes":"0-2"}"#.into()),
        ("long", "x".repeat(200_000).into()),
        ("deep", format!("{}{}", "[".repeat(10_000), "]".repeat(10_000)).into()),
    ]);
    let spec = || json!({ "completionMode": "Indexed", "completions": 3, "parallelism": 3 });
    try_join_all(forged.keys().map(|job| stage.create(job, spec()))).await?;
    for job in forged.keys() {
        let pod = stage.stage.running_pod(job, 0, 1).await?;
        stage.stage.kubelet.succeeds(&pod).await?;
        stage.until(job, "index 0 is done", |job| job.succeeded == 1).await;
    }
    for (job, ledger) in &forged {
        stage.change(job, json!({ "metadata": { "annotations": { keys::LEDGER: ledger } } })).await?;
    }
    for (job, ledger) in &forged {
        expect("its ledger is written again", async || {
            let annotations = stage.jobs.get(job).await?.metadata.annotations.unwrap_or_default();
            let now = annotations.get(keys::LEDGER);
            Ok(now.filter(|now| ledger.as_str() != Some(now) && now.contains("of")).map(|_| ()))
        })
        .await;
    }
    let _kubelet = stage.stage.kubelet.plays(|_| End::Success);
    for job in forged.keys() {
        let standing = stage.until_over(job).await;
        assert_eq!((standing.succeeded, standing.failed, &*standing.completed_indexes), (3, 0, "0-2"), "{job}");
        let pods: Vec<Pod> = stage.stage.pods_of(job).await?;
        assert_eq!(pods.len(), 3, "{job}: nothing ran twice");
    }
    has_not_panicked(&mut operator).await?;
    stage.check_history().await
}

/// Kubernetes deletes the pods of a namespace first, and no job before they are gone. Nobody counts the pods of a job that
/// cannot be read, and they must not hold all of it for ever.
#[tokio::test]
async fn a_namespace_goes_although_a_job_in_it_cannot_be_read() -> Result<()> {
    let stage = Both::new("unread", Door::BatchJob).await?;
    let mut operator = stage.operator().await?;
    stage.create("etl", json!({ "completionMode": "Indexed", "completions": 2, "parallelism": 2 })).await?;
    let pod = stage.stage.running_pod("etl", 0, 1).await?;
    stage.stage.running_pod("etl", 1, 1).await?;
    stage.stage.kubelet.succeeds(&pod).await?;
    stage.until("etl", "index 0 is done", |job| job.succeeded == 1 && job.ready == 1).await;

    break_job(&stage, "etl", ".status.completedIndexes", &Damage::Json(7.into())).await?;
    stage.until_event("etl", "InvalidSpec").await;

    // One that is deleted for itself waits for the job to be repaired.
    let _kubelet = stage.stage.kubelet.plays(|_| End::Never);
    let second = stage.stage.pod("etl", 1, 1).await;
    stage.stage.pods.delete(name(&second), &DeleteParams::default()).await?;
    let before = metric(&operator, "batchjob_errors_total", r#"class="unreadable""#).await?;
    stage
        .stage
        .until_pods("etl", "it has ended, and is held", |pods| {
            pods.iter().any(|pod| name(pod) == name(&second) && phase(pod) == "Failed" && is_held(pod))
        })
        .await;
    expect("the job is looked at", async || {
        Ok((metric(&operator, "batchjob_errors_total", r#"class="unreadable""#).await? > before).then_some(()))
    })
    .await;
    ensure!(is_held(&stage.stage.pods.get(name(&second)).await?), "its result is lost");

    namespace_goes(&stage).await?;
    has_not_panicked(&mut operator).await
}

/// Nor are its pods counted then: each write of the status is refused for something else that is in the job.
#[tokio::test]
async fn a_namespace_goes_although_a_job_in_it_cannot_be_written() -> Result<()> {
    try_join_all([Door::BatchJob, Door::ManagedJob].map(goes_although_a_job_cannot_be_written)).await?;
    Ok(())
}

async fn goes_although_a_job_cannot_be_written(door: Door) -> Result<()> {
    let stage = &Both::new("unwritten", door).await?;
    let mut operator = stage.operator().await?;
    stage.create("etl", json!({ "completionMode": "Indexed", "completions": 2, "parallelism": 2 })).await?;
    for index in [0, 1] {
        stage.stage.running_pod("etl", index, 1).await?;
    }
    stage.until("etl", "both run", |job| job.active == 2).await;
    match stage.door {
        Door::BatchJob => break_job(stage, "etl", ".spec.template.spec", &Damage::Drop).await?,
        Door::ManagedJob => {
            stage.change("etl", json!({ "metadata": { "labels": { "team": "a" } } })).await?;
            break_job(stage, "etl", ".metadata.labels.value", &Damage::Text("-".to_owned())).await?;
        }
    }
    let _kubelet = stage.stage.kubelet.plays(|_| End::Never);
    namespace_goes(stage).await?;
    has_not_panicked(&mut operator).await
}

/// Two of them: what is told of the one is not what is told of the other.
#[tokio::test]
async fn jobs_that_lose_their_uid_are_told_of_and_a_namespace_goes_with_them() -> Result<()> {
    let stage = Both::new("nameless", Door::BatchJob).await?;
    let mut operator = stage.operator().await?;
    for job in ["one", "other"] {
        stage.create(job, json!({ "completionMode": "Indexed", "completions": 2, "parallelism": 2 })).await?;
        stage.stage.running_pod(job, 0, 1).await?;
    }
    for job in ["one", "other"] {
        break_job(&stage, job, ".metadata.uid", &Damage::Drop).await?;
    }
    for job in ["one", "other"] {
        stage.until_event(job, "InvalidSpec").await;
    }
    let _kubelet = stage.stage.kubelet.plays(|_| End::Never);
    namespace_goes(&stage).await?;
    has_not_panicked(&mut operator).await
}

/// Breaks one place of a job, in etcd.
async fn break_job(stage: &Both, job: &str, place: &str, damage: &Damage) -> Result<()> {
    let etcd = Etcd::of(kubernetes().await?)?;
    let kind = match stage.door {
        Door::BatchJob => Kind::BatchJob,
        Door::ManagedJob => Kind::Job,
    };
    loop {
        let entry = etcd.get(&kind.key(&stage.stage.namespace.name, job)).await?;
        let mut job = Stored::read(kind, &entry.value)?;
        let place = job.places().into_iter().find(|it| it.name == place).context("the place")?;
        job.break_at(&place, damage)?;
        // The operator may have been faster.
        if etcd.replace(&entry, &job.write()).await? {
            return Ok(());
        }
    }
}

async fn namespace_goes(stage: &Both) -> Result<()> {
    let namespaces: Api<Namespace> = Api::all(stage.stage.namespace.client.clone());
    let name = &stage.stage.namespace.name;
    namespaces.delete(name, &DeleteParams::background()).await?;
    expect("the namespace is gone", async || Ok(namespaces.get_opt(name).await?.is_none().then_some(()))).await;
    Ok(())
}
