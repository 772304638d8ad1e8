//! All the others of a world: users, the scheduler, the kubelet, the garbage collector, and whoever meddles.

use std::sync::atomic::Ordering;
use std::time::Duration;

use batchjob_crd::keys;
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep_until};

use super::{LEASE, Pod, Task, World};
use crate::apiserver::{Kind, Refusal, gc};
use crate::case::{CronCase, Deed, Edit, Meddling, NAMESPACE, Refuses};
use crate::fault::up_to;
use crate::judge::{Note, lock};
use crate::others::{self, End};
use crate::random::Random;

/// What becomes of the pods of a job.
struct Nature {
    /// Of 100 attempts so many fail.
    fails: u64,
    /// How long a pod runs at most.
    runs: Duration,
    restarts_containers: bool,
}

impl World<'_> {
    /// The scheduler, the kubelet and the garbage collector see what has changed.
    pub(super) fn react(&mut self, note: &Note) {
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

    pub(super) fn perform(&mut self, task: Task) {
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
                    others::strategic(&self.server, "job-controller", Kind::Pod, &pod.name, &gone);
                }
            }
            Task::Bind(pod) => {
                if self.look(&pod, |it| it["spec"].get("nodeName").is_none()) == Some(true) {
                    others::bind(&self.server, &pod.name);
                    let delay = up_to(&mut self.random, 500);
                    self.after(delay, Task::Run(pod));
                }
            }
            Task::Run(pod) => {
                let is_new = |it: &Value| !is_deleted(it) && it["status"]["phase"] == "Pending";
                if self.look(&pod, is_new) == Some(true) {
                    others::runs(&self.server, &pod.name, &pod.uid, 0, now);
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
                    others::ends(&self.server, &pod.name, &pod.uid, end, restarts, now);
                }
                let delay = up_to(&mut self.random, 500);
                self.after(delay, Task::Remove(pod));
            }
            Task::Remove(pod) => {
                let has_grace =
                    |it: &Value| it["metadata"]["deletionGracePeriodSeconds"].as_i64().is_some_and(|grace| grace > 0);
                if self.look(&pod, has_grace) == Some(true) {
                    let options = json!({ "gracePeriodSeconds": 0, "preconditions": { "uid": pod.uid } });
                    others::delete(&self.server, "kubelet", Kind::Pod, &pod.name, &options);
                }
            }
        }
    }

    fn nature_of(&self, pod: &Pod) -> Option<Nature> {
        let name = self.look(&pod.clone(), |it| it["metadata"]["labels"][keys::JOB_NAME].as_str().map(str::to_owned));
        let name = name??;
        if let Some(job) = self.case.jobs.iter().find(|job| job.name() == name) {
            return Some(Nature { fails: job.fails, runs: job.runs, restarts_containers: job.restarts_containers() });
        }
        let is_run_of = |cron: &&CronCase| name.rsplit_once('-').is_some_and(|(owner, _)| owner == cron.name());
        let cron = self.case.crons.iter().find(is_run_of)?;
        Some(Nature { fails: cron.fails, runs: cron.runs, restarts_containers: false })
    }

    fn let_it_run(&mut self, pod: Pod) {
        let runs = self.nature_of(&pod).map_or(Duration::ZERO, |nature| nature.runs);
        let delay = up_to(&mut Random::of(&[self.case.seed, 6, hash(&pod.name)]), runs.as_millis() as u64);
        self.after(delay, Task::End(pod));
    }

    fn end(&mut self, pod: Pod, now: Timestamp) {
        let Some(job) = self.nature_of(&pod) else { return };
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
        if job.restarts_containers && matches!(end, End::Fails(_)) {
            let restarts = restarts + 1;
            self.restarts.insert(pod.uid.clone(), restarts);
            others::crashes(&self.server, &pod.name, &pod.uid, restarts, now);
            others::runs(&self.server, &pod.name, &pod.uid, restarts, now);
            let delay = Duration::from_secs(2) + up_to(&mut random, 5000);
            self.after(delay, Task::End(pod));
        } else {
            others::ends(&self.server, &pod.name, &pod.uid, end, restarts, now);
        }
    }

    pub(super) fn commit(&mut self, deed: Deed) {
        match deed {
            Deed::Create { job } => {
                let job = &self.case.jobs[job];
                let kind = kind_of(job.is_managed());
                if others::create(&self.server, "user", kind, &job.manifest) == 409 {
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
                others::delete(&self.server, "user", kind_of(job.is_managed()), job.name(), &options);
            }
            Deed::Pod { nth, what } => self.meddle(nth, what),
            Deed::CreateCron { cron } => {
                others::create(&self.server, "user", Kind::BatchCronJob, &self.case.crons[cron].manifest);
            }
            Deed::SuspendCron { cron, suspend } => self.merge_cron(cron, json!({ "spec": { "suspend": suspend } })),
            Deed::Trigger { cron, nth } => {
                let value = format!("value {nth}");
                self.merge_cron(cron, json!({ "metadata": { "annotations": { keys::TRIGGER: value } } }));
            }
            Deed::DeleteRun { nth } => {
                let runs = lock(&self.judge).schedules().written_down();
                if !runs.is_empty() {
                    let options = json!({ "propagationPolicy": "Background" });
                    let name = &runs[nth as usize % runs.len()];
                    others::delete(&self.server, "user", Kind::BatchJob, name, &options);
                }
            }
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
                others::delete(&self.server, "user", Kind::Lease, LEASE, &Value::Null);
            }
            Deed::LoseLease { seat, lasts } => self.seats[seat].life.hold(Kind::Lease, Instant::now() + lasts),
        }
    }

    fn merge_cron(&mut self, cron: usize, patch: Value) {
        others::merge(&self.server, "user", Kind::BatchCronJob, self.case.crons[cron].name(), "", &patch);
    }

    fn edit(&mut self, job: usize, edit: &Edit) {
        let job = &self.case.jobs[job];
        let spec = match edit {
            Edit::Parallelism(n) => json!({ "parallelism": n }),
            Edit::Size(n) => json!({ "completions": n, "parallelism": n }),
            Edit::Suspend(is_suspended) => json!({ "suspend": is_suspended }),
        };
        others::merge(&self.server, "user", kind_of(job.is_managed()), job.name(), "", &json!({ "spec": spec }));
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
        let is_over = |it: &Value| matches!(it["status"]["phase"].as_str(), Some("Succeeded" | "Failed"));
        let has_ended = self.server.with_object(Kind::Pod, NAMESPACE, name, is_over) == Some(true);
        let patch = |patch: Value| _ = others::merge(&self.server, "user", Kind::Pod, name, "", &patch);
        match what {
            Meddling::Delete => _ = others::delete(&self.server, "user", Kind::Pod, name, &Value::Null),
            Meddling::DeleteByForce => {
                others::delete(&self.server, "user", Kind::Pod, name, &json!({ "gracePeriodSeconds": 0 }));
            }
            // One that has ended is no disruption any more: it is only deleted (`canIgnorePDB` in `registry/core/pod/rest`).
            Meddling::Evict if has_ended => _ = others::delete(&self.server, "evictor", Kind::Pod, name, &Value::Null),
            Meddling::Evict => {
                let condition = json!({
                    "type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI",
                    "lastTransitionTime": self.now(),
                });
                let status = json!({ "status": { "conditions": [condition] } });
                others::merge(&self.server, "evictor", Kind::Pod, name, "/status", &status);
                others::delete(&self.server, "evictor", Kind::Pod, name, &Value::Null);
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

fn hash(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3))
}
