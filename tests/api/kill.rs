//! The operator is killed again and again, at any moment, and every index is still done once.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, Result};
use batchjob_crd::{BatchJob, BatchJobStatus};
use batchjob_tests::support::Operator;
use futures::StreamExt as _;
use futures::pin_mut;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{WatchEvent, WatchParams};
use serde_json::json;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::kubelet::{End, Playing, name, phase};
use crate::stage::{SOON, Stage, attempt_of, index_of, is_finished, is_held, look_again, status};

const COMPLETIONS: u32 = 20;
const PARALLELISM: usize = 5;
/// Their first attempts fail.
const FAILING: [u32; 3] = [3, 7, 11];
const KILLS: usize = 10;
/// Where the moments of the kills come from: another set for each.
const SEEDS: std::ops::RangeInclusive<u64> = 1..=3;

/// Writes down all that happens to the pods, in the order in which the API server did it.
struct Witness {
    events: Arc<Mutex<Vec<Event>>>,
    n_events: watch::Receiver<usize>,
    task: JoinHandle<()>,
}

#[derive(Clone)]
struct Event {
    kind: Kind,
    pod: Pod,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Added,
    Modified,
    Deleted,
}

impl Witness {
    /// Of a namespace without pods.
    async fn of(pods: &Api<Pod>) -> Result<Witness> {
        let start = pods.list(&Default::default()).await?.metadata.resource_version.context("a version")?;
        let stream = pods.watch(&WatchParams::default(), &start).await?;
        let events: Arc<Mutex<Vec<Event>>> = Arc::default();
        let (count, n_events) = watch::channel(0);
        let seen = events.clone();
        let task = tokio::spawn(async move {
            pin_mut!(stream);
            while let Some(Ok(event)) = stream.next().await {
                let (kind, pod) = match event {
                    WatchEvent::Added(pod) => (Kind::Added, pod),
                    WatchEvent::Modified(pod) => (Kind::Modified, pod),
                    WatchEvent::Deleted(pod) => (Kind::Deleted, pod),
                    WatchEvent::Bookmark(_) | WatchEvent::Error(_) => continue,
                };
                seen.lock().expect("nobody panics with it").push(Event { kind, pod });
                count.send_modify(|n| *n += 1);
            }
        });
        Ok(Witness { events, n_events, task })
    }

    /// Until so many events have happened.
    async fn until(&mut self, n: usize) {
        let come = timeout(SOON, self.n_events.wait_for(|&n_events| n_events >= n)).await.map(|come| come.is_ok());
        assert_eq!(come, Ok(true), "{} of {n} events after {SOON:?}", self.events().len());
    }

    fn events(&self) -> Vec<Event> {
        self.events.lock().expect("nobody panics with it").clone()
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// After so many events of about 115 the operator is killed: 4 to 11 more each time (xorshift64).
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
async fn begin(stage: &Stage, may_end: &Arc<AtomicBool>) -> Result<(Witness, Playing)> {
    let witness = Witness::of(&stage.pods).await?;
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
    Ok((witness, kubelet))
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
        let (mut witness, _kubelet) = begin(&stage, &may_end).await?;
        for moment in moments(seed) {
            witness.until(moment).await;
            operator.kill()?;
            // Asked while nobody is there to finish it: how long the next start takes says nothing about the kill.
            assert!(!is_finished(&stage.jobs.get("etl").await?), "the kill is in the middle of it");
            operator = stage.operator().await?;
        }
        may_end.store(true, Ordering::Relaxed);
        check_end(&stage, &witness).await?;
        check_silence(&stage, &operator).await?;
    }
    Ok(())
}

/// There is to be one; while one replaces the other, or where somebody installs it twice, there are two.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_operators_at_once_do_every_index_once() -> Result<()> {
    let stage = Stage::new("two-operators").await?;
    let (operator, _other) = (stage.operator().await?, stage.operator().await?);
    let (witness, _kubelet) = begin(&stage, &Arc::new(AtomicBool::new(true))).await?;
    check_end(&stage, &witness).await?;
    check_silence(&stage, &operator).await
}

async fn check_end(stage: &Stage, witness: &Witness) -> Result<()> {
    let job = stage.until("etl", "it is over", is_finished).await;
    assert_eq!((status(&job).succeeded, status(&job).failed), (Some(20), Some(3)));
    assert_eq!(status(&job).completed_indexes.as_deref(), Some("0-19"));
    let pods = stage.until_no_pod_is_held("etl").await;
    let mut successes: BTreeMap<u32, u32> = BTreeMap::new();
    for pod in pods.iter().filter(|pod| phase(pod) == "Succeeded") {
        *successes.entry(index_of(pod).context("an index")?).or_default() += 1;
    }
    assert_eq!(successes, (0..COMPLETIONS).map(|index| (index, 1)).collect(), "each index, once");
    check_history(&witness.events());
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

/// What must hold at every moment, whoever was killed when.
fn check_history(events: &[Event]) {
    let mut uids: HashMap<&str, &str> = HashMap::new();
    let mut living: BTreeSet<&str> = BTreeSet::new();
    let mut done: BTreeSet<u32> = BTreeSet::new();
    for Event { kind, pod } in events {
        let (pod_name, uid) = (name(pod), pod.metadata.uid.as_deref().unwrap_or_default());
        let index = index_of(pod).expect("every pod has an index");
        if *kind == Kind::Added {
            assert!(!done.contains(&index), "{pod_name} was created after index {index} was done");
            assert!(is_held(pod), "{pod_name} was created without the finalizer");
            living.insert(pod_name);
        }
        assert_eq!(*uids.entry(pod_name).or_insert(uid), uid, "{pod_name} was created twice");
        assert_ne!(*kind, Kind::Deleted, "{pod_name} was deleted");
        match phase(pod) {
            "Succeeded" => {
                living.remove(pod_name);
                done.insert(index);
            }
            "Failed" => {
                living.remove(pod_name);
            }
            _ => {}
        }
        assert!(living.len() <= PARALLELISM, "too many at once: {living:?}");
    }
    assert_eq!(uids.len(), COMPLETIONS as usize + FAILING.len());
}
