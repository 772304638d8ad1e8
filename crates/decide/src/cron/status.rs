//! What users see of a BatchCronJob.

use batchjob_crd::cron_job::{ConcurrencyPolicy, Health};
use batchjob_crd::cron_status::LastRun;
use batchjob_crd::{BatchCronJobStatus, GROUP, VERSION, condition, reason};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

use super::backfill::Backfill;
use super::history;
use super::ledger::{Cause, Ledger, LeftOut};
use super::observed::{CronJob, Observed, Obstacle, Run};
use super::room::Room;
use super::spec::{Problem, Spec};
use crate::conditions::{Conditions, whole_seconds};
use crate::plan::Reason;
use crate::schedule::shown;

/// How many slots to come are told.
const N_NEXT: usize = 3;
/// A CronJob warns when it has missed more than this (`mostRecentScheduleTime`).
const MANY_MISSED: usize = 100;

/// What one pass has found.
pub struct Picture<'a> {
    pub observed: &'a Observed,
    pub spec: &'a Spec,
    pub ledger: &'a Ledger,
    pub room: &'a Room<'a>,
    pub backfill: &'a Backfill,
    /// Runs that are none, and are to go.
    pub strays: &'a [&'a Run],
    /// A run that was triggered by hand waits.
    pub pending: bool,
}

/// The reason of the condition Ready.
pub fn reason_of(status: &BatchCronJobStatus) -> Option<&str> {
    let ready = status.conditions.iter().find(|condition| condition.type_ == condition::READY);
    ready.map(|condition| condition.reason.as_str())
}

/// The status of one that cannot be acted on. What was decided before stands.
pub fn invalid(cron: &CronJob, problem: &Problem, now: Timestamp) -> BatchCronJobStatus {
    let mut conditions = conditions(cron, now);
    conditions.stall(problem.reason, problem.message.clone());
    BatchCronJobStatus {
        observed_generation: Some(cron.generation),
        next_schedule_times: Vec::new(),
        conditions: conditions.list,
        ..cron.status.clone()
    }
}

/// The status once the plan of this pass is carried out.
pub fn project(picture: &Picture<'_>) -> BatchCronJobStatus {
    let Picture { observed, spec, ledger, backfill, .. } = picture;
    let before = &observed.cron.status;
    // A run that is being deleted is none of ours any more, as in a CronJob; but until it is gone there is no room for another.
    let is_stray = |run: &Run| picture.strays.iter().any(|stray| stray.uid == run.uid);
    let active = super::active(&observed.runs).into_iter().filter(|run| !run.is_deleted && !is_stray(run));
    let active: Vec<&Run> = active.collect();
    let last_run = last_run(observed);
    let n_held = ledger.waiting.len() + usize::from(picture.pending);
    let last_success = [history::last_success(&observed.runs), before.last_successful_time.as_ref().map(|time| time.0)];
    let last_result = last_run.as_ref().map(|(_, succeeded)| result(*succeeded)).or_else(|| before.last_result.clone());
    let last_run = last_run.map(|(run, _)| run).or_else(|| before.last_run.clone());
    let last_failure = last_run.clone().filter(|_| last_result.as_deref() == Some(reason::FAILED));
    BatchCronJobStatus {
        observed_generation: Some(observed.cron.generation),
        schedule: Some(spec.schedule.clone()),
        time_zone: Some(spec.zone.clone()),
        next_schedule_times: next_times(picture),
        active: active.iter().map(|run| reference(&observed.cron, run)).collect(),
        active_runs: Some(as_count(active.len())),
        last_schedule_time: ledger.last_slot.map(Time),
        last_successful_time: last_success.into_iter().flatten().max().map(Time),
        last_result,
        last_run,
        held: Some(as_count(n_held)),
        held_because: (n_held > 0).then(|| held_because(picture)),
        missed: Some(ledger.n_missed),
        skipped: Some(ledger.n_skipped),
        gaps: ledger.gaps.clone(),
        backfill: backfill.status.clone(),
        backfilled: backfill.done.clone(),
        decided_until: Some(Time(ledger.decided_until)),
        waiting: ledger.waiting.iter().copied().map(Time).collect(),
        schedule_hash: Some(ledger.schedule_hash.clone()),
        trigger_hash: ledger.trigger_hash.clone(),
        conditions: standing(picture, last_failure.as_ref()),
    }
}

