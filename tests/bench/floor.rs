//! The floor: creates pods, watches them, lets go those that have ended, and counts nothing.

use std::collections::HashSet;
use std::sync::Arc;

use anyhow::{Context, Result};
use clap::Args;
use futures::TryStreamExt as _;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{ListParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams};
use kube::{Api, Client, ResourceExt as _};
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::workload::NODE;

const FINALIZER: &str = "bench.batchjob.dev/floor";
/// As many as the operator has under way.
const IN_FLIGHT: usize = 64;

#[derive(Clone, Debug, Args)]
pub struct Floor {
    #[arg(long)]
    namespace: String,
    #[arg(long)]
    pods: usize,
    #[arg(long)]
    at_once: usize,
}

pub async fn run(floor: &Floor) -> Result<()> {
    let client = Client::try_default().await?;
    let pods: Api<Pod> = Api::namespaced(client, &floor.namespace);
    let list = pods.list(&ListParams::default().limit(1)).await?;
    let version = list.metadata.resource_version.context("a version")?;
    let in_flight = Arc::new(Semaphore::new(IN_FLIGHT));
    let mut tasks = JoinSet::new();
    let mut n_created = 0;
    let create = |tasks: &mut JoinSet<Result<()>>, n: usize| {
        let (pods, in_flight) = (pods.clone(), in_flight.clone());
        tasks.spawn(async move {
            let _turn = in_flight.acquire_owned().await?;
            pods.create(&PostParams::default(), &serde_json::from_value(pod(n))?).await?;
            Ok(())
        });
    };
    while n_created < floor.pods.min(floor.at_once) {
        create(&mut tasks, n_created);
        n_created += 1;
    }
    let mut ended = HashSet::new();
    let mut changes = Box::pin(pods.watch(&WatchParams::default().timeout(290), &version).await?);
    while ended.len() < floor.pods {
        let change = changes.try_next().await?.context("the watch has ended")?;
        let WatchEvent::Modified(pod) = change else { continue };
        let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
        if !matches!(phase, Some("Succeeded" | "Failed")) || !ended.insert(pod.name_any()) {
            continue;
        }
        let (pods, in_flight) = (pods.clone(), in_flight.clone());
        tasks.spawn(async move {
            let _turn = in_flight.acquire_owned().await?;
            let released = json!({ "metadata": { "uid": pod.uid(), "finalizers": null } });
            pods.patch_metadata(&pod.name_any(), &PatchParams::default(), &Patch::Merge(released)).await?;
            Ok(())
        });
        if n_created < floor.pods {
            create(&mut tasks, n_created);
            n_created += 1;
        }
        while let Some(done) = tasks.try_join_next() {
            done??;
        }
    }
    while let Some(done) = tasks.join_next().await {
        done??;
    }
    // It is measured for as long as it is there.
    std::future::pending().await
}

fn pod(n: usize) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": format!("floor-{n}"), "finalizers": [FINALIZER], "annotations": { "run-for": "1s" },
            "labels": { "batch.kubernetes.io/job-name": "floor" },
        },
        "spec": {
            "restartPolicy": "Never", "nodeName": NODE, "terminationGracePeriodSeconds": 1,
            "containers": [{ "name": "main", "image": "none" }],
        },
    })
}
