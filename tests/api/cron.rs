//! BatchCronJobs: what is started when, and what their readers are told.
//!
//! Nobody waits for a minute: schedules have seconds here, or catch up with a time that is over.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use batchjob_crd::{BatchCronJob, BatchCronJobStatus, BatchJob, keys};
use batchjob_tests::support::Operator;
use futures::TryStreamExt as _;
use jiff::{SignedDuration, Timestamp};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams};
use kube::{Api, ResourceExt as _};
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::kubelet::{End, Playing};
use crate::stage::{Stage, expect, is_finished, template};

const EVERY_SECOND: &str = "* * * * * *";
/// No slot in a test's life.
const NEVER: &str = "0 0 29 2 *";

/// A namespace with BatchCronJobs.
struct Crons {
    stage: Stage,
    crons: Api<BatchCronJob>,
}

impl Crons {
    async fn new(test: &str) -> Result<Crons> {
        let stage = Stage::new(test).await?;
        let crons = Api::namespaced(stage.namespace.client.clone(), &stage.namespace.name);
        Ok(Crons { stage, crons })
    }

    async fn create(&self, name: &str, spec: Value) -> Result<BatchCronJob> {
        let mut whole = json!({ "jobTemplate": { "spec": { "template": template(json!({})) } } });
        json_patch::merge(&mut whole, &spec);
        let cron = serde_json::from_value(json!({
            "apiVersion": "batchjob.dev/v1alpha1", "kind": "BatchCronJob", "metadata": { "name": name }, "spec": whole,
        }))?;
        Ok(self.crons.create(&PostParams::default(), &cron).await?)
    }

    /// As if it had been there for so long, and its last slot was then.
    async fn create_with_last_slot(&self, name: &str, spec: Value, ago: SignedDuration) -> Result<()> {
        self.create(name, spec).await?;
        let last = json!({ "status": { "lastScheduleTime": now()? - ago } });
        self.crons.patch_status(name, &PatchParams::default(), &Patch::Merge(last)).await?;
        Ok(())
    }

    async fn change(&self, name: &str, change: Value) -> Result<BatchCronJob> {
        Ok(self.crons.patch(name, &PatchParams::default(), &Patch::Merge(change)).await?)
    }

    async fn until(&self, name: &str, what: &str, is_so: impl Fn(&BatchCronJobStatus) -> bool) -> BatchCronJobStatus {
        expect(&format!("BatchCronJob {name}: {what}"), async || {
            let status = self.crons.get(name).await?.status.unwrap_or_default();
            Ok(Some(status).filter(|status| is_so(status)))
        })
        .await
    }

    /// Its runs in the order of their creation.
    async fn runs(&self, name: &str) -> Result<Vec<BatchJob>> {
        let of_cron = ListParams::default().labels(&format!("{}={name}", keys::CRON_JOB_NAME));
        let mut runs = self.stage.jobs.list(&of_cron).await?.items;
        runs.sort_by_key(|run| (run.metadata.creation_timestamp.as_ref().map(|time| time.0), run.name_any()));
        Ok(runs)
    }

    async fn until_runs(&self, name: &str, what: &str, are_so: impl Fn(&[BatchJob]) -> bool) -> Vec<BatchJob> {
        expect(
            &format!("runs of {name}: {what}"),
            async || Ok(Some(self.runs(name).await?).filter(|runs| are_so(runs))),
        )
        .await
    }

    /// The pod of a run's only index runs, and succeeds.
    async fn succeed(&self, run: &str) -> Result<()> {
        let pod = self.stage.running_pod(run, 0, 1).await?;
        self.stage.kubelet.succeeds(&pod).await
    }

    /// Every pod succeeds as soon as it runs.
    fn all_succeed(&self) -> Playing {
        self.stage.kubelet.plays(|_| End::Success)
    }

    async fn events(&self, name: &str) -> Result<Vec<String>> {
        let format = r#"jsonpath={range .items[*]}{.reason}: {.message}{"\n"}{end}"#;
        let about = format!("--field-selector=involvedObject.name={name},involvedObject.kind=BatchCronJob");
        let told = self.stage.kubectl(&["get", "events", &about, "-o", format]).await?;
        Ok(told.lines().map(str::to_owned).collect())
    }

