//! What is remembered of the slots: until when they are decided, which wait, and which were left out and why.

use std::collections::BTreeSet;

use batchjob_crd::condition;
use batchjob_crd::cron_status::Gap;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::due::{Due, MOST_COUNTED, due};
use super::name;
use super::observed::{CronJob, Observed, Run};
use super::spec::Spec;
use crate::conditions::{find_true, whole_seconds};

/// How many stretches of slots that were left out are told.
const MAX_GAPS: usize = 20;
/// How many slots may wait.
const MAX_WAITING: usize = 1000;

/// The ledger of one BatchCronJob.
#[derive(Clone, Debug, PartialEq)]
pub struct Ledger {
    /// Every slot until then was started, or waits, or was left out.
    pub decided_until: Timestamp,
    /// The oldest first.
    pub waiting: Vec<Timestamp>,
    pub gaps: Vec<Gap>,
    pub n_missed: i64,
    pub n_skipped: i64,
    pub last_slot: Option<Timestamp>,
    pub schedule_hash: String,
    pub trigger_hash: Option<String>,
}

/// Slots that are not started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftOut {
    pub first: Timestamp,
    pub last: Timestamp,
    /// None: it is not known any more.
    pub slots: Option<usize>,
    pub reason: Cause,
}

/// Why a slot is not started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// Nobody was there to start it in time.
    Missed,
    /// And it is later than startingDeadlineSeconds allows.
    DeadlineExceeded,
    /// More were missed than missedRuns.maxRuns allows.
    TooManyMissed,
    /// A newer one has taken its place while it waited for a run to end.
    Superseded,
    /// More wait than there is room for.
    QueueFull,
    Suspended,
    ScheduleChanged,
    /// There is a BatchJob of its name that is not a run of ours.
    NameTaken,
}

/// What the runs say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// One was started of which the status does not tell yet.
    pub is_news: bool,
    /// The hash of the trigger that waits for its run.
    pub trigger: Option<String>,
}

impl Cause {
    pub fn as_str(self) -> &'static str {
        match self {
            Cause::Missed => "Missed",
            Cause::DeadlineExceeded => "DeadlineExceeded",
            Cause::TooManyMissed => "TooManyMissed",
            Cause::Superseded => "Superseded",
            Cause::QueueFull => "QueueFull",
            Cause::Suspended => "Suspended",
            Cause::ScheduleChanged => "ScheduleChanged",
            Cause::NameTaken => "NameTaken",
        }
    }

    /// Nobody wanted it so.
    pub fn is_miss(self) -> bool {
        matches!(self, Cause::Missed | Cause::DeadlineExceeded | Cause::TooManyMissed | Cause::NameTaken)
    }
}

impl LeftOut {
    /// The slots after the one time and until the other.
    pub fn between(spec: &Spec, after: Timestamp, until: Timestamp, reason: Cause) -> Option<LeftOut> {
        let timetable = &spec.timetable;
        let (first, last) = (timetable.next(after)?, timetable.last(after, until)?);
        Some(LeftOut { first, last, slots: Some(timetable.count(after, until, MOST_COUNTED)), reason })
    }

    fn one(slot: Timestamp, reason: Cause) -> LeftOut {
        LeftOut { first: slot, last: slot, slots: Some(1), reason }
    }
}

impl Ledger {
    pub fn read(cron: &CronJob) -> Ledger {
        let status = &cron.status;
        let mut waiting: Vec<Timestamp> = status.waiting.iter().map(|time| time.0).collect();
        // Anybody may have written it.
        waiting.sort();
        waiting.dedup();
        let decided_until = [&status.decided_until, &status.last_schedule_time].map(Option::as_ref);
        Ledger {
            decided_until: decided_until.into_iter().flatten().map(|time| time.0).max().unwrap_or(cron.created),
            waiting,
            gaps: status.gaps.clone(),
            n_missed: status.missed.unwrap_or_default(),
            n_skipped: status.skipped.unwrap_or_default(),
            last_slot: status.last_schedule_time.as_ref().map(|time| time.0),
            schedule_hash: status.schedule_hash.clone().unwrap_or_default(),
            trigger_hash: status.trigger_hash.clone(),
        }
    }

