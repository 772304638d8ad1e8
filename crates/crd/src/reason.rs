//! The reasons in `status.reason` and in conditions: one CamelCase word that a program may compare.
//!
//! New words may come; a word here is not renamed.

// The ends, and Suspended: the words of batch/v1 Job (k8s.io/api/batch/v1/types.go, pkg/controller/job).

/// Complete: as many completions as asked for have succeeded.
pub const COMPLETIONS_REACHED: &str = "CompletionsReached";
/// Complete: a rule of successPolicy was met.
pub const SUCCESS_POLICY: &str = "SuccessPolicy";
/// Failed: more attempts failed than backoffLimit allows.
pub const BACKOFF_LIMIT_EXCEEDED: &str = "BackoffLimitExceeded";
/// Failed: activeDeadlineSeconds have passed.
pub const DEADLINE_EXCEEDED: &str = "DeadlineExceeded";
/// Failed: a rule of podFailurePolicy said so.
pub const POD_FAILURE_POLICY: &str = "PodFailurePolicy";
/// Failed: more indexes failed than maxFailedIndexes allows.
pub const MAX_FAILED_INDEXES_EXCEEDED: &str = "MaxFailedIndexesExceeded";
/// Failed: every index was tried, and some have failed.
pub const FAILED_INDEXES: &str = "FailedIndexes";
/// Suspended is True: `spec.suspend` was set.
pub const JOB_SUSPENDED: &str = "JobSuspended";
/// Suspended is False: `spec.suspend` was taken back.
pub const JOB_RESUMED: &str = "JobResumed";

// On the way.

/// Pods are created, and none has started yet.
pub const PENDING: &str = "Pending";
/// Pods run.
pub const RUNNING: &str = "Running";
/// An attempt failed, and the next one waits for its time.
pub const BACKING_OFF: &str = "BackingOff";
/// parallelism is 0, so nothing runs.
pub const PARALLELISM_ZERO: &str = "ParallelismZero";
/// It is decided how the job ends; its last pods are being ended.
pub const TERMINATING_PODS: &str = "TerminatingPods";
/// So many indexes are open with failures that no further one starts until some of them close.
pub const TOO_MANY_OPEN_INDEXES: &str = "TooManyOpenIndexes";

// What the API server answered when a pod was to be created.

/// The template makes no valid pod. It is tried again when the spec changes, and else ever more slowly.
pub const POD_TEMPLATE_REJECTED: &str = "PodTemplateRejected";
/// A ResourceQuota of the namespace is used up; it is tried again, slowly.
pub const QUOTA_EXCEEDED: &str = "QuotaExceeded";
/// The operator, or an admission policy, does not allow the pod; it is tried again, slowly.
pub const POD_CREATE_FORBIDDEN: &str = "PodCreateForbidden";
/// An admission webhook that is to be asked about every pod cannot be called; it is tried again, slowly.
pub const ADMISSION_WEBHOOK_FAILED: &str = "AdmissionWebhookFailed";
/// The namespace is being deleted.
pub const NAMESPACE_TERMINATING: &str = "NamespaceTerminating";

// When the spec itself is the trouble.

/// The operator cannot read the spec, or it asks for what this version does not act on.
pub const INVALID_SPEC: &str = "InvalidSpec";

// Ready.

/// The job is complete.
pub const SUCCEEDED: &str = "Succeeded";
/// The job has failed; the condition Failed tells why.
pub const FAILED: &str = "Failed";

// Of a BatchCronJob.

/// Ready: the schedule is valid, and its runs can be created.
pub const SCHEDULED: &str = "Scheduled";
/// Ready: the schedule is over, by notAfter.
pub const ENDED: &str = "Ended";
/// Suspended is True: `spec.suspend` is set.
pub const SCHEDULE_SUSPENDED: &str = "Suspended";
/// Suspended is False: `spec.suspend` was taken back.
pub const SCHEDULE_RESUMED: &str = "Resumed";
/// Stalled: an expression means nothing, or no day that there is.
pub const INVALID_SCHEDULE: &str = "InvalidSchedule";
/// Stalled: there is no such time zone. As batch/v1 CronJob's event.
pub const UNKNOWN_TIME_ZONE: &str = "UnknownTimeZone";
/// Reconciling: the API server refuses the runs; it is tried again, slowly.
pub const RUN_REFUSED: &str = "RunRefused";
/// Stalled, with `health: LastRun`: the last run that has ended failed.
pub const LAST_RUN_FAILED: &str = "LastRunFailed";
