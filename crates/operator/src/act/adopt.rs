//! Becomes the owner of pods that have lost theirs, and gives up those that say they are no longer the job's: `ClaimPods` in
//! `pkg/controller/controller_ref_manager.go`.

use batchjob_decide::observed::Job;
use batchjob_decide::plan::PodRef;

use super::{Actor, at_once};
use crate::error::Error;
use crate::observe::job::JobRecord;

impl Actor {
    /// If the job is still there: a pod that is given to a job that is being deleted would go with it, or hold it up, and
    /// the cache may be behind.
    pub(super) async fn adopt_pods<'a>(
        &self,
        record: &JobRecord,
        job: &Job,
        pods: impl Iterator<Item = &'a PodRef>,
    ) -> Result<(), Error> {
        let what = || format!("read {} before it adopts pods", record.key);
        let found = self.reread(record).await.map_err(|error| Error::write(what(), error))?;
        if found.is_none_or(|found| found.is_deleted) {
            return Ok(());
        }
        let adopted = at_once(pods.map(async |pod| {
            let answer = self.writer.adopt_pod(job, pod).await;
            self.learn(&job.namespace, pod, "adopt", answer).await
        }));
        adopted.await.into_iter().collect()
    }

    pub(super) async fn disown_pods<'a>(&self, job: &Job, pods: impl Iterator<Item = &'a PodRef>) -> Result<(), Error> {
        let disowned = at_once(pods.map(async |pod| {
            let answer = self.writer.disown_pod(job, pod).await;
            self.learn(&job.namespace, pod, "give up", answer).await
        }));
        disowned.await.into_iter().collect()
    }
}
