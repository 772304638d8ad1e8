//! Plays the kubelet of all namespaces: every pod has a node from its birth, runs a while, and ends as its workload says.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use anyhow::Result;
use batchjob_crd::keys;
use batchjob_tests::support::kubelet::{ago, condition, container, gone_or};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use kube::{Api, Client, ResourceExt as _};
use serde_json::{Value, json};

use crate::workload::End;

const LOOK: Duration = Duration::from_millis(50);
/// How long a pod runs, and how long it takes to end once it is told to go, in looks.
const RUNS: u32 = 8;
const LEAVES: u32 = 10;

/// How each pod of a job ends: by the job's name, an index, and its place among the pods of that.
pub type Script = fn(job: &str, index: u32, nth: u32) -> End;

pub struct Kubelet {
    client: Client,
    script: Script,
    known: HashMap<String, Known>,
    /// How many pods an index, or a job that is not Indexed, has had.
    n_pods: HashMap<(String, u32), u32>,
}

struct Known {
    end: End,
    n_looks: u32,
    n_looks_told: u32,
}

impl Kubelet {
    pub fn new(client: Client, script: Script) -> Kubelet {
        Kubelet { client, script, known: HashMap::new(), n_pods: HashMap::new() }
    }

    /// Until it is dropped.
    pub async fn play(mut self) -> Result<()> {
        let mut looks = tokio::time::interval(LOOK);
        looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            looks.tick().await;
            let all: Api<Pod> = Api::all(self.client.clone());
            let mut pods = all.list(&ListParams::default().labels(keys::JOB_NAME)).await?.items;
            pods.sort_by_key(|pod| (pod.metadata.creation_timestamp.clone(), pod.name_any()));
            let there: HashSet<String> = pods.iter().filter_map(|pod| pod.uid()).collect();
            self.known.retain(|uid, _| there.contains(uid));
            for pod in pods {
                gone_or(self.look_at(&pod).await)?;
            }
        }
    }

    async fn look_at(&mut self, pod: &Pod) -> kube::Result<()> {
        let (uid, end) = (pod.uid().unwrap_or_default(), self.draw(pod));
        let known = self.known.entry(uid).or_insert(Known { end, n_looks: 0, n_looks_told: 0 });
        known.n_looks += 1;
        let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default();
        let has_ended = matches!(phase, "Succeeded" | "Failed");
        let grace = pod.metadata.deletion_grace_period_seconds.unwrap_or_default();
        let end = match pod.metadata.deletion_timestamp {
            Some(_) if has_ended && grace == 0 => return Ok(()),
            Some(_) if has_ended => {
                let pods: Api<Pod> = Api::namespaced(self.client.clone(), &pod.namespace().unwrap_or_default());
                return pods.delete(&pod.name_any(), &DeleteParams::default().grace_period(0)).await.map(drop);
            }
            Some(_) => {
                known.n_looks_told += 1;
                if known.n_looks_told < LEAVES {
                    return Ok(());
                }
                End::Failure { exit_code: 143 }
            }
            None if has_ended => return Ok(()),
            None if phase != "Running" => return self.says(pod, running()).await,
            None if known.n_looks < RUNS => return Ok(()),
            None => known.end,
        };
        match ended(end) {
            Some(status) => self.says(pod, status).await,
            None => Ok(()),
        }
    }

    /// How a pod that is new is to end.
    fn draw(&mut self, pod: &Pod) -> End {
        if let Some(known) = self.known.get(&pod.uid().unwrap_or_default()) {
            return known.end;
        }
        let labels = pod.labels();
        let (job, uid) = (labels.get(keys::JOB_NAME), labels.get(keys::CONTROLLER_UID));
        let index = labels.get(keys::COMPLETION_INDEX).and_then(|index| index.parse().ok()).unwrap_or_default();
        let (Some(job), Some(uid)) = (job, uid) else { return End::Never };
        let n = self.n_pods.entry((uid.clone(), index)).or_default();
        *n += 1;
        (self.script)(job, index, *n - 1)
    }

    async fn says(&self, pod: &Pod, status: Value) -> kube::Result<()> {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), &pod.namespace().unwrap_or_default());
        let patch = Patch::Merge(json!({ "metadata": { "uid": pod.uid() }, "status": status }));
        pods.patch_status(&pod.name_any(), &PatchParams::default(), &patch).await.map(drop)
    }
}

fn running() -> Value {
    let state = json!({ "running": { "startedAt": now() } });
    json!({ "phase": "Running", "conditions": [ready(true)], "containerStatuses": [container("main", &state, 0)] })
}

fn ended(end: End) -> Option<Value> {
    let exit_code = match end {
        End::Success => 0,
        End::Failure { exit_code } => exit_code,
        End::Disruption => 143,
        End::Never => return None,
    };
    let phase = if exit_code == 0 { "Succeeded" } else { "Failed" };
    let mut conditions = vec![ready(false)];
    if end == End::Disruption {
        conditions.push(condition("DisruptionTarget", true, now()));
    }
    let state = json!({ "terminated": { "exitCode": exit_code, "reason": "Ended", "finishedAt": now() } });
    Some(json!({ "phase": phase, "conditions": conditions, "containerStatuses": [container("main", &state, 0)] }))
}

fn ready(is_true: bool) -> Value {
    condition("Ready", is_true, now())
}

fn now() -> Timestamp {
    ago(Duration::ZERO)
}
