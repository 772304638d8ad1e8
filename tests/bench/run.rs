//! One run: one contender, one workload, a cluster of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use batchjob_tests::kubernetes::{Kubernetes, Options, Size};
use batchjob_tests::support::{Kwok, Namespace, Nodes, process, serve_batch_jobs, wait_for};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams};
use kube::{Api, ResourceExt as _};
use serde_json::json;
use tokio::task::JoinHandle;

use crate::contender::{Contender, Running};
use crate::figures::{Figures, Times, between, writes};
use crate::workload::{NODE, Play, Workload};

/// How many jobs are created at a time.
const AT_ONCE: usize = 32;
/// Longer than any run takes that goes well.
const LIMIT: Duration = Duration::from_secs(280);
/// The controller has written nothing for so long: it has settled.
const QUIET: Duration = Duration::from_secs(2);

/// What the watches have told so far.
#[derive(Default)]
struct Seen {
    jobs: BTreeMap<String, Times>,
    finished: BTreeSet<String>,
    known: BTreeSet<String>,
    running: BTreeSet<String>,
    ended: BTreeSet<String>,
    gone: BTreeSet<String>,
}

impl Seen {
    /// From the first pod's create to the last one's end.
    fn first_to_last(&self) -> Duration {
        let first = self.jobs.values().filter_map(|times| times.created.first()).min();
        let last = self.jobs.values().filter_map(|times| times.ended.last()).max();
        first.zip(last).map(|(first, last)| last.saturating_duration_since(*first)).unwrap_or_default()
    }
}

/// A cluster with a controller that has shown that it works.
struct Arena {
    kubernetes: Kubernetes,
    running: Running,
    jobs: Api<DynamicObject>,
    seen: Arc<Mutex<Seen>>,
    watches: Vec<JoinHandle<Result<()>>>,
    _kwok: Kwok,
}

pub async fn measure(contender: Contender, workload: &Workload, stages: &Path) -> Result<Figures> {
    let arena = Arena::open(contender, workload, stages).await?;
    let client = arena.kubernetes.client().await?;
    let is_floor = contender == Contender::Floor;
    if workload.play != Play::Runs {
        arena.create(contender, workload).await?;
        arena.until("all run", |seen| seen.running.len() == workload.completions).await?;
        arena.settle().await?;
    }
    let written = writes(&client).await?;
    // The floor begins as soon as it is there.
    let used = if is_floor { Duration::ZERO } else { process::cpu(arena.running.pid())? };
    let began = Instant::now();
    match workload.play {
        Play::Runs if is_floor => {
            arena.until("all have ended", |seen| seen.ended.len() == workload.pods()).await?;
        }
        Play::Runs => {
            arena.create(contender, workload).await?;
            arena.until("all jobs have finished", |seen| seen.finished.len() == workload.jobs).await?;
        }
        Play::Suspends => {
            arena.patch(&json!({ "spec": { "suspend": true } })).await?;
            arena.until("all are gone", |seen| seen.gone.len() == workload.completions).await?;
            arena.patch(&json!({ "spec": { "suspend": false } })).await?;
            arena.until("all run again", |seen| seen.running.len() == 2 * workload.completions).await?;
        }
        Play::IsDeleted => {
            arena.jobs.delete("job-0", &DeleteParams::foreground()).await?;
            arena.until("all are gone", |seen| seen.gone.len() == workload.completions).await?;
        }
    }
    let took = if is_floor { arena.seen().first_to_last() } else { began.elapsed() };
    arena.settle().await?;
    let pid = arena.running.pid();
    let mut figures = Figures {
        took,
        pods: workload.pods(),
        cpu: process::cpu(pid)?.saturating_sub(used),
        memory: process::peak(pid)?,
        writes: between(&written, &writes(&client).await?),
        ..Figures::default()
    };
    // What the bench has written itself.
    let created = format!("post {}", contender.kind().resource().plural);
    if let Some(n) = figures.writes.get_mut(&created) {
        *n -= n_created(contender, workload).min(*n);
    }
    figures.writes.retain(|_, n| *n > 0);
    if workload.play == Play::Runs {
        let seen = arena.seen();
        for times in seen.jobs.values() {
            figures.successor.extend(times.successors(if is_floor { workload.jobs } else { 1 } * workload.parallelism));
            figures.first_pod.extend(times.first_pod());
        }
    }
    arena.close().await?;
    Ok(figures)
}

