//! What users see: counts, conditions and words, projected from the ledger and the pods.
//!
//! Nothing here is counted up or remembered: the status is computed anew in every pass, and only what a status alone
//! can tell (when the job started, when a condition changed) is taken over from the one before.

use batchjob_crd::{BatchJobStatus, Phase, condition, reason};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

use super::attempt::Attempt;
use super::finish::Verdict;
use super::scale::Scale;
use super::spec::{Completions, Spec};
use super::tally::Tally;
use crate::conditions::{self, Conditions, whole_seconds};
use crate::observed::{Job, Observed, Obstacle, PodPhase};

/// What one pass has found, from which the status and the events are written.
pub struct Picture<'a> {
    pub observed: &'a Observed,
    pub spec: &'a Spec,
    pub tally: &'a Tally<'a>,
    pub scale: &'a Scale<'a>,
    pub verdict: Option<&'a Verdict>,
    pub blocked: Option<&'a Obstacle>,
}

impl<'a> Picture<'a> {
    /// The attempts that go on: those that are not stopped in this pass.
    fn staying(&self) -> impl Iterator<Item = &'a Attempt<'a>> {
        let stop = &self.scale.stop;
        let is_stopped = |attempt: &Attempt<'_>| stop.binary_search_by_key(&attempt.id, |stop| stop.id).is_ok();
        self.tally.current.iter().filter(move |attempt| !is_stopped(attempt))
    }
}

/// How the job ended: its condition Complete, or Failed; None while it has not.
pub fn end(status: &BatchJobStatus) -> Option<&Condition> {
    find_true(status, condition::COMPLETE).or_else(|| find_true(status, condition::FAILED))
}

/// When the job ended; None while it has not.
pub fn finished_at(status: &BatchJobStatus) -> Option<Timestamp> {
    Some(end(status)?.last_transition_time.0)
}

/// Whether it says how the job ends, even if it has not come to that yet.
pub fn is_decided(status: &BatchJobStatus) -> bool {
    let ends = [condition::SUCCESS_CRITERIA_MET, condition::FAILURE_TARGET, condition::COMPLETE, condition::FAILED];
    ends.into_iter().any(|end| find_true(status, end).is_some())
}

/// The condition of that type, if it is true.
pub(super) fn find_true<'a>(status: &'a BatchJobStatus, type_: &str) -> Option<&'a Condition> {
    conditions::find_true(&status.conditions, type_)
}

/// The status once the plan of this pass is carried out.
pub fn project(picture: &Picture<'_>) -> BatchJobStatus {
    let Picture { observed, spec, tally, scale, verdict, .. } = picture;
    let before = &observed.job.status;
    let ledger = &tally.ledger;
    let now = whole_seconds(observed.now);

    // What this plan deletes is terminating by the time the status is written, and what it creates is active.
    let n_condemned = if verdict.is_some() { tally.current.len() } else { scale.stop.len() };
    let n_active = tally.current.len() + scale.start.len() - n_condemned;
    let n_terminating = tally.terminating.len() + tally.strays.len() + n_condemned;
    let n_ready = match verdict {
        Some(_) => 0,
        None => picture.staying().filter(|attempt| attempt.is_ready()).count(),
    };

    let mut status = BatchJobStatus {
        active: Some(as_count(n_active)),
        ready: Some(as_count(n_ready)),
        terminating: Some(as_count(n_terminating)),
        succeeded: Some(as_count(ledger.completed.len())),
        failed: Some(ledger.failed.min(i32::MAX as u32) as i32),
        completed_indexes: Some(ledger.completed.to_string()).filter(|text| !text.is_empty()),
        failed_indexes: Some(ledger.failed_indexes.to_string()).filter(|text| !text.is_empty()),
        open_indexes: Some(open_indexes(picture)).filter(|text| !text.is_empty()),
        completions_summary: Some(completions_summary(spec, ledger.completed.len())),
        parallelism: Some(as_count(spec.parallelism as usize)),
        backoff_limit: Some(as_count(spec.backoff_limit as usize)),
        start_time: start_time(picture).map(Time),
        ..carried_over(&observed.job)
    };
    let mut conditions = Conditions { list: before.conditions.clone(), generation: observed.job.generation, now };
    match verdict {
        Some(verdict) => {
            let n_left = n_active + n_terminating + tally.orphans.len();
            conclude(&mut status, &mut conditions, verdict, n_left == 0, now);
        }
        None => {
            status.phase = Some(phase(picture));
            report_progress(picture, &mut status, &mut conditions);
        }
    }
    status.conditions = conditions.list;
    status
}

