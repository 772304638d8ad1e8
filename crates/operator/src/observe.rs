//! Cache to values: what the operator knows about jobs and pods, and how it stays true.
//!
//! ```text
//! API server ──list, watch──► watch ──changes──► jobs, pods ──snapshot──► Observed
//!                                                    ▲
//!                                   own writes ──────┘  at once, by resourceVersion
//! ```
//!
//! Two rules keep a decision from being made on what is older than our own writes. The answer to every write goes into
//! the cache before the next pass; and nothing in the cache is ever replaced by something with a lower resourceVersion,
//! be it from an event or from a new list. Every list is a consistent read, so a cache that has just been filled knows
//! all that was written before the operator started.

mod cache;
mod creations;
pub mod cron;
pub mod crons;
pub mod job;
pub mod jobs;
mod lenient;
pub mod pods;
pub mod snapshot;
pub mod watch;
pub mod wire;

/// The order of two states of an object. The API server promises that resource versions of one kind are whole numbers
/// that rise (KEP-5504); one that is not is taken as newest, because an event is better believed than dropped.
pub(crate) fn version(resource_version: &str) -> u64 {
    resource_version.parse().unwrap_or(u64::MAX)
}
