//! One job and the pods of its namespace, as the API server has them: JSON, which a pass reads through the operator's own
//! caches, and its plan carried out at once and without fault.
//!
//! What must hold whatever is in there is checked at every step: a world that breaks a law is an error, not a value.

use std::collections::BTreeMap;
use std::sync::Arc;

use batchjob_crd::BatchJobStatus;
use batchjob_decide::job::name::PodNames;
use batchjob_decide::job::{managed, pod};
use batchjob_decide::observed::{Door, Job, Obstacle};
use batchjob_decide::plan::{AttemptId, Counted, PodRef, Start};
use batchjob_decide::{Action, Observed, Plan, decide};
use batchjob_operator::observe::job::{AnyJob, JobKey, JobRecord, WireBatchJob, WireJob, WireManagedJob};
use batchjob_operator::observe::jobs::{JobSink, Jobs};
use batchjob_operator::observe::pods::Pods;
use batchjob_operator::observe::snapshot::{Snapshot, snapshot};
use batchjob_operator::observe::watch::{Change, Sink};
use batchjob_operator::observe::wire::{Place, PodRecord, WirePod};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

pub const NAMESPACE: &str = "team";
pub const JOB: &str = "etl";
pub const UID: &str = "7d1f8a0e-0000-4000-8000-000000000001";

/// More passes than one event can need: a plan that never comes to rest is a bug.
const MAX_PASSES: usize = 12;

/// An object has at most so much of what a pod, however odd, made us write.
const MAX_ADDED: usize = 16 * 1024;

/// Seconds of grace of every deletion that a kubelet has a part in.
const GRACE: i64 = 30;

#[derive(Clone, Debug)]
pub struct World {
    pub door: Door,
    /// None: it is deleted.
    pub job: Option<Value>,
    /// By uid.
    pub pods: BTreeMap<String, Value>,
    /// The same, as the operator keeps them.
    records: BTreeMap<String, PodRecord>,
    pub now: Timestamp,
    obstacle: Option<Obstacle>,
    version: u64,
    n_deleted: usize,
}

/// What one pass made of the job.
#[derive(Debug)]
pub enum Pass {
    Plan(Plan),
    /// A write has failed: what of the plan was carried out.
    CutOff(Plan),
    /// Its JSON is not that of its kind.
    Unreadable(String),
    /// It is none of ours, or gone.
    Nothing,
}

type Broken = String;

impl World {
    /// A job with that spec and status; a managed one brings its ledger along.
    pub fn new(door: Door, spec: Value, status: &BatchJobStatus, now: Timestamp) -> World {
        let mut world = World {
            door,
            job: None,
            pods: BTreeMap::new(),
            records: BTreeMap::new(),
            now,
            obstacle: None,
            version: 1,
            n_deleted: 0,
        };
        let version = world.next_version();
        world.job = Some(json!({
            "metadata": { "name": JOB, "namespace": NAMESPACE, "uid": UID, "generation": 1, "resourceVersion": version },
            "spec": spec,
        }));
        world.write_status(status);
        world
    }

    /// The pod of that attempt, as we create it.
    pub fn pod_of(&self, id: AttemptId) -> Option<Value> {
        let observed = self.observe_job()?;
        let mut pod =
            serde_json::to_value(pod::build(&observed.job, Start { id, n_failures: 0, n_ignored: 0 })).ok()?;
        pod["metadata"]["uid"] = format!("{}-{}", id.index, id.attempt).into();
        pod["metadata"]["creationTimestamp"] = self.now.to_string().into();
        Some(pod)
    }

    /// Puts it there, as somebody else's write.
    pub fn put(&mut self, mut pod: Value) -> Result<(), Broken> {
        pod["metadata"]["resourceVersion"] = self.next_version().into();
        let uid = text(&pod, "/metadata/uid");
        self.records.insert(uid.clone(), record(&pod)?);
        self.pods.insert(uid, pod);
        Ok(())
    }

    /// Pass after pass, until nothing more is wanted.
    pub fn settle(&mut self) -> Result<Vec<Plan>, Broken> {
        let mut plans: Vec<Plan> = Vec::new();
        for _ in 0..MAX_PASSES {
            let (plan, is_at_rest) = match self.pass()? {
                Pass::Plan(plan) => {
                    let is_at_rest = plan.is_empty();
                    (plan, is_at_rest)
                }
                Pass::CutOff(plan) => (plan, false),
                Pass::Unreadable(_) | Pass::Nothing => return Ok(plans),
            };
            plans.push(plan);
            if is_at_rest {
                let n_counted: u32 = plans.iter().map(|plan| plan.counted.succeeded + plan.counted.failed).sum();
                let n_pods = self.pods.len() + self.n_deleted;
                if n_counted as usize > n_pods {
                    return Err(format!("{n_counted} of {n_pods} pods are counted"));
                }
                return Ok(plans);
            }
        }
        Err(format!("no rest after {MAX_PASSES} passes: {plans:#?}"))
    }

