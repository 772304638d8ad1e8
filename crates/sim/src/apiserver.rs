//! An API server in memory: the kinds that the operator, its users and the kubelet write, with the semantics of the real
//! one, at tens of thousands of requests a second.
//!
//! It is deterministic: the same requests at the same times get the same answers, uids and revisions included. It has no
//! faults and never waits; who stands between it and a client decides what is delayed, lost or cut off. Whether it is
//! honest is asked by `tests/api/in_memory.rs`, which sends the same requests to it and to the real one.
//!
//! | file | knows |
//! |---|---|
//! | `route`, `selector` | what a request asks for |
//! | `store` | objects, revisions and the log of changes, as etcd has them |
//! | `write`, `delete`, `patch` | the generic registry: conflicts, preconditions, finalizers, graceful deletion |
//! | `decode`, `strategy`, `job_status` | what is of one kind: defaults, generation, what may not be changed |
//! | `watch` | cursors over the log |
//! | `gc` | the garbage collector, one write at a time |
//! | `connection` | kube's client on top of it |
//!
//! What it does not do: check whether a new object is valid (schema, CEL rules, names), and set defaults that nobody here
//! reads. Namespaces need not exist. Server-side apply, JSON patches, field selectors, deletion of collections and
//! `$setElementOrder` are refused, loudly.
//!
//! Where the two are known to differ, and nobody who writes here could tell: the words of a refusal, but for those of
//! `NotFound`, `AlreadyExists` and an outdated version; the cause `<nil>` of a 422, which says that a schema's rules were
//! not asked; `managedFields`; the token of a list that goes on; a watch from the future, which is not refused; and the
//! garbage collector, which is never behind and collects nothing before it is told to.

pub mod connection;
mod decode;
mod delete;
pub mod gc;
mod job_status;
mod kind;
mod patch;
mod refusal;
mod route;
mod selector;
mod store;
mod strategy;
mod watch;
mod write;

use std::ops::Bound;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{Method, Request, header};
use serde_json::{Value, json};

use delete::Options;
use route::{Part, Query, Route, not_allowed};
use store::Store;
use watch::lock;
use write::{Answered, Target};

pub use kind::Kind;
pub use refusal::{Cause, Refusal};
pub use store::{Admission, Change, Clock, Tap, Written};
pub use watch::{Cursor, Told, WatchEvent};

/// Says who sends a request, where the user agent would not tell.
pub const CALLER: &str = "x-caller";

/// The API server; clones are the same one.
#[derive(Clone)]
pub struct ApiServer {
    store: Arc<Mutex<Store>>,
}

/// What a request is answered with.
pub enum Answer {
    Done { code: u16, body: Bytes },
    Watch(Cursor),
}

impl ApiServer {
    /// An empty one; the uids of its objects follow from the seed.
    pub fn new(clock: Clock, seed: u64) -> ApiServer {
        ApiServer { store: Arc::new(Mutex::new(Store::new(clock, seed))) }
    }

    /// Calls the tap for every change from now on.
    pub fn on_write(&self, tap: Tap) {
        lock(&self.store).taps.push(tap);
    }

    /// Asks the function about every object that is to be created, and refuses it if it says so.
    pub fn set_admission(&self, admission: Option<Admission>) {
        lock(&self.store).admission = admission;
    }

    /// The revision of the last change.
    pub fn revision(&self) -> u64 {
        lock(&self.store).revision
    }

    /// What came up to that revision is forgotten.
    pub fn compacted(&self) -> u64 {
        lock(&self.store).compacted
    }

    /// How many events were written: they are not kept.
    pub fn n_events(&self) -> u64 {
        lock(&self.store).n_events
    }

    /// Forgets what has changed up to that revision: a watch that has not yet told it cannot go on (410).
    pub fn compact(&self, revision: u64) {
        lock(&self.store).compact(revision);
    }

    /// Looks at an object, without a request.
    pub fn with_object<T>(&self, kind: Kind, namespace: &str, name: &str, look: impl FnOnce(&Value) -> T) -> Option<T> {
        lock(&self.store).find(kind, &store::key(namespace, name)).map(|object| look(&object.value))
    }

    /// Looks at every object of a kind, in the order of namespace and name.
    pub fn for_each(&self, kind: Kind, mut look: impl FnMut(&Value)) {
        for object in lock(&self.store).table(kind).objects.values() {
            look(&object.value);
        }
    }

    /// Answers a request, at once and wholly before the next one.
    pub fn serve(&self, request: &Request<Bytes>) -> Answer {
        self.answer(request).unwrap_or_else(|refusal| Answer::Done { code: refusal.code, body: refusal.body() })
    }