    async fn until_told(&self, name: &str, what: &str) -> String {
        expect(&format!("an event of {name}: {what}"), async || {
            Ok(self.events(name).await?.into_iter().find(|event| event.contains(what)))
        })
        .await
    }
}

#[expect(clippy::disallowed_methods, reason = "a schedule goes by the clock")]
fn now() -> Result<Timestamp> {
    Ok(Timestamp::from_second(Timestamp::now().as_second())?)
}

fn slot(run: &BatchJob) -> Option<Timestamp> {
    run.annotations().get(keys::SCHEDULED_TIMESTAMP)?.parse().ok()
}

fn condition(status: &BatchCronJobStatus) -> Vec<String> {
    status.conditions.iter().map(|it| format!("{}={}({})", it.type_, it.status, it.reason)).collect()
}

#[tokio::test]
async fn a_run_is_created_for_each_slot_and_its_pod_is_told_which() -> Result<()> {
    let crons = Crons::new("cron-slots").await?;
    let _operator = crons.stage.operator().await?;
    let labels = json!({ "metadata": { "labels": { "app": "etl" } } });
    crons.create("etl", json!({ "schedule": EVERY_SECOND, "timeZone": "Asia/Tokyo", "jobTemplate": labels })).await?;
    let runs = crons.until_runs("etl", "three", |runs| runs.len() >= 3).await;
    crons.change("etl", json!({ "spec": { "suspend": true } })).await?;
    let slots: Vec<Timestamp> = runs.iter().filter_map(slot).collect();
    assert!(slots.windows(2).all(|pair| pair[1].duration_since(pair[0]) == SignedDuration::from_secs(1)), "{slots:?}");
    for (run, slot) in runs.iter().zip(&slots) {
        let number = if slot.as_second() % 60 == 0 { slot.as_second() / 60 } else { slot.as_second() };
        assert_eq!(run.name_any(), format!("etl-{number}"));
        assert_eq!(run.labels()["app"], "etl");
        let late = run.metadata.creation_timestamp.as_ref().context("created")?.0.duration_since(*slot);
        assert!(late >= SignedDuration::ZERO, "{late:?} after {slot}");
    }
    let pod = crons.stage.pod(&runs[0].name_any(), 0, 1).await;
    let told = runs[0].annotations()[keys::SCHEDULED_TIMESTAMP].clone();
    assert!(told.ends_with("+09:00"), "{told}");
    assert_eq!(pod.annotations()[keys::SCHEDULED_TIMESTAMP], told);
    let env = pod.spec.context("a spec")?.containers[0].env.clone().unwrap_or_default();
    assert!(env.iter().any(|it| it.name == "CRONJOB_SCHEDULED_TIMESTAMP" && it.value.as_ref() == Some(&told)));

    let status =
        crons.until("etl", "suspended", |status| !status.conditions.is_empty() && status.active.len() >= 3).await;
    assert!(status.last_schedule_time.is_some_and(|last| last.0 >= slots[2]));
    crons.until_told("etl", &format!("SuccessfulCreate: Created run {}", runs[0].name_any())).await;
    Ok(())
}

#[tokio::test]
async fn with_forbid_the_next_waits_for_the_end_of_the_first() -> Result<()> {
    let crons = Crons::new("cron-forbid").await?;
    let _operator = crons.stage.operator().await?;
    crons.create("etl", json!({ "schedule": EVERY_SECOND, "concurrencyPolicy": "Forbid" })).await?;
    let status = crons.until("etl", "one waits, others were skipped", |status| status.skipped > Some(0)).await;
    assert_eq!((status.active_runs, status.held), (Some(1), Some(1)));
    let first = crons.runs("etl").await?[0].name_any();
    assert_eq!(status.held_because, Some(format!("concurrencyPolicy Forbid: run {first} has not ended")));
    crons.until_told("etl", "JobAlreadyActive").await;
    crons.succeed(&first).await?;
    let runs = crons.until_runs("etl", "a second one", |runs| runs.len() >= 2).await;
    assert!(is_finished(&runs[0]), "{:?}", runs[0].status);
    crons.until("etl", "the first succeeded", |status| status.last_result.as_deref() == Some("Succeeded")).await;
    crons.until_told("etl", &format!("SawCompletedJob: Saw completed run: {first}, condition: Complete")).await;
    Ok(())
}

