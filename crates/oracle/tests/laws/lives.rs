//! Random lives of jobs, driven by the real decisions: the laws must not be broken by what is right.
//!
//! One world of one job: a server, a cache that may be behind, a kubelet, a user, and an operator that dies between any two
//! actions. A seed that fails is printed with its violations; `LIVES=100000` plays more of them.

use std::collections::BTreeMap;
use std::sync::Arc;

use batchjob_crd::{BatchJobSpec, BatchJobStatus, keys};
use batchjob_decide::job::managed;
use batchjob_decide::job::name::PodNames;
use batchjob_decide::observed::{
    Condition, Container, ContainerState, Deletion, Door, Job, Observed, Pod, PodCondition, PodPhase, Role,
};
use batchjob_decide::plan::PodRef;
use batchjob_decide::{Action, decide};
use batchjob_oracle::{Change, End, Event, Object, Oracle, Promises, Violation};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

const LIVES: u64 = 1000;
const STEPS: u64 = 60;

#[test]
fn what_is_right_breaks_no_law() {
    let n_lives = std::env::var("LIVES").ok().and_then(|n| n.parse().ok()).unwrap_or(LIVES);
    let mut n_ends = BTreeMap::<String, u64>::new();
    for seed in 0..n_lives {
        let (mut life, violations) = Life::live(seed, false);
        if !violations.is_empty() {
            // The same again, in words.
            life = Life::live(seed, true).0;
        }
        let said: Vec<String> = violations.iter().map(Violation::to_string).collect();
        assert!(
            said.is_empty(),
            "seed {seed}: {said:#?}\nspec {}\n{}",
            life.job_json()["spec"],
            life.told.iter().flatten().cloned().collect::<Vec<_>>().join("\n")
        );
        *n_ends.entry(life.verdict()).or_default() += 1;
    }
    println!("{n_lives} lives: {n_ends:?}");
    assert!(n_lives < LIVES || n_ends.len() > 6, "lives of many kinds: {n_ends:?}");
}

/// What the operator sees, and what is.
#[derive(Clone)]
struct Objects {
    job: Arc<Job>,
    version: u64,
    is_gone: bool,
    pods: BTreeMap<Box<str>, Arc<Pod>>,
}

struct Life {
    random: u64,
    now: Timestamp,
    revision: u64,
    server: Objects,
    cache: Objects,
    /// Others delete pods too.
    deletes_pods: bool,
    oracle: Oracle,
    /// What has happened, in words, where it is wanted.
    told: Option<Vec<String>>,
}

impl Life {
    fn live(seed: u64, is_told: bool) -> (Life, Vec<Violation>) {
        let mut life = Life::new(seed, is_told);
        for _ in 0..STEPS {
            life.step();
        }
        let quiet_since = life.come_to_rest();
        let end = End::Settled { quiet_since, at: life.now };
        let oracle = std::mem::replace(&mut life.oracle, Oracle::new(Promises::default()));
        let violations = oracle.finish(end);
        (life, violations)
    }

    fn new(seed: u64, is_told: bool) -> Life {
        let now = Timestamp::from_second(1_000_000).expect("a time");
        // Where nobody else does it, the operator must have a reason for every pod that it deletes.
        let deletes_pods = seed.is_multiple_of(2);
        let mut life = Life {
            random: (seed + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15),
            now,
            revision: 1,
            server: Objects { job: Arc::default(), version: 1, is_gone: false, pods: BTreeMap::new() },
            cache: Objects { job: Arc::default(), version: 1, is_gone: false, pods: BTreeMap::new() },
            deletes_pods,
            oracle: Oracle::new(Promises { deletions: deletes_pods, ..Promises::default() }),
            told: is_told.then(Vec::new),
        };
        let door = if life.chance(50) { Door::BatchJob } else { Door::ManagedJob };
        let job = Job {
            door,
            namespace: "default".to_owned(),
            name: "etl".to_owned(),
            uid: format!("uid-{seed}"),
            generation: 1,
            spec: life.draw_spec(door),
            ..Job::default()
        };
        life.server.job = Arc::new(job);
        life.cache = life.server.clone();
        life.see_job(Change::Added);
        life
    }