    fn answer(&self, request: &Request<Bytes>) -> Result<Answer, Refusal> {
        let route = Route::of(request.uri(), request.method())?;
        let query = Query::of(request.uri())?;
        let store = &mut *lock(&self.store);
        let done = |(code, body): Answered| Answer::Done { code, body };
        let (Some(namespace), Some(name)) = (route.namespace, route.name) else {
            return match *request.method() {
                Method::GET if query.is_watch => {
                    Cursor::open(&self.store, store, route.kind, route.namespace, query).map(Answer::Watch)
                }
                Method::GET => list(store, &route, &query).map(done),
                Method::POST => {
                    let namespace = route.namespace.ok_or_else(not_allowed)?;
                    if query.is_dry_run {
                        return Err(Refusal::bad_request("the API server in memory knows no dry run"));
                    }
                    store.create(route.kind, namespace, json_body(request)?, who(request)).map(done)
                }
                _ => Err(not_allowed()),
            };
        };
        let target = Target { kind: route.kind, namespace, name, who: who(request) };
        match (route.part, request.method()) {
            _ if query.is_dry_run => Err(Refusal::bad_request("the API server in memory knows no dry run")),
            (Part::Binding, _) => store.bind(target, &json_body(request)?),
            (Part::Eviction, _) => store.evict(target, &json_body(request)?),
            (_, &Method::GET) => {
                let object = store.find(target.kind, &target.key()).ok_or_else(|| target.not_found())?;
                Ok((200, object.bytes.clone()))
            }
            (part, &Method::PUT) => store.replace(target, part, json_body(request)?),
            (_, &Method::PATCH) if target.kind == Kind::Event => Ok((200, Bytes::from_static(b"{}"))),
            (part, &Method::PATCH) => patch_object(store, target, part, request),
            (Part::Whole, &Method::DELETE) => store.delete(target, &Options::of(request.body(), &query)?),
            _ => Err(not_allowed()),
        }
        .map(done)
    }
}

fn patch_object(
    store: &mut Store,
    target: Target<'_>,
    part: Part,
    request: &Request<Bytes>,
) -> Result<Answered, Refusal> {
    let patch = json_body(request)?;
    let form = request.headers().get(header::CONTENT_TYPE).and_then(|form| form.to_str().ok()).unwrap_or_default();
    match form {
        "application/merge-patch+json" => store.update(target, part, |old| {
            let mut new = old.clone();
            json_patch::merge(&mut new, &patch);
            Ok(new)
        }),
        "application/strategic-merge-patch+json" if target.kind.is_built_in() => store.update(target, part, |old| {
            let mut new = old.clone();
            match (&mut new, patch) {
                (Value::Object(new), Value::Object(patch)) => patch::strategic(new, patch)?,
                _ => return Err(Refusal::bad_request("a patch is an object")),
            }
            Ok(new)
        }),
        _ => Err(Refusal::new(
            415,
            "UnsupportedMediaType",
            format!("the body of the request was in an unknown format - {form:?}"),
        )),
    }
}

fn list(store: &Store, route: &Route<'_>, query: &Query) -> Result<Answered, Refusal> {
    // "revision/key": what comes after the key, as it was at the revision.
    let (revision, after) = match query.continue_token.split_once('/') {
        Some((revision, after)) => match revision.parse::<u64>() {
            Ok(revision) => (revision, Some(after)),
            Err(_) => return Err(Refusal::bad_request("continue key is not valid")),
        },
        None if query.continue_token.is_empty() => (store.revision, None),
        None => return Err(Refusal::bad_request("continue key is not valid")),
    };
    if revision < store.compacted {
        return Err(Refusal::expired(
            "The provided continue parameter is too old to display a consistent list result.".to_owned(),
        ));
    }
    let table = store.table(route.kind);
    let is_past = table.log.back().is_some_and(|entry| entry.revision > revision);
    let snapshot = is_past.then(|| store.snapshot(route.kind, revision));
    let prefix = route.namespace.map(|namespace| format!("{namespace}/")).unwrap_or_default();
    let objects = snapshot.as_ref().unwrap_or(&table.objects);
    let from: &str = after.filter(|after| *after >= &*prefix).unwrap_or(&prefix);
    let mut there = objects
        .range::<str, _>((Bound::Included(from), Bound::Unbounded))
        .take_while(|(key, _)| key.starts_with(&prefix))
        .filter(|(key, _)| after != Some(key));

    let mut body = Vec::with_capacity(1024);
    let mut last = "";
    let limit = if query.limit == 0 { usize::MAX } else { query.limit };
    let mut items = Vec::new();
    let found = there.by_ref().filter(|(_, object)| query.selector.matches(&object.value));
    for (key, object) in found.take(limit) {
        last = key;
        if !items.is_empty() {
            items.push(b',');
        }
        items.extend_from_slice(&object.bytes);
    }
    // Whether they are to be found by the selector is not looked at: the next page may be empty.
    let n_left = there.count();
    let mut metadata = json!({ "resourceVersion": revision.to_string() });
    if n_left > 0 {
        metadata["continue"] = format!("{revision}/{last}").into();
        if query.selector.is_empty() {
            metadata["remainingItemCount"] = n_left.into();
        }
    }
    let (kind, version) = (route.kind.name(), route.kind.api_version());
    let head = format!(r#"{{"kind":"{kind}List","apiVersion":"{version}","metadata":{metadata},"items":["#);
    body.extend_from_slice(head.as_bytes());
    body.extend_from_slice(&items);
    body.extend_from_slice(b"]}");
    Ok((200, body.into()))
}

fn json_body(request: &Request<Bytes>) -> Result<Value, Refusal> {
    serde_json::from_slice(request.body()).map_err(|error| Refusal::bad_request(format!("the body: {error}")))
}

fn who(request: &Request<Bytes>) -> &str {
    let named = request.headers().get(CALLER).or_else(|| request.headers().get(header::USER_AGENT));
    named.and_then(|who| who.to_str().ok()).unwrap_or_default()
}
