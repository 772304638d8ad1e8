//! Which status of a Job follows on which: `ValidateJobStatusUpdate` in `pkg/apis/batch/validation/validation.go` with the
//! options of `getStatusValidationOptions` in `pkg/registry/batch/job/strategy.go`.

use serde_json::Value;

use super::refusal::Cause;

/// Whether a condition is there and true.
pub(super) fn is_true(status: &Value, type_: &str) -> bool {
    has(status, type_, "True")
}

fn has(status: &Value, type_: &str, value: &str) -> bool {
    let mut conditions = status["conditions"].as_array().into_iter().flatten();
    conditions.any(|condition| condition["type"] == type_ && condition["status"] == value)
}

fn count(status: &Value, name: &str) -> i64 {
    status[name].as_i64().unwrap_or_default()
}

/// What is wrong with the new status, after the old one.
pub(super) fn validate(new_job: &Value, old_job: &Value) -> Vec<Cause> {
    let (new, old, spec) = (&new_job["status"], &old_job["status"], &new_job["spec"]);
    let mut causes = Vec::new();
    let mut wrong = |is_wrong: bool, field: &str, message: &str| {
        if is_wrong {
            causes.push(Cause::invalid(format!("status.{field}"), message));
        }
    };
    let has_changed = |name: &str| new.get(name) != old.get(name);
    let [complete, failed, target, met] =
        ["Complete", "Failed", "FailureTarget", "SuccessCriteriaMet"].map(|type_| is_true(new, type_));
    let [was_complete, was_failed, was_target, was_met] =
        ["Complete", "Failed", "FailureTarget", "SuccessCriteriaMet"].map(|type_| is_true(old, type_));
    let (finished, was_finished) = (complete || failed, was_complete || was_failed);
    let is_indexed = spec["completionMode"] == "Indexed";
    let times = |name: &str| new[name].as_str().and_then(|time| time.parse::<jiff::Timestamp>().ok());

    for name in ["active", "succeeded", "failed", "ready", "terminating"] {
        wrong(count(new, name) < 0, name, "must be greater than or equal to 0");
    }
    let has_verdict_changed = complete != was_complete || failed != was_failed;
    wrong(
        has_verdict_changed && complete && failed,
        "conditions",
        "cannot set Complete=True and Failed=true conditions",
    );
    wrong(
        (complete != was_complete || target != was_target) && complete && target,
        "conditions",
        "cannot set Complete=True and FailureTarget=true conditions",
    );
    let is_completion_asked = complete != was_complete || has_changed("completionTime");
    wrong(
        is_completion_asked && new.get("completionTime").is_some() && !complete,
        "completionTime",
        "cannot set completionTime when there is no Complete=True condition",
    );
    let lacks_completion_time = is_completion_asked && complete && new.get("completionTime").is_none();
    let are_times_asked = has_changed("startTime") || has_changed("completionTime");
    let is_before_start = times("completionTime").zip(times("startTime")).is_some_and(|(end, start)| end < start);
    wrong(are_times_asked && is_before_start, "completionTime", "must be equal to or after `startTime`");
    wrong(
        (failed != was_failed || has_changed("failedIndexes")) && failed && !target,
        "conditions",
        "cannot set Failed=True condition without the FailureTarget=true condition",
    );
    wrong(
        (complete != was_complete || met != was_met) && complete && !met,
        "conditions",
        "cannot set Complete=True condition without the SuccessCriteriaMet=true condition",
    );
    let has_finish_changed = finished != was_finished;
    wrong(
        (has_finish_changed || has_changed("active")) && finished && count(new, "active") > 0,
        "active",
        "active>0 is invalid for finished job",
    );
    let is_suspended_without_work = spec["suspend"] == true && spec["completions"] == 0;
    let lacks_start_time = (has_finish_changed || has_changed("startTime"))
        && !is_suspended_without_work
        && finished
        && new.get("startTime").is_none();
    let uncounted = new["uncountedTerminatedPods"].as_object().into_iter().flat_map(|lists| lists.values());
    let n_uncounted: usize = uncounted.filter_map(Value::as_array).map(Vec::len).sum();
    wrong(
        (has_finish_changed || has_changed("uncountedTerminatedPods")) && finished && n_uncounted > 0,
        "uncountedTerminatedPods",
        "must be empty for finished job",
    );
    indexes(new, old, spec, is_indexed, &mut wrong);
    wrong(
        (has_finish_changed || has_changed("terminating")) && finished && count(new, "terminating") > 0,
        "terminating",
        "terminating>0 is invalid for finished job",
    );
    wrong(
        (has_changed("ready") || has_changed("active")) && count(new, "ready") > count(new, "active"),
        "ready",
        "cannot set more ready pods than active",
    );
    wrong(met && failed, "conditions", "cannot set SuccessCriteriaMet=True and Failed=true conditions");
    wrong(met && target, "conditions", "cannot set SuccessCriteriaMet=True and FailureTarget=true conditions");
    wrong(
        !spec["successPolicy"].is_null() && !met && complete,
        "conditions",
        "cannot set Complete=True for Job with SuccessPolicy unless SuccessCriteriaMet=True",
    );

    for (was, is) in [(was_failed, failed), (was_complete, complete), (was_target, target)] {
        wrong(was && !is, "conditions", "cannot disable the terminal condition");
    }
    wrong(count(new, "failed") < count(old, "failed"), "failed", "cannot decrease the failed counter");
    let is_elastic = is_indexed && spec["completions"] == spec["parallelism"];
    wrong(
        !is_elastic && count(new, "succeeded") < count(old, "succeeded"),
        "succeeded",
        "cannot decrease the succeeded counter",
    );
    let has_moved = |name: &str| old.get(name).is_some() && has_changed(name);
    wrong(new.get("completionTime").is_some() && has_moved("completionTime"), "completionTime", "field is immutable");
    let is_resuming = is_true(old, "Suspended") && has(new, "Suspended", "False");
    wrong(
        has_moved("startTime") && !is_resuming && spec["suspend"] != true,
        "startTime",
        "field is immutable for unsuspended job once set",
    );
    wrong(was_met && !met, "conditions", "cannot disable the SuccessCriteriaMet=True condition");
    wrong(
        was_complete && !was_met && met,
        "conditions",
        "cannot set SuccessCriteriaMet=True for Job already has Complete=true conditions",
    );
    for (is_missing, name) in [(lacks_completion_time, "completionTime"), (lacks_start_time, "startTime")] {
        if is_missing {
            causes.push(Cause::required(format!("status.{name}"), "is required"));
        }
    }
    causes
}

