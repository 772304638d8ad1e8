//! A random job: its spec, how each of its pods ends, and what happens to it on the way. All of it is a function of the
//! seed, and stays so: a seed that showed something once shows it for ever.
//!
//! What is left out, because the answer would depend on who is quicker, also between two runs of batch/v1 Job's own
//! controller: pods that end at the same time, if it matters which of them is seen first, an edit while the answer to the last event is still under way, work
//! that ends when a deadline comes, and a rule that fails the job for the exit code of a pod which the controller itself
//! has stopped (`getFailJobMessage` looks at every pod that is still there, whoever stopped it).
//!
//! Nor does a job come to its end while it is suspended: its controller has taken its startTime away, and the API server
//! refuses a finished Job without one (`RejectFinishedJobWithoutStartTime`), so that a batch/v1 Job hangs there. `restartPolicy: OnFailure` is not combined with backoffLimitPerIndex, whose
//! documentation asks for Never.

use std::collections::{BTreeSet, VecDeque};

use serde_json::{Map, Value, json};

use batchjob_sim::random::Random;

/// The exit codes that failures have and rules speak of.
const EXIT_CODES: [i32; 4] = [1, 2, 42, 137];
/// What a pod ends with that is told to go.
pub const BY_SIGNAL_CODE: i32 = 143;
/// So many failures of an index, or of a job without indexes, and then it succeeds: every case comes to an end.
const MAX_FAILURES: u32 = 5;
/// A deadline that is met in a test.
const SHORT_DEADLINE: i64 = 5;

/// A field, or what goes with it, that can be left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
#[value(rename_all = "camelCase")]
pub enum Field {
    PodFailurePolicy,
    SuccessPolicy,
    BackoffLimitPerIndex,
    PodReplacementPolicy,
    ElasticCompletions,
}

/// One random job.
#[derive(Clone, Debug)]
pub struct Case {
    pub seed: u64,
    /// Of a batch/v1 Job.
    pub spec: Map<String, Value>,
    /// In order; each with the round before which it does not happen.
    pub events: VecDeque<(usize, Event)>,
    /// Of 100 pods so many do not succeed.
    failure_rate: u64,
}

/// What somebody does to the job or to one of its pods.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// The user changes the spec.
    Edit(Value),
    /// The user deletes a pod.
    Delete,
    /// A container of a pod fails and is restarted in place.
    Crash,
    /// All pods end at the same time, and all in the same way.
    AllEnd(End),
}

/// How a pod ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Success,
    /// The exit codes of its containers.
    Exit {
        main: i32,
        extra: i32,
    },
    /// Its init container failed, and no other ever ran.
    Init {
        exit_code: i32,
    },
    /// It was evicted, with or without what became of its containers.
    Evicted {
        says_of_containers: bool,
    },
    /// It failed with a condition of somebody's own.
    Condition,
}

/// The name of that condition.
pub const OWN_CONDITION: &str = "example.com/ConfigIssue";

impl Case {
    pub fn of(seed: u64, without: &[Field]) -> Case {
        let mut random = Random::of(&[seed, 0]);
        let mut case = draw(seed, &mut random);
        let has_fail_index =
            case.spec.get("podFailurePolicy").is_some_and(|policy| policy.to_string().contains("FailIndex"));
        for field in without {
            match field {
                Field::PodFailurePolicy => remove(&mut case.spec, &["podFailurePolicy"]),
                Field::SuccessPolicy => remove(&mut case.spec, &["successPolicy"]),
                Field::BackoffLimitPerIndex => {
                    remove(&mut case.spec, &["backoffLimitPerIndex", "maxFailedIndexes"]);
                    if has_fail_index {
                        remove(&mut case.spec, &["podFailurePolicy"]);
                    }
                }
                Field::PodReplacementPolicy => {
                    remove(&mut case.spec, &["podReplacementPolicy"]);
                    case.events.retain(|(_, event)| !event.changes("podReplacementPolicy"));
                }
                Field::ElasticCompletions => case.events.retain(|(_, event)| !event.changes("completions")),
            }
            if *field == Field::BackoffLimitPerIndex {
                case.events.retain(|(_, event)| !event.changes("maxFailedIndexes"));
            }
        }
        case
    }

    pub fn name(&self) -> String {
        format!("seed-{}", self.seed)
    }

