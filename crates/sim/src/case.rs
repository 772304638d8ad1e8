//! A case: the jobs, what becomes of their pods, what users and others do, and what goes wrong. All of it is a function of
//! its seed.

use std::fmt;
use std::time::Duration;

use batchjob_crd::keys;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::fault::{Rates, RequestFault, up_to};
use crate::random::Random;
use crate::world::BASE;

/// From then on nothing goes wrong any more, and users have done what they do.
pub const FAIR_AFTER: Duration = Duration::from_secs(90);

pub const NAMESPACE: &str = "default";

/// What is played.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Case {
    pub seed: u64,
    pub jobs: Vec<JobCase>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub crons: Vec<CronCase>,
    /// What is done to jobs, pods and operators, and when.
    pub deeds: Vec<(Duration, Deed)>,
    pub rates: Rates,
    /// The n-th request comes to that harm.
    pub script: Vec<(u64, RequestFault)>,
    pub operators: Operators,
    pub fair_after: Duration,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct JobCase {
    pub manifest: Value,
    /// Of 100 attempts so many fail.
    pub fails: u64,
    /// How long a pod runs at most.
    pub runs: Duration,
}

/// A BatchCronJob, and what becomes of the pods of its runs.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CronCase {
    pub manifest: Value,
    pub fails: u64,
    pub runs: Duration,
}

/// How many operators there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Operators {
    One,
    /// Both believe that they lead.
    TwoLeaders,
    /// Two of them, of which one leads.
    Elected,
}

/// Something that happens at a given time.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Deed {
    Create {
        job: usize,
    },
    Edit {
        job: usize,
        what: Edit,
    },
    Delete {
        job: usize,
        how: Propagation,
    },
    /// Of the pods that are there, one.
    Pod {
        nth: u64,
        what: Meddling,
    },
    CreateCron {
        cron: usize,
    },
    SuspendCron {
        cron: usize,
        suspend: bool,
    },
    /// The n-th value of the annotation.
    Trigger {
        cron: usize,
        nth: u64,
    },
    /// Of the runs that the ledger tells of, one is deleted.
    DeleteRun {
        nth: u64,
    },
    Kill {
        seat: usize,
    },
    /// SIGTERM.
    Terminate {
        seat: usize,
    },
    /// The operator's clock goes wrong by so many seconds.
    Skew {
        seat: usize,
        seconds: i64,
    },
    /// The API server forgets what was.
    Compact,
    /// It refuses all new pods for a while.
    Refuse {
        how: Refuses,
        lasts: Duration,
    },
    /// Somebody takes the Lease away.
    DropLease,
    /// The operator reaches everything but the Lease for a while.
    LoseLease {
        seat: usize,
        lasts: Duration,
    },
}

/// What becomes of the pods of a job that is deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Propagation {
    Background,
    Foreground,
    Orphan,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Edit {
    Parallelism(u32),
    /// Completions and parallelism of an Indexed job.
    Size(u32),
    Suspend(bool),
}

/// What others do to a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Meddling {
    Delete,
    DeleteByForce,
    Evict,
    TakeFinalizer,
    TakeOwner,
    TakeLabel,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Refuses {
    Quota,
    Webhook,
}

impl Case {
    /// The case of a seed.
    pub fn of(seed: u64) -> Case {
        let mut random = Random::of(&[seed, 0]);
        let operators = match random.below(10) {
            0..7 => Operators::One,
            7 | 8 => Operators::TwoLeaders,
            _ => Operators::Elected,
        };
        let n_jobs = 1 + random.below(7) as usize;
        let jobs: Vec<JobCase> = (0..n_jobs).map(|n| JobCase::draw(n, &mut random)).collect();
        let mut case = Case {
            seed,
            jobs,
            crons: Vec::new(),
            deeds: Vec::new(),
            rates: if random.in_100(85) { Rates::draw(&mut random) } else { Rates::default() },
            script: Vec::new(),
            operators,
            fair_after: FAIR_AFTER,
        };
        case.draw_deeds(&mut random);
        case.deeds.sort_by_key(|(at, _)| *at);
        case
    }

