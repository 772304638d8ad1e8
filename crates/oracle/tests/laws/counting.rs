use batchjob_oracle::{Law, Promises};
use serde_json::json;

use crate::world::{World, assert_broken, assert_kept};

fn job() -> World {
    of(json!({ "completions": 4, "parallelism": 4, "completionMode": "Indexed" }))
}

fn of(spec: serde_json::Value) -> World {
    let mut world = World::with(Promises { deletions: true, ..Promises::default() }, "BatchJob", spec);
    world.counts("", "", 0);
    world
}

#[test]
fn a_failure_is_counted_once() {
    for (failed, words) in [(0, "by 0 instead of 1"), (2, "by 2 instead of 1")] {
        let mut world = job();
        world.create(0, 1).fails(0, 1).counts("", "0:2/1@1000000", failed);
        assert_broken(&world.cut(), Law::I3, words);
    }
    let mut world = job();
    world.create(0, 1).fails(0, 1).counts("", "0:2/1@1000000", 1);
    assert_kept(&world.cut());
}

#[test]
fn a_failure_is_not_counted_for_another_one() {
    let mut world = job();
    world.create(0, 1).create(1, 1).fails(0, 1).counts("", "1:2/1@1000000", 1);
    let violations = world.cut();
    assert!(
        violations.iter().any(|found| found.law == Law::I3 && found.what == "index 1 attempt 1 lives, and is passed")
    );
}

#[test]
fn its_index_is_told_of_it() {
    let mut world = job();
    world.create(0, 1).fails(0, 1).counts("", "0:2/0", 1);
    assert_broken(&world.cut(), Law::I3, "0+0 failures instead of 1+0");
}

#[test]
fn an_attempt_is_passed_without_being_counted_only_if_fewer_are_wanted() {
    let mut world = job();
    world.create(0, 1).counts("", "0:2/0", 0);
    assert_broken(&world.cut(), Law::I3, "lives, and is passed");

    let mut world = job();
    world.create(0, 1).edit(json!({ "suspend": true })).counts("", "0:2/0", 0).tell(0, 1).fails(0, 1).release(0, 1);
    assert_kept(&world.cut());

    let mut world = job();
    world.create(0, 1).create(1, 1).edit(json!({ "parallelism": 1 })).counts("", "1:2/0", 0).tell(1, 1);
    assert_kept(&world.cut());
}

#[test]
fn a_deleted_pod_has_failed() {
    let mut world = job();
    world.create(0, 1).tell(0, 1).counts("", "0:2/1@1000000", 1).fails(0, 1).release(0, 1).remove(0, 1);
    assert_kept(&world.cut());

    let mut world = job();
    world.create(0, 1).tell(0, 1).counts("", "0:2/0", 0);
    assert_broken(&world.cut(), Law::I3, "by 0 instead of 1");

    // With Failed not before it has ended.
    let mut world = of(json!({ "completions": 1, "podReplacementPolicy": "Failed" }));
    world.create(0, 1).tell(0, 1).counts("", "0:2/1@1000000", 1);
    let violations = world.cut();
    assert!(violations.iter().any(|found| found.what.contains("is being deleted, and is passed")), "{violations:?}");
}

#[test]
fn a_success_is_counted_and_nothing_else_is() {
    let mut world = job();
    world.create(0, 1).counts("0", "", 0);
    let violations = world.cut();
    assert!(violations.iter().any(|found| found.what.contains("and pods have succeeded of {}")), "{violations:?}");

    let mut world = job();
    world.create(0, 1).succeeds(0, 1).counts("", "0:2/0", 0);
    assert_broken(&world.cut(), Law::I3, "is passed without that being counted");

    let mut world = job();
    world.create(0, 1).create(1, 1).succeeds(0, 1).succeeds(1, 1).counts("0", "", 0).release(0, 1).counts("0,1", "", 0);
    assert_kept(&world.cut());
}

