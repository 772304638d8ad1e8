//! What one decision about a BatchCronJob may look at.

use std::sync::Arc;

use batchjob_crd::{BatchCronJobSpec, BatchCronJobStatus};
use jiff::Timestamp;

/// Everything one decision may look at.
#[derive(Clone, Debug)]
pub struct Observed {
    pub cron: Arc<CronJob>,
    /// The BatchJobs that it controls, in any order.
    pub runs: Vec<Run>,
    /// The other members of its concurrency group.
    pub group: Group,
    /// What stood in the way of the last create, if anything did.
    pub obstacle: Option<Obstacle>,
    pub now: Timestamp,
}

/// A BatchCronJob.
#[derive(Clone, Debug)]
pub struct CronJob {
    pub namespace: String,
    pub name: String,
    pub uid: String,
    pub generation: i64,
    pub created: Timestamp,
    pub is_deleted: bool,
    /// The annotation `batchjob.dev/trigger`.
    pub trigger: Option<String>,
    pub spec: BatchCronJobSpec,
    pub status: BatchCronJobStatus,
}

/// A BatchJob that it controls.
#[derive(Clone, Debug, PartialEq)]
pub struct Run {
    pub name: Arc<str>,
    pub uid: Arc<str>,
    pub created: Timestamp,
    /// None: it was triggered by hand, or made by hand.
    pub slot: Option<Timestamp>,
    /// A backfill has started it.
    pub is_backfill: bool,
    pub is_deleted: bool,
    /// None: it has not ended.
    pub end: Option<End>,
}

/// How a run has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct End {
    pub succeeded: bool,
    pub at: Timestamp,
    /// "CompletionsReached", "BackoffLimitExceeded".
    pub reason: String,
}

/// What the other members of a concurrency group do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Group {
    /// How many of their runs have not ended.
    pub n_active: usize,
    /// The smallest limit that one of them names.
    pub limit: Option<usize>,
}

/// What stood in the way of the last create.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Obstacle {
    /// The API server refused it, or did not answer: not tried again before `retry_at`.
    Refused { message: String, retry_at: Timestamp },
    /// There is a BatchJob of that name already, and it is not a run of ours.
    NameTaken(String),
}

impl Obstacle {
    pub fn retry_at(&self) -> Option<Timestamp> {
        match self {
            Obstacle::Refused { retry_at, .. } => Some(*retry_at),
            Obstacle::NameTaken(_) => None,
        }
    }

    pub fn message(&self) -> Option<&str> {
        match self {
            Obstacle::Refused { message, .. } => Some(message),
            Obstacle::NameTaken(_) => None,
        }
    }
}