    /// The case of schedules of a seed.
    pub fn of_schedules(seed: u64) -> Case {
        let mut random = Random::of(&[seed, 7]);
        let mut case = Case { jobs: Vec::new(), deeds: Vec::new(), ..Case::of(seed) };
        let n_crons = 1 + random.below(3) as usize;
        let (has_late, fair) = (case.may_start_late(), case.fair_after.as_millis() as u64);
        case.crons = (0..n_crons).map(|n| CronCase::draw(n, has_late, &mut random)).collect();
        case.draw_deeds(&mut random);
        for cron in 0..n_crons {
            let created = up_to(&mut random, 20_000);
            case.deeds.push((created, Deed::CreateCron { cron }));
            if random.in_100(25) {
                let (one, other) = (up_to(&mut random, fair), up_to(&mut random, fair));
                case.deeds.push((one.min(other), Deed::SuspendCron { cron, suspend: true }));
                case.deeds.push((one.max(other), Deed::SuspendCron { cron, suspend: false }));
            }
            for nth in 0..random.below(3) {
                case.deeds.push((up_to(&mut random, fair), Deed::Trigger { cron, nth }));
            }
        }
        for _ in 0..random.below(3) {
            case.deeds.push((up_to(&mut random, fair), Deed::DeleteRun { nth: random.number() }));
        }
        case.deeds.sort_by_key(|(at, _)| *at);
        case
    }

    /// Whether no more runs of a schedule are ever active than may be: two operators that both lead, or lists that are not what the
    /// API server promises, are out of what anybody can bear.
    pub fn keeps_limits(&self) -> bool {
        !self.may_start_late() && self.rates.old_lists == 0
    }

    /// A create may take effect when its run has ended and is gone: only who keeps all runs is safe from that.
    pub fn may_start_late(&self) -> bool {
        self.operators != Operators::One || self.has_fault(RequestFault::makes_late_creates)
    }

    fn draw_deeds(&mut self, random: &mut Random) {
        let fair = self.fair_after.as_millis() as u64;
        for job in 0..self.jobs.len() {
            let created = up_to(random, 20_000);
            self.deeds.push((created, Deed::Create { job }));
            let later = |random: &mut Random| created + up_to(random, fair - 20_000);
            if random.in_100(20) {
                self.deeds
                    .push((later(random), Deed::Edit { job, what: Edit::Parallelism(1 + random.below(5) as u32) }));
            }
            if random.in_100(20) {
                let (one, other) = (later(random), later(random));
                self.deeds.push((one.min(other), Deed::Edit { job, what: Edit::Suspend(true) }));
                self.deeds.push((one.max(other), Deed::Edit { job, what: Edit::Suspend(false) }));
            } else if self.jobs[job].manifest["spec"]["suspend"] == true {
                self.deeds.push((later(random), Deed::Edit { job, what: Edit::Suspend(false) }));
            }
            if self.jobs[job].manifest["spec"]["completionMode"] == "Indexed" && random.in_100(20) {
                for _ in 0..1 + random.below(3) {
                    let size = 1 + random.below(6) as u32;
                    self.deeds.push((later(random), Deed::Edit { job, what: Edit::Size(size) }));
                }
            }
            if random.in_100(12) {
                let how = random.one_of(&[Propagation::Background, Propagation::Foreground, Propagation::Orphan]);
                self.deeds.push((later(random), Deed::Delete { job, how }));
                if random.in_100(50) {
                    // Another one of the same name.
                    self.deeds.push((later(random), Deed::Create { job }));
                }
            }
        }
        let n_seats = self.n_seats() as u64;
        let some = |random: &mut Random, percent: u64, most: u64| {
            if random.in_100(percent) { 1 + random.below(most) } else { 0 }
        };
        for _ in 0..some(random, 40, 4) {
            let seat = random.below(n_seats) as usize;
            self.deeds.push((up_to(random, fair), Deed::Kill { seat }));
        }
        for _ in 0..some(random, 15, 2) {
            let seat = random.below(n_seats) as usize;
            self.deeds.push((up_to(random, fair), Deed::Terminate { seat }));
        }
        for _ in 0..some(random, 25, 4) {
            let all = [
                Meddling::Delete,
                Meddling::DeleteByForce,
                Meddling::Evict,
                Meddling::TakeFinalizer,
                Meddling::TakeOwner,
                Meddling::TakeLabel,
            ];
            let (nth, what) = (random.number(), random.one_of(&all));
            // The label is what we watch by: whoever takes it off while no operator runs takes the pod out of all sight.
            if what != Meddling::TakeLabel || !self.may_operators_die() {
                self.deeds.push((up_to(random, fair), Deed::Pod { nth, what }));
            }
        }
        for _ in 0..some(random, 10, 3) {
            let seat = random.below(n_seats) as usize;
            let seconds = random.one_of(&[-86_400, -3600, -30, -2, 2, 30, 3600, 86_400]);
            self.deeds.push((up_to(random, fair), Deed::Skew { seat, seconds }));
        }
        for _ in 0..some(random, 20, 3) {
            self.deeds.push((up_to(random, fair), Deed::Compact));
        }
        for _ in 0..some(random, 10, 2) {
            let how = random.one_of(&[Refuses::Quota, Refuses::Webhook]);
            let (at, lasts) = (up_to(random, fair - 30_000), up_to(random, 30_000));
            self.deeds.push((at, Deed::Refuse { how, lasts }));
        }
        if self.operators == Operators::Elected && random.in_100(20) {
            self.deeds.push((up_to(random, fair), Deed::DropLease));
        }
        if self.operators == Operators::Elected {
            for _ in 0..some(random, 40, 3) {
                let seat = random.below(n_seats) as usize;
                let (at, lasts) = (up_to(random, fair - 40_000), up_to(random, 40_000));
                self.deeds.push((at, Deed::LoseLease { seat, lasts }));
            }
        }
    }

