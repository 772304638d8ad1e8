use batchjob_oracle::{Law, Promises};
use jiff::SignedDuration;
use serde_json::json;

use crate::world::{World, assert_broken, assert_kept};

#[test]
fn i10_no_finalizer_is_left_on_the_pods_of_a_job_that_is_over() {
    let promises = Promises { finalizers_go_within: Some(SignedDuration::from_secs(30)), ..Promises::default() };
    let run = |seconds: i64| {
        let mut world = World::with(promises.clone(), "BatchJob", json!({}));
        world.counts("", "", 0).create(0, 1).succeeds(0, 1).counts("0", "", 0).completes();
        world.later(seconds).release(0, 1).later(60).see_other(json!({}));
        world.cut()
    };
    assert_broken(&run(31), Law::I10, "it is held still");
    assert_kept(&run(29));
}

#[test]
fn i10_at_the_end_of_a_run_none_is_left_whatever_was_promised() {
    let run = |is_released: bool| {
        let mut world = World::new(json!({}));
        world.counts("", "", 0).create(0, 1).succeeds(0, 1).delete_job();
        if is_released {
            world.release(0, 1);
        }
        world.settle()
    };
    assert_broken(&run(false), Law::I10, "is gone");
    assert_kept(&run(true));
}

/// A job at work: its pod runs, and the status says so.
fn at_rest() -> World {
    let mut world = World::new(json!({ "completions": 2, "parallelism": 1 }));
    world.counts("", "", 0).create(0, 1).status(json!({ "active": 1, "observedGeneration": 1 }));
    world
}

#[test]
fn i12_at_rest_all_is_as_the_spec_says() {
    assert_kept(&at_rest().settle());

    let mut world = at_rest();
    world.edit(json!({ "parallelism": 2 })).status(json!({ "observedGeneration": 2 }));
    assert_broken(&world.settle(), Law::I12, "1 of its pods live and 0 are being deleted, and 2 are wanted");

    let mut world = at_rest();
    world.edit(json!({ "suspend": true }));
    let suspended = json!([{ "type": "Suspended", "status": "True", "reason": "JobSuspended" }]);
    world.status(json!({ "observedGeneration": 2, "startTime": null, "conditions": suspended }));
    assert_broken(&world.settle(), Law::I12, "it is suspended, and 1 of its pods live");
}

#[test]
fn i12_an_index_may_wait() {
    for (failed_at, is_kept) in [(1_000_000, false), (1_000_055, true)] {
        let mut world = at_rest();
        world.fails(0, 1).status(json!({ "active": 0, "failed": 1, "openIndexes": format!("0:2/1@{failed_at}") }));
        world.release(0, 1);
        match is_kept {
            true => assert_kept(&world.settle()),
            false => assert_broken(&world.settle(), Law::I12, "0 of its pods live"),
        }
    }
}

#[test]
fn i12_what_keeps_pods_from_being_made_is_told() {
    let mut world = World::new(json!({}));
    world.status(json!({ "startTime": "1970-01-12T13:46:40Z", "observedGeneration": 1, "reason": "QuotaExceeded" }));
    assert_kept(&world.settle());
}

#[test]
fn i12_the_status_says_how_it_is() {
    let mut world = at_rest();
    world.status(json!({ "active": 0 }));
    assert_broken(&world.settle(), Law::I12, "active is 0, and 1 of its pods are");

    let mut world = at_rest();
    world.edit(json!({ "backoffLimit": 3 }));
    assert_broken(&world.settle(), Law::I12, "observedGeneration is Some(1), and generation is 2");
}

#[test]
fn i12_what_has_ended_is_counted() {
    let mut world = at_rest();
    world.succeeds(0, 1).status(json!({ "active": 0 }));
    let violations = world.settle();
    assert!(violations.iter().any(|found| found.what.contains("has ended, and is held still")), "{violations:?}");
}

#[test]
fn i12_at_rest_nothing_is_written() {
    let mut world = at_rest();
    world.later(-10);
    let violations = {
        let mut late = at_rest();
        late.later(30).status(json!({ "ready": 0, "observedGeneration": 1, "reason": "Again" })).later(-30);
        late.settle()
    };
    assert_broken(&violations, Law::I12, "a status was written at revision");
}