#[tokio::test]
async fn with_replace_the_next_takes_the_place_of_the_first() -> Result<()> {
    let crons = Crons::new("cron-replace").await?;
    let _operator = crons.stage.operator().await?;
    crons.create("etl", json!({ "schedule": EVERY_SECOND, "concurrencyPolicy": "Replace" })).await?;
    let first = crons.until_runs("etl", "one", |runs| !runs.is_empty()).await[0].name_any();
    crons.until_runs("etl", "another", |runs| runs.iter().all(|run| run.name_any() != first) && !runs.is_empty()).await;
    crons.until_told("etl", &format!("SuccessfulDelete: Deleted run {first}")).await;
    Ok(())
}

#[tokio::test]
async fn with_queue_each_slot_has_its_run_in_its_turn() -> Result<()> {
    let crons = Crons::new("cron-queue").await?;
    let _operator = crons.stage.operator().await?;
    crons.create("etl", json!({ "schedule": EVERY_SECOND, "concurrencyPolicy": "Queue" })).await?;
    crons.until("etl", "three wait", |status| status.held >= Some(3)).await;
    let _kubelet = crons.all_succeed();
    let status =
        crons.until("etl", "they had their turn", |status| status.last_result.is_some() && status.held == Some(0));
    let status = status.await;
    assert_eq!((status.missed, status.skipped), (Some(0), Some(0)), "{:?}", status.gaps);
    Ok(())
}

/// Three days of an hourly export that nobody was there to start: each hour is made up for, in order, one after the other.
#[tokio::test]
async fn what_was_missed_is_made_up_for_in_order() -> Result<()> {
    let crons = Crons::new("cron-missed").await?;
    let spec = json!({
        "schedule": "0 * * * *",
        "concurrencyPolicy": "Queue",
        "successfulJobsHistoryLimit": 100,
        "missedRuns": { "policy": "All", "withinSeconds": 3600 * 24 * 7 },
    });
    crons.create_with_last_slot("export", spec, SignedDuration::from_hours(72)).await?;
    let _operator = crons.stage.operator().await?;
    let _kubelet = crons.all_succeed();
    let runs =
        crons.until_runs("export", "all have ended", |runs| runs.len() >= 71 && runs.iter().all(is_finished)).await;
    let slots: Vec<Timestamp> = runs.iter().filter_map(slot).collect();
    assert!(runs.len() == 72 || runs.len() == 71, "{}", runs.len());
    let mut in_order = slots.clone();
    in_order.sort();
    assert_eq!(slots, in_order);
    for pair in runs.windows(2) {
        let began = pair[1].metadata.creation_timestamp.as_ref().context("created")?.0;
        let ended = pair[0].status.as_ref().and_then(|status| status.completion_time.as_ref()).context("ended")?.0;
        assert!(began >= ended, "{} began before {} had ended", pair[1].name_any(), pair[0].name_any());
    }
    let status = crons.until("export", "nothing waits", |status| status.held == Some(0)).await;
    assert_eq!(status.missed, Some(0), "{:?}", status.gaps);
    Ok(())
}

/// Twenty schedules come back at once, and share one limit: half of them with all that they have missed, half with the latest.
#[tokio::test]
async fn after_three_days_a_fleet_comes_back_within_the_limit_of_its_group() -> Result<()> {
    const LIMIT: usize = 3;
    let crons = Crons::new("cron-fleet").await?;
    for n in 0..20 {
        let (policy, missed) = if n % 2 == 0 { ("Queue", "All") } else { ("Allow", "Latest") };
        let spec = json!({
            "schedule": "0 */6 * * *", "concurrencyPolicy": policy, "missedRuns": { "policy": missed },
            "concurrencyGroup": { "name": "warehouse", "maxActive": LIMIT }, "successfulJobsHistoryLimit": 100,
        });
        crons.create_with_last_slot(&format!("etl-{n}"), spec, SignedDuration::from_hours(72)).await?;
    }
    let began = crons.stage.jobs.list(&ListParams::default()).await?.metadata.resource_version.context("a version")?;
    let _operator = crons.stage.operator().await?;
    let _kubelet = crons.all_succeed();
    for n in 0..20 {
        let name = format!("etl-{n}");
        let is_over = |status: &BatchCronJobStatus| status.held == Some(0) && status.active_runs == Some(0);
        let status = crons.until(&name, "all has run", is_over).await;
        let (n_runs, n_missed) = (crons.runs(&name).await?.len() as i64, status.missed.unwrap_or_default());
        // Twelve slots in three days, and one that may come meanwhile.
        assert!((12..=13).contains(&(n_runs + n_missed)), "{name}: {n_runs} and {n_missed} slots");
        assert_eq!(n_missed == 0, n % 2 == 0, "{name}: {:?}", status.gaps);
    }
    let n_runs = crons.stage.jobs.list(&ListParams::default()).await?.items.len();
    let mut changes = Box::pin(crons.stage.jobs.watch(&WatchParams::default(), &began).await?);
    let (mut active, mut ended, mut most) = (BTreeSet::new(), BTreeSet::new(), 0);
    while ended.len() < n_runs {
        let change = changes.try_next().await?.context("the watch has ended")?;
        let (WatchEvent::Added(run) | WatchEvent::Modified(run)) = change else { continue };
        let name = run.name_any();
        if is_finished(&run) {
            active.remove(&name);
            ended.insert(name);
        } else {
            active.insert(name);
        }
        most = most.max(active.len());
    }
    assert_eq!(most, LIMIT);
    Ok(())
}

