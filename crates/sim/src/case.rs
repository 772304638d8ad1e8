//! A case: the jobs, what becomes of their pods, what users and others do, and what goes wrong. All of it is a function of
//! its seed.

use std::fmt;
use std::time::Duration;

use batchjob_crd::keys;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::fault::{Rates, RequestFault, up_to};
use crate::random::Random;

/// From then on nothing goes wrong any more, and users have done what they do.
pub const FAIR_AFTER: Duration = Duration::from_secs(90);

pub const NAMESPACE: &str = "default";

/// What is played.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Case {
    pub seed: u64,
    pub jobs: Vec<JobCase>,
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
