//! A status as it comes back from the API server.

use batchjob_crd::BatchJobStatus;
use batchjob_decide::job::managed;
use batchjob_decide::observed::{Door, Job};

/// That of a managed Job goes through its own form, as on the wire; an error if it comes back as another.
pub(crate) fn stored(job: &Job, status: BatchJobStatus) -> Result<BatchJobStatus, String> {
    if job.door == Door::BatchJob {
        return Ok(status);
    }
    let (written, ledger) = managed::write(job, &status);
    let read = managed::read(&job.uid, &written, Some(&ledger)).status;
    if read == status { Ok(read) } else { Err(format!("written: {status:#?}\nread: {read:#?}")) }
}
