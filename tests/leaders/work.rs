//! The jobs that go on while leaders change: of two kinds, one after the other in a few rows, with pods that take a moment.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

use anyhow::{Result, bail};
use batchjob_crd::BatchJob;
use kube::api::{Api, PostParams};
use serde_json::json;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use crate::faults::workload::{End, pod};
use crate::faults::world::{History, PodView, World};
use crate::recorder::unpoisoned;

/// How many jobs there are at a time.
pub const ROWS: usize = 2;
/// How long a pod runs: the first attempts of an index a little longer than those of the one before.
const RUNS: Duration = Duration::from_millis(500);
/// How long a job may take, whoever leads: longer than the longest change.
const LIMIT: Duration = Duration::from_secs(150);

/// Creates one job after the other, each when the one before is over, until `is_over`. Answers with how many.
pub async fn row(jobs: &Api<BatchJob>, history: &History, row: usize, is_over: watch::Receiver<bool>) -> Result<u64> {
    let mut n_jobs = 0;
    let mut changes = history.changes.clone();
    while !*is_over.borrow() {
        let name = format!("row{row}n{n_jobs}");
        jobs.create(&PostParams::default(), &serde_json::from_value(job(&name, n_jobs))?).await?;
        let has_ended = async {
            let mut was_there = false;
            loop {
                let world = history.world();
                let is_there = world.jobs.contains_key(&name);
                // Those that have a time to live go when they are over. What each came to is asked by the laws.
                if world.is_over(&name) || (was_there && !is_there) {
                    return Ok(());
                }
                was_there |= is_there;
                if changes.changed().await.is_err() {
                    bail!("the history ends");
                }
            }
        };
        match timeout(LIMIT, has_ended).await {
            Ok(ended) => ended?,
            Err(_) => bail!("{name} is not over after {LIMIT:?}: {}", history.world().status(&name)),
        }
        n_jobs += 1;
    }
    Ok(n_jobs)
}

/// In every second one an index fails once.
fn job(name: &str, n: u64) -> serde_json::Value {
    let spec = if n.is_multiple_of(2) {
        json!({ "completionMode": "Indexed", "completions": 4, "parallelism": 2, "backoffLimitPerIndex": 1 })
    } else {
        json!({ "completions": 3, "parallelism": 3, "ttlSecondsAfterFinished": 5 })
    };
    let mut job = json!({
        "apiVersion": "batchjob.dev/v1alpha1", "kind": "BatchJob", "metadata": { "name": name }, "spec": spec,
    });
    job["spec"]["template"] = pod("Never");
    job
}

/// When each pod was first seen to run, by uid.
#[derive(Default)]
pub struct Runs(Mutex<HashMap<String, Instant>>);

impl Runs {
    /// What comes of a pod.
    pub fn end(&self, _: &World, pod: &PodView) -> End {
        let began_at = *unpoisoned(&self.0).entry(pod.uid.clone()).or_insert_with(Instant::now);
        match (pod.index, pod.attempt) {
            (index, _) if began_at.elapsed() < RUNS * (index + 1) => End::Runs,
            (1, 1) => End::Fails(1),
            _ => End::Succeeds,
        }
    }
}
