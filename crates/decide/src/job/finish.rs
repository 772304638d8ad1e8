//! Is the job over? The verdicts, in their order: the first that holds is the answer.
//!
//! The order is that of batch/v1 Job's `syncJob`, but for one thing: the deadline comes last. A job whose work is done is
//! complete, and one that has failed has failed for what made it fail, even if the deadline has passed before that was
//! noticed. Nobody wants a finished job to fail because the operator was away.

use jiff::{SignedDuration, Timestamp};

use batchjob_crd::{condition, reason};

use super::ledger::Ledger;
use super::spec::{Completions, Spec};
use super::status::find_true;
use super::tally::Tally;
use crate::observed::Observed;
use crate::plan::{AttemptId, PolicyAction};

/// It is over, because.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    pub succeeded: bool,
    pub reason: String,
    pub message: String,
}

impl Verdict {
    fn failed(reason: &str, message: String) -> Verdict {
        Verdict { succeeded: false, reason: reason.to_owned(), message }
    }
}

/// What the checks look at.
pub struct Evidence<'a> {
    pub observed: &'a Observed,
    pub spec: &'a Spec,
    pub tally: &'a Tally<'a>,
}

type Check = fn(&Evidence<'_>) -> Option<Verdict>;

const CHECKS: [Check; 10] = [
    already_succeeding,
    already_failing,
    pod_failure_policy,
    backoff_limit_exceeded,
    attempts_used_up,
    max_failed_indexes_exceeded,
    failed_indexes,
    success_policy,
    completions_reached,
    deadline_exceeded,
];

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

/// A rule says that this failure is one of the whole job.
fn pod_failure_policy(evidence: &Evidence<'_>) -> Option<Verdict> {
    let mut rules = evidence.tally.failed.iter().filter_map(|failure| failure.rule.as_ref());
    let rule = rules.find(|rule| rule.action == PolicyAction::FailJob)?;
    Some(Verdict::failed(reason::POD_FAILURE_POLICY, rule.message()))
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
    let failed = tally.failed.iter().filter(|failure| failure.counts()).map(|failure| &failure.attempt);
    let failing = tally.current.iter().filter(|attempt| attempt.n_failures_in_place() > 0);
    if let Some(last) = failed.chain(failing).last() {
        message += &format!("; {} failed: {}", last.id, last.cause());
    }
    Some(Verdict::failed(reason::BACKOFF_LIMIT_EXCEEDED, message))
}

/// An index has had the last attempt that there can be. Only a status that somebody has written to says so.
fn attempts_used_up(evidence: &Evidence<'_>) -> Option<Verdict> {
    let index = evidence.tally.ledger.used_up(evidence.spec.n_indexes())?;
    let message = format!("Index {index} can have no attempt after attempt {}", AttemptId::LAST);
    Some(Verdict::failed(reason::BACKOFF_LIMIT_EXCEEDED, message))
}

fn max_failed_indexes_exceeded(evidence: &Evidence<'_>) -> Option<Verdict> {
    let failed = &evidence.tally.ledger.failed_indexes;
    let max = evidence.spec.max_failed_indexes?;
    (failed.len() > max as usize).then(|| {
        let message = "Job has exceeded the specified maximal number of failed indexes";
        let message = format!("{message}: maxFailedIndexes {max}, failed indexes {failed}");
        Verdict::failed(reason::MAX_FAILED_INDEXES_EXCEEDED, message)
    })
}

/// Every index is done or has failed for good, and there are such as have failed.
fn failed_indexes(evidence: &Evidence<'_>) -> Option<Verdict> {
    let Ledger { failed_indexes, completed, .. } = &evidence.tally.ledger;
    let completions = evidence.spec.index_limit()?;
    let is_over = failed_indexes.len() + completed.len() >= completions as usize;
    (!failed_indexes.is_empty() && is_over)
        .then(|| Verdict::failed(reason::FAILED_INDEXES, format!("Job has failed indexes: {failed_indexes}")))
}

fn success_policy(evidence: &Evidence<'_>) -> Option<Verdict> {
    let policy = evidence.spec.success_policy.as_ref()?;
    let rule = policy.met(&evidence.tally.ledger.completed, evidence.spec.index_limit()?)?;
    Some(Verdict {
        succeeded: true,
        reason: reason::SUCCESS_POLICY.to_owned(),
        message: format!("Matched rules at index {rule}"),
    })
}

fn completions_reached(evidence: &Evidence<'_>) -> Option<Verdict> {
    let Evidence { spec, tally, .. } = evidence;
    let n_done = tally.ledger.completed.len();
    let is_reached = match spec.completions {
        Completions::Fixed(completions) => n_done >= completions as usize,
        // Any worker that exits with success says that the queue is empty; the others finish what they have.
        Completions::WorkQueue => n_done > 0,
    };
    // Of a suspended job nothing goes on; one that needs no more is complete rather than suspended.
    let is_at_rest = (tally.current.is_empty() && tally.orphans.is_empty()) || spec.is_suspended;
    (is_reached && is_at_rest).then(|| Verdict {
        succeeded: true,
        reason: reason::COMPLETIONS_REACHED.to_owned(),
        message: "Reached expected number of succeeded pods".to_owned(),
    })
}

fn deadline_exceeded(evidence: &Evidence<'_>) -> Option<Verdict> {
    let deadline = deadline(evidence.observed, evidence.spec)?;
    (evidence.observed.now >= deadline).then(|| {
        let seconds = evidence.spec.active_deadline.map_or(0, |deadline| deadline.as_secs());
        let message = format!("Job was active longer than specified deadline: activeDeadlineSeconds {seconds}");
        Verdict::failed(reason::DEADLINE_EXCEEDED, message)
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
