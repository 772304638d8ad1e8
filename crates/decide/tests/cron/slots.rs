//! Which runs are started when, and what they are told.

use batchjob_crd::keys;
use batchjob_decide::cron::plan::Start;
use batchjob_decide::cron::run;
use serde_json::json;

use crate::world::{World, at, every_minute};

#[test]
fn each_slot_is_started_when_it_comes_and_runs_go_on_beside_each_other() {
    let mut world = every_minute("Allow");
    world.until("2026-01-05T00:03:30Z");
    assert_eq!(world.slots(), ["2026-01-05T00:01:00Z", "2026-01-05T00:02:00Z", "2026-01-05T00:03:00Z"]);
    assert_eq!(world.delays(), [0, 0, 0]);
    let status = world.status();
    assert_eq!(status.last_schedule_time.as_ref().map(|time| time.0), Some(at("2026-01-05T00:03:00Z")));
    assert_eq!((status.active.len(), status.active_runs), (3, Some(3)));
    assert_eq!(status.next_schedule_times, ["2026-01-05T00:04:00Z", "2026-01-05T00:05:00Z", "2026-01-05T00:06:00Z"]);
    assert_eq!(world.ready(), "Ready=True Scheduled: it runs when its schedule says so");
    assert_eq!(world.events[0], "SuccessfulCreate: Created run etl-29459521 for 2026-01-05T00:01:00Z");
    world.is_accounted_for();
}

#[test]
fn the_container_is_told_its_slot() {
    let mut world = World::new(json!({
        "schedule": "30 2 * * *",
        "timeZone": "Europe/Berlin",
        "jobTemplate": { "metadata": { "labels": { "app": "etl" }, "annotations": { "note": "x" } } },
    }));
    world.until("2026-01-05T02:00:00Z");
    let slot =
        Start { name: "etl-1".to_owned(), time: at("2026-01-05T01:30:00Z"), is_manual: false, is_backfill: false };
    let job = run::build(&world.observed.cron, &slot);
    let told = "2026-01-05T02:30:00+01:00";
    let annotations = job.metadata.annotations.expect("annotations");
    assert_eq!(annotations[keys::SCHEDULED_TIMESTAMP], told);
    assert_eq!(annotations["note"], "x");
    assert_eq!(job.metadata.labels.expect("labels")["app"], "etl");
    let template = job.spec.template;
    let of_pods = template.metadata.and_then(|metadata| metadata.annotations).expect("annotations");
    assert_eq!(of_pods[keys::SCHEDULED_TIMESTAMP], told);
    let env = template.spec.expect("a spec").containers[0].env.clone().expect("variables");
    assert_eq!((env[0].name.as_str(), env[0].value.as_deref()), ("CRONJOB_SCHEDULED_TIMESTAMP", Some(told)));
    let owner = &job.metadata.owner_references.expect("owners")[0];
    assert_eq!((owner.kind.as_str(), owner.controller), ("BatchCronJob", Some(true)));
    assert_eq!(world.slots(), ["2026-01-05T01:30:00Z"]);
    assert_eq!(world.status().next_schedule_times[0], "2026-01-06T02:30:00+01:00");
}

#[test]
fn several_expressions_are_one_schedule_and_a_slot_that_two_name_runs_once() {
    let mut world = World::new(json!({ "schedules": ["0 6 * * *", "0 */6 * * *"] }));
    world.until("2026-01-05T13:00:00Z");
    assert_eq!(world.slots(), ["2026-01-05T06:00:00Z", "2026-01-05T12:00:00Z"]);
    assert_eq!(world.status().schedule.as_deref(), Some("0 6 * * *; 0 */6 * * *"));
}

#[test]
fn seconds_have_slots_of_their_own() {
    let mut world = World::new(json!({ "schedule": "*/20 * * * * *" }));
    world.until("2026-01-05T00:01:10Z");
    let slots = ["2026-01-05T00:00:20Z", "2026-01-05T00:00:40Z", "2026-01-05T00:01:00Z"];
    assert_eq!(world.slots(), slots);
    world.is_accounted_for();
}
