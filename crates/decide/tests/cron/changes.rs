//! What users change, and what they start by hand.

use serde_json::json;

use crate::world::{World, every_minute};

#[test]
fn neither_an_edit_nor_a_resume_fires_an_old_slot() {
    let mut world = World::new(json!({ "schedule": "0 12 * * *" }));
    world.until("2026-01-05T10:00:00Z");
    world.edit(json!({ "schedule": "0 9 * * *" }));
    world.until("2026-01-05T20:00:00Z");
    assert_eq!(world.slots(), [""; 0]);
    assert_eq!(world.gaps(), [""; 0], "neither schedule has named anything so far");
    world.edit(json!({ "suspend": true, "suspendReason": "the warehouse is being moved" }));
    assert_eq!(world.ready(), "Suspended=True Suspended: the warehouse is being moved");
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
    assert_eq!(world.ready(), "Ready=True Ended: there is no slot any more");
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