    fn is_of_another_schedule(&self, spec: &Spec) -> bool {
        !self.schedule_hash.is_empty() && self.schedule_hash != spec.hash
    }

    /// What was started and not written down, because the operator died or could not write, was started all the same. With it goes
    /// what else has come: how many of those that were missed run is counted over all of them.
    pub fn catch_up(
        &mut self,
        spec: &Spec,
        cron: &CronJob,
        started: &BTreeSet<Timestamp>,
        now: Timestamp,
    ) -> Vec<LeftOut> {
        let Some(&last) = started.last().filter(|last| **last > self.decided_until) else { return Vec::new() };
        if self.is_of_another_schedule(spec) {
            self.last_slot = self.last_slot.max(Some(last));
            return Vec::new();
        }
        let horizon = spec.horizon(now).filter(|_| !spec.is_suspended && !was_suspended(cron));
        self.take(due(spec, self.decided_until, horizon.map_or(last, |horizon| horizon.max(last)), started, now))
    }

    /// Follows what the user has changed: what was due by the old schedule, or while it was suspended, does not run for it.
    pub fn follow(&mut self, spec: &Spec, cron: &CronJob, now: Timestamp) -> Vec<LeftOut> {
        let mut left_out = Vec::new();
        let now = whole_seconds(now);
        if self.is_of_another_schedule(spec) {
            left_out.extend(self.drop_waiting(Cause::ScheduleChanged));
            if let Some(first) = next_by_the_old_schedule(cron).filter(|next| *next <= now) {
                // How many these were nobody can say: the expressions are gone.
                left_out.push(self.leave_out(LeftOut {
                    first,
                    last: now,
                    slots: None,
                    reason: Cause::ScheduleChanged,
                }));
            }
            self.decided_until = self.decided_until.max(now);
        }
        if was_suspended(cron) && !spec.is_suspended {
            left_out.extend(self.drop_waiting(Cause::Suspended));
            if let Some(left) = LeftOut::between(spec, self.decided_until, now, Cause::Suspended) {
                self.decided_until = left.last;
                left_out.push(self.leave_out(left));
            }
        }
        self.schedule_hash.clone_from(&spec.hash);
        left_out
    }

    /// Slots have come.
    pub fn take(&mut self, due: Due) -> Vec<LeftOut> {
        let Due { slots, left_out, until } = due;
        let mut told: Vec<LeftOut> = left_out.into_iter().map(|left| self.leave_out(left)).collect();
        self.waiting.extend(slots);
        self.decided_until = until.map_or(self.decided_until, |until| until.max(self.decided_until));
        let n_over = self.waiting.len().saturating_sub(MAX_WAITING);
        let over: Vec<Timestamp> = self.waiting.drain(..n_over).collect();
        told.extend(over.into_iter().map(|slot| self.leave_out(LeftOut::one(slot, Cause::QueueFull))));
        told
    }

    /// What has its run was started.
    pub fn see_runs(&mut self, observed: &Observed, started: &BTreeSet<Timestamp>) -> Seen {
        let Observed { cron, runs, .. } = observed;
        let newest = self.waiting.iter().rev().find(|slot| started.contains(slot)).copied();
        self.waiting.retain(|slot| !started.contains(slot));
        self.last_slot = self.last_slot.max(newest);
        let mut seen = Seen { is_news: newest.is_some(), trigger: None };
        if let Some(value) = cron.trigger.as_deref().filter(|value| !value.is_empty()) {
            let hash = name::trigger_hash(cron, value);
            let name = name::of_trigger(&cron.name, &hash);
            match runs.iter().any(|run| *run.name == *name) {
                _ if self.trigger_hash.as_ref() == Some(&hash) => {}
                true => (self.trigger_hash, seen.is_news) = (Some(hash), true),
                false => seen.trigger = Some(hash),
            }
        }
        seen
    }

