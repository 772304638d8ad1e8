//! What the spec says, in effect; or what is wrong with it, in words for the one who wrote it.

use batchjob_crd::cron_job::{
    BatchCronJobSpec, ConcurrencyPolicy, FailedJobsRetention, Health, MissedRunsPolicy, RepeatedTime, SkippedTime,
};
use batchjob_crd::reason;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

use super::name::short_hash;
use super::observed::CronJob;
use crate::schedule::{Calendar, Dst, Expression, Repeated, Skipped, spread};

/// The spec, with what is absent filled in.
#[derive(Clone, Debug)]
pub struct Spec {
    pub timetable: Timetable,
    /// The expressions, for people.
    pub schedule: String,
    pub zone: String,
    /// What the slots depend on: if it differs, the schedule was changed.
    pub hash: String,
    /// How long after its slot each run starts.
    pub jitter: SignedDuration,
    /// How late a run may start.
    pub deadline: Option<SignedDuration>,
    pub missed: Missed,
    pub policy: ConcurrencyPolicy,
    /// How many runs may be active at once; None: any number.
    pub limit: Option<usize>,
    /// The same, for all of its group.
    pub group: Option<(String, usize)>,
    pub is_suspended: bool,
    pub keep_succeeded: usize,
    pub keep_failed: usize,
    pub keep_unfinished: Option<usize>,
    pub drops_failed_after_success: bool,
    pub health: Health,
}

/// What becomes of slots that nobody was there to start in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Missed {
    /// How many of them run, the latest.
    pub n: usize,
    /// None of them is later than this.
    pub within: Option<SignedDuration>,
    /// Each of them has a place of its own, also behind others that wait.
    pub is_all: bool,
}

/// What is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    pub reason: &'static str,
    pub message: String,
}

/// The slots of a calendar within the times that the spec names.
#[derive(Clone, Debug)]
pub struct Timetable {
    pub calendar: Calendar,
    pub not_before: Option<Timestamp>,
    pub not_after: Option<Timestamp>,
}

/// With policy None a slot counts as started in time if it is no later than this, and no startingDeadlineSeconds says otherwise.
const IN_TIME: SignedDuration = SignedDuration::from_secs(60);
const MOST_MISSED_RUNS: i32 = 100;

impl Spec {
    /// `now` is for whether there is any slot to come.
    pub fn read(cron: &CronJob, now: Timestamp) -> Result<Spec, Problem> {
        let spec = &cron.spec;
        let zone = spec.time_zone.as_deref().unwrap_or("UTC");
        let texts = expressions(spec)?;
        let timetable = Timetable {
            calendar: Calendar {
                expressions: parsed(&texts, &identity(cron))?,
                zone: time_zone(zone)?,
                dst: dst(spec),
                anchor: cron.created,
            },
            not_before: spec.not_before.as_ref().map(|time| time.0),
            not_after: spec.not_after.as_ref().map(|time| time.0),
        };
        timetable.calendar.check(&texts, now)?;

        let policy = spec.concurrency_policy.unwrap_or_default();
        let limit = match (policy, spec.max_active) {
            (ConcurrencyPolicy::Forbid, _) => Some(1),
            (ConcurrencyPolicy::Allow, None) => None,
            (_, limit) => Some(count(limit, 1).max(1)),
        };
        let group = spec.concurrency_group.as_ref();
        let group = group.map(|group| (group.name.clone(), count(group.max_active, 1).max(1)));
        let deadline = spec.starting_deadline_seconds.map(|seconds| SignedDuration::from_secs(seconds.max(0)));
        Ok(Spec {
            hash: short_hash(&[&texts.join("\n"), zone, &format!("{:?}", dst(spec)), &bounds(spec)]),
            schedule: texts.join("; "),
            zone: zone.to_owned(),
            jitter: jitter(cron),
            missed: missed(spec, deadline),
            deadline,
            policy,
            limit,
            group,
            is_suspended: spec.suspend == Some(true),
            keep_succeeded: count(spec.successful_jobs_history_limit, 3),
            keep_failed: count(spec.failed_jobs_history_limit, 1),
            keep_unfinished: spec.unfinished_jobs_history_limit.map(|limit| count(Some(limit), 1).max(1)),
            drops_failed_after_success: spec.failed_jobs_retention == Some(FailedJobsRetention::UntilSuccess),
            health: spec.health.unwrap_or_default(),
            timetable,
        })
    }

    /// When the run of a slot is to start.
    pub fn starts_at(&self, slot: Timestamp) -> Timestamp {
        slot.checked_add(self.jitter).unwrap_or(Timestamp::MAX)
    }

    /// Until when slots have come whose runs are to start by that time.
    pub fn horizon(&self, now: Timestamp) -> Option<Timestamp> {
        now.checked_sub(self.jitter).ok()
    }

    /// From when on a slot is too late; None: never.
    pub fn too_late_at(&self, slot: Timestamp) -> Option<Timestamp> {
        let last = self.starts_at(slot).checked_add(self.deadline?).ok()?;
        last.checked_add(SignedDuration::from_nanos(1)).ok()
    }

    /// Whether every slot that waits keeps its place, however many there are.
    pub fn keeps_all(&self) -> bool {
        self.policy == ConcurrencyPolicy::Queue || self.missed.is_all
    }
}

