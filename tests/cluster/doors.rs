//! Plain Jobs that name the operator in `spec.managedBy`, seen through the tools that people have for Jobs; and the Jobs of
//! others beside them, which must not notice that there is an operator.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use batchjob_crd::keys;
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{ListParams, PostParams};
use serde_json::{Value, json};

use crate::installed::shared;
use crate::story::{Story, container, script, tell};

/// A Job of that spec, run by whom `managed_by` says.
async fn create(story: &Story<'_>, name: &str, managed_by: Option<&str>, mut spec: Value) -> Result<()> {
    if let Some(manager) = managed_by {
        spec["managedBy"] = json!(manager);
    } else {
        // The attempt is told by the operator's label alone.
        spec["template"]["spec"]["containers"][0]["env"] = json!([]);
    }
    let job = json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name}, "spec": spec});
    let job: Job = serde_json::from_value(job)?;
    jobs(story).create(&PostParams::default(), &job).await.with_context(|| format!("create Job {name}"))?;
    Ok(())
}

fn jobs(story: &Story<'_>) -> Api<Job> {
    Api::namespaced(story.pods.clone().into_client(), story.jobs.namespace().unwrap_or("default"))
}

fn cron_jobs(story: &Story<'_>) -> Api<CronJob> {
    Api::namespaced(story.pods.clone().into_client(), story.jobs.namespace().unwrap_or("default"))
}

async fn pods(story: &Story<'_>, job: &str) -> Result<Vec<Pod>> {
    Ok(story.pods.list(&ListParams::default().labels(&format!("{}={job}", keys::JOB_NAME))).await?.items)
}

/// `kubectl wait --for=condition=… job/x`, as scripts have it.
async fn wait(story: &Story<'_>, condition: &str, job: &str) -> Result<Job> {
    let arguments = ["wait", &format!("--for=condition={condition}"), &format!("job/{job}"), "--timeout=60s"];
    let said = tokio::task::block_in_place(|| story.kubectl.run(&arguments))?;
    ensure!(said.contains(&format!("job.batch/{job} condition met")), "{said}");
    Ok(jobs(story).get(job).await?)
}

/// The types of the conditions that are true.
fn conditions(job: &Job) -> BTreeSet<&str> {
    let conditions = job.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.filter(|condition| condition.status == "True").map(|condition| &*condition.type_).collect()
}