    /// What has waited for longer than it may.
    pub fn give_up_late(&mut self, spec: &Spec, now: Timestamp) -> Vec<LeftOut> {
        let is_late = |slot: &Timestamp| spec.too_late_at(*slot).is_some_and(|at| at <= now);
        self.give_up(is_late, Cause::DeadlineExceeded)
    }

    /// The name of a slot's run is somebody else's.
    pub fn give_up_name(&mut self, cron: &CronJob, taken: &str) -> Vec<LeftOut> {
        self.give_up(|&slot| name::of_slot(&cron.name, slot) == taken, Cause::NameTaken)
    }

    /// Of what waits once so many are started, the newest, only one keeps its place, and none that is older than what was started.
    pub fn supersede(&mut self, n_started: usize) -> Vec<LeftOut> {
        let n_stay = n_started.max(1);
        let oldest = self.waiting.iter().rev().nth(n_stay - 1).copied().max(self.last_slot);
        self.give_up(|&slot| oldest.is_some_and(|oldest| slot < oldest), Cause::Superseded)
    }

    fn drop_waiting(&mut self, reason: Cause) -> Vec<LeftOut> {
        self.give_up(|_| true, reason)
    }

    fn give_up(&mut self, is_meant: impl Fn(&Timestamp) -> bool, reason: Cause) -> Vec<LeftOut> {
        let (over, stay) = std::mem::take(&mut self.waiting).into_iter().partition(is_meant);
        self.waiting = stay;
        let over: Vec<Timestamp> = over;
        over.into_iter().map(|slot| self.leave_out(LeftOut::one(slot, reason))).collect()
    }

    /// Writes down that these are not started, beside those before them if nothing was between.
    fn leave_out(&mut self, left: LeftOut) -> LeftOut {
        let n = left.slots.and_then(|n| i64::try_from(n).ok());
        let counter = if left.reason.is_miss() { &mut self.n_missed } else { &mut self.n_skipped };
        *counter = counter.saturating_add(n.unwrap_or_default());
        let is_between = |gap: &Gap, slot: Timestamp| gap.last.0 < slot && slot < left.first;
        let last = self.gaps.last_mut().filter(|gap| gap.reason == left.reason.as_str() && gap.last.0 <= left.first);
        let last = last.filter(|gap| gap.slots.is_some() && left.slots.is_some()).filter(|gap| {
            !self.last_slot.into_iter().chain(self.waiting.iter().copied()).any(|slot| is_between(gap, slot))
        });
        match last {
            Some(gap) => {
                gap.slots = gap.slots.zip(n).map(|(before, n)| before.saturating_add(n));
                gap.last = Time(left.last);
            }
            None => {
                let (first, last) = (Time(left.first), Time(left.last));
                self.gaps.push(Gap { first, last, slots: n, reason: left.reason.as_str().to_owned() });
                let n_over = self.gaps.len().saturating_sub(MAX_GAPS);
                self.gaps.drain(..n_over);
            }
        }
        left
    }
}

fn was_suspended(cron: &CronJob) -> bool {
    find_true(&cron.status.conditions, condition::SUSPENDED).is_some()
}

/// What the status said would come next.
fn next_by_the_old_schedule(cron: &CronJob) -> Option<Timestamp> {
    cron.status.next_schedule_times.first()?.parse().ok()
}

/// The slots that have a run.
pub fn started(observed: &Observed) -> BTreeSet<Timestamp> {
    let of_run = |run: &Run| run.slot.filter(|slot| *run.name == *name::of_slot(&observed.cron.name, *slot));
    observed.runs.iter().filter_map(of_run).collect()
}
