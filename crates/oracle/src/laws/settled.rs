//! When nothing happens any more: is all as the specs say, and do the statuses say how it is?

use batchjob_crd::{condition, reason};
use batchjob_decide::observed::Door;
use jiff::Timestamp;

use crate::law::Law;
use crate::state::{JobState, Moment, PodState};

/// What may keep a job from having the pods that it wants.
const OBSTACLES: [&str; 6] = [
    reason::POD_TEMPLATE_REJECTED,
    reason::QUOTA_EXCEEDED,
    reason::POD_CREATE_FORBIDDEN,
    reason::NAMESPACE_TERMINATING,
    reason::TOO_MANY_OPEN_INDEXES,
    reason::INVALID_SPEC,
];

pub(crate) fn judge(state: &JobState, quiet_since: Timestamp, moment: &mut Moment<'_>) {
    let mut broken: Vec<String> = Vec::new();
    if let Some((at, revision, what)) = state.written.last
        && at > quiet_since
    {
        broken.push(format!("{what} at revision {revision}, {at}, and nothing has happened since {quiet_since}"));
    }
    if state.gone_at.is_none() && state.job.meta.deletion.is_none() {
        ask_pods(state, moment, &mut broken);
        ask_counts(state, moment, &mut broken);
    }
    for what in broken {
        moment.broken(Law::I12, state.place(), what);
    }
    if state.finished_at.is_some() || state.gone_at.is_some() {
        super::release::left_behind(state, moment);
    }
}

fn ask_pods(state: &JobState, moment: &Moment<'_>, broken: &mut Vec<String>) {
    let spec = &state.job.spec;
    let (n_living, n_terminating) = (state.n_living, state.n_terminating);
    if state.finished_at.is_some() {
        if n_living + n_terminating > 0 {
            broken.push(format!("it is over, and {n_living} of its pods live and {n_terminating} are being deleted"));
        }
        return;
    }
    if OBSTACLES.contains(&&*state.job.reason) {
        return;
    }
    if state.job.verdict.is_some() {
        if n_living > 0 {
            broken.push(format!("it is decided how it ends, and {n_living} of its pods live"));
        } else if n_terminating == 0 {
            broken.push("it is decided how it ends, it has no pod left, and it does not end".to_owned());
        }
        return;
    }
    if spec.is_suspended {
        if n_living > 0 {
            broken.push(format!("it is suspended, and {n_living} of its pods live"));
        }
        if !state.job.standing.is(condition::SUSPENDED) {
            broken.push("it is suspended, and does not say so".to_owned());
        }
        return;
    }
    let n_done = match moment.is_of_kubernetes() {
        true => usize::try_from(state.job.standing.succeeded).unwrap_or_default(),
        false => state.ledger.completed.len(),
    };
    let (wanted, is_done) = match spec.completions {
        Some(completions) => {
            let left = (completions as usize).saturating_sub(n_done);
            (left.min(spec.parallelism as usize), left == 0)
        }
        // Nobody is started or stopped any more once a worker has said that the queue is empty.
        None if n_done > 0 => (n_living, n_living == 0),
        None => (spec.parallelism as usize, false),
    };
    if is_done && n_terminating == 0 && n_living == 0 {
        broken.push("it is done, and is not over".to_owned());
    }
    if n_living > wanted {
        broken.push(format!("{n_living} of its pods live, and {wanted} are wanted"));
    }
    let n_blocking = if spec.replaces_only_ended { n_terminating } else { 0 };
    if n_living + n_blocking < wanted && !waits(state, moment) {
        broken.push(format!(
            "{n_living} of its pods live and {n_terminating} are being deleted, and {wanted} are wanted"
        ));
    }
}

/// An index waits for its delay: where others could start they would have.
fn waits(state: &JobState, moment: &Moment<'_>) -> bool {
    if moment.is_of_kubernetes() {
        return super::kubernetes::waits(state, moment.at);
    }
    state.ledger.open.indexes().filter(|&index| !state.ledger.is_closed(index)).any(|index| {
        let Some(open) = state.ledger.open.get(index) else { return false };
        let delay = JobState::delay(open.failures.saturating_add(open.ignored));
        open.failed_at.and_then(|at| at.checked_add(delay).ok()).is_some_and(|due| due >= moment.at)
    })
}

fn ask_counts(state: &JobState, moment: &Moment<'_>, broken: &mut Vec<String>) {
    let standing = &state.job.standing;
    let is_of_job = |known: &&PodState| known.pod.meta.controller.as_ref() == Some(&state.job.meta.uid);
    let n_ready = state.present().filter(is_of_job).filter(|known| known.pod.is_living() && known.pod.is_ready).count();
    for (name, said, n) in [
        ("active", standing.active, state.n_living),
        ("ready", standing.ready, n_ready),
        ("terminating", standing.terminating, state.n_terminating),
    ] {
        if usize::try_from(said) != Ok(n) && &*state.job.reason != reason::INVALID_SPEC {
            broken.push(format!("{name} is {said}, and {n} of its pods are"));
        }
    }
    if state.job.door == Door::BatchJob && state.job.observed_generation != Some(state.job.meta.generation) {
        let (said, is) = (state.job.observed_generation, state.job.meta.generation);
        broken.push(format!("observedGeneration is {said:?}, and generation is {is}"));
    }
    let waits_for_a_successor = moment.is_of_kubernetes() && state.job.spec.backoff_limit_per_index.is_some();
    let is_owed = |known: &&PodState| known.pod.is_held && known.pod.has_ended() && !waits_for_a_successor;
    let mut owed: Vec<String> = state.present().filter(is_owed).map(PodState::place).collect();
    owed.sort();
    for place in owed.into_iter().take(3) {
        broken.push(format!("{place} has ended, and is held still"));
    }
}
