//! Random schedules with random lives: no slot is started twice, none is lost without a word, and no more run than may.

use batchjob_decide::cron::decide;
use jiff::SignedDuration;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde_json::{Value, json};

use super::world::World;

/// What happens next.
#[derive(Clone, Debug)]
enum Deed {
    /// Time passes, seconds, and the operator looks when it wants to.
    Pass(i64),
    /// Time passes and nobody looks; it may go back.
    Away(i64),
    /// A run ends.
    End(usize, bool),
    /// Somebody deletes a run.
    Delete(usize),
    /// The operator dies after so many actions of its plan.
    Die(usize),
    /// A value that was never there.
    Trigger,
    Suspend(bool),
}

fn deed() -> impl Strategy<Value = Deed> {
    prop_oneof![
        5 => (1i64..1500).prop_map(Deed::Pass),
        2 => (-3000i64..20_000).prop_map(Deed::Away),
        5 => (0usize..8, any::<bool>()).prop_map(|(nth, succeeded)| Deed::End(nth, succeeded)),
        1 => (0usize..8).prop_map(Deed::Delete),
        2 => (0usize..3).prop_map(Deed::Die),
        1 => Just(Deed::Trigger),
        1 => any::<bool>().prop_map(Deed::Suspend),
    ]
}

fn spec() -> impl Strategy<Value = Value> {
    let schedules = ["* * * * *", "*/7 * * * *", "0 * * * *", "*/30 * * * * *", "@every 90s", "H/10 * * * *"];
    let policies = ["Allow", "Forbid", "Replace", "Queue"];
    let missed = [json!(null), json!({ "policy": "All", "maxRuns": 5 }), json!({ "policy": "None" })];
    (
        prop::sample::select(Vec::from(schedules)),
        prop::sample::select(Vec::from(policies)),
        prop::sample::select(Vec::from(missed)),
        prop::option::of(1i32..4),
        prop::option::of(20i64..2000),
        prop_oneof![3 => Just(0), 1 => 0i32..900],
    )
        .prop_map(|(schedule, policy, missed, limit, deadline, jitter)| {
            let mut spec = json!({ "schedule": schedule, "concurrencyPolicy": policy, "jitterSeconds": jitter });
            let is_all = missed["policy"] == "All";
            let missed = if is_all && policy == "Replace" { json!(null) } else { missed };
            let limit = if policy == "Forbid" { None } else { limit.or(is_all.then_some(1)) };
            let more = json!({ "missedRuns": missed, "maxActive": limit, "startingDeadlineSeconds": deadline });
            json_patch::merge(&mut spec, &more);
            spec
        })
}

fn most_active(world: &World) -> usize {
    let spec = &world.observed.cron.spec;
    let policy = format!("{:?}", spec.concurrency_policy.unwrap_or_default());
    match (policy.as_str(), spec.max_active) {
        ("Allow", None) => usize::MAX,
        (_, limit) => limit.unwrap_or(1) as usize,
    }
}

fn commit(world: &mut World, deed: Deed) {
    match deed {
        Deed::Pass(seconds) => world.until_time(world.observed.now + SignedDuration::from_secs(seconds)),
        Deed::Away(seconds) => {
            world.observed.now =
                (world.observed.now + SignedDuration::from_secs(seconds)).max(world.observed.cron.created)
        }
        Deed::End(nth, succeeded) => {
            let active = world.active();
            if let Some(name) = active.get(nth) {
                world.end(&name.clone(), succeeded);
            }
        }
        Deed::Delete(nth) => {
            // Not between its creation and the moment in which the ledger knows of it: there nobody can tell.
            world.look();
            if nth < world.observed.runs.len() {
                world.observed.runs.remove(nth);
            }
        }
        Deed::Die(n_actions) => {
            let mut plan = decide(&world.observed);
            plan.actions.truncate(n_actions);
            plan.reasons.clear();
            world.carry_out(plan);
        }
        Deed::Trigger => {
            let value = world.cron().trigger.as_ref().map_or(0, String::len);
            world.cron().trigger = Some("x".repeat(value + 1));
        }
        Deed::Suspend(suspend) => world.edit(json!({ "suspend": suspend })),
    }
}

#[test]
fn every_slot_is_started_once_or_accounted_for() {
    let mut runner = TestRunner::new(Config { cases: 250, failure_persistence: None, ..Config::default() });
    let lives = (spec(), prop::collection::vec(deed(), 1..40));
    let played = runner.run(&lives, |(spec, deeds)| {
        let mut world = World::new(spec);
        world.look();
        for deed in deeds {
            commit(&mut world, deed);
            prop_assert!(world.active().len() <= most_active(&world), "{:?}", world.active());
        }
        world.look();
        world.is_accounted_for();
        Ok(())
    });
    if let Err(error) = played {
        panic!("{error}");
    }
}
