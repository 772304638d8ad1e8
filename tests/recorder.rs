//! Writes down all that happens to pods, jobs of both kinds, leases and events, in the order in which etcd did it.
//!
//! All kinds share etcd's revisions, so what five watches tell is one history. A watch that ends begins again where it
//! ended; one that has missed something says so at the end.

mod changes;
mod timeline;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use batchjob_crd::BatchJob;
use batchjob_oracle::{Change, End, Event, Object, Oracle, Promises, Violation};
use jiff::Timestamp;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::events::v1::Event as News;
use kube::api::{ApiResource, DynamicObject, ListParams};
use kube::{Api, Client};
use serde_json::Value;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::support::wait_for;
pub(crate) use changes::{changes, now, unpoisoned, version};

/// How long it may take until everything that has happened is written down.
const LIMIT: Duration = Duration::from_secs(60);

/// Follows a cluster, or one namespace of it, until it is asked for the history.
pub struct Recorder {
    kinds: Vec<(Api<DynamicObject>, &'static str)>,
    book: Arc<Book>,
    n_events: watch::Receiver<usize>,
    tasks: Vec<JoinHandle<()>>,
}

/// Everything that happened, in order.
#[derive(Clone, Debug, Default)]
pub struct History {
    pub entries: Vec<Entry>,
    /// What the test did, when.
    pub notes: Vec<(Timestamp, String)>,
}

/// What happened to one object, and the whole of it.
#[derive(Clone, Debug)]
pub struct Entry {
    pub event: Event,
    pub json: Value,
}

#[derive(Default)]
struct Book {
    history: Mutex<History>,
    /// What is there, by kind, namespace and name: the revision of its last change.
    latest: Mutex<BTreeMap<(&'static str, String), u64>>,
    broken: Mutex<Option<String>>,
    count: watch::Sender<usize>,
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

impl Recorder {
    /// Begins with what is there. The BatchJobs' definition has to be.
    pub async fn start(client: &Client, namespace: Option<&str>) -> Result<Recorder> {
        let resources = [
            ApiResource::erase::<Pod>(&()),
            ApiResource::erase::<BatchJob>(&()),
            ApiResource::erase::<Job>(&()),
            ApiResource::erase::<Lease>(&()),
            ApiResource::erase::<News>(&()),
        ];
        let names = ["pod", "batchjob", "job", "lease", "event"];
        let api = |resource: &ApiResource| match namespace {
            Some(namespace) => Api::namespaced_with(client.clone(), namespace, resource),
            None => Api::all_with(client.clone(), resource),
        };
        let kinds: Vec<(Api<DynamicObject>, &'static str)> = resources.iter().map(api).zip(names).collect();
        let book = Arc::new(Book::default());
        let n_events = book.count.subscribe();
        let mut tasks = Vec::new();
        for ((api, name), resource) in kinds.iter().zip(resources) {
            let list = api.list(&ListParams::default()).await.with_context(|| format!("list {name}s"))?;
            for mut object in list.items {
                // The items of a list do not say what they are.
                object.types = Some(kube::api::TypeMeta {
                    api_version: resource.api_version.clone(),
                    kind: resource.kind.clone(),
                });
                book.write(name, Change::Added, &object);
            }
            let version = list.metadata.resource_version.context("a version")?;
            tasks.push(tokio::spawn(follow(api.clone(), name, version, book.clone())));
        }
        Ok(Recorder { kinds, book, n_events, tasks })
    }

    /// What the test does itself, for those who read the history.
    pub fn note(&self, words: impl Into<String>) {
        unpoisoned(&self.book.history).notes.push((now(), words.into()));
    }

    /// Until so many changes of objects of that kind, such as "pod", are written down.
    pub async fn until(&mut self, kind: &str, n: usize) -> Result<()> {
        let count = || {
            let history = unpoisoned(&self.book.history);
            history.entries.iter().filter(|entry| entry.event.object.kind() == kind).count()
        };
        let come = tokio::time::timeout(LIMIT, self.n_events.wait_for(|_| count() >= n)).await;
        ensure!(come.is_ok_and(|come| come.is_ok()), "{} of {n} changes of {kind}s after {LIMIT:?}", count());
        Ok(())
    }

    /// Until nothing has happened for so long, but to leases. Answers with when that began.
    pub async fn until_quiet(&self, quiet: Duration, limit: Duration) -> Result<Timestamp> {
        let began = Instant::now();
        let latest = || {
            let history = unpoisoned(&self.book.history);
            history.entries.iter().rev().find(|entry| entry.event.object.kind() != "lease").map(|entry| entry.event.at)
        };
        loop {
            let since = latest().unwrap_or(Timestamp::UNIX_EPOCH);
            let silent = Duration::try_from(now().duration_since(since)).unwrap_or_default();
            if silent >= quiet {
                return Ok(since);
            }
            ensure!(began.elapsed() < limit, "something still happens after {limit:?}");
            tokio::time::sleep(quiet - silent).await;
        }
    }

    /// All that has happened until now.
    pub async fn finish(self) -> Result<History> {
        let has_all = async || {
            if let Some(broken) = &*unpoisoned(&self.book.broken) {
                bail!("{broken}");
            }
            let mut there = BTreeMap::new();
            for (api, name) in &self.kinds {
                for object in api.list_metadata(&ListParams::default()).await?.items {
                    there.insert((*name, place(&object.metadata)), version(&object.metadata));
                }
            }
            // Leases are renewed all the time.
            there.retain(|(name, _), _| *name != "lease");
            let mut latest = unpoisoned(&self.book.latest).clone();
            latest.retain(|(name, _), _| *name != "lease");
            Ok((there == latest).then_some(()))
        };
        wait_for("all that has happened is written down", LIMIT, has_all).await?;
        if let Some(broken) = &*unpoisoned(&self.book.broken) {
            bail!("{broken}");
        }
        let mut history = std::mem::take(&mut *unpoisoned(&self.book.history));
        history.entries.sort_by_key(|entry| entry.event.revision);
        Ok(history)
    }
}

impl Book {
    fn write(&self, kind: &'static str, change: Change, object: &DynamicObject) {
        let json = serde_json::to_value(object).unwrap_or_default();
        let (key, revision) = ((kind, place(&object.metadata)), version(&object.metadata));
        let event = Event { revision, at: now(), change, object: Object::read(&json), writer: None };
        {
            let mut latest = unpoisoned(&self.latest);
            match change {
                Change::Deleted => drop(latest.remove(&key)),
                Change::Added | Change::Modified => drop(latest.insert(key, revision)),
            }
        }
        unpoisoned(&self.history).entries.push(Entry { event, json });
        self.count.send_modify(|n| *n += 1);
    }
}

async fn follow(api: Api<DynamicObject>, kind: &'static str, mut version: String, book: Arc<Book>) {
    const PAUSE: Duration = Duration::from_millis(100);
    loop {
        match changes(&api, &mut version, |change, object| book.write(kind, change, &object)).await {
            Ok(()) => {}
            Err(kube::Error::Api(status)) if status.code == 410 => {
                let words = format!("changes of {kind}s are missing after version {version}: {}", status.message);
                *unpoisoned(&book.broken) = Some(words);
                return;
            }
            // The API server is away.
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    }
}

impl History {
    pub fn events(&self) -> impl Iterator<Item = &Event> {
        self.entries.iter().map(|entry| &entry.event)
    }

    /// What is broken, each with the history of the job that it is about.
    pub fn judge(&self, promises: Promises, end: End) -> Vec<Violation> {
        let mut oracle = Oracle::new(promises);
        self.events().for_each(|event| oracle.see(event));
        oracle.finish(end)
    }

    /// The uids of all jobs, of either kind.
    pub fn jobs(&self) -> Vec<String> {
        let is_job = |event: &&Event| matches!(event.object, Object::Job(_) | Object::BatchJob(_));
        let added = self.events().filter(is_job).filter(|event| event.change == Change::Added);
        added.map(|event| event.object.meta().uid.to_string()).collect()
    }

    /// What happened in one namespace.
    pub fn of_namespace(&self, namespace: &str) -> History {
        let is_there = |entry: &&Entry| &*entry.event.object.meta().namespace == namespace;
        History { entries: self.entries.iter().filter(is_there).cloned().collect(), notes: self.notes.clone() }
    }
}

fn place(meta: &kube::core::ObjectMeta) -> String {
    format!("{}/{}", meta.namespace.as_deref().unwrap_or_default(), meta.name.as_deref().unwrap_or_default())
}
