//! Kubernetes' own CronJob controller, whose Jobs the operator runs: it sees of them all that it goes by, whichever of its
//! policies it follows.
//!
//! Nobody waits for a clock: a CronJob catches up with a time that it has missed as soon as it sees that it has.

use anyhow::{Context, Result, ensure};
use batchjob_crd::{condition, keys};
use batchjob_tests::support::Operator;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::{CronJob, CronJobStatus};
use kube::api::{ListParams, Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt as _};
use serde_json::{Value, json};

use crate::both::{Both, Door};
use crate::kubelet::End;
use crate::stage::{LONG_AGO, expect, template};

/// Two times that have passed, in this order, and one before both.
const BEFORE: SignedDuration = SignedDuration::from_mins(30);
const FIRST: SignedDuration = SignedDuration::from_mins(20);
const SECOND: SignedDuration = SignedDuration::from_mins(10);

/// A namespace with CronJobs, and the operator that runs their Jobs.
struct Schedule {
    stage: Both,
    cron_jobs: Api<CronJob>,
    _operator: Operator,
}

#[expect(clippy::disallowed_methods, reason = "a schedule goes by the clock")]
fn minute(ago: SignedDuration) -> Result<Timestamp> {
    Ok(Timestamp::from_second((Timestamp::now() - ago).as_second() / 60 * 60)?)
}

impl Schedule {
    async fn new(test: &str) -> Result<Schedule> {
        let stage = Both::new(test, Door::ManagedJob).await?;
        let namespace = &stage.stage.namespace;
        let cron_jobs = Api::namespaced(namespace.client.clone(), &namespace.name);
        let operator = stage.operator().await?;
        Ok(Schedule { stage, cron_jobs, _operator: operator })
    }

    /// A CronJob with these fields beside, and one container that never restarts; it is suspended until it fires.
    async fn create(&self, name: &str, spec: Value, job: Value) -> Result<()> {
        let mut of_job = json!({ "template": template(json!({})), "managedBy": keys::MANAGED_BY });
        of_job.as_object_mut().context("an object")?.extend(job.as_object().context("an object")?.clone());
        let mut whole = json!({
            "schedule": "0 0 1 1 *", "timeZone": "Etc/UTC", "suspend": true, "jobTemplate": { "spec": of_job },
        });
        whole.as_object_mut().context("an object")?.extend(spec.as_object().context("an object")?.clone());
        let cron_job = serde_json::from_value(json!({ "metadata": { "name": name }, "spec": whole }))?;
        self.cron_jobs.create(&PostParams::default(), &cron_job).await?;
        let last = json!({ "status": { "lastScheduleTime": minute(BEFORE)? } });
        self.cron_jobs.patch_status(name, &PatchParams::default(), &Patch::Merge(last)).await?;
        Ok(())
    }

    /// It catches up with that time. Answers with the name of the Job that is for it.
    async fn fire(&self, name: &str, ago: SignedDuration) -> Result<String> {
        let at = minute(ago)?;
        let minutes = at.as_second() / 60;
        let schedule = json!({ "spec": { "schedule": format!("{} * * * *", minutes % 60) } });
        self.cron_jobs.patch(name, &PatchParams::default(), &Patch::Merge(schedule)).await?;
        // A change of the schedule alone is acted on when its next time comes.
        let now = json!({ "spec": { "suspend": false }, "metadata": { "annotations": { "fired": at } } });
        self.cron_jobs.patch(name, &PatchParams::default(), &Patch::Merge(now)).await?;
        Ok(format!("{name}-{minutes}"))
    }

    /// The CronJob's status, as soon as just these Jobs of it are active.
    async fn until_active(&self, name: &str, jobs: &[&str]) -> CronJobStatus {
        expect(&format!("{jobs:?} are active"), async || {
            let status = self.cron_jobs.get(name).await?.status.unwrap_or_default();
            let mut active: Vec<_> = status.active.iter().flatten().filter_map(|job| job.name.as_deref()).collect();
            active.sort_unstable();
            Ok((active == jobs).then_some(status))
        })
        .await
    }

    /// There is an event about the CronJob for that reason.
    async fn until_event(&self, name: &str, reason: &str) {
        expect(&format!("an event {reason}"), async || {
            Ok(self.events(name).await?.iter().any(|told| told == reason).then_some(()))
        })
        .await;
    }

    async fn events(&self, name: &str) -> Result<Vec<String>> {
        let about = format!("cronjob/{name}");
        let reasons = ["events", "--for", &about, "-o", "jsonpath={.items[*].reason}"];
        Ok(self.stage.stage.kubectl(&reasons).await?.split_whitespace().map(str::to_owned).collect())
    }

    /// The names of the Jobs that there are.
    async fn jobs(&self) -> Result<Vec<String>> {
        let mut names: Vec<String> =
            self.stage.jobs.list(&ListParams::default()).await?.iter().map(|job| job.name_any()).collect();
        names.sort();
        Ok(names)
    }

    /// The Job is gone, and its pods with it.
    async fn until_gone(&self, job: &str) {
        self.stage.until_gone(job).await;
        self.stage.stage.until_pods(job, "they went too", |pods| pods.is_empty()).await;
    }
}

