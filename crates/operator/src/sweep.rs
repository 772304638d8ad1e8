//! Lets go the pods that no job will ever count: those whose job is gone, and those that nobody owns any more.
//!
//! A pod that somebody deletes stays until our finalizer is off it. When its job is deleted, the job can no longer say
//! so; so the pods are looked through when a job goes, and now and then. Before a pod is let go the API server itself
//! is asked whether the job is gone: the cache of the jobs may be behind that of the pods.
//!
//! And brings back those that somebody has taken out of our sight, by taking off the label that we watch by.

use std::sync::Arc;
use std::time::Duration;

use batchjob_decide::job::status::finished_at;
use batchjob_decide::observed::Door;
use batchjob_decide::plan::PodRef;
use tokio::sync::Notify;
use tokio::time::sleep;

use crate::act::Actor;
use crate::error::Class;
use crate::observe::job::{Content, JobKey};
use crate::observe::pods::Held;
use crate::observe::wire::PodRecord;

/// Even if nobody calls.
const PERIOD: Duration = Duration::from_secs(30);
/// How soon it looks again after the API server was away or too busy.
const RETRY: Duration = Duration::from_secs(3);

/// The sweep.
pub struct Sweep {
    pub actor: Actor,
    pub call: Arc<Notify>,
    /// Whether the pods of batch/v1 Jobs are any business of ours.
    pub has_managed_jobs: bool,
}

impl Sweep {
    /// Never ends.
    pub async fn run(self) {
        let mut pause = PERIOD;
        loop {
            tokio::select! {
                biased;
                () = self.call.notified() => {}
                () = sleep(pause) => {}
            }
            pause = PERIOD;
            let outage = &self.actor.writer.outage;
            for record in self.actor.pods.who_left() {
                outage.turn().await;
                self.look_after(record).await;
            }
            let jobs = &self.actor.jobs;
            let held = self.actor.pods.held_for_others(|uid| jobs.key_of(uid).is_some(), |pod| self.is_wanted(pod));
            for held in held {
                outage.turn().await;
                if matches!(self.sweep(held).await, Some(Class::Unavailable | Class::Busy { .. })) {
                    pause = RETRY;
                }
            }
        }
    }

    /// Whether the job that an orphan's label names will adopt it, or has yet to see that it should not.
    fn is_wanted(&self, orphan: &PodRecord) -> bool {
        let jobs = &self.actor.jobs;
        let record = jobs.key_of(orphan.place().uid()).and_then(|key| jobs.get(&key));
        record.is_some_and(|record| match &record.content {
            Content::Job(job) => {
                let is_adopting = !job.is_deleted && finished_at(&job.status).is_none();
                is_adopting && *job.namespace == *orphan.namespace && orphan.pod.deletion.is_none()
            }
            Content::Unreadable { .. } => false,
        })
    }

    /// A pod that we hold has left our sight. What was heard of it may be old: it may be that we have let it go ourselves.
    async fn look_after(&self, record: PodRecord) {
        let fresh = match self.actor.writer.pod(&record.namespace, &record.pod.name).await {
            Ok(fresh) if fresh.pod.uid == record.pod.uid => fresh,
            Ok(_) => return,
            Err(error) if error.is_not_found() => return,
            Err(error) => {
                tracing::warn!(pod = %record.pod.name, %error, "failed to look after a pod that lost its label");
                self.actor.pods.look_after_again(record);
                return;
            }
        };
        if self.actor.jobs.key_of(fresh.place().uid()).is_some() {
            self.bring_back(&fresh).await;
        } else if let Some(held) = Held::of(&fresh)
            && self.sweep(held).await.is_some()
        {
            // What is out of our sight nobody finds again.
            self.actor.pods.look_after_again(fresh);
        }
    }

    async fn bring_back(&self, record: &PodRecord) {
        let pod = &record.pod;
        // The name says which attempt it is; a pod with another name is none of ours.
        let Some(attempt) = pod.name.rsplit('-').nth(1).filter(|attempt| attempt.parse::<u32>().is_ok()) else {
            return;
        };
        if !pod.is_held {
            return;
        }
        match self.actor.writer.label_pod(record, attempt).await {
            Ok(labelled) => {
                tracing::info!(pod = %pod.name, namespace = %record.namespace, "put back the label we watch by");
                self.actor.pods.created(labelled);
            }
            Err(error) => {
                tracing::warn!(pod = %pod.name, %error, "failed to put back the label we watch by");
                self.actor.pods.look_after_again(record.clone());
            }
        }
    }

    /// Answers with why it came to nothing.
    async fn sweep(&self, held: Held) -> Option<Class> {
        let Held { namespace, owner, holder, pods } = held;
        if holder == Door::ManagedJob && !self.has_managed_jobs {
            return None;
        }
        match &owner {
            // The job that a label names may be run by anybody, and the finalizer is that of all Jobs. Kubernetes' own
            // controller takes it off the pods that nobody owns (`handleSingleOrphanPod`).
            None if holder == Door::ManagedJob => return None,
            None => {}
            // A pod whose job is there is for whoever runs the job.
            Some(owner) => {
                let key =
                    JobKey { door: holder, namespace: namespace.as_ref().into(), name: owner.name.as_ref().into() };
                match self.actor.writer.job(&key).await {
                    Ok(job) if *job.uid() == *owner.uid => return None,
                    Ok(_) => {}
                    Err(error) if error.is_not_found() => {}
                    Err(error) => {
                        tracing::warn!(namespace, job = owner.name, %error, "failed to ask whether a job is gone");
                        return Some(error.class());
                    }
                }
            }
        }
        let pods: Vec<PodRef> = pods.iter().map(|pod| PodRef::from(&**pod)).collect();
        match self.actor.release_pods(&namespace, holder, pods.iter()).await {
            Ok(n_released) => {
                let job = owner.as_ref().map_or("nobody", |owner| &owner.name);
                tracing::info!(namespace, job, n_released, "let go the pods of a job that is gone");
                None
            }
            Err(error) => {
                tracing::warn!(namespace, %error, "failed to let go the pods of a job that is gone");
                error.class()
            }
        }
    }
}
