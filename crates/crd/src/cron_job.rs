//! [`BatchCronJobSpec`]: when to run, how late, how many at once, and what is kept.
//!
//! A manifest of a batch/v1 CronJob becomes a BatchCronJob by changing `apiVersion` and `kind`: every field of it has the
//! name and the meaning it has there. What has no name there is new, and absent means as a CronJob has it, but for two
//! things that users take for faults: a nightly job runs exactly once on the days on which clocks are changed ([`Dst`]),
//! and neither an edit of the schedule nor a resume fires a slot that is over.
//!
//! A *slot* is a moment that the schedule names; a *run* is the BatchJob that is created for it.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::cron_status::BatchCronJobStatus;
use crate::job::BatchJobSpec;

/// When to run what; every field of a batch/v1 CronJob keeps its name and meaning.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "batchjob.dev",
    version = "v1alpha1",
    kind = "BatchCronJob",
    plural = "batchcronjobs",
    shortname = "bcj",
    category = "all",
    category = "batch",
    namespaced,
    status = "BatchCronJobStatus",
    derive = "PartialEq",
    doc = "Work that is done again and again: a BatchJob is created whenever a schedule says so."
)]
#[kube(
    printcolumn = r#"{"name": "Schedule", "type": "string", "jsonPath": ".status.schedule", "description": "When it runs."}"#
)]
#[kube(
    printcolumn = r#"{"name": "Timezone", "type": "string", "jsonPath": ".status.timeZone", "description": "By whose clocks."}"#
)]
#[kube(
    printcolumn = r#"{"name": "Suspend", "type": "boolean", "jsonPath": ".spec.suspend", "description": "Whether it is held."}"#
)]
#[kube(
    printcolumn = r#"{"name": "Active", "type": "integer", "jsonPath": ".status.activeRuns", "description": "Runs that have not ended."}"#
)]
#[kube(
    printcolumn = r#"{"name": "Last Schedule", "type": "date", "jsonPath": ".status.lastScheduleTime", "description": "The slot of the last run."}"#
)]
#[kube(
    printcolumn = r#"{"name": "Last Result", "type": "string", "jsonPath": ".status.lastResult", "description": "How the last run that has ended did."}"#
)]
#[kube(
    printcolumn = r#"{"name": "Next", "type": "string", "jsonPath": ".status.nextScheduleTimes[0]", "description": "The next slot."}"#
)]
#[kube(
    printcolumn = r#"{"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp", "description": "Since it was created."}"#
)]
#[kube(
    printcolumn = r#"{"name": "Status", "type": "string", "jsonPath": ".status.conditions[?(@.type==\"Ready\")].reason", "priority": 1, "description": "How it stands."}"#
)]
#[serde(rename_all = "camelCase")]
pub struct BatchCronJobSpec {
    /// When to run, as a cron expression: minute, hour, day of month, month, day of week. "30 2 * * *" is half past two
    /// each night; also @hourly, @daily, @weekly, @monthly, @yearly, and @every 90m. Beyond a CronJob: a field of seconds
    /// before the others; H or H(0-29) for a number that the namespace and name choose, so that many do not start together; L,
    /// LW and 15W as day of month; 5L and MON#2 as day of week. This or schedules is required. May be changed at any time: no
    /// slot that is over by then runs for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub schedule: Option<String>,

    /// Several expressions, 1 to 20, in place of schedule: it runs whenever one of them says so, and once where several do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub schedules: Option<Vec<String>>,

    /// Whose clocks the schedule speaks of: a name of the tz database such as Europe/Berlin. Absent: UTC. (A CronJob then goes
    /// by the clock of kube-controller-manager, which is UTC in nearly every cluster.)
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time_zone: Option<String>,

    /// What happens on the days on which clocks are changed. Absent: a job of chosen hours, such as 30 2 * * *, runs exactly
    /// once on both days. A CronJob is {skipped: Skip, repeated: Twice}.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dst: Option<Dst>,

    /// There is no slot before this time. Absent: none before the object was created.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_before: Option<Time>,

    /// There is no slot after this time. Absent: it goes on for ever.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_after: Option<Time>,

    /// Each run starts up to so many seconds after its slot, 0 to 86400; how many is chosen by the namespace and name, always
    /// the same. The run is told its slot, not when it started. Absent: 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 86400))]
    pub jitter_seconds: Option<i32>,

    /// How many seconds late a run may start, 0 or more; one that could not start by then is missed. Absent: however late. As
    /// in batch/v1 CronJob.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub starting_deadline_seconds: Option<i64>,

    /// What becomes of slots that nobody was there to start in time, because the operator or the API server was away. Absent:
    /// the latest of them runs, as in a CronJob.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub missed_runs: Option<MissedRuns>,

    /// What happens while earlier runs have not ended. `kubectl explain` prints the words of the type.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub concurrency_policy: Option<ConcurrencyPolicy>,

    /// How many runs may be active at once, 1 to 1000, those that were triggered by hand among them. Absent: 1, or without limit
    /// if concurrencyPolicy is Allow.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000))]
    pub max_active: Option<i32>,

    /// A limit that several BatchCronJobs of a namespace share. Absent: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub concurrency_group: Option<ConcurrencyGroup>,

    /// true: nothing is started, but by the annotation batchjob.dev/trigger; what runs goes on. Slots that come meanwhile are
    /// skipped, and so is what still waited. As in batch/v1 CronJob, but that resuming starts nothing by itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub suspend: Option<bool>,

