//! What must hold of every status of every job: the rules that the API server has for a batch/v1 Job whose controller is
//! not its own, asserted on BatchJobs as well, where no schema could.
//!
//! Authority: `validateJobStatus` and `ValidateJobStatusUpdate` in `pkg/apis/batch/validation/validation.go`, and
//! `getStatusValidationOptions` in `pkg/registry/batch/job/strategy.go`. As there, most rules are asked only of a status
//! that has changed what they are about: a user who edits the spec may leave a status behind that would break them.

use std::collections::BTreeSet;

use batchjob_crd::{BatchJob, condition};
use batchjob_decide::observed::Door;
use jiff::Timestamp;
use k8s_openapi::api::batch::v1::Job;
use serde_json::Value;

/// The conditions that a batch/v1 Job can have.
const JOB_CONDITIONS: [&str; 5] = [
    condition::SUSPENDED,
    condition::SUCCESS_CRITERIA_MET,
    condition::FAILURE_TARGET,
    condition::COMPLETE,
    condition::FAILED,
];

/// One condition, without its words and times.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Condition {
    pub type_: String,
    pub is_true: bool,
    pub reason: String,
}

/// How a job of either kind stands: its status, and what of its spec the status is judged by.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// Those that a batch/v1 Job can have, in alphabetical order.
    pub conditions: Vec<Condition>,
    pub start_time: Option<Timestamp>,
    pub completion_time: Option<Timestamp>,
    pub active: i32,
    pub ready: i32,
    pub terminating: i32,
    pub succeeded: i32,
    pub failed: i32,
    /// Empty for a job that is not Indexed: a BatchJob's ledger is nothing that a Job has.
    pub completed_indexes: String,
    /// None without backoffLimitPerIndex.
    pub failed_indexes: Option<String>,
    pub n_uncounted: usize,

    /// None for a work queue.
    pub completions: Option<i32>,
    pub parallelism: i32,
    pub is_indexed: bool,
    pub is_suspended: bool,
    pub has_backoff_limit_per_index: bool,
}

impl Standing {
    pub fn is(&self, condition: &str) -> bool {
        self.conditions.iter().any(|found| found.type_ == condition && found.is_true)
    }

    /// At either end.
    pub fn is_finished(&self) -> bool {
        self.is(condition::COMPLETE) || self.is(condition::FAILED)
    }

    /// It is decided how it ends.
    pub fn is_decided(&self) -> bool {
        self.is(condition::SUCCESS_CRITERIA_MET) || self.is(condition::FAILURE_TARGET) || self.is_finished()
    }

    /// Without what it is judged by.
    pub(crate) fn status(&self) -> impl PartialEq + use<'_> {
        let Standing { active, ready, terminating, succeeded, failed, n_uncounted, .. } = self;
        (
            &self.conditions,
            (self.start_time, self.completion_time),
            (active, ready, terminating, succeeded, failed, n_uncounted),
            (&self.completed_indexes, &self.failed_indexes),
        )
    }

    /// It may be made smaller.
    fn is_elastic(&self) -> bool {
        self.is_indexed && self.completions == Some(self.parallelism)
    }

    /// It has lost nothing but what was done of indexes that it has no more. It was made smaller, and then got another
    /// parallelism, before anybody has looked: a BatchJob's status follows.
    fn has_been_made_smaller(&self, before: &Standing) -> bool {
        let end = self.completions.unwrap_or_default();
        let of = |standing: &Standing| indexes(&standing.completed_indexes, i32::MAX).unwrap_or_default();
        let left: BTreeSet<i32> = of(before).into_iter().filter(|&index| index < end).collect();
        self.is_indexed && left.is_subset(&of(self))
    }

    fn is_no_more(&self, condition: &str) -> bool {
        self.conditions.iter().any(|found| found.type_ == condition && !found.is_true)
    }
}

