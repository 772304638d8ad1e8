//! Which slots have come, and what becomes of those that came while nobody was there.
//!
//! A slot that is seen within ten seconds is in time. Of those that are later, which happens when the operator or the API server
//! was away, `missedRuns` says how many run: the latest, unless a newer one is in time, as in a CronJob
//! (`mostRecentScheduleTime` in `pkg/controller/cronjob/utils.go`); all of them; or none.

use std::collections::BTreeSet;
use std::ops::Bound;

use jiff::{SignedDuration, Timestamp};

use super::ledger::{Cause, LeftOut};
use super::spec::Spec;

const IN_TIME: SignedDuration = SignedDuration::from_secs(10);
/// The most that one look takes in.
const MOST: usize = 1000;
/// How far slots are counted that are left out.
pub(super) const MOST_COUNTED: usize = 10_000;

/// The slots that have come.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Due {
    /// Those that are to run, or were started, the oldest first.
    pub slots: Vec<Timestamp>,
    /// The others, the oldest first.
    pub left_out: Vec<LeftOut>,
    /// The last of all. None: none has come.
    pub until: Option<Timestamp>,
}

/// The slots after the one time and until the other. `started` are those that have their run, whoever looked then.
pub fn due(spec: &Spec, after: Timestamp, until: Timestamp, started: &BTreeSet<Timestamp>, now: Timestamp) -> Due {
    let mut due = Due { until: spec.timetable.last(after, until), ..Due::default() };
    let mut next = due.until;
    let mut n_late = 0;
    while let Some(slot) = next {
        let late = now.duration_since(spec.starts_at(slot));
        let cause = if started.contains(&slot) { None } else { refusal(spec, late, n_late, due.slots.len()) };
        if let Some(cause) = cause {
            let rest = started.range((Bound::Excluded(after), Bound::Excluded(slot)));
            let ends = rest.clone().map(|&slot| before(slot)).chain([slot]);
            let starts = [after].into_iter().chain(rest.clone().copied());
            due.left_out =
                starts.zip(ends).filter_map(|(after, until)| LeftOut::between(spec, after, until, cause)).collect();
            due.slots.extend(rest.rev());
            break;
        }
        n_late += usize::from(late > IN_TIME);
        due.slots.push(slot);
        next = spec.timetable.last(after, before(slot));
    }
    due.slots.reverse();
    due
}

/// Why a slot, and with it all before it, is left out.
fn refusal(spec: &Spec, late: SignedDuration, n_late: usize, n_taken: usize) -> Option<Cause> {
    let missed = &spec.missed;
    if spec.deadline.is_some_and(|deadline| late > deadline) {
        return Some(Cause::DeadlineExceeded);
    }
    if n_taken >= MOST {
        return Some(Cause::TooManyMissed);
    }
    if late <= IN_TIME {
        return None;
    }
    if missed.within.is_some_and(|within| late > within) {
        return Some(Cause::Missed);
    }
    match missed.is_all {
        true => (n_late >= missed.n).then_some(Cause::TooManyMissed),
        false => (n_taken > 0).then_some(Cause::Missed),
    }
}

pub(super) fn before(slot: Timestamp) -> Timestamp {
    slot.checked_sub(SignedDuration::from_nanos(1)).unwrap_or(slot)
}
