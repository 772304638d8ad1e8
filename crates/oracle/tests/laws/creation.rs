use batchjob_oracle::{Law, Leadership, Promises, Violation};
use jiff::SignedDuration;
use serde_json::json;

use crate::world::{World, assert_broken, assert_kept};

fn job() -> World {
    let mut world = World::new(json!({ "completions": 4, "parallelism": 4, "completionMode": "Indexed" }));
    world.counts("", "", 0);
    world
}

#[test]
fn i1_an_attempt_has_one_pod_ever() {
    let mut world = job();
    world.create(0, 1).fails(0, 1).counts("", "0:2/1@1000000", 1).release(0, 1).remove(0, 1);
    world.later(10).create_with(0, 1, json!({ "uid": "another" }));
    assert_broken(&world.cut(), Law::I1, "has had a pod before");

    let mut world = job();
    world.create(0, 1).fails(0, 1).counts("", "0:2/1@1000000", 1).release(0, 1).remove(0, 1).later(10).create(0, 2);
    assert_kept(&world.cut());
}

#[test]
fn i1_nothing_is_left_of_a_pod_that_somebody_has_let_go_and_deleted() {
    let of = |tampering: bool| {
        let promises = Promises { deletions: true, tampering, clock_skew: None, ..Promises::default() };
        let mut world = World::with(promises, "BatchJob", json!({ "completions": 1, "completionMode": "Indexed" }));
        world.writer = Some("somebody".into());
        world.counts("", "", 0).create(0, 1).release(0, 1).remove(0, 1).create_with(0, 1, json!({ "uid": "another" }));
        world.cut()
    };
    assert_kept(&of(true));
    let violations = of(false);
    assert!(violations.iter().any(|found| found.what.contains("has had a pod before")), "{violations:?}");
}

#[test]
fn i2_nothing_is_left_of_a_success_that_somebody_has_let_go_with_its_pod() {
    let of = |writer: &str| {
        let leadership = Leadership { lease: "default/operator".into(), instances: vec!["operator".into()] };
        let promises = Promises {
            deletions: true,
            tampering: true,
            clock_skew: None,
            leadership: Some(leadership),
            ..Promises::default()
        };
        let mut world = World::with(promises, "BatchJob", json!({ "completions": 2, "completionMode": "Indexed" }));
        world.counts("", "", 0).create(0, 1).succeeds(0, 1);
        world.writer = Some(writer.into());
        world.remove(0, 1).create_with(0, 1, json!({ "uid": "another" }));
        world.cut()
    };
    let is_about_it = |found: &Violation| matches!(found.law, Law::I1 | Law::I2);
    let violations = of("somebody");
    assert!(!violations.iter().any(is_about_it), "{violations:?}");
    let violations = of("operator");
    assert_eq!(violations.iter().filter(|found| is_about_it(found)).count(), 2, "{violations:?}");
}

#[test]
fn i1_no_pod_for_an_attempt_that_is_passed() {
    let mut world = job();
    world.edit(json!({ "suspend": true })).counts("", "0-3:2/0", 0).edit(json!({ "suspend": false })).create(0, 1);
    assert_broken(&world.cut(), Law::I1, "is passed");
}

#[test]
fn i5_a_pod_whose_label_is_taken_is_out_of_sight() {
    let of = |tampering: bool| {
        let promises = Promises { tampering, clock_skew: None, ..Promises::default() };
        let spec = json!({ "completions": 2, "parallelism": 1, "completionMode": "Indexed" });
        let mut world = World::with(promises, "BatchJob", spec);
        let without = json!({ "metadata": { "labels": { "batchjob.dev/attempt": null } } });
        world.counts("", "", 0).create(0, 1).change_pod(0, 1, without).create(1, 1);
        world.cut()
    };
    let is_about_it = |found: &Violation| found.law == Law::I5;
    assert!(!of(true).iter().any(is_about_it));
    assert!(of(false).iter().any(is_about_it));
}

#[test]
fn i1_one_alive_for_each_index() {
    let mut world = job();
    world.create(0, 1).create(0, 2);
    assert_broken(&world.cut(), Law::I1, "of the same index is alive");

    // By the default a pod that was told to go is replaced at once.
    let mut world = World::with(
        Promises { deletions: true, clock_skew: None, ..Promises::default() },
        "BatchJob",
        json!({ "completions": 1, "parallelism": 1 }),
    );
    world.counts("", "", 0).create(0, 1).tell(0, 1).counts("", "0:2/1@1000000", 1).create(0, 2);
    assert_kept(&world.cut());

    // With Failed only when it has ended; one that no node has has no end.
    let replaces_ended = || {
        let promises = Promises { deletions: true, clock_skew: None, ..Promises::default() };
        let mut world =
            World::with(promises, "BatchJob", json!({ "completions": 2, "podReplacementPolicy": "Failed" }));
        world.edit(json!({ "parallelism": 2 })).counts("", "", 0);
        world
    };
    let mut world = replaces_ended();
    world.create(0, 1).tell(0, 1).create(0, 2);
    assert_broken(&world.cut(), Law::I1, "of the same index is alive");
    let mut world = replaces_ended();
    world.create(0, 1).change_pod(0, 1, json!({ "spec": { "nodeName": null } })).tell(0, 1).create(0, 2);
    assert_kept(&world.cut());
}

