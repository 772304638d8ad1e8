//! When may a pod be created, and how many?
//!
//! A controller sees an edit some time after it was made. What it creates is judged by all the specs that it may still have
//! before it: those since its last write of the status, which names the version that it has read.

use jiff::Timestamp;

use super::is_counted;
use crate::law::Law;
use crate::object::Pod;
use crate::state::{Allowed, JobState, Moment, PodState};

/// Judges the creation of a pod, and marks it if it should not be.
pub(crate) fn judge(state: &mut JobState, mut new: PodState, moment: &mut Moment<'_>) -> PodState {
    ask_whose(state, &new, moment);
    if new.pod.meta.controller.as_ref() != Some(&state.job.meta.uid) {
        // An orphan that somebody made.
        return new;
    }
    if let Some(in_flight) = moment.promises.in_flight
        && state.allowed.since.checked_add(in_flight).is_ok_and(|end| end < moment.at)
    {
        state.allowed = Allowed::by(&state.job, state.allowed.since);
    }
    state.wrote(moment, "a pod was created");
    let mut wrong: Vec<(Law, String)> = Vec::new();
    ask_attempt(state, &new, &mut wrong);
    ask_index(state, &new, &mut wrong);
    ask_number(state, moment, &mut wrong);
    ask_job(state, moment, &mut wrong);
    new.is_late = !wrong.is_empty();
    // One that came late may seem to live while others are made, although it has ended by then.
    let may_seem_too_many = moment.promises.late_creates && state.unpassed.len() >= state.allowed.parallelism as usize;
    if may_seem_too_many || wrong.iter().any(|(law, _)| *law == Law::I5) {
        state.has_surplus = true;
    }
    if !moment.promises.late_creates {
        for (law, what) in wrong {
            moment.broken(law, new.place(), what);
        }
    }
    match moment.is_of_kubernetes() {
        true => super::kubernetes::ask_delay(state, &new, moment),
        false => ask_delay(state, &new, moment),
    }
    new
}

/// A pod for a job that is gone: the create was under way, or its answer was.
pub(crate) fn of_a_gone_job(place: &str, gone_at: Timestamp, moment: &mut Moment<'_>) {
    let in_flight = moment.promises.in_flight;
    if !moment.promises.late_creates
        && in_flight.is_some_and(|in_flight| gone_at.checked_add(in_flight).is_ok_and(|end| end < moment.at))
    {
        moment.broken(Law::I6, place.to_owned(), format!("it was created, and its job is gone since {gone_at}"));
    }
}

fn ask_whose(state: &JobState, new: &PodState, moment: &mut Moment<'_>) {
    if moment.promises.tampering {
        return;
    }
    let (meta, uid) = (&new.pod.meta, &state.job.meta.uid);
    if meta.n_controllers != 1 || meta.controller.as_ref() != Some(uid) {
        let words = format!("it has {} controllers, and its job is {uid}", meta.n_controllers);
        moment.broken(Law::I8, new.place(), words);
    }
    if new.pod.job.as_ref() != Some(uid) {
        moment.broken(Law::I8, new.place(), format!("its label does not say that it is of its job, {uid}"));
    }
    if !new.pod.is_held {
        moment.broken(Law::I3, new.place(), "it was created without the finalizer, so its end can be lost");
    }
    if moment.is_of_kubernetes() {
        return;
    }
    if new.id.is_none() {
        moment.broken(Law::I8, new.place(), "it has a name that its job does not give");
    } else if new.pod.index != new.index {
        moment.broken(Law::I8, new.place(), format!("its labels say index {:?}", new.pod.index));
    }
}

fn ask_attempt(state: &JobState, new: &PodState, wrong: &mut Vec<(Law, String)>) {
    let Some(id) = new.id else { return };
    if state.attempts.contains_key(&id) {
        wrong.push((Law::I1, format!("{id} has had a pod before")));
    } else if new.is_passed && !state.ledger.is_closed(id.index) {
        let next = state.ledger.next_attempt(id.index);
        wrong.push((Law::I1, format!("{id} is passed: the next attempt of its index is {next}")));
    }
}

fn ask_index(state: &JobState, new: &PodState, wrong: &mut Vec<(Law, String)>) {
    let Some(index) = new.index else { return };
    let Allowed { replaces_only_ended, .. } = state.allowed;
    let others = state.unended.range((index, "".into())..).take_while(|(of, _)| *of == index);
    for (_, uid) in others {
        let Some(other) = state.pods.get(uid) else { continue };
        // What no node has, or is forced away, comes to no end: its index goes on.
        let is_alive = if replaces_only_ended { other.pod.may_still_tell() } else { other.pod.is_living() };
        if is_alive {
            wrong.push((Law::I1, format!("{} of the same index is alive", other.pod.meta.name)));
        }
    }
    if state.ledger.completed.contains(index) && state.job.spec.completions.is_some() {
        wrong.push((Law::I2, format!("index {index} is counted as done")));
    } else if state.done.contains(index) {
        wrong.push((Law::I2, format!("a pod has done index {index}")));
    } else if state.ledger.failed_indexes.contains(index) {
        wrong.push((Law::I2, format!("index {index} is counted as failed for good")));
    }
}

