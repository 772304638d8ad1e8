//! Pods that lie or look odd (`odd/pods.yaml`): each has a written verdict, at either door, alone and beside two good pods,
//! whose handling it must not change; and wherever the job stands when it is seen, no law is broken.

#[path = "odd/world.rs"]
mod world;

use std::collections::{BTreeMap, BTreeSet};

use batchjob_crd::BatchJobStatus;
use batchjob_decide::job::indexes::IndexSet;
use batchjob_decide::job::ledger::Ledger;
use batchjob_decide::job::name::PodNames;
use batchjob_decide::job::pod::{finalizer, owner};
use batchjob_decide::observed::{Door, Job};
use batchjob_decide::plan::AttemptId;
use batchjob_decide::{Action, Plan};
use batchjob_operator::observe::snapshot::Snapshot;
use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use serde_json::{Value, json};

use world::{JOB, NAMESPACE, Pass, UID, World};

const DOORS: [Door; 2] = [Door::BatchJob, Door::ManagedJob];

/// The pod that is odd, and the two that are not.
const ODD: AttemptId = AttemptId { index: 1, attempt: 1 };
const DONE: AttemptId = AttemptId { index: 0, attempt: 1 };
const BUSY: AttemptId = AttemptId { index: 2, attempt: 1 };

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    name: String,
    #[serde(default)]
    spec: Value,
    before: Option<Value>,
    pod: Value,
    is: Verdict,
    #[serde(default)]
    ends: bool,
    #[serde(default)]
    does: Vec<String>,
    why: String,
    job: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    Success,
    Failure,
    Ignored,
    Alive,
    Passed,
    Foreign,
    Nothing,
}

fn cases() -> Vec<Case> {
    serde_saphyr::from_str(include_str!("odd/pods.yaml")).expect("the table can be read")
}

fn now() -> Timestamp {
    "2026-01-01T00:10:00Z".parse().expect("a time")
}

fn spec(door: Door, case: &Case) -> Value {
    let mut spec = json!({
        "completionMode": "Indexed", "completions": 3, "parallelism": 3,
        "template": { "spec": { "restartPolicy": "Never", "containers": [{ "name": "main", "image": "none" }] } },
    });
    if door == Door::ManagedJob {
        spec["managedBy"] = batchjob_crd::keys::MANAGED_BY.into();
    }
    if case.spec.is_object() {
        json_patch::merge(&mut spec, &case.spec);
    }
    spec
}

/// A running pod.
fn good(world: &World, id: AttemptId) -> Value {
    let mut pod = world.pod_of(id).expect("the job can be read");
    pod["metadata"]["creationTimestamp"] = "2026-01-01T00:01:00Z".into();
    pod["spec"]["nodeName"] = "node-a".into();
    pod["status"] = json!({
        "phase": "Running",
        "conditions": [{ "type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:02:00Z" }],
        "containerStatuses": [{ "name": "main", "restartCount": 0, "state": { "running": {} }, "lastState": {} }],
    });
    pod
}

fn put_neighbours(world: &mut World) {
    let mut done = good(world, DONE);
    done["status"]["phase"] = "Succeeded".into();
    let busy = good(world, BUSY);
    for pod in [done, busy] {
        world.put(pod).expect("a pod");
    }
}

/// The words of the table that stand for something long, or for something of the job.
fn filled_in(door: Door, patch: &Value) -> Value {
    let job = Job { door, name: JOB.to_owned(), uid: UID.to_owned(), ..Job::default() };
    let owner = owner(&job);
    let name = PodNames::of(&job).write(ODD);
    let hash = &name[name.len() - 5..];
    let group = owner.api_version.split('/').next().expect("a group").to_owned();
    match patch {
        Value::String(text) => match &**text {
            "LONG" => "long ".repeat(10_000).into(),
            "BINARY" => (0..4096_u32).map(|n| char::from((n % 256) as u8)).collect::<String>().into(),
            "MANY" => {
                let one = |n| json!({ "name": format!("c-{n}"), "restartCount": 0, "state": { "running": {} } });
                (0..100).map(one).collect()
            }
            text => text
                .replace("HASH", hash)
                .replace("KIND_VERSION", &owner.api_version)
                .replace("KIND_GROUP", &group)
                .replace("KIND", &owner.kind)
                .replace("FINALIZER", finalizer(door))
                .replace("UID", UID)
                .into(),
        },
        Value::Array(list) => list.iter().map(|value| filled_in(door, value)).collect(),
        Value::Object(fields) => {
            Value::Object(fields.iter().map(|(key, value)| (key.clone(), filled_in(door, value))).collect())
        }
        other => other.clone(),
    }
}

