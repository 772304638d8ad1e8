//! The laws, and when each is asked.

pub(crate) mod counting;
pub(crate) mod creation;
pub(crate) mod kubernetes;
pub(crate) mod release;
pub(crate) mod settled;
pub(crate) mod verdict;
pub(crate) mod writes;

use crate::event::Change;
use crate::law::Law;
use crate::object::{Job, Phase, Pod};
use crate::standing;
use crate::state::{Allowed, JobState, Moment, PodState, ledger};

pub(crate) fn see_new_job(state: &JobState, moment: &mut Moment<'_>) {
    ask_the_status(state, None, &state.job, moment);
}

pub(crate) fn see_job(state: &mut JobState, job: &Job, moment: &mut Moment<'_>) {
    ask_the_status(state, Some(&state.job), job, moment);
    let is_edited = job.spec != state.job.spec || job.meta.deletion.is_some() != state.job.meta.deletion.is_some();
    if job.has_another_status(&state.job) {
        let ledger = ledger(job);
        match moment.is_of_kubernetes() {
            true => kubernetes::count(state, job, &ledger, moment),
            false => counting::count(state, job, &ledger, moment),
        }
        verdict::judge(state, job, &ledger, moment);
        writes::see_status(state, job, moment);
        state.ledger = ledger;
        // A status is written with the version of the object that was read, so its writer has seen the spec. But for somebody
        // else that says nothing about the operator.
        if !moment.promises.tampering {
            state.allowed = Allowed::by(&state.job, moment.at);
        }
    }
    if is_edited {
        state.allowed = state.allowed.clone().or(Allowed::by(job, moment.at));
        state.edited_at = moment.at;
        state.written.n_edits += 1;
        state.written.n_idle = 0;
        if let Some(end) = job.spec.index_limit() {
            // Should the job grow again these are done again.
            state.done = state.done.below(end);
        }
    }
    state.most_parallelism = state.most_parallelism.max(job.spec.parallelism);
    if job.standing.is_finished() && state.finished_at.is_none() {
        state.finished_at = Some(moment.at);
        state.finished_limit = job.spec.index_limit();
    }
    state.job = job.clone();
}

fn ask_the_status(state: &JobState, before: Option<&Job>, after: &Job, moment: &mut Moment<'_>) {
    if moment.may_be_tampering() {
        return;
    }
    for rule in standing::violations(before.map(|job| &job.standing), &after.standing) {
        moment.broken(Law::I4, state.place(), rule);
    }
}

pub(crate) fn see_pod(state: &mut JobState, change: Change, pod: &Pod, moment: &mut Moment<'_>) {
    state.written.n_idle = 0;
    match state.pods.contains_key(&pod.meta.uid) {
        false if change == Change::Deleted => return,
        false => {
            let id = state.names.read(&pod.meta.name).filter(|_| !moment.is_of_kubernetes());
            let index = match moment.is_of_kubernetes() {
                true => pod.index.filter(|_| state.job.spec.is_indexed),
                false => id.map(|id| id.index),
            };
            let new = PodState {
                pod: pod.clone(),
                id,
                index,
                is_told: false,
                failed_at: None,
                is_passed: id.is_none_or(|id| state.ledger.is_passed(id.index, id.attempt)),
                is_late: false,
                is_gone: false,
            };
            let new = creation::judge(state, new, moment);
            enter(state, new);
        }
        true => {
            release::judge(state, change, pod, moment);
            take_out(state, pod);
            if let Some(known) = state.pods.get_mut(&pod.meta.uid) {
                // A container that is started again is a retry, and told as one.
                let n_failures = pod.n_failures_in_place.saturating_sub(known.pod.n_failures_in_place);
                state.written.n_retries += n_failures as usize;
                known.pod = pod.clone();
            }
        }
    }
    learn(state, pod);
    if change == Change::Deleted {
        leave(state, pod, moment);
    } else {
        put_in(state, pod);
    }
}

fn enter(state: &mut JobState, new: PodState) {
    let uid = new.pod.meta.uid.clone();
    state.written.n_pods += 1;
    if let Some(id) = new.id {
        state.written.n_retries += usize::from(id.attempt > 1);
        state.attempts.entry(id).or_insert_with(|| uid.clone());
        if !new.is_passed {
            state.unpassed.insert(id, uid.clone());
        }
    }
    state.pods.insert(uid, new);
}

/// Only pods that the job owns are in its numbers.
fn is_counted(state: &JobState, pod: &Pod) -> bool {
    pod.meta.controller.as_ref() == Some(&state.job.meta.uid)
}

fn take_out(state: &mut JobState, now: &Pod) {
    let Some(known) = state.pods.get(&now.meta.uid) else { return };
    if is_counted(state, &known.pod) {
        state.n_living -= usize::from(known.pod.is_living());
        state.n_terminating -= usize::from(known.pod.is_terminating());
    }
    if let Some(index) = known.index {
        state.unended.remove(&(index, now.meta.uid.clone()));
    }
}

fn put_in(state: &mut JobState, pod: &Pod) {
    if is_counted(state, pod) {
        state.n_living += usize::from(pod.is_living());
        state.n_terminating += usize::from(pod.is_terminating());
    }
    let index = state.pods.get(&pod.meta.uid).and_then(|known| known.index);
    if let Some(index) = index.filter(|_| !pod.has_ended()) {
        state.unended.insert((index, pod.meta.uid.clone()));
    }
}

/// What it has come to.
fn learn(state: &mut JobState, pod: &Pod) {
    let end = state.job.spec.index_limit();
    let Some(known) = state.pods.get_mut(&pod.meta.uid) else { return };
    if pod.is_terminating() {
        known.is_told = true;
    }
    if known.has_failed() {
        known.failed_at = match (known.failed_at, pod.ended_at) {
            (Some(before), Some(now)) => Some(before.min(now)),
            (before, now) => before.or(now),
        };
    }
    // A job that is being deleted lets its pods go at once, and may still be told how they end.
    let is_held = pod.is_held || state.job.meta.deletion.is_some();
    if pod.phase == Phase::Succeeded && is_held {
        if let Some(id) = known.id
            && !state.ledger.completed.contains(id.index)
        {
            state.successes.insert(id, pod.meta.uid.clone());
        }
        let is_counted = known.index.is_some_and(|index| state.ledger.completed.contains(index));
        // Of a pod that is deleted after it was passed nobody can tell any more whether it succeeded before or because of it.
        let is_in_doubt = known.is_passed && pod.meta.deletion.is_some() && !is_counted;
        match known.index.filter(|&index| end.is_none_or(|end| index < end)) {
            Some(index) if is_in_doubt => state.done.remove(index),
            Some(index) if !known.is_told => drop(state.done.insert(index)),
            _ => {}
        }
    }
}

fn leave(state: &mut JobState, pod: &Pod, moment: &Moment<'_>) {
    let uid = &pod.meta.uid;
    let Some(known) = state.pods.get_mut(uid) else { return };
    known.is_gone = true;
    // Others have let it go, so it may have gone without a trace, and is to be done again. Taken together with its end,
    // the finalizer is still on what the watch tells.
    let is_taken = moment.promises.tampering && (!pod.is_held || moment.may_be_tampering());
    if let Some(id) = known.id.filter(|_| is_taken && !known.is_passed) {
        state.attempts.remove(&id);
        if state.successes.get(&id) == Some(uid) {
            state.done.remove(id.index);
        }
    }
    // What was not counted yet still has to be.
    let is_owed = known.id.is_some_and(|id| state.unpassed.contains_key(&id)) && state.gone_at.is_none();
    if !is_owed {
        state.pods.remove(uid);
    }
}
