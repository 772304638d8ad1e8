//! All jobs and their pods as three watches tell of them, from the first moment on: each status of each job goes through
//! the rules, and into the job's history.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use anyhow::{Result, bail};
use batchjob_crd::BatchJob;
use batchjob_oracle::standing::{self, Standing};
use futures::TryStreamExt as _;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, WatchEvent, WatchParams};
use kube::{Client, ResourceExt as _};
use tokio::sync::watch;

use crate::door::{Kind, Seen, uid};
use crate::kubelet::phase;

/// Everything that the watches have told.
pub struct World {
    jobs: Mutex<HashMap<String, Arc<Watched>>>,
}

/// One job.
pub struct Watched {
    pub view: watch::Sender<View>,
    history: Mutex<History>,
}

/// A job and its pods at one moment.
#[derive(Clone, Default)]
pub struct View {
    pub job: Option<Seen>,
    /// By name.
    pub pods: BTreeMap<String, Arc<Pod>>,
}

/// What happened to a job, in words.
struct History {
    began: Instant,
    lines: Vec<String>,
    /// The rules that its statuses broke.
    violations: Vec<String>,
}

impl World {
    pub fn new() -> World {
        World { jobs: Mutex::default() }
    }

    /// The job of that uid; also before a watch has told of it.
    pub fn job(&self, uid: &str) -> Arc<Watched> {
        let mut jobs = unpoisoned(&self.jobs);
        Arc::clone(jobs.entry(uid.to_owned()).or_default())
    }

    pub fn forget(&self, uid: &str) {
        unpoisoned(&self.jobs).remove(uid);
    }

    /// Watches until something breaks.
    pub async fn watch(&self, client: &Client) -> Result<()> {
        let (jobs, batch_jobs): (Api<Job>, Api<BatchJob>) = (Api::all(client.clone()), Api::all(client.clone()));
        let pods = Api::all(client.clone());
        tokio::try_join!(
            follow(jobs, |event| self.hear_of_job(event)),
            follow(batch_jobs, |event| self.hear_of_job(event)),
            follow(pods, |event| self.hear_of_pod(event)),
        )?;
        Ok(())
    }

    fn hear_of_job<K: Kind>(&self, event: WatchEvent<K>) {
        match event {
            WatchEvent::Added(job) | WatchEvent::Modified(job) => self.job(&uid(&job)).hear(job.seen()),
            WatchEvent::Deleted(_) | WatchEvent::Bookmark(_) | WatchEvent::Error(_) => {}
        }
    }

    fn hear_of_pod(&self, event: WatchEvent<Pod>) {
        let owner = |pod: &Pod| pod.owner_references().first().map(|owner| owner.uid.clone()).unwrap_or_default();
        match event {
            WatchEvent::Added(pod) | WatchEvent::Modified(pod) => self.job(&owner(&pod)).hear_of_pod(pod),
            WatchEvent::Deleted(pod) => self.job(&owner(&pod)).hear_of_pods_end(&pod),
            WatchEvent::Bookmark(_) | WatchEvent::Error(_) => {}
        }
    }
}

impl Default for Watched {
    fn default() -> Watched {
        let history = History { began: Instant::now(), lines: Vec::new(), violations: Vec::new() };
        Watched { view: watch::Sender::new(View::default()), history: Mutex::new(history) }
    }
}

impl Watched {
    fn hear(&self, seen: Seen) {
        let view = self.view.borrow().clone();
        if view.job.as_ref().is_some_and(|job| job.version >= seen.version) {
            return;
        }
        let before = view.job.as_ref().map(|job| &job.standing);
        if before != Some(&seen.standing) {
            self.note(format!("status {}", text(&seen.standing)));
        }
        if view.job.as_ref().and_then(|job| job.ledger.as_ref()) != seen.ledger.as_ref() {
            self.note(format!("ledger {}", seen.ledger.as_deref().unwrap_or_default()));
        }
        for broken in standing::violations(before, &seen.standing) {
            self.note(format!("BROKEN: {broken}"));
            unpoisoned(&self.history).violations.push(broken);
        }
        self.view.send_modify(|view| view.job = Some(seen));
    }

    fn hear_of_pod(&self, pod: Pod) {
        let name = pod.name_any();
        let before = self.view.borrow().pods.get(&name).map(|pod| says(pod));
        if before.as_deref() != Some(&*says(&pod)) {
            self.note(format!("pod {name}: {}", says(&pod)));
        }
        self.view.send_modify(|view| drop(view.pods.insert(name, Arc::new(pod))));
    }

    fn hear_of_pods_end(&self, pod: &Pod) {
        let name = pod.name_any();
        self.note(format!("pod {name}: gone"));
        self.view.send_modify(|view| drop(view.pods.remove(&name)));
    }

    pub fn note(&self, line: String) {
        let mut history = unpoisoned(&self.history);
        let seconds = history.began.elapsed().as_secs_f32();
        history.lines.push(format!("{seconds:6.2} {line}"));
    }

    /// The history until now, and the rules that were broken.
    pub fn told(&self) -> (Vec<String>, Vec<String>) {
        let history = unpoisoned(&self.history);
        (history.lines.clone(), history.violations.clone())
    }
}

async fn follow<K: Clone + std::fmt::Debug + k8s_openapi::serde::de::DeserializeOwned + kube::ResourceExt>(
    api: Api<K>,
    hear: impl Fn(WatchEvent<K>),
) -> Result<()> {
    let mut version = "0".to_owned();
    // The API server ends a watch every few minutes.
    loop {
        let events = api.watch(&WatchParams::default(), &version).await?;
        let mut events = std::pin::pin!(events);
        while let Some(event) = events.try_next().await? {
            match &event {
                WatchEvent::Added(object) | WatchEvent::Modified(object) | WatchEvent::Deleted(object) => {
                    version = object.resource_version().unwrap_or_default();
                }
                WatchEvent::Bookmark(bookmark) => version.clone_from(&bookmark.metadata.resource_version),
                // What was missed cannot be judged.
                WatchEvent::Error(error) => bail!("the watch broke: {error:?}"),
            }
            hear(event);
        }
    }
}

/// A status in one line.
pub fn text(standing: &Standing) -> String {
    let Standing { active, ready, terminating, succeeded, failed, .. } = standing;
    let mut text =
        format!("active={active} ready={ready} terminating={terminating} succeeded={succeeded} failed={failed}");
    if standing.is_indexed {
        text += &format!(" completed={:?}", standing.completed_indexes);
    }
    if let Some(indexes) = &standing.failed_indexes {
        text += &format!(" failedIndexes={indexes:?}");
    }
    if standing.n_uncounted > 0 {
        text += &format!(" uncounted={}", standing.n_uncounted);
    }
    for condition in &standing.conditions {
        let not = if condition.is_true { "" } else { "not " };
        text += &format!(" {not}{}({})", condition.type_, condition.reason);
    }
    text
}

/// A pod in one line.
fn says(pod: &Pod) -> String {
    let mut text = phase(pod).to_owned();
    if pod.metadata.deletion_timestamp.is_some() {
        text += " deleted";
    }
    if pod.finalizers().is_empty() {
        text += " released";
    }
    text
}

/// Whoever panicked while holding it leaves nothing half done behind: each change is one statement.
fn unpoisoned<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