    fn draw_spec(&mut self, door: Door) -> BatchJobSpec {
        let n = 1 + self.below(4);
        let mut spec = json!({
            "parallelism": 1 + self.below(4),
            "template": { "spec": { "restartPolicy": "Never", "containers": [{ "name": "main" }] } },
        });
        if !self.chance(15) {
            spec["completions"] = n.into();
            if self.chance(60) {
                spec["completionMode"] = "Indexed".into();
                if self.chance(30) {
                    spec["parallelism"] = n.into();
                }
                if self.chance(30) {
                    spec["backoffLimitPerIndex"] = self.below(2).into();
                }
                if spec.get("backoffLimitPerIndex").is_some() && self.chance(50) {
                    spec["maxFailedIndexes"] = self.below(2).into();
                }
                if self.chance(25) {
                    spec["successPolicy"] = json!({ "rules": [{ "succeededCount": 1 + self.below(n) }] });
                }
            }
        }
        if self.chance(60) {
            spec["backoffLimit"] = self.below(4).into();
        }
        if self.chance(30) {
            let actions = ["Ignore", "FailJob", "Count"];
            let action = actions[self.below(3) as usize];
            spec["podFailurePolicy"] = json!({ "rules": [
                { "action": action, "onExitCodes": { "operator": "In", "values": [2] } },
                { "action": "Ignore", "onPodConditions": [{ "type": "DisruptionTarget", "status": "True" }] },
            ] });
        } else if self.chance(30) {
            spec["podReplacementPolicy"] = "Failed".into();
        }
        if self.chance(15) {
            spec["activeDeadlineSeconds"] = self.below(200).into();
        }
        if self.chance(10) {
            spec["suspend"] = true.into();
        }
        if door == Door::ManagedJob {
            spec["managedBy"] = keys::MANAGED_BY.into();
        }
        serde_json::from_value(spec).expect("a spec")
    }

