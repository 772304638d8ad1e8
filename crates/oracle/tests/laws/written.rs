use batchjob_oracle::{Law, Leadership, Promises};
use serde_json::json;

use crate::world::{World, assert_broken, assert_kept};

fn lease(holder: &str) -> serde_json::Value {
    let metadata = json!({ "namespace": "batchjob", "name": "operator" });
    json!({ "kind": "Lease", "metadata": metadata, "spec": { "holderIdentity": holder } })
}

#[test]
fn i13_only_the_leader_writes() {
    let leadership = Leadership { lease: "batchjob/operator".into(), instances: vec!["a".into(), "b".into()] };
    let promises = Promises { leadership: Some(leadership), ..Promises::default() };
    for (writer, is_kept) in [("a", true), ("b", false), ("a-user", true)] {
        let mut world = World::with(promises.clone(), "BatchJob", json!({}));
        world.see_other(lease("a"));
        world.writer = Some(writer.into());
        world.counts("", "", 0);
        match is_kept {
            true => assert_kept(&world.cut()),
            false => assert_broken(&world.cut(), Law::I13, "it was written by b, and a held the Lease"),
        }
    }
    let mut world = World::with(promises, "BatchJob", json!({}));
    world.see_other(lease("a")).see_other(lease(""));
    world.writer = Some("a".into());
    world.counts("", "", 0);
    assert_broken(&world.cut(), Law::I13, "nobody held the Lease");
}

#[test]
fn i14_few_statuses_for_few_pods() {
    let run = |n: usize| {
        let mut world = World::new(json!({}));
        for n in 0..n {
            // An hour apart: nothing is too fast, it is only too much.
            world.later(3600).status(json!({ "startTime": "1970-01-12T13:46:40Z", "reason": format!("Reason{n}") }));
        }
        world.cut()
    };
    assert_kept(&run(4));
    assert_broken(&run(5), Law::I14, "the 5th status, with 0 pods and 0 edits");
}

#[test]
fn i14_no_status_about_nothing() {
    let run = |seconds: i64| {
        let mut world = World::new(json!({ "completions": 9, "parallelism": 9 }));
        world.status(json!({ "startTime": "1970-01-12T13:46:40Z" }));
        for index in 0..9 {
            world.create(index, 1);
        }
        for n in 0..11 {
            world.later(seconds).status(json!({ "reason": format!("Reason{n}") }));
        }
        world.cut()
    };
    assert_broken(&run(1), Law::I14, "11 statuses in a minute in which nothing happened");
    assert_kept(&run(60));
}

#[test]
fn i15_a_status_has_a_bound() {
    for (length, is_kept) in [(700 << 10, true), ((700 << 10) + 1, false)] {
        let mut world = World::new(json!({}));
        let message = "x".repeat(length);
        let condition = json!({ "type": "Reconciling", "status": "True", "reason": "Running", "message": message });
        world.status(json!({ "conditions": [condition] }));
        match is_kept {
            true => assert_kept(&world.cut()),
            false => assert_broken(&world.cut(), Law::I15, "its status has 716801 bytes"),
        }
    }
}

#[test]
fn i16_few_events_short_ones() {
    let event =
        |note: &str| json!({ "kind": "Event", "regarding": { "uid": "uid-of-etl" }, "reason": "R", "note": note });
    let mut world = World::new(json!({}));
    world.see_other(event(&"x".repeat(1024)));
    assert_kept(&world.cut());
    let mut world = World::new(json!({}));
    world.see_other(event(&"x".repeat(1025)));
    assert_broken(&world.cut(), Law::I16, "an event R of 1025 bytes");

    let told = |n: usize| {
        let mut world = World::new(json!({}));
        for _ in 0..n {
            world.see_other(event(""));
        }
        world.cut()
    };
    assert_kept(&told(20));
    assert_broken(&told(21), Law::I16, "21 events within an hour");
}