#[test]
fn a_success_stays() {
    let mut world = job();
    world.create(0, 1).succeeds(0, 1).counts("0", "", 0).edit(json!({ "parallelism": 5 })).counts("", "", 0);
    let violations = world.cut();
    assert!(violations.iter().any(|found| found.law == Law::I3 && found.what.contains("successes are lost")));

    // But for those of indexes that the job has no more.
    let mut world = job();
    world.create(3, 1).succeeds(3, 1).counts("3", "", 0).edit(json!({ "completions": 2, "parallelism": 2 }));
    world.counts("", "2-:2/0", 0);
    assert_kept(&world.cut());
}

/// It was told to go, and its index went on without it; that it succeeded after all is counted, or not.
#[test]
fn who_leaves_in_peace_may_be_counted() {
    for completed in ["0", ""] {
        let mut world = job();
        world.create(0, 1).tell(0, 1).counts("", "0:2/1@1000000", 1).succeeds(0, 1);
        world.counts(completed, if completed.is_empty() { "0:2/1@1000000" } else { "" }, 1).release(0, 1);
        assert_kept(&world.cut());
    }
}

#[test]
fn an_ignored_failure_does_not_count() {
    let rule = json!({ "action": "Ignore", "onExitCodes": { "operator": "In", "values": [1] } });
    let spec = json!({ "completions": 2, "parallelism": 2, "podFailurePolicy": { "rules": [rule] } });
    let mut world = of(spec.clone());
    world.create(0, 1).fails(0, 1).counts("", "0:2/0+1@1000000", 0).release(0, 1);
    assert_kept(&world.cut());
    let mut world = of(spec);
    world.create(0, 1).fails(0, 1).counts("", "0:2/1@1000000", 1);
    let violations = world.cut();
    assert!(violations.iter().any(|found| found.what.contains("by 1 instead of 0")), "{violations:?}");
}

#[test]
fn all_that_ends_once_it_fails_has_failed() {
    let run = |failed: u32| {
        let mut world = of(json!({ "completions": 3, "parallelism": 3, "backoffLimit": 0 }));
        world.create(0, 1).create(1, 1).create(2, 1).fails(0, 1);
        let decided = json!([{ "type": "FailureTarget", "status": "True", "reason": "BackoffLimitExceeded" }]);
        world.status(json!({ "conditions": decided, "failed": 1, "openIndexes": "0:2/1" }));
        world.tell(1, 1).fails(1, 1).succeeds(2, 1);
        world.status(json!({ "completedIndexes": "2", "succeeded": 1, "failed": failed, "openIndexes": "0,1:2/1" }));
        world.fails_for("BackoffLimitExceeded").release(0, 1).release(1, 1).release(2, 1);
        world.cut()
    };
    assert_kept(&run(2));
    assert_broken(&run(1), Law::I3, "by 0 instead of 1");
    assert_broken(&run(3), Law::I3, "by 2 instead of 1");
}

#[test]
fn a_pod_is_let_go_when_it_is_counted() {
    let mut world = job();
    world.create(0, 1).fails(0, 1).release(0, 1);
    assert_broken(&world.cut(), Law::I3, "is let go before it is counted");

    let mut world = job();
    world.create(0, 1).release(0, 1);
    assert_broken(&world.cut(), Law::I3, "before it has come to an end");

    // It goes together with its finalizer.
    let mut world = job();
    world.create(0, 1).tell(0, 1).fails(0, 1).remove(0, 1);
    assert_broken(&world.cut(), Law::I3, "is let go before it is counted");

    // One that no node has has no end to be waited for.
    let mut world = job();
    world.create(0, 1).change_pod(0, 1, json!({ "spec": { "nodeName": null } })).tell(0, 1);
    world.counts("", "0:2/1@1000000", 1).release(0, 1);
    assert_kept(&world.cut());

    // A job that is gone counts nothing any more.
    let mut world = job();
    world.create(0, 1).delete_job().release(0, 1);
    assert_kept(&world.cut());
}