/// `should schedule multiple jobs concurrently` and `should not emit unexpected warnings`.
#[tokio::test]
async fn with_allow_they_run_at_once_and_nothing_of_them_is_unexpected() -> Result<()> {
    let schedule = Schedule::new("cron-allow").await?;
    let stage = &schedule.stage;
    schedule.create("often", json!({ "concurrencyPolicy": "Allow" }), json!({})).await?;
    let first = schedule.fire("often", FIRST).await?;
    let pod = stage.stage.running_pod(&first, 0, 1).await?;
    schedule.until_active("often", &[&first]).await;
    let second = schedule.fire("often", SECOND).await?;
    stage.stage.running_pod(&second, 0, 1).await?;
    schedule.until_active("often", &[&first, &second]).await;
    for job in [&first, &second] {
        stage.until(job, "it runs", |job| job.ready == 1).await;
    }

    stage.stage.kubelet.succeeds(&pod).await?;
    let status = schedule.until_active("often", &[&second]).await;
    let job = stage.until_over(&first).await;
    assert!(job.is(condition::COMPLETE));
    assert_eq!(status.last_successful_time.map(|time| time.0), job.completion_time);
    schedule.until_event("often", "SawCompletedJob").await;
    let events = schedule.events("often").await?;
    let expected = ["SuccessfulCreate", "SawCompletedJob"];
    ensure!(events.iter().all(|reason| expected.contains(&&**reason)), "{events:?}");
    stage.check_history().await
}

/// `should not schedule new jobs when ForbidConcurrent`.
#[tokio::test]
async fn with_forbid_the_next_waits_for_the_end_of_the_first() -> Result<()> {
    let schedule = Schedule::new("cron-forbid").await?;
    let stage = &schedule.stage;
    schedule.create("often", json!({ "concurrencyPolicy": "Forbid" }), json!({})).await?;
    let first = schedule.fire("often", FIRST).await?;
    let pod = stage.stage.running_pod(&first, 0, 1).await?;
    schedule.until_active("often", &[&first]).await;
    let second = schedule.fire("often", SECOND).await?;
    schedule.until_event("often", "JobAlreadyActive").await;
    schedule.until_active("often", &[&first]).await;
    assert_eq!(schedule.jobs().await?, [&*first]);

    stage.stage.kubelet.succeeds(&pod).await?;
    stage.stage.running_pod(&second, 0, 1).await?;
    schedule.until_active("often", &[&second]).await;
    stage.check_history().await
}

/// `should replace jobs when ReplaceConcurrent`.
#[tokio::test]
async fn with_replace_the_next_takes_the_place_of_the_first() -> Result<()> {
    let schedule = Schedule::new("cron-replace").await?;
    let _kubelet = schedule.stage.stage.kubelet.plays(|_| End::Never);
    schedule.create("often", json!({ "concurrencyPolicy": "Replace" }), json!({})).await?;
    let first = schedule.fire("often", FIRST).await?;
    schedule.stage.until(&first, "it runs", |job| job.ready == 1).await;
    schedule.until_active("often", &[&first]).await;
    let second = schedule.fire("often", SECOND).await?;
    schedule.until_gone(&first).await;
    schedule.stage.until(&second, "it runs", |job| job.ready == 1).await;
    schedule.until_active("often", &[&second]).await;
    assert_eq!(schedule.jobs().await?, [second]);
    schedule.stage.check_history().await
}

/// `should remove from active list jobs that have been deleted`.
#[tokio::test]
async fn a_job_that_somebody_deletes_is_active_no_more() -> Result<()> {
    let schedule = Schedule::new("cron-deleted").await?;
    let _kubelet = schedule.stage.stage.kubelet.plays(|_| End::Never);
    schedule.create("often", json!({ "concurrencyPolicy": "Forbid" }), json!({})).await?;
    let job = schedule.fire("often", FIRST).await?;
    schedule.stage.until(&job, "it runs", |job| job.ready == 1).await;
    schedule.until_active("often", &[&job]).await;
    schedule.stage.stage.kubectl(&["delete", "job", &job, "--cascade=background", "--timeout=60s"]).await?;
    schedule.until_active("often", &[]).await;
    schedule.until_event("often", "MissingJob").await;
    schedule.until_gone(&job).await;
    schedule.stage.check_history().await
}

/// `should delete successful finished jobs with limit of one successful job` and the same of failed ones.
#[tokio::test]
async fn of_those_that_have_ended_as_many_are_kept_as_its_limits_say() -> Result<()> {
    let schedule = Schedule::new("cron-history").await?;
    let stage = &schedule.stage;
    let _kubelet = stage.stage.kubelet.plays(|pod| match pod.labels()[keys::JOB_NAME].starts_with("good-") {
        true => End::Success,
        false => End::Failure { exit_code: 1, ago: LONG_AGO },
    });
    let limits = |good, bad| json!({ "successfulJobsHistoryLimit": good, "failedJobsHistoryLimit": bad });
    schedule.create("good", limits(1, 0), json!({})).await?;
    schedule.create("bad", limits(0, 1), json!({ "backoffLimit": 0 })).await?;
    let ends = [("good", condition::COMPLETE), ("bad", condition::FAILED)];
    let mut first = Vec::new();
    for (name, end) in ends {
        let job = schedule.fire(name, FIRST).await?;
        assert!(stage.until_over(&job).await.is(end));
        schedule.until_active(name, &[]).await;
        first.push(job);
    }
    assert_eq!(schedule.jobs().await?.len(), 2);

    let mut second = Vec::new();
    for (name, end) in ends {
        let job = schedule.fire(name, SECOND).await?;
        assert!(stage.until_over(&job).await.is(end));
        second.push(job);
    }
    for job in &first {
        schedule.until_gone(job).await;
    }
    second.sort();
    assert_eq!(schedule.jobs().await?, second);
    stage.check_history().await
}
