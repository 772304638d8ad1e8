//! BatchCronJobs in real containers: on the minute, by each policy.

use std::time::Duration;

use anyhow::{Context, Result};
use batchjob_crd::{BatchCronJob, BatchCronJobStatus, BatchJob, keys};
use batchjob_tests::support::wait_for;
use jiff::Timestamp;
use kube::Api;
use kube::api::{ListParams, PostParams};
use serde_json::json;

use crate::installed::shared;
use crate::story::{Story, tell};

/// A run outlives two minutes, unless it is stopped.
const LONG: &str = "trap exit TERM; sleep 600 & wait";
/// Two slots come within this time, and all that follows from them.
const TWO_SLOTS: Duration = Duration::from_secs(180);

struct Cron<'a> {
    story: &'a Story<'a>,
    crons: Api<BatchCronJob>,
}

impl Cron<'_> {
    async fn status(&self) -> Result<BatchCronJobStatus> {
        Ok(self.crons.get("minutely").await?.status.unwrap_or_default())
    }

    async fn runs(&self) -> Result<Vec<BatchJob>> {
        let of_cron = ListParams::default().labels(&format!("{}=minutely", keys::CRON_JOB_NAME));
        Ok(self.story.jobs.list(&of_cron).await?.items)
    }
}

/// A BatchCronJob of each minute with that policy, whose runs last long.
async fn each_minute(story: &Story<'_>, policy: &str) -> Result<Api<BatchCronJob>> {
    let crons: Api<BatchCronJob> =
        Api::namespaced(story.installed.kubernetes.client().await?, story.jobs.namespace().unwrap_or_default());
    let container = json!({ "name": "main", "image": "busybox:1", "command": ["sh", "-c", LONG] });
    let cron = serde_json::from_value(json!({
        "apiVersion": "batchjob.dev/v1alpha1", "kind": "BatchCronJob", "metadata": { "name": "minutely" },
        "spec": {
            "schedule": "* * * * *", "concurrencyPolicy": policy,
            "jobTemplate": { "spec": { "template": { "spec": {
                "restartPolicy": "Never", "terminationGracePeriodSeconds": 1, "containers": [container],
            } } } },
        },
    }))?;
    crons.create(&PostParams::default(), &cron).await?;
    Ok(crons)
}

fn slot(run: &BatchJob) -> Option<Timestamp> {
    run.metadata.annotations.as_ref()?.get(keys::SCHEDULED_TIMESTAMP)?.parse().ok()
}

/// On the minute, each: its pod runs, and nothing is late.
async fn on_the_minute(cron: &Cron<'_>) -> Result<()> {
    for run in cron.runs().await? {
        let slot = slot(&run).context("a slot")?;
        let created = run.metadata.creation_timestamp.as_ref().context("a time")?.0;
        assert_eq!(slot.as_second() % 60, 0);
        let late = created.duration_since(slot).as_secs();
        assert!((0..5).contains(&late), "{late} s after {slot}");
    }
    Ok(())
}

async fn with_policy(
    policy: &str,
    name: &str,
    what: &str,
    mut is_so: impl FnMut(&[BatchJob], &BatchCronJobStatus) -> bool,
) -> Result<()> {
    tell(shared().await?, name, async |story| {
        let crons = each_minute(story, policy).await?;
        let cron = Cron { story, crons };
        wait_for(what, TWO_SLOTS, async || {
            let (runs, status) = (cron.runs().await?, cron.status().await?);
            Ok(is_so(&runs, &status).then_some(()))
        })
        .await?;
        on_the_minute(&cron).await
    })
    .await
}

#[tokio::test]
async fn with_allow_they_run_beside_each_other() -> Result<()> {
    with_policy("Allow", "cron-allow", "two runs are active", |runs, status| {
        runs.len() == 2 && status.active.len() == 2
    })
    .await
}

#[tokio::test]
async fn with_forbid_the_next_slot_waits() -> Result<()> {
    with_policy("Forbid", "cron-forbid", "one is active, one waits", |runs, status| {
        runs.len() == 1 && status.active.len() == 1 && status.held == Some(1)
    })
    .await
}

#[tokio::test]
async fn with_replace_the_next_slot_ends_the_run_before() -> Result<()> {
    let mut first = None;
    with_policy("Replace", "cron-replace", "the second has taken the place of the first", |runs, _| {
        let [run] = runs else { return false };
        *first.get_or_insert_with(|| slot(run)) != slot(run)
    })
    .await
}

#[tokio::test]
async fn with_queue_the_next_slot_has_its_turn() -> Result<()> {
    with_policy("Queue", "cron-queue", "one is active, one waits", |runs, status| {
        runs.len() == 1 && status.waiting.len() == 1
    })
    .await
}