/// Whether nothing differs but how many pods are active and ready just now, and the words about it.
pub fn only_counts_differ(before: &BatchJobStatus, after: &BatchJobStatus) -> bool {
    let without_counts = |status: &BatchJobStatus| {
        let mut status = BatchJobStatus { active: None, ready: None, terminating: None, ..status.clone() };
        for condition in &mut status.conditions {
            condition.message.clear();
        }
        status
    };
    without_counts(before) == without_counts(after)
}

/// The status of a job whose spec cannot be acted on.
pub fn invalid(job: &Job, message: String, now: Timestamp) -> BatchJobStatus {
    let mut conditions =
        Conditions { list: job.status.conditions.clone(), generation: job.generation, now: whole_seconds(now) };
    conditions.stall(reason::INVALID_SPEC, message);
    BatchJobStatus {
        phase: Some(job.status.phase.unwrap_or(Phase::Pending)),
        reason: Some(reason::INVALID_SPEC.to_owned()),
        conditions: conditions.list,
        ..carried_over(job)
    }
}

/// What stays as it is unless a pass says otherwise: all, but that a change of the spec was seen.
pub fn carried_over(job: &Job) -> BatchJobStatus {
    BatchJobStatus { observed_generation: Some(job.generation), selector: Some(job.selector()), ..job.status.clone() }
}

fn open_indexes(picture: &Picture<'_>) -> String {
    let open = &picture.tally.ledger.open;
    if picture.verdict.is_some() { open.without_times().to_string() } else { open.to_string() }
}

/// The time from which activeDeadlineSeconds counts: when the job was first seen, and again when it is resumed.
fn start_time(picture: &Picture<'_>) -> Option<Timestamp> {
    let Picture { observed, spec, verdict, .. } = picture;
    // A finished job has a start, even one that ends while it is suspended; but not one that never had anything to do
    // (`validateJobStatus`, `isSuspendedWithZeroCompletions` in `pkg/registry/batch/job/strategy.go`).
    let has_ended = verdict.is_some() && spec.completions != Completions::Fixed(0);
    if spec.is_suspended && !has_ended {
        return None;
    }
    let before = observed.job.status.start_time.as_ref();
    Some(before.map_or(whole_seconds(observed.now), |time| time.0))
}

fn phase(picture: &Picture<'_>) -> Phase {
    let Picture { spec, tally, .. } = picture;
    if spec.is_suspended {
        return Phase::Suspended;
    }
    let has_begun = picture.observed.job.status.phase == Some(Phase::Running)
        || !tally.ledger.completed.is_empty()
        || tally.ledger.open.have_failed()
        || tally.ledger.failed > 0
        || picture.staying().any(|attempt| attempt.pod.phase == PodPhase::Running);
    if has_begun { Phase::Running } else { Phase::Pending }
}

/// It is decided how the job ends: the interim condition, and once the last pod is gone the final ones.
fn conclude(
    status: &mut BatchJobStatus,
    conditions: &mut Conditions,
    verdict: &Verdict,
    is_over: bool,
    now: Timestamp,
) {
    let Verdict { succeeded, reason, message } = verdict;
    let (interim, last, phase) = match succeeded {
        true => (condition::SUCCESS_CRITERIA_MET, condition::COMPLETE, Phase::Succeeded),
        false => (condition::FAILURE_TARGET, condition::FAILED, Phase::Failed),
    };
    conditions.set(interim, true, reason, message.clone());
    status.reason = Some(reason.clone());
    if !is_over {
        status.phase = Some(Phase::Running);
        let n_left = status.active.unwrap_or_default() + status.terminating.unwrap_or_default();
        conditions.reconcile(reason::TERMINATING_PODS, format!("{message}; pods still ending: {n_left}"));
        return;
    }
    conditions.set(last, true, reason, message.clone());
    let in_short = if *succeeded { "Job has completed" } else { "Job has failed" };
    conditions.set(condition::FINISHED, true, reason, in_short.to_owned());
    status.phase = Some(phase);
    // No index has a next attempt any more.
    status.open_indexes = None;
    status.duration = status.start_time.as_ref().map(|start| duration(now.duration_since(start.0)));
    if *succeeded {
        // Only where it completed, as batch/v1 Job has it: the end of a failed job is the time of its condition.
        // A clock that was set back must not end the job before it began.
        status.completion_time = Some(Time(status.start_time.as_ref().map_or(now, |start| now.max(start.0))));
        conditions.be_ready(reason::SUCCEEDED, message.clone());
    } else {
        conditions.stall(reason, message.clone());
    }
}

