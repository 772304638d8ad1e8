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
        let found = match self.writer.job(&record.key).await {
            Ok(found) => found.record(),
            Err(error) if error.is_not_found() => None,
            Err(error) => return Err(Error::write(format!("read {} before it adopts pods", record.key), error)),
        };
        let Some(found) = found.filter(|found| found.uid == record.uid) else {
            self.jobs.is_gone(&record.key, &record.uid);
            return Ok(());
        };
        let is_deleted = found.is_deleted;
        self.jobs.wrote(found);
        if is_deleted {
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
