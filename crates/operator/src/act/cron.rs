//! Carries out the plan of a BatchCronJob, and adds nothing.

use std::collections::BTreeSet;
use std::sync::Arc;

use batchjob_decide::cron::observed::CronJob;
use batchjob_decide::cron::plan::{Action, Plan, RunRef, Start};
use batchjob_decide::cron::run;
use batchjob_decide::observed::Door;
use jiff::Timestamp;

use super::{Actor, at_once};
use crate::error::{Error, WriteError};
use crate::observe::cron::CronRecord;
use crate::observe::job::{JobKey, JobRecord};

/// What came of it.
#[derive(Debug, Default)]
pub struct CronOutcome {
    /// When each slot whose run was created was to start, and when the run was created.
    pub created: Vec<(Timestamp, Timestamp)>,
    pub error: Option<CronError>,
}

/// Why the rest was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum CronError {
    #[error(transparent)]
    Write(Error),
    #[error("failed to create run {name}: {source}")]
    Create { name: String, source: WriteError },
    #[error("failed to create run {0}: there is a BatchJob of that name already, and it is not this BatchCronJob's")]
    NameTaken(String),
}

impl Actor {
    /// `unanswered` are runs that may be there although nobody has told of them.
    pub async fn act_on_cron(
        &self,
        record: &CronRecord,
        cron: &Arc<CronJob>,
        plan: &Plan,
        unanswered: &BTreeSet<String>,
    ) -> CronOutcome {
        let mut outcome = CronOutcome::default();
        outcome.error = self.act_on_cron_in_order(record, cron, plan, unanswered, &mut outcome).await.err();
        outcome
    }

    async fn act_on_cron_in_order(
        &self,
        record: &CronRecord,
        cron: &Arc<CronJob>,
        plan: &Plan,
        unanswered: &BTreeSet<String>,
        outcome: &mut CronOutcome,
    ) -> Result<(), CronError> {
        let creates = plan.starts().next().is_some();
        if creates {
            self.confirm_cron(record).await?;
        }
        let unanswered = unanswered.iter().filter(|_| creates);
        self.look_for_runs(record, plan.left_out.iter().chain(unanswered)).await?;
        for group in plan.actions.chunk_by(|a, b| std::mem::discriminant(a) == std::mem::discriminant(b)) {
            match &group[0] {
                Action::DeleteRun(_) => {
                    let runs = group.iter().filter_map(|action| match action {
                        Action::DeleteRun(run) => Some(run),
                        _ => None,
                    });
                    let deleted = at_once(runs.map(|run| self.delete_run(record, run))).await;
                    deleted.into_iter().collect::<Result<(), Error>>().map_err(CronError::Write)?;
                }
                Action::CreateRun(_) => {
                    let _creating = self.jobs.creating();
                    for start in plan.starts() {
                        outcome.created.extend(self.create_run(record, cron, start).await?);
                    }
                }
                Action::WriteStatus(status) => match self.writer.write_cron_status(record, status).await {
                    Ok(written) => self.crons.wrote(written),
                    Err(error) => return Err(self.stale_cron(record, error).await),
                },
            }
        }
        Ok(())
    }

    /// Before a slot is left out for good, and before others start: a run that is not seen may be there all the same, because the
    /// answer to its create was lost, or because an operator before this one has created it, and our list is older.
    async fn look_for_runs(
        &self,
        record: &CronRecord,
        names: impl IntoIterator<Item = &String>,
    ) -> Result<(), CronError> {
        let key = |name: &String| JobKey {
            door: Door::BatchJob,
            namespace: record.key.namespace.clone(),
            name: name.as_str().into(),
        };
        let unseen: Vec<JobKey> = names.into_iter().map(key).filter(|key| self.jobs.get(key).is_none()).collect();
        let what = || format!("look for the runs of {}", record.key);
        let found = at_once(unseen.iter().map(|key| self.run_of(record, key))).await;
        let found: Result<Vec<bool>, WriteError> = found.into_iter().collect();
        let is_found = found.map_err(|error| CronError::Write(Error::write(what(), error)))?.contains(&true);
        if is_found { Err(CronError::Write(Error::changed(what()))) } else { Ok(()) }
    }

