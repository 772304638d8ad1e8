//! One job: from its pods and its ledger to the next plan. This file is the table of contents.

pub mod attempt;
pub mod finish;
pub mod indexes;
pub mod ledger;
pub mod name;
pub mod pod;
pub mod reasons;
pub mod retry;
pub mod scale;
pub mod spec;
pub mod status;
pub mod tally;

use batchjob_crd::BatchJobStatus;

use crate::observed::{Job, Observed, Obstacle};
use crate::plan::{Action, Counted, Finished, Plan, PodRef};
use attempt::Attempt;
use finish::Evidence;
use name::PodNames;
use scale::{MAX_PER_PASS, Scale};
use spec::Spec;
use status::Picture;
use tally::Tally;

/// What should happen next to one job.
pub fn decide(observed: &Observed) -> Plan {
    let names = PodNames::of(&observed.job);
    let mut tally = tally::tally(&observed.job, &observed.pods, &names, observed.now);
    if let Some(finished_at) = status::finished_at(&observed.job.status) {
        return after_the_end(observed, &tally, finished_at);
    }
    let spec = match Spec::read(&observed.job.spec) {
        Ok(spec) => spec,
        Err(message) => return invalid(observed, message),
    };
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
    for attempt in &scale.stop {
        tally.ledger.stop(attempt.id.index, attempt.id.attempt);
    }
    // The job fails: what still runs is deleted, and counted as failed when it is seen to end, as batch/v1 Job does.
    // That it fails is written first: a pod that was deleted for it must find the same verdict afterwards.
    let condemned: &[Attempt<'_>] = if verdict.is_some() { &tally.current } else { &[] };

    let picture = Picture { observed, spec: &spec, tally: &tally, scale: &scale, verdict: verdict.as_ref(), blocked };
    let status = status::project(&picture);

    let deleted: Vec<&Attempt<'_>> = tally.strays.iter().chain(condemned).chain(&scale.stop).collect();
    let can_wait = scale.start.is_empty()
        && deleted.is_empty()
        && tally.releasable.is_empty()
        && status::only_counts_differ(&observed.job.status, &status);

    let mut plan = Plan { reasons: reasons::reasons(&picture, &status), can_wait, ..Plan::default() };
    plan.counted = counted(&tally, &observed.job.status, &status);
    plan.actions.extend(scale.start.iter().map(|&id| Action::CreatePod(id)));
    plan.actions.extend(write_if_changed(observed, status));
    clear_up(&mut plan, observed, &tally.releasable, &deleted);

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

/// Lets pods go and deletes pods, as many as one pass does; what is left comes in the next one, behind the other jobs.
fn clear_up(plan: &mut Plan, observed: &Observed, releasable: &[PodRef], deleted: &[&Attempt<'_>]) {
    let (released, deletes) = (releasable.iter().take(MAX_PER_PASS), deleted.iter().take(MAX_PER_PASS));
    plan.actions.extend(released.cloned().map(Action::ReleasePod));
    plan.actions.extend(deletes.map(|attempt| Action::DeletePod(attempt.pod.into())));
    if releasable.len() > MAX_PER_PASS || deleted.len() > MAX_PER_PASS {
        plan.wake(Some(observed.now));
    }
}

/// A finished job: its status stands. What is left of its pods is cleared up, and when its time comes it goes itself.
fn after_the_end(observed: &Observed, tally: &Tally<'_>, finished_at: jiff::Timestamp) -> Plan {
    let mut plan = Plan::default();
    let expiry = Spec::read(&observed.job.spec).ok().and_then(|spec| finish::expiry(&spec, finished_at));
    let is_expired = expiry.is_some_and(|expiry| expiry <= observed.now) && !observed.job.is_deleted;
    if !is_expired {
        plan.actions.extend(write_if_changed(observed, status::carried_over(&observed.job)));
        plan.wake(expiry.filter(|_| !observed.job.is_deleted));
    }
    let left: Vec<&Attempt<'_>> = tally.strays.iter().chain(&tally.current).collect();
    clear_up(&mut plan, observed, &tally.releasable, &left);
    if is_expired {
        plan.actions.push(Action::DeleteJob);
    }
    plan
}

/// Nothing is done about it, but when it is deleted its pods must not stay because of us.
fn invalid(observed: &Observed, message: String) -> Plan {
    let mut plan = only_status(observed, status::invalid(&observed.job, message, observed.now));
    if observed.job.is_deleted {
        plan.actions.extend(release_all(observed));
    }
    plan
}

/// The job is being deleted: what has ended is counted, every pod is let go, and none is created or deleted: whether
/// the pods go too is for the garbage collector, which knows how the deletion was asked for.
fn let_go(observed: &Observed, spec: &Spec, tally: Tally<'_>) -> Plan {
    let scale = Scale::default();
    let picture = Picture { observed, spec, tally: &tally, scale: &scale, verdict: None, blocked: None };
    let status = status::project(&picture);
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

fn write_if_changed(observed: &Observed, status: BatchJobStatus) -> Option<Action> {
    (status != observed.job.status).then(|| Action::WriteStatus(Box::new(status)))
}

/// What stands in the way of creates now.
fn obstacle(observed: &Observed) -> Option<&Obstacle> {
    observed.obstacle.as_ref().filter(|obstacle| match obstacle {
        Obstacle::TemplateRejected { generation, .. } => *generation == observed.job.generation,
        Obstacle::Refused { retry_at, .. } | Obstacle::Unanswered { retry_at } => *retry_at > observed.now,
    })
}

fn counted(tally: &Tally<'_>, before: &BatchJobStatus, after: &BatchJobStatus) -> Counted {
    let finished = match (status::finished_at(before), status::finished_at(after)) {
        (None, Some(_)) => Some(Finished {
            succeeded: after.phase == Some(batchjob_crd::Phase::Succeeded),
            reason: after.reason.clone().unwrap_or_default(),
        }),
        _ => None,
    };
    Counted { succeeded: tally.succeeded.len() as u32, failed: tally.failed.len() as u32, finished }
}

impl Job {
    /// What every pod of the job carries, and `kubectl scale` and autoscalers look for.
    pub fn selector(&self) -> String {
        format!("{}={}", batchjob_crd::keys::CONTROLLER_UID, self.uid)
    }
}
