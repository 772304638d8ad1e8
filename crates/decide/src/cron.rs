//! One BatchCronJob: from its calendar, its ledger and its runs to the next plan. This file is the table of contents.
//!
//! A *slot* is a moment that the schedule names. The ledger says of each until when it is decided: it was started, it waits,
//! or it was left out, with a reason. A run has a name that its slot makes, so a slot is started exactly when there is a run of
//! that name, and creating it twice is creating it once. Only when the run is seen does the ledger say that it was started.
//!
//! One pass, in order:
//!
//! 1. [`ledger`]: what the user has changed since, and which waiting slots have their run.
//! 2. [`due`]: which slots have come, and which of them came while nobody was there.
//! 3. [`room`]: how many may start, and which runs end for it.
//! 4. [`backfill`]: which slots of the past are asked for, and have not run.
//! 5. [`history`]: which runs are kept no longer.
//! 6. [`status`]: what users see.

pub mod backfill;
pub mod due;
pub mod history;
pub mod ledger;
pub mod name;
pub mod observed;
pub mod plan;
pub mod room;
pub mod run;
pub mod spec;
pub mod status;

use batchjob_crd::BatchCronJobStatus;
use jiff::{SignedDuration, Timestamp};

use crate::plan::Reason;
use backfill::{Backfill, Past};
use ledger::{Ledger, LeftOut};
use observed::{CronJob, Observed, Obstacle, Run};
use plan::{Action, Plan, Start};
use room::Room;
use spec::Spec;
use status::Picture;

/// How many runs one pass starts or deletes; what is left comes in the next one, behind the others.
const MAX_PER_PASS: usize = 50;

const MOMENT: SignedDuration = SignedDuration::from_nanos(1);

/// What should happen next to one BatchCronJob.
pub fn decide(observed: &Observed) -> Plan {
    let Observed { cron, now, .. } = observed;
    if cron.is_deleted {
        // What becomes of its runs is for the garbage collector.
        return Plan::default();
    }
    let spec = match Spec::read(cron, *now) {
        Ok(spec) => spec,
        Err(problem) => {
            let is_news = status::reason_of(&cron.status) != Some(problem.reason);
            let mut plan = written(observed, status::invalid(cron, &problem, *now));
            plan.reasons.extend(is_news.then(|| Reason::warning(problem.reason, problem.message)));
            return plan;
        }
    };

    let mut ledger = Ledger::read(cron);
    let started = ledger::started(observed);
    // What was started was, whatever the user has changed since.
    let mut left_out = ledger.catch_up(&spec, cron, &started, *now);
    let mut seen = ledger.see_runs(observed, &started);
    left_out.extend(ledger.follow(&spec, cron, *now));
    if !spec.is_suspended
        && let Some(horizon) = spec.horizon(*now)
    {
        left_out.extend(ledger.take(due::due(&spec, ledger.decided_until, horizon, &started, *now)));
    }
    left_out.extend(ledger.give_up_late(&spec, *now));
    if let Some(Obstacle::NameTaken(name)) = &observed.obstacle {
        left_out.extend(ledger.give_up_name(cron, name));
        // Whoever wants it all the same sets another value.
        if seen.trigger.as_deref().is_some_and(|hash| *name == name::of_trigger(&cron.name, hash)) {
            ledger.trigger_hash = seen.trigger.take();
        }
    }

    let backfill = Backfill::of(&Past { observed, spec: &spec, ledger: &ledger, started: &started });
    let room = Room::of(observed, &spec);
    // What was started is written down before anything is started or ended for the next: a run that is gone by then would be
    // started once more.
    let may_start = !seen.is_news && !backfill.is_news && !is_held_back(observed);
    let starts = if may_start { starts(observed, &spec, &ledger, seen.trigger.as_deref(), &room) } else { Vec::new() };
    let filled_in = backfill.next.iter().filter(|_| may_start && !spec.is_suspended);
    let filled_in: Vec<Start> =
        filled_in.take(room.free_for_backfill(starts.len())).map(|&slot| Start::of_backfill(cron, slot)).collect();
    if !spec.keeps_all() {
        let n_started = starts.iter().filter(|start| !start.is_manual).count();
        left_out.extend(ledger.supersede(n_started));
    }

    let mut plan = Plan::default();
    if starts.is_empty() && filled_in.is_empty() {
        let pending = seen.trigger.is_some();
        let strays = strays(observed);
        let picture = Picture {
            observed,
            spec: &spec,
            ledger: &ledger,
            room: &room,
            backfill: &backfill,
            strays: &strays,
            pending,
        };
        let status = status::project(&picture);
        plan = written(observed, status);
        plan.reasons.extend(status::reasons(&picture, &left_out));
        let is_stray = |run: &&Run| strays.iter().any(|stray| stray.uid == run.uid);
        let mut dropped = history::dropped(&observed.runs, &spec);
        dropped.retain(|run| !is_stray(run));
        dropped.extend(&strays);
        plan.wake((dropped.len() > MAX_PER_PASS).then_some(*now));
        plan.delete(dropped.into_iter().take(MAX_PER_PASS));
    } else {
        // What there is to say is said once these are there: then the ledger, too, knows of them.
        plan.delete(room.replaced(starts.len()).iter().copied());
        for start in starts.into_iter().chain(filled_in).take(MAX_PER_PASS) {
            plan.reasons.push(Reason::normal("SuccessfulCreate", start.told()));
            plan.actions.push(Action::CreateRun(start));
        }
    }
    plan.left_out = names_of(cron, &left_out);
    plan.wake(backfill.is_cut.then_some(*now));
    let next = spec.timetable.next(ledger.decided_until).filter(|_| !spec.is_suspended);
    let end_of_backfill =
        backfill.status.as_ref().filter(|it| !it.is_complete).and_then(|it| it.to.0.checked_add(MOMENT).ok());
    let waits_for = [
        next.map(|slot| spec.starts_at(slot)),
        ledger.waiting.first().and_then(|&slot| spec.too_late_at(slot)),
        ledger.waiting.iter().map(|&slot| spec.starts_at(slot)).find(|at| at > now),
        end_of_backfill,
        observed.obstacle.as_ref().and_then(Obstacle::retry_at),
    ];
    // What is over is no reason to look again.
    plan.wake(waits_for.into_iter().flatten().filter(|at| at > now).min());
    plan
}

