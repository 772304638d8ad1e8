//! The operator is killed again and again, at any moment, and every index is still done once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use batchjob_crd::{BatchJob, BatchJobStatus};
use batchjob_oracle::{Change, End as Rest, Object, Promises};
use batchjob_tests::recorder::Recorder;
use batchjob_tests::support::Operator;
use k8s_openapi::api::core::v1::Pod;
use serde_json::json;

use crate::kubelet::{End, Playing, name, phase};
use crate::stage::{Stage, attempt_of, index_of, is_finished, look_again, status};

const COMPLETIONS: u32 = 20;
const PARALLELISM: u32 = 5;
/// Their first attempts fail.
const FAILING: [u32; 3] = [3, 7, 11];
const KILLS: usize = 10;
/// Where the moments of the kills come from: another set for each.
const SEEDS: std::ops::RangeInclusive<u64> = 1..=3;

/// After so many changes of pods, of about 115, the operator is killed: 4 to 11 more each time (xorshift64).
fn moments(seed: u64) -> Vec<usize> {
    // Small seeds are all alike in their first numbers.
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let mut at = 0;
    let next = |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        at += 4 + (state % 8) as usize;
        at
    };
    (0..KILLS).map(next).collect()
}

/// Starts the job and the kubelet that plays its pods; the last index comes to its end only once `may_end` says so.
async fn begin(stage: &Stage, may_end: &Arc<AtomicBool>) -> Result<(Recorder, Playing)> {
    let recorder = Recorder::start(&stage.namespace.client, Some(&stage.namespace.name)).await?;
    let may_end = may_end.clone();
    let kubelet = stage.kubelet.plays(move |pod| {
        if index_of(pod) == Some(COMPLETIONS - 1) && !may_end.load(Ordering::Relaxed) {
            return End::Never;
        }
        let fails = index_of(pod).is_some_and(|index| FAILING.contains(&index)) && attempt_of(pod) == Some(1);
        // So long ago that the next attempt may start at once.
        if fails { End::Failure { exit_code: 1, ago: Duration::from_secs(10) } } else { End::Success }
    });
    let spec = json!({ "completionMode": "Indexed", "completions": COMPLETIONS, "parallelism": PARALLELISM });
    stage.create("etl", spec).await?;
    Ok((recorder, kubelet))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_ten_times_it_does_every_index_once() -> Result<()> {
    for seed in SEEDS {
        // Shown if it fails.
        println!("killed at the moments of seed {seed}: {:?}", moments(seed));
        let stage = Stage::new(&format!("kill-{seed}")).await?;
        let mut operator = stage.operator().await?;
        // However late a kill comes on a busy machine, it comes in the middle.
        let may_end = Arc::new(AtomicBool::new(false));
        let (mut recorder, _kubelet) = begin(&stage, &may_end).await?;
        for moment in moments(seed) {
            recorder.until("pod", moment).await?;
            operator.kill()?;
            recorder.note("the operator is killed");
            // Asked while nobody is there to finish it: how long the next start takes says nothing about the kill.
            assert!(!is_finished(&stage.jobs.get("etl").await?), "the kill is in the middle of it");
            operator = stage.operator().await?;
        }
        may_end.store(true, Ordering::Relaxed);
        check_end(&stage, recorder).await?;
        check_silence(&stage, &operator).await?;
    }
    Ok(())
}

/// There is to be one; while one replaces the other, or where somebody installs it twice, there are two.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_operators_at_once_do_every_index_once() -> Result<()> {
    let stage = Stage::new("two-operators").await?;
    let (operator, _other) = (stage.operator().await?, stage.operator().await?);
    let (recorder, _kubelet) = begin(&stage, &Arc::new(AtomicBool::new(true))).await?;
    check_end(&stage, recorder).await?;
    check_silence(&stage, &operator).await
}

async fn check_end(stage: &Stage, recorder: Recorder) -> Result<()> {
    let job = stage.until("etl", "it is over", is_finished).await;
    assert_eq!((status(&job).succeeded, status(&job).failed), (Some(20), Some(3)));
    assert_eq!(status(&job).completed_indexes.as_deref(), Some("0-19"));
    let pods = stage.until_no_pod_is_held("etl").await;
    let mut successes: BTreeMap<u32, u32> = BTreeMap::new();
    for pod in pods.iter().filter(|pod| phase(pod) == "Succeeded") {
        *successes.entry(index_of(pod).context("an index")?).or_default() += 1;
    }
    assert_eq!(successes, (0..COMPLETIONS).map(|index| (index, 1)).collect(), "each index, once");

    let history = recorder.finish().await?;
    let at = history.events().map(|event| event.at).max().context("a history")?;
    let broken = history.judge(Promises::default(), Rest::Settled { quiet_since: at, at });
    assert!(broken.is_empty(), "{}", history.explain(&broken));
    let n_changes = |change: Change| {
        history.events().filter(|event| event.change == change && matches!(event.object, Object::Pod(_))).count()
    };
    assert_eq!(n_changes(Change::Added), COMPLETIONS as usize + FAILING.len(), "as many pods as are needed");
    assert_eq!(n_changes(Change::Deleted), 0, "and nobody deletes one");
    Ok(())
}

/// It has looked again, and nothing is written any more.
async fn check_silence(stage: &Stage, operator: &Operator) -> Result<()> {
    let versions = |pods: &[Pod]| -> BTreeSet<_> {
        pods.iter().map(|pod| (name(pod).to_owned(), pod.metadata.resource_version.clone())).collect()
    };
    let before = versions(&stage.pods_of("etl").await?);
    let touched = look_again(stage, operator, "etl").await?;
    // A change of the spec is seen after that, and only that it was seen is written.
    let changed = stage.change("etl", json!({ "spec": { "ttlSecondsAfterFinished": 1000 } })).await?;
    assert_eq!(changed.status, touched.status);
    let is_seen = |job: &BatchJob| status(job).observed_generation == changed.metadata.generation;
    let seen = stage.until("etl", "it is seen", is_seen).await;
    let expected = BatchJobStatus { observed_generation: changed.metadata.generation, ..status(&touched) };
    assert_eq!(status(&seen), expected);
    assert_eq!(versions(&stage.pods_of("etl").await?), before);
    Ok(())
}
