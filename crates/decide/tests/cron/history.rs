//! What is kept, and what the runs say about the schedule.

use serde_json::json;

use crate::world::{World, at, every_minute};

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
    let told = world.ready();
    assert!(told.contains("Stalled=True LastRunFailed: run etl-29459521 has failed: BackoffLimitExceeded"), "{told}");
    world.until("2026-01-05T00:02:00Z");
    world.end("etl-29459522", true);
    assert_eq!(world.ready(), "Ready=True Scheduled: it runs when its schedule says so");
}