    fn may_operators_die(&self) -> bool {
        let is_deadly =
            |fault| matches!(fault, RequestFault::KillBefore | RequestFault::KillAfter | RequestFault::KillThenApply);
        self.has(|deed| matches!(deed, Deed::Kill { .. } | Deed::Terminate { .. })) || self.has_fault(is_deadly)
    }

    pub fn n_seats(&self) -> usize {
        if self.operators == Operators::One { 1 } else { 2 }
    }

    pub fn has(&self, what: impl Fn(&Deed) -> bool) -> bool {
        self.deeds.iter().any(|(_, deed)| what(deed))
    }

    pub fn has_fault(&self, what: impl Fn(RequestFault) -> bool) -> bool {
        let rates = self.rates.requests.iter().map(|(fault, _)| *fault);
        rates.chain(self.script.iter().map(|(_, fault)| *fault)).any(what)
    }
}

impl CronCase {
    fn draw(n: usize, keeps_all: bool, random: &mut Random) -> CronCase {
        let schedule = random.one_of(&["*/5 * * * * *", "*/13 * * * * *", "* * * * *", "@every 7s", "H/20 * * * * *"]);
        let policy = random.one_of(&["Allow", "Forbid", "Replace", "Queue"]);
        // Then it comes to rest.
        let seconds = random.below(150) as i64;
        let not_after = Timestamp::from_second(BASE + 60 + seconds).unwrap_or(Timestamp::MAX);
        let mut spec = json!({ "schedule": schedule, "concurrencyPolicy": policy, "notAfter": not_after });
        if policy != "Forbid" && random.in_100(40) {
            spec["maxActive"] = (1 + random.below(3)).into();
        }
        if random.in_100(25) && policy != "Replace" {
            spec["missedRuns"] = json!({ "policy": "All", "maxRuns": 1 + random.below(20) });
            if policy == "Allow" && spec.get("maxActive").is_none() {
                spec["maxActive"] = 2.into();
            }
        } else if random.in_100(25) {
            spec["startingDeadlineSeconds"] = (5 + random.below(40)).into();
        }
        if random.in_100(20) {
            spec["jitterSeconds"] = random.below(15).into();
        }
        let limit = if keeps_all { 100_000 } else { random.below(4) };
        spec["successfulJobsHistoryLimit"] = limit.into();
        spec["failedJobsHistoryLimit"] = limit.into();
        let run = JobCase::new("", false, json!({ "backoffLimit": random.below(2) }));
        spec["jobTemplate"] = json!({ "spec": run.manifest["spec"] });
        let manifest = json!({
            "apiVersion": "batchjob.dev/v1alpha1", "kind": "BatchCronJob",
            "metadata": { "name": format!("cron-{n}"), "namespace": NAMESPACE }, "spec": spec,
        });
        let runs = Duration::from_millis(random.one_of(&[10, 1000, 8000, 30_000]));
        CronCase { manifest, fails: random.one_of(&[0, 0, 15, 70]), runs }
    }

    pub fn name(&self) -> &str {
        self.manifest["metadata"]["name"].as_str().unwrap_or_default()
    }
}

impl JobCase {
    pub fn new(name: &str, is_managed: bool, spec: Value) -> JobCase {
        let (version, kind) = if is_managed { ("batch/v1", "Job") } else { ("batchjob.dev/v1alpha1", "BatchJob") };
        let template = json!({ "spec": {
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 5,
            "containers": [{ "name": "main", "image": "none" }],
        }});
        let mut whole = json!({ "template": template });
        if let (Value::Object(whole), Value::Object(spec)) = (&mut whole, spec) {
            whole.extend(spec);
        }
        if is_managed {
            whole["managedBy"] = keys::MANAGED_BY.into();
        }
        let manifest = json!({ "apiVersion": version, "kind": kind, "metadata": { "name": name, "namespace": NAMESPACE }, "spec": whole });
        JobCase { manifest, fails: 0, runs: Duration::from_secs(2) }
    }