    /// One pass, and what its plan writes.
    pub fn pass(&mut self) -> Result<Pass, Broken> {
        let Some(seen) = self.observe() else { return Ok(Pass::Nothing) };
        let observed = match seen {
            Snapshot::Job { observed, .. } => Observed { obstacle: self.obstacle.take(), ..observed },
            Snapshot::Unreadable { error, .. } => return Ok(Pass::Unreadable(error)),
            Snapshot::Gone => return Ok(Pass::Nothing),
        };
        let mut plan = decide(&observed);
        if decide(&observed) != plan {
            return Err("the same input gave another plan".to_owned());
        }
        let allowed = observed.job.spec.parallelism.unwrap_or(1).max(0) as usize;
        let n_starts = starts(&plan).count();
        if n_starts > allowed {
            return Err(format!("{n_starts} pods are started, and {allowed} are wanted"));
        }
        for (n, action) in plan.actions.iter().enumerate() {
            if !self.carry_out(&observed.job, action)? {
                // The first write that fails ends the plan.
                plan.actions.truncate(n);
                plan.counted = Counted::default();
                return Ok(Pass::CutOff(plan));
            }
        }
        Ok(Pass::Plan(plan))
    }

    fn carry_out(&mut self, job: &Job, action: &Action) -> Result<bool, Broken> {
        match action {
            Action::CreatePod(start) => return self.create(job, *start),
            Action::AdoptPod(pod) => {
                let found = self.found(pod, |record| record.owner.is_none() && record.place().uid() == UID)?;
                found["metadata"]["ownerReferences"] = json!([pod::owner(job)]);
                let finalizers = found.pointer_mut("/metadata/finalizers").and_then(Value::as_array_mut);
                let finalizer = Value::from(pod::finalizer(job.door));
                match finalizers {
                    Some(finalizers) if finalizers.contains(&finalizer) => {}
                    Some(finalizers) => finalizers.push(finalizer),
                    None => found["metadata"]["finalizers"] = json!([finalizer]),
                }
                self.changed(&pod.uid)?;
            }
            Action::DeletePod(pod) => {
                let now = self.now;
                let found = self.found(pod, is_of_the_job)?;
                let has_ended = matches!(&*text(found, "/status/phase"), "Succeeded" | "Failed");
                let waits = !text(found, "/spec/nodeName").is_empty() && !has_ended;
                let grace = if waits { GRACE } else { 0 };
                if found["metadata"]["deletionTimestamp"].is_null() {
                    let deadline = now.checked_add(SignedDuration::from_secs(grace)).unwrap_or(Timestamp::MAX);
                    found["metadata"]["deletionTimestamp"] = deadline.to_string().into();
                    found["metadata"]["deletionGracePeriodSeconds"] = grace.into();
                }
                self.changed(&pod.uid)?;
            }
            Action::ReleasePod(pod) => {
                let finalizer = pod::finalizer(job.door);
                let found = self.found(pod, |record| record.holder == Some(job.door) && is_of_the_job(record))?;
                if let Some(list) = found.pointer_mut("/metadata/finalizers").and_then(Value::as_array_mut) {
                    list.retain(|held| held != finalizer);
                }
                self.changed(&pod.uid)?;
            }
            Action::DisownPod(pod) => {
                let finalizer = pod::finalizer(job.door);
                let found = self.found(pod, is_of_the_job)?;
                for (list, ours) in [("ownerReferences", UID), ("finalizers", finalizer)] {
                    if let Some(list) = found["metadata"].get_mut(list).and_then(Value::as_array_mut) {
                        list.retain(|entry| entry != ours && entry["uid"] != ours);
                    }
                }
                self.changed(&pod.uid)?;
            }
            Action::WriteStatus(status) => {
                let (before, after) = (size(&job.status)?, size(status)?);
                if after > 2 * before + MAX_ADDED {
                    return Err(format!("the status grows from {before} to {after} bytes"));
                }
                self.write_status(status);
                let read = self.observe_job().ok_or("a job whose status was written cannot be read")?;
                if read.job.status != **status || read.job.has_lost_its_ledger {
                    return Err(format!("written: {status:#?}\nread: {:#?}", read.job.status));
                }
            }
            Action::DeleteJob => self.job = None,
        }
        Ok(true)
    }

    /// False: there is a pod of that name, which is not the job's.
    fn create(&mut self, job: &Job, start: Start) -> Result<bool, Broken> {
        let name = PodNames::of(job).write(start.id);
        let has_its_name = |record: &&PodRecord| *record.pod.name == *name && *record.namespace == *NAMESPACE;
        if let Some(record) = self.records.values().find(has_its_name) {
            if record.place().uid() == UID {
                return Err(format!("{name} is created while the job has it"));
            }
            self.obstacle = Some(Obstacle::NameTaken(start.id));
            return Ok(false);
        }
        let mut pod = serde_json::to_value(pod::build(job, start)).map_err(|error| error.to_string())?;
        let version = self.next_version();
        pod["metadata"]["uid"] = format!("created-{version}").into();
        pod["metadata"]["creationTimestamp"] = self.now.to_string().into();
        self.put(pod)?;
        Ok(true)
    }