    /// Whether there is a run of that name, of which we know from now on.
    async fn run_of(&self, cron: &CronRecord, key: &JobKey) -> Result<bool, WriteError> {
        let found = match self.writer.job(key).await {
            Ok(found) => found.record(),
            Err(error) if error.is_not_found() => None,
            Err(error) => return Err(error),
        };
        let is_its = |run: &JobRecord| run.run.as_ref().is_some_and(|run| run.cron_uid == cron.uid);
        let found = found.filter(is_its);
        let is_found = found.is_some();
        found.into_iter().for_each(|found| self.jobs.created(found));
        Ok(is_found)
    }

    /// Answers with the slot, and when its run was created; None if it was there already.
    async fn create_run(
        &self,
        record: &CronRecord,
        cron: &CronJob,
        start: &Start,
    ) -> Result<Option<(Timestamp, Timestamp)>, CronError> {
        let failed = |source| CronError::Create { name: start.name.clone(), source };
        match self.writer.create_run(&run::build(cron, start)).await {
            Ok(record) => {
                let created = record.as_ref().and_then(|record| record.run.as_ref()).map(|run| run.created);
                record.into_iter().for_each(|record| self.jobs.created(record));
                Ok(created.map(|created| (start.time, created)).filter(|_| !start.is_manual))
            }
            // It was created before, and the answer was lost; or it is somebody else's.
            Err(error) if error.is_already_there() => {
                let name = start.name.as_str().into();
                let key = JobKey { door: Door::BatchJob, namespace: record.key.namespace.clone(), name };
                match self.run_of(record, &key).await.map_err(failed)? {
                    true => Ok(None),
                    false => Err(CronError::NameTaken(start.name.clone())),
                }
            }
            Err(error) => Err(failed(error)),
        }
    }

    async fn delete_run(&self, record: &CronRecord, run: &RunRef) -> Result<(), Error> {
        let namespace = &record.key.namespace;
        let key = JobKey { door: Door::BatchJob, namespace: namespace.clone(), name: run.name.clone() };
        match self.writer.delete_run(namespace, run).await {
            // Whoever else holds it with a finalizer: the watch tells of it.
            Ok(()) => {}
            Err(error) if error.is_not_found() => self.jobs.is_gone(&key, &run.uid),
            Err(error) => {
                // It may be another one of that name by now.
                if error.is_conflict()
                    && let Some(known) = self.jobs.get(&key)
                {
                    // If it cannot be read, the watch will tell.
                    let _ = self.reread(&known).await;
                }
                return Err(Error::write(format!("delete run {key}"), error));
            }
        }
        Ok(())
    }

    /// Before the first runs that we create for it in our life: our caches may be behind what we, or another one of us, had
    /// written before it, and a run that is in the ledger may be gone, and its name free.
    async fn confirm_cron(&self, record: &CronRecord) -> Result<(), CronError> {
        if self.crons.is_confirmed(&record.uid) {
            return Ok(());
        }
        let what = || format!("read {} before it creates runs", record.key);
        let found = self.reread_cron(record).await.map_err(|error| CronError::Write(Error::write(what(), error)))?;
        match found.is_some_and(|found| found.version == record.version) {
            true => Ok(()),
            false => Err(CronError::Write(Error::changed(what()))),
        }
    }

    /// After a conflict the cache is behind: a fresh read ends the race sooner than the watch does.
    async fn stale_cron(&self, record: &CronRecord, error: WriteError) -> CronError {
        if error.is_conflict() || error.is_not_found() || error.is_invalid() {
            // If it cannot be read, the watch will tell.
            let _ = self.reread_cron(record).await;
        }
        CronError::Write(Error::write(format!("write the status of {}", record.key), error))
    }

    async fn reread_cron(&self, record: &CronRecord) -> Result<Option<CronRecord>, WriteError> {
        let found = match self.writer.cron(&record.key).await {
            Ok(found) => Some(found).filter(|found| found.uid == record.uid),
            Err(error) if error.is_not_found() => None,
            Err(error) => return Err(error),
        };
        match &found {
            Some(found) => self.crons.wrote(found.clone()),
            None => self.crons.is_gone(&record.key, &record.uid),
        }
        Ok(found)
    }
}
