//! What one decision may look at: plain values, built by the operator's `observe`, or by hand in a test.

use std::sync::Arc;

use batchjob_crd::{BatchJobSpec, BatchJobStatus, reason};
use jiff::Timestamp;

use crate::plan::AttemptId;

/// Everything one decision may look at.
#[derive(Clone, Debug)]
pub struct Observed {
    pub job: Arc<Job>,
    /// The pods that the job controls, in any order.
    pub pods: Vec<Arc<Pod>>,
    /// The pods that nobody controls and that carry the job's uid in their label, in any order.
    pub orphans: Vec<Arc<Pod>>,
    /// What stood in the way of the last creates, if anything did.
    pub obstacle: Option<Obstacle>,
    pub now: Timestamp,
}

/// The kind of object that a job is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Door {
    #[default]
    BatchJob,
    /// A batch/v1 Job whose `spec.managedBy` names us.
    ManagedJob,
}

/// The job, whichever door it came through.
#[derive(Clone, Debug, Default)]
pub struct Job {
    pub door: Door,
    pub namespace: String,
    pub name: String,
    pub uid: String,
    pub generation: i64,
    /// Somebody has asked for its deletion, and another finalizer still holds it.
    pub is_deleted: bool,
    pub spec: BatchJobSpec,
    /// As it stands: the ledger, and what users see.
    pub status: BatchJobStatus,
    /// The ledger was lost, and the counts in the status are all that is left of it.
    pub has_lost_its_ledger: bool,
}

/// A pod, as far as decisions need it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Pod {
    pub name: Box<str>,
    pub uid: Box<str>,
    pub resource_version: Box<str>,
    pub created: Option<Timestamp>,
    pub deletion: Option<Deletion>,
    /// Whether it still carries our finalizer.
    pub is_held: bool,
    /// Whether it still carries the label by which the pods of its job are found.
    pub is_selected: bool,
    pub node: Option<Box<str>>,
    pub phase: PodPhase,
    /// `status.reason` and `status.message`, where the kubelet says why there are no container statuses: "Evicted".
    pub reason: Option<Box<str>>,
    pub message: Option<Box<str>>,
    pub ready: Option<Condition>,
    /// Why the scheduler has found no node yet.
    pub unschedulable: Option<Box<str>>,
    /// In the order of the spec: init containers first.
    pub containers: Box<[Container]>,
    /// All of its conditions, once it has failed or is being deleted: before, nobody asks.
    pub conditions: Box<[PodCondition]>,
}

/// A condition of a pod, as podFailurePolicy looks at it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodCondition {
    /// "DisruptionTarget".
    pub type_: Box<str>,
    /// "True", "False" or "Unknown".
    pub status: Box<str>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deletion {
    /// When it was asked for: the deletion timestamp less the grace period.
    pub asked: Timestamp,
    /// Seconds until the kubelet kills. 0: the API server waits for nothing but finalizers.
    pub grace_seconds: i64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Condition {
    pub is_true: bool,
    pub since: Option<Timestamp>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PodPhase {
    /// Also a phase that is missing or not known.
    #[default]
    Pending,
    Running,
    Succeeded,
    Failed,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Container {
    pub name: Box<str>,
    pub role: Role,
    pub restarts: u32,
    pub state: ContainerState,
    /// How it ended the last time, if it was restarted since: `lastState.terminated.exitCode`.
    pub last_exit_code: Option<i32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Init,
    /// An init container that runs beside the others (`restartPolicy: Always`, KEP-753): its restarts are no failures.
    Sidecar,
    Main,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ContainerState {
    Waiting {
        reason: Box<str>,
        message: Box<str>,
    },
    Running,
    Terminated {
        exit_code: i32,
        /// "Error", "OOMKilled", "Completed".
        reason: Box<str>,
        /// Absent where the kubelet does not know, which it writes as the year 1 or 1970.
        finished_at: Option<Timestamp>,
    },
    /// The kubelet has not said anything yet.
    #[default]
    Unknown,
}

/// What stood in the way of the last creates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Obstacle {
    /// The API server says that the template makes no pod: not tried again before the spec changes, or `retry_at`.
    TemplateRejected { generation: i64, message: String, retry_at: Timestamp },
    /// Something that passes, such as a quota: not tried again before `retry_at`.
    Refused { reason: RefusedReason, message: String, retry_at: Timestamp },
    /// There is a pod already of the name that this attempt has, and it is not the job's: the attempt is passed.
    NameTaken(AttemptId),
    /// There was no answer, or none about the pod: not tried again before `retry_at`. Everything else goes on.
    Unanswered { retry_at: Timestamp },
}

impl Obstacle {
    /// What the API server said, if it is for the user.
    pub fn message(&self) -> Option<&str> {
        match self {
            Obstacle::TemplateRejected { message, .. } | Obstacle::Refused { message, .. } => Some(message),
            Obstacle::NameTaken(_) | Obstacle::Unanswered { .. } => None,
        }
    }

    /// When creates are tried again; None: they are not held back.
    pub fn retry_at(&self) -> Option<Timestamp> {
        match self {
            Obstacle::NameTaken(_) => None,
            Obstacle::TemplateRejected { retry_at, .. }
            | Obstacle::Refused { retry_at, .. }
            | Obstacle::Unanswered { retry_at } => Some(*retry_at),
        }
    }

    /// The same, to be set.
    pub fn retry_at_mut(&mut self) -> Option<&mut Timestamp> {
        match self {
            Obstacle::NameTaken(_) => None,
            Obstacle::TemplateRejected { retry_at, .. }
            | Obstacle::Refused { retry_at, .. }
            | Obstacle::Unanswered { retry_at } => Some(retry_at),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefusedReason {
    QuotaExceeded,
    /// By an admission policy or webhook, or because something that the template names is missing: "serviceaccount …
    /// not found".
    Forbidden,
    /// There is an admission webhook that cannot be asked.
    WebhookFailed,
    NamespaceTerminating,
}

impl RefusedReason {
    pub fn as_str(self) -> &'static str {
        match self {
            RefusedReason::QuotaExceeded => reason::QUOTA_EXCEEDED,
            RefusedReason::Forbidden => reason::POD_CREATE_FORBIDDEN,
            RefusedReason::WebhookFailed => reason::ADMISSION_WEBHOOK_FAILED,
            RefusedReason::NamespaceTerminating => reason::NAMESPACE_TERMINATING,
        }
    }
}