/// As a CronJob: `should be able to schedule after more than 100 missed schedule`.
#[tokio::test]
async fn after_more_than_a_hundred_missed_slots_the_latest_runs() -> Result<()> {
    let crons = Crons::new("cron-hundred").await?;
    crons.create_with_last_slot("etl", json!({ "schedule": "*/5 * * * *" }), SignedDuration::from_hours(20)).await?;
    let _operator = crons.stage.operator().await?;
    let runs = crons.until_runs("etl", "one", |runs| !runs.is_empty()).await;
    let status = crons.until("etl", "the others are missed", |status| status.missed > Some(200)).await;
    assert_eq!(status.last_schedule_time.map(|time| time.0), slot(&runs[0]));
    crons.until_told("etl", "TooManyMissedTimes").await;
    Ok(())
}

/// Whose it is says its owner, and not its name.
#[tokio::test]
async fn a_batch_job_that_has_the_name_of_a_run_is_left_alone() -> Result<()> {
    let crons = Crons::new("cron-name-taken").await?;
    let spec = json!({ "schedule": "0 * * * *", "maxActive": 10, "missedRuns": { "policy": "All" } });
    crons.create_with_last_slot("etl", spec, SignedDuration::from_hours(4)).await?;
    let hours = now()?.as_second() / 3600;
    let taken = format!("etl-{}", (hours - 1) * 60);
    let foreign =
        json!({ "metadata": { "name": taken }, "spec": { "suspend": true, "template": template(json!({})) } });
    let foreign = crons.stage.jobs.create(&PostParams::default(), &serde_json::from_value(foreign)?).await?;
    let _operator = crons.stage.operator().await?;
    let is_told = |status: &BatchCronJobStatus| status.gaps.iter().any(|gap| gap.reason == "NameTaken");
    let status = crons.until("etl", "the slot of the taken name is passed by", is_told).await;
    assert_eq!(status.missed, Some(1), "{:?}", status.gaps);
    crons.until_told("etl", "MissSchedule: Missed scheduled time to start a run: ").await;
    let runs = crons.until_runs("etl", "the other slots have theirs", |runs| runs.len() >= 3).await;
    assert!(runs.iter().all(|run| run.name_any() != taken));
    let after = crons.stage.jobs.get(&taken).await?;
    assert_eq!((&after.metadata.uid, &after.spec), (&foreign.metadata.uid, &foreign.spec));
    assert_eq!((after.owner_references(), after.metadata.deletion_timestamp.as_ref()), (&[][..], None));
    Ok(())
}

