//! The index text, the policies and the ledger against models that are too simple to be wrong.
//!
//! The seed is fixed, so that a change that breaks nothing never fails; with another one in `CONFIG` they look elsewhere.

use std::collections::{BTreeMap, BTreeSet};

use batchjob_crd::{BatchJobSpec, BatchJobStatus, CompletionMode};
use batchjob_decide::job::attempt::Attempt;
use batchjob_decide::job::failure_policy::FailurePolicy;
use batchjob_decide::job::indexes::IndexSet;
use batchjob_decide::job::ledger::{Ledger, OpenIndexes};
use batchjob_decide::job::managed;
use batchjob_decide::job::success_policy::SuccessPolicy;
use batchjob_decide::observed::{Container, ContainerState, Door, Job, Pod, PodCondition, PodPhase, Role};
use batchjob_decide::plan::AttemptId;
use jiff::Timestamp;
use proptest::collection::{btree_set, vec};
use proptest::option;
use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use serde_json::{Value, json};

fn config() -> ProptestConfig {
    ProptestConfig {
        cases: 2000,
        rng_seed: RngSeed::Fixed(20_261_125),
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

fn index_set(indexes: &BTreeSet<u32>) -> IndexSet {
    indexes.iter().copied().collect()
}

fn as_model(set: &IndexSet) -> BTreeSet<u32> {
    set.iter().collect()
}

/// As `orderedIntervals.String` in `pkg/controller/job/indexed_job_utils.go` writes it, from the definition: runs of three
/// and more as an interval, everything else one by one.
fn text(indexes: &BTreeSet<u32>) -> String {
    let has = |index: u32| indexes.contains(&index);
    let is_inside = |index: &u32| *index > 0 && has(*index) && has(index - 1) && has(index + 1);
    let mut text = String::new();
    for index in indexes.iter().filter(|index| !is_inside(index)) {
        let follows_inside = *index > 0 && is_inside(&(index - 1));
        text += if follows_inside { "-" } else { "," };
        text += &index.to_string();
    }
    text.trim_start_matches(',').to_owned()
}

fn few() -> impl Strategy<Value = BTreeSet<u32>> {
    btree_set(0..24u32, 0..20)
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn a_set_of_indexes_is_a_set(one in few(), other in few(), index in 0..26u32) {
        let set = index_set(&one);
        prop_assert_eq!(set.len(), one.len());
        prop_assert_eq!(set.contains(index), one.contains(&index));
        prop_assert_eq!(set.n_common(&index_set(&other)), one.intersection(&other).count());
        prop_assert_eq!(set.union(&index_set(&other)), index_set(&one.union(&other).copied().collect()));
        prop_assert_eq!(set.clone().into_missing(index).collect::<Vec<_>>(), (0..index).filter(|n| !one.contains(n)).collect::<Vec<_>>());
        prop_assert_eq!(as_model(&set.below(index)), one.range(..index).copied().collect());

        let (mut with, mut without, mut split) = (set.clone(), set.clone(), set.clone());
        prop_assert_eq!(with.insert(index), !one.contains(&index));
        prop_assert_eq!(as_model(&with), one.iter().copied().chain([index]).collect());
        without.remove(index);
        prop_assert_eq!(as_model(&without), one.iter().copied().filter(|&n| n != index).collect());
        let rest = split.split_off(index);
        prop_assert_eq!((as_model(&split), as_model(&rest)), (one.range(..index).copied().collect(), one.range(index..).copied().collect()));
    }

    #[test]
    fn a_set_is_written_as_job_writes_it_and_read_back(indexes in few()) {
        let set = index_set(&indexes);
        prop_assert_eq!(set.to_string(), text(&indexes));
        prop_assert_eq!(IndexSet::parse(&set.to_string()), set);
    }

    #[test]
    fn any_text_is_read_and_what_is_read_is_in_order(text in "[0-9,x -]{0,24}") {
        let set = IndexSet::parse(&text);
        prop_assert_eq!(IndexSet::parse(&set.to_string()), set.clone(), "{}", text);
    }

    #[test]
    fn the_ledger_keeps_what_a_list_of_what_happened_keeps(happenings in vec(happening(), 0..40)) {
        let (mut ledger, mut model) = (Ledger::default(), Model::default());
        for happening in &happenings {
            happening.happen_to(&mut ledger);
            model.happen(*happening);
            prop_assert_eq!(&Model::of(&ledger), &model);
        }
        let written = BatchJobStatus {
            completed_indexes: Some(ledger.completed.to_string()),
            failed_indexes: Some(ledger.failed_indexes.to_string()),
            open_indexes: Some(ledger.open.to_string()),
            failed: Some(ledger.failed as i32),
            ..BatchJobStatus::default()
        };
        prop_assert_eq!(Ledger::read(&written), ledger);
    }

    #[test]
    fn any_text_is_a_ledger(text in "[0-9,:/@+-]{0,40}") {
        let open = OpenIndexes::parse(&text);
        prop_assert_eq!(OpenIndexes::parse(&open.to_string()), open.clone(), "{}", text);
    }

    #[test]
    fn a_success_policy_is_met_as_its_definition_says(
        rules in vec((option::of(btree_set(0..12u32, 1..6)), option::of(1..5u32)), 0..4),
        succeeded in btree_set(0..12u32, 0..12),
        completions in 1..14u32,
    ) {
        let rules: Vec<_> = rules
            .into_iter()
            .filter(|(indexes, count)| indexes.is_some() || count.is_some())
            .map(|(indexes, count)| {
                let most = indexes.as_ref().map_or(u32::MAX, |indexes| indexes.len() as u32);
                (indexes, count.map(|count| count.min(most)))
            })
            .collect();
        let succeeded: BTreeSet<u32> = succeeded.range(..completions).copied().collect();
        let policy = SuccessPolicy::read(&serde_json::from_value(json!({ "rules": rules.iter().map(|(indexes, count)| {
            json!({ "succeededIndexes": indexes.as_ref().map(text), "succeededCount": count })
        }).collect::<Vec<_>>() })).expect("a policy")).expect("valid");
        let is_met = |(indexes, count): &(Option<BTreeSet<u32>>, Option<u32>)| {
            let named: BTreeSet<u32> = match indexes {
                Some(indexes) => indexes.range(..completions).copied().collect(),
                None => (0..completions).collect(),
            };
            let n_met = named.intersection(&succeeded).count();
            let is_all = indexes.is_some() && n_met == named.len();
            !named.is_empty() && (is_all || count.is_some_and(|count| n_met >= count as usize))
        };
        let met = rules.iter().position(is_met).filter(|_| !succeeded.is_empty());
        prop_assert_eq!(policy.met(&index_set(&succeeded), completions), met);
    }

    #[test]
    fn a_failure_is_judged_as_the_definition_says(rules in vec(rule(), 0..5), pod in pod()) {
        let policy = json!({ "rules": &rules });
        let policy = FailurePolicy::read(&serde_json::from_value(policy).expect("a policy")).expect("valid");
        let judged = policy.judge("ns", &Attempt { id: AttemptId { index: 0, attempt: 1 }, pod: &pod });
        let found = rules.iter().position(|rule| matches(rule, &pod));
        prop_assert_eq!(judged.as_ref().map(|found| found.rule), found);
        if let (Some(judged), Some(found)) = (judged, found) {
            prop_assert_eq!(Some(judged.action.as_str()), rules[found]["action"].as_str());
        }
    }

    #[test]
    fn what_a_managed_job_keeps_is_read_back(
        (indexed, per_index) in any::<(bool, bool)>(),
        counts in vec(0..50i32, 4),
        (completed, failed) in (few(), few()),
        open in option::of("[1-9]:[2-9]/[0-9]@[1-9]{1,5}"),
    ) {
        let mode = if indexed { CompletionMode::Indexed } else { CompletionMode::NonIndexed };
        let spec = BatchJobSpec {
            completion_mode: Some(mode),
            backoff_limit_per_index: per_index.then_some(1),
            ..BatchJobSpec::default()
        };
        let set = |indexes: &BTreeSet<u32>| Some(text(indexes)).filter(|text| !text.is_empty());
        let job = Job { door: Door::ManagedJob, spec, ..Job::default() };
        let status = managed::keep(&job, BatchJobStatus {
            observed_generation: Some(7),
            active: Some(counts[0]),
            ready: Some(counts[1]),
            terminating: Some(counts[2]),
            failed: Some(counts[3]),
            succeeded: Some(completed.len() as i32),
            completed_indexes: set(&completed),
            failed_indexes: set(&failed).filter(|_| per_index),
            open_indexes: open,
            ..BatchJobStatus::default()
        });
        let (written, ledger) = managed::write(&job, &status);
        // As it comes back from the API server.
        let written = serde_json::from_value(serde_json::to_value(&written).expect("JSON")).expect("a status");
        prop_assert_eq!(managed::read("", &written, Some(&ledger)).status, status);
    }
}

/// What can happen to the attempts of an index.
#[derive(Clone, Copy, Debug)]
enum Happening {
    Succeeds(u32),
    Fails(u32),
    FailsForGood(u32),
    IsIgnored(u32),
    Stops(u32),
    /// The job has so many indexes now.
    Shrinks(u32),
}

fn happening() -> impl Strategy<Value = Happening> {
    let index = || 0..8u32;
    prop_oneof![
        index().prop_map(Happening::Succeeds),
        index().prop_map(Happening::Fails),
        index().prop_map(Happening::FailsForGood),
        index().prop_map(Happening::IsIgnored),
        index().prop_map(Happening::Stops),
        index().prop_map(Happening::Shrinks),
    ]
}

impl Happening {
    fn happen_to(self, ledger: &mut Ledger) {
        let at = Timestamp::from_second(100).expect("a time");
        match self {
            Happening::Succeeds(index) => ledger.complete(index),
            // Only the attempt that the ledger waits for can fail.
            Happening::Fails(index) | Happening::FailsForGood(index) | Happening::IsIgnored(index)
                if ledger.is_closed(index) => {}
            Happening::Fails(index) => drop(ledger.fail(index, ledger.next_attempt(index), at)),
            Happening::FailsForGood(index) => {
                ledger.fail(index, ledger.next_attempt(index), at);
                ledger.give_up(index);
            }
            Happening::IsIgnored(index) => ledger.ignore(index, ledger.next_attempt(index), at),
            Happening::Stops(index) => ledger.stop(index, ledger.next_attempt(index)),
            Happening::Shrinks(end) => ledger.forget_from(end),
        }
    }
}

/// The same, kept without any thrift.
#[derive(Clone, Debug, Default, PartialEq)]
struct Model {
    completed: BTreeSet<u32>,
    given_up: BTreeSet<u32>,
    failed: u32,
    /// Next attempt, failures, ignored failures.
    open: BTreeMap<u32, (u32, u32, u32)>,
    /// From which index on none has an attempt before which.
    beyond: Option<(u32, u32)>,
}

impl Model {
    fn of(ledger: &Ledger) -> Model {
        let open = ledger.open.indexes().filter_map(|index| {
            let open = ledger.open.get(index)?;
            Some((index, (open.next_attempt, open.failures, open.ignored)))
        });
        Model {
            completed: as_model(&ledger.completed),
            given_up: as_model(&ledger.failed_indexes),
            failed: ledger.failed,
            open: open.collect(),
            beyond: ledger.open.beyond().map(|beyond| (beyond.from, beyond.next_attempt)),
        }
    }

    fn happen(&mut self, happening: Happening) {
        let is_closed = |index| self.completed.contains(&index) || self.given_up.contains(&index);
        let beyond = |index| self.beyond.filter(|&(from, _)| index >= from).map(|(_, next)| (next, 0, 0));
        let before = |index| self.open.get(&index).copied().or_else(|| beyond(index)).unwrap_or((1, 0, 0));
        match happening {
            Happening::Succeeds(index) => {
                self.completed.insert(index);
                self.given_up.remove(&index);
                self.open.remove(&index);
            }
            Happening::Shrinks(end) => {
                let opened = self.open.range(end..).map(|(_, &(next, _, _))| next);
                let closed = (end..24).filter(|&index| is_closed(index)).map(|_| 2);
                if let Some(next) = opened.chain(closed).max() {
                    let (from, before) = self.beyond.unwrap_or((end, 1));
                    self.beyond = Some((from.min(end), before.max(next)));
                }
                self.completed.retain(|&index| index < end);
                self.given_up.retain(|&index| index < end);
                self.open.retain(|&index, _| index < end);
            }
            Happening::Fails(index)
            | Happening::FailsForGood(index)
            | Happening::IsIgnored(index)
            | Happening::Stops(index)
                if is_closed(index) => {}
            Happening::Fails(index) => {
                let (next, failures, ignored) = before(index);
                self.open.insert(index, (next + 1, failures + 1, ignored));
                self.failed += 1;
            }
            Happening::FailsForGood(index) => {
                self.open.remove(&index);
                self.given_up.insert(index);
                self.failed += 1;
            }
            Happening::IsIgnored(index) => {
                let (next, failures, ignored) = before(index);
                self.open.insert(index, (next + 1, failures, ignored + 1));
            }
            Happening::Stops(index) => {
                let (next, failures, ignored) = before(index);
                self.open.insert(index, (next + 1, failures, ignored));
            }
        }
    }
}

/// A rule of podFailurePolicy, as it is written.
fn rule() -> impl Strategy<Value = Value> {
    let action = proptest::sample::select(vec!["FailJob", "FailIndex", "Ignore", "Count"]);
    let container = option::of(proptest::sample::select(vec!["a", "b", "init"]));
    let operator = proptest::sample::select(vec!["In", "NotIn"]);
    let codes = (container, operator, btree_set(1..5i32, 1..4)).prop_map(|(container, operator, values)| {
        json!({ "onExitCodes": { "containerName": container, "operator": operator, "values": values } })
    });
    let status = option::of(proptest::sample::select(vec!["True", "False", "Unknown"]));
    let pattern = (proptest::sample::select(vec!["Ready", "DisruptionTarget"]), status)
        .prop_map(|(type_, status)| json!({ "type": type_, "status": status }));
    let conditions = vec(pattern, 1..3).prop_map(|patterns| json!({ "onPodConditions": patterns }));
    (action, prop_oneof![codes, conditions]).prop_map(|(action, mut rule)| {
        rule["action"] = action.into();
        rule
    })
}

fn pod() -> impl Strategy<Value = Pod> {
    let container = (proptest::sample::select(vec!["a", "b", "init"]), option::of(0..5i32)).prop_map(|(name, code)| {
        let state = code.map_or(ContainerState::Running, |exit_code| ContainerState::Terminated {
            exit_code,
            reason: "Error".into(),
            finished_at: None,
        });
        let role = if name == "init" { Role::Init } else { Role::Main };
        Container { name: name.into(), role, restarts: 0, state, last_exit_code: None }
    });
    let condition = (
        proptest::sample::select(vec!["Ready", "DisruptionTarget", "Other"]),
        proptest::sample::select(vec!["True", "False", "Unknown"]),
    )
        .prop_map(|(type_, status)| PodCondition { type_: type_.into(), status: status.into() });
    (vec(container, 0..4), vec(condition, 0..3)).prop_map(|(containers, conditions)| Pod {
        name: "x".into(),
        phase: PodPhase::Failed,
        containers: containers.into(),
        conditions: conditions.into(),
        ..Pod::default()
    })
}

/// Whether a rule matches, read straight from what is written.
fn matches(rule: &Value, pod: &Pod) -> bool {
    let codes = &rule["onExitCodes"];
    if codes.is_object() {
        return pod.containers.iter().any(|container| {
            let ContainerState::Terminated { exit_code, .. } = container.state else { return false };
            let values = codes["values"].as_array().expect("values");
            let is_listed = values.contains(&exit_code.into());
            let is_meant = codes["containerName"].as_str().is_none_or(|name| name == &*container.name);
            exit_code != 0 && is_meant && is_listed == (codes["operator"] == "In")
        });
    }
    rule["onPodConditions"].as_array().expect("patterns").iter().any(|pattern| {
        let status = pattern["status"].as_str().unwrap_or("True");
        pod.conditions.iter().any(|found| pattern["type"] == *found.type_ && *found.status == *status)
    })
}
