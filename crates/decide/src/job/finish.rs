//! Is the job over? The verdicts, in their order: the first that holds is the answer.
//!
//! The order is that of batch/v1 Job's `syncJob`, but for one thing: a job whose work is all done is complete, even if
//! its deadline has passed before that was noticed. Nobody wants a finished job to fail because the operator was away.

use jiff::{SignedDuration, Timestamp};

use batchjob_crd::{condition, reason};

use super::spec::{Completions, Spec};
use super::status::find_true;
use super::tally::Tally;
use crate::observed::Observed;

/// It is over, because.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    pub succeeded: bool,
    pub reason: String,
    pub message: String,
}

/// What the checks look at.
pub struct Evidence<'a> {
    pub observed: &'a Observed,
    pub spec: &'a Spec,
    pub tally: &'a Tally<'a>,
}

type Check = fn(&Evidence<'_>) -> Option<Verdict>;

const CHECKS: [Check; 5] =
    [already_succeeding, already_failing, backoff_limit_exceeded, completions_reached, deadline_exceeded];

pub fn verdict(evidence: &Evidence<'_>) -> Option<Verdict> {
    CHECKS.iter().find_map(|check| check(evidence))
}

fn already_succeeding(evidence: &Evidence<'_>) -> Option<Verdict> {
    already(evidence, condition::SUCCESS_CRITERIA_MET, true)
}

fn already_failing(evidence: &Evidence<'_>) -> Option<Verdict> {
    already(evidence, condition::FAILURE_TARGET, false)
}

/// A verdict that an earlier pass has written stands, whatever has come to light since.
fn already(evidence: &Evidence<'_>, condition: &str, succeeded: bool) -> Option<Verdict> {
    let found = find_true(&evidence.observed.job.status, condition)?;
    Some(Verdict { succeeded, reason: found.reason.clone(), message: found.message.clone() })
}

/// More attempts have failed than may be retried. With restartPolicy OnFailure the restarts within living pods count
/// as what they are, failures: batch/v1 Job compares them with `>=` and so gives one retry less (`pastBackoffLimitOnFailure`).
fn backoff_limit_exceeded(evidence: &Evidence<'_>) -> Option<Verdict> {
    let Evidence { spec, tally, .. } = evidence;
    let in_place: u32 = match spec.restarts_in_place {
        true => tally.current.iter().map(|attempt| attempt.n_failures_in_place()).fold(0, u32::saturating_add),
        false => 0,
    };
    let n_failures = tally.ledger.failed.saturating_add(in_place);
    if n_failures <= spec.backoff_limit {
        return None;
    }
    let limit = spec.backoff_limit;
    let mut message =
        format!("Job has reached the specified backoff limit: backoffLimit {limit}, failures {n_failures}");
    if in_place > 0 {
        message += " (restarts within pods included)";
    }
    let failing = tally.current.iter().filter(|attempt| attempt.n_failures_in_place() > 0);
    if let Some(last) = tally.failed.iter().chain(failing).last() {
        message += &format!("; {} failed: {}", last.id, last.cause());
    }
    Some(Verdict { succeeded: false, reason: reason::BACKOFF_LIMIT_EXCEEDED.to_owned(), message })
}

fn completions_reached(evidence: &Evidence<'_>) -> Option<Verdict> {
    let Evidence { spec, tally, .. } = evidence;
    let n_done = tally.ledger.completed.len();
    let is_reached = match spec.completions {
        Completions::Fixed(completions) => n_done >= completions as usize,
        // Any worker that exits with success says that the queue is empty; the others finish what they have.
        Completions::WorkQueue => n_done > 0,
    };
    (is_reached && tally.current.is_empty()).then(|| Verdict {
        succeeded: true,
        reason: reason::COMPLETIONS_REACHED.to_owned(),
        message: "Reached expected number of succeeded pods".to_owned(),
    })
}

fn deadline_exceeded(evidence: &Evidence<'_>) -> Option<Verdict> {
    let deadline = deadline(evidence.observed, evidence.spec)?;
    (evidence.observed.now >= deadline).then(|| Verdict {
        succeeded: false,
        reason: reason::DEADLINE_EXCEEDED.to_owned(),
        message: format!(
            "Job was active longer than specified deadline: activeDeadlineSeconds {}",
            evidence.spec.active_deadline.map_or(0, |deadline| deadline.as_secs())
        ),
    })
}

/// The point that the job must not pass; None if it has none, or time does not count because it is suspended. A job that
/// is seen for the first time starts now: with activeDeadlineSeconds 0 it ends before any pod is made.
pub fn deadline(observed: &Observed, spec: &Spec) -> Option<Timestamp> {
    let started = observed.job.status.start_time.as_ref().map_or(observed.now, |time| time.0);
    let allowed = spec.active_deadline?;
    (!spec.is_suspended).then(|| started.checked_add(allowed).unwrap_or(Timestamp::MAX))
}

/// When a job that finished at `finished_at` may be deleted.
pub fn expiry(spec: &Spec, finished_at: Timestamp) -> Option<Timestamp> {
    let ttl: SignedDuration = spec.ttl?;
    Some(finished_at.checked_add(ttl).unwrap_or(Timestamp::MAX))
}
