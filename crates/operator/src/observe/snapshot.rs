//! Cache → `Observed`: everything that one decision may look at, as values.

use batchjob_decide::Observed;
use jiff::Timestamp;

use super::job::{Content, JobKey, JobRecord};
use super::jobs::Jobs;
use super::pods::Pods;

/// What the caches know of one job.
#[derive(Debug)]
pub enum Snapshot {
    Job {
        record: JobRecord,
        observed: Observed,
    },
    /// Its JSON is not that of its kind.
    Unreadable {
        record: JobRecord,
        error: String,
    },
    Gone,
}

pub fn snapshot(jobs: &Jobs, pods: &Pods, key: &JobKey, now: Timestamp) -> Snapshot {
    let Some(record) = jobs.get(key) else { return Snapshot::Gone };
    let job = match &record.content {
        Content::Job(job) => job.clone(),
        Content::Unreadable { error } => {
            let error = error.to_string();
            return Snapshot::Unreadable { record, error };
        }
    };
    let (pods, orphans) = pods.with_orphans_of(&record.key.namespace, &record.uid);
    Snapshot::Job { observed: Observed { job, pods, orphans, obstacle: None, now }, record }
}