fn indexes(new: &Value, old: &Value, spec: &Value, is_indexed: bool, wrong: &mut impl FnMut(bool, &str, &str)) {
    let has_changed = |name: &str| new.get(name) != old.get(name);
    let text = |name: &str| new[name].as_str().unwrap_or_default();
    let (completed, failed) = (text("completedIndexes"), text("failedIndexes"));
    let parsed = spec["completions"].as_i64().map(|n| (parse(completed, n), parse(failed, n)));
    let has_limit = !spec["backoffLimitPerIndex"].is_null();
    if let Some((completed, failed)) = &parsed {
        wrong(
            has_changed("completedIndexes") && completed.is_none(),
            "completedIndexes",
            "error parsing completedIndexes",
        );
        wrong(
            has_changed("failedIndexes") && has_limit && failed.is_none(),
            "failedIndexes",
            "error parsing failedIndexes",
        );
    }
    wrong(
        has_changed("completedIndexes") && !completed.is_empty() && !is_indexed,
        "completedIndexes",
        "cannot set non-empty completedIndexes when non-indexed completion mode",
    );
    wrong(
        has_changed("failedIndexes") && !has_limit && new.get("failedIndexes").is_some(),
        "failedIndexes",
        "cannot set non-null failedIndexes when backoffLimitPerIndex is null",
    );
    let is_overlap_asked = has_changed("failedIndexes") || has_changed("completedIndexes");
    if let Some(n) = spec["completions"].as_i64().filter(|_| is_overlap_asked && new.get("failedIndexes").is_some()) {
        let are_apart = completed.is_empty() || failed.is_empty() || !overlap(completed, failed, n);
        wrong(!are_apart, "failedIndexes", "failedIndexes and completedIndexes overlap");
    }
}

/// Whether two lists of ranges have an index in common; what is no range is passed over
/// (`validateFailedIndexesNotOverlapCompleted`).
fn overlap(completed: &str, failed: &str, n: i64) -> bool {
    let mut completed = completed.split(',').filter_map(|part| range(part, n)).peekable();
    let mut failed = failed.split(',').filter_map(|part| range(part, n)).peekable();
    while let (Some(&(from, to)), Some(&(first, last))) = (completed.peek(), failed.peek()) {
        if from <= last && first <= to {
            return true;
        }
        if from <= first {
            completed.next();
        } else {
            failed.next();
        }
    }
    false
}

/// Ranges such as "0-3,7", ascending and below `n`; None if it is not that (`validateIndexesFormat`).
fn parse(text: &str, n: i64) -> Option<Vec<(i64, i64)>> {
    let mut ranges: Vec<(i64, i64)> = Vec::new();
    if text.is_empty() {
        return Some(ranges);
    }
    for part in text.split(',') {
        let (first, last) = range(part, n)?;
        if ranges.last().is_some_and(|&(_, before)| before >= first) {
            return None;
        }
        ranges.push((first, last));
    }
    Some(ranges)
}

/// One range, such as "7" or "0-3", below `n` (`parseIndexInterval`).
fn range(part: &str, n: i64) -> Option<(i64, i64)> {
    let (first, last) = part.split_once('-').unwrap_or((part, part));
    let (first, last) = (first.parse().ok()?, last.parse().ok()?);
    let is_good = 0 <= first && last < n && (first < last || !part.contains('-'));
    is_good.then_some((first, last))
}
