//! One job: from its pods and its ledger to the next plan. This file is the table of contents.

pub mod attempt;
pub mod failure_policy;
pub mod finish;
pub mod indexes;
pub mod ledger;
pub mod managed;
pub mod name;
pub mod pod;
pub mod reasons;
pub mod retry;
pub mod scale;
pub mod spec;
pub mod status;
pub mod success_policy;
pub mod tally;

use batchjob_crd::{BatchJobStatus, condition, reason};

use crate::observed::{Door, Job, Observed, Obstacle};
use crate::plan::{Action, AttemptId, Counted, Finished, Plan, PolicyAction, Reason};
use attempt::Attempt;
use finish::{Evidence, Verdict};
use name::PodNames;
use scale::{MAX_PER_PASS, Scale};
use spec::Spec;
use status::Picture;
use tally::{Failure, Tally};

/// What should happen next to one job.
pub fn decide(observed: &Observed) -> Plan {
    let names = PodNames::of(&observed.job);
    if let Some(finished_at) = status::finished_at(&observed.job.status) {
        return after_the_end(observed, &tally::tally(observed, None, &names), finished_at);
    }
    let spec = match Spec::read(&observed.job) {
        Ok(spec) => spec,
        Err(message) => return invalid(observed, message),
    };
    let mut tally = tally::tally(observed, Some(&spec), &names);
    if let Some(Obstacle::NameTaken(id)) = &observed.obstacle {
        // It is one that was given up, or somebody else's: the index goes on without it.
        tally.pass_missing(*id);
    }
    if observed.job.is_deleted {
        return let_go(observed, &spec, tally);
    }

    let verdict = finish::verdict(&Evidence { observed, spec: &spec, tally: &tally });
    let mut scale = match verdict {
        Some(_) => Scale::default(),
        None => scale::scale(&spec, &tally, observed.now),
    };
    let blocked = if scale.start.is_empty() { None } else { obstacle(observed) };
    if blocked.is_some() {
        scale.start.clear();
        scale.is_cut = false;
    }
    // It is decided how the job ends, so what still runs is deleted. That is written first: a pod that was deleted for it
    // must find the same verdict afterwards.
    let condemned: &[Attempt<'_>] = if verdict.is_some() { &tally.current } else { &[] };
    let stopped: Vec<AttemptId> =
        scale.stop.iter().map(|attempt| attempt.id).chain(spared(observed, &spec, &tally, verdict.as_ref())).collect();
    for id in stopped {
        tally.ledger.stop(id.index, id.attempt);
    }

    let picture = Picture { observed, spec: &spec, tally: &tally, scale: &scale, verdict: verdict.as_ref(), blocked };
    let status = kept(&observed.job, status::project(&picture));

    let deleted: Vec<&Attempt<'_>> = tally.strays.iter().chain(condemned).chain(&scale.stop).collect();
    let adopted = &tally.orphans;
    let can_wait = scale.start.is_empty()
        && adopted.is_empty()
        && deleted.is_empty()
        && tally.disowned.is_empty()
        && tally.releasable.is_empty()
        && status::only_counts_differ(&observed.job.status, &status);

    let mut plan = Plan { reasons: reasons::reasons(&picture, &status), can_wait, ..Plan::default() };
    plan.counted = counted(&tally, &observed.job.status, &status);
    plan.actions.extend(scale.start.iter().map(|&start| Action::CreatePod(start)));
    plan.actions.extend(adopted.iter().map(|orphan| Action::AdoptPod(orphan.pod.into())));
    plan.actions.extend(write_if_changed(observed, status));
    clear_up(&mut plan, observed, &tally, &deleted);

    if verdict.is_none() {
        plan.wake(scale.next_retry.map(|(_, at)| at));
        plan.wake(finish::deadline(observed, &spec));
    }
    plan.wake(blocked.and_then(Obstacle::retry_at));
    if scale.is_cut {
        plan.wake(Some(observed.now));
    }
    plan
}

/// The attempts that have not ended as the job does, and are not to be counted. Where it succeeds without them, that is all
/// of them; where it fails, they are counted as failed when they are seen to end, but for those that podFailurePolicy ignores
/// for what they have come to so far: from then on it is asked no more. So has batch/v1 Job it.
fn spared(observed: &Observed, spec: &Spec, tally: &Tally<'_>, verdict: Option<&Verdict>) -> Vec<AttemptId> {
    let Some(verdict) = verdict else { return Vec::new() };
    let policy = spec.failure_policy.as_ref().filter(|_| !is_failing(&observed.job));
    let is_ignored = |attempt: &Attempt<'_>| {
        let rule = policy.and_then(|policy| policy.judge(&observed.job.namespace, attempt));
        rule.is_some_and(|rule| rule.action == PolicyAction::Ignore)
    };
    let attempts = tally.current.iter().chain(&tally.leaving);
    attempts.filter(|attempt| verdict.succeeded || is_ignored(attempt)).map(|attempt| attempt.id).collect()
}

/// Lets pods go and deletes pods, as many as one pass does; what is left comes in the next one, behind the other jobs.
fn clear_up(plan: &mut Plan, observed: &Observed, tally: &Tally<'_>, deleted: &[&Attempt<'_>]) {
    let Tally { releasable, disowned, .. } = tally;
    plan.actions.extend(releasable.iter().take(MAX_PER_PASS).cloned().map(Action::ReleasePod));
    plan.actions.extend(disowned.iter().take(MAX_PER_PASS).map(|attempt| Action::DisownPod(attempt.pod.into())));
    plan.actions.extend(deleted.iter().take(MAX_PER_PASS).map(|attempt| Action::DeletePod(attempt.pod.into())));
    if [releasable.len(), disowned.len(), deleted.len()].into_iter().any(|n| n > MAX_PER_PASS) {
        plan.wake(Some(observed.now));
    }
}

