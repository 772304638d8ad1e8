//! One case, played: operators, users, a kubelet and a garbage collector around an API server, in virtual time.
//!
//! The runtime has one thread and a clock that stands still while anybody has something to do, and then jumps to the next
//! time that somebody waits for. So a case takes a millisecond or two, whatever it waits for, and is the same whenever it is
//! played.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use batchjob_crd::keys;
use batchjob_operator::args::OperatorArgs;
use batchjob_operator::clock::Clock;
use batchjob_operator::operator::{Clients, Operator};
use batchjob_oracle::End as HistoryEnd;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until};

use crate::apiserver::{ApiServer, Kind, Refusal, gc};
use crate::case::{Case, Deed, Edit, Meddling, NAMESPACE, Operators, Refuses};
use crate::fault::{Rates, up_to};
use crate::judge::{Judge, Note, Shared, lock};
use crate::kubelet::{self, End};
use crate::random::Random;
use crate::wire::{Life, Weather, Wire};

pub const LEASE: &str = "batchjob-operator";

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
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => panic!("no runtime: {error}"),
    };
    runtime.block_on(async { World::new(case, args, with_history).play().await })
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

/// The place of an operator: one life after the other.
struct Seat {
    life: Arc<Life>,
    handle: Option<JoinHandle<anyhow::Result<()>>>,
    stop: Option<oneshot::Sender<()>>,
    skew: Arc<AtomicI64>,
    n_lives: u32,
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
        // Any time will do.
        let base = Timestamp::from_second(1_800_000_000).unwrap_or(Timestamp::UNIX_EPOCH);
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
        for seat in 0..self.case.n_seats() {
            let seat_of = Seat {
                life: Life::new(identity(seat, 0), self.news.clone()),
                handle: None,
                stop: None,
                skew: Arc::default(),
                n_lives: 0,
            };
            self.seats.push(seat_of);
            self.begin(seat, self.weather.clone());
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

    // ------------------------------------------------------------------------------------------------ operators

    fn begin(&mut self, number: usize, weather: Arc<Weather>) {
        let seat = &mut self.seats[number];
        let identity = identity(number, seat.n_lives);
        seat.n_lives += 1;
        let life = Life::new(identity.clone(), self.news.clone());
        let wire = Wire { server: self.server.clone(), life: life.clone(), weather };
        let (base, start, skew) = (self.base, self.start, seat.skew.clone());
        let clock = Clock::new(move || {
            let skew = SignedDuration::from_secs(skew.load(Ordering::Relaxed));
            later(base, start.elapsed()).checked_add(skew).unwrap_or(base)
        });
        let clients = Clients {
            watching: wire.client(NAMESPACE),
            writing: wire.client(NAMESPACE),
            leasing: wire.client(NAMESPACE),
            lease_namespace: NAMESPACE.to_owned(),
        };
        let mut args = self.args.clone();
        args.leader_elect = self.case.operators == Operators::Elected;
        let (stop, stopped) = oneshot::channel();
        let news = self.news.clone();
        seat.handle = Some(tokio::spawn(async move {
            let operator = Operator::new(args, clients, clock, identity)?;
            let ended = operator
                .run(async {
                    if stopped.await.is_err() {
                        std::future::pending::<()>().await;
                    }
                })
                .await;
            news.notify_one();
            ended
        }));
        seat.stop = Some(stop);
        seat.life = life;
    }

    /// Ends a life at once: nothing that has begun is finished.
    fn bury(&mut self, number: usize) {
        let seat = &mut self.seats[number];
        seat.life.end();
        if let Some(handle) = seat.handle.take() {
            handle.abort();
        }
        seat.stop = None;
    }

    fn look_after_operators(&mut self) {
        for number in 0..self.seats.len() {
            let seat = &mut self.seats[number];
            let Some(handle) = &seat.handle else { continue };
            let has_died = seat.life.is_dead();
            if !has_died && !handle.is_finished() {
                continue;
            }
            let was_told = seat.stop.is_none();
            if !has_died && !was_told {
                self.complaints.push("the operator has ended by itself".to_owned());
            }
            self.bury(number);
            self.n_deaths += 1;
            let delay = up_to(&mut self.random, 3000);
            self.after(delay, Task::Begin { seat: number });
        }
    }

    /// An operator that comes anew has nothing to say.
    async fn ask_a_new_one(&mut self, quiet_since: Timestamp) {
        let fair = Weather::new(self.case.seed ^ 1, Rates::default(), Vec::new(), Instant::now());
        // What the old one had sent has come.
        sleep(Duration::from_secs(1)).await;
        self.seats[0].skew.store(0, Ordering::Relaxed);
        let n_before = lock(&self.judge).last_change;
        self.begin(0, Arc::new(fair));
        sleep(QUIET).await;
        let n_writes = self.seats[0].life.n_writes.load(Ordering::Relaxed);
        if n_writes > 0 || lock(&self.judge).last_change != n_before {
            self.complaints
                .push(format!("all was at rest since {quiet_since}, and a new operator made {n_writes} writes"));
        }
        if self.seats[0].handle.as_ref().is_some_and(JoinHandle::is_finished) {
            self.complaints.push("the new operator has ended by itself".to_owned());
        }
        self.bury(0);
    }

    fn outcome(mut self, settled_at: Option<Timestamp>) -> Outcome {
        let at = later(self.base, self.start.elapsed());
        let end = match settled_at {
            Some(quiet_since) => HistoryEnd::Settled { quiet_since, at },
            None => HistoryEnd::Cut,
        };
        let mut judge = lock(&self.judge);
        let n_lives = judge.n_lives();
        let broken = judge.finish(end);
        self.complaints.extend(broken.iter().map(ToString::to_string));
        Outcome {
            violations: self.complaints,
            n_lives,
            n_requests: self.weather.n_requests(),
            n_faults: self.weather.n_faults(),
            n_deaths: self.n_deaths,
            fingerprint: judge.fingerprint(),
            took: self.start.elapsed(),
            history: judge.history.take().unwrap_or_default(),
        }
    }

    // -------------------------------------------------------------------------------------------- all the others

    /// The scheduler, the kubelet and the garbage collector see what has changed.
    fn react(&mut self, note: &Note) {
        if !self.is_collecting {
            self.is_collecting = true;
            let delay = up_to(&mut self.random, 300);
            self.after(delay, Task::Collect);
        }
        if note.kind != Kind::Pod || note.is_gone {
            return;
        }
        let pod = Pod { name: note.name.clone(), uid: note.uid.clone() };
        if note.is_alone {
            let delay = up_to(&mut self.random, 2000);
            self.after(delay, Task::LetOrphanGo(pod.clone()));
        }
        if note.is_added {
            let delay = up_to(&mut self.random, 400);
            self.after(delay, Task::Bind(pod));
        } else if note.is_being_deleted {
            let delay = up_to(&mut self.random, 4000);
            self.after(delay, Task::Stop(pod));
        }
    }

    /// The pod, if it is still that one.
    fn look<T>(&self, pod: &Pod, look: impl FnOnce(&Value) -> T) -> Option<T> {
        let found = self.server.with_object(Kind::Pod, NAMESPACE, &pod.name, |object| {
            (object["metadata"]["uid"] == *pod.uid).then(|| look(object))
        });
        found.flatten()
    }

    fn perform(&mut self, task: Task) {
        let now = self.now();
        match task {
            Task::Deed(deed) => self.commit(deed),
            Task::Begin { seat } => self.begin(seat, self.weather.clone()),
            Task::Allow => self.server.set_admission(None),
            Task::Collect => {
                if gc::collect(&self.server) {
                    let delay = up_to(&mut self.random, 50);
                    self.after(delay, Task::Collect);
                } else {
                    self.is_collecting = false;
                }
            }
            Task::LetOrphanGo(pod) => {
                let is_alone = |it: &Value| it["metadata"]["ownerReferences"].as_array().is_none_or(Vec::is_empty);
                if self.look(&pod, is_alone) == Some(true) {
                    let gone = json!({ "metadata": {
                        "uid": pod.uid, "$deleteFromPrimitiveList/finalizers": [keys::JOB_POD_FINALIZER],
                    }});
                    kubelet::strategic(&self.server, "job-controller", Kind::Pod, &pod.name, &gone);
                }
            }
            Task::Bind(pod) => {
                if self.look(&pod, |it| it["spec"].get("nodeName").is_none()) == Some(true) {
                    kubelet::bind(&self.server, &pod.name);
                    let delay = up_to(&mut self.random, 500);
                    self.after(delay, Task::Run(pod));
                }
            }
            Task::Run(pod) => {
                let is_new = |it: &Value| !is_deleted(it) && it["status"]["phase"] == "Pending";
                if self.look(&pod, is_new) == Some(true) {
                    kubelet::runs(&self.server, &pod.name, &pod.uid, 0, now);
                    self.let_it_run(pod);
                }
            }
            Task::End(pod) => {
                if self.look(&pod, |it| !is_deleted(it) && it["status"]["phase"] == "Running") == Some(true) {
                    self.end(pod, now);
                }
            }
            Task::Stop(pod) => {
                let phase = self.look(&pod, |it| it["status"]["phase"].as_str().unwrap_or_default().to_owned());
                let Some(phase) = phase else { return };
                if !matches!(&*phase, "Succeeded" | "Failed") {
                    let mut random = Random::of(&[self.case.seed, 5, hash(&pod.name)]);
                    let end = if random.in_100(10) { End::Succeeds } else { End::Fails(143) };
                    let restarts = self.restarts.get(&pod.uid).copied().unwrap_or_default();
                    kubelet::ends(&self.server, &pod.name, &pod.uid, end, restarts, now);
                }
                let delay = up_to(&mut self.random, 500);
                self.after(delay, Task::Remove(pod));
            }
            Task::Remove(pod) => {
                let has_grace =
                    |it: &Value| it["metadata"]["deletionGracePeriodSeconds"].as_i64().is_some_and(|grace| grace > 0);
                if self.look(&pod, has_grace) == Some(true) {
                    let options = json!({ "gracePeriodSeconds": 0, "preconditions": { "uid": pod.uid } });
                    kubelet::delete(&self.server, "kubelet", Kind::Pod, &pod.name, &options);
                }
            }
        }
    }

    fn job_of(&self, pod: &Pod) -> Option<usize> {
        let name = self.look(&pod.clone(), |it| it["metadata"]["labels"][keys::JOB_NAME].as_str().map(str::to_owned));
        let name = name??;
        self.case.jobs.iter().position(|job| job.name() == name)
    }

    fn let_it_run(&mut self, pod: Pod) {
        let runs = self.job_of(&pod).map_or(Duration::ZERO, |job| self.case.jobs[job].runs);
        let delay = up_to(&mut Random::of(&[self.case.seed, 6, hash(&pod.name)]), runs.as_millis() as u64);
        self.after(delay, Task::End(pod));
    }

    fn end(&mut self, pod: Pod, now: Timestamp) {
        let Some(job) = self.job_of(&pod) else { return };
        let job = &self.case.jobs[job];
        let restarts = self.restarts.get(&pod.uid).copied().unwrap_or_default();
        let mut random = Random::of(&[self.case.seed, 4, hash(&pod.name), restarts]);
        let end = match random.in_100(job.fails) {
            false => End::Succeeds,
            true => match random.below(8) {
                0 => End::Evicted,
                1 => End::Fails(3),
                2 => End::Fails(42),
                _ => End::Fails(1),
            },
        };
        if job.restarts_containers() && matches!(end, End::Fails(_)) {
            let restarts = restarts + 1;
            self.restarts.insert(pod.uid.clone(), restarts);
            kubelet::crashes(&self.server, &pod.name, &pod.uid, restarts, now);
            kubelet::runs(&self.server, &pod.name, &pod.uid, restarts, now);
            let delay = Duration::from_secs(2) + up_to(&mut random, 5000);
            self.after(delay, Task::End(pod));
        } else {
            kubelet::ends(&self.server, &pod.name, &pod.uid, end, restarts, now);
        }
    }

    fn commit(&mut self, deed: Deed) {
        match deed {
            Deed::Create { job } => {
                let job = &self.case.jobs[job];
                let kind = kind_of(job.is_managed());
                if kubelet::create(&self.server, "user", kind, &job.manifest) == 409 {
                    // The one of that name is still there.
                    let is_going = |it: &Value| is_deleted(it);
                    if self.server.with_object(kind, NAMESPACE, job.name(), is_going) == Some(true) {
                        self.after(Duration::from_secs(1), Task::Deed(deed));
                    }
                }
            }
            Deed::Edit { job, what } => self.edit(job, &what),
            Deed::Delete { job, how } => {
                let job = &self.case.jobs[job];
                let options = json!({ "propagationPolicy": format!("{how:?}") });
                kubelet::delete(&self.server, "user", kind_of(job.is_managed()), job.name(), &options);
            }
            Deed::Pod { nth, what } => self.meddle(nth, what),
            Deed::Kill { seat } => self.seats[seat].life.end(),
            Deed::Terminate { seat } => {
                if let Some(stop) = self.seats[seat].stop.take() {
                    // It may have died meanwhile.
                    let _ = stop.send(());
                }
            }
            Deed::Skew { seat, seconds } => {
                self.seats[seat].skew.store(seconds, Ordering::Relaxed);
                let skew = self.seats[seat].skew.clone();
                let until = self.weather.fair_from;
                // Somebody sets it right in the end.
                tokio::spawn(async move {
                    sleep_until(until).await;
                    skew.store(0, Ordering::Relaxed);
                });
            }
            Deed::Compact => self.server.compact(self.server.revision()),
            Deed::Refuse { how, lasts } => {
                self.server.set_admission(Some(Box::new(move |kind, object| {
                    if kind != Kind::Pod {
                        return Ok(());
                    }
                    let name = object["metadata"]["name"].as_str().unwrap_or_default();
                    Err(match how {
                        Refuses::Quota => Refusal::quota_exceeded(kind, name, "pods"),
                        Refuses::Webhook => Refusal::webhook("policy.example.com", "not today"),
                    })
                })));
                self.after(lasts, Task::Allow);
            }
            Deed::DropLease => {
                kubelet::delete(&self.server, "user", Kind::Lease, LEASE, &Value::Null);
            }
        }
    }

    fn edit(&mut self, job: usize, edit: &Edit) {
        let job = &self.case.jobs[job];
        let spec = match edit {
            Edit::Parallelism(n) => json!({ "parallelism": n }),
            Edit::Size(n) => json!({ "completions": n, "parallelism": n }),
            Edit::Suspend(is_suspended) => json!({ "suspend": is_suspended }),
        };
        kubelet::merge(&self.server, "user", kind_of(job.is_managed()), job.name(), "", &json!({ "spec": spec }));
    }

    fn meddle(&mut self, nth: u64, what: Meddling) {
        let mut pods = Vec::new();
        self.server.for_each(Kind::Pod, |pod| pods.extend(pod["metadata"]["name"].as_str().map(str::to_owned)));
        if pods.is_empty() {
            return;
        }
        let name = &pods[nth as usize % pods.len()];
        // Between the end of its grace and its release nobody can tell a pod without our label from one that is gone.
        let is_going = |it: &Value| it["metadata"]["deletionGracePeriodSeconds"] == 0;
        if what == Meddling::TakeLabel && self.server.with_object(Kind::Pod, NAMESPACE, name, is_going) == Some(true) {
            return;
        }
        let patch = |patch: Value| _ = kubelet::merge(&self.server, "user", Kind::Pod, name, "", &patch);
        match what {
            Meddling::Delete => _ = kubelet::delete(&self.server, "user", Kind::Pod, name, &Value::Null),
            Meddling::DeleteByForce => {
                kubelet::delete(&self.server, "user", Kind::Pod, name, &json!({ "gracePeriodSeconds": 0 }));
            }
            Meddling::Evict => {
                let condition = json!({
                    "type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI",
                    "lastTransitionTime": self.now(),
                });
                let status = json!({ "status": { "conditions": [condition] } });
                kubelet::merge(&self.server, "evictor", Kind::Pod, name, "/status", &status);
                kubelet::delete(&self.server, "evictor", Kind::Pod, name, &Value::Null);
            }
            Meddling::TakeFinalizer => patch(json!({ "metadata": { "finalizers": null } })),
            Meddling::TakeOwner => patch(json!({ "metadata": { "ownerReferences": null } })),
            Meddling::TakeLabel => patch(json!({ "metadata": { "labels": { keys::ATTEMPT: null } } })),
        }
    }
}

fn kind_of(is_managed: bool) -> Kind {
    if is_managed { Kind::Job } else { Kind::BatchJob }
}

fn is_deleted(object: &Value) -> bool {
    object["metadata"].get("deletionTimestamp").is_some()
}

fn identity(seat: usize, life: u32) -> String {
    format!("operator-{seat}-{life}")
}

fn hash(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3))
}

fn later(base: Timestamp, elapsed: Duration) -> Timestamp {
    let elapsed = SignedDuration::try_from(elapsed).unwrap_or_default();
    base.checked_add(elapsed).unwrap_or(base)
}
