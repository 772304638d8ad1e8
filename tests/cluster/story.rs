//! One test's namespace, its BatchJobs and their pods, in the words that a story is told in.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use batchjob_crd::{BatchJob, BatchJobStatus, condition, keys};
use batchjob_tests::support::{Kubectl, Namespace, wait_for};
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::Api;
use kube::api::{ListParams, PostParams};
use serde_json::{Value, json};

use crate::installed::Installed;

/// What a test works with.
pub struct Story<'a> {
    pub installed: &'a Installed,
    pub jobs: Api<BatchJob>,
    pub pods: Api<Pod>,
    pub kubectl: Kubectl,
}

/// Tells a story in a namespace of its own. When it goes wrong everything there is printed.
pub async fn tell(installed: &Installed, name: &str, story: impl AsyncFnOnce(&Story<'_>) -> Result<()>) -> Result<()> {
    let namespace = Namespace::new(&installed.kubernetes, name).await?;
    let told = Story {
        installed,
        jobs: Api::namespaced(namespace.client.clone(), &namespace.name),
        pods: Api::namespaced(namespace.client.clone(), &namespace.name),
        kubectl: namespace.kubectl.clone(),
    };
    if let Err(error) = story(&told).await {
        eprintln!("--- the operator\n{}", installed.operator_log());
        // The namespace prints what is in it when it is dropped by a panic.
        panic!("{error:?}");
    }
    namespace.delete().await
}

impl Story<'_> {
    /// `kubectl apply` of a file in examples/.
    pub fn apply_example(&self, name: &str) -> Result<()> {
        let path = format!("{}/../examples/{name}.yaml", env!("CARGO_MANIFEST_DIR"));
        self.kubectl.run(&["apply", "-f", &path]).map(drop)
    }

    /// The name of the first run of a BatchCronJob, as soon as there is one.
    pub async fn run_of(&self, cron: &str) -> Result<String> {
        let of_cron = ListParams::default().labels(&format!("{}={cron}", keys::CRON_JOB_NAME));
        wait_for(&format!("a run of {cron}"), Duration::from_secs(60), async || {
            Ok(self.jobs.list(&of_cron).await?.items.into_iter().next().and_then(|run| run.metadata.name))
        })
        .await
    }

    pub async fn create(&self, name: &str, spec: Value) -> Result<()> {
        let job = json!({"apiVersion": "batchjob.dev/v1alpha1", "kind": "BatchJob", "metadata": {"name": name}, "spec": spec});
        let job: BatchJob = serde_json::from_value(job)?;
        self.jobs.create(&PostParams::default(), &job).await.with_context(|| format!("create {name}"))?;
        Ok(())
    }

    pub async fn status(&self, job: &str) -> Result<BatchJobStatus> {
        Ok(self.jobs.get(job).await?.status.unwrap_or_default())
    }

    /// Waits until the job is over, and wants it to be complete.
    pub async fn complete(&self, job: &str, limit: u64) -> Result<BatchJobStatus> {
        let status = self.finished(job, limit).await?;
        let complete = find(&status, condition::COMPLETE);
        ensure!(complete.is_some_and(|complete| complete.status == "True"), "{job} is not complete: {status:#?}");
        Ok(status)
    }

    /// Waits until the job is over, and wants it to have failed. The condition says why.
    pub async fn failed(&self, job: &str, limit: u64) -> Result<(BatchJobStatus, Condition)> {
        let status = self.finished(job, limit).await?;
        let failed = find(&status, condition::FAILED).filter(|failed| failed.status == "True").cloned();
        let failed = failed.with_context(|| format!("{job} has not failed: {status:#?}"))?;
        Ok((status, failed))
    }

    async fn finished(&self, job: &str, limit: u64) -> Result<BatchJobStatus> {
        self.until(&format!("{job} is over"), limit, async || {
            let status = self.status(job).await?;
            Ok(find(&status, condition::FINISHED).is_some().then_some(status))
        })
        .await
    }

    pub async fn until<T>(&self, what: &str, limit: u64, ask: impl AsyncFnMut() -> Result<Option<T>>) -> Result<T> {
        wait_for(what, Duration::from_secs(limit), ask).await
    }

    /// The job's pods by index and attempt.
    pub async fn attempts(&self, job: &str) -> Result<BTreeMap<(u32, u32), Pod>> {
        let pods = self.pods.list(&ListParams::default().labels(&format!("job-name={job}"))).await?;
        pods.items.into_iter().map(|pod| Ok((id(&pod)?, pod))).collect()
    }

    /// Waits until a pod of the job runs, and says its name.
    pub async fn running(&self, job: &str, attempt: u32) -> Result<String> {
        self.until(&format!("attempt {attempt} of {job} runs"), 60, async || {
            let attempts = self.attempts(job).await?;
            let pod = attempts.get(&(0, attempt)).filter(|pod| phase(pod) == "Running");
            Ok(pod.and_then(|pod| pod.metadata.name.clone()))
        })
        .await
    }

    /// `kubectl logs -l job-name=…`, line by line.
    pub fn logs(&self, job: &str) -> Result<Vec<String>> {
        let text = self.kubectl.run(&["logs", "--selector", &format!("job-name={job}"), "--tail", "-1"])?;
        Ok(text.lines().map(str::to_owned).collect())
    }
}

/// Index and attempt, from the labels.
pub fn id(pod: &Pod) -> Result<(u32, u32)> {
    let labels = pod.metadata.labels.as_ref().context("the pod has labels")?;
    let index = labels.get(keys::COMPLETION_INDEX).or_else(|| labels.get(keys::INDEX)).context("an index")?;
    let attempt = labels.get(keys::ATTEMPT).context("an attempt")?;
    Ok((index.parse()?, attempt.parse()?))
}

pub fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default()
}

/// How its first container stands.
pub fn container(pod: &Pod) -> Option<&ContainerStatus> {
    pod.status.as_ref()?.container_statuses.as_ref()?.first()
}

/// When it was created, in seconds since 1970.
pub fn created_at(pod: &Pod) -> Result<i64> {
    Ok(pod.metadata.creation_timestamp.as_ref().context("the pod has a creation time")?.0.as_second())
}

/// When its first container ended, in seconds since 1970.
pub fn ended_at(pod: &Pod) -> Result<i64> {
    let state = container(pod).and_then(|container| container.state.as_ref()?.terminated.as_ref());
    let finished = state.and_then(|state| state.finished_at.as_ref());
    Ok(finished.with_context(|| format!("the container has ended: {:#?}", pod.status))?.0.as_second())
}

pub fn find<'a>(status: &'a BatchJobStatus, type_: &str) -> Option<&'a Condition> {
    status.conditions.iter().find(|condition| condition.type_ == type_)
}

/// A spec with one container, `main`, that runs this shell script.
pub fn script(restart_policy: &str, script: &str) -> Value {
    json!({
        "template": {"spec": {
            "restartPolicy": restart_policy,
            "terminationGracePeriodSeconds": 2,
            "containers": [{
                "name": "main",
                "image": "busybox:1",
                "command": ["sh", "-c", script],
                // As in examples/retry.yaml.
                "env": [{
                    "name": "ATTEMPT",
                    "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['batchjob.dev/attempt']"}},
                }],
            }],
        }},
    })
}
