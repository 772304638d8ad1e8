//! Why: what the events say. One event for all the pods that it is about, never one for each.

use batchjob_crd::{BatchJobStatus, condition};

use super::attempt::Attempt;
use super::indexes::IndexSet;
use super::retry;
use super::status::{Picture, finished_at};
use crate::plan::{AttemptId, Reason};

/// The names are upstream's where the meaning is (`pkg/controller/job/job_controller.go`, `controller_utils.go`).
pub fn reasons(picture: &Picture<'_>, status: &BatchJobStatus) -> Vec<Reason> {
    let before = &picture.observed.job.status;
    let mut reasons = Vec::new();
    if let Some(message) = failures(picture) {
        reasons.push(Reason::warning("PodFailed", message));
    }
    if let Some(change) = suspension(before, status) {
        reasons.push(change);
    }
    if !picture.scale.start.is_empty() {
        let message = format!("created {}", pods(picture.scale.start.iter().copied()));
        reasons.push(Reason::normal("SuccessfulCreate", message));
    }
    let condemned = picture.verdict.map_or(&picture.scale.stop, |_| &picture.tally.current);
    if !condemned.is_empty() {
        let message = format!("deleted {}", pods(condemned.iter().map(|attempt| attempt.id)));
        reasons.push(Reason::normal("SuccessfulDelete", message));
    }
    if !picture.tally.strays.is_empty() {
        let strays = pods(picture.tally.strays.iter().map(|attempt| attempt.id));
        reasons.push(Reason::normal("SuccessfulDelete", format!("deleted {strays}, no longer needed")));
    }
    if let Some(verdict) = picture.verdict.filter(|_| finished_at(before).is_none()) {
        let is_new = |type_| !is_true(before, type_) && is_true(status, type_);
        if is_new(condition::FAILURE_TARGET) {
            reasons.push(Reason::warning(&verdict.reason, verdict.message.as_str()));
        }
        if is_new(condition::COMPLETE) {
            reasons.push(Reason::normal("Completed", "Job completed"));
        }
    }
    reasons
}

fn is_true(status: &BatchJobStatus, type_: &str) -> bool {
    status.conditions.iter().any(|condition| condition.type_ == type_ && condition.status == "True")
}

fn suspension(before: &BatchJobStatus, after: &BatchJobStatus) -> Option<Reason> {
    match (is_true(before, condition::SUSPENDED), is_true(after, condition::SUSPENDED)) {
        (false, true) => Some(Reason::normal("Suspended", "Job suspended")),
        (true, false) if finished_at(after).is_none() => Some(Reason::normal("Resumed", "Job resumed")),
        _ => None,
    }
}

/// "index 3 attempt 1 failed: container main exited with code 7; attempt 2 not before 12:00:10Z".
fn failures(picture: &Picture<'_>) -> Option<String> {
    let failed = &picture.tally.failed;
    let first = failed.first()?;
    let mut message = format!("{} failed: {}", first.id, first.cause());
    if let Some(at) = next_start(picture, first) {
        message += &format!("; attempt {} starts at {at}", first.id.attempt + 1);
    }
    if failed.len() > 1 {
        message = format!("{} failed; the first: {message}", pods(failed.iter().map(|attempt| attempt.id)));
    }
    Some(message)
}

fn next_start(picture: &Picture<'_>, failed: &Attempt<'_>) -> Option<jiff::Timestamp> {
    let open = picture.tally.ledger.open.get(failed.id.index).filter(|_| picture.verdict.is_none())?;
    retry::not_before(Some(open))
}

/// "1 pod (index 3 attempt 2)", "40 pods (indexes 0-39)".
fn pods(ids: impl Iterator<Item = AttemptId>) -> String {
    let ids: Vec<AttemptId> = ids.collect();
    match ids[..] {
        [id] => format!("1 pod ({id})"),
        _ => {
            let indexes: IndexSet = ids.iter().map(|id| id.index).collect();
            format!("{} pods (indexes {indexes})", ids.len())
        }
    }
}
