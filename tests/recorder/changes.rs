//! What all who write a history down have in common: a watch of any kind of object, a clock, and locks.

use std::pin::pin;
use std::sync::{Mutex, MutexGuard, PoisonError};

use batchjob_oracle::Change;
use futures::TryStreamExt as _;
use jiff::Timestamp;
use kube::Api;
use kube::api::{DynamicObject, ObjectMeta, WatchEvent, WatchParams};

/// One watch from `from` on, until it ends; `from` is then the version of the last change. That the changes after `from`
/// are no longer known is an error too, as every answer is: 410.
pub async fn changes(
    api: &Api<DynamicObject>,
    from: &mut String,
    mut tell: impl FnMut(Change, DynamicObject),
) -> kube::Result<()> {
    let mut events = pin!(api.watch(&WatchParams::default(), from).await?);
    while let Some(event) = events.try_next().await? {
        let (change, object) = match event {
            WatchEvent::Added(object) => (Change::Added, object),
            WatchEvent::Modified(object) => (Change::Modified, object),
            WatchEvent::Deleted(object) => (Change::Deleted, object),
            WatchEvent::Bookmark(bookmark) => {
                *from = bookmark.metadata.resource_version;
                continue;
            }
            WatchEvent::Error(status) => return Err(kube::Error::Api(status)),
        };
        *from = object.metadata.resource_version.clone().unwrap_or_default();
        tell(change, object);
    }
    Ok(())
}

/// A number that grows, by contract since Kubernetes 1.35 (KEP-5504).
pub fn version(meta: &ObjectMeta) -> u64 {
    meta.resource_version.as_deref().and_then(|version| version.parse().ok()).unwrap_or_default()
}

#[expect(clippy::disallowed_methods, reason = "who writes a history has a clock")]
pub fn now() -> Timestamp {
    Timestamp::now()
}

/// Whoever panicked while holding it leaves nothing half done behind: each change is one statement.
pub fn unpoisoned<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
