//! Plays the kubelet and the scheduler for all pods of a namespace. What has ended has ended 20 minutes ago, as far as it
//! says: no retry delay is left, however long.

use std::collections::HashSet;
use std::time::Duration;

use anyhow::Result;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, DeleteParams, Patch, PatchParams};
use serde_json::{Value, json};

use super::workload::End;
use super::world::{PodView, World};
use crate::support::kubelet::{ago, bind, condition, container, gone_or};

const LONG_AGO: Duration = Duration::from_secs(20 * 60);

/// How the signal ends a container that is told to go.
const BY_SIGNAL: i32 = 143;

pub struct Kubelet {
    pods: Api<Pod>,
    /// What has been said of each pod: the watch may be behind.
    said: HashSet<(String, Word)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Word {
    Bound,
    Runs,
    Crashed(u64),
    RunsAgain(u64),
    Ended,
    Removed,
}

impl Kubelet {
    pub fn new(pods: Api<Pod>) -> Kubelet {
        Kubelet { pods, said: HashSet::new() }
    }

    /// Says of every pod what is to be said next; answers with whether there was anything.
    pub async fn look(&mut self, world: &World, end: impl Fn(&World, &PodView) -> End) -> Result<bool> {
        let mut has_spoken = false;
        for pod in world.pods.values() {
            let Some(word) = self.next_word(world, pod, &end) else { continue };
            if self.said.insert((pod.uid.clone(), word)) {
                self.say(world, pod, word, &end).await?;
                has_spoken = true;
            }
        }
        Ok(has_spoken)
    }

    fn next_word(&self, world: &World, pod: &PodView, end: &impl Fn(&World, &PodView) -> End) -> Option<Word> {
        match (pod.has_ended(), pod.is_deleted) {
            (true, true) => pod.is_graceful.then_some(Word::Removed),
            (true, false) => None,
            // What was told to go ends by the signal, unless the workload lets it linger.
            (false, true) if pod.is_bound && pod.is_graceful => match end(world, pod) {
                End::Lingers => None,
                _ => Some(Word::Ended),
            },
            (false, true) => None,
            (false, false) if !pod.is_bound => Some(Word::Bound),
            (false, false) if pod.phase != "Running" => Some(Word::Runs),
            (false, false) if !pod.runs => match end(world, pod) {
                End::Crashes => None,
                _ => Some(Word::RunsAgain(pod.restarts + 1)),
            },
            (false, false) => match end(world, pod) {
                End::Runs | End::Lingers => None,
                End::Crashes => Some(Word::Crashed(pod.restarts)),
                End::Succeeds | End::Fails(_) => Some(Word::Ended),
            },
        }
    }

    async fn say(
        &self,
        world: &World,
        pod: &PodView,
        word: Word,
        end: &impl Fn(&World, &PodView) -> End,
    ) -> Result<()> {
        let running = json!({ "running": { "startedAt": long_ago() } });
        match word {
            Word::Bound => gone_or(bind(&self.pods, &pod.name).await),
            Word::Runs => self.patch(pod, "Running", &running, 0).await,
            Word::RunsAgain(restarts) => self.patch(pod, "Running", &running, restarts).await,
            Word::Crashed(restarts) => {
                self.patch(pod, "Running", &json!({ "waiting": { "reason": "CrashLoopBackOff" } }), restarts).await
            }
            Word::Ended => {
                let exit_code = match end(world, pod) {
                    _ if pod.is_deleted => BY_SIGNAL,
                    End::Fails(exit_code) => exit_code,
                    _ => 0,
                };
                let (phase, reason) = if exit_code == 0 { ("Succeeded", "Completed") } else { ("Failed", "Error") };
                let ended = json!({ "exitCode": exit_code, "reason": reason, "finishedAt": long_ago() });
                self.patch(pod, phase, &json!({ "terminated": ended }), pod.restarts).await
            }
            Word::Removed => {
                gone_or(self.pods.delete(&pod.name, &DeleteParams::default().grace_period(0)).await.map(drop))
            }
        }
    }

    async fn patch(&self, pod: &PodView, phase: &str, state: &Value, restarts: u64) -> Result<()> {
        let mut main = container("main", state, restarts);
        if restarts > 0 || state.get("waiting").is_some() {
            main["lastState"] = json!({ "terminated": { "exitCode": 1, "reason": "Error", "finishedAt": long_ago() } });
        }
        let ready = condition("Ready", state.get("running").is_some(), long_ago());
        let status = json!({ "status": { "phase": phase, "containerStatuses": [main], "conditions": [ready] } });
        let patched = self.pods.patch_status(&pod.name, &PatchParams::default(), &Patch::Merge(status)).await;
        gone_or(patched.map(drop))
    }
}

fn long_ago() -> Timestamp {
    ago(LONG_AGO)
}
