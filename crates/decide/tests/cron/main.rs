//! BatchCronJobs, from their creation on: what is started when, and what is said about the rest.

mod random;
mod world;

use batchjob_crd::keys;
use batchjob_decide::cron::observed::{Group, Obstacle};
use batchjob_decide::cron::plan::Start;
use batchjob_decide::cron::run;
use serde_json::json;
use world::{World, at};

fn every_minute(policy: &str) -> World {
    World::new(json!({ "schedule": "* * * * *", "concurrencyPolicy": policy }))
}

fn ready(world: &World) -> String {
    let conditions = world.status().conditions.iter();
    let told = conditions.map(|it| format!("{}={} {}: {}", it.type_, it.status, it.reason, it.message));
    told.collect::<Vec<_>>().join("\n")
}

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
    assert_eq!(ready(&world), "Ready=True Scheduled: it runs when its schedule says so");
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

// What was missed.

#[test]
fn after_a_time_away_the_latest_slot_runs() {
    let mut world = every_minute("Allow");
    world.until("2026-01-05T00:01:30Z");
    world.away_until("2026-01-05T04:00:30Z");
    world.until("2026-01-05T04:01:30Z");
    assert_eq!(world.slots(), ["2026-01-05T00:01:00Z", "2026-01-05T04:00:00Z", "2026-01-05T04:01:00Z"]);
    assert_eq!(world.gaps(), ["Missed 238 2026-01-05T00:02:00Z 2026-01-05T03:59:00Z"]);
    assert_eq!((world.status().missed, world.status().skipped), (Some(238), Some(0)));
    let told = world.events.iter().find(|event| event.starts_with("TooManyMissedTimes")).expect("an event");
    assert!(told.contains("238 slots from 2026-01-05T00:02:00Z to 2026-01-05T03:59:00Z"), "{told}");
    world.is_accounted_for();
}

#[test]
fn with_all_each_slot_that_was_missed_runs_in_order_and_no_more_at_once_than_allowed() {
    let mut world = World::new(json!({
        "schedule": "0 * * * *", "concurrencyPolicy": "Forbid", "missedRuns": { "policy": "All" },
    }));
    world.away_until("2026-01-05T03:30:00Z");
    world.look();
    assert_eq!(world.active().len(), 1);
    assert_eq!((world.status().held, world.status().waiting.len()), (Some(2), 2));
    for _ in 0..3 {
        world.end_all();
        assert!(world.active().len() <= 1);
    }
    assert_eq!(world.slots(), ["2026-01-05T01:00:00Z", "2026-01-05T02:00:00Z", "2026-01-05T03:00:00Z"]);
    assert_eq!(world.gaps(), [""; 0]);
    world.is_accounted_for();
}

#[test]
fn with_all_no_more_run_than_max_runs_and_none_that_is_too_old() {
    let all = |missed| {
        let mut world = World::new(json!({ "schedule": "0 * * * *", "maxActive": 100, "missedRuns": missed }));
        world.away_until("2026-01-05T10:30:00Z");
        world.look();
        world.is_accounted_for();
        (world.slots().len(), world.gaps())
    };
    let two = all(json!({ "policy": "All", "maxRuns": 2 }));
    assert_eq!(two, (2, vec!["TooManyMissed 8 2026-01-05T01:00:00Z 2026-01-05T08:00:00Z".to_owned()]));
    let young = all(json!({ "policy": "All", "withinSeconds": 2 * 3600 }));
    assert_eq!(young, (2, vec!["Missed 8 2026-01-05T01:00:00Z 2026-01-05T08:00:00Z".to_owned()]));
    let latest = all(json!({ "policy": "Latest", "withinSeconds": 60 }));
    assert_eq!(latest, (0, vec!["Missed 10 2026-01-05T01:00:00Z 2026-01-05T10:00:00Z".to_owned()]));
    let none = all(json!({ "policy": "None" }));
    assert_eq!(none, (0, vec!["Missed 10 2026-01-05T01:00:00Z 2026-01-05T10:00:00Z".to_owned()]));
}

