//! A job of either kind: a BatchJob, or a batch/v1 Job.

use std::sync::Arc;

use batchjob_crd::{condition, keys};
use batchjob_decide::job::indexes::IndexSet;
use batchjob_decide::observed::Door;
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use super::{FailedContainer, Meta, Pod, count, list};
use crate::standing::Standing;

#[derive(Clone, Debug)]
pub struct Job {
    pub meta: Meta,
    pub door: Door,
    pub manager: Manager,
    pub spec: Spec,
    pub standing: Standing,
    pub ledger: LedgerTexts,
    /// None: a batch/v1 Job cannot say it.
    pub observed_generation: Option<i64>,
    /// `status.reason` of a BatchJob: why it stands where it stands.
    pub reason: Box<str>,
    /// What batch/v1 Job's controller is about to count.
    pub uncounted: Uncounted,
    /// The first of the conditions that say how it ends.
    pub verdict: Option<Verdict>,
    /// How long the texts in the status are that grow with the job, in bytes.
    pub status_bytes: usize,
}

/// Who is to run it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manager {
    Ours,
    /// Kubernetes' own Job controller.
    Kubernetes,
    Other,
}

/// The ledger, as it is written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LedgerTexts {
    pub completed: Box<str>,
    pub failed: Box<str>,
    pub open: Box<str>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Uncounted {
    pub succeeded: Vec<Arc<str>>,
    pub failed: Vec<Arc<str>>,
}

/// How the job ends, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    pub succeeded: bool,
    pub reason: Box<str>,
}

/// What the user asked for, with every default filled in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Spec {
    pub parallelism: u32,
    /// None: a work queue.
    pub completions: Option<u32>,
    pub is_indexed: bool,
    /// None: no limit.
    pub backoff_limit: Option<u32>,
    pub backoff_limit_per_index: Option<u32>,
    pub max_failed_indexes: Option<u32>,
    /// podReplacementPolicy Failed.
    pub replaces_only_ended: bool,
    pub is_suspended: bool,
    /// restartPolicy OnFailure.
    pub restarts_in_place: bool,
    pub active_deadline: Option<SignedDuration>,
    pub failure_rules: Arc<[FailureRule]>,
    pub success_rules: Arc<[SuccessRule]>,
}

/// A rule of podFailurePolicy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailureRule {
    pub action: FailureAction,
    pub on: On,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailureAction {
    FailJob,
    FailIndex,
    Ignore,
    Count,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum On {
    ExitCodes { container: Option<Box<str>>, is_in: bool, values: Box<[i64]> },
    Conditions(Box<[(Box<str>, Box<str>)]>),
}

/// A rule of successPolicy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SuccessRule {
    pub indexes: Option<IndexSet>,
    pub count: Option<u32>,
}

impl Job {
    pub fn read(json: &Value, door: Door) -> Job {
        let meta = Meta::read(json);
        let status = &json["status"];
        let standing = Standing::read(json, door);
        let manager = match (json["spec"]["managedBy"].as_str().unwrap_or_default(), door) {
            (keys::MANAGED_BY, _) | ("", Door::BatchJob) => Manager::Ours,
            ("" | "kubernetes.io/job-controller", Door::ManagedJob) => Manager::Kubernetes,
            _ => Manager::Other,
        };
        let text = |json: &Value| -> Box<str> { json.as_str().unwrap_or_default().into() };
        let mut ledger = LedgerTexts {
            completed: text(&status["completedIndexes"]),
            failed: text(&status["failedIndexes"]),
            open: text(&status["openIndexes"]),
        };
        if door == Door::ManagedJob
            && let Some(annotation) = json["metadata"]["annotations"][keys::LEDGER].as_str()
            && let Ok(annotation) = serde_json::from_str::<Value>(annotation)
        {
            ledger.open = text(&annotation["openIndexes"]);
            if let Some(completed) = annotation["completedIndexes"].as_str() {
                ledger.completed = completed.into();
            }
        }
        let uids = |field: &str| {
            let uids = list(&status["uncountedTerminatedPods"], field).filter_map(Value::as_str);
            uids.map(Arc::from).collect()
        };
        let messages = list(status, "conditions").filter_map(|condition| condition["message"].as_str());
        let status_bytes =
            messages.map(str::len).sum::<usize>() + ledger.completed.len() + ledger.failed.len() + ledger.open.len();
        Job {
            spec: Spec::read(&json["spec"]),
            verdict: verdict(&standing),
            standing,
            ledger,
            manager,
            observed_generation: status["observedGeneration"].as_i64(),
            reason: text(&status["reason"]),
            uncounted: Uncounted { succeeded: uids("succeeded"), failed: uids("failed") },
            status_bytes,
            door,
            meta,
        }
    }

    /// Whether its status is another one: whether it was looked at between the two.
    pub fn has_another_status(&self, other: &Job) -> bool {
        self.standing.status() != other.standing.status()
            || self.ledger != other.ledger
            || self.observed_generation != other.observed_generation
            || self.reason != other.reason
            || self.uncounted != other.uncounted
            || self.status_bytes != other.status_bytes
    }
}

