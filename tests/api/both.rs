//! One description, two doors: what a test says of a job is asked of a BatchJob and of a batch/v1 Job that the operator
//! runs, and every status that either of them ever had is held against the rules for the status of a Job.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result, ensure};
use batchjob_crd::{BatchJob, keys};
pub use batchjob_decide::observed::Door;
use batchjob_oracle::standing::{Standing, violations};
use batchjob_tests::support::Operator;
use futures::{StreamExt as _, pin_mut};
use k8s_openapi::api::batch::v1::Job;
use kube::api::{
    ApiResource, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams,
};
use kube::{Api, Resource as _, ResourceExt as _};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::stage::{Stage, expect, kubernetes, metric, template};

/// Makes two tests of `async fn NAME(stage: &Both) -> Result<()>`: `NAME::batch_job` and `NAME::managed_job`.
macro_rules! both_doors {
    ($name:ident) => {
        mod $name {
            use crate::both::{Both, Door};

            async fn run(door: Door) -> anyhow::Result<()> {
                let stage = Both::new(stringify!($name), door).await?;
                super::$name(&stage).await?;
                stage.check_history().await
            }

            #[tokio::test]
            async fn batch_job() -> anyhow::Result<()> {
                run(Door::BatchJob).await
            }

            #[tokio::test]
            async fn managed_job() -> anyhow::Result<()> {
                run(Door::ManagedJob).await
            }
        }
    };
}
pub(crate) use both_doors;

/// One test's namespace, for jobs of one door.
pub struct Both {
    pub door: Door,
    pub stage: Stage,
    pub jobs: Api<DynamicObject>,
    /// Every state of every job, in the order in which they came.
    history: Arc<Mutex<Vec<DynamicObject>>>,
    watch: JoinHandle<()>,
}

impl Drop for Both {
    fn drop(&mut self) {
        self.watch.abort();
    }
}

/// How many of a job's pods are so, or have ended so.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub active: i32,
    pub ready: i32,
    pub terminating: i32,
    pub succeeded: i32,
    pub failed: i32,
}

impl From<&Standing> for Counts {
    fn from(job: &Standing) -> Counts {
        let &Standing { active, ready, terminating, succeeded, failed, .. } = job;
        Counts { active, ready, terminating, succeeded, failed }
    }
}

impl Both {
    pub async fn new(test: &str, door: Door) -> Result<Both> {
        // A namespace's name ends at 63 characters, and its number comes after this.
        let test = &test[..test.len().min(50)];
        let name = match door {
            Door::BatchJob => format!("{test}-b"),
            Door::ManagedJob => format!("{test}-m"),
        };
        let stage = Stage::new(&name).await?;
        let resource = match door {
            Door::BatchJob => ApiResource::erase::<BatchJob>(&()),
            Door::ManagedJob => ApiResource::erase::<Job>(&()),
        };
        let jobs = Api::namespaced_with(stage.namespace.client.clone(), &stage.namespace.name, &resource);
        let history = Arc::new(Mutex::new(Vec::new()));
        let version = jobs.list(&ListParams::default()).await?.metadata.resource_version.context("a version")?;
        let watch = tokio::spawn(record(jobs.clone(), version, history.clone()));
        Ok(Both { door, stage, jobs, history, watch })
    }

    /// An operator for this namespace alone, which runs managed Jobs too.
    pub async fn operator(&self) -> Result<Operator> {
        let namespace = &self.stage.namespace.name;
        Operator::start(kubernetes().await?, &["--watch-namespace", namespace, "--managed-jobs", "true"]).await
    }

    /// A job of that spec; without a template it has one container.
    pub async fn create(&self, name: &str, spec: Value) -> Result<DynamicObject> {
        let mut whole = json!({ "template": template(json!({})) });
        let fields = whole.as_object_mut().context("an object")?;
        if self.door == Door::ManagedJob {
            fields.insert("managedBy".to_owned(), keys::MANAGED_BY.into());
        }
        fields.extend(spec.as_object().context("an object")?.clone());
        let job = self.object(json!({ "metadata": { "name": name }, "spec": whole }))?;
        Ok(self.jobs.create(&PostParams::default(), &job).await?)
    }

    /// The object with its kind.
    pub fn object(&self, mut json: Value) -> Result<DynamicObject> {
        let (version, kind) = match self.door {
            Door::BatchJob => (BatchJob::api_version(&()), BatchJob::kind(&())),
            Door::ManagedJob => (Job::api_version(&()), Job::kind(&())),
        };
        json["apiVersion"] = version.as_ref().into();
        json["kind"] = kind.as_ref().into();
        Ok(serde_json::from_value(json)?)
    }

    /// A merge patch of the whole object.
    pub async fn change(&self, name: &str, patch: Value) -> Result<DynamicObject> {
        Ok(self.jobs.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await?)
    }