fn conditions(cron: &CronJob, now: Timestamp) -> Conditions {
    Conditions { list: cron.status.conditions.clone(), generation: cron.generation, now: whole_seconds(now) }
}

/// `last_failure` is the last run that has ended, if it failed; it may be gone.
fn standing(picture: &Picture<'_>, last_failure: Option<&LastRun>) -> Vec<Condition> {
    let Picture { observed, spec, .. } = picture;
    let cron = &observed.cron;
    let mut conditions = conditions(cron, observed.now);
    if spec.is_suspended {
        let why = cron.spec.suspend_reason.as_deref().unwrap_or("spec.suspend is true");
        conditions.set(condition::SUSPENDED, true, reason::SCHEDULE_SUSPENDED, why.to_owned());
        conditions.clear_progress();
        return conditions.list;
    }
    if conditions.list.iter().any(|condition| condition.type_ == condition::SUSPENDED) {
        let message = "it runs again, from its next slot on".to_owned();
        conditions.set(condition::SUSPENDED, false, reason::SCHEDULE_RESUMED, message);
    }
    // Of what has been started since, by whomever, it says nothing any more.
    let refusal = observed.obstacle.as_ref().and_then(Obstacle::message).filter(|_| picture.wants_more());
    match (refusal, last_failure) {
        (Some(message), _) => conditions.reconcile(reason::RUN_REFUSED, format!("cannot create a run: {message}")),
        (None, Some(run)) if spec.health == Health::LastRun => {
            conditions.stall(reason::LAST_RUN_FAILED, format!("run {} has failed: {}", run.name, run.reason));
        }
        _ if picture.next().is_none() => conditions.be_ready(reason::ENDED, "there is no slot any more".to_owned()),
        _ => conditions.be_ready(reason::SCHEDULED, "it runs when its schedule says so".to_owned()),
    }
    conditions.list
}

impl Picture<'_> {
    /// Something is to be started, as soon as it can be.
    fn wants_more(&self) -> bool {
        !self.ledger.waiting.is_empty() || self.pending || !self.backfill.next.is_empty()
    }

    fn next(&self) -> Option<Timestamp> {
        self.spec.timetable.next(self.ledger.decided_until)
    }
}

fn next_times(picture: &Picture<'_>) -> Vec<String> {
    let Picture { spec, .. } = picture;
    if spec.is_suspended {
        return Vec::new();
    }
    let slots = std::iter::successors(picture.next(), |&slot| spec.timetable.next(slot));
    slots.take(N_NEXT).map(|slot| shown(slot, &spec.zone)).collect()
}

/// The last run that has ended, and whether it succeeded; None: none has since the one that is told already.
fn last_run(observed: &Observed) -> Option<(LastRun, bool)> {
    let (run, end) = history::last_ended(&observed.runs)?;
    let before = observed.cron.status.last_run.as_ref();
    if before.is_some_and(|before| before.end_time.0 > end.at) {
        return None;
    }
    let schedule_time = run.slot.map(Time);
    let last =
        LastRun { name: run.name.to_string(), schedule_time, end_time: Time(end.at), reason: end.reason.clone() };
    Some((last, end.succeeded))
}

fn result(succeeded: bool) -> String {
    if succeeded { reason::SUCCEEDED } else { reason::FAILED }.to_owned()
}

fn reference(cron: &CronJob, run: &Run) -> ObjectReference {
    ObjectReference {
        api_version: Some(format!("{GROUP}/{VERSION}")),
        kind: Some("BatchJob".to_owned()),
        namespace: Some(cron.namespace.clone()),
        name: Some(run.name.to_string()),
        uid: Some(run.uid.to_string()),
        ..ObjectReference::default()
    }
}

