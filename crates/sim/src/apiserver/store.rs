//! What is kept: objects, and every change of them in one order over all kinds, as etcd keeps it.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;
use serde_json::Value;
use tokio::sync::Notify;

use super::gc::Graph;
use super::kind::Kind;
use super::refusal::Refusal;
use crate::random::Random;

/// The time, as the API server knows it.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;
/// Is told of every change, in order. It must not ask the API server anything.
pub type Tap = Box<dyn FnMut(&Written<'_>) + Send>;
/// Refuses creates that it does not like, as admission does.
pub type Admission = Box<dyn FnMut(Kind, &Value) -> Result<(), Refusal> + Send>;

/// What happened to an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    Added,
    Modified,
    Deleted,
}

impl Change {
    pub fn word(self) -> &'static str {
        match self {
            Change::Added => "ADDED",
            Change::Modified => "MODIFIED",
            Change::Deleted => "DELETED",
        }
    }
}

/// A change, as a tap is told of it.
#[derive(Debug)]
pub struct Written<'a> {
    pub revision: u64,
    pub at: Timestamp,
    pub kind: Kind,
    pub change: Change,
    /// As it is after the change; of one that was deleted, what it was, with the revision of the deletion.
    pub object: &'a Value,
    /// Who did it: the request's `x-caller`, else its user agent.
    pub who: &'a str,
}

/// An object in one of its versions.
#[derive(Debug)]
pub(super) struct Object {
    pub value: Value,
    /// The same as JSON text: it is served many times.
    pub bytes: Bytes,
    pub revision: u64,
    /// A default is told that is not in etcd, until the next write of any kind puts it there: so far that one changes
    /// something, even if it seems to change nothing.
    pub has_unstored_default: bool,
}

impl Object {
    pub fn uid(&self) -> &str {
        self.value["metadata"]["uid"].as_str().unwrap_or_default()
    }

    pub fn is_being_deleted(&self) -> bool {
        self.value["metadata"].get("deletionTimestamp").is_some()
    }
}

/// One change in the log.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub revision: u64,
    pub change: Change,
    pub object: Arc<Object>,
    /// What it was before.
    pub previous: Option<Arc<Object>>,
}

/// The objects of one kind.
pub(super) struct Table {
    /// By "namespace/name": in the order of etcd's keys.
    pub objects: BTreeMap<String, Arc<Object>>,
    pub log: VecDeque<Entry>,
    /// Told of every change: those who wait for one, in the order in which they began to wait. (A `watch` channel wakes
    /// them in an order that is drawn by chance.)
    pub changed: Arc<Notify>,
}

impl Table {
    fn new() -> Table {
        Table { objects: BTreeMap::new(), log: VecDeque::new(), changed: Arc::default() }
    }

    /// The objects of a namespace, or of all.
    pub fn of_namespace<'a>(&'a self, namespace: Option<&str>) -> impl Iterator<Item = (&'a String, &'a Arc<Object>)> {
        let prefix = namespace.map(|namespace| format!("{namespace}/")).unwrap_or_default();
        let from = (Bound::Included(prefix.clone()), Bound::Unbounded);
        self.objects.range::<String, _>(from).take_while(move |(key, _)| key.starts_with(&prefix))
    }
}

pub(super) struct Store {
    pub clock: Clock,
    seed: u64,
    n_uids: u64,
    pub revision: u64,
    /// What came up to this revision is forgotten.
    pub compacted: u64,
    tables: [Table; Kind::ALL.len()],
    pub graph: Graph,
    pub taps: Vec<Tap>,
    pub admission: Option<Admission>,
    /// Events are counted, not kept.
    pub n_events: u64,
}

impl Store {
    pub fn new(clock: Clock, seed: u64) -> Store {
        Store {
            clock,
            seed,
            n_uids: 0,
            revision: 1,
            compacted: 0,
            tables: Kind::ALL.map(|_| Table::new()),
            graph: Graph::default(),
            taps: Vec::new(),
            admission: None,
            n_events: 0,
        }
    }

    pub fn table(&self, kind: Kind) -> &Table {
        &self.tables[kind.index()]
    }

    pub fn find(&self, kind: Kind, key: &str) -> Option<&Arc<Object>> {
        self.table(kind).objects.get(key)
    }

    pub fn now(&self) -> Timestamp {
        (self.clock)()
    }

    /// Without fractions, as all times of metadata are written.
    pub fn time(&self) -> Value {
        text_of(self.now()).into()
    }

