//! One case, played: operators, users, a kubelet and a garbage collector around an API server, in virtual time.
//!
//! The runtime has one thread and a clock that stands still while anybody has something to do, and then jumps to the next
//! time that somebody waits for. So a case takes a millisecond or two, whatever it waits for, and is the same whenever it is
//! played.

mod cluster;
mod operators;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use batchjob_operator::args::OperatorArgs;
use batchjob_oracle::End as HistoryEnd;
use jiff::{SignedDuration, Timestamp};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use crate::apiserver::{ApiServer, Kind};
use crate::case::{Case, Deed};
use crate::judge::{Judge, Shared, lock};
use crate::random::Random;
use crate::wire::Weather;
use operators::{Seat, identity};

pub const LEASE: &str = "batchjob-operator";

/// When it all begins, in seconds since 1970. Any time will do.
pub const BASE: i64 = 1_800_000_000;

/// Nothing has been written for so long: all has come to rest.
const QUIET: Duration = Duration::from_secs(70);
/// The same, where a job still waits for something: longer than the longest delay before a retry.
const LONG_QUIET: Duration = Duration::from_secs(15 * 60);
/// After all faults it comes to rest within this time.
const LIMIT: Duration = Duration::from_secs(3 * 3600);

/// What came of a case.
pub struct Outcome {
    pub violations: Vec<String>,
    pub n_lives: u64,
    /// Slots of schedules that were decided.
    pub n_slots: u64,
    pub n_requests: u64,
    pub n_faults: u64,
    pub n_deaths: u64,
    /// The same for the same history.
    pub fingerprint: u64,
    /// How long it took, in its own time.
    pub took: Duration,
    pub history: Vec<String>,
}

/// Plays a case; with its history, if that is wanted.
pub fn play(case: &Case, args: &OperatorArgs, with_history: bool) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.expect("a runtime of one thread").block_on(async { World::new(case, args, with_history).play().await })
}

/// What is to be done at a time.
#[derive(Clone, Debug)]
enum Task {
    Deed(Deed),
    Bind(Pod),
    Run(Pod),
    End(Pod),
    /// The kubelet has stopped what was told to go.
    Stop(Pod),
    Remove(Pod),
    /// Kubernetes' own Job controller takes its finalizer off pods that nobody owns (`syncOrphanPod`).
    LetOrphanGo(Pod),
    Collect,
    Begin {
        seat: usize,
    },
    Allow,
}

#[derive(Clone, Debug)]
struct Pod {
    name: String,
    uid: String,
}

struct World<'a> {
    case: &'a Case,
    args: &'a OperatorArgs,
    server: ApiServer,
    weather: Arc<Weather>,
    judge: Shared,
    base: Timestamp,
    start: Instant,
    agenda: BTreeMap<(Instant, u64), Task>,
    n_tasks: u64,
    is_collecting: bool,
    /// How often the container of a pod was started again.
    restarts: HashMap<String, u64>,
    seats: Vec<Seat>,
    news: Arc<Notify>,
    random: Random,
    complaints: Vec<String>,
    n_deaths: u64,
}

