//! Slots of the past that the spec asks for: each once, in their order, and never one that ran.
//!
//! What ran since the object was created is all that is in no gap; before that nothing has, but what earlier backfills did.

use std::collections::BTreeSet;

use batchjob_crd::cron_status::{BackfillStatus, TimeRange};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::due::before;
use super::ledger::Ledger;
use super::name;
use super::observed::{Observed, Obstacle};
use super::spec::Spec;

/// How many ranges of earlier backfills are remembered; of more the two first are taken for one.
const MAX_RANGES: usize = 50;
/// How many slots that ran one pass leaves out.
const MOST_PER_PASS: usize = 10_000;

/// The backfill that the spec names, and what earlier ones have run.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Backfill {
    /// None: the spec names none.
    pub status: Option<BackfillStatus>,
    pub done: Vec<TimeRange>,
    /// One was started of which the status does not tell yet.
    pub is_news: bool,
    /// The slots that are to start next, in their order, as many as may be active at once.
    pub next: Vec<Timestamp>,
    /// There is more to leave out than one pass does.
    pub is_cut: bool,
}

/// What became of the slots so far.
#[derive(Debug)]
pub struct Past<'a> {
    pub observed: &'a Observed,
    pub spec: &'a Spec,
    pub ledger: &'a Ledger,
    /// The slots that have a run.
    pub started: &'a BTreeSet<Timestamp>,
}

impl Past<'_> {
    /// Whether a slot is another's: it ran, or waits for its turn, or its name is taken.
    fn has(&self, slot: Timestamp, done: &[TimeRange]) -> bool {
        let cron = &self.observed.cron;
        let is_done = done.iter().any(|range| range.from.0 <= slot && slot <= range.to.0);
        let is_in_a_gap = self.ledger.gaps.iter().any(|gap| gap.first.0 <= slot && slot <= gap.last.0);
        let is_taken = matches!(&self.observed.obstacle,
            Some(Obstacle::NameTaken(name)) if *name == name::of_slot(&cron.name, slot));
        is_done || is_taken || self.ledger.waiting.contains(&slot) || (slot > cron.created && !is_in_a_gap)
    }
}

impl Backfill {
    /// How it stands.
    pub fn of(past: &Past<'_>) -> Backfill {
        let cron = &past.observed.cron;
        let mut backfill = Backfill { done: cron.status.backfilled.clone(), ..Backfill::default() };
        let asked = cron.spec.backfill.as_ref();
        let is_the_same = |it: &BackfillStatus| asked.is_some_and(|asked| asked.from == it.from && asked.to == it.to);
        let (going_on, over) = match cron.status.backfill.clone() {
            Some(before) if is_the_same(&before) => (Some(before), None),
            before => (None, before),
        };
        over.into_iter().for_each(|over| backfill.remember(over));
        let Some(asked) = asked else { return backfill };
        let mut status = going_on.unwrap_or_else(|| BackfillStatus {
            from: asked.from.clone(),
            to: asked.to.clone(),
            decided_until: None,
            started: 0,
            left_out: 0,
            is_complete: false,
        });
        if !status.is_complete {
            let n_active = past.observed.runs.iter().filter(|run| run.is_backfill && run.end.is_none()).count();
            let limit = usize::try_from(asked.max_active.unwrap_or(1)).unwrap_or(1).max(1);
            backfill.go_on(&mut status, past, limit.saturating_sub(n_active));
        }
        backfill.status = Some(status);
        backfill
    }

    /// Goes through the slots that are not decided yet: past those that have their run, up to `n_free` that have none.
    fn go_on(&mut self, status: &mut BackfillStatus, past: &Past<'_>, n_free: usize) {
        let Observed { cron, now, .. } = past.observed;
        // What has not come yet, or was not decided, is for the schedule.
        let until = status.to.0.min(past.ledger.decided_until.max(cron.created));
        let mut at = status.decided_until.as_ref().map_or_else(|| before(status.from.0), |time| time.0);
        for _ in 0..MOST_PER_PASS {
            let Some(slot) = past.spec.timetable.next(at).filter(|slot| *slot <= until) else {
                if self.next.is_empty() && *now > status.to.0 {
                    (status.is_complete, status.decided_until) = (true, Some(status.to.clone()));
                }
                return;
            };
            at = slot;
            let is_another = past.has(slot, &self.done);
            match past.started.contains(&slot) {
                // All before it is decided, so it is, too.
                is_started if self.next.is_empty() && (is_started || is_another) => {
                    let is_own = is_started && !is_another;
                    (status.started, status.left_out) =
                        (status.started + i64::from(is_own), status.left_out + i64::from(!is_own));
                    self.is_news |= is_own;
                    status.decided_until = Some(Time(slot));
                }
                is_started if is_started || is_another => {}
                _ if self.next.len() < n_free => self.next.push(slot),
                _ => return,
            }
        }
        self.is_cut = true;
    }

    /// It is over: what it has run no other one runs.
    fn remember(&mut self, over: BackfillStatus) {
        let Some(to) = over.decided_until else { return };
        self.done.push(TimeRange { from: over.from, to });
        self.done.sort_by_key(|range| range.from.0);
        let mut merged: Vec<TimeRange> = Vec::new();
        for range in self.done.drain(..) {
            match merged.last_mut().filter(|last| range.from.0 <= last.to.0) {
                Some(last) => last.to = Time(last.to.0.max(range.to.0)),
                None => merged.push(range),
            }
        }
        while merged.len() > MAX_RANGES {
            let first = merged.remove(0);
            merged[0].from = first.from;
        }
        self.done = merged;
    }
}