#[test]
fn a_success_is_let_go_when_it_is_counted() {
    let mut world = job();
    world.create(0, 1).edit(json!({ "suspend": true })).succeeds(0, 1).counts("", "0:2/0", 0).release(0, 1);
    assert_broken(&world.cut(), Law::I3, "has succeeded, and is let go without that being counted");

    // It was of an index that the job had no more when it ended; that somebody makes it larger later changes nothing.
    let shrunk = |end: u32| {
        let mut world = of(json!({ "completions": 4, "parallelism": 4, "completionMode": "Indexed" }));
        world.create(0, 1).create(2, 1).succeeds(0, 1).succeeds(2, 1);
        world
            .edit(json!({ "completions": end, "parallelism": end }))
            .status(json!({ "succeeded": 1, "completedIndexes": "0" }));
        world
            .completes()
            .edit(json!({ "completions": 3, "parallelism": 3 }))
            .status(json!({ "active": 0 }))
            .release(2, 1);
        world.cut()
    };
    assert_kept(&shrunk(1));
    let violations = shrunk(3);
    assert!(violations.iter().any(|found| found.what.contains("without that being counted")), "{violations:?}");

    let mut world = job();
    world.create(0, 1).edit(json!({ "suspend": true })).succeeds(0, 1).counts("", "0:2/0", 0);
    world.counts("0", "", 0).release(0, 1);
    assert_kept(&world.cut());
}

#[test]
fn an_index_is_given_up_at_its_limit() {
    let spec = json!({ "completions": 2, "parallelism": 2, "completionMode": "Indexed", "backoffLimitPerIndex": 0 });
    let mut world = of(spec.clone());
    world.create(0, 1).fails(0, 1).counts("", "", 1).status(json!({ "failedIndexes": "0" })).release(0, 1);
    let violations = world.cut();
    // Without the index the failure is counted for nobody.
    assert!(violations.iter().any(|found| found.what.contains("by 1 instead of 0")), "{violations:?}");

    let mut world = of(spec.clone());
    world.create(0, 1).fails(0, 1).status(json!({ "failedIndexes": "0", "failed": 1 })).release(0, 1);
    assert_kept(&world.cut());

    let mut world = of(spec.clone());
    world.create(0, 1).fails(0, 1).counts("", "0:2/1@1000000", 1);
    assert_broken(&world.cut(), Law::I3, "index 0 goes on after 1 failures");

    let mut world = of(spec);
    world.edit(json!({ "backoffLimitPerIndex": 1 })).status(json!({ "active": 0 }));
    world.create(0, 1).fails(0, 1).status(json!({ "failedIndexes": "0", "failed": 1 }));
    assert_broken(&world.cut(), Law::I3, "index 0 is given up after 1 failures");
}

#[test]
fn i9_no_pod_is_deleted_that_should_live() {
    let strict = || {
        let mut world = World::new(json!({ "completions": 4, "parallelism": 4, "completionMode": "Indexed" }));
        world.counts("", "", 0).create(0, 1);
        world
    };
    let mut world = strict();
    world.tell(0, 1);
    assert_broken(&world.cut(), Law::I9, "it is deleted");
    let mut world = strict();
    world.edit(json!({ "completions": 0, "parallelism": 0 })).tell(0, 1);
    assert_kept(&world.cut());
    let mut world = strict();
    world.delete_job().tell(0, 1);
    assert_kept(&world.cut());
    let mut world = job();
    world.create(0, 1).tell(0, 1);
    assert_kept(&world.cut());
}

#[test]
fn i3_one_that_came_late_may_seem_to_live_and_another_is_stopped_for_it() {
    let of = |late_creates: bool| {
        let promises = Promises { late_creates, clock_skew: None, ..Promises::default() };
        let spec = json!({ "completions": 3, "parallelism": 2, "completionMode": "Indexed" });
        let mut world = World::with(promises, "BatchJob", spec);
        world.counts("", "", 0).create(2, 1).fails(2, 1).create(0, 1).create(1, 1).counts("", "1:2/0", 0);
        world.cut()
    };
    assert_kept(&of(true));
    assert_broken(&of(false), Law::I3, "lives, and is passed");
}
