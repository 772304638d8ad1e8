//! When may a pod be let go, and when may it be deleted?
//!
//! What is counted may go: then nothing is lost. What is passed may be deleted: the ledger is written first.

use crate::event::Change;
use crate::law::Law;
use crate::object::{Phase, Pod};
use crate::state::{JobState, Moment, PodState};

pub(crate) fn judge(state: &mut JobState, change: Change, pod: &Pod, moment: &mut Moment<'_>) {
    let Some(known) = state.pods.get(&pod.meta.uid) else { return };
    let before = &known.pod;
    let is_released = before.is_held && (!pod.is_held || change == Change::Deleted);
    let is_deleted = before.meta.deletion.is_none() && (pod.meta.deletion.is_some() || change == Change::Deleted);
    let has_lost_its_owner = before.meta.controller.as_ref() == Some(&state.job.meta.uid)
        && pod.meta.controller != before.meta.controller
        && change != Change::Deleted;

    let mut broken: Vec<(Law, String)> = Vec::new();
    if !moment.may_be_tampering() {
        if is_released {
            match moment.is_of_kubernetes() {
                true => super::kubernetes::ask_release(state, known, &mut broken),
                false => ask_release(state, known, pod, moment, &mut broken),
            }
        }
        let may_be_others = moment.promises.deletions && !moment.is_ours();
        // Kubernetes' own controller deletes the pods of a job that has failed before it says that it has.
        if is_deleted && !may_be_others && !moment.is_of_kubernetes() {
            ask_deletion(state, known, moment, &mut broken);
        }
        if has_lost_its_owner && !state.is_let_go() {
            broken.push((Law::I8, "its job is there, and it has lost it as its owner".to_owned()));
        }
    }
    let place = known.place();
    for (law, what) in broken {
        moment.broken(law, place.clone(), what);
    }
    if is_released {
        state.wrote(moment, "a pod was let go");
        super::kubernetes::note_end(state, pod);
    } else if is_deleted {
        state.wrote(moment, "a pod was deleted");
    }
}

fn ask_release(state: &JobState, known: &PodState, pod: &Pod, moment: &Moment<'_>, broken: &mut Vec<(Law, String)>) {
    let Some(id) = known.id else { return };
    // A job that is over does not grow again.
    let limits = [state.allowed.least_completions, state.finished_limit];
    let is_beyond = limits.into_iter().flatten().any(|end| id.index >= end);
    if state.is_let_go() && state.gone_at.is_some() || is_beyond {
        return;
    }
    // Somebody has taken its owner off, and nobody can take hold of one that is being deleted.
    if moment.promises.tampering && known.pod.meta.controller.is_none() && known.pod.meta.deletion.is_some() {
        return;
    }
    let is_let_go = state.is_let_go() || state.finished_at.is_some();
    let has_told = match pod.is_held {
        // It went together with its finalizer, so that is all that is known of it.
        true => !known.pod.may_still_tell(),
        false => !pod.may_still_tell(),
    };
    let is_late = known.is_late && moment.promises.late_creates;
    if !has_told && !is_let_go {
        broken.push((Law::I3, format!("{id} is let go before it has come to an end")));
    } else if has_told && !known.is_passed && state.unpassed.contains_key(&id) && !state.is_let_go() && !is_late {
        // A job that is being deleted lets its pods go as it sees them: of one that has ended since, nobody is left to ask.
        broken.push((Law::I3, format!("{id} is let go before it is counted")));
    }
    let has_succeeded = pod.phase == Phase::Succeeded && !known.is_told && pod.meta.deletion.is_none();
    let is_unseen = moment.promises.unseen_pods && state.finished_at.is_some();
    if has_succeeded && !state.ledger.completed.contains(id.index) && !is_late && !is_unseen && !state.is_let_go() {
        broken.push((Law::I3, format!("{id} has succeeded, and is let go without that being counted")));
    }
}

fn ask_deletion(state: &JobState, known: &PodState, moment: &Moment<'_>, broken: &mut Vec<(Law, String)>) {
    let Some(id) = known.id else { return };
    let is_beyond = state.allowed.least_completions.is_some_and(|end| id.index >= end);
    let is_over = state.finished_at.is_some() || state.job.verdict.is_some();
    let may_go = known.is_passed || is_beyond || is_over || state.is_let_go();
    let is_late = known.is_late && moment.promises.late_creates;
    if !may_go && !is_late {
        broken.push((Law::I9, format!("{id} is the one that its index is in, and it is deleted")));
    }
}

/// Finalizers of a job that is over or gone, when they should be off.
pub(crate) fn left_behind(state: &JobState, moment: &mut Moment<'_>) {
    let since = state.gone_at.map_or("over", |_| "gone");
    let mut left: Vec<String> =
        state.present().filter(|known| known.pod.is_held && !known.pod.may_still_tell()).map(PodState::place).collect();
    left.sort();
    for place in left {
        moment.broken(Law::I10, place, format!("it is held still, and {} is {since}", state.place()));
    }
}
