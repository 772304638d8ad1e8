//! A BatchCronJob whose plans are carried out, and time that passes.

use std::collections::BTreeSet;
use std::sync::Arc;

use batchjob_crd::{BatchCronJobStatus, keys};
use batchjob_decide::cron::observed::{CronJob, End, Group, Observed, Obstacle, Run};
use batchjob_decide::cron::plan::{Action, Plan};
use batchjob_decide::cron::{decide, run};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

/// More passes than anything takes that happens at one moment.
const MAX_PASSES: usize = 100;

pub fn at(text: &str) -> Timestamp {
    text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
}

pub fn every_minute(policy: &str) -> World {
    World::new(json!({ "schedule": "* * * * *", "concurrencyPolicy": policy }))
}

/// The world of one BatchCronJob, which was created at midnight on Monday, 5 January 2026.
pub struct World {
    pub observed: Observed,
    /// Every run that was ever started: its name, and when.
    pub started: Vec<(String, Timestamp)>,
    pub events: Vec<String>,
    n_uids: u32,
}

impl World {
    pub fn new(spec: Value) -> World {
        let mut template = json!({ "jobTemplate": { "spec": { "template": { "spec": {
            "restartPolicy": "Never", "containers": [{ "name": "main", "image": "busybox" }],
        } } } } });
        json_patch::merge(&mut template, &spec);
        let created = at("2026-01-05T00:00:00Z");
        let cron = CronJob {
            namespace: "default".to_owned(),
            name: "etl".to_owned(),
            uid: "cron-uid".to_owned(),
            generation: 1,
            created,
            is_deleted: false,
            trigger: None,
            spec: serde_json::from_value(template).expect("a spec"),
            status: BatchCronJobStatus::default(),
        };
        let group = Group::default();
        let observed = Observed { cron: Arc::new(cron), runs: Vec::new(), group, obstacle: None, now: created };
        World { observed, started: Vec::new(), events: Vec::new(), n_uids: 0 }
    }

    /// Time passes, and the operator looks whenever it wants to.
    pub fn until(&mut self, time: &str) {
        self.until_time(at(time));
    }

    pub fn until_time(&mut self, time: Timestamp) {
        loop {
            let plan = self.look();
            match plan.wake_at.filter(|wake| *wake <= time && *wake > self.observed.now) {
                Some(wake) => self.observed.now = wake,
                None if self.observed.now < time => self.observed.now = time,
                None => return,
            }
        }
    }

    /// Time passes, and nobody looks.
    pub fn away_until(&mut self, time: &str) {
        self.observed.now = at(time);
    }

    /// Looks until there is nothing to do; answers with the plan that says so.
    pub fn look(&mut self) -> Plan {
        for _ in 0..MAX_PASSES {
            let plan = decide(&self.observed);
            if plan.is_empty() {
                let is_later = plan.wake_at.is_none_or(|at| at > self.observed.now);
                assert!(is_later, "it looks again and again: {plan:?} at {}", self.observed.now);
                self.would_say_nothing_new();
                return plan;
            }
            self.carry_out(plan);
        }
        panic!("it wants more and more: {:#?}", decide(&self.observed));
    }

    /// A moment later there is no more to do, if nothing is due by then.
    fn would_say_nothing_new(&self) {
        let mut later = self.observed.clone();
        later.now += SignedDuration::from_secs(1);
        let is_due = |plan: &Plan| plan.wake_at.is_some_and(|at| at <= later.now);
        if !is_due(&decide(&self.observed)) {
            let plan = decide(&later);
            assert!(plan.is_empty(), "a second later it wants: {plan:#?}");
        }
    }

    pub fn carry_out(&mut self, plan: Plan) {
        let mut is_settled = false;
        for action in plan.actions {
            match action {
                Action::CreateRun(start) => {
                    let job = run::build(&self.observed.cron, &start);
                    let name = job.metadata.name.expect("a name");
                    assert!(self.observed.runs.iter().all(|run| *run.name != *name), "{name} is there already");
                    self.n_uids += 1;
                    self.started.push((name.clone(), self.observed.now));
                    let is_manual = job.metadata.annotations.unwrap_or_default().contains_key(keys::INSTANTIATE);
                    self.observed.runs.push(Run {
                        name: name.into(),
                        uid: format!("run-{}", self.n_uids).into(),
                        created: self.observed.now,
                        slot: Some(start.time).filter(|_| !is_manual),
                        is_backfill: start.is_backfill,
                        is_deleted: false,
                        end: None,
                    });
                }
                Action::DeleteRun(gone) => self.observed.runs.retain(|run| run.uid != gone.uid),
                Action::WriteStatus(status) => {
                    assert!(!is_settled, "two writes of a status");
                    is_settled = true;
                    // As it comes back from the API server.
                    let text = serde_json::to_string(&status).expect("JSON");
                    self.cron().status = serde_json::from_str(&text).expect("a status");
                    assert_eq!(*status, self.observed.cron.status, "{text}");
                }
            }
        }
        self.observed.obstacle = None;
        self.events.extend(plan.reasons.iter().map(|reason| format!("{}: {}", reason.reason, reason.note)));
    }