fn holds(pod: &Pod, finalizer: &str) -> bool {
    pod.metadata.finalizers.iter().flatten().any(|it| it == finalizer)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_managed_job_is_a_job_to_kubectl() -> Result<()> {
    tell(shared().await?, "managed", async |story| {
        let mut spec = script("Never", r#"echo "index $JOB_COMPLETION_INDEX, attempt $ATTEMPT""#);
        spec["completions"] = json!(3);
        spec["completionMode"] = json!("Indexed");
        create(story, "etl", Some(keys::MANAGED_BY), spec).await?;
        let job = wait(story, "complete", "etl").await?;

        assert_eq!(conditions(&job), BTreeSet::from(["Complete", "SuccessCriteriaMet"]));
        let status = job.status.clone().context("a status")?;
        assert_eq!((status.succeeded, status.failed.unwrap_or(0), status.active.unwrap_or(0)), (Some(3), 0, 0));
        assert_eq!((status.completed_indexes.as_deref(), status.terminating), (Some("0-2"), Some(0)));
        assert!(status.start_time.is_some() && status.start_time <= status.completion_time, "{status:?}");
        assert!(job.metadata.annotations.iter().flatten().any(|(key, _)| key == keys::LEDGER), "{:?}", job.metadata);

        let row = story.kubectl.run(&["get", "job", "etl"])?;
        assert!(row.contains("Complete") && row.contains("3/3"), "{row}");
        let mut lines = Vec::new();
        for pod in pods(story, "etl").await? {
            let labels = pod.metadata.labels.clone().context("labels")?;
            assert!(labels.contains_key(keys::ATTEMPT) && labels.contains_key(keys::CONTROLLER_UID), "{labels:?}");
            let name = pod.metadata.name.context("a name")?;
            lines.extend(story.kubectl.run(&["logs", &name])?.lines().map(str::to_owned));
        }
        lines.sort();
        assert_eq!(lines, ["index 0, attempt 1", "index 1, attempt 1", "index 2, attempt 1"]);
        // It picks one of the pods, by the Job's selector.
        let said = story.kubectl.run(&["logs", "job/etl"])?;
        assert!(said.contains("index ") && said.contains(", attempt 1"), "{said}");
        let described = story.kubectl.run(&["describe", "job", "etl"])?;
        let events = described.split_once("\nEvents:").context("it has events")?.1;
        assert!(events.contains("SuccessfulCreate") && events.contains("Completed"), "{events}");
        story
            .until("no pod is held any more", 30, async || {
                let is_held = |pod: &Pod| holds(pod, keys::JOB_POD_FINALIZER) || holds(pod, keys::POD_FINALIZER);
                Ok((!pods(story, "etl").await?.iter().any(is_held)).then_some(()))
            })
            .await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_managed_job_that_fails_ends_a_wait_for_failed() -> Result<()> {
    tell(shared().await?, "managed-fails", async |story| {
        let mut spec = script("Never", "exit 7");
        spec["backoffLimit"] = json!(1);
        create(story, "broken", Some(keys::MANAGED_BY), spec).await?;
        let job = wait(story, "failed", "broken").await?;
        assert_eq!(conditions(&job), BTreeSet::from(["Failed", "FailureTarget"]));
        let status = job.status.context("a status")?;
        assert_eq!(status.failed, Some(2));
        let failed =
            status.conditions.into_iter().flatten().find(|it| it.type_ == "Failed").context("it has failed")?;
        assert_eq!(failed.reason.as_deref(), Some("BackoffLimitExceeded"));
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cronjob_with_the_line_in_its_template_works_with_no_other_change() -> Result<()> {
    tell(shared().await?, "cron", async |story| {
        let mut spec = script("Never", r#"echo "attempt $ATTEMPT""#);
        spec["managedBy"] = json!(keys::MANAGED_BY);
        let cron_job = json!({
            "apiVersion": "batch/v1", "kind": "CronJob", "metadata": {"name": "often"},
            "spec": {"schedule": "* * * * *", "successfulJobsHistoryLimit": 1, "jobTemplate": {"spec": spec}},
        });
        story.kubectl.apply(&cron_job.to_string())?;
        // From another one, which never fires: the history of the first would take this Job for one of its own.
        let mut never = cron_job.clone();
        never["metadata"]["name"] = json!("never");
        never["spec"]["suspend"] = json!(true);
        story.kubectl.apply(&never.to_string())?;
        story.kubectl.run(&["create", "job", "now", "--from=cronjob/never"])?;
        wait(story, "complete", "now").await?;
        assert_eq!(story.kubectl.run(&["logs", "job/now"])?, "attempt 1\n");

        let by_schedule = async || -> Result<Vec<Job>> {
            let mut found = jobs(story).list(&ListParams::default()).await?.items;
            found.retain(|job| job.metadata.name.as_ref().is_some_and(|name| name.starts_with("often-")));
            Ok(found)
        };
        let is_complete = |job: &Job| conditions(job).contains("Complete");
        let first = story
            .until("the first minute's Job is complete", 90, async || {
                Ok(by_schedule().await?.into_iter().find(|job| is_complete(job)))
            })
            .await?;
        assert!(first.metadata.annotations.iter().flatten().any(|(key, _)| key == keys::LEDGER));
        story
            .until("the CronJob has seen it", 30, async || {
                let status = cron_jobs(story).get("often").await?.status.context("a status")?;
                Ok(status.last_successful_time.filter(|_| status.active.is_none()))
            })
            .await?;
        // Its history is of one Job: the next takes the place of the first, and the first takes its pods with it.
        let uid = first.metadata.uid.context("a uid")?;
        story
            .until("the next minute's Job has taken its place", 120, async || {
                let jobs = by_schedule().await?;
                let is_gone = !jobs.iter().any(|job| job.metadata.uid.as_ref() == Some(&uid));
                Ok((is_gone && jobs.iter().any(is_complete)).then_some(()))
            })
            .await?;
        story
            .until("its pods are gone", 60, async || {
                let of_first = ListParams::default().labels(&format!("{}={uid}", keys::CONTROLLER_UID));
                Ok(story.pods.list(&of_first).await?.items.is_empty().then_some(()))
            })
            .await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn kubernetes_removes_a_managed_job_when_its_time_to_live_is_over() -> Result<()> {
    tell(shared().await?, "managed-ttl", async |story| {
        let mut spec = script("Never", "true");
        spec["ttlSecondsAfterFinished"] = json!(3);
        create(story, "brief", Some(keys::MANAGED_BY), spec).await?;
        wait(story, "complete", "brief").await?;
        story
            .until("the Job is gone, and its pod", 60, async || {
                let is_gone = jobs(story).get_opt("brief").await?.is_none() && pods(story, "brief").await?.is_empty();
                Ok(is_gone.then_some(()))
            })
            .await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_managed_job_is_suspended_and_resumed_by_a_patch() -> Result<()> {
    tell(shared().await?, "managed-pause", async |story| {
        let spec = script("Never", r#"[ "$ATTEMPT" -ge 2 ] || { trap 'exit 1' TERM; sleep 1000 & wait; }"#);
        create(story, "pause", Some(keys::MANAGED_BY), spec).await?;
        story.running("pause", 1).await?;
        let suspend = |on: bool| format!(r#"{{"spec":{{"suspend":{on}}}}}"#);
        story.kubectl.run(&["patch", "job", "pause", "--type=merge", "-p", &suspend(true)])?;
        let job = wait(story, "suspended", "pause").await?;
        assert!(!conditions(&job).contains("Failed"), "{:?}", job.status);
        let status = story
            .until("nothing runs any more", 60, async || {
                let status = jobs(story).get("pause").await?.status.context("a status")?;
                let is_quiet = status.active.unwrap_or(0) == 0 && status.terminating.unwrap_or(0) == 0;
                Ok((is_quiet && pods(story, "pause").await?.is_empty()).then_some(status))
            })
            .await?;
        assert_eq!(status.failed.unwrap_or(0), 0);

        story.kubectl.run(&["patch", "job", "pause", "--type=merge", "-p", &suspend(false)])?;
        let job = wait(story, "complete", "pause").await?;
        assert_eq!(conditions(&job), BTreeSet::from(["Complete", "SuccessCriteriaMet"]));
        assert_eq!(job.status.context("a status")?.failed.unwrap_or(0), 0);
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_jobs_of_others_are_left_entirely_alone() -> Result<()> {
    tell(shared().await?, "others", async |story| {
        create(story, "builtin", None, script("Never", "true")).await?;
        create(story, "named", Some("kubernetes.io/job-controller"), script("Never", "true")).await?;
        create(story, "foreign", Some("example.com/other"), script("Never", "true")).await?;
        wait(story, "complete", "builtin").await?;
        // One of ours, created after them and complete, shows that the operator has passed by.
        create(story, "ours", Some(keys::MANAGED_BY), script("Never", "true")).await?;
        wait(story, "complete", "ours").await?;

        for name in ["builtin", "named", "foreign"] {
            let job = jobs(story).get(name).await?;
            let annotations = job.metadata.annotations.clone().unwrap_or_default();
            assert!(!annotations.keys().any(|key| key.starts_with("batchjob.dev/")), "{name}: {annotations:?}");
            let writers = job.metadata.managed_fields.iter().flatten().filter_map(|entry| entry.manager.as_deref());
            let writers: Vec<&str> = writers.filter(|manager| manager.contains("batchjob")).collect();
            assert!(writers.is_empty(), "{name}: {writers:?}");
            for pod in pods(story, name).await? {
                let labels = pod.metadata.labels.clone().unwrap_or_default();
                assert!(!labels.keys().any(|key| key.starts_with("batchjob.dev/")), "{name}: {labels:?}");
                assert!(!holds(&pod, keys::POD_FINALIZER), "{name}: {:?}", pod.metadata.finalizers);
            }
        }
        assert_eq!(pods(story, "builtin").await?.len(), 1);
        // Whose manager is not there waits for it, as Kubernetes has it.
        assert!(pods(story, "foreign").await?.is_empty());
        assert!(conditions(&jobs(story).get("foreign").await?).is_empty());
        Ok(())
    })
    .await
}

/// The two doors at once, under one name: neither takes the other's pods.
#[tokio::test(flavor = "multi_thread")]
async fn a_batchjob_and_a_managed_job_of_one_name_are_two() -> Result<()> {
    tell(shared().await?, "namesakes", async |story| {
        create(story, "etl", Some(keys::MANAGED_BY), script("Never", "exit 3")).await?;
        story.create("etl", script("Never", "true")).await?;
        story.complete("etl", 60).await?;
        story
            .until("the Job's first attempt has failed, and the BatchJob has none", 60, async || {
                let job = jobs(story).get("etl").await?.status.context("a status")?;
                Ok((job.failed == Some(1)).then_some(()))
            })
            .await?;
        assert_eq!(story.status("etl").await?.failed, Some(0));
        let mut owners = BTreeSet::new();
        for pod in pods(story, "etl").await? {
            let owner = pod.metadata.owner_references.iter().flatten().next().context("an owner")?;
            let code = container(&pod).and_then(|it| it.state.as_ref()?.terminated.as_ref()).map(|it| it.exit_code);
            if let Some(code) = code {
                assert_eq!(code, if owner.kind == "Job" { 3 } else { 0 }, "{:?}", pod.metadata.name);
            }
            owners.insert(owner.kind.clone());
        }
        assert_eq!(owners, BTreeSet::from(["BatchJob".to_owned(), "Job".to_owned()]));
        Ok(())
    })
    .await
}