/// A finished job: its status stands. What is left of its pods is cleared up, and when its time comes it goes itself; a
/// managed Job by the hand of Kubernetes' own controller (`pkg/controller/ttlafterfinished`).
fn after_the_end(observed: &Observed, tally: &Tally<'_>, finished_at: jiff::Timestamp) -> Plan {
    let mut plan = Plan::default();
    let spec = Spec::read(&observed.job).ok().filter(|_| observed.job.door == Door::BatchJob);
    let expiry = spec.and_then(|spec| finish::expiry(&spec, finished_at));
    let is_expired = expiry.is_some_and(|expiry| expiry <= observed.now) && !observed.job.is_deleted;
    if !is_expired {
        plan.actions.extend(write_if_changed(observed, kept(&observed.job, status::carried_over(&observed.job))));
        plan.wake(expiry.filter(|_| !observed.job.is_deleted));
    }
    let left: Vec<&Attempt<'_>> = tally.strays.iter().chain(&tally.current).collect();
    clear_up(&mut plan, observed, tally, &left);
    if is_expired {
        plan.actions.push(Action::DeleteJob);
    }
    plan
}

/// Nothing is done about it, but when it is deleted its pods must not stay because of us.
fn invalid(observed: &Observed, message: String) -> Plan {
    let job = &observed.job;
    let status = kept(job, status::invalid(job, message.clone(), observed.now));
    let is_new = status.reason != job.status.reason;
    let mut plan = only_status(observed, status);
    if is_new {
        // A managed Job has no condition that could say it.
        plan.reasons.push(Reason::warning(reason::INVALID_SPEC, message));
    }
    if job.is_deleted {
        plan.actions.extend(release_all(observed));
    }
    plan
}

/// The job is being deleted: what has ended is counted, every pod is let go, and none is created or deleted: whether
/// the pods go too is for the garbage collector, which knows how the deletion was asked for.
fn let_go(observed: &Observed, spec: &Spec, tally: Tally<'_>) -> Plan {
    let scale = Scale::default();
    // Nobody stops its pods or starts new ones: it is suspended if it was before, and not otherwise.
    let is_suspended = status::find_true(&observed.job.status, condition::SUSPENDED).is_some();
    let spec = &Spec { is_suspended, ..spec.clone() };
    let picture = Picture { observed, spec, tally: &tally, scale: &scale, verdict: None, blocked: None };
    let mut status = status::project(&picture);
    // And what has begun stays so: one that was decided while it was suspended has begun all the same, and the API server
    // holds that against a managed Job that was resumed since (422).
    status.start_time.clone_from(&observed.job.status.start_time);
    let status = kept(&observed.job, status);
    let mut plan = Plan { counted: counted(&tally, &observed.job.status, &status), ..only_status(observed, status) };
    plan.actions.extend(release_all(observed));
    plan
}

fn release_all(observed: &Observed) -> impl Iterator<Item = Action> {
    observed.pods.iter().filter(|pod| pod.is_held).map(|pod| Action::ReleasePod((&**pod).into()))
}

fn only_status(observed: &Observed, status: BatchJobStatus) -> Plan {
    Plan { actions: write_if_changed(observed, status).into_iter().collect(), ..Plan::default() }
}

/// What the job's kind can hold of a status.
fn kept(job: &Job, status: BatchJobStatus) -> BatchJobStatus {
    match job.door {
        Door::BatchJob => status,
        Door::ManagedJob => managed::keep(job, status),
    }
}

fn write_if_changed(observed: &Observed, status: BatchJobStatus) -> Option<Action> {
    let is_due = status != observed.job.status || observed.job.has_lost_its_ledger;
    is_due.then(|| Action::WriteStatus(Box::new(status)))
}

/// Whether it is decided, by an earlier pass, that the job fails.
fn is_failing(job: &Job) -> bool {
    status::find_true(&job.status, condition::FAILURE_TARGET).is_some()
}

/// What stands in the way of creates now.
fn obstacle(observed: &Observed) -> Option<&Obstacle> {
    observed.obstacle.as_ref().filter(|obstacle| match obstacle {
        Obstacle::TemplateRejected { generation, retry_at, .. } => {
            *generation == observed.job.generation && *retry_at > observed.now
        }
        Obstacle::NameTaken(_) => false,
        Obstacle::Refused { retry_at, .. } | Obstacle::Unanswered { retry_at } => *retry_at > observed.now,
    })
}

fn counted(tally: &Tally<'_>, before: &BatchJobStatus, after: &BatchJobStatus) -> Counted {
    let finished = status::end(after)
        .filter(|_| status::finished_at(before).is_none())
        .map(|end| Finished { succeeded: end.type_ == condition::COMPLETE, reason: end.reason.clone() });
    let failed_for_good = |failure: &&Failure<'_>| tally.ledger.failed_indexes.contains(failure.attempt.id.index);
    Counted {
        succeeded: tally.succeeded.len() as u32,
        failed_indexes: tally.failed.iter().filter(failed_for_good).count() as u32,
        failed: tally.failed.iter().filter(|failure| failure.counts()).count() as u32,
        by_policy: tally.failed.iter().filter_map(Failure::action).collect(),
        finished,
    }
}

impl Job {
    /// What every pod of the job carries, and `kubectl scale` and autoscalers look for.
    pub fn selector(&self) -> String {
        format!("{}={}", batchjob_crd::keys::CONTROLLER_UID, self.uid)
    }
}
