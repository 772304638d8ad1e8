//! What the API server refuses of a BatchCronJob, and what the user then reads: the rules of a CronJob
//! (`validateCronJobSpec` in `pkg/apis/batch/validation/validation.go`), and what would contradict itself.
//!
//! A template is held to the [rules of a BatchJob](crate::rules), so that what is wrong with it is told when it is applied and
//! not at night. Whether an expression and a time zone mean anything is nothing that CEL can say: the operator says it, in the
//! condition Stalled.

use crate::rules::{Reason, Row, Rule, of_spec};

/// The longest name: a run has it, a dash and up to ten digits, and a job's name ends at 63 (`ValidateCronJobCreate`).
pub const MAX_NAME: u32 = 52;

/// Where the spec of the runs is.
pub(crate) const TEMPLATE: &str = "spec.jobTemplate.spec";

/// What a schema can say: where, the keyword, and its value. Lengths are also what tells the API server how much a rule can cost.
pub(crate) const LIMITS: [(&str, &str, u32); 9] = [
    ("spec.schedule", "maxLength", 200),
    ("spec.schedules", "minItems", 1),
    ("spec.schedules", "maxItems", 20),
    ("spec.schedules[]", "maxLength", 200),
    ("spec.timeZone", "maxLength", 64),
    ("spec.suspendReason", "maxLength", 500),
    ("spec.concurrencyGroup.name", "maxLength", 63),
    ("status.waiting", "maxItems", 2000),
    ("status.backfilled", "maxItems", 100),
];

/// Rules on the root, which sees `metadata.name`.
const ROOT: &[Row] = &[
    Row {
        field_path: ".metadata.name",
        reason: Reason::Invalid,
        rule: "!self.metadata.name.contains('.')",
        message: "must not contain a dot, because it begins the names of the runs and of their pods: write etl-daily, not \
                  etl.daily",
    },
    Row {
        field_path: ".metadata.name",
        reason: Reason::Invalid,
        rule: "!has(self.spec.jobTemplate.spec.completionMode) || \
               self.spec.jobTemplate.spec.completionMode != 'Indexed' || \
               !has(self.spec.jobTemplate.spec.completions) || self.spec.jobTemplate.spec.completions < 1 || \
               size(self.metadata.name) + 12 + size(string(self.spec.jobTemplate.spec.completions - 1)) <= 63",
        message: "is too long for Indexed runs: the hostname of the last pod, NAME-SLOT-INDEX with ten digits for the slot, must \
                  have at most 63 characters, so shorten the name",
    },
];

