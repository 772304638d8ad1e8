//! Lets go the pods that no job will ever count: those whose job is gone, and those that nobody owns any more.
//!
//! A pod that somebody deletes stays until our finalizer is off it. When its job is deleted, the job can no longer say
//! so; so the pods are looked through when a job goes, and now and then. Before a pod is let go the API server itself
//! is asked whether the job is gone: the cache of the jobs may be behind that of the pods.

use std::sync::Arc;
use std::time::Duration;

use batchjob_decide::plan::PodRef;
use tokio::sync::Notify;
use tokio::time::timeout;

use crate::act::Actor;
use crate::observe::pods::Held;

/// Even if nobody calls.
const PERIOD: Duration = Duration::from_secs(30);

/// The sweep.
pub struct Sweep {
    pub actor: Actor,
    pub call: Arc<Notify>,
}

impl Sweep {
    pub async fn run(self) {
        loop {
            // Whether it was called or the time is over makes no difference.
            let _ = timeout(PERIOD, self.call.notified()).await;
            let jobs = &self.actor.jobs;
            for held in self.actor.pods.held_for_others(|uid| jobs.key_of(uid).is_some()) {
                self.sweep(held).await;
            }
        }
    }

    async fn sweep(&self, held: Held) {
        let Held { namespace, owner, pods } = held;
        if let Some(owner) = &owner {
            match self.actor.writer.job(&namespace, &owner.name).await {
                Ok(job) if *job.uid == *owner.uid => return,
                Ok(_) => {}
                Err(error) if error.is_not_found() => {}
                Err(error) => {
                    tracing::warn!(namespace, job = owner.name, %error, "failed to ask whether a job is gone");
                    return;
                }
            }
        }
        let pods: Vec<PodRef> = pods.iter().map(|pod| PodRef::from(&**pod)).collect();
        match self.actor.release_pods(&namespace, pods.iter()).await {
            Ok(n_released) => {
                let job = owner.as_ref().map_or("nobody", |owner| &owner.name);
                tracing::info!(namespace, job, n_released, "let go the pods of a job that is gone");
            }
            Err(error) => tracing::warn!(namespace, %error, "failed to let go the pods of a job that is gone"),
        }
    }
}
