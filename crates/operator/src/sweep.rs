//! Lets go the pods that no job will ever count: those whose job is gone, and those that nobody owns any more.
//!
//! A pod that somebody deletes stays until our finalizer is off it. When its job is deleted, the job can no longer say
//! so; so the pods are looked through when a job goes, and now and then. Before a pod is let go the API server itself
//! is asked whether the job is gone: the cache of the jobs may be behind that of the pods.
//!
//! And brings back those that somebody has taken out of our sight, by taking off the label that we watch by.

use std::sync::Arc;
use std::time::Duration;

use batchjob_decide::plan::PodRef;
use tokio::sync::{Notify, mpsc};
use tokio::time::sleep;

use crate::act::Actor;
use crate::observe::pods::Held;
use crate::observe::wire::PodRecord;

/// Even if nobody calls.
const PERIOD: Duration = Duration::from_secs(30);

/// The sweep.
pub struct Sweep {
    pub actor: Actor,
    pub call: Arc<Notify>,
    pub who_left: mpsc::UnboundedReceiver<PodRecord>,
}

impl Sweep {
    pub async fn run(mut self) {
        loop {
            tokio::select! {
                () = self.call.notified() => {}
                () = sleep(PERIOD) => {}
                Some(record) = self.who_left.recv() => {
                    self.bring_back(&record).await;
                    continue;
                }
            }
            let jobs = &self.actor.jobs;
            for held in self.actor.pods.held_for_others(|uid| jobs.key_of(uid).is_some()) {
                self.sweep(held).await;
            }
        }
    }

    async fn bring_back(&self, record: &PodRecord) {
        let pod = &record.pod;
        // The name says which attempt it is; a pod with another name is none of ours.
        let Some(attempt) = pod.name.rsplit('-').nth(1).filter(|attempt| attempt.parse::<u32>().is_ok()) else {
            return;
        };
        match self.actor.writer.label_pod(&record.namespace, &pod.name, &pod.uid, attempt).await {
            Ok(()) => tracing::info!(pod = %pod.name, namespace = %record.namespace, "put back the label we watch by"),
            Err(error) => tracing::warn!(pod = %pod.name, %error, "failed to put back the label we watch by"),
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