impl Standing {
    /// Reads a job of that kind. What cannot be read is as if it were absent.
    pub fn read(json: &Value, door: Door) -> Standing {
        let (spec, status) = (&json["spec"], &json["status"]);
        let count = |field: &str| status[field].as_i64().and_then(|n| i32::try_from(n).ok()).unwrap_or_default();
        let setting = |field: &str| spec[field].as_i64().and_then(|n| i32::try_from(n).ok());
        let time = |field: &str| status[field].as_str().and_then(|text| text.parse().ok());
        let n = |field: &str| status["uncountedTerminatedPods"][field].as_array().map_or(0, Vec::len);
        let is_indexed = spec["completionMode"] == "Indexed";
        // As batch/v1 Job has it, whose API server fills it in: 1 if parallelism is absent too.
        let is_bare = door == Door::BatchJob && spec["parallelism"].is_null();
        let has_completed = door == Door::ManagedJob || is_indexed;
        let completed = status["completedIndexes"].as_str().filter(|_| has_completed).unwrap_or_default();
        Standing {
            conditions: conditions(status),
            start_time: time("startTime"),
            completion_time: time("completionTime"),
            active: count("active"),
            ready: count("ready"),
            terminating: count("terminating"),
            succeeded: count("succeeded"),
            failed: count("failed"),
            completed_indexes: completed.to_owned(),
            failed_indexes: status["failedIndexes"].as_str().map(str::to_owned),
            n_uncounted: n("succeeded") + n("failed"),
            completions: setting("completions").or_else(|| is_bare.then_some(1)),
            parallelism: setting("parallelism").unwrap_or(1),
            is_indexed,
            is_suspended: spec["suspend"] == true,
            has_backoff_limit_per_index: !spec["backoffLimitPerIndex"].is_null(),
        }
    }
}

fn conditions(status: &Value) -> Vec<Condition> {
    let text = |json: &Value| json.as_str().unwrap_or_default().to_owned();
    let all = status["conditions"].as_array().into_iter().flatten();
    let of_job = all.filter(|it| JOB_CONDITIONS.iter().any(|type_| it["type"] == *type_));
    let mut conditions: Vec<Condition> = of_job
        .map(|it| Condition { type_: text(&it["type"]), is_true: it["status"] == "True", reason: text(&it["reason"]) })
        .collect();
    conditions.sort();
    conditions
}

impl From<&Job> for Standing {
    fn from(job: &Job) -> Standing {
        Standing::read(&serde_json::to_value(job).unwrap_or_default(), Door::ManagedJob)
    }
}

impl From<&BatchJob> for Standing {
    fn from(job: &BatchJob) -> Standing {
        Standing::read(&serde_json::to_value(job).unwrap_or_default(), Door::BatchJob)
    }
}

/// The rules that a status breaks, each as a sentence; `before` is the one that it follows, None if it is the first.
pub fn violations(before: Option<&Standing>, after: &Standing) -> Vec<String> {
    let none = Standing::default();
    let before = before.unwrap_or(&none);
    let mut broken = Broken(Vec::new());
    if before.status() != after.status() {
        broken.of_one_status(before, after);
    }
    broken.of_a_step(before, after);
    broken.0
}

struct Broken(Vec<String>);

impl Broken {
    fn unless(&mut self, holds: bool, rule: &str) {
        self.unless_else(holds, || rule.to_owned());
    }

    /// With the numbers in the rule, which are written only if it is broken: nearly always it is not.
    fn unless_else(&mut self, holds: bool, rule: impl FnOnce() -> String) {
        if !holds {
            self.0.push(rule());
        }
    }

    fn of_one_status(&mut self, before: &Standing, after: &Standing) {
        let is = |condition| after.is(condition);
        let (is_complete, has_failed) = (is(condition::COMPLETE), is(condition::FAILED));
        let is_finished = after.is_finished();

        for (name, count) in [
            ("active", after.active),
            ("ready", after.ready),
            ("terminating", after.terminating),
            ("succeeded", after.succeeded),
            ("failed", after.failed),
        ] {
            self.unless_else(count >= 0, || format!("{name} is not negative, and is {count}"));
        }
        self.unless_else(after.ready <= after.active, || {
            format!("ready {} is at most active {}", after.ready, after.active)
        });

        self.unless(!(is_complete && has_failed), "never Complete and Failed");
        self.unless(!(is_complete && is(condition::FAILURE_TARGET)), "never Complete and FailureTarget");
        self.unless(!(is(condition::SUCCESS_CRITERIA_MET) && has_failed), "never SuccessCriteriaMet and Failed");
        self.unless(
            !(is(condition::SUCCESS_CRITERIA_MET) && is(condition::FAILURE_TARGET)),
            "never SuccessCriteriaMet and FailureTarget",
        );
        self.unless(!is_complete || is(condition::SUCCESS_CRITERIA_MET), "Complete only with SuccessCriteriaMet");
        self.unless(!has_failed || is(condition::FAILURE_TARGET), "Failed only with FailureTarget");

        self.unless(is_complete == after.completion_time.is_some(), "completionTime exactly with Complete");
        if let (Some(start), Some(end)) = (after.start_time, after.completion_time) {
            self.unless_else(start <= end, || format!("completionTime {end} is not before startTime {start}"));
        }
        self.unless_else(!is_finished || after.active == 0, || {
            format!("finished with no active pod, and there are {}", after.active)
        });
        self.unless_else(!is_finished || after.terminating == 0, || {
            format!("finished with no terminating pod, and there are {}", after.terminating)
        });
        self.unless(!is_finished || after.n_uncounted == 0, "finished with no uncounted pod");
        let has_no_work_and_never_started = after.is_suspended && after.completions == Some(0);
        self.unless(
            !is_finished || after.start_time.is_some() || has_no_work_and_never_started,
            "finished only after startTime",
        );
        self.of_indexes(before, after);
    }

