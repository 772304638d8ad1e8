//! A list and then its changes, for ever: the one loop behind all caches.
//!
//! Our own rather than kube's `watcher`, for four reasons: a pod is turned into its small record as soon as its page is
//! read; every list is a consistent read; a list that keeps being refused is retried ever more slowly, and one that the API
//! server has only no answer for within seconds; and a connection that died in silence is noticed within a minute.

use std::fmt::Debug;
use std::time::Duration;

use futures::StreamExt as _;
use futures::pin_mut;
use kube::Api;
use kube::api::{ListParams, WatchEvent, WatchParams};
use kube::core::Resource;
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

/// How many objects one page of a list has: what kubectl and client-go ask for.
const PAGE: u32 = 500;
/// The API server ends a watch after this time, and the next one goes on where it stopped.
const WATCH_SECONDS: u32 = 45;
/// A watch that says nothing for so long has lost its connection.
const WATCH_SILENCE: Duration = Duration::from_secs(WATCH_SECONDS as u64 + 10);
const _: () = assert!(WATCH_SILENCE.as_secs() < 60, "a dead watch is noticed within a minute");
/// After so many failures in a row the version that is watched from may be what is wrong (an etcd that was restored from a
/// backup has never seen it), and a new list finds out.
const MAX_FAILED_WATCHES: u32 = 6;
/// A watch that lasts less than this is no success.
const MIN_WATCH: Duration = Duration::from_secs(1);
const MIN_BACKOFF: Duration = Duration::from_millis(250);
/// What the API server has no answer for, it may have one for at any moment. (While it does not answer at all, the link
/// holds all requests back.)
const MAX_BACKOFF_UNANSWERED: Duration = Duration::from_secs(2);
/// What it refuses it refuses until somebody does something about it.
const MAX_BACKOFF_REFUSED: Duration = Duration::from_secs(30);

/// What a cache is told.
#[derive(Debug)]
pub enum Change<T> {
    /// All that there is, as of `version`. What the cache has that is newer stays.
    Replaced {
        objects: Vec<T>,
        version: u64,
    },
    Applied(T),
    Deleted(T),
}

/// Something with a cache.
pub trait Sink: Send {
    /// What is kept of an object.
    type Record: Send;
    /// What comes over the wire.
    type Wire: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static;

    const KIND: &'static str;
    /// What to do where the API server does not know the kind.
    const WHERE_FROM: &'static str;
    /// What to do where the API server does not let us read the kind.
    const WHAT_ALLOWS: &'static str;

    /// None: it is nothing of ours, and is dropped.
    fn record(wire: Self::Wire) -> Option<Self::Record>;
    fn change(&mut self, change: Change<Self::Record>);
}

/// Lets somebody wait until a cache knows all that was written before he asked.
#[derive(Clone, Debug, Default)]
pub struct Reach {
    /// How often it was asked.
    asked: watch::Sender<u64>,
    /// How many of these were answered, by a list that began after them.
    reached: watch::Sender<u64>,
    /// When the API server said something last.
    heard: watch::Sender<Heard>,
}

/// From the beginning on: a watch that is new has heard of nothing yet.
#[derive(Clone, Copy, Debug)]
struct Heard(Instant);

impl Default for Heard {
    fn default() -> Heard {
        Heard(Instant::now())
    }
}

impl Reach {
    /// Until the cache knows all that is written now. A quiet watch cannot say how far it is: a new list can, and what it
    /// brings is mostly known.
    pub async fn now(&self) {
        let mut number = 0;
        self.asked.send_modify(|asked| {
            *asked += 1;
            number = *asked;
        });
        // The sender is `self`.
        let _ = self.reached.subscribe().wait_for(|&reached| reached >= number).await;
    }

    /// When the API server said something last, be it a refusal.
    pub fn heard_at(&self) -> Instant {
        self.heard.borrow().0
    }

    /// It has said something.
    pub(crate) fn hear(&self) {
        self.heard.send_replace(Heard::default());
    }

    /// Until somebody asks who has not been answered.
    async fn is_asked(&self) {
        let reached = *self.reached.borrow();
        let _ = self.asked.subscribe().wait_for(|&asked| asked > reached).await;
    }
}

/// Never ends; an error is logged and what failed is tried again. `lists` is called whenever it begins anew.
pub async fn run<S: Sink>(
    api: Api<S::Wire>,
    selector: Option<&'static str>,
    request_timeout: Duration,
    mut sink: S,
    reach: Reach,
    lists: impl Fn(),
) {
    let mut backoff = Backoff::default();
    loop {
        lists();
        let asked = *reach.asked.borrow();
        match list(&api, selector, request_timeout, &mut sink).await {
            Ok(version) => {
                reach.hear();
                reach.reached.send_replace(asked);
                let began_at = Instant::now();
                tokio::select! {
                    biased;
                    () = reach.is_asked() => continue,
                    () = follow(&api, selector, request_timeout, version, &mut sink, &reach) => {}
                }
                // A list is no success if what follows it ends at once.
                if began_at.elapsed() < MIN_WATCH {
                    backoff.wait(MAX_BACKOFF_UNANSWERED).await;
                } else {
                    backoff.reset();
                }
            }
            Err(error) => {
                if error.is_said() {
                    reach.hear();
                }
                let max = error.max_backoff();
                match error.code() {
                    Some(404) => tracing::warn!("the API server knows no {}: {}", S::KIND, S::WHERE_FROM),
                    Some(403) => {
                        tracing::error!(%error, "the operator may not read any {}: {}", S::KIND, S::WHAT_ALLOWS);
                    }
                    _ => {
                        tracing::warn!(kind = S::KIND, %error, "failed to list; trying again in {:?}", backoff.next(max))
                    }
                }
                backoff.wait(max).await;
            }
        }
    }
}

