//! What users write: the custom resources of the API group `batchjob.dev`.
//!
//! Types and the words on the wire, no behaviour. What happens to a [`BatchJob`] or a [`BatchCronJob`] is decided in
//! `batchjob-decide`.
//!
//! ```text
//! job.rs, status.rs, cron_job.rs, cron_status.rs ──derive──► schema.rs ──crdgen──► crds/*.yaml
//! rules.rs, unsupported.rs, cron_rules.rs ─────────────────────▲
//! ```

#![warn(missing_docs)]

pub mod condition;
pub mod cron_job;
pub mod cron_rules;
pub mod cron_status;
pub mod job;
pub mod keys;
pub mod reason;
pub mod rules;
pub mod schema;
pub mod status;
pub mod unsupported;

pub use cron_job::{BatchCronJob, BatchCronJobSpec};
pub use cron_status::BatchCronJobStatus;
pub use job::{BatchJob, BatchJobSpec, CompletionMode, PodReplacementPolicy};
pub use status::{BatchJobStatus, Phase};

/// The API group of every kind in this crate.
pub const GROUP: &str = "batchjob.dev";
/// The served version.
pub const VERSION: &str = "v1alpha1";
