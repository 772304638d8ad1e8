//! Is a BatchJob taken and refused exactly as a Job is?
//!
//! `verdicts/upstream.yaml` has every case of upstream's own tests of what a Job may be and how it may change. Both
//! kinds are asked on the real API server: a Job has to be answered as upstream says, a BatchJob of the same spec as
//! the Job, or the case says why not. A refusal has to name the field.

mod table;

use anyhow::{Context, Result};
use batchjob_crd::BatchJob;
use batchjob_tests::support::Namespace;
use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::api::batch::v1::Job;
use kube::api::{Api, ApiResource, DeleteParams, DynamicObject, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use self::table::{Case, Said, Verdict, cases};
use crate::stage::{kubernetes, merged};

/// Requests that are under way together.
const TOGETHER: usize = 16;

#[tokio::test]
async fn a_job_is_answered_as_upstream_says() -> Result<()> {
    all_are_answered(ApiResource::erase::<Job>(&()), "job-verdicts", of_job).await
}

#[tokio::test]
async fn a_batchjob_is_answered_as_a_job_is() -> Result<()> {
    all_are_answered(ApiResource::erase::<BatchJob>(&()), "batchjob-verdicts", of_batch_job).await
}

/// One case as it is put to one of the two kinds.
struct Question<'a> {
    name: &'a str,
    manifest: Value,
    status: Option<Value>,
    then: Option<&'a Value>,
    verdict: &'a Verdict,
}

/// A Job that is changed belongs to nobody: Kubernetes' own controller must not write its status in between. A case
/// that is about that field keeps its own.
fn of_job(case: &Case) -> Question<'_> {
    let mut manifest = case.manifest.clone();
    if let Some(then) = &case.then
        && [&manifest, then].iter().all(|object| object["spec"].get("managedBy").is_none())
    {
        manifest["spec"]["managedBy"] = json!("example.com/nobody");
    }
    let (status, then) = (case.status.clone(), case.then.as_ref());
    Question { name: &case.name, manifest, status, then, verdict: &case.job }
}

/// A BatchJob's conditions are those of the API conventions, which require more.
fn of_batch_job(case: &Case) -> Question<'_> {
    let mut status = case.status.clone();
    let conditions = status.as_mut().and_then(|status| status.get_mut("conditions")?.as_array_mut());
    for condition in conditions.into_iter().flatten() {
        condition["lastTransitionTime"] = json!("2026-01-01T00:00:00Z");
        condition["reason"] = json!("Test");
        condition["message"] = json!("");
    }
    let (manifest, then) = (case.manifest.clone(), case.then.as_ref());
    Question { name: &case.name, manifest, status, then, verdict: &case.batch_job }
}

/// Asks all that the table asks, and panics with all that is answered otherwise than it says.
async fn all_are_answered(kind: ApiResource, test: &str, ask: fn(&Case) -> Question<'_>) -> Result<()> {
    let namespace = Namespace::new(kubernetes().await?, test).await?;
    let jobs: &Api<DynamicObject> = &Api::namespaced_with(namespace.client.clone(), &namespace.name, &kind);
    let (kind, cases) = (&kind, cases()?);
    let answers = cases.iter().map(ask).enumerate().map(async |(number, question)| {
        let said = question.answer(jobs, kind, number).await.with_context(|| question.name.to_owned())?;
        let Question { name, verdict, .. } = question;
        anyhow::Ok((!verdict.is(&said)).then(|| format!("{name}\n    to be {verdict}\n    was {said}")))
    });
    // Made before the stream: a closure that it calls could not borrow from the cases.
    let answers: Vec<_> = answers.collect();
    let wrong: Vec<Option<String>> = stream::iter(answers).buffered(TOGETHER).try_collect().await?;
    namespace.delete().await?;
    let wrong: Vec<String> = wrong.into_iter().flatten().collect();
    assert!(wrong.is_empty(), "{} of {} cases:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
    Ok(())
}

impl Question<'_> {
    /// What the API server says to what is judged. That alone is a dry run.
    async fn answer(&self, jobs: &Api<DynamicObject>, kind: &ApiResource, number: usize) -> Result<Said> {
        // Upstream's name, which some of its cases have in a label too.
        let name = if self.then.is_none() { "myjob".to_owned() } else { format!("myjob-{number}") };
        let object = json!({ "apiVersion": kind.api_version, "kind": kind.kind, "metadata": { "name": name } });
        let object = serde_json::from_value(merged(object, &self.manifest))?;
        let dry_run = self.then.is_none();
        let created = refusal(jobs.create(&PostParams { dry_run, ..PostParams::default() }, &object).await)?;
        let Some(then) = self.then else { return Ok(created.map_or(Said::Accepted, Said::Refused)) };
        if let Some(refused) = created {
            return Ok(Said::NotCreated(refused));
        }
        if let Some(status) = &self.status {
            let status = Patch::Merge(json!({ "status": status }));
            jobs.patch_status(&name, &PatchParams::default(), &status).await.context("write the status")?;
        }
        let dry_run = PatchParams { dry_run: true, ..PatchParams::default() };
        let changed = refusal(jobs.patch(&name, &dry_run, &Patch::Merge(then)).await)?;
        jobs.delete(&name, &DeleteParams::background()).await?;
        Ok(changed.map_or(Said::Accepted, Said::Refused))
    }
}

fn refusal(answer: kube::Result<DynamicObject>) -> Result<Option<String>> {
    match answer {
        Ok(_) => Ok(None),
        Err(kube::Error::Api(status)) if matches!(status.code, 400 | 422) => Ok(Some(status.message.clone())),
        Err(error) => Err(error.into()),
    }
}