    fn draw(n: usize, random: &mut Random) -> JobCase {
        let mut spec = Map::new();
        let completions = 1 + random.below(5);
        spec.insert("parallelism".to_owned(), (1 + random.below(4)).into());
        let is_indexed = random.in_100(50);
        if is_indexed {
            spec.insert("completionMode".to_owned(), "Indexed".into());
        }
        if is_indexed || random.in_100(75) {
            spec.insert("completions".to_owned(), completions.into());
        }
        let mut set = |random: &mut Random, percent: u64, name: &str, value: Value| {
            if random.in_100(percent) {
                spec.insert(name.to_owned(), value);
                return true;
            }
            false
        };
        let n = (n, random.below(4));
        set(random, 70, "backoffLimit", n.1.into());
        if is_indexed && set(random, 30, "backoffLimitPerIndex", (n.1 % 2).into()) {
            set(random, 30, "maxFailedIndexes", (n.1 % 3).into());
        } else if is_indexed {
            let rule = match n.1 {
                0 => json!({ "succeededIndexes": "0" }),
                1 => json!({ "succeededCount": 1 }),
                _ => json!({ "succeededIndexes": "0-1", "succeededCount": 1 }),
            };
            set(random, 25, "successPolicy", json!({ "rules": [rule] }));
        }
        if set(random, 30, "podFailurePolicy", failure_policy()) {
            set(random, 30, "podReplacementPolicy", "Failed".into());
        } else if !set(random, 20, "podReplacementPolicy", "Failed".into()) {
            set(random, 30, "podReplacementPolicy", "TerminatingOrFailed".into());
        }
        let seconds = 5 + random.below(60);
        set(random, 15, "activeDeadlineSeconds", seconds.into());
        let seconds = random.below(20);
        set(random, 20, "ttlSecondsAfterFinished", seconds.into());
        set(random, 10, "suspend", true.into());
        let is_managed = random.in_100(30);
        let has_policy = spec.contains_key("podFailurePolicy");
        let mut job = JobCase::new(&format!("job-{}", n.0), is_managed, spec.into());
        if !has_policy
            && job.manifest["spec"].get("podReplacementPolicy") != Some(&json!("Failed"))
            && random.in_100(15)
        {
            job.manifest["spec"]["template"]["spec"]["restartPolicy"] = "OnFailure".into();
        }
        job.fails = random.one_of(&[0, 0, 15, 40, 70]);
        job.runs = Duration::from_millis(random.one_of(&[10, 1000, 8000, 30_000]));
        job
    }

    pub fn name(&self) -> &str {
        self.manifest["metadata"]["name"].as_str().unwrap_or_default()
    }

    pub fn is_managed(&self) -> bool {
        self.manifest["kind"] == "Job"
    }

    pub fn restarts_containers(&self) -> bool {
        self.manifest["spec"]["template"]["spec"]["restartPolicy"] == "OnFailure"
    }
}

fn failure_policy() -> Value {
    let on = |code: i32| json!({ "operator": "In", "values": [code] });
    json!({ "rules": [
        { "action": "Ignore", "onPodConditions": [{ "type": "DisruptionTarget", "status": "True" }] },
        { "action": "Ignore", "onExitCodes": on(42) },
        { "action": "FailJob", "onExitCodes": on(3) },
    ]})
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "seed {}: {:?}", self.seed, self.operators)?;
        for job in &self.jobs {
            let mut spec = job.manifest["spec"].clone();
            spec["template"] = spec["template"]["spec"]["restartPolicy"].take();
            writeln!(f, "  {} {} {spec}, of 100 fail {}", job.manifest["kind"], job.name(), job.fails)?;
        }
        for cron in &self.crons {
            let mut spec = cron.manifest["spec"].clone();
            spec["jobTemplate"] = Value::Null;
            writeln!(f, "  {} {spec}, of 100 fail {}", cron.name(), cron.fails)?;
        }
        writeln!(f, "  faults of 1,000: {}", self.rates)?;
        for (n, fault) in &self.script {
            writeln!(f, "  request {n}: {fault:?}")?;
        }
        for (at, deed) in &self.deeds {
            writeln!(f, "  {:7.3} s {deed:?}", at.as_secs_f64())?;
        }
        Ok(())
    }
}
