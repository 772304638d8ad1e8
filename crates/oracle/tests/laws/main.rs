//! Each law, broken by a small history, and kept by one that looks much like it.

mod counting;
mod creation;
mod kubernetes;
mod left;
mod lives;
mod verdict;
mod world;
mod written;

use batchjob_oracle::Law;
use serde_json::json;
use world::{World, assert_kept};

/// A job of three indexes from its first pod to its end: the second index fails once.
fn life() -> World {
    let mut world = World::new(json!({ "completions": 3, "parallelism": 2, "completionMode": "Indexed" }));
    world.counts("", "", 0).create(0, 1).create(1, 1).status(json!({ "active": 2 }));
    world.fails(1, 1).succeeds(0, 1).create(2, 1);
    let failed_at = 1_000_000;
    world.counts("0", &format!("1:2/1@{failed_at}"), 1).release(0, 1).release(1, 1);
    world.later(10).create(1, 2).succeeds(2, 1).status(json!({ "active": 1 }));
    world.counts("0,2", &format!("1:2/1@{failed_at}"), 1).release(2, 1).succeeds(1, 2);
    world.status(json!({ "completedIndexes": "0-2", "succeeded": 3, "openIndexes": "", "active": 0 }));
    world
}

#[test]
fn a_life_as_it_should_be_breaks_no_law() {
    let mut world = life();
    world.completes().release(1, 2);
    world.status(json!({ "observedGeneration": 1 }));
    assert_kept(&world.settle());
}

#[test]
fn what_is_over_stays_as_it_is() {
    let mut world = life();
    world.completes().release(1, 2).status(json!({ "failed": 2 }));
    let broken = world.cut();
    assert!(broken.iter().any(|found| found.law == Law::I4 && found.what.contains("stays as it is")), "{broken:?}");
}

/// Odd JSON is no reason to stop: it is read as far as it goes.
#[test]
fn objects_of_any_shape_are_read() {
    let mut world = life();
    for odd in [json!(null), json!([]), json!({ "kind": "Pod" }), json!({ "kind": "Job", "spec": 3, "metadata": "x" })]
    {
        world.see_other(odd);
    }
    let odd = json!({ "kind": "BatchJob", "metadata": { "uid": 3, "ownerReferences": {} },
        "spec": { "parallelism": -4, "podFailurePolicy": { "rules": [{}, 7] } }, "status": { "conditions": "none" } });
    world.see_other(odd).completes().release(1, 2);
    assert_kept(&world.cut());
}