#[test]
fn a_slot_that_is_later_than_its_deadline_is_missed_once_and_for_all() {
    let mut world = World::new(json!({ "schedule": "0 * * * *", "startingDeadlineSeconds": 600 }));
    world.away_until("2026-01-05T01:10:01Z");
    world.look();
    assert_eq!(world.slots(), [""; 0]);
    assert_eq!(world.gaps(), ["DeadlineExceeded 1 2026-01-05T01:00:00Z 2026-01-05T01:00:00Z"]);
    let events = world.events.len();
    world.away_until("2026-01-05T01:20:00Z");
    world.look();
    assert_eq!(world.events.len(), events, "and told once");
    world.away_until("2026-01-05T02:10:00Z");
    world.look();
    assert_eq!(world.slots(), ["2026-01-05T02:00:00Z"]);
    world.is_accounted_for();
}

// While earlier runs have not ended.

#[test]
fn with_forbid_the_latest_slot_waits_until_the_run_before_it_has_ended() {
    let mut world = every_minute("Forbid");
    world.until("2026-01-05T00:03:30Z");
    assert_eq!(world.slots(), ["2026-01-05T00:01:00Z"]);
    assert_eq!(world.gaps(), ["Superseded 1 2026-01-05T00:02:00Z 2026-01-05T00:02:00Z"]);
    let because = world.status().held_because.as_deref();
    assert_eq!(because, Some("concurrencyPolicy Forbid: run etl-29459521 has not ended"));
    assert_eq!(world.events.iter().filter(|event| event.starts_with("JobAlreadyActive")).count(), 2);
    world.end_all();
    assert_eq!(world.slots(), ["2026-01-05T00:01:00Z", "2026-01-05T00:03:00Z"]);
    assert_eq!(world.status().held_because, None);
    world.is_accounted_for();
}

#[test]
fn with_forbid_a_slot_that_has_waited_too_long_is_not_started() {
    let mut world = every_minute("Forbid");
    world.edit(json!({ "startingDeadlineSeconds": 30 }));
    world.until("2026-01-05T00:02:31Z");
    world.end_all();
    assert_eq!(world.slots(), ["2026-01-05T00:01:00Z"]);
    assert_eq!(world.gaps(), ["DeadlineExceeded 1 2026-01-05T00:02:00Z 2026-01-05T00:02:00Z"]);
    world.is_accounted_for();
}

#[test]
fn with_replace_the_run_before_it_is_deleted() {
    let mut world = every_minute("Replace");
    world.until("2026-01-05T00:03:30Z");
    assert_eq!(world.started.len(), 3);
    assert_eq!(world.active(), ["etl-29459523"]);
    assert_eq!(world.status().active.len(), 1);
    assert!(world.events.contains(&"SuccessfulDelete: Deleted run etl-29459521".to_owned()), "{:?}", world.events);
    world.is_accounted_for();
}

#[test]
fn with_queue_every_slot_waits_for_its_turn() {
    let mut world = every_minute("Queue");
    world.until("2026-01-05T00:04:30Z");
    assert_eq!((world.active().len(), world.status().held), (1, Some(3)));
    for _ in 0..3 {
        world.end_all();
    }
    assert_eq!(world.slots().len(), 4);
    assert!(world.slots().is_sorted());
    assert_eq!(world.gaps(), [""; 0]);
    world.is_accounted_for();
}

#[test]
fn max_active_lets_several_run_and_no_more() {
    let mut world = World::new(json!({ "schedule": "* * * * *", "maxActive": 2 }));
    world.until("2026-01-05T00:04:30Z");
    assert_eq!(world.slots(), ["2026-01-05T00:01:00Z", "2026-01-05T00:02:00Z"]);
    assert_eq!(world.status().held_because.as_deref(), Some("maxActive: 2 runs have not ended"));
    world.end("etl-29459521", true);
    assert_eq!(world.slots().last().map(String::as_str), Some("2026-01-05T00:04:00Z"));
    world.is_accounted_for();
}

