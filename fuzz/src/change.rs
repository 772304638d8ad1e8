//! Changes JSON so that it stays JSON: bytes that are changed at random are hardly ever an object.

use fastrand::Rng;
use serde_json::{Map, Value};

/// Values that are odd somewhere.
const TEXTS: &[&str] = &[
    "",
    "0",
    "1",
    "-1",
    "True",
    "False",
    "Unknown",
    "Running",
    "Pending",
    "Succeeded",
    "Failed",
    "Never",
    "OnFailure",
    "Always",
    "Indexed",
    "NonIndexed",
    "TerminatingOrFailed",
    "FailJob",
    "FailIndex",
    "Ignore",
    "Count",
    "In",
    "NotIn",
    "DisruptionTarget",
    "Ready",
    "Suspended",
    "FailureTarget",
    "SuccessCriteriaMet",
    "Complete",
    "Finished",
    "Reconciling",
    "Stalled",
    "PodScheduled",
    "Unschedulable",
    "Evicted",
    "CrashLoopBackOff",
    "ImagePullBackOff",
    "main",
    "etl",
    "0-2",
    "0,2",
    "1",
    "2-1",
    "0-4294967294",
    "4294967294",
    "4294967295",
    "1:2/1@1767225600",
    "0-2:2/0",
    "1:4294967294/1@1767225600",
    "1:4294967294/4294967295+4294967295@253402207200",
    "2-:3/0",
    "0-:4294967294/0",
    "0001-01-01T00:00:00Z",
    "1970-01-01T00:00:00Z",
    "2026-01-01T00:09:59Z",
    "2096-01-01T00:00:00Z",
    "9999-12-30T22:00:00Z",
    "9999-12-31T23:59:59Z",
    "-009999-01-02T01:59:59Z",
    "batchjob.dev/operator",
    "batchjob.dev/uncounted",
    "batch.kubernetes.io/job-tracking",
    "batch.kubernetes.io/controller-uid",
    "batchjob.dev/attempt",
    "7d1f8a0e-0000-4000-8000-000000000001",
    "elsewhere",
    "team",
    "\u{0}\u{1b}[31m",
    "é",
];

/// The names of fields, so that what is not there can come to be.
const FIELDS: &[&str] = &[
    "metadata",
    "spec",
    "status",
    "name",
    "namespace",
    "uid",
    "labels",
    "annotations",
    "finalizers",
    "ownerReferences",
    "controller",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "creationTimestamp",
    "generation",
    "phase",
    "reason",
    "message",
    "conditions",
    "type",
    "lastTransitionTime",
    "containerStatuses",
    "initContainerStatuses",
    "state",
    "lastState",
    "terminated",
    "waiting",
    "running",
    "exitCode",
    "finishedAt",
    "restartCount",
    "nodeName",
    "initContainers",
    "restartPolicy",
    "completions",
    "parallelism",
    "completionMode",
    "backoffLimit",
    "backoffLimitPerIndex",
    "maxFailedIndexes",
    "activeDeadlineSeconds",
    "ttlSecondsAfterFinished",
    "suspend",
    "podFailurePolicy",
    "successPolicy",
    "rules",
    "action",
    "onExitCodes",
    "operator",
    "values",
    "onPodConditions",
    "succeededIndexes",
    "succeededCount",
    "podReplacementPolicy",
    "managedBy",
    "template",
    "active",
    "ready",
    "terminating",
    "succeeded",
    "failed",
    "completedIndexes",
    "failedIndexes",
    "openIndexes",
    "startTime",
    "completionTime",
    "observedGeneration",
    "of",
    "batchjob.dev/ledger",
];

const NUMBERS: &[i64] =
    &[0, 1, -1, 2, 3, 7, 30, 137, 600, i32::MAX as i64, i32::MIN as i64, u32::MAX as i64, i64::MAX, i64::MIN];

