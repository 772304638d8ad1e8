//! What becomes of slots that nobody was there to start.

use serde_json::json;

use crate::world::{World, every_minute};

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

/// Between the create of the first and the write of the status it looks once more.
#[test]
fn with_all_those_that_wait_for_the_first_count_with_it() {
    let mut world = World::new(json!({
        "schedule": "0 * * * *", "concurrencyPolicy": "Queue", "missedRuns": { "policy": "All", "maxRuns": 3 },
    }));
    world.away_until("2026-01-05T10:30:00Z");
    world.look();
    assert_eq!(world.active().len(), 1);
    for _ in 0..3 {
        world.end_all();
    }
    assert_eq!(world.slots(), ["2026-01-05T08:00:00Z", "2026-01-05T09:00:00Z", "2026-01-05T10:00:00Z"]);
    assert_eq!(world.gaps(), ["TooManyMissed 7 2026-01-05T01:00:00Z 2026-01-05T07:00:00Z"]);
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