#[tokio::test]
async fn a_trigger_starts_a_run_and_the_event_says_who_it_was() -> Result<()> {
    let crons = Crons::new("cron-trigger").await?;
    let _operator = crons.stage.operator().await?;
    crons.create("etl", json!({ "schedule": NEVER, "suspend": true })).await?;
    crons.until("etl", "suspended", |status| condition(status) == ["Suspended=True(Suspended)"]).await;
    let annotation = format!("{}=now", keys::TRIGGER);
    crons.stage.kubectl(&["annotate", "batchcronjob", "etl", &annotation]).await?;
    let runs = crons.until_runs("etl", "one", |runs| !runs.is_empty()).await;
    assert_eq!(runs[0].annotations()[keys::INSTANTIATE], "manual");
    let told = crons.until_told("etl", "triggered by hand").await;
    assert!(told.contains("triggered by hand by kubectl-annotate at 20"), "{told}");
    crons.succeed(&runs[0].name_any()).await?;
    let status = crons.until("etl", "it has ended", |status| status.last_run.is_some()).await;
    assert_eq!((status.last_result.as_deref(), status.last_schedule_time), (Some("Succeeded"), None));
    // The same value starts nothing.
    crons.stage.kubectl(&["annotate", "batchcronjob", "etl", &annotation, "other=x"]).await?;
    let seen = format!("{}=again", keys::TRIGGER);
    crons.stage.kubectl(&["annotate", "--overwrite", "batchcronjob", "etl", &seen]).await?;
    crons.until_runs("etl", "two", |runs| runs.len() == 2).await;
    Ok(())
}

#[tokio::test]
async fn resuming_fires_nothing_that_is_over() -> Result<()> {
    let crons = Crons::new("cron-resume").await?;
    let spec = json!({ "schedule": "*/5 * * * *", "suspend": true, "suspendReason": "moving house" });
    crons.create_with_last_slot("etl", spec, SignedDuration::from_hours(20)).await?;
    let _operator = crons.stage.operator().await?;
    let status = crons.until("etl", "suspended", |status| condition(status) == ["Suspended=True(Suspended)"]).await;
    assert_eq!(status.conditions[0].message, "moving house");
    crons.change("etl", json!({ "spec": { "suspend": null } })).await?;
    let status = crons.until("etl", "resumed", |status| status.skipped > Some(0)).await;
    assert_eq!((status.gaps.len(), status.gaps[0].reason.as_str()), (1, "Suspended"));
    assert_eq!(condition(&status), ["Suspended=False(Resumed)", "Ready=True(Scheduled)"]);
    assert_eq!(status.next_schedule_times.len(), 3);
    assert_eq!(crons.runs("etl").await?.len(), 0);
    Ok(())
}

/// Its run is gone, so that the ledger alone knows of it.
#[tokio::test]
async fn a_slot_that_ran_does_not_run_again_when_its_status_is_wiped() -> Result<()> {
    let crons = Crons::new("cron-wiped").await?;
    let spec = json!({ "schedule": "0 */12 * * *", "successfulJobsHistoryLimit": 0 });
    crons.create_with_last_slot("etl", spec, SignedDuration::from_hours(24)).await?;
    let _operator = crons.stage.operator().await?;
    let _kubelet = crons.all_succeed();
    let has_run = |status: &BatchCronJobStatus| {
        status.last_result.is_some() && status.active_runs == Some(0) && status.held == Some(0)
    };
    let before = crons.until("etl", "it has run", has_run).await;
    crons.until_runs("etl", "the run is gone", <[BatchJob]>::is_empty).await;
    for wiped in [json!(null), json!({ "decidedUntil": null, "lastScheduleTime": null })] {
        crons.crons.patch_status("etl", &PatchParams::default(), &Patch::Merge(json!({ "status": wiped }))).await?;
        let is_back = |status: &BatchCronJobStatus| status.last_schedule_time == before.last_schedule_time;
        let after = crons.until("etl", "the ledger is written again", is_back).await;
        assert_eq!((after.decided_until, after.missed), (before.decided_until.clone(), before.missed));
    }
    let created = crons.events("etl").await?.into_iter().filter(|event| event.starts_with("SuccessfulCreate")).count();
    assert_eq!(created, 1);
    Ok(())
}

/// Somebody undoes our status as soon as it is written.
#[tokio::test]
async fn a_status_that_is_undone_again_and_again_is_put_back_ever_more_slowly() -> Result<()> {
    let crons = Crons::new("cron-reverted").await?;
    let _operator = crons.stage.operator().await?;
    let created = crons.create("etl", json!({ "schedule": NEVER })).await?;
    let mut seen =
        Box::pin(crons.crons.watch(&WatchParams::default(), &created.resource_version().context("a version")?).await?);
    let other = PatchParams { field_manager: Some("other".to_owned()), ..PatchParams::default() };
    let began = Instant::now();
    let mut put_back = Vec::new();
    while began.elapsed() < Duration::from_secs(12) {
        let Ok(change) = timeout(Duration::from_secs(1), seen.try_next()).await else { continue };
        let Some(WatchEvent::Modified(cron)) = change? else { continue };
        if cron.status.is_some_and(|status| status.active_runs == Some(0)) {
            put_back.push(began.elapsed());
            let wrong = json!({ "status": { "activeRuns": 7 } });
            crons.crons.patch_status("etl", &other, &Patch::Merge(wrong)).await?;
        }
    }
    // At once, twice again, and then after 2, 4 and 8 seconds.
    assert!((4..=6).contains(&put_back.len()), "{put_back:?}");
    crons
        .until_told("etl", "StatusReverted: what is written into the status is undone again and again, by other")
        .await;
    // What happens to it is written all the same, and at once.
    crons.change("etl", json!({ "spec": { "suspend": true } })).await?;
    let began = Instant::now();
    crons.until("etl", "it is suspended", |status| condition(status) == ["Suspended=True(Suspended)"]).await;
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    Ok(())
}

