//! Plays the kubelet and the scheduler: says of a pod what they would say.
//!
//! Step by step (`bind`, `runs`, `succeeds` …) where a test tells the story of one pod, or by itself (`plays`) where
//! only the end of each pod matters.

use std::time::Duration;

use anyhow::Result;
use batchjob_tests::support::kubelet::{self, ago, condition, container};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

/// How often it looks at the pods: a pod is bound, runs and ends at three looks.
const LOOK: Duration = Duration::from_millis(40);

/// The kubelet of one namespace.
#[derive(Clone)]
pub struct Kubelet {
    pub pods: Api<Pod>,
}

/// How a pod ends that runs.
pub enum End {
    Success,
    /// It failed so long ago, as far as the kubelet knows: retry delays count from there.
    Failure {
        exit_code: i32,
        ago: Duration,
    },
    /// Only when it is deleted.
    Never,
}

/// A kubelet that plays by itself until this is dropped.
pub struct Playing(JoinHandle<()>);

impl Drop for Playing {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Kubelet {
    pub async fn bind(&self, pod: &Pod) -> Result<()> {
        kubelet::bind(&self.pods, name(pod)).await?;
        Ok(())
    }

    /// It has a node, runs and is ready.
    pub async fn runs(&self, pod: &Pod) -> Result<()> {
        let state = json!({ "running": { "startedAt": ago(Duration::ZERO) } });
        self.says(pod, "Running", &state, json!({})).await
    }

    pub async fn succeeds(&self, pod: &Pod) -> Result<()> {
        let state =
            json!({ "terminated": { "exitCode": 0, "reason": "Completed", "finishedAt": ago(Duration::ZERO) } });
        self.says(pod, "Succeeded", &state, json!({})).await
    }

    /// Answers with when it ended.
    pub async fn fails(&self, pod: &Pod, exit_code: i32, before: Duration) -> Result<Timestamp> {
        let ended = ago(before);
        let state = json!({ "terminated": { "exitCode": exit_code, "reason": "Error", "finishedAt": ended } });
        self.says(pod, "Failed", &state, json!({})).await?;
        Ok(ended)
    }

    /// Something outside of it has ended it (an eviction, a preemption), so long ago.
    pub async fn is_disrupted(&self, pod: &Pod, before: Duration) -> Result<()> {
        let state = json!({ "terminated": { "exitCode": 143, "reason": "Error", "finishedAt": ago(before) } });
        let main = container("main", &state, 0);
        let target = condition("DisruptionTarget", true, ago(before));
        let status = json!({ "status": { "phase": "Failed", "containerStatuses": [main], "conditions": [target] } });
        self.pods.patch_status(name(pod), &PatchParams::default(), &Patch::Merge(status)).await?;
        Ok(())
    }

    /// Its container has ended after so many restarts, and waits for the next one.
    pub async fn crashes(&self, pod: &Pod, restarts: u32) -> Result<()> {
        let state = json!({ "waiting": { "reason": "CrashLoopBackOff" } });
        self.says(pod, "Running", &state, restarted(restarts)).await
    }

    /// Its container runs again, after so many restarts.
    pub async fn runs_again(&self, pod: &Pod, restarts: u32) -> Result<()> {
        let state = json!({ "running": { "startedAt": ago(Duration::ZERO) } });
        self.says(pod, "Running", &state, restarted(restarts)).await
    }

    /// It was told to go: it ends by the signal and is removed. What still holds it then is a finalizer.
    pub async fn ends(&self, pod: &Pod) -> Result<()> {
        self.fails(pod, 143, Duration::ZERO).await?;
        self.removes(pod).await
    }

    async fn removes(&self, pod: &Pod) -> Result<()> {
        self.pods.delete(name(pod), &DeleteParams::default().grace_period(0)).await?;
        Ok(())
    }

    async fn says(&self, pod: &Pod, phase: &str, state: &Value, more: Value) -> Result<()> {
        let mut main = container("main", state, 0);
        json_patch::merge(&mut main, &more);
        let ready = condition("Ready", state.get("running").is_some(), ago(Duration::ZERO));
        let status = json!({ "status": { "phase": phase, "containerStatuses": [main], "conditions": [ready] } });
        self.pods.patch_status(name(pod), &PatchParams::default(), &Patch::Merge(status)).await?;
        Ok(())
    }

    /// Binds every pod, starts it and ends it as `end` says; and ends what is deleted.
    pub fn plays(&self, end: impl Fn(&Pod) -> End + Send + Sync + 'static) -> Playing {
        let kubelet = self.clone();
        Playing(tokio::spawn(async move {
            let mut looks = tokio::time::interval(LOOK);
            loop {
                looks.tick().await;
                for pod in kubelet.pods.list(&ListParams::default()).await.into_iter().flatten() {
                    // The pod may have gone, or its job may have been faster: the next look tells.
                    let _ = kubelet.next_step(&pod, &end).await;
                }
            }
        }))
    }

    async fn next_step(&self, pod: &Pod, end: impl Fn(&Pod) -> End) -> Result<()> {
        let is_bound = pod.spec.as_ref().is_some_and(|spec| spec.node_name.is_some());
        let is_deleted = pod.metadata.deletion_timestamp.is_some();
        let grace = pod.metadata.deletion_grace_period_seconds.unwrap_or_default();
        match (phase(pod), is_deleted) {
            ("Succeeded" | "Failed", true) if grace > 0 => self.removes(pod).await,
            ("Succeeded" | "Failed", _) => Ok(()),
            (_, true) if is_bound && grace > 0 => self.fails(pod, 143, Duration::ZERO).await.map(drop),
            (_, true) => Ok(()),
            (_, false) if !is_bound => self.bind(pod).await,
            ("Running", false) => match end(pod) {
                End::Success => self.succeeds(pod).await,
                End::Failure { exit_code, ago } => self.fails(pod, exit_code, ago).await.map(drop),
                End::Never => Ok(()),
            },
            (_, false) => self.runs(pod).await,
        }
    }
}

/// A container that has failed and was restarted so often.
fn restarted(restarts: u32) -> Value {
    let ended = json!({ "exitCode": 1, "reason": "Error", "finishedAt": ago(Duration::ZERO) });
    json!({ "restartCount": restarts, "lastState": { "terminated": ended } })
}

pub fn name(pod: &Pod) -> &str {
    pod.metadata.name.as_deref().unwrap_or_default()
}

pub fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default()
}