fn report_progress(picture: &Picture<'_>, status: &mut BatchJobStatus, conditions: &mut Conditions) {
    let Picture { spec, blocked, .. } = picture;
    let was_suspended = find_true(&picture.observed.job.status, condition::SUSPENDED).is_some();
    if spec.is_suspended {
        status.reason = None;
        conditions.set(condition::SUSPENDED, true, reason::JOB_SUSPENDED, "Job suspended".to_owned());
        conditions.clear_progress();
        return;
    }
    if was_suspended {
        conditions.set(condition::SUSPENDED, false, reason::JOB_RESUMED, "Job resumed".to_owned());
    }
    if let Some(Obstacle::TemplateRejected { message, .. }) = blocked {
        status.reason = Some(reason::POD_TEMPLATE_REJECTED.to_owned());
        conditions.stall(reason::POD_TEMPLATE_REJECTED, message.clone());
        return;
    }
    let (trouble, detail) = trouble(picture);
    let mut message = progress(picture, status);
    if let Some(detail) = detail {
        message = format!("{message}; {detail}");
    }
    let word = trouble.unwrap_or(match status.phase {
        Some(Phase::Running) => reason::RUNNING,
        _ => reason::PENDING,
    });
    status.reason = trouble.map(str::to_owned);
    conditions.reconcile(word, message);
}

/// "3/5 done, 2 active, 1 failed": what a person asks first.
fn progress(picture: &Picture<'_>, status: &BatchJobStatus) -> String {
    let done = completions_summary(picture.spec, picture.tally.ledger.completed.len());
    let mut message = format!("{done} done, {} active", status.active.unwrap_or_default());
    for (count, word) in [(status.failed, "failed"), (status.terminating, "terminating")] {
        match count {
            None | Some(0) => {}
            Some(count) => message += &format!(", {count} {word}"),
        }
    }
    message
}

/// What is in the way, the worst first: as a word, and in words.
fn trouble<'a>(picture: &Picture<'a>) -> (Option<&'a str>, Option<String>) {
    let Picture { spec, tally, scale, blocked, .. } = picture;
    if let Some(Obstacle::Refused { reason, message, .. }) = blocked {
        return (Some(reason.as_str()), Some(format!("cannot create pods: {message}")));
    }
    if let Some((reason, detail)) = hindrance(tally) {
        return (Some(reason), Some(detail));
    }
    if let Some((id, at)) = scale.next_retry {
        let detail = format!("{id} starts at {}", whole_seconds(at));
        // Others are at work meanwhile: that one waits is no trouble of the job.
        let is_idle = tally.current.is_empty() && scale.start.is_empty();
        return (is_idle.then_some(reason::BACKING_OFF), Some(detail));
    }
    if scale.is_ledger_full && scale.start.is_empty() {
        let detail = "too many indexes have failed: no further one starts until some of them succeed";
        return (Some(reason::TOO_MANY_OPEN_INDEXES), Some(detail.to_owned()));
    }
    if spec.parallelism == 0 {
        return (Some(reason::PARALLELISM_ZERO), Some("parallelism is 0: raise it to go on".to_owned()));
    }
    (None, None)
}

/// What keeps a pod from starting, of the first that has such a trouble: as a word, and in words.
pub(super) fn hindrance<'a>(tally: &Tally<'a>) -> Option<(&'a str, String)> {
    tally.current.iter().find_map(|attempt| {
        let (reason, message) = attempt.hindrance()?;
        Some((reason, format!("{}: {message}", attempt.id)))
    })
}

/// "3/5", or for a work queue "0/1 of 3", as `kubectl get jobs` writes it.
fn completions_summary(spec: &Spec, n_done: usize) -> String {
    match spec.completions {
        Completions::Fixed(completions) => format!("{n_done}/{completions}"),
        Completions::WorkQueue if spec.parallelism > 1 => format!("{n_done}/1 of {}", spec.parallelism),
        Completions::WorkQueue => format!("{n_done}/1"),
    }
}

fn as_count(n: usize) -> i32 {
    n.try_into().unwrap_or(i32::MAX)
}

/// "42s", "3m5s", "2h10m", "4d3h": the two largest units, as kubectl writes it.
fn duration(duration: SignedDuration) -> String {
    let seconds = duration.as_secs().max(0);
    let units = [(86_400, "d"), (3_600, "h"), (60, "m"), (1, "s")];
    let largest = units.iter().position(|&(unit, _)| seconds >= unit).unwrap_or(units.len() - 1);
    let mut rest = seconds;
    let mut text = String::new();
    for &(unit, name) in units.iter().skip(largest).take(2) {
        if rest >= unit || text.is_empty() {
            text += &format!("{}{name}", rest / unit);
        }
        rest %= unit;
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_has_its_two_largest_units() {
        let written = [0, 42, 60, 185, 3600, 7805, 86_400, 360_000].map(|s| duration(SignedDuration::from_secs(s)));
        assert_eq!(written, ["0s", "42s", "1m", "3m5s", "1h", "2h10m", "1d", "4d4h"]);
    }
}