#[tokio::test]
async fn history_is_kept_up_to_its_limits() -> Result<()> {
    let crons = Crons::new("cron-history").await?;
    let _operator = crons.stage.operator().await?;
    let _kubelet = crons.all_succeed();
    let spec = json!({ "schedule": EVERY_SECOND, "successfulJobsHistoryLimit": 1, "concurrencyPolicy": "Forbid" });
    crons.create("etl", spec).await?;
    let first = crons.until_runs("etl", "one", |runs| !runs.is_empty()).await[0].name_any();
    crons.stage.until_gone(&first).await;
    crons.change("etl", json!({ "spec": { "suspend": true } })).await?;
    crons.until_runs("etl", "one is left", |runs| runs.len() == 1 && is_finished(&runs[0])).await;
    Ok(())
}

#[tokio::test]
async fn a_run_that_somebody_deletes_is_active_no_more() -> Result<()> {
    let crons = Crons::new("cron-gone").await?;
    let _operator = crons.stage.operator().await?;
    crons.create("etl", json!({ "schedule": EVERY_SECOND, "concurrencyPolicy": "Forbid" })).await?;
    crons.until("etl", "one is active", |status| status.active.len() == 1).await;
    let first = crons.runs("etl").await?[0].name_any();
    crons.change("etl", json!({ "spec": { "suspend": true } })).await?;
    crons.stage.jobs.delete(&first, &DeleteParams::background()).await?;
    crons.until("etl", "none is active", |status| status.active.is_empty()).await;
    crons.until_told("etl", &format!("MissingJob: Active run went missing: {first}")).await;
    Ok(())
}

/// What upstream's `should support CronJob API operations` does with a CronJob; nobody has to run it for that.
#[tokio::test]
async fn it_can_be_read_listed_watched_changed_and_deleted() -> Result<()> {
    let crons = Crons::new("cron-api").await?;
    let created = crons.create("etl", json!({ "schedule": NEVER, "suspend": true })).await?;
    let version = created.resource_version().context("a version")?;
    assert_eq!(crons.crons.get("etl").await?.metadata.uid, created.metadata.uid);
    assert_eq!(crons.crons.list(&ListParams::default()).await?.items.len(), 1);
    assert_eq!(
        Api::<BatchCronJob>::all(crons.stage.namespace.client.clone())
            .list(&ListParams::default())
            .await?
            .items
            .iter()
            .filter(|it| it.uid() == created.uid())
            .count(),
        1
    );
    let patched = crons.change("etl", json!({ "metadata": { "annotations": { "patched": "true" } } })).await?;
    assert_eq!(patched.annotations()["patched"], "true");
    let mut replaced = patched.clone();
    replaced.spec.suspend = None;
    let replaced = crons.crons.replace("etl", &PostParams::default(), &replaced).await?;
    assert_eq!((replaced.spec.suspend, replaced.metadata.generation), (None, Some(2)));
    let status = json!({ "status": { "lastScheduleTime": now()? } });
    let with_status = crons.crons.patch_status("etl", &PatchParams::default(), &Patch::Merge(status)).await?;
    assert!(with_status.status.is_some_and(|status| status.last_schedule_time.is_some()));
    let mut seen = Box::pin(crons.crons.watch(&WatchParams::default(), &version).await?);
    crons.crons.delete("etl", &DeleteParams::default()).await?;
    let mut n_changes = 0;
    while let Some(event) = seen.try_next().await? {
        match event {
            WatchEvent::Modified(_) => n_changes += 1,
            WatchEvent::Deleted(_) => break,
            _ => {}
        }
    }
    assert_eq!(n_changes, 3);
    assert!(crons.crons.get_opt("etl").await?.is_none());
    Ok(())
}

