//! Upstream's tables of CronJob's controller, played with BatchCronJobs: `upstream.txt` says how to read them.

use std::fmt::Write as _;

use batchjob_crd::{keys, reason};
use batchjob_decide::cron::name;
use batchjob_decide::cron::observed::{End, Obstacle, Run};
use batchjob_decide::cron::plan::Start;
use batchjob_decide::cron::run;
use batchjob_decide::plan::Severity;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::{Value, json};

use crate::world::{World, at};

/// The columns of the table.
const COLUMNS: usize = 12;

/// One row: the world that it begins with, and what is expected.
struct Case<'a> {
    name: &'a str,
    world: World,
    expected: [&'a str; 5],
}

impl<'a> Case<'a> {
    fn parse(row: &'a str) -> Case<'a> {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let [schedule, spec, created, last, run, now, starts, replaced, active, warnings, next, name] = cells[..]
        else {
            panic!("{row}: {} columns of {COLUMNS}", cells.len());
        };
        let mut world = World::new(spec_of(schedule, spec));
        let cron = world.cron();
        cron.created = time(created);
        cron.status.last_schedule_time = (last != "-").then(|| Time(time(last)));
        world.observed.now = time(now);
        if run != "-" {
            let (slot, how) = run.split_once(' ').expect("a slot, and how the run stands");
            add_run(&mut world, time(slot), how);
        }
        Case { name, world, expected: [starts, replaced, active, warnings, next] }
    }

    /// What is otherwise than expected.
    fn play(mut self) -> Vec<String> {
        let was_active = self.world.active();
        let is_done = was_active.is_empty() && !self.world.observed.runs.is_empty();
        let ended = self.world.observed.runs.first().and_then(|run| Some(run.end.as_ref()?.at));
        let n_before = self.world.started.len();
        let warnings = self.warnings();
        let started: Vec<String> = self.world.slots().split_off(n_before);
        let active = self.world.active();
        let n_replaced = was_active.iter().filter(|run| !active.contains(run)).count();
        let status = self.world.status();
        let next = status.next_schedule_times.first().map(|next| next.parse::<Timestamp>().expect("a time"));
        let [starts, ..] = self.expected;
        let starts_are = match (starts.contains(':'), &started[..]) {
            (true, [slot]) => (at(slot) == time(starts)).then(|| starts.to_owned()),
            _ => None,
        };
        let found = [
            starts_are.unwrap_or_else(|| started.len().to_string()),
            n_replaced.to_string(),
            status.active.len().to_string(),
            warnings.to_string(),
            next.map_or("none".to_owned(), |next| next.to_string()),
        ];
        let mut wrong = Vec::new();
        for ((what, expected), found) in
            ["starts", "replaced", "active", "warnings", "next"].into_iter().zip(self.expected).zip(found)
        {
            let is_so = match what {
                "next" => expected == "-" || found == time(expected).to_string(),
                _ => expected == "-" || found == expected,
            };
            if !is_so {
                wrong.push(format!("{what}={found}"));
            }
        }
        if is_done {
            assert_eq!(status.last_successful_time.as_ref().map(|time| time.0), ended, "{}", self.name);
        }
        wrong
    }

    /// Looks until there is nothing to do, and counts what is warned of.
    fn warnings(&mut self) -> usize {
        let mut n = 0;
        loop {
            let plan = batchjob_decide::cron::decide(&self.world.observed);
            n += plan.reasons.iter().filter(|reason| reason.severity == Severity::Warning).count();
            if plan.is_empty() {
                return n;
            }
            self.world.carry_out(plan);
        }
    }
}

/// "10:01", "26T10:01:05".
fn time(text: &str) -> Timestamp {
    let (day, clock) = text.split_once('T').unwrap_or(("19", text));
    let days: i64 = day.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
    let clock = if clock.len() == 5 { format!("{clock}:00") } else { clock.to_owned() };
    at(&format!("2016-05-01T{clock}Z")) + SignedDuration::from_hours(24 * (days - 1))
}

/// "Forbid, within 10".
fn spec_of(schedule: &str, options: &str) -> Value {
    let mut spec = json!({ "schedule": schedule });
    for option in options.split(", ").filter(|option| *option != "-") {
        let number = || option.split_once(' ').and_then(|(_, n)| n.parse::<i64>().ok());
        let (field, value) = match option {
            "suspended" => ("suspend", json!(true)),
            "Forbid" | "Replace" => ("concurrencyPolicy", json!(option)),
            _ if option.starts_with("within ") => ("startingDeadlineSeconds", json!(number())),
            _ if option.starts_with("keep ") => ("successfulJobsHistoryLimit", json!(number())),
            _ => ("timeZone", json!(option.strip_prefix("in ").unwrap_or_else(|| panic!("what is {option}?")))),
        };
        spec[field] = value;
    }
    spec
}

fn add_run(world: &mut World, slot: Timestamp, how: &str) {
    let cron = world.cron();
    let reason = reason::COMPLETIONS_REACHED.to_owned();
    let run = Run {
        name: name::of_slot(&cron.name, slot).into(),
        uid: format!("uid of {}", name::of_slot(&cron.name, slot)).into(),
        created: slot,
        // Its annotation has whole seconds.
        slot: Timestamp::from_second(slot.as_second()).ok(),
        is_backfill: false,
        is_deleted: false,
        end: how.starts_with("done").then(|| End { succeeded: true, at: slot + SignedDuration::from_secs(10), reason }),
    };
    if !how.ends_with("unlisted") {
        let (name, uid) = (Some(run.name.to_string()), Some(run.uid.to_string()));
        cron.status.active = vec![ObjectReference { name, uid, ..ObjectReference::default() }];
        cron.status.active_runs = Some(1);
    }
    world.observed.runs.push(run);
}

#[test]
fn every_case_of_its_tables() {
    let mut wrong = String::new();
    let mut table = "";
    let mut lines =
        include_str!("upstream.txt").lines().filter(|line| !line.starts_with('#') && !line.is_empty()).peekable();
    let mut n_cases = 0;
    while let Some(line) = lines.next() {
        if line.starts_with('[') {
            table = line;
            lines.next();
            continue;
        }
        let stated = lines.next_if(|next| next.trim_start().starts_with("ours:"));
        let stated = stated.map_or("", |line| line.trim_start().trim_start_matches("ours:").trim());
        let (stated, why) = stated.split_once(": ").unwrap_or((stated, ""));
        let case = Case::parse(line);
        let name = case.name;
        let found = case.play().join(", ");
        n_cases += 1;
        if found != stated || stated.is_empty() != why.is_empty() {
            let _ = writeln!(wrong, "{table} {name}: ours: {found}");
        }
    }
    assert!(wrong.is_empty(), "otherwise than upstream, and not as said:\n{wrong}");
    assert_eq!(n_cases, 67 + 8 + 13 + 4);
}

/// `TestControllerV2UpdateCronJob`: after an edit it looks when the new schedule has its next slot, and at once otherwise.
#[test]
fn an_edit_is_followed_from_the_next_slot_on() {
    let edit = |before: &str, change: Value| {
        let mut world = World::new(json!({ "schedule": before }));
        world.cron().created = time("09:59");
        world.cron().status.last_schedule_time = Some(Time(time("09:59")));
        world.observed.now = time("09:59:59");
        world.look();
        world.edit(change);
        assert_eq!(world.slots(), [""; 0]);
        world.look().wake_at.expect("a slot to come")
    };
    assert_eq!(edit("30 * * * *", json!({ "schedule": "*/1 * * * *" })), time("10:00"));
    assert_eq!(edit("@every 1m", json!({ "schedule": "@every 3m" })), time("10:02"));
    assert_eq!(edit("@every 3m", json!({ "schedule": "@every 1m" })), time("10:00"));
    let label = json!({ "jobTemplate": { "metadata": { "labels": { "a": "foo" } } } });
    assert_eq!(edit("0 11 * * *", label), time("11:00"));
    let zone = "America/New_York";
    assert_eq!(edit("0 11 * * *", json!({ "timeZone": zone })), time("15:00"));
}

/// `TestControllerV2CleanupFinishedJobs`: what is kept no longer goes also while nothing can be created, or a quota of Jobs would
/// never have room again.
#[test]
fn history_is_cleaned_while_a_run_is_refused() {
    let kept = |now: &str, keep: &str| {
        let mut world = World::new(spec_of("0 * * * ?", keep));
        world.cron().created = time("08:00");
        world.cron().status.last_schedule_time = Some(Time(time("09:01")));
        add_run(&mut world, time("08:59"), "done unlisted");
        add_run(&mut world, time("09:59"), "done unlisted");
        world.observed.now = time(now);
        let retry_at = world.observed.now + SignedDuration::from_secs(10);
        for _ in 0..2 {
            world.refuse(Obstacle::Refused { message: "quota for # of jobs reached".to_owned(), retry_at });
            let plan = batchjob_decide::cron::decide(&world.observed);
            assert_eq!(plan.starts().count(), 0);
            world.carry_out(plan);
        }
        world.kept().len()
    };
    assert_eq!(kept("10:01", "keep 1"), 1);
    assert_eq!(kept("09:59", "keep 2"), 2);
}

/// `TestByJobStartTime`: the oldest go first, and those of the same moment by their names. Ours goes by when each was created,
/// which every run has.
#[test]
fn the_oldest_goes_first_and_by_its_name_those_of_the_same_moment() {
    let kept = |slots: [&str; 2], created: [&str; 2]| {
        let mut world = World::new(spec_of("0 * * * ?", "keep 1"));
        world.cron().created = time("08:00");
        world.cron().status.last_schedule_time = Some(Time(time("09:01")));
        world.observed.now = time("09:59");
        for slot in slots {
            add_run(&mut world, time(slot), "done unlisted");
        }
        for (run, created) in world.observed.runs.iter_mut().zip(created) {
            run.created = time(created);
        }
        world.look();
        world.kept()
    };
    let later = name::of_slot("etl", time("09:00"));
    assert_eq!(kept(["09:00", "08:00"], ["09:01", "09:01"]), [&*later]);
    assert_eq!(kept(["08:00", "09:00"], ["09:01", "09:01"]), [&*later]);
    assert_eq!(kept(["09:00", "08:00"], ["09:01", "09:02"]), [&*name::of_slot("etl", time("08:00"))]);
    assert_eq!(kept(["09:00", "08:00"], ["09:02", "09:01"]), [&*later]);
}

/// `TestGetJobFromTemplate2`. Ours has one label more, by which the runs of a BatchCronJob are listed.
#[test]
fn a_run_is_named_after_its_slot_and_has_the_labels_and_annotations_of_the_template() {
    let run = |zone: Option<&str>, annotations: Value| {
        let metadata = json!({ "labels": { "a": "b" }, "annotations": annotations });
        let mut world = World::new(json!({
            "schedule": "* * * * ?", "timeZone": zone, "jobTemplate": { "metadata": metadata },
        }));
        let name = name::of_slot("etl", time("10:00"));
        let start = Start { name, time: time("10:00"), is_manual: false, is_backfill: false };
        let run = run::build(world.cron(), &start).metadata;
        assert!(run.name.is_some_and(|name| name.starts_with("etl-")));
        assert_eq!(json!(run.labels), json!({ "a": "b", keys::CRON_JOB_NAME: "etl" }));
        let mut annotations = run.annotations.expect("annotations");
        (annotations.remove(keys::SCHEDULED_TIMESTAMP).expect("the slot"), annotations.len())
    };
    assert_eq!(run(Some("UTC"), json!({ "x": "y" })), ("2016-05-19T10:00:00Z".to_owned(), 1));
    assert_eq!(run(None, json!({ "x": "y" })), ("2016-05-19T10:00:00Z".to_owned(), 1));
    let rome = run(Some("Europe/Rome"), json!({ "x": "y", "z": "x" }));
    assert_eq!(rome, ("2016-05-19T12:00:00+02:00".to_owned(), 2));
}
