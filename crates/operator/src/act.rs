//! Carries a plan out, and adds nothing: one file for each kind of thing that is written.
//!
//! The actions happen in the plan's order. Neighbours of the same kind go together, a few at a time; the first group that
//! fails ends the plan, unless it adopts, and the next pass decides on what is then so. The answer to every write goes into
//! the caches at once, so the next pass knows of it.

mod adopt;
mod create;
pub mod cron;
mod pods;
mod status;

use std::sync::Arc;

use batchjob_decide::observed::Job;
use batchjob_decide::plan::AttemptId;
use batchjob_decide::{Action, Plan};
use futures::future::join_all;
use tokio::sync::Semaphore;

use crate::error::{Error, WriteError};
use crate::observe::crons::Crons;
use crate::observe::job::JobRecord;
use crate::observe::jobs::Jobs;
use crate::observe::pods::Pods;
use crate::writer::Writer;

/// How many writes of one job may be under way at the same time: a part of all (`--max-requests-in-flight`).
const AT_ONCE: usize = 32;

/// What acting needs: the way out, and the caches that learn what was written.
#[derive(Clone)]
pub struct Actor {
    pub writer: Writer,
    pub jobs: Arc<Jobs>,
    pub pods: Arc<Pods>,
    pub crons: Arc<Crons>,
}

/// What came of a plan.
#[derive(Debug, Default)]
pub struct Outcome {
    /// How many pods were created, even if the plan failed later on.
    pub n_created: usize,
    /// Attempts that were to be created, and may have been.
    pub unanswered: Vec<AttemptId>,
    pub n_released: usize,
    /// The ledger is written, so what the plan counts is counted, even if the plan failed later on.
    pub is_counted: bool,
    /// Not all of it was tried, because that has failed before.
    pub is_partial: bool,
    pub error: Option<Error>,
}

impl Actor {
    /// `n_failures` of the job's last plans were not carried out, one after the other.
    pub async fn act(&self, record: JobRecord, job: &Arc<Job>, plan: &Plan, n_failures: u32) -> Outcome {
        let mut outcome = Outcome::default();
        outcome.error = self.act_in_order(record, job, &plan.actions, n_failures, &mut outcome).await.err();
        outcome
    }

    async fn act_in_order(
        &self,
        mut record: JobRecord,
        job: &Arc<Job>,
        actions: &[Action],
        n_failures: u32,
        outcome: &mut Outcome,
    ) -> Result<(), Error> {
        let mut adopted = Ok(());
        for group in actions.chunk_by(|a, b| std::mem::discriminant(a) == std::mem::discriminant(b)) {
            let tried = some_of(group, n_failures);
            outcome.is_partial |= tried.len() < group.len() && tried[0].pod().is_some();
            let pods = tried.iter().filter_map(Action::pod);
            match &group[0] {
                Action::CreatePod(_) => {
                    let starts = group.iter().filter_map(|action| match action {
                        Action::CreatePod(start) => Some(*start),
                        _ => None,
                    });
                    self.confirm(&record).await?;
                    self.create_pods(job, &starts.collect::<Vec<_>>(), outcome).await?;
                }
                // Nothing depends on it: what has ended meanwhile is counted all the same.
                Action::AdoptPod(_) => adopted = self.adopt_pods(&record, job, pods).await,
                Action::WriteStatus(status) => {
                    record = self.write_status(&record, job, status).await?;
                    outcome.is_counted = true;
                }
                Action::ReleasePod(_) => {
                    outcome.n_released += self.release_pods(&job.namespace, job.door, pods).await?;
                }
                Action::DisownPod(_) => self.disown_pods(job, pods).await?,
                Action::DeletePod(_) => self.delete_pods(&job.namespace, pods).await?,
                Action::DeleteJob => match self.writer.delete_job(&record).await {
                    Err(error) if !error.is_not_found() => {
                        return Err(self.stale(&record, "delete the job", error).await);
                    }
                    _ => {}
                },
            }
        }
        adopted
    }

    /// Before the first pods of a job that we create in our life: our caches may be behind what we, or another one of us,
    /// had written before it. A pod whose attempt is counted may be gone, and its name free; the ledger knows. From
    /// then on nobody but us writes the ledger, and the answers to our writes keep it new.
    async fn confirm(&self, record: &JobRecord) -> Result<(), Error> {
        if self.jobs.is_confirmed(&record.uid) {
            return Ok(());
        }
        let what = || format!("read {} before it creates pods", record.key);
        let found = self.reread(record).await.map_err(|error| Error::write(what(), error))?;
        if found.is_some_and(|found| found.version == record.version) { Ok(()) } else { Err(Error::changed(what())) }
    }

    /// After a conflict the cache is behind: a fresh read ends the race sooner than the watch does.
    async fn stale(&self, record: &JobRecord, what: &str, error: WriteError) -> Error {
        // 422: the uid in a patch is not that of the job, so ours is gone.
        if error.is_conflict() || error.is_not_found() || error.is_invalid() {
            // If it cannot be read, the watch will tell.
            let _ = self.reread(record).await;
        }
        Error::write(format!("{what} of {}", record.key), error)
    }

    /// The job as the API server has it, which goes into the cache. None: it is gone, or no longer for us; one of that name
    /// that was made since is another one, whoever runs it, and the watch tells of it.
    async fn reread(&self, record: &JobRecord) -> Result<Option<JobRecord>, WriteError> {
        let found = match self.writer.job(&record.key).await {
            Ok(found) => found.record().filter(|found| found.uid == record.uid),
            Err(error) if error.is_not_found() => None,
            Err(error) => return Err(error),
        };
        match &found {
            Some(found) => self.jobs.wrote(found.clone()),
            None => self.jobs.is_gone(&record.key, &record.uid),
        }
        Ok(found)
    }
}

/// What is tried of a group: all of it, unless that has failed again and again; then one, another one each time. A policy
/// that lets no pod of a job of 500 go costs one request in half a minute, not 500; and those that it allows are found.
fn some_of(group: &[Action], n_failures: u32) -> &[Action] {
    const AT_ALL_EVENTS: u32 = 3;
    match n_failures {
        0..=AT_ALL_EVENTS => group,
        _ => {
            let one = n_failures as usize % group.len();
            &group[one..=one]
        }
    }
}

/// Does some things at the same time, as many as leave room for other jobs.
async fn at_once<T>(writes: impl Iterator<Item = impl Future<Output = T>>) -> Vec<T> {
    let turns = Semaphore::new(AT_ONCE);
    let turns = &turns;
    join_all(writes.map(|write| async move {
        // The semaphore is never closed.
        let _turn = turns.acquire().await;
        write.await
    }))
    .await
}

#[cfg(test)]
mod tests {
    use batchjob_decide::plan::PodRef;

    use super::*;

    #[test]
    fn of_many_that_fail_again_and_again_one_is_tried_and_each_in_its_turn() {
        let release = |n: usize| {
            let name: Box<str> = n.to_string().into();
            Action::ReleasePod(PodRef { name: name.clone(), uid: name.clone(), resource_version: name })
        };
        let group: Vec<Action> = (0..3).map(release).collect();
        let tried = |n_failures| -> Vec<&str> {
            some_of(&group, n_failures).iter().filter_map(|action| Some(&*action.pod()?.name)).collect()
        };
        assert_eq!(tried(0), ["0", "1", "2"]);
        assert_eq!(tried(3), ["0", "1", "2"]);
        assert_eq!([tried(4), tried(5), tried(6), tried(7)], [["1"], ["2"], ["0"], ["1"]]);
    }
}
