//! What is filled in.

use batchjob_decide::cron::observed::{Group, Obstacle};
use serde_json::json;

use crate::world::World;

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
