//! A list and then its changes, for ever: the one loop behind all caches.
//!
//! Our own rather than kube's `watcher`, for four reasons: a pod is turned into its small record as soon as its page is
//! read; every list is a consistent read; a list that keeps failing is retried ever more slowly; and a connection that
//! died in silence is noticed within a minute.

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
const WATCH_SECONDS: u32 = 60;
/// A watch that says nothing for so long has lost its connection.
const WATCH_SILENCE: Duration = Duration::from_secs(WATCH_SECONDS as u64 + 10);
/// After so many failures in a row the version that is watched from may be what is wrong (an etcd that was restored from a
/// backup has never seen it), and a new list finds out.
const MAX_FAILED_WATCHES: u32 = 6;
/// A watch that lasts less than this is no success.
const MIN_WATCH: Duration = Duration::from_secs(1);
const MIN_BACKOFF: Duration = Duration::from_millis(250);
const MAX_BACKOFF: Duration = Duration::from_secs(30);

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
                reach.reached.send_replace(asked);
                let began_at = Instant::now();
                tokio::select! {
                    biased;
                    () = reach.is_asked() => continue,
                    () = follow(&api, selector, version, &mut sink) => {}
                }
                // A list is no success if what follows it ends at once.
                if began_at.elapsed() < MIN_WATCH {
                    backoff.wait().await;
                } else {
                    backoff.reset();
                }
            }
            Err(error) => {
                match error.code() {
                    Some(404) => tracing::warn!("the API server knows no {}: {}", S::KIND, S::WHERE_FROM),
                    Some(403) => {
                        tracing::error!(%error, "the operator may not read any {}: {}", S::KIND, S::WHAT_ALLOWS);
                    }
                    _ => tracing::warn!(kind = S::KIND, %error, "failed to list; trying again in {:?}", backoff.next()),
                }
                backoff.wait().await;
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
) -> Result<String, ListError> {
    let mut params = ListParams { label_selector: selector.map(str::to_owned), ..ListParams::default() }.limit(PAGE);
    let mut objects = Vec::new();
    loop {
        // No resourceVersion: the API server answers with what is true now (a consistent read), not with its cache.
        let page = timeout(request_timeout, api.list(&params)).await.map_err(|_| ListError::TimedOut)??;
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

#[derive(Debug, thiserror::Error)]
enum ListError {
    #[error(transparent)]
    Client(#[from] kube::Error),
    #[error("no answer in time")]
    TimedOut,
}

impl ListError {
    /// The HTTP status of the answer, if there was one.
    fn code(&self) -> Option<u16> {
        match self {
            ListError::Client(kube::Error::Api(status)) => Some(status.code),
            _ => None,
        }
    }
}

/// Passes on every change from `version` on; ends when only a new list can help.
async fn follow<S: Sink>(api: &Api<S::Wire>, selector: Option<&str>, mut version: String, sink: &mut S) {
    let mut params = WatchParams::default().timeout(WATCH_SECONDS);
    params.label_selector = selector.map(str::to_owned);
    let mut backoff = Backoff::default();
    loop {
        let opened_at = Instant::now();
        let opened = timeout(WATCH_SILENCE, api.watch(&params, &version)).await;
        let stream = match opened {
            Ok(Ok(stream)) => stream,
            Ok(Err(kube::Error::Api(status))) if status.code == 410 => return,
            Ok(Err(error)) => {
                tracing::warn!(kind = S::KIND, %error, "failed to watch; trying again in {:?}", backoff.next());
                if backoff.n_waits >= MAX_FAILED_WATCHES {
                    return;
                }
                backoff.wait().await;
                continue;
            }
            Err(_) => continue,
        };
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
            backoff.reset();
        }
        // Something between us and the API server ends every watch as soon as it is open.
        if opened_at.elapsed() < MIN_WATCH {
            backoff.wait().await;
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
    fn next(&self) -> Duration {
        (MIN_BACKOFF * 2u32.pow(self.n_waits.min(16))).min(MAX_BACKOFF)
    }

    async fn wait(&mut self) {
        sleep(self.next()).await;
        self.n_waits += 1;
    }

    fn reset(&mut self) {
        self.n_waits = 0;
    }
}