fn held_because(picture: &Picture<'_>) -> String {
    if let Some(message) = picture.observed.obstacle.as_ref().and_then(Obstacle::message) {
        return format!("cannot create a run: {message}");
    }
    let Picture { observed, spec, ledger, room, .. } = picture;
    match ledger.waiting.first() {
        _ if spec.is_suspended => "it is suspended".to_owned(),
        Some(&slot) if spec.starts_at(slot) > observed.now => "its time has not come: the clock was ahead".to_owned(),
        _ => room.why_not(),
    }
}

/// What users are told of a pass that writes the status; the words of a CronJob where it has them.
pub fn reasons(picture: &Picture<'_>, left_out: &[LeftOut]) -> Vec<Reason> {
    let Picture { observed, spec, ledger, .. } = picture;
    let mut reasons = Vec::new();
    for active in &observed.cron.status.active {
        let Some(name) = &active.name else { continue };
        match observed.runs.iter().find(|run| active.uid.as_deref() == Some(&*run.uid)) {
            None => reasons.push(Reason::normal("MissingJob", format!("Active run went missing: {name}"))),
            Some(Run { end: Some(end), .. }) => {
                let condition = if end.succeeded { condition::COMPLETE } else { condition::FAILED };
                reasons.push(Reason::normal(
                    "SawCompletedJob",
                    format!("Saw completed run: {name}, condition: {condition}"),
                ));
            }
            Some(_) => {}
        }
    }
    let waited = |slot: &Timestamp| observed.cron.status.waiting.iter().any(|time| time.0 == *slot);
    if spec.policy == ConcurrencyPolicy::Forbid && ledger.waiting.iter().any(|slot| !waited(slot)) && !spec.is_suspended
    {
        let words = "Not starting run because prior execution is running and concurrency policy is Forbid";
        reasons.push(Reason::normal("JobAlreadyActive", words));
    }
    let was_complete = observed.cron.status.backfill.as_ref().is_some_and(|it| it.is_complete);
    if let Some(over) = picture.backfill.status.as_ref().filter(|it| it.is_complete && !was_complete) {
        let words = format!("The backfill is complete: {} slots started, {} had run", over.started, over.left_out);
        reasons.push(Reason::normal("BackfillCompleted", words));
    }
    reasons.extend(left_out.iter().filter_map(LeftOut::told));
    reasons
}

impl LeftOut {
    fn told(&self) -> Option<Reason> {
        let which = match (self.slots, self.first == self.last) {
            (Some(1), _) | (_, true) => format!("{}", self.first),
            (Some(n), _) => format!("{n} slots from {} to {}", self.first, self.last),
            (None, _) => format!("from {} to {}", self.first, self.last),
        };
        let missed = |why: &str| {
            Some(Reason::warning("MissSchedule", format!("Missed scheduled time to start a run: {which}{why}")))
        };
        match self.reason {
            Cause::Missed if self.slots.is_some_and(|n| n > MANY_MISSED) => {
                let advice = "Check that the operator was not away for long, or its clock wrong; spec.missedRuns says what runs then";
                Some(Reason::warning("TooManyMissedTimes", format!("too many missed start times: {which}. {advice}")))
            }
            Cause::Missed => missed(""),
            Cause::DeadlineExceeded => missed(", later than startingDeadlineSeconds allows"),
            Cause::TooManyMissed => missed(", more than missedRuns.maxRuns allows"),
            Cause::QueueFull => missed(", because too many wait"),
            Cause::NameTaken => missed(", because there is a BatchJob of that name that is not its own"),
            // These are as the user wanted it; the status tells of them.
            Cause::Superseded | Cause::Suspended | Cause::ScheduleChanged => None,
        }
    }
}

fn as_count(n: usize) -> i32 {
    n.try_into().unwrap_or(i32::MAX)
}