#[tokio::test]
async fn what_the_schedule_means_nothing_by_is_told() -> Result<()> {
    let crons = Crons::new("cron-invalid").await?;
    let _operator = crons.stage.operator().await?;
    crons.create("etl", json!({ "schedule": "30 25 * * *" })).await?;
    let status = crons.until("etl", "stalled", |status| !status.conditions.is_empty()).await;
    assert_eq!(condition(&status), ["Stalled=True(InvalidSchedule)", "Ready=False(InvalidSchedule)"]);
    assert!(status.conditions[0].message.starts_with("schedule: hour \"25\": 25 is not between 0 and 23; write "));
    crons.until_told("etl", "InvalidSchedule: schedule: hour").await;
    crons.change("etl", json!({ "spec": { "schedule": NEVER, "timeZone": "Mars/Olympus" } })).await?;
    let status = crons.until("etl", "another trouble", |status| status.observed_generation == Some(2)).await;
    assert!(condition(&status).contains(&"Stalled=True(UnknownTimeZone)".to_owned()), "{status:?}");
    crons.change("etl", json!({ "spec": { "timeZone": null } })).await?;
    crons.until("etl", "well", |status| condition(status) == ["Ready=True(Scheduled)"]).await;
    Ok(())
}

#[tokio::test]
async fn members_of_a_group_share_one_limit() -> Result<()> {
    let crons = Crons::new("cron-group").await?;
    let _operator = crons.stage.operator().await?;
    let spec = json!({
        "schedule": EVERY_SECOND, "concurrencyPolicy": "Queue", "maxActive": 10, "concurrencyGroup": { "name": "db", "maxActive": 2 },
    });
    for name in ["a", "b", "c"] {
        crons.create(name, spec.clone()).await?;
    }
    let active = async |crons: &Crons| -> Result<usize> {
        let runs = crons.stage.jobs.list(&ListParams::default()).await?.items;
        Ok(runs.iter().filter(|run| !is_finished(run)).count())
    };
    for name in ["a", "b", "c"] {
        crons.until(name, "it has come to its limit", |status| status.held >= Some(3)).await;
    }
    assert_eq!(active(&crons).await?, 2);
    let _kubelet = crons.all_succeed();
    for name in ["a", "b", "c"] {
        crons.until(name, "it had its turn", |status| status.last_result.is_some()).await;
        assert!(active(&crons).await? <= 2);
    }
    Ok(())
}

/// Neither has a slot that waits: what they wait for is told by the end of the other's run alone.
#[tokio::test]
async fn a_place_in_a_group_goes_to_a_run_that_was_triggered_by_hand() -> Result<()> {
    let crons = Crons::new("cron-places").await?;
    let _operator = crons.stage.operator().await?;
    let spec = json!({ "schedule": NEVER, "concurrencyGroup": { "name": "db" } });
    for name in ["a", "b"] {
        crons.create(name, spec.clone()).await?;
        crons.change(name, json!({ "metadata": { "annotations": { keys::TRIGGER: "now" } } })).await?;
    }
    let first =
        expect("one of them runs", async || Ok(crons.stage.jobs.list(&ListParams::default()).await?.items.pop())).await;
    let other = if first.labels()[keys::CRON_JOB_NAME] == "a" { "b" } else { "a" };
    crons.until(other, "the other waits", |status| status.held == Some(1)).await;
    crons.succeed(&first.name_any()).await?;
    crons.until_runs(other, "its turn has come", |runs| runs.len() == 1).await;
    Ok(())
}