/// Rules on `spec`.
const SPEC: &[Row] = &[
    Row {
        field_path: ".schedule",
        reason: Reason::Required,
        rule: "has(self.schedule) != has(self.schedules)",
        message: "write schedule, such as 30 2 * * *, or schedules for several of them, and not both",
    },
    // validateScheduleFormat.
    Row {
        field_path: ".schedule",
        reason: Reason::Invalid,
        rule: "!has(self.schedule) || !self.schedule.contains('TZ=')",
        message: "must not name a time zone: write timeZone: Europe/Berlin beside it",
    },
    Row {
        field_path: ".schedule",
        reason: Reason::Invalid,
        rule: r"!has(self.schedule) || self.schedule.matches('^\\s*(@\\S.*|\\S+(\\s+\\S+){4,5})\\s*$')",
        message: "must have five fields, minute, hour, day of month, month and day of week, or six, with seconds before them: \
                  write 30 2 * * * for half past two each night, or @daily",
    },
    Row {
        field_path: ".schedules",
        reason: Reason::Invalid,
        rule: "!has(self.schedules) || self.schedules.all(s, !s.contains('TZ='))",
        message: "must not name a time zone: write timeZone: Europe/Berlin beside it",
    },
    Row {
        field_path: ".schedules",
        reason: Reason::Invalid,
        rule: r"!has(self.schedules) || self.schedules.all(s, s.matches('^\\s*(@\\S.*|\\S+(\\s+\\S+){4,5})\\s*$'))",
        message: "must each have five fields, minute, hour, day of month, month and day of week, or six, with seconds before \
                  them: write 30 2 * * * for half past two each night, or @daily",
    },
    // validateTimeZone.
    Row {
        field_path: ".timeZone",
        reason: Reason::Invalid,
        rule: "!has(self.timeZone) || (self.timeZone != '' && self.timeZone.lowerAscii() != 'local')",
        message: "must be a name of the tz database, such as Europe/Berlin or UTC: write one, or remove it for UTC",
    },
    Row {
        field_path: ".notAfter",
        reason: Reason::Invalid,
        rule: "!has(self.notAfter) || !has(self.notBefore) || self.notBefore <= self.notAfter",
        message: "is before notBefore, so there would be no slot: write a later time",
    },
    Row {
        field_path: ".maxActive",
        reason: Reason::Invalid,
        rule: "!has(self.maxActive) || self.maxActive == 1 || !has(self.concurrencyPolicy) || \
               self.concurrencyPolicy != 'Forbid'",
        message: "must be 1, or absent, when concurrencyPolicy is Forbid: to let several run at once, write Allow or Queue there",
    },
    Row {
        field_path: ".maxActive",
        reason: Reason::Required,
        rule: "has(self.maxActive) || !has(self.missedRuns) || !has(self.missedRuns.policy) || \
               self.missedRuns.policy != 'All' || (has(self.concurrencyPolicy) && self.concurrencyPolicy != 'Allow')",
        message: "missedRuns.policy All with concurrencyPolicy Allow needs it: write how many runs may be active at once, such \
                  as 1, so that all that was missed does not start together",
    },
    Row {
        field_path: ".missedRuns.policy",
        reason: Reason::Invalid,
        rule: "!has(self.missedRuns) || !has(self.missedRuns.policy) || self.missedRuns.policy != 'All' || \
               !has(self.concurrencyPolicy) || self.concurrencyPolicy != 'Replace'",
        message: "All cannot go with concurrencyPolicy Replace, where each run would end the one before it: write Queue there, or \
                  Latest here",
    },
    Row {
        field_path: ".missedRuns.maxRuns",
        reason: Reason::Invalid,
        rule: "!has(self.missedRuns) || !has(self.missedRuns.maxRuns) || \
               (has(self.missedRuns.policy) && self.missedRuns.policy == 'All')",
        message: "needs policy All: write that too, or remove it",
    },
    Row {
        field_path: ".missedRuns.withinSeconds",
        reason: Reason::Invalid,
        rule: "!has(self.missedRuns) || !has(self.missedRuns.withinSeconds) || !has(self.missedRuns.policy) || \
               self.missedRuns.policy != 'None'",
        message: "cannot go with policy None, where nothing that was missed runs: remove it, or write Latest or All",
    },
    Row {
        field_path: ".startingDeadlineSeconds",
        reason: Reason::Invalid,
        rule: "!has(self.startingDeadlineSeconds) || !has(self.missedRuns) || !has(self.missedRuns.withinSeconds)",
        message: "and missedRuns.withinSeconds are two limits for the same: remove one of them",
    },
    Row {
        field_path: ".backfill.to",
        reason: Reason::Invalid,
        rule: "!has(self.backfill) || self.backfill.from <= self.backfill.to",
        message: "is before from, so there would be no slot: write a later time",
    },
    Row {
        field_path: ".jobTemplate.spec.managedBy",
        reason: Reason::Invalid,
        rule: "!has(self.jobTemplate.spec.managedBy) || self.jobTemplate.spec.managedBy == 'batchjob.dev/operator'",
        message: "must be absent, because the runs of a BatchCronJob are run by this operator: remove it",
    },
];

/// All rules of a BatchCronJob.
pub fn all() -> Vec<Rule> {
    let root = ROOT.iter().map(|row| row.rule(""));
    root.chain(SPEC.iter().map(|row| row.rule("spec"))).chain(of_spec(TEMPLATE)).collect()
}
