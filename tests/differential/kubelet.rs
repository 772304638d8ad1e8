//! Plays the kubelet: says of a pod what it would say. Unlike the real one it knows at once, and everything ended long
//! ago, so that no retry delay is left to wait for: both controllers count the delay from the end that the pod tells.

use std::time::Duration;

use anyhow::Result;
use batchjob_tests::support::kubelet::{self, ago, condition};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, DeleteParams, Patch, PatchParams};
use kube::{Error, ResourceExt as _};
use serde_json::{Value, json};

use crate::case::{BY_SIGNAL_CODE, Containers, End, OWN_CONDITION};

/// Longer than the longest retry delay, which is 10 minutes.
const LONG_AGO: Duration = Duration::from_secs(15 * 60);

pub struct Kubelet<'a> {
    pub pods: &'a Api<Pod>,
    pub has: Containers,
}

impl Kubelet<'_> {
    /// All its containers run, and it has been ready for so many seconds.
    pub async fn runs(&self, pod: &Pod, restarts: u32, ready_for: u64) -> Result<()> {
        let running = json!({ "running": { "startedAt": ago(LONG_AGO) } });
        let mut containers = vec![container("main", &running, restarts)];
        containers.extend(self.has.extra.then(|| container("extra", &running, 0)));
        let conditions = json!([condition("Ready", true, ago(Duration::from_secs(ready_for)))]);
        let init = self.init(&terminated(0));
        self.says(pod, json!({
            "phase": "Running", "conditions": conditions, "containerStatuses": containers, "initContainerStatuses": init,
        }))
        .await
    }

    /// It runs on, but has not been ready for long.
    pub async fn is_unready(&self, pod: &Pod) -> Result<()> {
        self.says(pod, json!({ "conditions": [condition("Ready", false, ago(LONG_AGO))] })).await
    }

    pub async fn ends(&self, pod: &Pod, end: End) -> Result<()> {
        let mut conditions = vec![condition("Ready", false, ago(LONG_AGO))];
        let mut init = self.init(&terminated(0));
        let (phase, containers) = match end {
            End::Success => ("Succeeded", self.containers(&terminated(0), &terminated(0))),
            End::Exit { main, extra } => {
                // A code other than 0 has to be there: of a container that does not exist it tells nothing.
                let main = if main == 0 && !self.has.extra { extra } else { main };
                ("Failed", self.containers(&terminated(main), &terminated(extra)))
            }
            End::Init { exit_code } if self.has.init => {
                init = self.init(&terminated(exit_code));
                let waiting = json!({ "waiting": { "reason": "PodInitializing" } });
                ("Failed", self.containers(&waiting, &waiting))
            }
            End::Init { exit_code } => ("Failed", self.containers(&terminated(exit_code), &terminated(0))),
            End::Evicted { says_of_containers } => {
                conditions.push(condition("DisruptionTarget", true, ago(LONG_AGO)));
                match says_of_containers {
                    true => ("Failed", self.containers(&terminated(137), &terminated(137))),
                    false => ("Failed", json!([])),
                }
            }
            End::Condition => {
                conditions.push(condition(OWN_CONDITION, true, ago(LONG_AGO)));
                ("Failed", self.containers(&terminated(1), &terminated(0)))
            }
        };
        if containers == json!([]) {
            init = json!([]);
        }
        self.says(pod, json!({
            "phase": phase, "conditions": conditions, "containerStatuses": containers, "initContainerStatuses": init,
        }))
        .await
    }

    /// It was told to go: it ends, by the signal or in peace, and is removed. What still holds it then is a finalizer.
    pub async fn goes(&self, pod: &Pod, end: End) -> Result<()> {
        let has_ended = matches!(phase(pod), "Succeeded" | "Failed");
        if !has_ended {
            self.ends(pod, end).await?;
        }
        let now = DeleteParams::default().grace_period(0);
        gone_or(self.pods.delete(&pod.name_any(), &now).await.map(drop))
    }

    fn containers(&self, main: &Value, extra: &Value) -> Value {
        let mut all = vec![container("main", main, 0)];
        all.extend(self.has.extra.then(|| container("extra", extra, 0)));
        json!(all)
    }

    fn init(&self, state: &Value) -> Value {
        if self.has.init { json!([container("init", state, 0)]) } else { json!([]) }
    }

    async fn says(&self, pod: &Pod, status: Value) -> Result<()> {
        let patch = Patch::Merge(json!({ "status": status }));
        gone_or(self.pods.patch_status(&pod.name_any(), &PatchParams::default(), &patch).await.map(drop))
    }
}

/// How the signal ends a container that is told to go.
pub const BY_SIGNAL: End = End::Exit { main: BY_SIGNAL_CODE, extra: BY_SIGNAL_CODE };

pub fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default()
}

/// A pod may have gone meanwhile: its controller need not wait for anybody.
fn gone_or(answer: kube::Result<()>) -> Result<()> {
    match answer {
        Err(Error::Api(status)) if status.code == 404 => Ok(()),
        other => Ok(other?),
    }
}

/// With what it came to before, if it was restarted.
fn container(name: &str, state: &Value, restarts: u32) -> Value {
    let mut status = kubelet::container(name, state, u64::from(restarts));
    if restarts > 0 {
        status["lastState"] = terminated(1);
    }
    status
}

fn terminated(exit_code: i32) -> Value {
    let reason = if exit_code == 0 { "Completed" } else { "Error" };
    json!({ "terminated": { "exitCode": exit_code, "reason": reason, "finishedAt": ago(LONG_AGO) } })
}