    /// How the pod ends that is the `nth` of its slot, or of its job, that the kubelet lets end.
    pub fn end(&self, slot: u32, nth: u32) -> End {
        let mut random = Random::of(&[self.seed, 1, slot.into(), nth.into()]);
        if nth >= MAX_FAILURES || !random.in_100(self.failure_rate) {
            return End::Success;
        }
        let may_fail_in_place = self.spec["template"]["spec"]["restartPolicy"] == "OnFailure";
        match random.below(10) {
            // The kubelet restarts such containers; the pod itself fails by other causes.
            _ if may_fail_in_place => End::Evicted { says_of_containers: random.in_100(50) },
            0..=5 => {
                let codes = [random.one_of(&EXIT_CODES), random.one_of(&EXIT_CODES)];
                match random.below(4) {
                    0 => End::Exit { main: 0, extra: codes[1] },
                    1 => End::Exit { main: codes[0], extra: codes[1] },
                    _ => End::Exit { main: codes[0], extra: 0 },
                }
            }
            6 => End::Init { exit_code: random.one_of(&EXIT_CODES) },
            7 | 8 => End::Evicted { says_of_containers: random.in_100(50) },
            _ => End::Condition,
        }
    }

    /// Whether a pod that a user has deleted comes to its end in peace, where it is waited for.
    pub fn leaves_in_peace(&self, round: usize) -> bool {
        Random::of(&[self.seed, 2, as_u64(round)]).in_100(25)
    }

    /// Whether a pod that a user has deleted takes its time while something else happens.
    pub fn lingers(&self, round: usize) -> bool {
        Random::of(&[self.seed, 5, as_u64(round)]).in_100(40)
    }

    /// Which of these slots the next event or end is about.
    pub fn chosen(&self, round: usize, slots: &BTreeSet<u32>) -> Option<u32> {
        slots.iter().copied().min_by_key(|&slot| Random::of(&[self.seed, 3, as_u64(round), slot.into()]).number())
    }

    /// Seconds that a pod of the slot has been ready for: different for each, so that it is certain which of them a
    /// smaller parallelism stops (`ActivePods` in `pkg/controller/controller_utils.go`).
    pub fn ready_for(&self, slot: u32) -> u64 {
        let shuffled = Random::of(&[self.seed, 4, slot.into()]).below(500);
        3600 + shuffled * 10 + u64::from(slot)
    }

    pub fn has_containers(&self) -> Containers {
        let spec = &self.spec["template"]["spec"];
        Containers {
            extra: spec["containers"].as_array().is_some_and(|containers| containers.len() > 1),
            init: spec.get("initContainers").is_some(),
        }
    }
}

/// Which containers there are beside `main`.
#[derive(Clone, Copy, Debug)]
pub struct Containers {
    pub extra: bool,
    pub init: bool,
}

impl Event {
    pub fn changes(&self, field: &str) -> bool {
        matches!(self, Event::Edit(spec) if spec.get(field).is_some())
    }
}

fn as_u64(round: usize) -> u64 {
    u64::try_from(round).unwrap_or_default()
}

fn remove(spec: &mut Map<String, Value>, fields: &[&str]) {
    spec.retain(|field, _| !fields.contains(&field.as_str()));
}