#[test]
fn i2_no_pod_for_what_is_done() {
    let mut world = job();
    world.create(0, 1).succeeds(0, 1).counts("0", "", 0).release(0, 1).create(0, 2);
    assert_broken(&world.cut(), Law::I2, "index 0 is counted as done");

    let mut world = job();
    world.create(0, 1).succeeds(0, 1).create(0, 2);
    assert_broken(&world.cut(), Law::I2, "a pod has done index 0");
}

#[test]
fn i2_what_is_made_smaller_and_larger_again_is_done_again() {
    let mut world = job();
    world.create(3, 1).succeeds(3, 1).counts("3", "", 0).release(3, 1);
    world.edit(json!({ "completions": 2, "parallelism": 2 })).counts("", "2-:2/0", 0);
    world.edit(json!({ "completions": 4, "parallelism": 4 })).create(3, 2);
    assert_kept(&world.cut());
}

#[test]
fn i5_no_more_than_parallelism() {
    let mut world = job();
    world.edit(json!({ "parallelism": 1 })).status(json!({ "active": 0 })).create(0, 1);
    world.counts("", "", 0).status(json!({ "active": 1 })).create(1, 1);
    assert_broken(&world.cut(), Law::I5, "it makes 2 pods that are alive, and parallelism is 1");

    // What is made before the edit is seen is not too many.
    let mut world = job();
    world.create(0, 1).edit(json!({ "parallelism": 1 })).create(1, 1);
    assert_kept(&world.cut());
    // But an edit must be seen some time, if the run says when.
    let promises = Promises { in_flight: Some(SignedDuration::from_secs(5)), ..Promises::default() };
    let mut world = World::with(promises, "BatchJob", json!({ "completions": 4, "parallelism": 4 }));
    world.create(0, 1).edit(json!({ "parallelism": 1 })).later(6).create(1, 1);
    assert_broken(&world.cut(), Law::I5, "it makes 2 pods that are alive");
}

#[test]
fn i5_what_is_being_deleted_counts_where_it_is_waited_for() {
    let run = |policy: &str| {
        let promises = Promises { deletions: true, ..Promises::default() };
        let spec = json!({ "completions": 4, "parallelism": 1, "podReplacementPolicy": policy });
        let mut world = World::with(promises, "BatchJob", spec);
        world.counts("", "", 0).create(0, 1).tell(0, 1).create(1, 1);
        world.cut()
    };
    assert_broken(&run("Failed"), Law::I5, "alive or being deleted");
    assert_kept(&run("TerminatingOrFailed"));
}

#[test]
fn i6_no_pod_after_the_end() {
    let mut world = World::new(json!({}));
    world.counts("", "", 0).create(0, 1).succeeds(0, 1).counts("0", "", 0).completes().release(0, 1).create(1, 1);
    assert_broken(&world.cut(), Law::I6, "its job is over");
}

#[test]
fn i6_no_pod_for_a_suspended_job() {
    let mut world = job();
    world.edit(json!({ "suspend": true })).status(json!({ "active": 0, "startTime": null })).create(0, 1);
    assert_broken(&world.cut(), Law::I6, "its job is suspended");

    let mut world = job();
    world.edit(json!({ "suspend": true })).create(0, 1);
    assert_kept(&world.cut());
}

#[test]
fn i6_no_pod_for_a_job_that_is_gone() {
    let promises = Promises { in_flight: Some(SignedDuration::from_secs(5)), ..Promises::default() };
    for (seconds, is_kept) in [(4, true), (6, false)] {
        let mut world = World::with(promises.clone(), "BatchJob", json!({ "completions": 2, "parallelism": 2 }));
        world.delete_job().later(seconds).create(0, 1);
        match is_kept {
            true => assert_kept(&world.cut()),
            false => assert_broken(&world.cut(), Law::I6, "its job is gone"),
        }
    }
    // Whenever it came: it is not to stay.
    let mut world = World::with(promises.clone(), "BatchJob", json!({ "completions": 2, "parallelism": 2 }));
    world.delete_job().create(0, 1);
    assert_broken(&world.settle(), Law::I6, "it is there still");
    let mut world = World::with(promises, "BatchJob", json!({ "completions": 2, "parallelism": 2 }));
    world.delete_job().create(0, 1).remove(0, 1);
    assert_kept(&world.settle());
}

