use batchjob_oracle::Law;
use serde_json::json;

use crate::world::{World, assert_broken, assert_kept};

#[test]
fn a_job_fails_when_its_limit_is_exceeded() {
    let job = |limit: u32| {
        let mut world = World::new(json!({ "completions": 2, "parallelism": 2, "backoffLimit": limit }));
        world.counts("", "", 0).create(0, 1).fails(0, 1);
        world
    };
    let mut world = job(0);
    world.status(json!({ "failed": 1, "openIndexes": "0:2/1@1000000" }));
    assert_broken(&world.cut(), Law::I7, "1 have failed of Some(0) that may");

    let mut world = job(1);
    world.status(json!({ "failed": 1 })).fails_for("BackoffLimitExceeded");
    let violations = world.cut();
    assert!(
        violations.iter().any(|found| found.law == Law::I7 && found.what.contains("it ends for BackoffLimitExceeded"))
    );

    let mut world = World::new(json!({ "backoffLimit": 0 }));
    world.counts("", "", 0).create(0, 1).fails(0, 1);
    let end = |type_: &str| json!({ "type": type_, "status": "True", "reason": "BackoffLimitExceeded" });
    world.status(json!({ "failed": 1, "conditions": [end("FailureTarget"), end("Failed")] }));
    assert_kept(&world.cut());
}

#[test]
fn a_job_is_complete_when_enough_is_done() {
    let mut world = World::new(json!({ "completions": 2, "parallelism": 2 }));
    world.counts("", "", 0).create(0, 1).succeeds(0, 1).counts("0", "", 0).completes();
    assert_broken(&world.cut(), Law::I7, "1 of Some(2) are done");
}

#[test]
fn success_policy_is_kept_to_the_letter() {
    let spec = json!({
        "completions": 3, "parallelism": 3, "completionMode": "Indexed",
        "successPolicy": { "rules": [{ "succeededIndexes": "0,1", "succeededCount": 1 }] },
    });
    let job = |index: u32| {
        let mut world = World::new(spec.clone());
        world.counts("", "", 0).create(index, 1).succeeds(index, 1);
        world
    };
    let enough = |completed: &str| {
        let decided = json!([{ "type": "SuccessCriteriaMet", "status": "True", "reason": "SuccessPolicy" }]);
        json!({ "completedIndexes": completed, "succeeded": 1, "conditions": decided })
    };
    let mut world = job(1);
    world.status(enough("1"));
    assert_kept(&world.cut());
    let mut world = job(2);
    world.status(enough("2"));
    assert_broken(&world.cut(), Law::I7, "no rule is met by 2");
    let mut world = job(0);
    world.counts("0", "", 0);
    assert_broken(&world.cut(), Law::I7, "it goes on, and 0 is enough");
}

#[test]
fn a_deadline_is_not_early() {
    for (seconds, is_kept) in [(4, false), (5, true)] {
        let mut world = World::new(json!({ "activeDeadlineSeconds": 6 }));
        world.counts("", "", 0).later(seconds).fails_for("DeadlineExceeded");
        assert_eq!(world.cut().is_empty(), is_kept, "{seconds}");
    }
}

#[test]
fn a_rule_fails_the_job_only_if_a_pod_matches_it() {
    for (exit_code, is_kept) in [(1, true), (2, false)] {
        let rule = json!({ "action": "FailJob", "onExitCodes": { "operator": "In", "values": [exit_code] } });
        let mut world = World::new(json!({ "podFailurePolicy": { "rules": [rule] } }));
        world.counts("", "", 0).create(0, 1).fails(0, 1);
        let end = |type_: &str| json!({ "type": type_, "status": "True", "reason": "PodFailurePolicy" });
        world.status(json!({ "failed": 1, "conditions": [end("FailureTarget"), end("Failed")] }));
        assert_eq!(world.cut().is_empty(), is_kept, "{exit_code}");
    }
}

#[test]
fn a_verdict_stands() {
    let mut world = World::new(json!({ "backoffLimit": 0 }));
    let decided = |reason: &str| json!([{ "type": "FailureTarget", "status": "True", "reason": reason }]);
    world.counts("", "", 0).create(0, 1).fails(0, 1);
    world.status(json!({ "failed": 1, "openIndexes": "0:2/1", "conditions": decided("BackoffLimitExceeded") }));
    world.status(json!({ "conditions": decided("DeadlineExceeded") }));
    assert_broken(&world.cut(), Law::I7, "it was to end for BackoffLimitExceeded");
}