/// It is killed again and again, and no slot is started twice or lost.
#[tokio::test]
async fn no_slot_is_lost_or_started_twice_when_the_operator_is_killed() -> Result<()> {
    let crons = Crons::new("cron-kill").await?;
    let start = async || -> Result<Operator> { crons.stage.operator().await };
    let mut operator = start().await?;
    crons.create("etl", json!({ "schedule": EVERY_SECOND, "concurrencyPolicy": "Queue", "maxActive": 1000 })).await?;
    for n in [2, 4, 7, 9] {
        crons.until_runs("etl", "some more", |runs| runs.len() >= n).await;
        operator.kill()?;
        operator = start().await?;
    }
    crons.until_runs("etl", "twenty", |runs| runs.len() >= 20).await;
    crons.change("etl", json!({ "spec": { "suspend": true } })).await?;
    let is_suspended = |status: &BatchCronJobStatus| condition(status) == ["Suspended=True(Suspended)"];
    let status = crons.until("etl", "suspended", is_suspended).await;
    let slots: Vec<Timestamp> = crons.runs("etl").await?.iter().filter_map(slot).collect();
    let (first, last) = (slots.iter().min().context("one")?, slots.iter().max().context("one")?);
    let n_slots = last.duration_since(*first).as_secs() + 1;
    let n_left = status.missed.unwrap_or_default() + status.skipped.unwrap_or_default();
    assert_eq!(slots.len() as i64 + n_left + status.waiting.len() as i64, n_slots, "{status:?}");
    drop(operator);
    Ok(())
}

#[tokio::test]
async fn a_backfill_runs_a_range_of_the_past_once_and_in_order() -> Result<()> {
    let crons = Crons::new("cron-backfill").await?;
    let _operator = crons.stage.operator().await?;
    let _kubelet = crons.all_succeed();
    let spec = json!({
        "schedule": "0 3 * * *",
        "successfulJobsHistoryLimit": 100,
        "backfill": { "from": "2026-03-01T00:00:00Z", "to": "2026-03-05T12:00:00Z" },
    });
    crons.create("report", spec).await?;
    let is_complete = |status: &BatchCronJobStatus| status.backfill.as_ref().is_some_and(|it| it.is_complete);
    let status = crons.until("report", "the backfill is complete", is_complete).await;
    assert_eq!(status.backfill.map(|it| (it.started, it.left_out)), Some((5, 0)));
    let slots: Vec<String> = crons.runs("report").await?.iter().filter_map(slot).map(|slot| slot.to_string()).collect();
    assert_eq!(slots, (1..=5).map(|day| format!("2026-03-0{day}T03:00:00Z")).collect::<Vec<_>>());
    crons.until_told("report", "BackfillCompleted: The backfill is complete: 5 slots started, 0 had run").await;
    let more = json!({ "spec": { "backfill": { "to": "2026-03-06T12:00:00Z" } } });
    crons.change("report", more).await?;
    let status =
        crons.until("report", "and so is a longer one", |status| !status.backfilled.is_empty() && is_complete(status));
    assert_eq!(status.await.backfill.map(|it| (it.started, it.left_out)), Some((1, 5)));
    Ok(())
}

#[tokio::test]
async fn its_runs_go_with_it() -> Result<()> {
    let crons = Crons::new("cron-delete").await?;
    let _operator = crons.stage.operator().await?;
    crons.create("etl", json!({ "schedule": EVERY_SECOND })).await?;
    let first = crons.until_runs("etl", "one", |runs| !runs.is_empty()).await[0].name_any();
    crons.stage.pod(&first, 0, 1).await;
    crons.crons.delete("etl", &DeleteParams::foreground()).await?;
    expect("all is gone", async || {
        let is_there = crons.crons.get_opt("etl").await?.is_some();
        Ok((!is_there && crons.runs("etl").await?.is_empty()).then_some(()))
    })
    .await;
    crons.stage.until_pods(&first, "gone", <[_]>::is_empty).await;
    Ok(())
}

/// What kubectl shows, as users read it.
#[tokio::test]
async fn the_columns_tell_how_it_stands() -> Result<()> {
    let crons = Crons::new("cron-columns").await?;
    let _operator = crons.stage.operator().await?;
    crons.create("etl", json!({ "schedule": NEVER, "timeZone": "Europe/Berlin" })).await?;
    crons.until("etl", "well", |status| condition(status) == ["Ready=True(Scheduled)"]).await;
    let shown = crons.stage.kubectl(&["get", "bcj"]).await?;
    let mut lines = shown.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let heads = lines.next().context("heads")?.join(" ");
    assert_eq!(heads, "NAME SCHEDULE TIMEZONE SUSPEND ACTIVE LAST SCHEDULE LAST RESULT NEXT AGE");
    let row = lines.next().context("a row")?.join(" ");
    assert!(row.starts_with("etl 0 0 29 2 * Europe/Berlin 0 2028-02-29T00:00:00+01:00"), "{row}");
    Ok(())
}
