//! The counting of Kubernetes' own Job controller, which has other books than ours.
//!
//! It puts the uid of a pod that has ended into `status.uncountedTerminatedPods`, takes its finalizer off, and moves it from
//! the list into the counter; the successes of Indexed jobs go to `completedIndexes` at once. So every uid is to be in
//! the list once, and the counter and the list together are as many as have ever been in it.
//!
//! Its delay between attempts is for the whole job, and in memory: a restart forgets it (`podBackoffStore`), which is what
//! [`Law::I7`] says of it then.

use jiff::Timestamp;

use batchjob_crd::condition;
use batchjob_decide::job::ledger::Ledger;

use crate::law::Law;
use crate::object::{FailureAction, Job, Phase, Pod};
use crate::state::{JobState, Moment, PodState};

pub(crate) fn count(state: &mut JobState, new: &Job, ledger: &Ledger, moment: &mut Moment<'_>) {
    let mut broken: Vec<String> = Vec::new();
    let is_failing = new.standing.is(condition::FAILURE_TARGET) || new.standing.is(condition::FAILED);
    let is_done = new.standing.is(condition::SUCCESS_CRITERIA_MET);
    let before = state.job.uncounted.clone();
    let lists = [(&new.uncounted.failed, &before.failed, true), (&new.uncounted.succeeded, &before.succeeded, false)];
    for (uids, earlier, has_failed) in lists {
        for uid in uids.iter().filter(|uid| !earlier.contains(uid)) {
            if state.listed.insert(uid.clone(), has_failed).is_some() {
                broken.push(format!("pod {uid} is counted again"));
            }
            let is_so = state.pods.get(uid).is_some_and(|known| match has_failed {
                // What is left of a job that fails is counted as failed.
                true => known.has_failed() || known.is_told || is_failing || is_done,
                false => known.pod.phase == Phase::Succeeded,
            });
            if !is_so {
                let word = if has_failed { "failed" } else { "succeeded" };
                broken.push(format!("pod {uid} is counted as {word}, and has not"));
            }
        }
    }
    let n_listed = |has_failed: bool| state.listed.values().filter(|&&failed| failed == has_failed).count();
    let standing = &new.standing;
    let mut sums = vec![("failed", standing.failed, new.uncounted.failed.len(), n_listed(true))];
    if !new.spec.is_indexed {
        sums.push(("succeeded", standing.succeeded, new.uncounted.succeeded.len(), n_listed(false)));
    }
    for (name, counted, n_uncounted, n_listed) in sums {
        if usize::try_from(counted).is_ok_and(|counted| counted + n_uncounted != n_listed) {
            broken.push(format!("{name} is {counted}, with {n_uncounted} to come, and {n_listed} were told of"));
        }
    }
    let (before, after) = (&state.ledger.completed, &ledger.completed);
    let kept = state.job.spec.index_limit().map_or_else(|| before.clone(), |end| before.below(end));
    if after.n_common(&kept) != kept.len() {
        broken.push(format!("completedIndexes go from {before} to {after}: successes are lost"));
    }
    let has_done =
        |index: u32| state.pods.values().any(|known| known.index == Some(index) && known.pod.phase == Phase::Succeeded);
    if let Some(index) = after.iter().filter(|&index| !before.contains(index)).find(|&index| !has_done(index)) {
        broken.push(format!("index {index} is counted as done, and no pod has done it"));
    }
    if !moment.promises.tampering {
        for what in broken {
            moment.broken(Law::I3, state.place(), what);
        }
    }
}

/// A pod that has ended is let go once its uid is in the list, or its index is completed.
pub(crate) fn ask_release(state: &JobState, known: &PodState, broken: &mut Vec<(Law, String)>) {
    let (spec, pod) = (&state.job.spec, &known.pod);
    if state.is_let_go() || state.finished_at.is_some() || !pod.has_ended() {
        return;
    }
    let is_beyond = known.index.is_some_and(|index| state.allowed.least_completions.is_some_and(|end| index >= end));
    let is_done = known.index.is_some_and(|index| state.ledger.completed.contains(index));
    let is_ignored = spec.judge(pod) == Some(FailureAction::Ignore);
    let is_stopped = spec.is_suspended || spec.parallelism < state.most_parallelism;
    let is_listed = state.listed.contains_key(&pod.meta.uid);
    let may_go = is_listed || is_done || is_beyond || is_ignored || (is_stopped && known.is_told);
    if !may_go {
        broken.push((Law::I3, "it has ended, and is let go without being counted".to_owned()));
    }
}

/// A pod has ended and is counted.
pub(crate) fn note_end(state: &mut JobState, pod: &Pod) {
    if let Some(at) = pod.ended_at.filter(|_| pod.has_ended()) {
        state.ends.push((at, pod.phase == Phase::Failed));
    }
}

/// So long after the last failure no pod is made, for whichever index.
pub(crate) fn ask_delay(state: &JobState, new: &PodState, moment: &mut Moment<'_>) {
    let Some(skew) = moment.promises.clock_skew else { return };
    let Some((due, n_failures)) = due(state, new.index) else { return };
    let created = new.pod.meta.created.unwrap_or(moment.at);
    if due.duration_since(created).saturating_sub(skew) >= jiff::SignedDuration::from_secs(1) {
        let words = format!("after {n_failures} failures a pod may start at {due}, and it was created at {created}");
        moment.broken(Law::I7, new.place(), words);
    }
}

pub(crate) fn waits(state: &JobState, at: Timestamp) -> bool {
    if state.job.spec.backoff_limit_per_index.is_some() {
        // An index that waits holds its last pod.
        return state.present().any(|known| known.pod.is_held && known.pod.has_ended());
    }
    due(state, None).is_some_and(|(due, _)| due >= at)
}

/// When the next pod may start, and after how many failures in a row. With backoffLimitPerIndex that is for each index.
fn due(state: &JobState, index: Option<u32>) -> Option<(Timestamp, u32)> {
    if state.job.spec.backoff_limit_per_index.is_some() {
        let of_index = |known: &&PodState| known.index == index && known.pod.phase == Phase::Failed;
        let last = state.present().filter(of_index).filter_map(|known| known.pod.ended_at).max()?;
        // How many failures it counts is in the pods' annotations, and a stopped pod takes them with it.
        return Some((last.checked_add(JobState::delay(1)).ok()?, 1));
    }
    let successes = state.present().filter(|known| known.pod.phase == Phase::Succeeded);
    let seen = successes.filter_map(|known| known.pod.ended_at).max();
    let last_success = state.ends.iter().filter(|(_, failed)| !failed).map(|&(at, _)| at).max().max(seen);
    let failures = state.ends.iter().filter(|&&(at, failed)| failed && last_success.is_none_or(|success| at > success));
    let last_failure = failures.clone().map(|&(at, _)| at).max()?;
    let n_failures = failures.count() as u32;
    Some((last_failure.checked_add(JobState::delay(n_failures)).ok()?, n_failures))
}
