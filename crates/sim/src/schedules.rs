//! The laws of schedules: no slot is started twice, none is lost without a word, and no more runs are active than may be.

use std::collections::{BTreeMap, BTreeSet};

use batchjob_crd::{BatchCronJobSpec, BatchCronJobStatus};
use batchjob_decide::cron::name;
use batchjob_decide::cron::observed::CronJob;
use batchjob_decide::cron::spec::Spec;
use jiff::Timestamp;
use serde_json::Value;

use crate::apiserver::{Change, Kind, Written};

/// What was seen of all BatchCronJobs.
#[derive(Debug, Default)]
pub struct Schedules {
    by_uid: BTreeMap<String, Schedule>,
    broken: Vec<String>,
}

/// One BatchCronJob, and its runs.
#[derive(Debug, Default)]
struct Schedule {
    object: Value,
    /// The names of all its runs that ever were.
    runs: BTreeSet<String>,
    /// Those that have not ended.
    active: BTreeSet<String>,
    most_active: usize,
}

impl Schedules {
    pub fn see(&mut self, written: &Written<'_>) {
        let Written { kind, change, object, at, .. } = *written;
        let metadata = &object["metadata"];
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        match kind {
            Kind::BatchCronJob => {
                self.by_uid.entry(text(&metadata["uid"])).or_default().object = object.clone();
            }
            Kind::BatchJob => {
                let owner = &metadata["ownerReferences"][0];
                if owner["kind"] != "BatchCronJob" {
                    return;
                }
                let schedule = self.by_uid.entry(text(&owner["uid"])).or_default();
                let run = text(&metadata["name"]);
                if change == Change::Added && !schedule.runs.insert(run.clone()) {
                    self.broken.push(format!("run {run} was created a second time, at {at}"));
                }
                let conditions = object["status"]["conditions"].as_array().into_iter().flatten();
                let mut ends = conditions.filter(|it| it["type"] == "Complete" || it["type"] == "Failed");
                if change == Change::Deleted || ends.any(|end| end["status"] == "True") {
                    schedule.active.remove(&run);
                } else {
                    schedule.active.insert(run);
                    schedule.most_active = schedule.most_active.max(schedule.active.len());
                }
            }
            _ => {}
        }
    }

    /// The runs whose slots the ledger tells of, so that nobody may start them again, whoever deletes them.
    pub fn written_down(&self) -> Vec<String> {
        let of = |schedule: &Schedule| {
            let status = schedule.status();
            let until = status.last_schedule_time.as_ref().map(|time| time.0)?;
            let cron = schedule.object["metadata"]["name"].as_str()?.to_owned();
            let is_told = |run: &&String| slot_of(&cron, run).is_some_and(|slot| slot <= until);
            Some(schedule.runs.iter().filter(is_told).cloned().collect::<Vec<_>>())
        };
        self.by_uid.values().filter_map(of).flatten().collect()
    }

    pub fn n_slots(&self) -> u64 {
        self.by_uid.values().map(|schedule| schedule.count().map_or(0, |(all, ..)| all)).sum()
    }

    /// Everything is at rest. `keeps_limits`: two operators at once, or an API server that breaks its word, may exceed a limit.
    /// `starts_late`: what was sent is carried out long after, when its slot was decided otherwise, or its run is gone: such a
    /// run is deleted as soon as it is seen.
    pub fn judge(&self, keeps_limits: bool, starts_late: bool) -> Vec<String> {
        let mut broken = if starts_late { Vec::new() } else { self.broken.clone() };
        for schedule in self.by_uid.values() {
            let name = &schedule.object["metadata"]["name"];
            let Some((all, started, left, waiting)) = schedule.count() else {
                broken.push(format!("{name}: its spec cannot be read"));
                continue;
            };
            let is_right = if starts_late { started + left + waiting >= all } else { started + left + waiting == all };
            if !is_right {
                broken.push(format!(
                    "{name}: of {all} slots {started} were started, {left} left out with a reason, and {waiting} wait: {}",
                    schedule.object["status"]
                ));
            }
            if waiting > 0 && schedule.active.is_empty() {
                broken.push(format!("{name}: {waiting} slots wait, and nothing is in their way"));
            }
            if keeps_limits && schedule.most_active > schedule.limit() {
                broken.push(format!(
                    "{name}: {} runs were active, of {} that may be",
                    schedule.most_active,
                    schedule.limit()
                ));
            }
        }
        broken
    }
}

impl Schedule {
    fn status(&self) -> BatchCronJobStatus {
        serde_json::from_value(self.object["status"].clone()).unwrap_or_default()
    }

    /// All slots that are decided; how many of them were started, were left out, and wait.
    fn count(&self) -> Option<(u64, u64, u64, u64)> {
        let metadata = &self.object["metadata"];
        let text = |field: &str| metadata[field].as_str().unwrap_or_default().to_owned();
        let spec: BatchCronJobSpec = serde_json::from_value(self.object["spec"].clone()).ok()?;
        let created: Timestamp = text("creationTimestamp").parse().ok()?;
        let status = self.status();
        let cron = CronJob {
            namespace: text("namespace"),
            name: text("name"),
            uid: text("uid"),
            generation: 1,
            created,
            is_deleted: false,
            trigger: None,
            spec,
            status: BatchCronJobStatus::default(),
        };
        let timetable = Spec::read(&cron, created).ok()?.timetable;
        let until = status.decided_until.as_ref().map_or(created, |time| time.0);
        let slots: Vec<Timestamp> = std::iter::successors(timetable.next(created), |&slot| timetable.next(slot))
            .take_while(|slot| *slot <= until)
            .collect();
        let is_started = |slot: &&Timestamp| self.runs.contains(&name::of_slot(&cron.name, **slot));
        let started = slots.iter().filter(is_started).count() as u64;
        let left = status.missed.unwrap_or_default() + status.skipped.unwrap_or_default();
        Some((slots.len() as u64, started, u64::try_from(left).unwrap_or(u64::MAX), status.waiting.len() as u64))
    }

    fn limit(&self) -> usize {
        let spec = &self.object["spec"];
        let limit = spec["maxActive"].as_u64();
        match spec["concurrencyPolicy"].as_str() {
            // What is replaced is there until it is gone.
            Some("Replace") => usize::MAX,
            None | Some("Allow") if limit.is_none() => usize::MAX,
            _ => limit.unwrap_or(1) as usize,
        }
    }
}

/// The slot that a run's name tells; None of one that was triggered by hand.
fn slot_of(cron: &str, run: &str) -> Option<Timestamp> {
    let number: i64 = run.strip_prefix(cron)?.strip_prefix('-')?.parse().ok()?;
    Timestamp::from_second(if number < 1_000_000_000 { number * 60 } else { number }).ok()
}