/// What starts now: what was asked for by hand first, then what has waited longest.
fn starts(observed: &Observed, spec: &Spec, ledger: &Ledger, trigger: Option<&str>, room: &Room<'_>) -> Vec<Start> {
    let cron = &observed.cron;
    let manual = trigger.map(|hash| Start::by_hand(cron, hash, observed.now));
    // While it is suspended nothing waits but that. And a clock that was ahead may have been set back since.
    let is_due = |slot: Timestamp| !spec.is_suspended && spec.starts_at(slot) <= observed.now;
    let waiting = ledger.waiting.iter().filter(|slot| is_due(**slot));
    let newest_first = !spec.keeps_all() && room.free() < ledger.waiting.len();
    let slots = match newest_first {
        true => waiting.rev().map(|&slot| Start::of_slot(cron, slot)).collect::<Vec<_>>(),
        false => waiting.map(|&slot| Start::of_slot(cron, slot)).collect(),
    };
    let mut starts: Vec<Start> = manual.into_iter().chain(slots).take(room.free()).collect();
    starts.sort_by_key(|start| (!start.is_manual, start.time));
    starts
}

/// The runs that those slots would have; of a stretch of them that of its last, for no operator has started one before it and not that.
/// Of very many the first and the last: those are what is started at a time.
fn names_of(cron: &CronJob, left_out: &[LeftOut]) -> Vec<String> {
    let slots = left_out.iter().filter(|left| left.slots.is_some()).map(|left| left.last);
    let mut names: Vec<String> = slots.map(|slot| name::of_slot(&cron.name, slot)).collect();
    if names.len() > 2 * MAX_PER_PASS {
        names.drain(MAX_PER_PASS..names.len() - MAX_PER_PASS);
    }
    names
}

/// The runs that came into being after their slots had been decided: a create whose answer was lost, and which the API server has
/// carried out after all, when its run had been replaced, or was given up. What a slot comes to stands in the ledger, and a run
/// that the ledger does not know of is none.
fn strays(observed: &Observed) -> Vec<&Run> {
    let Observed { cron, runs, .. } = observed;
    let status = &cron.status;
    let Some(until) = status.decided_until.as_ref().map(|time| time.0) else { return Vec::new() };
    // Somebody has taken some off the list: what is not on it may be ours.
    if status.active_runs != i32::try_from(status.active.len()).ok() {
        return Vec::new();
    }
    let is_known = |run: &Run| status.active.iter().any(|active| active.uid.as_deref() == Some(&*run.uid));
    let is_decided = |slot| slot <= until && status.waiting.iter().all(|time| time.0 != slot);
    let is_of_a_slot = |run: &Run| run.slot.filter(|&slot| *run.name == *name::of_slot(&cron.name, slot));
    let is_stray = |run: &&Run| {
        let is_late = is_of_a_slot(run).is_some_and(is_decided);
        is_late && !run.is_backfill && !run.is_deleted && run.end.is_none() && !is_known(run)
    };
    runs.iter().filter(is_stray).collect()
}

/// A create failed, and it is not yet time for another try.
fn is_held_back(observed: &Observed) -> bool {
    observed.obstacle.as_ref().and_then(Obstacle::retry_at).is_some_and(|at| at > observed.now)
}

fn written(observed: &Observed, status: BatchCronJobStatus) -> Plan {
    let mut plan = Plan::default();
    if status != observed.cron.status {
        plan.actions.push(Action::WriteStatus(Box::new(status)));
    }
    plan
}

/// The runs that have not ended, the oldest first.
fn active(runs: &[Run]) -> Vec<&Run> {
    let mut active: Vec<&Run> = runs.iter().filter(|run| run.end.is_none()).collect();
    active.sort_by_key(|run| (run.created, &run.name));
    active
}

impl Plan {
    fn delete<'a>(&mut self, runs: impl IntoIterator<Item = &'a Run>) {
        for run in runs {
            self.reasons.push(Reason::normal("SuccessfulDelete", format!("Deleted run {}", run.name)));
            self.actions.push(Action::DeleteRun(run.into()));
        }
    }
}