/// The verbs of what was done to a pod, in order.
fn done_to(plans: &[Plan], uid: &str) -> Vec<&'static str> {
    let actions = plans.iter().flat_map(|plan| &plan.actions);
    let verbs = actions.filter(|action| action.pod().is_some_and(|pod| &*pod.uid == uid)).map(|action| match action {
        Action::AdoptPod(_) => "adopt",
        Action::DeletePod(_) => "delete",
        Action::ReleasePod(_) => "release",
        Action::DisownPod(_) => "disown",
        Action::CreatePod(_) | Action::WriteStatus(_) | Action::DeleteJob => unreachable!("it is about no pod"),
    });
    verbs.collect()
}

fn uid(id: AttemptId) -> String {
    format!("{}-{}", id.index, id.attempt)
}

/// Shows the world the odd pod, in its two states if it has two.
fn play(world: &mut World, case: &Case) -> Result<Vec<Plan>, String> {
    let mut odd = good(world, ODD);
    let mut plans = Vec::new();
    for patch in case.before.iter().chain([&case.pod]) {
        // A write of somebody else is made on the pod as it is by then; one that is gone does not come back.
        match (plans.is_empty(), world.pods.get(&uid(ODD))) {
            (true, _) => {}
            (false, Some(found)) => odd = found.clone(),
            (false, None) => break,
        }
        json_patch::merge(&mut odd, &filled_in(world.door, patch));
        world.put(odd.clone())?;
        plans.extend(world.settle()?);
    }
    Ok(plans)
}

fn ledger(world: &World) -> Ledger {
    match world.observe() {
        Some(Snapshot::Job { observed, .. }) => Ledger::read(&observed.job.status),
        other => panic!("the job cannot be read: {other:?}"),
    }
}

/// What became of index 1, by the ledger and by what was done to the pod.
fn verdict(world: &World, plans: &[Plan]) -> Verdict {
    let ledger = ledger(world);
    let done = done_to(plans, &uid(ODD));
    let open = ledger.open.get(ODD.index);
    let has_made_another = plans.iter().flat_map(|plan| &plan.actions).any(|action| match action {
        Action::CreatePod(start) => start.id.index == ODD.index,
        _ => false,
    });
    if ledger.completed.contains(ODD.index) {
        Verdict::Success
    } else if ledger.failed > 0 {
        Verdict::Failure
    } else if open.is_some_and(|open| open.ignored > 0) {
        Verdict::Ignored
    } else if !done.is_empty() && has_made_another && open.is_none() {
        Verdict::Nothing
    } else if done.is_empty() && has_made_another {
        Verdict::Foreign
    } else if open.is_some() || (done == ["delete"] && !has_made_another) {
        Verdict::Passed
    } else {
        Verdict::Alive
    }
}

