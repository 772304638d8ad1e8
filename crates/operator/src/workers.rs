//! Workers: they take what is next from a queue and have a pass made over it, each kind of object by its own.

use std::fmt::Display;
use std::hash::Hash;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::metrics::{Metrics, PassResult};
use crate::queue::Queue;

/// How long an object that we cannot bear is left alone.
pub(crate) const LEFT_ALONE: Duration = Duration::from_secs(60);

/// What makes passes over the objects of a kind.
pub trait Passes: Send + Sync + 'static {
    /// What it is called in the log.
    const KIND: &'static str;
    type Key: Clone + Ord + Hash + Display + Send + Sync + 'static;

    fn queue(&self) -> &Queue<Self::Key>;
    fn metrics(&self) -> &Metrics;
    fn pass(&self, key: &Self::Key) -> impl Future<Output = ()> + Send;
}

/// Works until the queue is closed, and then finishes the passes that have begun.
pub async fn work<P: Passes>(passes: Arc<P>, n_workers: usize) {
    let mut workers = JoinSet::new();
    for _ in 0..n_workers {
        let passes = passes.clone();
        workers.spawn(async move {
            while let Some(key) = passes.queue().next().await {
                // One that we cannot bear must not take a worker with it.
                if AssertUnwindSafe(passes.pass(&key)).catch_unwind().await.is_err() {
                    tracing::error!(kind = P::KIND, %key, "a pass panicked: this is a bug in the operator");
                    passes.metrics().pass(PassResult::Panicked);
                    passes.queue().hold(&key, Instant::now() + LEFT_ALONE);
                }
                passes.queue().done(&key);
            }
        });
    }
    workers.join_all().await;
}
