//! Writes a status: the ledger with its projection, in one write, on the state that it was decided on.

use batchjob_crd::BatchJobStatus;
use batchjob_decide::observed::Job;

use super::Actor;
use crate::error::Error;
use crate::observe::job::JobRecord;

impl Actor {
    /// Answers with the job as it is after the write.
    pub(super) async fn write_status(
        &self,
        record: &JobRecord,
        job: &Job,
        status: &BatchJobStatus,
    ) -> Result<JobRecord, Error> {
        match self.writer.write_status(record, job, status).await {
            Ok(written) => {
                self.jobs.wrote(written.clone());
                Ok(written)
            }
            Err(error) => Err(self.stale(record, "write the status", error).await),
        }
    }
}
