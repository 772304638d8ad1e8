//! The laws as they are asked of Kubernetes' own Job controller.

use batchjob_oracle::Law;
use serde_json::json;

use crate::world::{World, assert_broken, assert_kept};

fn job() -> World {
    let mut world = World::of_kubernetes(json!({ "completions": 2, "parallelism": 2 }));
    world.status(json!({ "startTime": "1970-01-12T13:46:40Z", "uncountedTerminatedPods": {} }));
    world
}

#[test]
fn a_life_as_it_is_written_there_breaks_no_law() {
    let mut world = job();
    world.create(0, 1).create(1, 1).status(json!({ "active": 2 })).fails(0, 1).succeeds(1, 1);
    let list = json!({ "failed": ["uid-0-1"], "succeeded": ["uid-1-1"] });
    world.status(json!({ "uncountedTerminatedPods": list, "active": 0 })).release(0, 1).release(1, 1);
    let none = json!({ "failed": [], "succeeded": [] });
    world.status(json!({ "uncountedTerminatedPods": none, "failed": 1, "succeeded": 1 }));
    world.later(10).create(2, 1);
    assert_kept(&world.cut());
}

#[test]
fn i3_each_uid_once() {
    let mut world = job();
    world.create(0, 1).fails(0, 1);
    let listed = |list: &[&str]| json!({ "failed": list, "succeeded": [] });
    world.status(json!({ "uncountedTerminatedPods": listed(&["uid-0-1"]) })).release(0, 1);
    world.status(json!({ "uncountedTerminatedPods": listed(&[]), "failed": 1 }));
    world.status(json!({ "uncountedTerminatedPods": listed(&["uid-0-1"]) }));
    let violations = world.cut();
    assert!(violations.iter().any(|found| found.what == "pod uid-0-1 is counted again"), "{violations:?}");
}

#[test]
fn i3_what_is_counted_has_happened() {
    let mut world = job();
    world.create(0, 1);
    world.status(json!({ "uncountedTerminatedPods": { "succeeded": ["uid-0-1"], "failed": [] } }));
    assert_broken(&world.cut(), Law::I3, "is counted as succeeded, and has not");

    let mut world = job();
    world.create(0, 1).succeeds(0, 1).release(0, 1);
    assert_broken(&world.cut(), Law::I3, "is let go without being counted");

    let mut world = job();
    world.status(json!({ "succeeded": 1 }));
    assert_broken(&world.cut(), Law::I3, "succeeded is 1, with 0 to come, and 0 were told of");
}

#[test]
fn i7_the_delay_is_for_the_whole_job() {
    for (seconds, is_kept) in [(7, false), (10, true)] {
        let mut world = job();
        world.create(0, 1).fails(0, 1);
        let list = json!({ "failed": ["uid-0-1"], "succeeded": [] });
        world.status(json!({ "uncountedTerminatedPods": list })).release(0, 1).later(seconds).create(1, 1);
        match is_kept {
            true => assert_kept(&world.cut()),
            false => assert_broken(&world.cut(), Law::I7, "after 1 failures a pod may start at"),
        }
    }
}

#[test]
fn i1_two_pods_of_one_index() {
    let spec = json!({ "completions": 2, "parallelism": 2, "completionMode": "Indexed" });
    let mut world = World::of_kubernetes(spec);
    world.create(0, 1).create(0, 2);
    assert_broken(&world.cut(), Law::I1, "of the same index is alive");
}