    /// How the job stands.
    pub async fn standing(&self, name: &str) -> Result<Standing> {
        standing(self.door, &self.jobs.get(name).await?)
    }

    /// How the job stands, as soon as it is so.
    pub async fn until(&self, name: &str, what: &str, is_so: impl Fn(&Standing) -> bool) -> Standing {
        expect(&format!("job {name}: {what}"), async || Ok(Some(self.standing(name).await?).filter(|job| is_so(job))))
            .await
    }

    /// How the job stands, as soon as all five counts are these.
    pub async fn until_counts(&self, name: &str, counts: Counts) -> Standing {
        self.until(name, &format!("{counts:?}"), |job| Counts::from(job) == counts).await
    }

    /// How the job stands, as soon as it is over and no pod of it is held.
    pub async fn until_over(&self, name: &str) -> Standing {
        let job = self.until(name, "it is over", Standing::is_finished).await;
        self.stage.until_no_pod_is_held(name).await;
        job
    }

    /// Makes the operator look at the job again, though nothing of it has changed, and waits until it has.
    pub async fn look_again(&self, operator: &Operator, name: &str) -> Result<()> {
        const PASSES: &str = "job_controller_job_syncs_total";
        let before = metric(operator, PASSES, "").await?;
        self.change(name, json!({ "metadata": { "annotations": { "touched": before.to_string() } } })).await?;
        expect("the operator looks again", async || Ok((metric(operator, PASSES, "").await? > before).then_some(())))
            .await;
        Ok(())
    }

    /// As soon as there is an event about the job for that reason.
    pub async fn until_event(&self, name: &str, reason: &str) {
        let job = match self.door {
            Door::BatchJob => format!("batchjob/{name}"),
            Door::ManagedJob => format!("job/{name}"),
        };
        expect(&format!("an event {reason} about {job}"), async || {
            let reasons = ["events", "--for", &job, "-o", "jsonpath={.items[*].reason}"];
            let said = self.stage.kubectl(&reasons).await?;
            Ok(said.split_whitespace().any(|told| told == reason).then_some(()))
        })
        .await;
    }

    pub async fn delete(&self, name: &str, params: DeleteParams) -> Result<()> {
        self.jobs.delete(name, &params).await?;
        Ok(())
    }

    pub async fn until_gone(&self, name: &str) {
        expect(&format!("job {name} is gone"), async || Ok(self.jobs.get_opt(name).await?.is_none().then_some(())))
            .await;
    }

    /// Each state that any job of this namespace had keeps the rules, also beside the one before it.
    pub async fn check_history(&self) -> Result<()> {
        // The watch has seen all that was written before this object, once it has seen this object.
        let last = self.object(json!({ "metadata": { "name": "the-last-one" }, "spec": {
            "suspend": true, "managedBy": "example.com/nobody", "template": template(json!({})) } }))?;
        self.jobs.create(&PostParams::default(), &last).await?;
        let history = expect("the whole history", async || {
            let history = self.history.lock().unwrap_or_else(PoisonError::into_inner).clone();
            Ok(history.iter().any(|job| job.name_any() == "the-last-one").then_some(history))
        })
        .await;
        let mut before: HashMap<String, Standing> = HashMap::new();
        for job in &history {
            let after = standing(self.door, job)?;
            let broken = violations(before.get(&job.uid().context("a uid")?), &after);
            ensure!(broken.is_empty(), "{}: {broken:?}: {}", job.name_any(), serde_json::to_string(job)?);
            before.insert(job.uid().context("a uid")?, after);
        }
        Ok(())
    }
}

fn standing(door: Door, job: &DynamicObject) -> Result<Standing> {
    let json = serde_json::to_value(job)?;
    Ok(match door {
        Door::BatchJob => Standing::from(&serde_json::from_value::<BatchJob>(json)?),
        Door::ManagedJob => Standing::from(&serde_json::from_value::<Job>(json)?),
    })
}

/// Watches for as long as it is let.
async fn record(jobs: Api<DynamicObject>, mut version: String, history: Arc<Mutex<Vec<DynamicObject>>>) {
    loop {
        let Ok(events) = jobs.watch(&WatchParams::default(), &version).await else { continue };
        pin_mut!(events);
        while let Some(Ok(event)) = events.next().await {
            match event {
                WatchEvent::Added(job) | WatchEvent::Modified(job) => {
                    version = job.resource_version().unwrap_or_default();
                    history.lock().unwrap_or_else(PoisonError::into_inner).push(job);
                }
                WatchEvent::Deleted(job) => version = job.resource_version().unwrap_or_default(),
                WatchEvent::Bookmark(bookmark) => version = bookmark.metadata.resource_version,
                WatchEvent::Error(_) => break,
            }
        }
    }
}