fn n_created(contender: Contender, workload: &Workload) -> u64 {
    if contender == Contender::Floor || workload.play != Play::Runs { 0 } else { workload.jobs as u64 }
}

impl Arena {
    async fn open(contender: Contender, workload: &Workload, stages: &Path) -> Result<Arena> {
        let flags = [
            "--controllers=*,-job-controller,-cronjob-controller,-ttl-after-finished-controller",
            // The garbage collector is to be in nobody's way.
            "--kube-api-qps=10000",
            "--kube-api-burst=10000",
        ];
        let options = Options { controller_flags: flags.map(str::to_owned).to_vec(), ..Options::from(Size::Api) };
        let kubernetes = Kubernetes::start(options).await?;
        serve_batch_jobs(&kubernetes).await?;
        let nodes: Api<Node> = Api::all(kubernetes.client().await?);
        let node = json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": NODE } });
        nodes.create(&PostParams::default(), &serde_json::from_value(node)?).await?;
        let kwok = Kwok::start(&kubernetes, stages, Nodes::Named(NODE))?;
        wait_for("the node is ready", Duration::from_secs(30), async || {
            let conditions = nodes.get(NODE).await?.status.and_then(|status| status.conditions).unwrap_or_default();
            Ok(conditions.iter().any(|it| it.type_ == "Ready" && it.status == "True").then_some(()))
        })
        .await?;
        let namespace = Namespace::new(&kubernetes, "bench").await?;
        let jobs = Api::namespaced_with(kubernetes.client().await?, &namespace.name, &contender.kind().resource());
        let seen = Arc::new(Mutex::new(Seen::default()));
        let pods: Api<Pod> = Api::namespaced(kubernetes.client().await?, &namespace.name);
        let from = version(&pods).await?;
        let mut watches = vec![tokio::spawn(watch_pods(pods, from, seen.clone()))];
        let running = contender.start(&kubernetes, &namespace.name, workload).await?;
        // The floor knows no jobs, and begins at once.
        if contender != Contender::Floor {
            warm_up(&kubernetes, contender).await?;
            watches.push(tokio::spawn(watch_jobs(jobs.clone(), version(&jobs).await?, seen.clone())));
        }
        Ok(Arena { kubernetes, running, jobs, seen, watches, _kwok: kwok })
    }

    async fn create(&self, contender: Contender, workload: &Workload) -> Result<()> {
        let created = stream::iter(0..workload.jobs).map(async |n| {
            let job = serde_json::from_value(workload.job(contender.kind(), n))?;
            self.seen().jobs.entry(format!("job-{n}")).or_default().job = Some(Instant::now());
            self.jobs.create(&PostParams::default(), &job).await?;
            anyhow::Ok(())
        });
        created.buffer_unordered(AT_ONCE).try_collect().await
    }

    async fn patch(&self, change: &serde_json::Value) -> Result<()> {
        self.jobs.patch("job-0", &PatchParams::default(), &Patch::Merge(change)).await?;
        Ok(())
    }

    async fn until(&self, what: &str, is_so: impl Fn(&Seen) -> bool) -> Result<()> {
        let found = wait_for(what, LIMIT, async || {
            ensure!(self.watches.iter().all(|watch| !watch.is_finished()), "a watch has ended");
            Ok(is_so(&self.seen()).then_some(()))
        });
        found.await.with_context(|| {
            let Seen { finished, known, running, ended, gone, .. } = &*self.seen();
            let [known, running, ended, gone] = [known, running, ended, gone].map(BTreeSet::len);
            format!("{} jobs finished; of {known} pods {running} ran, {ended} ended, {gone} are gone", finished.len())
        })
    }