    fn below(&mut self, n: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random >> 20) % n
    }

    fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    fn step(&mut self) {
        let millis = self.below(3000);
        self.now += SignedDuration::from_millis(millis as i64);
        match self.below(100) {
            0..45 => {
                self.refresh();
                let dies_after = if self.chance(20) { self.below(4) as usize } else { usize::MAX };
                self.pass(dies_after);
            }
            45..85 => {
                self.kubelet(false);
            }
            85..90 => {
                let seconds = self.below(60);
                self.now += SignedDuration::from_secs(seconds as i64);
            }
            90..98 => self.edit(),
            98 if self.chance(20) => self.delete_job(),
            _ if self.deletes_pods => self.delete_pod(),
            _ => {}
        }
    }

    /// What the watches have told meanwhile: nothing, something, or all of it.
    fn refresh(&mut self) {
        let (jobs, pods) = match self.below(6) {
            0 => (false, false),
            1 => (true, false),
            2 => (false, true),
            _ => (true, true),
        };
        if jobs {
            (self.cache.job, self.cache.version) = (self.server.job.clone(), self.server.version);
            self.cache.is_gone = self.server.is_gone;
        }
        if pods {
            self.cache.pods = self.server.pods.clone();
        }
    }

    /// Answers whether there was nothing to do.
    fn pass(&mut self, dies_after: usize) -> bool {
        if self.cache.is_gone {
            return self.sweep();
        }
        let observed = Observed {
            job: self.cache.job.clone(),
            pods: self.cache.pods.values().cloned().collect(),
            orphans: Vec::new(),
            obstacle: None,
            now: self.now,
        };
        let plan = decide(&observed);
        let is_empty = plan.is_empty();
        for (n, action) in plan.actions.into_iter().enumerate() {
            if n == dies_after {
                let now = self.now;
                self.tell(|| format!("{now} it dies"));
                // The next one begins with a consistent read.
                self.cache = self.server.clone();
                return false;
            }
            if !self.act(action) {
                return false;
            }
        }
        is_empty
    }

    /// The pods of a job that is gone.
    fn sweep(&mut self) -> bool {
        let held: Vec<PodRef> = self.cache.pods.values().filter(|pod| pod.is_held).map(|pod| (&**pod).into()).collect();
        let is_empty = held.is_empty();
        for pod in held {
            self.act(Action::ReleasePod(pod));
        }
        is_empty
    }

    /// Answers whether it was done.
    fn act(&mut self, action: Action) -> bool {
        match action {
            Action::CreatePod(start) => {
                let name: Box<str> = PodNames::of(&self.server.job).write(start.id).into();
                if self.server.is_gone {
                    return false;
                }
                if let Some(there) = self.server.pods.get(&name) {
                    self.cache.pods.insert(name, there.clone());
                    return true;
                }
                let created = Timestamp::from_second(self.now.as_second()).ok();
                let uid = format!("pod-{}", self.revision).into();
                let has_node = self.chance(80).then(|| "node-1".into());
                let pod =
                    Pod { name, uid, created, is_held: true, is_selected: true, node: has_node, ..Pod::default() };
                self.put(pod, Change::Added, true);
                true
            }
            Action::WriteStatus(status) => {
                if self.server.version != self.cache.version || self.server.is_gone {
                    return false;
                }
                self.write(*status);
                true
            }
            Action::DeletePod(seen) => {
                let Some(there) = self.server.pods.get(&seen.name).filter(|there| there.uid == seen.uid) else {
                    self.cache.pods.remove(&seen.name);
                    return true;
                };
                if there.resource_version != seen.resource_version {
                    return false;
                }
                let told = self.told_to_go(there);
                self.put(told, Change::Modified, true);
                true
            }
            Action::ReleasePod(seen) => {
                let Some(there) = self.server.pods.get(&seen.name).filter(|there| there.uid == seen.uid) else {
                    self.cache.pods.remove(&seen.name);
                    return true;
                };
                let pod = Pod { is_held: false, ..(**there).clone() };
                let is_over = pod.deletion.is_some_and(|deletion| deletion.grace_seconds == 0);
                self.put(pod, if is_over { Change::Deleted } else { Change::Modified }, true);
                true
            }
            Action::AdoptPod(_) | Action::DisownPod(_) | Action::DeleteJob => false,
        }
    }

    fn told_to_go(&self, pod: &Pod) -> Pod {
        // Where no node has it there is nobody to wait for.
        let grace_seconds = if pod.node.is_some() && pod.phase != PodPhase::Succeeded { 30 } else { 0 };
        let asked = Timestamp::from_second(self.now.as_second()).unwrap_or(self.now);
        Pod { deletion: Some(pod.deletion.unwrap_or(Deletion { asked, grace_seconds })), ..pod.clone() }
    }

    /// Writes a pod, and, if it is the operator's own write, what comes back into its cache.
    fn put(&mut self, mut pod: Pod, mut change: Change, is_own: bool) {
        self.revision += 1;
        pod.resource_version = self.revision.to_string().into();
        let is_over = pod.deletion.is_some_and(|deletion| deletion.grace_seconds == 0) && !pod.is_held;
        if is_over {
            change = Change::Deleted;
        }
        let json = self.pod_json(&pod);
        let (now, revision) = (self.now, self.revision);
        let words = |pod: &Pod| {
            let grace = pod.deletion.map(|deletion| deletion.grace_seconds);
            let word = if pod.is_held { "" } else { " let go" };
            format!("{now} {revision} {change:?} {} {:?} {grace:?}{word}", pod.name, pod.phase)
        };
        self.tell(|| words(&pod));
        let (name, pod) = (pod.name.clone(), Arc::new(pod));
        let caches: &mut [&mut Objects] =
            if is_own { &mut [&mut self.server, &mut self.cache] } else { &mut [&mut self.server] };
        for objects in caches {
            match change {
                Change::Deleted => drop(objects.pods.remove(&name)),
                _ => drop(objects.pods.insert(name.clone(), pod.clone())),
            }
        }
        self.see(change, &json);
    }

    fn write(&mut self, status: BatchJobStatus) {
        self.revision += 1;
        let mut job = (*self.server.job).clone();
        job.status = match job.door {
            Door::BatchJob => status,
            Door::ManagedJob => {
                let (written, ledger) = managed::write(&job, &status);
                managed::read(&job.uid, &written, Some(&ledger)).status
            }
        };
        (self.server.job, self.server.version) = (Arc::new(job), self.revision);
        (self.cache.job, self.cache.version) = (self.server.job.clone(), self.revision);
        self.see_job(Change::Modified);
    }

    /// One step of one pod. If all is to come to rest nothing fails any more, and what is told to go goes.
    fn kubelet(&mut self, is_calm: bool) -> bool {
        let open = |pod: &&Arc<Pod>| {
            !matches!(pod.phase, PodPhase::Succeeded | PodPhase::Failed)
                || pod.deletion.is_some_and(|deletion| deletion.grace_seconds > 0)
        };
        let open: Vec<Arc<Pod>> = self.server.pods.values().filter(open).cloned().collect();
        let leaving = |pod: &Arc<Pod>| pod.deletion.is_some_and(|deletion| deletion.grace_seconds == 0);
        let open: Vec<Arc<Pod>> = open.into_iter().filter(|pod| !leaving(pod)).collect();
        if open.is_empty() {
            return false;
        }
        let mut pod = (*open[self.below(open.len() as u64) as usize]).clone();
        let has_ended = matches!(pod.phase, PodPhase::Succeeded | PodPhase::Failed);
        match (pod.deletion, pod.phase) {
            (Some(deletion), _) if has_ended => {
                pod.deletion = Some(Deletion { grace_seconds: 0, ..deletion });
            }
            (Some(_), _) => {
                let code = if !is_calm && self.chance(20) { 0 } else { 143 };
                self.ends(&mut pod, code);
            }
            _ if pod.node.is_none() => pod.node = Some("node-1".into()),
            (None, PodPhase::Pending) => {
                pod.phase = PodPhase::Running;
                pod.ready = Some(Condition { is_true: true, since: Some(self.now) });
            }
            (None, _) => {
                let code = match self.below(10) {
                    0..5 => 0,
                    5..8 => 1,
                    _ => 2,
                };
                self.ends(&mut pod, if is_calm { 0 } else { code });
                if pod.phase == PodPhase::Failed && self.chance(20) {
                    pod.conditions = [PodCondition { type_: "DisruptionTarget".into(), status: "True".into() }].into();
                }
            }
        }
        self.put(pod, Change::Modified, false);
        true
    }

    fn ends(&mut self, pod: &mut Pod, exit_code: i32) {
        pod.phase = if exit_code == 0 { PodPhase::Succeeded } else { PodPhase::Failed };
        pod.ready = Some(Condition { is_true: false, since: Timestamp::from_second(self.now.as_second()).ok() });
        let finished_at = Timestamp::from_second(self.now.as_second()).ok();
        let state = ContainerState::Terminated { exit_code, reason: "Ended".into(), finished_at };
        pod.containers =
            [Container { name: "main".into(), role: Role::Main, restarts: 0, state, last_exit_code: None }].into();
    }

    fn edit(&mut self) {
        if self.server.is_gone {
            return;
        }
        let mut job = (*self.server.job).clone();
        let is_indexed = job.spec.completion_mode == Some(batchjob_crd::CompletionMode::Indexed);
        let n = self.below(5) as i32;
        match self.below(6) {
            0 | 1 => job.spec.suspend = Some(!job.spec.suspend.unwrap_or_default()),
            2 => job.spec.parallelism = Some(n),
            3 if is_indexed && job.spec.success_policy.is_none() => {
                (job.spec.completions, job.spec.parallelism) = (Some(n), Some(n));
            }
            4 => job.spec.backoff_limit = Some(n),
            5 if job.spec.pod_failure_policy.is_none() => {
                let policies = [None, Some(batchjob_crd::PodReplacementPolicy::Failed)];
                job.spec.pod_replacement_policy = policies[(n % 2) as usize];
            }
            _ => return,
        }
        self.change(job);
    }

    fn change(&mut self, mut job: Job) {
        self.revision += 1;
        job.generation += 1;
        (self.server.job, self.server.version) = (Arc::new(job), self.revision);
        self.see_job(Change::Modified);
    }

    fn delete_pod(&mut self) {
        let living: Vec<Arc<Pod>> = self.server.pods.values().filter(|pod| pod.deletion.is_none()).cloned().collect();
        if !living.is_empty() {
            let drawn = self.below(living.len() as u64) as usize;
            let told = self.told_to_go(&living[drawn]);
            self.put(told, Change::Modified, false);
        }
    }

    /// In the background: the garbage collector takes the pods.
    fn delete_job(&mut self) {
        if self.server.is_gone {
            return;
        }
        self.revision += 1;
        self.server.is_gone = true;
        self.see_job(Change::Deleted);
        let pods: Vec<Arc<Pod>> = self.server.pods.values().cloned().collect();
        for pod in pods {
            let told = self.told_to_go(&pod);
            self.put(told, Change::Modified, false);
        }
    }

    /// No more faults: all pods run to their ends. Answers with when there was nothing to do any more.
    fn come_to_rest(&mut self) -> Timestamp {
        if !self.server.is_gone {
            let mut job = (*self.server.job).clone();
            job.spec.suspend = None;
            job.spec.parallelism = job.spec.parallelism.max(Some(1));
            if job.spec != self.server.job.spec {
                self.change(job);
            }
        }
        for _ in 0..2000 {
            self.cache = self.server.clone();
            self.now += SignedDuration::from_secs(1);
            let has_rested = self.pass(usize::MAX);
            let has_moved = self.kubelet(true);
            if has_rested && !has_moved {
                self.now += SignedDuration::from_secs(700);
                self.cache = self.server.clone();
                if self.pass(usize::MAX) {
                    self.now += SignedDuration::from_secs(700);
                    return self.now - SignedDuration::from_secs(700);
                }
            }
        }
        panic!("seed {}: it does not come to rest: {:#?}", self.server.job.uid, self.told);
    }

    fn verdict(&self) -> String {
        let status = &self.server.job.status;
        let end = ["Complete", "Failed"];
        let found = status.conditions.iter().find(|found| end.contains(&&*found.type_) && found.status == "True");
        match found {
            _ if self.server.is_gone => "gone".to_owned(),
            Some(found) => format!("{} {}", found.type_, found.reason),
            None => "open".to_owned(),
        }
    }

    fn tell(&mut self, words: impl FnOnce() -> String) {
        if let Some(told) = &mut self.told {
            told.push(words());
        }
    }

    fn see_job(&mut self, change: Change) {
        let json = self.job_json();
        let (now, revision) = (self.now, self.revision);
        self.tell(|| format!("{now} {revision} {change:?} spec {} status {}", brief(&json["spec"]), json["status"]));
        self.see(change, &json);
    }

    fn see(&mut self, change: Change, json: &Value) {
        let event = Event { revision: self.revision, at: self.now, change, object: Object::read(json), writer: None };
        self.oracle.see(&event);
    }

    fn job_json(&mut self) -> Value {
        let job = &self.server.job;
        let mut json = json!({
            "metadata": { "namespace": job.namespace, "name": job.name, "uid": job.uid, "generation": job.generation },
            "spec": job.spec,
        });
        match job.door {
            Door::BatchJob => {
                json["kind"] = "BatchJob".into();
                json["status"] = serde_json::to_value(&job.status).unwrap_or_default();
            }
            Door::ManagedJob => {
                let (status, ledger) = managed::write(job, &job.status);
                json["kind"] = "Job".into();
                json["status"] = serde_json::to_value(status).unwrap_or_default();
                json["metadata"]["annotations"] = json!({ keys::LEDGER: ledger });
                // The API server fills it in.
                if job.spec.completions.is_none() && job.spec.parallelism.is_none() {
                    json["spec"]["completions"] = 1.into();
                }
            }
        }
        json
    }

    fn pod_json(&self, pod: &Pod) -> Value {
        let job = &self.server.job;
        let id = PodNames::of(job).read(&pod.name).expect("a name");
        let finalizer = if job.door == Door::BatchJob { keys::POD_FINALIZER } else { keys::JOB_POD_FINALIZER };
        let finalizers: Vec<&str> = if pod.is_held { vec![finalizer] } else { Vec::new() };
        let mut json = json!({
            "kind": "Pod",
            "metadata": {
                "namespace": job.namespace, "name": pod.name, "uid": pod.uid, "creationTimestamp": pod.created,
                "finalizers": finalizers, "ownerReferences": [{ "uid": job.uid, "controller": true }],
                "labels": { keys::CONTROLLER_UID: job.uid, keys::INDEX: id.index.to_string() },
            },
            "spec": { "nodeName": pod.node },
            "status": { "phase": format!("{:?}", pod.phase) },
        });
        if let Some(deletion) = pod.deletion {
            let at = deletion.asked + SignedDuration::from_secs(deletion.grace_seconds);
            json["metadata"]["deletionTimestamp"] = at.to_string().into();
            json["metadata"]["deletionGracePeriodSeconds"] = deletion.grace_seconds.into();
        }
        let mut conditions: Vec<Value> =
            pod.conditions.iter().map(|it| json!({ "type": it.type_, "status": it.status })).collect();
        if let Some(ready) = pod.ready {
            let status = if ready.is_true { "True" } else { "False" };
            conditions.push(json!({ "type": "Ready", "status": status, "lastTransitionTime": ready.since }));
        }
        json["status"]["conditions"] = conditions.into();
        if let Some(ContainerState::Terminated { exit_code, finished_at, .. }) =
            pod.containers.first().map(|it| &it.state)
        {
            let state = json!({ "terminated": { "exitCode": exit_code, "finishedAt": finished_at } });
            json["status"]["containerStatuses"] = json!([{ "name": "main", "state": state }]);
        }
        json
    }
}

fn brief(spec: &Value) -> String {
    let mut spec = spec.clone();
    if let Some(fields) = spec.as_object_mut() {
        fields.remove("template");
    }
    spec.to_string()
}
