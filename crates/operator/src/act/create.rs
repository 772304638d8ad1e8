//! Creates pods, with a slow start: 1, then 2, 4, 8 … at a time, and no more once one has failed.
//!
//! If the API server refuses one pod of a job, it most likely refuses them all: a job of a thousand pods in a namespace
//! without quota costs one request, not a thousand (`slowStartBatch` in `pkg/controller/job/job_controller.go`).

use std::sync::Arc;

use super::{Actor, Outcome, at_once};
use crate::error::{Error, WriteError};
use batchjob_decide::job::name::PodNames;
use batchjob_decide::job::pod;
use batchjob_decide::observed::Job;
use batchjob_decide::plan::{AttemptId, Start};

impl Actor {
    /// How many were created, and of which nobody knows, is in the outcome, whatever came after.
    pub(super) async fn create_pods(
        &self,
        job: &Arc<Job>,
        starts: &[Start],
        outcome: &mut Outcome,
    ) -> Result<(), Error> {
        let _creating = self.pods.creating();
        let mut rest = starts;
        let mut batch_size = 1;
        while !rest.is_empty() {
            let (batch, later) = rest.split_at(batch_size.min(rest.len()));
            let results = at_once(batch.iter().map(|&start| self.create_pod(job, start))).await;
            outcome.n_created += results.iter().filter(|result| result.is_ok()).count();
            let is_unanswered = |result: &Result<(), Error>| matches!(result, Err(Error::Unanswered { .. }));
            let unanswered = batch.iter().zip(&results).filter(|(_, result)| is_unanswered(result));
            outcome.unanswered.extend(unanswered.map(|(start, _)| start.id));
            results.into_iter().collect::<Result<(), Error>>()?;
            rest = later;
            batch_size *= 2;
        }
        Ok(())
    }

    /// Looks for the pods of creates that were not answered: some may be there, and no event has told of them yet. Answers
    /// with how many were found.
    pub async fn look_for(&self, job: &Job, ids: &[AttemptId]) -> Result<usize, Error> {
        let results = at_once(ids.iter().map(|&id| self.look_for_one(job, id))).await;
        let found: Result<Vec<bool>, WriteError> = results.into_iter().collect();
        let what = || format!("look for the pods of {}/{} whose creates were not answered", job.namespace, job.name);
        Ok(found.map_err(|error| Error::write(what(), error))?.into_iter().filter(|is_found| *is_found).count())
    }

    async fn look_for_one(&self, job: &Job, id: AttemptId) -> Result<bool, WriteError> {
        match self.learn_of(job, id).await {
            Err(error) if error.is_not_found() => Ok(false),
            answer => answer,
        }
    }

    async fn create_pod(&self, job: &Job, start: Start) -> Result<(), Error> {
        let id = start.id;
        match self.writer.create_pod(&pod::build(job, start)).await {
            Ok(record) => {
                self.pods.created(record);
                Ok(())
            }
            // It was created before, and the answer was lost; or it is somebody else's.
            Err(error) if error.is_already_there() => self.find_pod(job, id).await,
            Err(error) => {
                let pod = format!("{}/{}", job.namespace, PodNames::of(job).write(id));
                let message = error.status().map(|status| status.message.clone()).unwrap_or_default();
                Err(match error.refusal() {
                    Some(refusal) => Error::Refused { pod, refusal, message },
                    None => Error::Unanswered { pod, class: error.class(), source: error },
                })
            }
        }
    }

    async fn find_pod(&self, job: &Job, id: AttemptId) -> Result<(), Error> {
        let pod = || format!("{}/{}", job.namespace, PodNames::of(job).write(id));
        match self.learn_of(job, id).await {
            Ok(true) => Ok(()),
            Ok(false) => Err(Error::NameTaken { pod: pod(), id }),
            Err(source) => Err(Error::Unanswered { pod: pod(), class: source.class(), source }),
        }
    }

    /// Reads the pod of that name, and knows it from now on; false if it is not the job's. One that has lost its owner is
    /// adopted by the next pass. Nor need it carry the label that we watch by: somebody may have taken it off while nobody
    /// watched.
    async fn learn_of(&self, job: &Job, id: AttemptId) -> Result<bool, WriteError> {
        let record = self.writer.pod(&job.namespace, &PodNames::of(job).write(id)).await?;
        let is_its = record.place().uid() == job.uid;
        if is_its {
            self.pods.created(self.writer.label_pod(&record, &id.attempt.to_string()).await?);
        }
        Ok(is_its)
    }
}