#[test]
fn a_group_has_one_limit_and_the_smallest_counts() {
    let group = json!({ "name": "warehouse", "maxActive": 3 });
    let mut world = World::new(json!({ "schedule": "* * * * *", "concurrencyGroup": group }));
    world.observed.group = Group { n_active: 2, limit: Some(2) };
    world.until("2026-01-05T00:02:30Z");
    assert_eq!(world.slots(), [""; 0]);
    let because = world.status().held_because.clone().unwrap_or_default();
    assert!(because.starts_with("concurrencyGroup warehouse"), "{because}");
    world.observed.group.n_active = 1;
    world.look();
    assert_eq!(world.slots(), ["2026-01-05T00:02:00Z"]);
}

#[test]
fn a_run_that_is_being_deleted_still_takes_its_place() {
    let mut world = every_minute("Forbid");
    world.until("2026-01-05T00:01:30Z");
    world.observed.runs[0].is_deleted = true;
    world.until("2026-01-05T00:02:30Z");
    assert_eq!(world.started.len(), 1);
    assert_eq!(world.status().active.len(), 0);
    world.observed.runs.clear();
    world.look();
    assert_eq!(world.started.len(), 2);
    assert!(world.events.iter().all(|event| !event.starts_with("MissingJob")), "{:?}", world.events);
}

// What users change.

#[test]
fn neither_an_edit_nor_a_resume_fires_an_old_slot() {
    let mut world = World::new(json!({ "schedule": "0 12 * * *" }));
    world.until("2026-01-05T10:00:00Z");
    world.edit(json!({ "schedule": "0 9 * * *" }));
    world.until("2026-01-05T20:00:00Z");
    assert_eq!(world.slots(), [""; 0]);
    assert_eq!(world.gaps(), [""; 0], "neither schedule has named anything so far");
    world.edit(json!({ "suspend": true, "suspendReason": "the warehouse is being moved" }));
    assert_eq!(ready(&world), "Suspended=True Suspended: the warehouse is being moved");
    assert!(world.status().next_schedule_times.is_empty());
    world.until("2026-01-07T10:00:00Z");
    world.edit(json!({ "suspend": false }));
    world.until("2026-01-08T08:00:00Z");
    assert_eq!(world.slots(), [""; 0]);
    assert_eq!(world.gaps()[0], "Suspended 2 2026-01-06T09:00:00Z 2026-01-07T09:00:00Z");
    assert_eq!(world.status().skipped, Some(2));
    world.until("2026-01-08T10:00:00Z");
    assert_eq!(world.slots(), ["2026-01-08T09:00:00Z"]);
}

#[test]
fn what_waits_is_not_started_after_the_schedule_was_changed() {
    let mut world = every_minute("Queue");
    world.until("2026-01-05T00:03:30Z");
    world.edit(json!({ "schedule": "0 * * * *" }));
    assert_eq!(world.status().held, Some(0));
    assert_eq!(world.gaps()[0], "ScheduleChanged 2 2026-01-05T00:02:00Z 2026-01-05T00:03:00Z");
}

#[test]
fn what_came_by_the_old_schedule_while_nobody_looked_is_told() {
    let mut world = World::new(json!({ "schedule": "0 9 * * *" }));
    world.look();
    world.away_until("2026-01-05T10:00:00Z");
    world.edit(json!({ "schedule": "0 8 * * *" }));
    assert_eq!(world.slots(), [""; 0]);
    assert_eq!(world.gaps(), ["ScheduleChanged ? 2026-01-05T09:00:00Z 2026-01-05T10:00:00Z"]);
}

#[test]
fn a_run_that_was_started_in_the_moment_of_an_edit_goes_on() {
    let mut world = every_minute("Queue");
    world.until("2026-01-05T00:02:30Z");
    for run in &mut world.observed.runs {
        let at = run.created;
        let reason = "CompletionsReached".to_owned();
        run.end = Some(batchjob_decide::cron::observed::End { succeeded: true, at, reason });
    }
    // The first write says that the run has ended; then the slot that waited is started.
    for _ in 0..2 {
        let plan = batchjob_decide::cron::decide(&world.observed);
        world.carry_out(plan);
    }
    assert_eq!(world.active(), ["etl-29459522"]);
    world.edit(json!({ "schedule": "0 * * * *" }));
    assert_eq!(world.active(), ["etl-29459522"]);
    assert_eq!(world.gaps(), [""; 0]);
}

