//! Watches: what changed after a revision, one event after the other.

use std::collections::VecDeque;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::{BufMut as _, Bytes, BytesMut};
use serde_json::json;
use tokio::sync::Notify;

use super::kind::Kind;
use super::refusal::Refusal;
use super::route::Query;
use super::selector::Selector;
use super::store::{Change, Entry, Object, Store, at_revision};

/// What a watch tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    Changed(Change),
    Bookmark,
    /// The watch cannot go on: what comes next is forgotten. Nothing comes after it.
    Expired,
}

/// One event of a watch.
#[derive(Clone, Debug)]
pub struct WatchEvent {
    pub kind: Kind,
    pub told: Told,
    /// Of the change; of a bookmark, the revision up to which the watch has told everything.
    pub revision: u64,
    /// As it is sent, with its newline.
    pub line: Bytes,
}

/// A watch that has told everything up to some revision. It never waits by itself: who holds it decides when an event is
/// delivered, or lost, and when the watch ends.
pub struct Cursor {
    store: Arc<Mutex<Store>>,
    changed: Arc<Notify>,
    kind: Kind,
    namespace: Option<String>,
    selector: Selector,
    revision: u64,
    /// What was there when a watch began that named no revision.
    initial: VecDeque<WatchEvent>,
    is_over: bool,
    /// How long the client wants to be told.
    pub timeout: Option<Duration>,
    pub allow_bookmarks: bool,
}

impl Cursor {
    pub(super) fn open(
        shared: &Arc<Mutex<Store>>,
        store: &Store,
        kind: Kind,
        namespace: Option<&str>,
        query: Query,
    ) -> Result<Cursor, Refusal> {
        let table = store.table(kind);
        let mut initial = VecDeque::new();
        let mut revision = query.resource_version;
        if revision == 0 {
            revision = store.revision;
            let there = table.of_namespace(namespace).filter(|(_, object)| query.selector.matches(&object.value));
            initial.extend(there.map(|(_, object)| event(kind, Change::Added, object)));
        } else if revision < store.compacted {
            return Err(expired(revision, store.compacted));
        }
        Ok(Cursor {
            store: shared.clone(),
            changed: table.changed.clone(),
            kind,
            namespace: namespace.map(str::to_owned),
            selector: query.selector,
            revision,
            initial,
            is_over: false,
            timeout: query.timeout_seconds.map(|seconds| Duration::from_secs(seconds.into())),
            allow_bookmarks: query.allow_bookmarks,
        })
    }

    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The revision up to which everything has been told.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// The next event, if there is one by now.
    pub fn try_next(&mut self) -> Option<WatchEvent> {
        if let Some(event) = self.initial.pop_front() {
            return Some(event);
        }
        if self.is_over {
            return None;
        }
        let store = self.store.clone();
        let store = lock(&store);
        if self.revision < store.compacted {
            self.is_over = true;
            let refusal = expired(self.revision, store.compacted);
            let line = format!("{}\n", json!({ "type": "ERROR", "object": refusal.status() })).into();
            return Some(WatchEvent { kind: self.kind, told: Told::Expired, revision: store.revision, line });
        }
        let log = &store.table(self.kind).log;
        let begin = log.partition_point(|entry| entry.revision <= self.revision);
        for entry in log.range(begin..) {
            self.revision = entry.revision;
            if let Some(event) = self.event(entry) {
                return Some(event);
            }
        }
        self.revision = self.revision.max(store.revision);
        None
    }

    /// Returns once something of the kind has changed since the last `try_next` that found nothing. Its future may be
    /// dropped at any time.
    pub async fn changed(&mut self) {
        let mut changed = pin!(self.changed.notified());
        // From here on nothing is missed.
        changed.as_mut().enable();
        let is_behind = {
            let store = lock(&self.store);
            store.table(self.kind).log.back().is_some_and(|entry| entry.revision > self.revision)
                || store.compacted > self.revision
        };
        if !is_behind {
            changed.await;
        }
    }

    /// Says how far the watch is.
    pub fn bookmark(&self) -> WatchEvent {
        let object = json!({
            "kind": self.kind.name(),
            "apiVersion": self.kind.api_version(),
            "metadata": { "resourceVersion": self.revision.to_string(), "creationTimestamp": null },
        });
        let line = format!("{}\n", json!({ "type": "BOOKMARK", "object": object })).into();
        WatchEvent { kind: self.kind, told: Told::Bookmark, revision: self.revision, line }
    }

    fn event(&self, entry: &Entry) -> Option<WatchEvent> {
        if let Some(namespace) = &self.namespace
            && entry.object.value["metadata"]["namespace"] != **namespace
        {
            return None;
        }
        if self.selector.is_empty() {
            return Some(event(self.kind, entry.change, &entry.object));
        }
        let was = entry.previous.as_ref().filter(|previous| self.selector.matches(&previous.value));
        let is = entry.change != Change::Deleted && self.selector.matches(&entry.object.value);
        match (was, is) {
            (None, false) => None,
            (None, true) => Some(event(self.kind, Change::Added, &entry.object)),
            (Some(_), true) => Some(event(self.kind, Change::Modified, &entry.object)),
            (Some(_), false) if entry.change == Change::Deleted => {
                Some(event(self.kind, Change::Deleted, &entry.object))
            }
            // It is as it was when it was last seen, with the revision of the change that took it out of sight.
            (Some(previous), false) => Some(event(self.kind, Change::Deleted, &at_revision(previous, entry.revision))),
        }
    }
}

pub(super) fn lock(store: &Mutex<Store>) -> MutexGuard<'_, Store> {
    // A tap that panicked has failed its test already; what was written stays as it is.
    store.lock().unwrap_or_else(PoisonError::into_inner)
}

fn event(kind: Kind, change: Change, object: &Object) -> WatchEvent {
    let mut line = BytesMut::with_capacity(object.bytes.len() + 40);
    line.put_slice(b"{\"type\":\"");
    line.put_slice(change.word().as_bytes());
    line.put_slice(b"\",\"object\":");
    line.put_slice(&object.bytes);
    line.put_slice(b"}\n");
    WatchEvent { kind, told: Told::Changed(change), revision: object.revision, line: line.freeze() }
}

fn expired(revision: u64, compacted: u64) -> Refusal {
    Refusal::expired(format!("too old resource version: {revision} ({compacted})"))
}
