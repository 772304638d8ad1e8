//! Writes a status: the ledger with its projection, in one write, on the state that it was decided on.

use batchjob_crd::BatchJobStatus;

use super::Actor;
use crate::error::Error;
use crate::observe::jobs::JobRecord;

impl Actor {
    /// Answers with the job as it is after the write.
    pub(super) async fn write_status(&self, record: &JobRecord, status: &BatchJobStatus) -> Result<JobRecord, Error> {
        match self.writer.write_status(record, status).await {
            Ok(written) => {
                self.jobs.wrote(written.clone());
                Ok(written)
            }
            Err(error) => Err(self.stale(record, "write the status", error).await),
        }
    }
}