fn verdict(standing: &Standing) -> Option<Verdict> {
    let ends = [
        (condition::SUCCESS_CRITERIA_MET, true),
        (condition::FAILURE_TARGET, false),
        (condition::COMPLETE, true),
        (condition::FAILED, false),
    ];
    ends.into_iter().find_map(|(type_, succeeded)| {
        let found = standing.conditions.iter().find(|found| found.is_true && found.type_ == type_)?;
        Some(Verdict { succeeded, reason: found.reason.as_str().into() })
    })
}

impl Spec {
    pub fn read(spec: &Value) -> Spec {
        let parallelism = count(spec, "parallelism");
        let backoff_limit_per_index = count(spec, "backoffLimitPerIndex");
        let completions = count(spec, "completions").or_else(|| parallelism.is_none().then_some(1));
        let policy = &spec["podFailurePolicy"];
        let replaces_only_ended = match spec["podReplacementPolicy"].as_str() {
            Some(policy) => policy == "Failed",
            None => policy.is_object(),
        };
        let no_limit = |limit: &u32| *limit < i32::MAX as u32;
        let default_limit = backoff_limit_per_index.map_or(Some(6), |_| None);
        Spec {
            parallelism: parallelism.unwrap_or(1),
            completions,
            is_indexed: spec["completionMode"] == "Indexed",
            backoff_limit: count(spec, "backoffLimit").map_or(default_limit, |limit| Some(limit).filter(no_limit)),
            backoff_limit_per_index,
            max_failed_indexes: count(spec, "maxFailedIndexes"),
            replaces_only_ended,
            is_suspended: spec["suspend"] == true,
            restarts_in_place: spec["template"]["spec"]["restartPolicy"] == "OnFailure",
            active_deadline: spec["activeDeadlineSeconds"].as_i64().map(SignedDuration::from_secs),
            failure_rules: list(policy, "rules").filter_map(FailureRule::read).collect(),
            success_rules: list(&spec["successPolicy"], "rules").map(SuccessRule::read).collect(),
        }
    }

    /// The indexes of the job are those below; None: of another sort of job.
    pub fn index_limit(&self) -> Option<u32> {
        self.completions.filter(|_| self.is_indexed)
    }

    /// What podFailurePolicy says of a pod that has failed; None: nothing.
    pub fn judge(&self, pod: &Pod) -> Option<FailureAction> {
        self.failure_rules.iter().find(|rule| rule.on.matches(pod)).map(|rule| rule.action)
    }

    /// Whether those indexes are enough by successPolicy.
    pub fn are_enough(&self, succeeded: &IndexSet) -> bool {
        let completions = self.completions.unwrap_or_default();
        self.success_rules.iter().any(|rule| rule.is_met(succeeded, completions))
    }
}

impl FailureRule {
    fn read(rule: &Value) -> Option<FailureRule> {
        let action = match rule["action"].as_str()? {
            "FailJob" => FailureAction::FailJob,
            "FailIndex" => FailureAction::FailIndex,
            "Ignore" => FailureAction::Ignore,
            "Count" => FailureAction::Count,
            _ => return None,
        };
        let text = |json: &Value, absent: &str| -> Box<str> { json.as_str().unwrap_or(absent).into() };
        let codes = &rule["onExitCodes"];
        let on = if codes.is_object() {
            On::ExitCodes {
                container: codes["containerName"].as_str().map(Box::from),
                is_in: codes["operator"] == "In",
                values: list(codes, "values").filter_map(Value::as_i64).collect(),
            }
        } else {
            let patterns = list(rule, "onPodConditions");
            On::Conditions(patterns.map(|it| (text(&it["type"], ""), text(&it["status"], "True"))).collect())
        };
        Some(FailureRule { action, on })
    }
}

impl On {
    fn matches(&self, pod: &Pod) -> bool {
        match self {
            On::ExitCodes { container, is_in, values } => {
                let is_meant = |failed: &&FailedContainer| container.as_ref().is_none_or(|name| *name == failed.name);
                let mut meant = pod.failed_containers.iter().filter(is_meant);
                meant.any(|failed| values.contains(&failed.exit_code) == *is_in)
            }
            On::Conditions(patterns) => patterns.iter().any(|pattern| pod.conditions.contains(pattern)),
        }
    }
}

impl SuccessRule {
    fn read(rule: &Value) -> SuccessRule {
        SuccessRule {
            indexes: rule["succeededIndexes"].as_str().map(IndexSet::parse),
            count: count(rule, "succeededCount"),
        }
    }

    fn is_met(&self, succeeded: &IndexSet, completions: u32) -> bool {
        let n_enough = |n: usize| self.count.is_some_and(|count| n >= count as usize);
        match self.indexes.as_ref().map(|indexes| indexes.below(completions)) {
            None => n_enough(succeeded.len()),
            Some(indexes) => {
                let n = succeeded.n_common(&indexes);
                !indexes.is_empty() && (n == indexes.len() || n_enough(n))
            }
        }
    }
}

impl Job {
    /// When it started, plus what it may take.
    pub fn deadline(&self) -> Option<Timestamp> {
        self.standing.start_time?.checked_add(self.spec.active_deadline?).ok()
    }
}