    fn of_indexes(&mut self, before: &Standing, after: &Standing) {
        let failed_indexes = after.failed_indexes.as_deref();
        if after.completed_indexes == before.completed_indexes && after.failed_indexes == before.failed_indexes {
            return;
        }
        self.unless(after.is_indexed || after.completed_indexes.is_empty(), "completedIndexes of Indexed jobs only");
        self.unless(
            after.has_backoff_limit_per_index || failed_indexes.is_none(),
            "failedIndexes only with backoffLimitPerIndex",
        );
        if !after.is_indexed {
            return;
        }
        let n_indexes = after.completions.unwrap_or_default();
        let completed = indexes(&after.completed_indexes, n_indexes);
        let failed = indexes(failed_indexes.unwrap_or_default(), n_indexes);
        match (completed, failed) {
            (Ok(completed), Ok(failed)) => {
                self.unless(completed.is_disjoint(&failed), "completedIndexes and failedIndexes have none in common");
                // The count falls only while completions and parallelism are the same: a job may have been made smaller, and
                // then have got another parallelism, before anybody has looked.
                let may_stay = after.succeeded == before.succeeded && !after.is_elastic();
                let n_completed = i32::try_from(completed.len()).unwrap_or(i32::MAX);
                let is_so = n_completed == after.succeeded || (may_stay && n_completed < after.succeeded);
                self.unless_else(is_so, || {
                    format!("succeeded {} is the number of completedIndexes {:?}", after.succeeded, completed)
                });
            }
            (completed, failed) => {
                for (name, indexes) in [("completedIndexes", completed), ("failedIndexes", failed)] {
                    if let Err(error) = indexes {
                        self.0.push(format!("{name}: {error}"));
                    }
                }
            }
        }
    }

    fn of_a_step(&mut self, before: &Standing, after: &Standing) {
        for condition in
            [condition::FAILED, condition::COMPLETE, condition::FAILURE_TARGET, condition::SUCCESS_CRITERIA_MET]
        {
            self.unless_else(!before.is(condition) || after.is(condition), || format!("{condition} stays"));
        }
        self.unless_else(after.failed >= before.failed, || {
            format!("failed does not decrease, and goes from {} to {}", before.failed, after.failed)
        });
        self.unless_else(
            after.succeeded >= before.succeeded || after.is_elastic() || after.has_been_made_smaller(before),
            || format!("succeeded does not decrease, and goes from {} to {}", before.succeeded, after.succeeded),
        );
        if before.completion_time.is_some() {
            self.unless(before.completion_time == after.completion_time, "completionTime stays");
        }
        let is_resumed = before.is(condition::SUSPENDED) && after.is_no_more(condition::SUSPENDED);
        if before.start_time.is_some() && !after.is_suspended && !is_resumed {
            self.unless(before.start_time == after.start_time, "startTime stays while the job is not suspended");
        }
        if before.is_finished() {
            let end = |standing: &Standing| {
                let Standing { succeeded, failed, completed_indexes, failed_indexes, .. } = standing.clone();
                (standing.conditions.clone(), succeeded, failed, completed_indexes, failed_indexes)
            };
            self.unless(end(before) == end(after), "what is finished stays as it is");
        }
    }
}