/// The mutator of a target (`fuzz_mutator!`): changes what is in the first `size` bytes, and answers with the new size.
pub fn in_place(data: &mut [u8], size: usize, max_size: usize, seed: u32) -> usize {
    let changed = json(&data[..size], seed, max_size);
    data[..changed.len()].copy_from_slice(&changed);
    changed.len()
}

/// Changes one to three places. What is no JSON becomes an object.
pub fn json(bytes: &[u8], seed: u32, max_size: usize) -> Vec<u8> {
    let mut dice = Rng::with_seed(seed.into());
    let mut whole = serde_json::from_slice(bytes).unwrap_or_else(|_| Value::Object(Map::new()));
    for _ in 0..=dice.usize(..3) {
        let place = dice.usize(..n_places(&whole));
        change_at(&mut whole, &mut { place }, &mut dice);
    }
    let changed = serde_json::to_vec(&whole).unwrap_or_default();
    if changed.len() <= max_size { changed } else { bytes.to_vec() }
}

fn n_places(value: &Value) -> usize {
    1 + match value {
        Value::Array(list) => list.iter().map(n_places).sum(),
        Value::Object(fields) => fields.values().map(n_places).sum::<usize>(),
        _ => 0,
    }
}

/// Changes the place that is `n` places further on.
fn change_at(value: &mut Value, n: &mut usize, dice: &mut Rng) -> bool {
    if *n == 0 {
        change(value, dice);
        return true;
    }
    *n -= 1;
    match value {
        Value::Array(list) => list.iter_mut().any(|inner| change_at(inner, n, dice)),
        Value::Object(fields) => fields.values_mut().any(|inner| change_at(inner, n, dice)),
        _ => false,
    }
}

fn change(value: &mut Value, dice: &mut Rng) {
    match value {
        Value::Object(fields) => match dice.usize(..4) {
            0 | 1 => {
                let field = one_of(FIELDS, dice);
                fields.insert(field.to_owned(), leaf(dice));
            }
            2 => {
                if let Some(key) = dice.choice(fields.keys()).cloned() {
                    fields.remove(&key);
                }
            }
            _ => {
                if let Some(copied) = dice.choice(fields.values()).cloned() {
                    fields.insert(one_of(FIELDS, dice).to_owned(), copied);
                }
            }
        },
        Value::Array(list) => match dice.usize(..4) {
            0 if !list.is_empty() => drop(list.remove(dice.usize(..list.len()))),
            1 | 2 if !list.is_empty() => {
                let twice = list[dice.usize(..list.len())].clone();
                list.insert(dice.usize(..list.len()), twice);
            }
            _ => list.push(leaf(dice)),
        },
        Value::String(text) => match dice.usize(..4) {
            0 if !text.is_empty() => drop(text.remove(text.floor_char_boundary(dice.usize(..text.len())))),
            1 => {
                let at = text.floor_char_boundary(dice.usize(..text.len() + 1));
                let one = one_of(&["0", "9", "-", ",", ":", "/", "@", "+", "1", "x"], dice);
                text.insert_str(at, one);
            }
            _ => *value = leaf(dice),
        },
        Value::Number(number) => {
            let near = number.as_i64().unwrap_or_default();
            *value = match dice.usize(..4) {
                0 => near.saturating_add(1).into(),
                1 => near.saturating_sub(1).into(),
                _ => leaf(dice),
            };
        }
        Value::Bool(is_so) => *is_so = !*is_so,
        Value::Null => *value = leaf(dice),
    }
}

fn leaf(dice: &mut Rng) -> Value {
    match dice.usize(..10) {
        0 => Value::Null,
        1 => dice.bool().into(),
        2 => Value::Object(Map::new()),
        3 => Value::Array(Vec::new()),
        4..=6 => NUMBERS[dice.usize(..NUMBERS.len())].into(),
        _ => one_of(TEXTS, dice).into(),
    }
}

fn one_of(texts: &[&'static str], dice: &mut Rng) -> &'static str {
    texts[dice.usize(..texts.len())]
}
