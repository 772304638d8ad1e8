//! Changes JSON so that it stays JSON: bytes that are changed at random are hardly ever an object.

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

/// A generator of which the whole state is one number: the same seed makes the same change.
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u32) -> Dice {
        Dice(u64::from(seed) | 1 << 40)
    }

    /// Below `n`, which is not 0 (xorshift64*).
    pub fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % n.max(1)
    }

    fn one_of<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[self.below(all.len())]
    }
}

/// Changes one to three places. What is no JSON becomes an object.
pub fn json(bytes: &[u8], seed: u32, max_size: usize) -> Vec<u8> {
    let mut dice = Dice::new(seed);
    let mut whole = serde_json::from_slice(bytes).unwrap_or_else(|_| Value::Object(Map::new()));
    for _ in 0..=dice.below(3) {
        let n_places = n_places(&whole);
        let place = dice.below(n_places);
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
fn change_at(value: &mut Value, n: &mut usize, dice: &mut Dice) -> bool {
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

fn change(value: &mut Value, dice: &mut Dice) {
    match value {
        Value::Object(fields) => match dice.below(4) {
            0 | 1 => {
                let new = leaf(dice);
                fields.insert((*dice.one_of(FIELDS)).to_owned(), new);
            }
            2 => {
                let keys: Vec<String> = fields.keys().cloned().collect();
                if !keys.is_empty() {
                    fields.remove(dice.one_of(&keys));
                }
            }
            _ => {
                let keys: Vec<String> = fields.keys().cloned().collect();
                if let (Some(from), false) = (keys.get(dice.below(keys.len())), keys.is_empty()) {
                    let moved = fields.get(from).cloned().unwrap_or_default();
                    fields.insert((*dice.one_of(FIELDS)).to_owned(), moved);
                }
            }
        },
        Value::Array(list) => match dice.below(4) {
            0 if !list.is_empty() => drop(list.remove(dice.below(list.len()))),
            1 | 2 if !list.is_empty() => {
                let twice = dice.one_of(list).clone();
                list.insert(dice.below(list.len()), twice);
            }
            _ => list.push(leaf(dice)),
        },
        Value::String(text) => match dice.below(4) {
            0 if !text.is_empty() => drop(text.remove(text.floor_char_boundary(dice.below(text.len())))),
            1 => {
                let at = text.floor_char_boundary(dice.below(text.len() + 1));
                let one = *dice.one_of(&["0", "9", "-", ",", ":", "/", "@", "+", "1", "x"]);
                text.insert_str(at, one);
            }
            _ => *value = leaf(dice),
        },
        Value::Number(number) => {
            let near = number.as_i64().unwrap_or_default();
            *value = match dice.below(4) {
                0 => near.saturating_add(1).into(),
                1 => near.saturating_sub(1).into(),
                _ => leaf(dice),
            };
        }
        Value::Bool(is_so) => *is_so = !*is_so,
        Value::Null => *value = leaf(dice),
    }
}

fn leaf(dice: &mut Dice) -> Value {
    match dice.below(10) {
        0 => Value::Null,
        1 => dice.below(2).eq(&0).into(),
        2 => Value::Object(Map::new()),
        3 => Value::Array(Vec::new()),
        4..=6 => (*dice.one_of(NUMBERS)).into(),
        _ => (*dice.one_of(TEXTS)).into(),
    }
}