impl<'a> World<'a> {
    fn new(case: &'a Case, args: &'a OperatorArgs, with_history: bool) -> World<'a> {
        let start = Instant::now();
        let base = Timestamp::from_second(BASE).unwrap_or(Timestamp::UNIX_EPOCH);
        let clock = move || later(base, start.elapsed());
        let server = ApiServer::new(Arc::new(clock), case.seed);
        let identities = (0..case.n_seats()).flat_map(|seat| (0..40).map(move |life| identity(seat, life).into()));
        let judge = Judge::new(case, identities.collect(), with_history);
        let news = Arc::new(Notify::new());
        let (told, tap_news) = (judge.clone(), news.clone());
        server.on_write(Box::new(move |written| {
            lock(&told).see(written);
            tap_news.notify_one();
        }));
        let fair_from = start + case.fair_after;
        World {
            case,
            args,
            weather: Arc::new(Weather::new(case.seed, case.rates.clone(), case.script.clone(), fair_from)),
            server,
            judge,
            base,
            start,
            agenda: BTreeMap::new(),
            n_tasks: 0,
            is_collecting: false,
            restarts: HashMap::new(),
            seats: Vec::new(),
            news,
            random: Random::of(&[case.seed, 3]),
            complaints: Vec::new(),
            n_deaths: 0,
        }
    }

    async fn play(mut self) -> Outcome {
        for (at, deed) in &self.case.deeds {
            self.at(*at, Task::Deed(deed.clone()));
        }
        for number in 0..self.case.n_seats() {
            self.seats.push(Seat::new(identity(number, 0), self.news.clone()));
            self.begin(number, self.weather.clone());
        }
        let settled_at = self.until_rest().await;
        for seat in 0..self.seats.len() {
            self.bury(seat);
        }
        if let Some(quiet_since) = settled_at {
            self.ask_a_new_one(quiet_since).await;
        }
        self.outcome(settled_at)
    }

    /// Until nothing is written any more; since when. None: it did not come to rest.
    async fn until_rest(&mut self) -> Option<Timestamp> {
        let limit = self.start + self.case.fair_after + LIMIT;
        loop {
            let notes = lock(&self.judge).take_notes();
            for note in &notes {
                self.react(note);
            }
            self.look_after_operators();
            while let Some(entry) = self.agenda.first_entry() {
                if entry.key().0 > Instant::now() {
                    break;
                }
                let task = entry.remove();
                self.perform(task);
            }
            let quiet_from = self.quiet_from();
            let quiet = if self.waits_for_something() { LONG_QUIET } else { QUIET };
            let now = Instant::now();
            if now >= quiet_from + quiet && self.agenda.is_empty() {
                return Some(later(self.base, quiet_from - self.start));
            }
            if now > limit {
                self.complaints.push(format!("it does not come to rest within {LIMIT:?} after the last fault"));
                return None;
            }
            let next = self.agenda.first_key_value().map_or(quiet_from + quiet, |((at, _), _)| *at);
            tokio::select! {
                biased;
                () = self.news.notified() => {}
                () = sleep_until(next.max(now + Duration::from_millis(1))) => {}
            }
        }
    }

    /// The last change or fault.
    fn quiet_from(&self) -> Instant {
        let last_change = lock(&self.judge).last_change.duration_since(self.base);
        let last_change = self.start + Duration::try_from(last_change).unwrap_or_default();
        last_change.max(self.weather.fair_from)
    }

    fn waits_for_something(&self) -> bool {
        let mut waits = false;
        for kind in [Kind::BatchJob, Kind::Job] {
            self.server.for_each(kind, |job| {
                let is_true = |type_: &str| {
                    let conditions = job["status"]["conditions"].as_array().into_iter().flatten();
                    conditions.filter(|it| it["type"] == type_).any(|it| it["status"] == "True")
                };
                let is_over = is_true("Complete") || is_true("Failed");
                let expires = kind == Kind::BatchJob && job["spec"].get("ttlSecondsAfterFinished").is_some();
                waits |= if is_over { expires } else { !is_true("Suspended") };
            });
        }
        self.server.for_each(Kind::BatchCronJob, |cron| {
            let status = &cron["status"];
            waits |= status["nextScheduleTimes"][0].is_string() || status["held"].as_i64() > Some(0);
        });
        waits
    }

    fn at(&mut self, at: Duration, task: Task) {
        self.n_tasks += 1;
        self.agenda.insert((self.start + at, self.n_tasks), task);
    }

    fn after(&mut self, delay: Duration, task: Task) {
        let at = self.start.elapsed() + delay;
        self.at(at, task);
    }

    fn now(&self) -> Timestamp {
        // Times in objects have whole seconds.
        let now = later(self.base, self.start.elapsed());
        Timestamp::from_second(now.as_second()).unwrap_or(now)
    }

    fn outcome(mut self, settled_at: Option<Timestamp>) -> Outcome {
        let at = later(self.base, self.start.elapsed());
        let end = match settled_at {
            Some(quiet_since) => HistoryEnd::Settled { quiet_since, at },
            None => HistoryEnd::Cut,
        };
        let mut judge = lock(&self.judge);
        let n_lives = judge.n_lives();
        if settled_at.is_some() {
            self.complaints.extend(judge.schedules().judge(self.case.keeps_limits(), self.case.may_start_late()));
        }
        let broken = judge.finish(end);
        self.complaints.extend(broken.iter().map(ToString::to_string));
        Outcome {
            violations: self.complaints,
            n_lives,
            n_slots: judge.schedules().n_slots(),
            n_requests: self.weather.n_requests(),
            n_faults: self.weather.n_faults(),
            n_deaths: self.n_deaths,
            fingerprint: judge.fingerprint(),
            took: self.start.elapsed(),
            history: judge.history.take().unwrap_or_default(),
        }
    }
}

fn later(base: Timestamp, elapsed: Duration) -> Timestamp {
    let elapsed = SignedDuration::try_from(elapsed).unwrap_or_default();
    base.checked_add(elapsed).unwrap_or(base)
}