    /// Until nothing is written any more.
    async fn settle(&self) -> Result<()> {
        let client = self.kubernetes.client().await?;
        let (mut last, mut since) = (BTreeMap::new(), Instant::now());
        wait_for("nothing is written any more", LIMIT, async || {
            let now = writes(&client).await?;
            if !between(&last, &now).is_empty() {
                (last, since) = (now, Instant::now());
            }
            Ok((since.elapsed() >= QUIET).then_some(()))
        })
        .await
    }

    fn seen(&self) -> std::sync::MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn close(self) -> Result<()> {
        self.watches.iter().for_each(JoinHandle::abort);
        drop(self.running);
        drop(self._kwok);
        self.kubernetes.stop().await
    }
}

/// A job of one pod runs to its end, and is deleted: whoever runs it has its caches filled, and the garbage collector knows its kind.
async fn warm_up(kubernetes: &Kubernetes, contender: Contender) -> Result<()> {
    let namespace = Namespace::new(kubernetes, "warm").await?;
    let kind = contender.kind();
    let jobs: Api<DynamicObject> = Api::namespaced_with(kubernetes.client().await?, &namespace.name, &kind.resource());
    let small = crate::workload::ALL[2];
    jobs.create(&PostParams::default(), &serde_json::from_value(small.job(kind, 0))?).await?;
    wait_for("a first job has finished", Duration::from_secs(60), async || {
        Ok(is_finished(&jobs.get("job-0").await?).then_some(()))
    })
    .await?;
    jobs.delete("job-0", &DeleteParams::foreground()).await?;
    wait_for("it is gone", Duration::from_secs(60), async || Ok(jobs.get_opt("job-0").await?.is_none().then_some(())))
        .await
}

async fn version<K: Clone + serde::de::DeserializeOwned + std::fmt::Debug>(api: &Api<K>) -> Result<String> {
    api.list(&ListParams::default().limit(1)).await?.metadata.resource_version.context("a version")
}

fn is_finished(job: &DynamicObject) -> bool {
    let conditions = job.data["status"]["conditions"].as_array();
    conditions.is_some_and(|conditions| {
        conditions.iter().any(|it| {
            let type_ = it["type"].as_str().unwrap_or_default();
            it["status"] == "True" && matches!(type_, "Complete" | "Failed")
        })
    })
}

async fn watch_jobs(jobs: Api<DynamicObject>, from: String, seen: Arc<Mutex<Seen>>) -> Result<()> {
    let mut changes = Box::pin(jobs.watch(&WatchParams::default().timeout(290), &from).await?);
    while let Some(change) = changes.try_next().await? {
        if let WatchEvent::Modified(job) = change
            && is_finished(&job)
        {
            seen.lock().unwrap_or_else(PoisonError::into_inner).finished.insert(job.name_any());
        }
    }
    Ok(())
}

async fn watch_pods(pods: Api<Pod>, from: String, seen: Arc<Mutex<Seen>>) -> Result<()> {
    let mut changes = Box::pin(pods.watch(&WatchParams::default().timeout(290), &from).await?);
    while let Some(change) = changes.try_next().await? {
        let now = Instant::now();
        let (pod, is_gone) = match change {
            WatchEvent::Added(pod) | WatchEvent::Modified(pod) => (pod, false),
            WatchEvent::Deleted(pod) => (pod, true),
            WatchEvent::Bookmark(_) => continue,
            WatchEvent::Error(status) => return Err(kube::Error::Api(status).into()),
        };
        let job = pod.owner_references().first().map_or("floor", |owner| &owner.name).to_owned();
        // A resumed job may give its pods the same names again.
        let id = pod.uid().unwrap_or_default();
        let phase = pod.status.and_then(|status| status.phase).unwrap_or_default();
        let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.known.insert(id.clone()) {
            seen.jobs.entry(job.clone()).or_default().created.push(now);
        }
        match phase.as_str() {
            "Running" => {
                seen.running.insert(id.clone());
            }
            "Succeeded" | "Failed" if seen.ended.insert(id.clone()) => {
                seen.jobs.entry(job).or_default().ended.push(now);
            }
            _ => {}
        }
        if is_gone {
            seen.gone.insert(id);
        }
    }
    Ok(())
}