impl Timetable {
    /// The first slot after that time.
    pub fn next(&self, after: Timestamp) -> Option<Timestamp> {
        let slot = self.calendar.next(self.from(after))?;
        Some(slot).filter(|slot| self.not_after.is_none_or(|end| *slot <= end))
    }

    /// The last slot until that time, and after `after`.
    pub fn last(&self, after: Timestamp, until: Timestamp) -> Option<Timestamp> {
        let (after, until) = (self.from(after), self.not_after.map_or(until, |end| end.min(until)));
        if after < until { self.calendar.last(after, until) } else { None }
    }

    /// How many there are after the one time and until the other, counted up to `most`.
    pub fn count(&self, after: Timestamp, until: Timestamp, most: usize) -> usize {
        let slots = std::iter::successors(self.next(after), |&slot| self.next(slot));
        slots.take(most).take_while(|slot| *slot <= until).count()
    }

    fn from(&self, after: Timestamp) -> Timestamp {
        let just_before = |start: Timestamp| start.checked_sub(SignedDuration::from_nanos(1)).unwrap_or(start);
        self.not_before.map_or(after, |start| just_before(start).max(after))
    }
}

impl Calendar {
    /// Each expression has to name a moment that comes.
    fn check(&self, texts: &[&str], now: Timestamp) -> Result<(), Problem> {
        for (nth, expression) in self.expressions.iter().enumerate() {
            let alone = Calendar { expressions: vec![expression.clone()], ..self.clone() };
            if alone.next(now).is_none() {
                let why = "names no day within five years, such as the 30th of February; write a day that there is, such as \
                           \"0 0 L 2 *\" for the last of February";
                return Err(Problem::in_schedule(texts, nth, &format!("\"{}\" {why}", texts[nth])));
            }
        }
        Ok(())
    }
}

impl Problem {
    fn in_schedule(texts: &[&str], nth: usize, what: &str) -> Problem {
        let field = if texts.len() == 1 { "schedule".to_owned() } else { format!("schedules[{nth}]") };
        Problem { reason: reason::INVALID_SCHEDULE, message: format!("{field}: {what}") }
    }
}

/// The rules in the CRD refuse neither and both; what was stored before them may have them.
fn expressions(spec: &BatchCronJobSpec) -> Result<Vec<&str>, Problem> {
    let several = spec.schedules.iter().flatten().map(String::as_str);
    let texts: Vec<&str> = spec.schedule.as_deref().into_iter().chain(several).map(str::trim).collect();
    if texts.is_empty() {
        let message = "schedule: it is missing; write an expression such as \"30 2 * * *\"".to_owned();
        return Err(Problem { reason: reason::INVALID_SCHEDULE, message });
    }
    Ok(texts)
}

fn parsed(texts: &[&str], identity: &str) -> Result<Vec<Expression>, Problem> {
    let parse = |(nth, text): (usize, &&str)| {
        Expression::parse(text, identity).map_err(|wrong| Problem::in_schedule(texts, nth, &wrong.to_string()))
    };
    texts.iter().enumerate().map(parse).collect()
}

fn time_zone(name: &str) -> Result<TimeZone, Problem> {
    TimeZone::get(name).map_err(|_| Problem {
        reason: reason::UNKNOWN_TIME_ZONE,
        message: format!(
            "timeZone: there is no time zone \"{name}\"; write a name of the tz database, such as Europe/Berlin or UTC"
        ),
    })
}

fn dst(spec: &BatchCronJobSpec) -> Dst {
    let dst = spec.dst.unwrap_or_default();
    Dst {
        skipped: match dst.skipped.unwrap_or_default() {
            SkippedTime::RunAfter => Skipped::RunAfter,
            SkippedTime::Skip => Skipped::Skip,
        },
        repeated: match dst.repeated.unwrap_or_default() {
            RepeatedTime::Once => Repeated::Once,
            RepeatedTime::Twice => Repeated::Twice,
        },
    }
}

fn bounds(spec: &BatchCronJobSpec) -> String {
    format!("{:?} {:?}", spec.not_before.as_ref().map(|time| time.0), spec.not_after.as_ref().map(|time| time.0))
}

fn missed(spec: &BatchCronJobSpec, deadline: Option<SignedDuration>) -> Missed {
    let missed = spec.missed_runs.clone().unwrap_or_default();
    let within = missed.within_seconds.map(|seconds| SignedDuration::from_secs(seconds.max(1)));
    match missed.policy.unwrap_or_default() {
        MissedRunsPolicy::Latest => Missed { n: 1, within, is_all: false },
        MissedRunsPolicy::All => {
            Missed { n: count(missed.max_runs.or(Some(MOST_MISSED_RUNS)), 1).clamp(1, 1000), within, is_all: true }
        }
        MissedRunsPolicy::None => Missed { n: 1, within: Some(deadline.unwrap_or(IN_TIME)), is_all: false },
    }
}

/// Whose hashes these are.
fn identity(cron: &CronJob) -> String {
    format!("{}/{}", cron.namespace, cron.name)
}

/// Always the same for the same namespace and name, and even over many.
fn jitter(cron: &CronJob) -> SignedDuration {
    let most = u64::try_from(cron.spec.jitter_seconds.unwrap_or_default()).unwrap_or_default();
    let seconds = spread(&identity(cron), "jitter", most + 1);
    SignedDuration::from_secs(i64::try_from(seconds).unwrap_or_default())
}

fn count(value: Option<i32>, default: usize) -> usize {
    value.map_or(default, |value| usize::try_from(value).unwrap_or_default())
}
