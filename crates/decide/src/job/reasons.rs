//! Why: what the events say. One event for all the pods that it is about, never one for each.

use batchjob_crd::{BatchJobStatus, condition};

use super::indexes::IndexSet;
use super::retry;
use super::status::{Picture, find_true, finished_at, hindrance};
use crate::plan::{AttemptId, Reason};

/// The names are upstream's where the meaning is (`pkg/controller/job/job_controller.go`, `controller_utils.go`).
pub fn reasons(picture: &Picture<'_>, status: &BatchJobStatus) -> Vec<Reason> {
    let before = &picture.observed.job.status;
    let mut reasons = Vec::new();
    // Once the job is bound to fail, its pods end because they were told to: no news.
    if let Some(message) = failures(picture).filter(|_| !is_true(before, condition::FAILURE_TARGET)) {
        reasons.push(Reason::warning("PodFailed", message));
    }
    if let Some((word, message)) = hindrance(picture.tally).filter(|(word, _)| is_new(before, status, word)) {
        reasons.push(Reason::warning(word, message));
    }
    if let Some(change) = suspension(before, status) {
        reasons.push(change);
    }
    if !picture.scale.start.is_empty() {
        let started = picture.scale.start.iter().map(|start| start.id).collect();
        reasons.push(Reason::pods("SuccessfulCreate", "created", started));
    }
    let condemned = picture.verdict.map_or(&picture.scale.stop, |_| &picture.tally.current);
    let deleted: Vec<AttemptId> = condemned.iter().chain(&picture.tally.strays).map(|attempt| attempt.id).collect();
    if !deleted.is_empty() {
        reasons.push(Reason::pods("SuccessfulDelete", "deleted", deleted));
    }
    if let Some(verdict) = picture.verdict.filter(|_| finished_at(before).is_none()) {
        let has_come = |type_| !is_true(before, type_) && is_true(status, type_);
        if has_come(condition::FAILURE_TARGET) {
            reasons.push(Reason::warning(&verdict.reason, verdict.message.as_str()));
        }
        if has_come(condition::COMPLETE) {
            reasons.push(Reason::normal("Completed", "Job completed"));
        }
    }
    reasons
}

/// Whether this word is the job's reason now, and was not before.
fn is_new(before: &BatchJobStatus, after: &BatchJobStatus, word: &str) -> bool {
    after.reason.as_deref() == Some(word) && before.reason.as_deref() != Some(word)
}

fn is_true(status: &BatchJobStatus, type_: &str) -> bool {
    find_true(status, type_).is_some()
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
    let id = first.attempt.id;
    let mut message = format!("{id} failed: {}", first.attempt.cause());
    if let Some(rule) = first.rule.as_ref() {
        message += &format!(" (podFailurePolicy rule {}: {})", rule.rule, rule.action.as_str());
    }
    if let Some(at) = next_start(picture, id.index) {
        message += &format!("; attempt {} starts at {at}", id.attempt + 1);
    } else if picture.tally.ledger.failed_indexes.contains(id.index) {
        message += "; this index has failed for good";
    }
    if failed.len() > 1 {
        let indexes: IndexSet = failed.iter().map(|failure| failure.attempt.id.index).collect();
        message = format!("{} pods failed (indexes {indexes}); the first: {message}", failed.len());
    }
    Some(message)
}

fn next_start(picture: &Picture<'_>, index: u32) -> Option<jiff::Timestamp> {
    let open = picture.tally.ledger.open.get(index).filter(|_| picture.verdict.is_none())?;
    retry::not_before(Some(open))
}
