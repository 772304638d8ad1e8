//! Every label, annotation, finalizer and environment name: the words on the wire.
//!
//! Pods carry the same labels as the pods of a batch/v1 Job, so that selectors and scripts written for Jobs keep
//! working. What is our own starts with `batchjob.dev/`.

/// Finalizer on every pod until its result is counted: a result is never lost, whoever deletes the pod.
pub const POD_FINALIZER: &str = "batchjob.dev/uncounted";

/// Finalizer on every pod of a managed Job until its result is counted: the one that batch/v1 Job uses.
pub const JOB_POD_FINALIZER: &str = "batch.kubernetes.io/job-tracking";

/// `spec.managedBy` of the jobs that are ours to run: required on a batch/v1 Job, allowed on a BatchJob.
pub const MANAGED_BY: &str = "batchjob.dev/operator";

/// Annotation of a managed Job: its ledger, which a BatchJob has in its status.
pub const LEDGER: &str = "batchjob.dev/ledger";

/// Pod label: which attempt of its index the pod is, from 1. The operator watches the pods that carry it.
pub const ATTEMPT: &str = "batchjob.dev/attempt";
/// Pod label: the index of a pod whose job is not Indexed (those have [`COMPLETION_INDEX`]), from 0.
pub const INDEX: &str = "batchjob.dev/index";

/// Pod label, as batch/v1 Job sets it: the name of the job.
pub const JOB_NAME: &str = "batch.kubernetes.io/job-name";
/// Pod label, as batch/v1 Job sets it: the uid of the job.
pub const CONTROLLER_UID: &str = "batch.kubernetes.io/controller-uid";
/// Pod label, the old name of [`JOB_NAME`], which batch/v1 Job still sets.
pub const LEGACY_JOB_NAME: &str = "job-name";
/// Pod label, the old name of [`CONTROLLER_UID`], which batch/v1 Job still sets.
pub const LEGACY_CONTROLLER_UID: &str = "controller-uid";
/// Pod label and annotation of Indexed jobs, as batch/v1 Job sets it: the index, from 0.
pub const COMPLETION_INDEX: &str = "batch.kubernetes.io/job-completion-index";
/// Environment variable of every container of an Indexed job, as batch/v1 Job sets it: the index, from 0.
pub const COMPLETION_INDEX_ENV: &str = "JOB_COMPLETION_INDEX";

/// Pod annotation of jobs with backoffLimitPerIndex, as batch/v1 Job sets it: how many attempts of its index had failed
/// before this pod.
pub const INDEX_FAILURE_COUNT: &str = "batch.kubernetes.io/job-index-failure-count";
/// Pod annotation beside [`INDEX_FAILURE_COUNT`], if there are any: how many more had failed and were not counted, by a
/// rule of podFailurePolicy.
pub const INDEX_IGNORED_FAILURE_COUNT: &str = "batch.kubernetes.io/job-index-ignored-failure-count";

/// Annotation of a BatchCronJob: any new value starts a run, outside the schedule.
pub const TRIGGER: &str = "batchjob.dev/trigger";
/// Label of a run: the name of the BatchCronJob.
pub const CRON_JOB_NAME: &str = "batchjob.dev/cron-job-name";
/// Annotation of a run, as batch/v1 CronJob sets it, and of its pods: the slot, in the schedule's time zone (RFC 3339).
pub const SCHEDULED_TIMESTAMP: &str = "batch.kubernetes.io/cronjob-scheduled-timestamp";
/// Environment variable of every container of a run: the same.
pub const SCHEDULED_TIMESTAMP_ENV: &str = "CRONJOB_SCHEDULED_TIMESTAMP";
/// Annotation of a run that a backfill has started: "true".
pub const BACKFILL: &str = "batchjob.dev/backfill";
/// Annotation of a run that was triggered by hand, as `kubectl create job --from` sets it.
pub const INSTANTIATE: &str = "cronjob.kubernetes.io/instantiate";