#[test]
fn i6_no_worker_once_the_queue_is_empty() {
    let mut world = World::new(json!({ "parallelism": 2 }));
    world.counts("", "", 0).create(0, 1).create(1, 1).succeeds(0, 1).counts("0", "", 0).release(0, 1);
    world.fails(1, 1).counts("0", "1:2/1@1000000", 1).later(10).create(1, 2);
    assert_broken(&world.cut(), Law::I6, "the queue is empty");
}

#[test]
fn late_creates_may_come_where_the_run_says_so_but_not_stay() {
    let run = || {
        let promises = Promises { late_creates: true, ..Promises::default() };
        let mut world = World::with(promises, "BatchJob", json!({ "completions": 1, "parallelism": 1 }));
        world.counts("", "", 0).create(0, 1).succeeds(0, 1).counts("0", "", 0).completes().release(0, 1);
        world.status(json!({ "observedGeneration": 1 })).create(0, 2);
        world
    };
    let mut world = run();
    world.tell(0, 2).fails(0, 2).release(0, 2).remove(0, 2);
    assert_kept(&world.settle());
    let violations = run().settle();
    assert!(violations.iter().any(|found| found.law == Law::I12 && found.what.contains("1 of its pods live")));
}

/// It is deleted with its job, for its owner says whose it is; without one it is nobody's.
#[test]
fn what_comes_when_its_job_is_gone_may_stay_if_somebody_takes_off_its_owner() {
    let run = || {
        let promises = Promises { late_creates: true, tampering: true, ..Promises::default() };
        let mut world = World::with(promises, "BatchJob", json!({ "completions": 1, "parallelism": 1 }));
        world.delete_job().later(1).create(0, 1);
        world
    };
    assert_broken(&run().settle(), Law::I6, "its job was gone before it came, and it is there still");
    let mut world = run();
    world.change_pod(0, 1, json!({ "metadata": { "ownerReferences": null, "finalizers": null } }));
    assert_kept(&world.settle());
}

#[test]
fn i7_no_attempt_before_its_delay() {
    for (seconds, is_kept) in [(7, false), (9, true)] {
        let mut world = job();
        world.create(0, 1).fails(0, 1).counts("", "0:2/1@1000000", 1).later(seconds).create(0, 2);
        match is_kept {
            true => assert_kept(&world.cut()),
            false => assert_broken(&world.cut(), Law::I7, "after 1 failures index 0 attempt 2 may start at"),
        }
    }
    // Creates come before the status that counts what they follow.
    let mut world = job();
    world.create(0, 1).fails(0, 1).later(5).create(0, 2);
    assert_broken(&world.cut(), Law::I7, "may start at");
}

#[test]
fn i7_an_attempt_starts_when_its_delay_is_over_where_the_run_says_so() {
    let promises = Promises { retries_start_within: Some(SignedDuration::from_secs(2)), ..Promises::default() };
    for (seconds, is_kept) in [(12, true), (20, false)] {
        let mut world = World::with(promises.clone(), "BatchJob", json!({ "completions": 1, "parallelism": 1 }));
        world.counts("", "", 0).create(0, 1).fails(0, 1).counts("", "0:2/1@1000000", 1).later(seconds).create(0, 2);
        assert_eq!(world.cut().is_empty(), is_kept, "{seconds}");
    }
}

#[test]
fn i8_one_owner_the_right_one() {
    let mut world = job();
    let two = json!([{ "uid": "uid-of-etl", "controller": true }, { "uid": "another", "controller": true }]);
    world.create_with(0, 1, json!({ "ownerReferences": two }));
    assert_broken(&world.cut(), Law::I8, "it has 2 controllers");

    let mut world = job();
    world.create_with(0, 1, json!({ "name": "etl-0-1-abcde" }));
    assert_broken(&world.cut(), Law::I8, "a name that its job does not give");

    let mut world = job();
    world.create(0, 1).change_pod(0, 1, json!({ "metadata": { "ownerReferences": [] } }));
    assert_broken(&world.cut(), Law::I8, "it has lost it as its owner");

    // As when a job is deleted without its pods.
    let mut world = job();
    world.create(0, 1).delete_job().change_pod(0, 1, json!({ "metadata": { "ownerReferences": [] } }));
    assert_kept(&world.cut());
}

#[test]
fn i3_a_pod_is_born_with_its_finalizer() {
    let mut world = job();
    world.create_with(0, 1, json!({ "finalizers": [] }));
    assert_broken(&world.cut(), Law::I3, "created without the finalizer");
}