#[test]
fn any_other_edit_leaves_what_waits() {
    let mut world = every_minute("Queue");
    world.until("2026-01-05T00:03:30Z");
    world.edit(json!({ "jobTemplate": { "metadata": { "labels": { "a": "b" } } }, "jitterSeconds": 0 }));
    assert_eq!(world.status().held, Some(2));
}

#[test]
fn a_trigger_starts_one_run_for_each_value() {
    let mut world = World::new(json!({ "schedule": "0 0 1 1 *", "concurrencyPolicy": "Forbid" }));
    world.until("2026-01-05T10:00:00Z");
    for value in ["now", "now", "again"] {
        world.cron().trigger = Some(value.to_owned());
        world.look();
    }
    assert_eq!(world.started.len(), 1);
    assert_eq!(world.status().held, Some(1), "it is counted as any other");
    world.end_all();
    assert_eq!(world.started.len(), 2);
    world.end_all();
    assert_eq!(world.status().last_schedule_time, None);
    assert!(world.events[0].ends_with("triggered by hand"), "{:?}", world.events);
    // A value that was there before is no new one; nor is none.
    for value in [None, Some("again")] {
        world.cron().trigger = value.map(str::to_owned);
        world.look();
    }
    assert_eq!(world.started.len(), 2);
}

#[test]
fn a_suspended_schedule_is_still_triggered_by_hand() {
    let mut world = World::new(json!({ "schedule": "* * * * *", "suspend": true }));
    world.until("2026-01-05T00:10:00Z");
    assert_eq!(world.started.len(), 0);
    world.cron().trigger = Some("x".to_owned());
    world.look();
    assert_eq!(world.started.len(), 1);
}

#[test]
fn slots_are_within_their_bounds() {
    let mut world = World::new(json!({
        "schedule": "0 * * * *", "notBefore": "2026-01-05T02:00:00Z", "notAfter": "2026-01-05T03:00:00Z",
    }));
    world.until("2026-01-05T08:00:00Z");
    assert_eq!(world.slots(), ["2026-01-05T02:00:00Z", "2026-01-05T03:00:00Z"]);
    assert_eq!(ready(&world), "Ready=True Ended: there is no slot any more");
}

#[test]
fn jitter_delays_the_start_and_not_the_slot() {
    let mut world = World::new(json!({ "schedule": "0 * * * *", "jitterSeconds": 1800 }));
    world.until("2026-01-05T03:00:00Z");
    assert_eq!(world.slots()[..2], ["2026-01-05T01:00:00Z", "2026-01-05T02:00:00Z"]);
    let delays = world.delays();
    assert!(delays[0] == delays[1] && (1..=1800).contains(&delays[0]), "{delays:?}");
    world.is_accounted_for();
}

// What is filled in.

fn with_backfill(from: &str, to: &str) -> serde_json::Value {
    json!({ "backfill": { "from": from, "to": to } })
}

#[test]
fn a_backfill_runs_the_slots_before_its_creation_in_order_and_once() {
    let mut world = World::new(json!({ "schedule": "0 0 * * *", "successfulJobsHistoryLimit": 0 }));
    world.look();
    world.edit(with_backfill("2026-01-01T00:00:00Z", "2026-01-03T12:00:00Z"));
    for _ in 0..3 {
        assert_eq!(world.active().len(), 1, "one after the other");
        world.end_all();
    }
    let slots = ["2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z", "2026-01-03T00:00:00Z"];
    assert_eq!(world.slots(), slots);
    let backfill = world.status().backfill.clone().expect("a backfill");
    assert!(backfill.is_complete);
    assert_eq!((backfill.started, backfill.left_out), (3, 0));
    assert_eq!(world.events.iter().filter(|event| event.starts_with("BackfillCompleted")).count(), 1);
    assert_eq!(world.status().last_schedule_time, None, "the schedule has started nothing");
    // Another one that overlaps it, and then the first again.
    world.edit(with_backfill("2026-01-02T00:00:00Z", "2026-01-04T00:00:00Z"));
    world.end_all();
    assert_eq!(world.slots()[3..], ["2026-01-04T00:00:00Z"]);
    world.edit(with_backfill("2026-01-01T00:00:00Z", "2026-01-03T12:00:00Z"));
    world.edit(json!({ "backfill": null }));
    assert_eq!(world.slots().len(), 4);
    assert_eq!(world.status().backfilled.len(), 1);
}

