//! What goes wrong.

use batchjob_decide::cron::observed::Obstacle;
use serde_json::json;

use crate::world::{World, at, every_minute};

#[test]
fn what_means_nothing_is_told_with_the_field_and_what_to_write() {
    let told = |spec: serde_json::Value| {
        let mut world = World::new(spec);
        world.until("2026-01-05T00:10:00Z");
        assert_eq!(world.started.len(), 0);
        assert_eq!(world.events.len(), 1, "{:?}", world.events);
        world.ready()
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
    assert_eq!(world.ready(), "Ready=True Scheduled: it runs when its schedule says so");
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