    /// Why it is suspended, for people: shown in the condition Suspended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub suspend_reason: Option<String>,

    /// Slots of the past that are to be run now, each once, in their order: those before the object was created, and those that were
    /// missed or skipped since; never one that ran. Absent: none. Changing it begins another backfill, which leaves out what the
    /// one before has run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backfill: Option<Backfill>,

    /// How many runs that have succeeded are kept, 0 or more; the oldest go first. Absent: 3. As in batch/v1 CronJob.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub successful_jobs_history_limit: Option<i32>,

    /// How many runs that have failed are kept, 0 or more; the oldest go first. Absent: 1. As in batch/v1 CronJob.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub failed_jobs_history_limit: Option<i32>,

    /// How many runs that have not ended are kept, 1 or more: with one more the oldest is deleted, whatever it does. Absent:
    /// all. For runs that hang, which no other limit ever counts.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub unfinished_jobs_history_limit: Option<i32>,

    /// What lets runs that have failed go before their limit does. `kubectl explain` prints the words of the type.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failed_jobs_retention: Option<FailedJobsRetention>,

    /// What the condition Ready goes by. `kubectl explain` prints the words of the type.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub health: Option<Health>,

    /// The BatchJob to create. May be changed at any time, for the runs to come. As in batch/v1 CronJob.
    pub job_template: BatchJobTemplate,
}

/// What a run is made from.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BatchJobTemplate {
    /// Labels and annotations of the run; all else in it is accepted and not used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metadata: Option<ObjectMeta>,

    /// What a BatchJob has as its spec: see `kubectl explain batchjob.spec`.
    pub spec: BatchJobSpec,
}

/// What happens on the days on which clocks are changed, to schedules of chosen hours. One of every hour, or every third, goes
/// on as the hours come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Dst {
    /// Of a time that is skipped when clocks go forward. Absent: RunAfter.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub skipped: Option<SkippedTime>,

    /// Of a time that is repeated when clocks go back. Absent: Once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub repeated: Option<RepeatedTime>,
}

/// RunAfter: it runs as soon as clocks have gone forward. Skip: it does not run that day, as in a CronJob.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum SkippedTime {
    /// It runs as soon as clocks have gone forward.
    #[default]
    RunAfter,
    /// It does not run that day.
    Skip,
}

/// Once: it runs the first time. Twice: it runs both times, as in a CronJob.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RepeatedTime {
    /// It runs the first time.
    #[default]
    Once,
    /// It runs both times.
    Twice,
}

/// What becomes of slots that nobody was there to start in time.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MissedRuns {
    /// Which of them run. `kubectl explain` prints the words of the type.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy: Option<MissedRunsPolicy>,

    /// With All: at most so many of them, the latest, 1 to 1000. Absent: 100.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000))]
    pub max_runs: Option<i32>,

    /// Only those that are no more seconds late than this, 1 or more. Absent: however late.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub within_seconds: Option<i64>,
}

/// Latest: the latest of them, if no newer slot has come. All: each of them, in their order, and each is told its own slot; also
/// those that wait for earlier runs then keep their place. None: none of them. Absent: Latest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum MissedRunsPolicy {
    /// The latest of them.
    #[default]
    Latest,
    /// Each of them, in their order.
    All,
    /// None of them.
    None,
}

/// Allow: runs go on beside each other. Forbid: a slot waits until the run before it has ended, and a newer slot takes its place.
/// Replace: the run before it is deleted. Queue: every slot waits for its turn. Absent: Allow. As in batch/v1 CronJob, which has
/// no Queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ConcurrencyPolicy {
    /// Runs go on beside each other.
    #[default]
    Allow,
    /// A slot waits until the run before it has ended, and a newer slot takes its place.
    Forbid,
    /// The run before it is deleted.
    Replace,
    /// Every slot waits for its turn.
    Queue,
}

/// A limit that several BatchCronJobs of a namespace share.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ConcurrencyGroup {
    /// Whoever names the same group shares its limit.
    #[schemars(length(min = 1, max = 63))]
    pub name: String,

    /// How many runs of all its members together may be active at once, 1 to 1000. If the members differ, the smallest counts.
    /// Absent: 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000))]
    pub max_active: Option<i32>,
}

/// A range of slots that are to be run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Backfill {
    /// The first slot is at this time, or after it.
    pub from: Time,

    /// The last slot is at this time, or before it. Slots that have not come yet are for the schedule.
    pub to: Time,

    /// How many of its runs may be active at once, 1 to 1000. maxActive and concurrencyPolicy are for the other runs; a concurrencyGroup
    /// counts both. Absent: 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000))]
    pub max_active: Option<i32>,
}

/// Limit: failedJobsHistoryLimit alone says how many are kept. UntilSuccess: a run that has failed is deleted once a later one has
/// succeeded. Absent: Limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum FailedJobsRetention {
    /// The limit alone.
    #[default]
    Limit,
    /// Until a later run has succeeded.
    UntilSuccess,
}

/// Schedule: it is Ready while the schedule is valid and its runs can be created, whatever becomes of them. LastRun: not after a run
/// that has failed, until one has succeeded. Absent: Schedule.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Health {
    /// The schedule is valid, and its runs can be created.
    #[default]
    Schedule,
    /// And the last run that has ended succeeded.
    LastRun,
}