fn draw(seed: u64, random: &mut Random) -> Case {
    let mut spec = Map::new();
    let kind = random.one_of(&["Indexed", "Indexed", "Indexed", "Fixed", "Fixed", "Queue"]);
    let completions = if random.in_100(4) { 0 } else { random.between(1, 6) };
    let parallelism = if random.in_100(4) { 0 } else { random.between(1, 6) };
    match kind {
        "Indexed" => {
            spec.insert("completionMode".to_owned(), json!("Indexed"));
            spec.insert("completions".to_owned(), json!(completions));
            spec.insert("parallelism".to_owned(), json!(parallelism));
        }
        "Fixed" => {
            // All four of both, either and none.
            if random.in_100(80) {
                spec.insert("completions".to_owned(), json!(completions));
            }
            if random.in_100(80) && spec.contains_key("completions") {
                spec.insert("parallelism".to_owned(), json!(parallelism));
            }
        }
        _ => {
            spec.insert("parallelism".to_owned(), json!(parallelism));
        }
    }
    let is_indexed = kind == "Indexed";
    let restart_policy = if random.in_100(25) { "OnFailure" } else { "Never" };
    let is_never = restart_policy == "Never";
    let has = Containers { extra: random.in_100(30), init: random.in_100(30) };

    if let Some(limit) = random.one_of(&[None, Some(0), Some(1), Some(2), Some(3)]) {
        spec.insert("backoffLimit".to_owned(), json!(limit));
    }
    if is_indexed && is_never && random.in_100(40) {
        per_index(&mut spec, completions, random);
    }
    if is_never && random.in_100(40) {
        let rules: Vec<Value> = (0..random.between(1, 3)).map(|_| failure_rule(&spec, has, random)).collect();
        spec.insert("podFailurePolicy".to_owned(), json!({ "rules": rules }));
    }
    if is_indexed && completions > 0 && random.in_100(30) {
        let rules: Vec<Value> = (0..random.between(1, 2)).map(|_| success_rule(completions, random)).collect();
        spec.insert("successPolicy".to_owned(), json!({ "rules": rules }));
    }
    let replacement = match spec.contains_key("podFailurePolicy") {
        true => random.one_of(&[None, Some("Failed")]),
        false => random.one_of(&[None, Some("TerminatingOrFailed"), Some("Failed")]),
    };
    if let Some(replacement) = replacement {
        spec.insert("podReplacementPolicy".to_owned(), json!(replacement));
    }
    if random.in_100(10) {
        spec.insert("suspend".to_owned(), json!(true));
    }
    // Nothing of it ends by itself then.
    let is_for_its_deadline = random.in_100(5);
    if is_for_its_deadline {
        spec.insert("activeDeadlineSeconds".to_owned(), json!(SHORT_DEADLINE));
    } else if random.in_100(10) {
        spec.insert("activeDeadlineSeconds".to_owned(), json!(3600));
    }
    spec.insert("template".to_owned(), template(restart_policy, has));

    let mut events = if is_for_its_deadline { VecDeque::new() } else { draw_events(is_indexed, is_never, random) };
    if spec.contains_key("suspend") {
        if random.in_100(15) {
            events.clear();
        } else {
            events.push_front((0, Event::Edit(json!({ "suspend": false }))));
        }
    }
    if parallelism == 0 && !is_for_its_deadline && random.in_100(85) {
        events.push_front((0, Event::Edit(json!({ "parallelism": random.between(1, 4) }))));
    }
    let failure_rate = random.one_of(&[0, 25, 25, 50, 50, 80]);
    // Which of them is seen first decides what the policies say.
    let is_ordered = ["podFailurePolicy", "successPolicy", "backoffLimitPerIndex"];
    if is_ordered.iter().any(|field| spec.contains_key(*field)) {
        events.retain(|(_, event)| !matches!(event, Event::AllEnd(_)));
    }
    Case { seed, spec, events, failure_rate }
}

fn per_index(spec: &mut Map<String, Value>, completions: i32, random: &mut Random) {
    spec.insert("backoffLimitPerIndex".to_owned(), json!(random.between(0, 2)));
    if random.in_100(50) {
        spec.insert("maxFailedIndexes".to_owned(), json!(random.between(0, completions.min(2))));
    }
    // Beside it a backoffLimit is mostly left out.
    if random.in_100(70) {
        spec.remove("backoffLimit");
    }
}

fn failure_rule(spec: &Map<String, Value>, has: Containers, random: &mut Random) -> Value {
    let action = match spec.contains_key("backoffLimitPerIndex") {
        true => random.one_of(&["FailJob", "FailIndex", "FailIndex", "Ignore", "Count"]),
        false => random.one_of(&["FailJob", "Ignore", "Ignore", "Count"]),
    };
    match random.below(10) {
        0..=5 => {
            let mut values: Vec<i32> = EXIT_CODES.into_iter().filter(|_| random.in_100(50)).collect();
            if values.is_empty() {
                values.push(42);
            }
            let operator = random.one_of(&["In", "In", "NotIn"]);
            if operator == "NotIn" && action == "FailJob" {
                values.push(BY_SIGNAL_CODE);
            }
            let mut requirement = json!({ "operator": operator, "values": values });
            let mut names = vec!["main"];
            names.extend(has.extra.then_some("extra"));
            names.extend(has.init.then_some("init"));
            if random.in_100(50) {
                requirement["containerName"] = json!(random.one_of(&names));
            }
            json!({ "action": action, "onExitCodes": requirement })
        }
        6..=8 => json!({ "action": action, "onPodConditions": [{ "type": "DisruptionTarget", "status": "True" }] }),
        _ => json!({ "action": action, "onPodConditions": [
            { "type": OWN_CONDITION, "status": "True" }, { "type": "example.com/Other", "status": "Unknown" },
        ] }),
    }
}

