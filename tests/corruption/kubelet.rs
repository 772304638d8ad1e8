//! Plays the kubelet of all namespaces, by JSON: pods run, and in namespaces that are told to finish they succeed.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::Result;
use futures::stream::{self, StreamExt as _};
use kube::Client;
use serde_json::{Value, json};

use super::rest::{Rest, text};
use crate::recorder::unpoisoned;
use crate::support::kubelet::{ago, condition, container};

const LOOK: Duration = Duration::from_millis(100);
/// So many pods are told something at a time.
const AT_ONCE: usize = 8;
/// As if it had happened so long ago that no retry delay is left.
const LONG_AGO: Duration = Duration::from_secs(20 * 60);

#[derive(Clone)]
pub struct Kubelet {
    client: Client,
    finishing: Arc<Mutex<HashSet<String>>>,
}

impl Kubelet {
    pub fn new(client: &Client) -> Kubelet {
        Kubelet { client: client.clone(), finishing: Arc::default() }
    }

    /// From now on every pod of this namespace succeeds.
    pub fn finish(&self, namespace: &str) {
        unpoisoned(&self.finishing).insert(namespace.to_owned());
    }

    /// Until it is dropped.
    pub async fn play(&self) {
        let mut looks = tokio::time::interval(LOOK);
        looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            looks.tick().await;
            // The list fails while one of the pods cannot be read by the API server; the next look tells.
            let pods = Rest::of_all_pods(&self.client).list().await.unwrap_or_default();
            let steps = stream::iter(&pods).map(|pod| async move {
                // A pod may be gone by now, or be so broken that nothing can be written to it.
                let _ = self.next_step(pod).await;
            });
            steps.buffer_unordered(AT_ONCE).collect::<()>().await;
        }
    }

    async fn next_step(&self, pod: &Value) -> Result<()> {
        let (namespace, name) = (text(pod, "/metadata/namespace"), text(pod, "/metadata/name"));
        let pods = Rest::pods(&self.client, namespace);
        let is_deleted = !text(pod, "/metadata/deletionTimestamp").is_empty();
        let grace = pod.pointer("/metadata/deletionGracePeriodSeconds").and_then(Value::as_i64).unwrap_or_default();
        match (text(pod, "/status/phase"), is_deleted) {
            ("Succeeded" | "Failed", true) if grace > 0 => drop(pods.delete(name, 0).await?),
            ("Succeeded" | "Failed", _) => {}
            (_, true) => ends(&pods, name, 143).await?,
            (_, false) if unpoisoned(&self.finishing).contains(namespace) => ends(&pods, name, 0).await?,
            ("Running", false) => {}
            (_, false) => runs(&pods, name).await?,
        }
        Ok(())
    }
}

async fn runs(pods: &Rest, name: &str) -> Result<()> {
    says(pods, name, "Running", &json!({ "running": { "startedAt": ago(Duration::ZERO) } })).await
}

/// Its container has ended with this code.
pub async fn ends(pods: &Rest, name: &str, exit_code: i32) -> Result<()> {
    let (phase, reason) = if exit_code == 0 { ("Succeeded", "Completed") } else { ("Failed", "Error") };
    let ended = json!({ "exitCode": exit_code, "reason": reason, "finishedAt": ago(LONG_AGO) });
    says(pods, name, phase, &json!({ "terminated": ended })).await
}

async fn says(pods: &Rest, name: &str, phase: &str, state: &Value) -> Result<()> {
    let ready = condition("Ready", state.get("running").is_some(), ago(Duration::ZERO));
    let main = container("main", state, 0);
    let status = json!({ "status": { "phase": phase, "containerStatuses": [main], "conditions": [ready] } });
    pods.patch(&format!("{name}/status"), &status).await?;
    Ok(())
}