#[test]
fn of_slots_that_came_since_a_backfill_runs_those_that_did_not_run() {
    let mut world = World::new(json!({ "schedule": "0 * * * *" }));
    world.until("2026-01-05T02:30:00Z");
    world.away_until("2026-01-05T05:30:00Z");
    world.look();
    world.end_all();
    assert_eq!(world.gaps(), ["Missed 2 2026-01-05T03:00:00Z 2026-01-05T04:00:00Z"]);
    world.edit(with_backfill("2026-01-05T00:30:00Z", "2026-01-06T00:00:00Z"));
    for _ in 0..2 {
        world.end_all();
    }
    assert_eq!(world.slots()[3..], ["2026-01-05T03:00:00Z", "2026-01-05T04:00:00Z"]);
    let backfill = world.status().backfill.clone().expect("a backfill");
    assert_eq!((backfill.started, backfill.left_out, backfill.is_complete), (2, 3, false));
    world.until("2026-01-06T00:00:01Z");
    assert!(world.status().backfill.as_ref().is_some_and(|it| it.is_complete), "its time is over");
    assert_eq!(world.slots().len(), 5 + 19, "what comes is for the schedule, and runs once");
    let names: std::collections::BTreeSet<_> = world.started.iter().map(|(name, _)| name).collect();
    assert_eq!(names.len(), world.started.len());
}

#[test]
fn a_backfill_has_a_limit_of_its_own_and_shares_that_of_the_group() {
    let mut world = World::new(json!({
        "schedule": "* * * * *", "concurrencyPolicy": "Forbid", "concurrencyGroup": { "name": "db", "maxActive": 4 },
        "backfill": { "from": "2026-01-04T00:00:00Z", "to": "2026-01-04T23:59:00Z", "maxActive": 2 },
    }));
    world.until("2026-01-05T00:01:30Z");
    assert_eq!(world.active().len(), 3, "two of the backfill, one of the schedule");
    world.observed.group = Group { n_active: 3, limit: Some(4) };
    world.end_all();
    assert_eq!(world.active().len(), 1);
    world.edit(json!({ "suspend": true }));
    world.observed.group = Group::default();
    world.end_all();
    assert_eq!(world.active().len(), 0, "a suspended one fills nothing in");
}

#[test]
fn a_slot_of_a_backfill_whose_name_is_taken_is_passed_by() {
    let mut world = World::new(json!({ "schedule": "0 0 * * *" }));
    world.look();
    world.edit(with_backfill("2026-01-02T00:00:00Z", "2026-01-03T00:00:00Z"));
    world.end_all();
    world.refuse(Obstacle::NameTaken(world.active()[0].clone()));
    assert_eq!(world.slots().len(), 2);
    let mut world = World::new(json!({ "schedule": "0 0 * * *" }));
    world.look();
    world.refuse(Obstacle::NameTaken("etl-29455200".to_owned()));
    world.edit(with_backfill("2026-01-02T00:00:00Z", "2026-01-03T00:00:00Z"));
    assert_eq!(world.slots(), ["2026-01-03T00:00:00Z"]);
}

// What is kept.