#[test]
fn every_odd_pod_has_its_verdict_alone_and_beside_others() {
    let mut wrong = Vec::new();
    for case in cases() {
        for door in DOORS {
            for has_neighbours in [false, true] {
                let mut world = World::new(door, spec(door, &case), &BatchJobStatus::default(), now());
                if has_neighbours {
                    put_neighbours(&mut world);
                }
                let place = format!("{} ({door:?}, beside others: {has_neighbours})", case.name);
                let plans = match play(&mut world, &case) {
                    Ok(plans) => plans,
                    Err(broken) => {
                        wrong.push(format!("{place}: {broken:.400}"));
                        continue;
                    }
                };
                let (found, done) = (verdict(&world, &plans), done_to(&plans, &uid(ODD)));
                if found != case.is || done != case.does || is_bound_to_fail(&world) != case.ends {
                    let ends = is_bound_to_fail(&world);
                    wrong.push(format!(
                        "{place}: {found:?} (ends: {ends}) by {done:?}, not {:?} (ends: {}) by {:?}: {}",
                        case.is, case.ends, case.does, case.why
                    ));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}\n{}", wrong.len(), wrong.join("\n"));
}

fn is_bound_to_fail(world: &World) -> bool {
    let conditions = world.job.as_ref().and_then(|job| job.pointer("/status/conditions")?.as_array());
    conditions.into_iter().flatten().any(|it| it["type"] == "FailureTarget" && it["status"] == "True")
}

/// Where the job stands when the pod is seen: what of the spec is other, and its status.
fn stages() -> Vec<(&'static str, Value, Value)> {
    let at = |type_: &str| {
        json!([{ "type": type_, "status": "True", "reason": "Reason", "message": "message",
            "lastTransitionTime": "2026-01-01T00:05:00Z" }])
    };
    let started = "2026-01-01T00:00:00Z";
    vec![
        ("it is in its first attempt", json!({}), json!({ "startTime": started })),
        (
            "its attempt is passed",
            json!({}),
            json!({ "startTime": started, "failed": 1, "openIndexes": "1:2/1@1767225600" }),
        ),
        ("its index is done", json!({}), json!({ "startTime": started, "completedIndexes": "1", "succeeded": 1 })),
        ("its index waits", json!({}), json!({ "startTime": started, "failed": 3, "openIndexes": "1:4/3@1767226190" })),
        (
            "it has failed for good",
            json!({ "backoffLimitPerIndex": 1 }),
            json!({ "startTime": started, "failed": 2, "failedIndexes": "1" }),
        ),
        ("one failure is allowed", json!({ "backoffLimitPerIndex": 0 }), json!({ "startTime": started })),
        ("no failure is allowed", json!({ "backoffLimit": 0 }), json!({ "startTime": started })),
        ("suspended", json!({ "suspend": true }), json!({})),
        ("suspended before", json!({ "suspend": false }), json!({ "conditions": at("Suspended") })),
        ("bound to fail", json!({}), json!({ "startTime": started, "conditions": at("FailureTarget") })),
        ("bound to succeed", json!({}), json!({ "startTime": started, "conditions": at("SuccessCriteriaMet") })),
        ("failed", json!({}), json!({ "startTime": started, "conditions": at("Failed") })),
        ("complete", json!({}), json!({ "startTime": started, "conditions": at("Complete") })),
        ("past its deadline", json!({ "activeDeadlineSeconds": 60 }), json!({ "startTime": started })),
        ("made smaller", json!({ "completions": 1, "parallelism": 1 }), json!({ "startTime": started })),
        ("of no index", json!({ "completions": 0, "parallelism": 0 }), json!({})),
        ("not indexed", json!({ "completionMode": "NonIndexed" }), json!({ "startTime": started })),
        (
            "a work queue",
            json!({ "completionMode": "NonIndexed", "completions": null }),
            json!({ "startTime": started }),
        ),
        ("replaced when ended", json!({ "podReplacementPolicy": "Failed" }), json!({ "startTime": started })),
        ("at a standstill", json!({ "parallelism": 0 }), json!({ "startTime": started })),
        ("with a spec that is none", json!({ "parallelism": -1 }), json!({})),
    ]
}

/// What happened to the two good pods and to their indexes.
#[derive(Debug, PartialEq)]
struct Neighbours {
    done_to: [Vec<&'static str>; 2],
    completed: BTreeSet<u32>,
    given_up: BTreeSet<u32>,
    /// None: the job does not have the index, and what is remembered of all such is one entry.
    next_attempts: [Option<u32>; 2],
}

impl Neighbours {
    fn of(world: &World, plans: &[Plan]) -> Neighbours {
        let ledger = ledger(world);
        let theirs =
            |set: &IndexSet| [DONE.index, BUSY.index].into_iter().filter(|&index| set.contains(index)).collect();
        let has = |index| ledger.open.beyond().is_none_or(|beyond| index < beyond.from);
        Neighbours {
            done_to: [DONE, BUSY].map(|id| done_to(plans, &uid(id))),
            completed: theirs(&ledger.completed),
            given_up: theirs(&ledger.failed_indexes),
            next_attempts: [DONE, BUSY].map(|id| has(id.index).then(|| ledger.next_attempt(id.index))),
        }
    }
}

/// The laws are in `World`; beside them, who is foreign stays untouched, and the neighbours do not notice.
#[test]
fn wherever_the_job_stands_no_law_is_broken_and_no_neighbour_notices() {
    let (mut wrong, mut n_played, mut seen_alone) = (Vec::new(), 0, BTreeMap::new());
    for case in cases() {
        for door in DOORS {
            for (stage, changes, status) in stages() {
                let mut spec = spec(door, &case);
                json_patch::merge(&mut spec, &changes);
                let status: BatchJobStatus = serde_json::from_value(status).expect("a status");
                let mut world = World::new(door, spec, &status, now());
                put_neighbours(&mut world);
                let without = world.clone();
                n_played += 1;
                let place = format!("{} ({door:?}, {stage})", case.name);
                let plans = match play(&mut world, &case) {
                    Ok(plans) => plans,
                    Err(broken) => {
                        wrong.push(format!("{place}: {broken:.400}"));
                        continue;
                    }
                };
                let spec = case.spec.to_string();
                let (is_failing_alone, alone) = seen_alone.entry((door, stage, spec)).or_insert_with(|| {
                    let mut world = without;
                    let plans = world.settle().expect("two good pods break no law");
                    (is_bound_to_fail(&world), Neighbours::of(&world, &plans))
                });
                let done = done_to(&plans, &uid(ODD));
                if case.is == Verdict::Foreign && !done.is_empty() {
                    wrong.push(format!("{place}: it is foreign, and yet {done:?}"));
                }
                let beside = Neighbours::of(&world, &plans);
                // A failure that ends the job ends its other pods: that is what it is for.
                if is_bound_to_fail(&world) == *is_failing_alone && beside != *alone {
                    wrong.push(format!("{place}: {beside:?}, not {alone:?}"));
                }
                // Nothing more is done when time passes, but for what waited.
                world.now = now().checked_add(SignedDuration::from_hours(1)).expect("a time");
                if let Err(broken) = world.settle() {
                    wrong.push(format!("{place}, an hour later: {broken:.400}"));
                }
            }
        }
    }
    assert!(n_played > 4000, "{n_played}");
    assert!(wrong.is_empty(), "{} of {n_played}\n{}", wrong.len(), wrong.join("\n"));
}

/// Nothing is done about a job that is no job, whatever its pods look like.
#[test]
fn a_job_that_cannot_be_read_says_where_and_its_pods_are_left_alone() {
    let (of_spec, of_status) = (json!({ "parallelism": "three" }), json!({ "conditions": "none" }));
    for door in DOORS {
        for (place, broken) in [("spec", &of_spec), ("status", &of_status)] {
            for case in cases() {
                let mut world = World::new(door, spec(door, &case), &BatchJobStatus::default(), now());
                put_neighbours(&mut world);
                play_unread(&mut world, &case);
                let before = world.pods.clone();
                json_patch::merge(&mut world.job.as_mut().expect("a job")[place], broken);
                let Pass::Unreadable(error) = world.pass().expect("no law is broken") else {
                    panic!("{} ({door:?}): it was read", case.name);
                };
                assert!(error.starts_with(place), "{error}");
                assert_eq!(world.pods, before, "{} ({door:?})", case.name);
            }
        }
    }
}

/// Puts the odd pod there, with no pass between.
fn play_unread(world: &mut World, case: &Case) {
    let mut odd = good(world, ODD);
    for patch in case.before.iter().chain([&case.pod]) {
        json_patch::merge(&mut odd, &filled_in(world.door, patch));
    }
    world.put(odd).expect("a pod");
}

#[test]
fn the_table_is_as_large_as_it_says_and_tells_why() {
    let cases = cases();
    assert!(cases.len() >= 60, "{}", cases.len());
    let names: BTreeSet<&str> = cases.iter().map(|case| &*case.name).collect();
    assert_eq!(names.len(), cases.len(), "each has a name of its own");
    for case in &cases {
        assert!(!case.why.is_empty() && case.job.as_ref().is_none_or(|job| !job.is_empty()), "{}", case.name);
    }
    let job = Job { door: Door::BatchJob, name: JOB.to_owned(), uid: UID.to_owned(), ..Job::default() };
    let forged = json!({ "metadata": { "namespace": NAMESPACE, "name": PodNames::of(&job).write(ODD) } });
    assert!(world::record(&forged).is_ok(), "a pod with almost nothing can be read");
}