/// The indexes in a text such as "0-2,5", in the one form that `validateIndexesFormat` accepts: ascending, with no index
/// at or above `n_indexes`.
pub fn indexes(text: &str, n_indexes: i32) -> Result<BTreeSet<i32>, String> {
    let mut all = BTreeSet::new();
    let mut last = -1;
    for interval in text.split(',').filter(|_| !text.is_empty()) {
        let number = |text: &str| text.parse::<i32>().map_err(|_| format!("{text:?} in {interval:?} is no number"));
        let (first, end) = match interval.split_once('-') {
            Some((first, end)) => (number(first)?, number(end)?),
            None => (number(interval)?, number(interval)?),
        };
        if first <= last || end < first {
            return Err(format!("{text:?} does not ascend at {interval:?}"));
        }
        if end >= n_indexes {
            return Err(format!("{text:?} has an index that is not below {n_indexes}"));
        }
        all.extend(first..=end);
        last = end;
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn standing(conditions: &[&str]) -> Standing {
        let condition = |type_: &&str| Condition { type_: (*type_).to_owned(), is_true: true, reason: String::new() };
        Standing {
            conditions: conditions.iter().map(condition).collect(),
            start_time: Some(Timestamp::UNIX_EPOCH),
            parallelism: 2,
            completions: Some(3),
            is_indexed: true,
            ..Standing::default()
        }
    }

    /// What is said of a step that should not be.
    fn said(before: &Standing, after: &Standing) -> String {
        violations(Some(before), after).join("; ")
    }

    #[test]
    fn a_life_as_it_should_be_breaks_nothing() {
        let mut life = vec![standing(&[]), standing(&[])];
        life[1].active = 2;
        life.push(Standing { succeeded: 3, completed_indexes: "0-2".to_owned(), ..standing(&["SuccessCriteriaMet"]) });
        life.push(Standing {
            completion_time: Some(Timestamp::UNIX_EPOCH),
            conditions: standing(&["Complete", "SuccessCriteriaMet"]).conditions,
            ..life[2].clone()
        });
        assert_eq!(violations(None, &life[0]), Vec::<String>::new());
        for step in life.windows(2) {
            assert_eq!(violations(Some(&step[0]), &step[1]), Vec::<String>::new(), "{step:?}");
        }
    }

    #[test]
    fn each_rule_is_missed_when_it_is_broken() {
        let before = standing(&[]);
        let cases: [(&str, Standing); 9] = [
            ("ready 1 is at most active 0", Standing { ready: 1, ..standing(&[]) }),
            ("Failed only with FailureTarget", standing(&["Failed"])),
            ("Complete only with SuccessCriteriaMet", standing(&["Complete"])),
            ("finished with no active pod", Standing { active: 1, ..standing(&["Failed", "FailureTarget"]) }),
            ("finished with no terminating pod", Standing { terminating: 1, ..standing(&["Failed", "FailureTarget"]) }),
            ("finished only after startTime", Standing { start_time: None, ..standing(&["Failed", "FailureTarget"]) }),
            ("not below 3", Standing { completed_indexes: "0-3".to_owned(), ..standing(&[]) }),
            ("is the number of completedIndexes", Standing { completed_indexes: "0".to_owned(), ..standing(&[]) }),
            (
                "completionTime exactly with Complete",
                Standing { completion_time: Some(Timestamp::UNIX_EPOCH), ..standing(&[]) },
            ),
        ];
        for (rule, after) in cases {
            let said = said(&before, &after);
            assert!(said.contains(rule), "{rule:?} is not in {said:?}");
        }
    }

    #[test]
    fn counts_do_not_decrease_and_an_end_stays() {
        let before = Standing { failed: 2, succeeded: 1, completed_indexes: "1".to_owned(), ..standing(&[]) };
        let after = Standing { failed: 1, succeeded: 0, completed_indexes: String::new(), ..before.clone() };
        assert!(said(&before, &after).contains("failed does not decrease"));
        assert!(said(&before, &after).contains("succeeded does not decrease"));
        let elastic = Standing { completions: Some(2), failed: 2, ..after };
        assert_eq!(said(&before, &elastic), "");

        let failed = standing(&["Failed", "FailureTarget"]);
        assert!(said(&failed, &Standing { failed: 1, ..failed.clone() }).contains("stays as it is"));
        assert!(said(&failed, &standing(&["FailureTarget"])).contains("Failed stays"));
    }

    #[test]
    fn indexes_have_one_form() {
        assert_eq!(indexes("", 0), Ok(BTreeSet::new()));
        assert_eq!(indexes("0-2,5", 6), Ok(BTreeSet::from([0, 1, 2, 5])));
        for text in ["1,0", "0-2,2", "3-1", "0,", "x", "0-6", "6"] {
            assert!(indexes(text, 6).is_err(), "{text:?}");
        }
    }
}