    /// The next uid: of the shape of a real one, and the same in every run of the same seed.
    pub fn next_uid(&mut self) -> String {
        self.n_uids += 1;
        let mixed = |number| Random::seeded(number).number();
        let high = mixed(self.seed ^ mixed(self.n_uids));
        let low = mixed(high ^ self.n_uids);
        format!(
            "{:08x}-{:04x}-4{:03x}-{:04x}-{:012x}",
            high >> 32,
            (high >> 16) & 0xffff,
            high & 0xfff,
            0x8000 | ((low >> 48) & 0x3fff),
            low & 0xffff_ffff_ffff
        )
    }

    /// Puts an object or a new version of it.
    pub fn put(
        &mut self,
        kind: Kind,
        key: &str,
        mut value: Value,
        has_unstored_default: bool,
        who: &str,
    ) -> Arc<Object> {
        self.revision += 1;
        let revision = self.revision;
        value["metadata"]["resourceVersion"] = revision.to_string().into();
        let object = Arc::new(Object { bytes: text(&value), value, revision, has_unstored_default });
        let objects = &mut self.tables[kind.index()].objects;
        let previous = match objects.get_mut(key) {
            Some(there) => Some(std::mem::replace(there, object.clone())),
            None => objects.insert(key.to_owned(), object.clone()),
        };
        let change = if previous.is_some() { Change::Modified } else { Change::Added };
        self.graph.put(kind, key, previous.as_deref(), &object);
        self.record(kind, Entry { revision, change, object: object.clone(), previous }, who);
        object
    }

    /// Takes an object out; answers with what it was, with the revision of its end.
    pub fn remove(&mut self, kind: Kind, key: &str, who: &str) -> Option<Arc<Object>> {
        let previous = self.tables[kind.index()].objects.remove(key)?;
        self.revision += 1;
        let revision = self.revision;
        let object = at_revision(&previous, revision);
        self.graph.remove(kind, &object);
        let entry = Entry { revision, change: Change::Deleted, object: object.clone(), previous: Some(previous) };
        self.record(kind, entry, who);
        Some(object)
    }

    fn record(&mut self, kind: Kind, entry: Entry, who: &str) {
        if !self.taps.is_empty() {
            let at = self.now();
            let (revision, change, object) = (entry.revision, entry.change, &entry.object.value);
            for tap in &mut self.taps {
                tap(&Written { revision, at, kind, change, object, who });
            }
        }
        let table = &mut self.tables[kind.index()];
        table.log.push_back(entry);
        table.changed.notify_waiters();
    }

    /// Forgets what came up to the revision.
    pub fn compact(&mut self, revision: u64) {
        self.compacted = self.compacted.max(revision.min(self.revision));
        for table in &mut self.tables {
            while table.log.front().is_some_and(|entry| entry.revision <= self.compacted) {
                table.log.pop_front();
            }
        }
    }

    /// The objects of a kind as they were at a revision that is not yet forgotten.
    pub fn snapshot(&self, kind: Kind, revision: u64) -> BTreeMap<String, Arc<Object>> {
        let table = self.table(kind);
        let mut objects = table.objects.clone();
        for entry in table.log.iter().rev().take_while(|entry| entry.revision > revision) {
            let key = key_of(&entry.object.value);
            match &entry.previous {
                Some(previous) => objects.insert(key, previous.clone()),
                None => objects.remove(&key),
            };
        }
        objects
    }
}

/// The same object with another revision on it: as a watch tells of what has left it.
pub(super) fn at_revision(object: &Object, revision: u64) -> Arc<Object> {
    let mut value = object.value.clone();
    value["metadata"]["resourceVersion"] = revision.to_string().into();
    Arc::new(Object { bytes: text(&value), value, revision, has_unstored_default: object.has_unstored_default })
}

pub(super) fn key(namespace: &str, name: &str) -> String {
    let mut key = String::with_capacity(namespace.len() + 1 + name.len());
    key.push_str(namespace);
    key.push('/');
    key.push_str(name);
    key
}

fn key_of(value: &Value) -> String {
    let text = |field: &str| value["metadata"][field].as_str().unwrap_or_default();
    key(text("namespace"), text("name"))
}

pub(super) fn text_of(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

fn text(value: &Value) -> Bytes {
    let mut text = Vec::with_capacity(2048);
    // A `Value` has nothing that JSON cannot write, and a `Vec` takes everything.
    serde_json::to_writer(&mut text, value).unwrap_or_default();
    text.into()
}