    pub fn cron(&mut self) -> &mut CronJob {
        Arc::make_mut(&mut self.observed.cron)
    }

    pub fn status(&self) -> &BatchCronJobStatus {
        &self.observed.cron.status
    }

    /// The user changes the spec.
    pub fn edit(&mut self, change: Value) {
        let mut spec = json!(self.observed.cron.spec);
        json_patch::merge(&mut spec, &change);
        let cron = self.cron();
        cron.spec = serde_json::from_value(spec).expect("a spec");
        cron.generation += 1;
        self.look();
    }

    pub fn end(&mut self, name: &str, succeeded: bool) {
        let at = self.observed.now;
        let run = self.observed.runs.iter_mut().find(|run| *run.name == *name);
        let reason = if succeeded { "CompletionsReached" } else { "BackoffLimitExceeded" };
        run.unwrap_or_else(|| panic!("no run {name}")).end = Some(End { succeeded, at, reason: reason.to_owned() });
        self.look();
    }

    pub fn end_all(&mut self) {
        for name in self.active() {
            self.end(&name, true);
        }
    }

    pub fn refuse(&mut self, obstacle: Obstacle) {
        self.observed.obstacle = Some(obstacle);
    }

    pub fn active(&self) -> Vec<String> {
        self.observed.runs.iter().filter(|run| run.end.is_none()).map(|run| run.name.to_string()).collect()
    }

    pub fn kept(&self) -> Vec<String> {
        self.observed.runs.iter().map(|run| run.name.to_string()).collect()
    }

    /// The slots of what was started, in that order, in UTC; without what was triggered by hand.
    pub fn slots(&self) -> Vec<String> {
        self.started.iter().filter_map(|(name, _)| slot_of(name)).map(|slot| slot.to_string()).collect()
    }

    /// How late each of them was started, in seconds.
    pub fn delays(&self) -> Vec<i64> {
        let late = |(name, at): &(String, Timestamp)| Some(at.duration_since(slot_of(name)?).as_secs());
        self.started.iter().filter_map(late).collect()
    }

    /// Its conditions.
    pub fn ready(&self) -> String {
        let told = self
            .status()
            .conditions
            .iter()
            .map(|it| format!("{}={} {}: {}", it.type_, it.status, it.reason, it.message));
        told.collect::<Vec<_>>().join("\n")
    }

    pub fn gaps(&self) -> Vec<String> {
        let gap = |gap: &batchjob_crd::cron_status::Gap| {
            let slots = gap.slots.map_or("?".to_owned(), |n| n.to_string());
            format!("{} {slots} {} {}", gap.reason, gap.first.0, gap.last.0)
        };
        self.status().gaps.iter().map(gap).collect()
    }

    /// Every slot since it was created was started once, waits, or is counted as left out.
    pub fn is_accounted_for(&self) {
        let names: BTreeSet<&String> = self.started.iter().map(|(name, _)| name).collect();
        assert_eq!(names.len(), self.started.len(), "a slot was started twice: {:?}", self.started);
        let status = self.status();
        let spec = batchjob_decide::cron::spec::Spec::read(&self.observed.cron, self.observed.now).expect("a spec");
        let until = status.decided_until.as_ref().expect("decided").0;
        let n_all = spec.timetable.count(self.observed.cron.created, until, usize::MAX) as i64;
        let n_started = self.slots().len() as i64;
        let n_left = status.missed.unwrap_or_default() + status.skipped.unwrap_or_default();
        let n_waiting = status.waiting.len() as i64;
        assert_eq!(n_started + n_left + n_waiting, n_all, "{status:#?}\n{:?}", self.started);
    }
}

/// The slot that a run's name tells.
fn slot_of(name: &str) -> Option<Timestamp> {
    let number: i64 = name.rsplit('-').next()?.parse().ok()?;
    let seconds = if number < 1_000_000_000 { number * 60 } else { number };
    Some(Timestamp::UNIX_EPOCH + SignedDuration::from_secs(seconds))
}
