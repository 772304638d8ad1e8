//! [`BatchCronJobStatus`]: what has run, what waits, what was left out and why.
//!
//! `decidedUntil` and `waiting` are the ledger: every slot until then was started, waits, or was left out with a reason. All
//! else is what users see.

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What has become of the slots. Written by the operator only.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BatchCronJobStatus {
    /// The metadata.generation this status was computed from; -1 until the operator has seen the object.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,

    /// The expressions that are in effect, separated by "; ".
    #[serde(skip_serializing_if = "Option::is_none")]
    pub schedule: Option<String>,

    /// The time zone that is in effect: UTC if spec.timeZone is absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time_zone: Option<String>,

    /// The next three slots, as clocks of the time zone show them. Absent while suspended, and when there are none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub next_schedule_times: Vec<String>,

    /// The runs that have not ended, the oldest first. As in batch/v1 CronJob.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub active: Vec<ObjectReference>,

    /// How many these are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub active_runs: Option<i32>,

    /// The slot of the last run that was started by the schedule. As in batch/v1 CronJob.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_schedule_time: Option<Time>,

    /// When the last run that succeeded was complete. As in batch/v1 CronJob.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_successful_time: Option<Time>,

    /// How the last run that has ended did: Succeeded or Failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_result: Option<String>,

    /// The run that this was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_run: Option<LastRun>,

    /// How many slots wait to be started, and with them a run that was triggered by hand.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub held: Option<i32>,

    /// Why they wait.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub held_because: Option<String>,

    /// How many slots were missed, in all: nobody was there to start them in time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub missed: Option<i64>,

    /// How many slots were skipped, in all: as its policies say, or because it was suspended or its schedule changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub skipped: Option<i64>,

    /// The slots that were missed or skipped, the oldest first: the last twenty stretches of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gaps: Vec<Gap>,

    /// How far the backfill is that the spec names.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backfill: Option<BackfillStatus>,

    /// Ledger: the ranges that earlier backfills have run, the oldest first; no slot in them is run by another one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub backfilled: Vec<TimeRange>,

    /// Ledger: every slot until then was started, or waits, or is in a gap.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decided_until: Option<Time>,

    /// Ledger: the slots that wait to be started, the oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub waiting: Vec<Time>,

    /// Ledger: what the schedule was when it was last looked at. If it differs, the schedule was changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub schedule_hash: Option<String>,

    /// Ledger: what the annotation batchjob.dev/trigger was when a run was last started for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trigger_hash: Option<String>,

    /// How it stands, for programs: Suspended, and Reconciling, Stalled and Ready for Helm, Flux and Argo CD.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}

/// A run that has ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LastRun {
    /// The name of the BatchJob; it may be gone by now.
    pub name: String,

    /// Its slot. Absent: it was triggered by hand.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub schedule_time: Option<Time>,

    /// When it ended.
    pub end_time: Time,

    /// Why it ended so: the reason of the BatchJob, such as CompletionsReached or BackoffLimitExceeded.
    pub reason: String,
}

/// How far a backfill is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BackfillStatus {
    /// As in the spec.
    pub from: Time,

    /// As in the spec.
    pub to: Time,

    /// Ledger: every slot of the range until then was started, or left out because it had run. Absent: none so far.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decided_until: Option<Time>,

    /// How many slots it has started.
    pub started: i64,

    /// How many slots it has left out, because they had run.
    pub left_out: i64,

    /// Whether every slot of the range was started or left out.
    pub is_complete: bool,
}

/// From one time to another, both in it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TimeRange {
    /// The first time in it.
    pub from: Time,

    /// The last time in it.
    pub to: Time,
}

/// Slots that were not started, and between which none was.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Gap {
    /// The first of them; where the slots of an earlier schedule are meant, the time from which on.
    pub first: Time,

    /// The last of them; or the time until which.
    pub last: Time,

    /// How many; counted up to 10000. Absent: of an earlier schedule, which is not known any more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slots: Option<i64>,

    /// Why: Missed, DeadlineExceeded, TooManyMissed, Superseded, QueueFull, Suspended, ScheduleChanged or NameTaken.
    pub reason: String,
}