    /// The pod that a write is about; an error if it is another one than was seen, or none that may be written to.
    fn found(&mut self, pod: &PodRef, may_be_written: impl Fn(&PodRecord) -> bool) -> Result<&mut Value, Broken> {
        let found = self.pods.get_mut(&*pod.uid).ok_or_else(|| format!("there is no pod {pod:?}"))?;
        let record = self.records.get(&*pod.uid).ok_or("each has a record")?;
        if *record.namespace != *NAMESPACE || !may_be_written(record) {
            return Err(format!("{pod:?} is not to be written to: {record:?}"));
        }
        Ok(found)
    }

    /// The API server removes what is deleted, has no finalizer and waits for no kubelet.
    fn changed(&mut self, uid: &str) -> Result<(), Broken> {
        let version = self.next_version();
        let Some(pod) = self.pods.get_mut(uid) else { return Ok(()) };
        pod["metadata"]["resourceVersion"] = version.into();
        let metadata = &pod["metadata"];
        let is_deleted = metadata["deletionTimestamp"].is_string();
        let is_held = metadata["finalizers"].as_array().is_some_and(|finalizers| !finalizers.is_empty());
        let grace = metadata["deletionGracePeriodSeconds"].as_i64().unwrap_or_default();
        let has_ended = matches!(&*text(pod, "/status/phase"), "Succeeded" | "Failed");
        if is_deleted && !is_held && (grace <= 0 || has_ended) {
            self.pods.remove(uid);
            self.records.remove(uid);
            self.n_deleted += 1;
        } else {
            self.records.insert(uid.to_owned(), record(pod)?);
        }
        Ok(())
    }

    fn write_status(&mut self, status: &BatchJobStatus) {
        let version = self.next_version();
        let as_seen = self.observe_job().map(|observed| observed.job);
        let Some(job) = &mut self.job else { return };
        job["metadata"]["resourceVersion"] = version.into();
        match (self.door, as_seen) {
            (Door::ManagedJob, Some(seen)) => {
                let (status, ledger) = managed::write(&seen, status);
                job["status"] = json!(status);
                job["metadata"]["annotations"] = json!({ batchjob_crd::keys::LEDGER: ledger });
            }
            _ => job["status"] = json!(status),
        }
    }

    fn observe_job(&self) -> Option<Observed> {
        match self.observe()? {
            Snapshot::Job { observed, .. } => Some(observed),
            Snapshot::Unreadable { .. } | Snapshot::Gone => None,
        }
    }

    /// As the operator sees it: through its caches.
    pub fn observe(&self) -> Option<Snapshot> {
        let jobs = Arc::new(Jobs::default());
        let job = self.job.clone()?;
        match self.door {
            Door::BatchJob => fill::<WireBatchJob>(&jobs, job)?,
            Door::ManagedJob => fill::<WireManagedJob>(&jobs, job)?,
        }
        let pods = Pods::default();
        for record in self.records.values() {
            pods.created(record.clone());
        }
        let key = JobKey { door: self.door, namespace: NAMESPACE.into(), name: JOB.into() };
        Some(snapshot(&jobs, &pods, &key, self.now))
    }

    fn next_version(&mut self) -> String {
        self.version += 1;
        self.version.to_string()
    }
}

fn fill<W: WireJob>(jobs: &Arc<Jobs>, job: Value) -> Option<()> {
    let record = AnyJob::record(serde_json::from_value::<W>(job).ok()?.into())?;
    JobSink::<W, _>::new(jobs.clone(), |_: &JobRecord| {}).change(Change::Applied(record));
    Some(())
}

/// A pod as the operator keeps it.
pub fn record(pod: &Value) -> Result<PodRecord, Broken> {
    let wire: WirePod = serde_json::from_value(pod.clone()).map_err(|error| format!("{error}: {pod}"))?;
    Ok(PodRecord::from(wire))
}

fn is_of_the_job(record: &PodRecord) -> bool {
    record.place() == Place::Owned(UID.into())
}

fn starts(plan: &Plan) -> impl Iterator<Item = AttemptId> {
    plan.actions.iter().filter_map(|action| match action {
        Action::CreatePod(start) => Some(start.id),
        _ => None,
    })
}

fn size(status: &BatchJobStatus) -> Result<usize, Broken> {
    serde_json::to_vec(status).map(|text| text.len()).map_err(|error| error.to_string())
}

pub fn text(object: &Value, pointer: &str) -> String {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned()
}