fn success_rule(completions: i32, random: &mut Random) -> Value {
    let mut rule = Map::new();
    let mut n_indexes = completions;
    if random.in_100(60) {
        let mut indexes: Vec<i32> = (0..completions).filter(|_| random.in_100(50)).collect();
        if indexes.is_empty() {
            indexes.push(completions - 1);
        }
        n_indexes = i32::try_from(indexes.len()).unwrap_or_default();
        let texts: Vec<String> = indexes.iter().map(i32::to_string).collect();
        rule.insert("succeededIndexes".to_owned(), json!(texts.join(",")));
    }
    if rule.is_empty() || random.in_100(50) {
        rule.insert("succeededCount".to_owned(), json!(random.between(1, n_indexes)));
    }
    Value::Object(rule)
}

fn template(restart_policy: &str, has: Containers) -> Value {
    let container = |name: &str| json!({ "name": name, "image": "none" });
    let mut spec = json!({
        "restartPolicy": restart_policy,
        // There is no such node and nobody asks; that the pods are born with it saves the scheduler.
        "nodeName": "node-1",
        "containers": [container("main")],
    });
    if has.extra {
        spec["containers"] = json!([container("main"), container("extra")]);
    }
    if has.init {
        spec["initContainers"] = json!([container("init")]);
    }
    json!({ "spec": spec })
}

fn draw_events(is_indexed: bool, is_never: bool, random: &mut Random) -> VecDeque<(usize, Event)> {
    let mut events = VecDeque::new();
    let mut round = 0;
    for _ in 0..random.below(4) {
        round += usize::try_from(random.below(4)).unwrap_or_default();
        let edit = |spec: Value| Event::Edit(spec);
        match random.below(12) {
            0 | 1 => {
                events.push_back((round, edit(json!({ "suspend": true }))));
                if random.in_100(30) {
                    events.push_back((round, edit(json!({ "parallelism": random.between(1, 6) }))));
                }
                if random.in_100(10) {
                    break;
                }
                events.push_back((round, edit(json!({ "suspend": false }))));
            }
            2 | 3 => {
                let parallelism = random.between(0, 6);
                events.push_back((round, edit(json!({ "parallelism": parallelism }))));
                if parallelism == 0 && random.in_100(85) {
                    events.push_back((round, edit(json!({ "parallelism": random.between(1, 6) }))));
                }
            }
            4 | 5 if is_indexed => {
                let n = random.between(0, 6);
                events.push_back((round, edit(json!({ "completions": n, "parallelism": n }))));
            }
            6 => events.push_back((round, edit(json!({ "backoffLimit": random.between(0, 6) })))),
            7 if is_indexed => events.push_back((round, edit(json!({ "maxFailedIndexes": random.between(0, 6) })))),
            8 if random.in_100(50) => {
                // It has been running for a second or more when this is asked, and nothing of it ends afterwards.
                events.push_back((round, edit(json!({ "activeDeadlineSeconds": 1 }))));
                break;
            }
            8 => {
                let policy = random.one_of(&["TerminatingOrFailed", "Failed"]);
                events.push_back((round, edit(json!({ "podReplacementPolicy": policy }))));
            }
            9 | 10 if !is_never => events.push_back((round, Event::Crash)),
            11 => {
                let end = random.one_of(&[End::Success, End::Success, End::Exit { main: 1, extra: 0 }]);
                events.push_back((round, Event::AllEnd(end)));
            }
            _ => events.push_back((round, Event::Delete)),
        }
    }
    events
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_job_for_ever() {
        let told = |case: Case| format!("{case:?} {:?} {:?}", case.end(0, 0), case.end(1, 2));
        let all: String = (1..=100).map(|seed| told(Case::of(seed, &[]))).collect();
        let digest = Random::of(&all.bytes().map(u64::from).collect::<Vec<u64>>()).number();
        // Whoever changes what is drawn writes the new number here: the seeds in old reports are other jobs then.
        assert_eq!(digest, 10_006_206_238_009_530_862);
    }

    #[test]
    fn every_field_is_drawn_and_can_be_left_out() {
        let drawn = |without: &[Field], field: &str| {
            (0..200).filter(|&seed| Case::of(seed, without).spec.contains_key(field)).count()
        };
        for (switch, field) in [
            (Field::PodFailurePolicy, "podFailurePolicy"),
            (Field::SuccessPolicy, "successPolicy"),
            (Field::BackoffLimitPerIndex, "backoffLimitPerIndex"),
            (Field::BackoffLimitPerIndex, "maxFailedIndexes"),
            (Field::PodReplacementPolicy, "podReplacementPolicy"),
        ] {
            assert!(drawn(&[], field) > 5, "{field}");
            assert_eq!(drawn(&[switch], field), 0, "{field}");
        }
    }
}