fn ask_number(state: &JobState, moment: &Moment<'_>, wrong: &mut Vec<(Law, String)>) {
    let Allowed { parallelism, replaces_only_ended, .. } = state.allowed;
    let is_alive = |pod: &Pod| match replaces_only_ended {
        true => pod.may_still_tell(),
        false => is_counted(state, pod) && pod.is_living(),
    };
    // Where somebody takes labels off, pods are out of sight until theirs is put back.
    let is_seen = |pod: &Pod| pod.is_watched || !moment.promises.tampering;
    let n_alive = match replaces_only_ended || moment.promises.tampering {
        true => state.present().filter(|other| is_alive(&other.pod) && is_seen(&other.pod)).count(),
        false => state.n_living,
    };
    if n_alive + 1 > parallelism as usize {
        let word = if replaces_only_ended { "alive or being deleted" } else { "alive" };
        wrong.push((
            Law::I5,
            format!("it makes {} pods that are {word}, and parallelism is {parallelism}", n_alive + 1),
        ));
    }
}

fn ask_job(state: &JobState, moment: &Moment<'_>, wrong: &mut Vec<(Law, String)>) {
    let mut unless = |holds: bool, what: &str| {
        if !holds {
            wrong.push((Law::I6, what.to_owned()));
        }
    };
    unless(state.finished_at.is_none(), "its job is over");
    let is_over = state.finished_at.is_some();
    unless(is_over || state.job.verdict.is_none(), "it is decided how its job ends");
    unless(!state.allowed.is_suspended, "its job is suspended");
    unless(!state.allowed.is_deleted, "its job is being deleted");
    let is_late = |gone_at: Timestamp| {
        let end = moment.promises.in_flight.and_then(|in_flight| gone_at.checked_add(in_flight).ok());
        end.is_some_and(|end| end < moment.at)
    };
    unless(!state.gone_at.is_some_and(is_late), "its job is gone");
    let is_work_left = state.job.spec.completions.is_some() || state.job.standing.succeeded == 0;
    unless(is_work_left, "a worker has said that the queue is empty");
}

/// The delay after the failure before. Both that failure and the create may not be in the status yet: creates come first.
fn ask_delay(state: &JobState, new: &PodState, moment: &mut Moment<'_>) {
    let (Some(id), Some(skew)) = (new.id, moment.promises.clock_skew) else { return };
    if new.is_passed && moment.promises.late_creates {
        return;
    }
    let open = state.ledger.open.get(id.index);
    let n_before = open.map_or(0, |open| open.failures.saturating_add(open.ignored));
    let next = open.map_or(1, |open| open.next_attempt);
    let (failed_at, n_failures) = if next >= id.attempt {
        (open.and_then(|open| open.failed_at), n_before)
    } else {
        let before = batchjob_decide::plan::AttemptId { attempt: id.attempt - 1, ..id };
        let before = state.unpassed.get(&before).filter(|_| next + 1 == id.attempt);
        let Some(before) = before.and_then(|uid| state.pods.get(uid)) else { return };
        (before.failed_at.map(|at| at.min(moment.at)), n_before.saturating_add(1))
    };
    let due = failed_at.and_then(|at| at.checked_add(JobState::delay(n_failures)).ok());
    let Some(due) = due else { return };
    // Times in objects are cut to whole seconds.
    let created = new.pod.meta.created.unwrap_or(moment.at);
    let early = due.duration_since(created).saturating_sub(skew);
    if early >= jiff::SignedDuration::from_secs(1) {
        let words = format!("after {n_failures} failures {id} may start at {due}, and it was created at {created}");
        moment.broken(Law::I7, new.place(), words);
    }
    let Some(within) = moment.promises.retries_start_within else { return };
    let has_room = state.job.spec.completions.is_some_and(|completions| state.job.spec.parallelism >= completions);
    let since = state.job.standing.start_time.map_or(due, |start| due.max(start)).max(state.edited_at);
    if has_room && created.duration_since(since) > within.saturating_add(skew) {
        moment.broken(Law::I7, new.place(), format!("{id} may start at {since}, and it was created at {created}"));
    }
}