#[test]
fn history_is_kept_up_to_its_limits() {
    let mut world = every_minute("Allow");
    for minute in 1..=9 {
        world.until(&format!("2026-01-05T00:0{minute}:00Z"));
        let name = world.active()[0].clone();
        world.end(&name, minute % 3 != 0);
    }
    // Three that succeeded and one that failed.
    assert_eq!(world.kept(), ["etl-29459525", "etl-29459527", "etl-29459528", "etl-29459529"]);
    let status = world.status();
    assert_eq!(status.last_result.as_deref(), Some("Failed"));
    assert_eq!(status.last_run.as_ref().map(|run| run.name.as_str()), Some("etl-29459529"));
    assert_eq!(status.last_successful_time.as_ref().map(|time| time.0), Some(at("2026-01-05T00:08:00Z")));
    assert!(world.events.contains(&"SawCompletedJob: Saw completed run: etl-29459523, condition: Failed".to_owned()));
    world.edit(json!({ "successfulJobsHistoryLimit": 0, "failedJobsHistoryLimit": 0 }));
    assert_eq!(world.kept(), [""; 0]);
    assert_eq!(world.status().last_result.as_deref(), Some("Failed"), "what it was is still told");
}

#[test]
fn a_failure_is_forgotten_once_a_later_run_has_succeeded_if_so_asked() {
    let mut world = World::new(json!({ "schedule": "* * * * *", "failedJobsRetention": "UntilSuccess" }));
    world.until("2026-01-05T00:01:00Z");
    world.end("etl-29459521", false);
    assert_eq!(world.kept(), ["etl-29459521"]);
    world.until("2026-01-05T00:02:00Z");
    world.end("etl-29459522", true);
    assert_eq!(world.kept(), ["etl-29459522"]);
}

#[test]
fn runs_that_never_end_are_cleaned_up_if_so_asked() {
    let mut world = World::new(json!({ "schedule": "* * * * *", "unfinishedJobsHistoryLimit": 2 }));
    world.until("2026-01-05T00:05:00Z");
    assert_eq!(world.active(), ["etl-29459524", "etl-29459525"]);
    world.is_accounted_for();
}

#[test]
fn health_may_go_by_the_last_run() {
    let spec = json!({ "schedule": "* * * * *", "health": "LastRun", "failedJobsHistoryLimit": 0 });
    let mut world = World::new(spec);
    world.until("2026-01-05T00:01:00Z");
    world.end("etl-29459521", false);
    let told = ready(&world);
    assert!(told.contains("Stalled=True LastRunFailed: run etl-29459521 has failed: BackoffLimitExceeded"), "{told}");
    world.until("2026-01-05T00:02:00Z");
    world.end("etl-29459522", true);
    assert_eq!(ready(&world), "Ready=True Scheduled: it runs when its schedule says so");
}

// What goes wrong.

#[test]
fn what_means_nothing_is_told_with_the_field_and_what_to_write() {
    let told = |spec: serde_json::Value| {
        let mut world = World::new(spec);
        world.until("2026-01-05T00:10:00Z");
        assert_eq!(world.started.len(), 0);
        assert_eq!(world.events.len(), 1, "{:?}", world.events);
        ready(&world)
    };
    let wrong = told(json!({ "schedule": "61 * * * *" }));
    assert!(
        wrong.contains("Stalled=True InvalidSchedule: schedule: minute \"61\": 61 is not between 0 and 59"),
        "{wrong}"
    );
    let wrong = told(json!({ "schedules": ["* * * * *", "0 0 30 2 *"] }));
    assert!(wrong.contains("schedules[1]: \"0 0 30 2 *\" names no day within five years"), "{wrong}");
    let wrong = told(json!({ "schedule": "* * * * *", "timeZone": "Europe/Berln" }));
    assert!(wrong.contains("UnknownTimeZone: timeZone: there is no time zone \"Europe/Berln\""), "{wrong}");
}

#[test]
fn one_that_was_invalid_runs_again_once_it_is_mended_and_not_for_what_is_over() {
    let mut world = World::new(json!({ "schedule": "* * * * *" }));
    world.until("2026-01-05T00:01:30Z");
    world.edit(json!({ "schedule": "61 * * * *" }));
    world.until("2026-01-05T01:00:30Z");
    world.edit(json!({ "schedule": "*/2 * * * *" }));
    world.until("2026-01-05T01:02:30Z");
    assert_eq!(world.slots(), ["2026-01-05T00:01:00Z", "2026-01-05T01:02:00Z"]);
    assert_eq!(ready(&world), "Ready=True Scheduled: it runs when its schedule says so");
}

