//! What starts while earlier runs have not ended.

use batchjob_decide::cron::observed::Group;
use serde_json::json;

use crate::world::{World, every_minute};

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