/// Fills the cache; answers with the version to watch from.
async fn list<S: Sink>(
    api: &Api<S::Wire>,
    selector: Option<&str>,
    request_timeout: Duration,
    sink: &mut S,
) -> Result<String, Failure> {
    let mut params = ListParams { label_selector: selector.map(str::to_owned), ..ListParams::default() }.limit(PAGE);
    let mut objects = Vec::new();
    loop {
        // No resourceVersion: the API server answers with what is true now (a consistent read), not with its cache.
        let page = timeout(request_timeout, api.list(&params)).await.map_err(|_| Failure::TimedOut)??;
        objects.extend(page.items.into_iter().filter_map(S::record));
        let version = page.metadata.resource_version.unwrap_or_default();
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params.continue_token = Some(token),
            None => {
                sink.change(Change::Replaced { objects, version: super::version(&version) });
                return Ok(version);
            }
        }
    }
}

/// Why there is no list, or no watch.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Client(#[from] kube::Error),
    #[error("no answer in time")]
    TimedOut,
}

impl Failure {
    /// The HTTP status of the answer, if there was one.
    fn code(&self) -> Option<u16> {
        match self {
            Failure::Client(kube::Error::Api(status)) => Some(status.code),
            _ => None,
        }
    }

    /// The API server knows us, and what it says is not ours to mend.
    fn is_said(&self) -> bool {
        self.code().is_some_and(|code| code != 401)
    }

    fn max_backoff(&self) -> Duration {
        match self.code() {
            // It does not know us (a token is renewed), is too busy, or cannot do it just now.
            None | Some(401 | 408 | 410 | 429 | 500..) => MAX_BACKOFF_UNANSWERED,
            Some(_) => MAX_BACKOFF_REFUSED,
        }
    }
}

/// Passes on every change from `version` on; ends when only a new list can help.
async fn follow<S: Sink>(
    api: &Api<S::Wire>,
    selector: Option<&str>,
    request_timeout: Duration,
    mut version: String,
    sink: &mut S,
    reach: &Reach,
) {
    let mut params = WatchParams::default().timeout(WATCH_SECONDS);
    params.label_selector = selector.map(str::to_owned);
    let mut backoff = Backoff::default();
    // Of those that were answered: a server that is away says nothing about a version.
    let mut n_refused = 0;
    loop {
        let opened_at = Instant::now();
        let opened = timeout(request_timeout, api.watch(&params, &version)).await;
        let opened = opened.map_err(|_| Failure::TimedOut).and_then(|opened| Ok(opened?));
        let stream = match opened {
            Ok(stream) => stream,
            Err(failure) if failure.code() == Some(410) => return,
            Err(error) => {
                let max = error.max_backoff();
                tracing::warn!(kind = S::KIND, %error, "failed to watch; trying again in {:?}", backoff.next(max));
                if error.is_said() {
                    reach.hear();
                    n_refused += 1;
                    if n_refused > MAX_FAILED_WATCHES {
                        return;
                    }
                }
                backoff.wait(max).await;
                continue;
            }
        };
        reach.hear();
        pin_mut!(stream);
        while let Ok(Some(event)) = timeout(WATCH_SILENCE, stream.next()).await {
            match event {
                Ok(WatchEvent::Added(object) | WatchEvent::Modified(object)) => {
                    remember(&mut version, &object);
                    if let Some(record) = S::record(object) {
                        sink.change(Change::Applied(record));
                    }
                }
                Ok(WatchEvent::Deleted(object)) => {
                    remember(&mut version, &object);
                    if let Some(record) = S::record(object) {
                        sink.change(Change::Deleted(record));
                    }
                }
                Ok(WatchEvent::Bookmark(bookmark)) => version = bookmark.metadata.resource_version,
                // 410: the API server no longer has what came after our version.
                Ok(WatchEvent::Error(status)) if status.code == 410 => return,
                Ok(WatchEvent::Error(status)) => {
                    tracing::warn!(kind = S::KIND, error = status.message, "the watch was ended");
                    break;
                }
                Err(error) => {
                    tracing::debug!(kind = S::KIND, %error, "the watch broke");
                    break;
                }
            }
            reach.hear();
            backoff.reset();
            n_refused = 0;
        }
        // Something between us and the API server ends every watch as soon as it is open.
        if opened_at.elapsed() < MIN_WATCH {
            backoff.wait(MAX_BACKOFF_UNANSWERED).await;
        }
    }
}

fn remember(version: &mut String, object: &impl Resource) {
    if let Some(newer) = &object.meta().resource_version {
        version.clone_from(newer);
    }
}

/// Doubles with every wait, until something succeeds.
#[derive(Default)]
struct Backoff {
    n_waits: u32,
}

impl Backoff {
    fn next(&self, max: Duration) -> Duration {
        (MIN_BACKOFF * 2u32.pow(self.n_waits.min(16))).min(max)
    }

    async fn wait(&mut self, max: Duration) {
        sleep(self.next(max)).await;
        self.n_waits += 1;
    }

    fn reset(&mut self) {
        self.n_waits = 0;
    }
}