#[test]
fn a_run_that_is_refused_is_tried_again_and_the_user_is_told() {
    let mut world = every_minute("Allow");
    world.until("2026-01-05T00:00:59Z");
    world.away_until("2026-01-05T00:01:00Z");
    let retry_at = at("2026-01-05T00:01:30Z");
    world.refuse(Obstacle::Refused { message: "exceeded quota".to_owned(), retry_at });
    let plan = batchjob_decide::cron::decide(&world.observed);
    assert_eq!(plan.wake_at, Some(retry_at));
    let status = plan.status().expect("a status");
    assert_eq!(status.held_because.as_deref(), Some("cannot create a run: exceeded quota"));
    assert_eq!(status.conditions[0].reason, "RunRefused");
    world.observed.now = retry_at;
    world.look();
    assert_eq!(world.slots(), ["2026-01-05T00:01:00Z"]);
    world.is_accounted_for();
}

#[test]
fn a_refusal_is_forgotten_once_the_run_is_there_after_all() {
    let mut world = every_minute("Allow");
    world.until("2026-01-05T00:01:00Z");
    let retry_at = at("2026-01-05T00:01:30Z");
    world.refuse(Obstacle::Refused { message: "no answer in time".to_owned(), retry_at });
    assert!(batchjob_decide::cron::decide(&world.observed).is_empty());
}

/// The API server carries out what it did not answer, long after.
#[test]
fn a_run_that_comes_after_its_slot_was_decided_is_deleted() {
    let mut world = every_minute("Replace");
    world.until("2026-01-05T00:01:30Z");
    let late = batchjob_decide::cron::observed::Run { uid: "late".into(), ..world.observed.runs[0].clone() };
    world.until("2026-01-05T00:02:30Z");
    assert_eq!(world.active(), ["etl-29459522"]);
    world.observed.runs.push(late.clone());
    world.look();
    assert_eq!(world.active(), ["etl-29459522"]);
    // One that a person has made, under another name, is left alone.
    world.observed.runs.push(batchjob_decide::cron::observed::Run { name: "etl-by-hand".into(), ..late });
    world.look();
    assert_eq!(world.active(), ["etl-29459522", "etl-by-hand"]);
}

#[test]
fn a_name_that_is_taken_is_passed_by() {
    let mut world = every_minute("Allow");
    world.away_until("2026-01-05T00:01:00Z");
    world.refuse(Obstacle::NameTaken("etl-29459521".to_owned()));
    world.look();
    assert_eq!(world.started.len(), 0);
    assert_eq!(world.gaps(), ["NameTaken 1 2026-01-05T00:01:00Z 2026-01-05T00:01:00Z"]);
    world.until("2026-01-05T00:02:00Z");
    assert_eq!(world.slots(), ["2026-01-05T00:02:00Z"]);
}

#[test]
fn a_trigger_whose_name_is_taken_is_given_up() {
    let mut world = World::new(json!({ "schedule": "0 0 1 1 *" }));
    world.cron().trigger = Some("now".to_owned());
    let plan = batchjob_decide::cron::decide(&world.observed);
    let name = plan.starts().next().expect("a run").name.clone();
    world.refuse(Obstacle::NameTaken(name));
    world.look();
    assert_eq!((world.started.len(), world.status().held), (0, Some(0)));
    world.cron().trigger = Some("again".to_owned());
    world.look();
    assert_eq!(world.started.len(), 1);
}

#[test]
fn one_that_is_being_deleted_starts_nothing() {
    let mut world = every_minute("Allow");
    world.cron().is_deleted = true;
    world.until("2026-01-05T01:00:00Z");
    assert_eq!(world.started.len(), 0);
}

#[test]
fn a_ledger_that_was_taken_away_starts_no_slot_again() {
    let mut world = every_minute("Allow");
    world.until("2026-01-05T00:05:30Z");
    world.observed.runs.clear();
    world.cron().status.decided_until = None;
    world.look();
    assert_eq!(world.started.len(), 5);
}
